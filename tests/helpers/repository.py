"""Where things lie in the checkout that the tests run from."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELPERS = ROOT / "tests" / "helpers"
BUNDLES = ROOT / "models" / "bundles"
CLIPS = ROOT / "camera_demo" / "clips"
