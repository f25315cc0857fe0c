"""Tiny bundles with a patch certificate over their own network."""

from __future__ import annotations

import json

from framegate.runtime.bundle.bundle import Bundle, seal, sha256_file
from framegate.runtime.bundle.certificates import (
    FILE,
    FORMAT,
    CertificateRecord,
    CertificateThreshold,
    labels_sha256,
)
from framegate.runtime.masks import MaskGrid


def patch_record(masks, spec, budget=None, thresholds=None, network="n.onnx", sha=""):
    return CertificateRecord("patch", budget or masks.patch, network, sha, "fp32", spec, masks, thresholds or {})


def threshold(tau, unit="frame"):
    return CertificateThreshold(tau, 0.05, 0.95, 0.04, 3, 400, unit, 0.5, "test", "0" * 64)


def certified_bundle(folder, tau=-0.7, keys=("openvino/fp32", "onnxruntime/fp32"), change=None, unit="frame"):
    """Give a tiny bundle a patch certificate over its own network, whose logits are 8 x the mean colour."""
    bundle = Bundle.open(folder)
    file = "model.fp32.onnx"
    record = patch_record(
        MaskGrid(32, 32, 6, 10, 4), bundle.preprocess, 3, dict.fromkeys(keys, threshold(tau, unit)), file,
        sha256_file(folder / file),
    )  # fmt: skip
    content = {"format": FORMAT, "labels_sha256": labels_sha256(bundle.labels), "certificates": [record.to_json()]}
    if change is not None:
        change(content)
    (folder / FILE).write_text(json.dumps(content))
    seal(folder, json.loads((folder / "manifest.json").read_text()))
    return folder
