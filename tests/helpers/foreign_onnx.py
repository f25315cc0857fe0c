"""ONNX classifiers as other people's tools write them: three colours, three labels, a few operators.

The network looks at the mean of every channel. Pixels are RGB.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 20
LABELS = ("red", "green", "blue")
"""In the order of the outputs: that of the RGB channels."""


def foreign_model(
    *,
    layout: str = "nchw",
    tail: tuple[str, ...] = ("Softmax",),
    opset: int = 18,
    batch: int | str = 1,
    side: int | str = SIDE,
    scale: float = 24.0,
    scaling: str = "unit",
) -> onnx.ModelProto:
    """Convolution, batch normalisation, ReLU, pooling, Reshape to (1, 3), Gemm, and a tail.

    Args:
        layout: ``nchw`` or ``nhwc``.
        tail: Operators behind the Gemm, each without options.
        opset: Operator set.
        batch: First dimension of the input.
        side: Height and width of the input.
        scale: Of the logits: large is certain.
        scaling: How the pixels come: ``unit`` is 0..1, ``imagenet`` less ImageNet's mean and divided by its deviation.
    """
    rng = np.random.default_rng(3)
    weight = np.zeros((6, 3, 3, 3), np.float32)
    for k in range(3):
        weight[k, k, 1, 1] = 1.0
    weight[3:] = 0.05 * rng.normal(size=(3, 3, 3, 3))
    classify = np.zeros((3, 6), np.float32)
    classify[:, :3] = scale * (np.eye(3) - 1 / 3)
    constants = {
        "conv.weight": weight,
        "bn.scale": np.full(6, 1.1, np.float32),
        "bn.bias": np.full(6, 0.02, np.float32),
        "bn.mean": np.full(6, 0.01, np.float32),
        "bn.var": np.full(6, 1.2, np.float32),
        "shape": np.array([1, 6], np.int64),
        "fc.weight": classify,
        "fc.bias": np.array([0.1, 0.0, -0.1], np.float32),
    }
    nodes = [helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2])] if layout == "nhwc" else []
    planes = "planes" if nodes else "pixels"
    if scaling == "imagenet":
        constants["std"] = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)
        constants["mean"] = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
        nodes += [helper.make_node("Mul", [planes, "std"], ["m"]), helper.make_node("Add", ["m", "mean"], ["unit"])]
        planes = "unit"
    nodes += [
        helper.make_node("Conv", [planes, "conv.weight"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["b"]),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Reshape", ["p", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["tail0"], transB=1),
    ]
    for k, kind in enumerate(tail):
        nodes.append(helper.make_node(kind, [f"tail{k}"], [f"tail{k + 1}"], f"last_{kind}"))
    shape = [batch, 3, side, side] if layout == "nchw" else [batch, side, side, 3]
    graph = helper.make_graph(
        nodes,
        "made by the tests",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"tail{len(tail)}", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, producer_name="tests")


def write_photographs(folder: Path, count: int, seed: int = 0, labels: tuple[str, ...] = LABELS) -> Path:
    """A folder per label with noisy images in its colour, of several sizes."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        label = labels[k % 3]
        height, width = rng.integers(24, 40, 2)
        pixels = rng.normal(90, 20, (height, width, 3))
        pixels[:, :, 2 - LABELS.index(label)] += 90  # OpenCV writes BGR
        place = folder / label
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f"{k:04d}.png"), np.clip(pixels, 0, 255).astype(np.uint8))
    return folder
