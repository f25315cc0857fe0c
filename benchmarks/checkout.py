"""Where the benchmarks find clips, bundles and their committed records: in the checkout that they are run from."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BUNDLES = ROOT / "models" / "bundles"
CLIPS = ROOT / "camera_demo" / "clips"


def classifiers() -> list[Path]:
    """The shipped bundles that name what a region shows; a dense one, which labels its pixels, is left out."""
    return [path for path in sorted(BUNDLES.glob("*.bundle")) if '"dense"' not in (path / "manifest.json").read_text()]
