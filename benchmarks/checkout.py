"""Where the benchmarks find clips, bundles and their committed records: in the checkout that they are run from."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BUNDLES = ROOT / "models" / "bundles"
CLIPS = ROOT / "camera_demo" / "clips"
