"""Heads that give boxes and scores apart.

``detr`` (facebookresearch/detr, models/detr.py, PostProcess): logits (1, Q, C + 1) and boxes (1, Q, 4), centre x, y,
width, height as shares of the picture; score = softmax without its last class, "no object". With C logits instead
(Deformable DETR, RT-DETR, Conditional DETR) score = sigmoid. No two boxes stand for one object: nothing is suppressed.
``ssd`` (torchvision/models/detection/ssd.py, and the SSD of the ONNX model zoo): boxes (1, N, 4), left, top, right,
bottom as shares of the picture, and scores (1, N, C) or (1, N, C + 1) with the background first, as probabilities.
"""

from __future__ import annotations

import numpy as np

from framegate.runtime.regions.heads.base import (
    Array,
    Decoded,
    Head,
    Outputs,
    Shapes,
    from_centres,
    sigmoid,
    softmax,
)

_LOGITS, _BOXES, _SCORES = ("logits", "pred_logits"), ("boxes", "pred_boxes"), ("scores",)


def _pair(shapes: Shapes, classes: int, others: tuple[str, ...]) -> bool:
    """Whether there are two outputs of N rows: four numbers, and as many as there are classes, or one more."""
    if len(shapes) != 2 or not any(name in shapes for name in others):
        return False
    boxes = [shape for name, shape in shapes.items() if name in _BOXES]
    rest = [shape for name, shape in shapes.items() if name in others]
    if len(boxes) != 1 or len(rest) != 1 or len(boxes[0]) != 3 or len(rest[0]) != 3:
        return False
    return boxes[0][2] == 4 and boxes[0][1] == rest[0][1] and rest[0][2] in (classes, classes + 1)


def _named(outputs: Outputs, names: tuple[str, ...]) -> Array:
    return np.asarray(next(values for name, values in outputs.items() if name in names)[0], np.float32)


def _fits_detr(shapes: Shapes, classes: int, width: int, height: int) -> bool:
    return _pair(shapes, classes, _LOGITS)


def _decode_detr(outputs: Outputs, classes: int, width: int, height: int) -> Decoded:
    logits, boxes = _named(outputs, _LOGITS), _named(outputs, _BOXES)
    exclusive = logits.shape[1] > classes
    scores = softmax(logits)[:, :-1] if exclusive else sigmoid(logits)
    x, y, w, h = (boxes * np.array([width, height, width, height], np.float32)).T
    return Decoded(from_centres(x, y, w, h), scores, exclusive)


def _fits_ssd(shapes: Shapes, classes: int, width: int, height: int) -> bool:
    return _pair(shapes, classes, _SCORES)


def _decode_ssd(outputs: Outputs, classes: int, width: int, height: int) -> Decoded:
    scores, boxes = _named(outputs, _SCORES), _named(outputs, _BOXES)
    shares = np.array([width, height, width, height], np.float32)
    return Decoded((boxes * shares).astype(np.float32), scores[:, scores.shape[1] - classes :], exclusive=True)


DETR = Head(
    "detr",
    "DETR and its kin: logits (1, Q, C + 1 or C) and boxes (1, Q, 4)",
    _fits_detr,
    _decode_detr,
    fit="stretch",
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    suppress=False,
    score=0.5,
)
SSD = Head(
    "ssd",
    "SSD: boxes (1, N, 4) and scores (1, N, C or C + 1)",
    _fits_ssd,
    _decode_ssd,
    fit="stretch",
)
