"""Where things lie in the checkout that the tests run from."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELPERS = ROOT / "tests" / "helpers"
BUNDLES = ROOT / "models" / "bundles"
CLIPS = ROOT / "camera_demo" / "clips"

SHIPPED = sorted((ROOT / "models" / "bundles").glob("*.bundle"))
CLASSIFIERS = [path for path in SHIPPED if '"dense"' not in (path / "manifest.json").read_text()]
"""Shipped bundles that name what a region shows; the others label its pixels."""
