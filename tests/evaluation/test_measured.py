"""A record is about a bundle's networks: a certificate leaves it valid, anything else does not."""

from __future__ import annotations

import hashlib
import json

from certified_bundles import certified_bundle

from framegate.evaluation.measured import manifest_sha256
from framegate.runtime.bundle.bundle import seal


def test_a_certificate_changes_nothing_that_was_measured_without_it(make_bundle):
    folder = make_bundle()
    seal(folder, json.loads((folder / "manifest.json").read_text()))
    before = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert manifest_sha256(folder) == before
    certified_bundle(folder)
    assert hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() != before
    assert manifest_sha256(folder) == before


def test_any_other_change_makes_another_bundle(make_bundle):
    folder = certified_bundle(make_bundle())
    before = manifest_sha256(folder)
    (folder / "model.int8.onnx").write_bytes(b"another network")
    seal(folder, json.loads((folder / "manifest.json").read_text()))
    assert manifest_sha256(folder) != before
