"""A small segmentation network, and pictures whose pixels are labelled: red things on blue."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 32
LABELS = ("blue", "red")
BLUE, RED = (220, 30, 30), (30, 30, 220)


def save_network(path: Path, side: int = SIDE, classes: int = 2) -> Path:
    """Logits are twelve times how blue and how red a pixel is, at half of the input's size."""
    weights = np.zeros((classes, 3, 1, 1), np.float32)
    weights[0, 2], weights[1, 0] = 12.0, 12.0  # the network's channels are RGB, pixels 0..1
    nodes = [
        helper.make_node("AveragePool", ["image"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["half", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes, side // 2, side // 2])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def picture(rng: np.random.Generator, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """One picture, and the label of every pixel."""
    image = np.full((side, side, 3), BLUE, np.uint8)
    mask = np.zeros((side, side), np.uint8)
    x, y = rng.integers(0, side - 8, 2)
    cv2.rectangle(image, (int(x), int(y)), (int(x) + 7, int(y) + 7), RED, cv2.FILLED)
    cv2.rectangle(mask, (int(x), int(y)), (int(x) + 7, int(y) + 7), 1, cv2.FILLED)
    noise = rng.integers(-25, 26, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), mask


def write_pictures(folder: Path, count: int, wrong: int = 0) -> Path:
    """Write labelled pictures; of the first ``wrong`` the mask says the opposite."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for k in range(count):
        image, mask = picture(rng)
        cv2.imwrite(str(folder / "images" / f"{k:03}.png"), image)
        cv2.imwrite(str(folder / "masks" / f"{k:03}.png"), 1 - mask if k < wrong else mask)
    return folder
