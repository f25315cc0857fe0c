"""Writes a bundle so that its name never stands for an incomplete one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from framegate.runtime.bundle.bundle import CALIBRATION, MANIFEST, Bundle, seal, write_bundle_json
from framegate.runtime.bundle.calibration import FORMAT as CALIBRATION_FORMAT
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.bundle.certificates import FILE as CERTIFICATES
from framegate.runtime.bundle.certificates import FORMAT as CERTIFICATES_FORMAT
from framegate.runtime.bundle.certificates import CertificateRecord, labels_sha256
from framegate.runtime.bundle.object_promises import ObjectPromise, with_promise
from framegate.runtime.bundle.search import bundle_to_change
from framegate.runtime.bundle.signature import FILE as SIGNATURE
from framegate.runtime.errors import BundleError, UsageError
from framegate.runtime.preprocess import PreprocessSpec

SUFFIX = ".bundle"


def check_target(target: Path, force: bool) -> None:
    """Find out before the long work whether the bundle can be written.

    Raises:
        UsageError: The name does not end in ``.bundle``.
        BundleError: Something is there already and may not be replaced, or the folder cannot be written.
    """
    if target.suffix != SUFFIX or not target.stem:
        raise UsageError(f"out: {target} given, expected a name that ends in {SUFFIX}")
    if os.path.lexists(target):
        if not force:
            raise BundleError(f"bundle {target}: exists already; give --force to replace it, or another name")
        if not os.path.isfile(target / MANIFEST) or os.path.islink(target):
            raise BundleError(f"bundle {target}: something that is no bundle lies there; move it or give another name")
    parent = target.absolute().parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not (os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)):
        raise BundleError(f"bundle {target}: cannot write in {parent}; give another folder")


def to_change(given: str | os.PathLike[str]) -> Path:
    """The folder of a bundle that a command will replace by a changed one, looked at before the long work.

    Raises:
        BundleError: There is none, it is a link, holds folders, or cannot be written.
        UsageError: It was found elsewhere by its name alone, or its name does not end in ``.bundle``.
    """
    path = bundle_to_change(given)
    check_target(path, force=True)
    for entry in sorted(path.iterdir()):
        if entry.is_dir():
            raise BundleError(f"bundle {path}: it holds a folder, {entry.name}; a bundle holds files only, move it")
    _require_nothing_besides(Bundle.open(path), path)
    return path


def _require_nothing_besides(bundle: Bundle, folder: Path) -> None:
    """Refuse files that the manifest does not name: nothing has checked them, and a new manifest would vouch for them.

    Raises:
        BundleError: There is one.
    """
    for name in sorted({each.name for each in folder.iterdir()} - {*bundle.hashes, MANIFEST, SIGNATURE}):
        raise BundleError(
            f"bundle {bundle.path}: it holds {name}, which its {MANIFEST} does not name; move that file out of it"
        )


@contextmanager
def staged(target: Path, force: bool) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its name when the block ends well, and vanishes when it does not.

    Before it takes the name it is opened as a bundle, so every hash has been checked once.

    Raises:
        BundleError: See `check_target`, or what was written is not a complete bundle.
    """
    check_target(target, force)
    parent = target.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=parent))
    except OSError as error:
        raise BundleError(f"bundle {target}: cannot write in {parent} ({error.strerror})") from error
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp makes it private; a bundle is for every user of the machine
        Bundle.open(folder)
        _take_name(folder, target)
    except OSError as error:
        raise BundleError(f"bundle {target}: writing failed ({error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def edited(bundle: Bundle) -> Iterator[Path]:
    """A copy of a bundle that can be changed, and that replaces the bundle when the block ends well.

    Args:
        bundle: As it was opened; what is written was made from what it said then.

    Raises:
        BundleError: See `staged`; or somebody else has changed the bundle since, and would lose it.
    """
    with staged(bundle.path, force=True) as folder:
        _require_unchanged(bundle)
        shutil.copytree(bundle.path, folder, dirs_exist_ok=True)
        if Bundle.open(folder).digest != bundle.digest:  # every hash of the copy, for a new manifest will vouch for it
            raise BundleError(f"bundle {bundle.path}: it was changed while it was copied; run this command again")
        _require_nothing_besides(bundle, folder)
        yield folder
        _require_unchanged(bundle)


def _require_unchanged(bundle: Bundle) -> None:
    if Bundle.open(bundle.path).digest != bundle.digest:
        raise BundleError(
            f"bundle {bundle.path}: another command has changed it meanwhile; it stays as that one left it, "
            "run this one again"
        )


def _take_name(folder: Path, target: Path) -> None:
    """Rename; a folder cannot be renamed onto another one, so an old bundle is moved away first."""
    if not target.exists():
        folder.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=folder.parent)) / target.name
    try:
        target.rename(aside)
        folder.rename(target)
    finally:  # also where a signal ends it between the two
        if not os.path.lexists(target):
            aside.rename(target)
        shutil.rmtree(aside.parent, ignore_errors=True)


def write_calibration(folder: Path, calibrations: Mapping[str, Calibration]) -> None:
    """Write ``calibration.json``; the manifest must be written afterwards, since it holds the hash (`seal`).

    Args:
        folder: The (temporary) bundle.
        calibrations: ``backend/precision`` -> calibration.
    """
    records = {key: calibrations[key].to_json() for key in sorted(calibrations)}
    write_bundle_json(folder, CALIBRATION, {"format": CALIBRATION_FORMAT, "records": records})


def replace_calibrations(folder: Path, calibrations: Mapping[str, Calibration]) -> None:
    """Write other calibrations into a complete (temporary) bundle, and their hash into its manifest."""
    write_calibration(folder, calibrations)
    update_manifest(folder)


def write_certificates(folder: Path, labels: tuple[str, ...], records: Sequence[CertificateRecord]) -> None:
    """Write ``certificates.json``, or take it away where there are none; the manifest must be written afterwards.

    Args:
        folder: The (temporary) bundle.
        labels: Its labels.
        records: All its certificates.
    """
    if not records:
        (folder / CERTIFICATES).unlink(missing_ok=True)
        return
    record = {
        "format": CERTIFICATES_FORMAT,
        "labels_sha256": labels_sha256(labels),
        "certificates": [each.to_json() for each in records],
    }
    write_bundle_json(folder, CERTIFICATES, record)


def store_promise(bundle: Bundle, key: str, promise: ObjectPromise) -> None:
    """Write a promise about objects into a bundle.

    Args:
        bundle: As it was opened before what is promised was measured.
        key: ``backend/precision``.
        promise: What was proved.

    Raises:
        BundleError: The bundle cannot be written, or was changed meanwhile.
    """
    with edited(bundle) as folder:
        record = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
        write_bundle_json(folder, CALIBRATION, with_promise(record, key, promise))
        update_manifest(folder)


def update_manifest(folder: Path, **changes: object) -> None:
    """Change entries of the manifest of a (temporary) bundle, and hash its files anew."""
    seal(folder, {**json.loads((folder / MANIFEST).read_text(encoding="utf-8")), **changes})


def write_manifest(
    folder: Path,
    *,
    name: str,
    labels: tuple[str, ...],
    preprocess: PreprocessSpec,
    models: Mapping[str, str],
    taps: Sequence[str],
    origin: Mapping[str, Any],
    parity: list[dict[str, Any]],
) -> None:
    """Write ``manifest.json`` over the files that lie in the folder.

    Args:
        folder: The (temporary) bundle; models and calibration are there already.
        name: Name of the model.
        labels: One per class, in the order of the logits.
        preprocess: How an image becomes the network's input.
        models: Precision -> file name.
        taps: Layers whose activations can be watched, from early to late.
        origin: Where weights and data come from, for people.
        parity: The rows of the parity table.
    """
    seal(
        folder,
        {
            "name": name,
            "labels": list(labels),
            "preprocess": asdict(preprocess),
            "models": dict(models),
            "outputs": ["logits"],
            "taps": list(taps),
            "origin": dict(origin),
            "parity": parity,
        },
    )
