"""Tiny networks for certificates, and bundles with a patch certificate over their own network."""

from __future__ import annotations

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from framegate.runtime.bundle.bundle import Bundle, seal, sha256_file
from framegate.runtime.bundle.certificates import (
    FILE,
    FORMAT,
    CertificateRecord,
    CertificateThreshold,
    labels_sha256,
)
from framegate.runtime.bundle.masks import MaskGrid
from framegate.runtime.preprocess import PreprocessSpec

SIDE = 8
SPEC = PreprocessSpec(SIDE, SIDE, "bilinear", "stretch", "rgb", (127.5,) * 3, (64.0,) * 3)


def random_network(path, seed, classes=4):
    """A convolution, ReLU and a linear layer with random weights, so that small patches do change its answers."""
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.normal(size=(8, 3, 3, 3)) / 4,
        "b": rng.normal(size=8) / 4,
        "v": rng.normal(size=(classes, 8 * SIDE * SIDE)) / 6,
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["x"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Flatten", ["y"], ["z"]),
        helper.make_node("Gemm", ["z", "v"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def deep_network(path, seed):
    """Convolutions with and without a stride and a border, and hidden linear layers, with random weights."""
    rng = np.random.default_rng(seed)
    shapes = {"a": (6, 3, 4, 4), "b": (6, 6, 3, 3), "c": (5, 6, 2, 3), "d": (10, 20), "e": (4, 10)}
    values = {name: rng.normal(size=shape) * (1.6 / np.prod(shape[1:]) ** 0.5) for name, shape in shapes.items()}
    values |= {f"{name}0": rng.normal(size=shape[0]) / 4 for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["image", "a", "a0"], ["x"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["x"], ["rx"]),
        helper.make_node("Conv", ["rx", "b", "b0"], ["y"], pads=[1] * 4, strides=[2, 1]),
        helper.make_node("Relu", ["y"], ["ry"]),
        helper.make_node("Conv", ["ry", "c", "c0"], ["z"], strides=[1, 1], pads=[1, 0, 1, 0]),
        helper.make_node("Relu", ["z"], ["rz"]),
        helper.make_node("Flatten", ["rz"], ["flat"]),
        helper.make_node("Gemm", ["flat", "d", "d0"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["rh"]),
        helper.make_node("Gemm", ["rh", "e", "e0"], ["logits"], transB=1),
    ]
    values["d"] = rng.normal(size=(10, 5 * 3 * 2)) / 3
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "deep", [image], [logits], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


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
