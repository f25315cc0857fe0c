"""Findings of ``framegate doctor`` about bundles: whether each opens, and who signed it."""

from __future__ import annotations

from pathlib import Path

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.search import named_bundles
from framegate.runtime.bundle.signature import read_signature
from framegate.runtime.errors import FramegateError


def bundle_findings(given: list[str], trust: Path | None) -> list[tuple[str, bool, str]]:
    """(what, usable, explanation) of each bundle.

    Args:
        given: Paths or names of bundles; none: all that can be given by name from here.
        trust: PEM file with a public Ed25519 key; a bundle that its holder has not signed is not usable.
    """
    bundles = given or [str(each.path.absolute()) for each in named_bundles() if not each.hidden]
    return [_finding(bundle, trust) for bundle in bundles]


def _finding(given: str, trust: Path | None) -> tuple[str, bool, str]:
    name = f"bundle {Path(given).name.removesuffix('.bundle')}"
    try:
        bundle = Bundle.open(given, trust)
        return name, True, f"{signed_by(bundle, trust)}; digest {bundle.digest[:16]}..."
    except FramegateError as error:
        return name, False, str(error)


def signed_by(bundle: Bundle, trust: Path | None = None) -> str:
    """Whether a bundle is signed, by which key, and whether that was checked when it was opened.

    Raises:
        BundleError: Its signature cannot be read.
    """
    signature = read_signature(bundle.path)
    if signature is None:
        return "not signed"
    checked = f"checked with {trust}" if trust else "not checked: give the key with --trust"
    return f"signed by key {signature.fingerprint}, {checked}"
