"""Opens what the command line names as giver of regions."""

from __future__ import annotations

import json
from pathlib import Path

from framegate.runtime.bundle.bundle import MANIFEST
from framegate.runtime.bundle.search import find_bundle, named_bundles
from framegate.runtime.errors import BundleError
from framegate.runtime.regions.base import RegionGiver
from framegate.runtime.regions.detector import DetectorRegions
from framegate.runtime.regions.recorded import open_recorded


def open_regions(text: str, *, loop: bool = False, trust: str | Path | None = None) -> RegionGiver:
    """A giver of regions.

    Args:
        text: A detector bundle (its folder or name), a file of boxes (``.jsonl``, ``.mcap``) or a named pipe.
        loop: The clip starts again when it ends.
        trust: A detector bundle must be signed, see `Bundle.open`; None asks for no signature.

    Raises:
        FramegateError: It cannot be opened.
    """
    place = Path(text)
    if place.is_dir() or not (place.exists() or place.suffix.lower() in (".jsonl", ".mcap", ".json")):
        try:
            find_bundle(text)
        except BundleError:
            raise BundleError(
                f"objects {text!r}: not found: give the folder or the name of a detector bundle, a file of boxes "
                f"(.jsonl, .mcap) or a named pipe; {_named_detectors()}"
            ) from None
        return DetectorRegions.open(text, trust)
    return open_recorded(place, loop=loop)


def _named_detectors() -> str:
    """Which of the bundles that are found by name are detectors, in words; for a message, so nothing is verified."""
    names = [each.name for each in named_bundles() if _says_detector(each.path / MANIFEST)]
    if names:
        return f"detectors found by name: {', '.join(names)}"
    return "no bundle that is found by name is a detector (framegate export FILE.onnx --kind detector makes one)"


def _says_detector(manifest: Path) -> bool:
    try:
        record = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and record.get("detector") is not None
