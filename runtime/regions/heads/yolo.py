"""The YOLO families: one output, a row or a column for each box.

``yolov5`` (ultralytics/yolov5, models/yolo.py: also v7): (1, N, 5 + C) rows of centre x, y, width, height in input
pixels, objectness, C class probabilities; score = objectness x class. N = 3 x the cells of strides 8, 16, 32 (64).
``yolov8`` (ultralytics, nn/modules/head.py: also v9, v11, v12): (1, 4 + C, N) columns of centre x, y, width, height in
input pixels, C class probabilities, which are the scores; N = the cells of strides 8, 16, 32.
``yolox`` (Megvii-BaseDetection/YOLOX, exp/demo_utils.py, demo_postprocess): (1, N, 5 + C) rows of dx, dy, log w, log h
in units of the cell's stride, objectness, C class probabilities; x = (column + dx) stride, w = exp(log w) stride;
score = objectness x class. N = the cells of strides 8, 16, 32 (64), one each.
"""

from __future__ import annotations

import numpy as np

from framegate.runtime.regions.heads.base import (
    Decoded,
    Head,
    Outputs,
    Shapes,
    cell_count,
    cells,
    from_centres,
    only,
)

_PYRAMIDS = ((8, 16, 32), (8, 16, 32, 64))
_ANCHORS = 3


def _pyramid(count: int, width: int, height: int, each: int = 1) -> tuple[int, ...]:
    """The strides whose cells give so many rows; empty if none do."""
    for strides in _PYRAMIDS:
        if each * cell_count(width, height, strides) == count:
            return strides
    return ()


def _fits_v5(shapes: Shapes, classes: int, width: int, height: int) -> bool:
    shape = only(shapes)
    return (
        len(shape) == 3
        and shape[0] == 1
        and shape[2] == 5 + classes
        and bool(_pyramid(shape[1], width, height, _ANCHORS))
    )


def _decode_v5(outputs: Outputs, classes: int, width: int, height: int) -> Decoded:
    rows = next(iter(outputs.values()))[0]
    return Decoded(from_centres(*rows[:, :4].T), rows[:, 5:] * rows[:, 4:5])


def _fits_v8(shapes: Shapes, classes: int, width: int, height: int) -> bool:
    shape = only(shapes)
    return len(shape) == 3 and shape[0] == 1 and shape[1] == 4 + classes and bool(_pyramid(shape[2], width, height))


def _decode_v8(outputs: Outputs, classes: int, width: int, height: int) -> Decoded:
    columns = next(iter(outputs.values()))[0]
    return Decoded(from_centres(*columns[:4]), np.ascontiguousarray(columns[4:].T))


def _fits_x(shapes: Shapes, classes: int, width: int, height: int) -> bool:
    shape = only(shapes)
    return len(shape) == 3 and shape[0] == 1 and shape[2] == 5 + classes and bool(_pyramid(shape[1], width, height))


def _decode_x(outputs: Outputs, classes: int, width: int, height: int) -> Decoded:
    rows = next(iter(outputs.values()))[0]
    column, row, stride = cells(width, height, _pyramid(len(rows), width, height))
    x, y, w, h = rows[:, :4].T
    corners = from_centres((x + column) * stride, (y + row) * stride, np.exp(w) * stride, np.exp(h) * stride)
    return Decoded(corners, rows[:, 5:] * rows[:, 4:5])


YOLOV5 = Head("yolov5", "YOLOv5 and v7: (1, N, 5 + C) with objectness, decoded boxes", _fits_v5, _decode_v5, score=0.25)
YOLOV8 = Head("yolov8", "YOLOv8, v9, v11, v12: (1, 4 + C, N), decoded boxes", _fits_v8, _decode_v8, score=0.25)
YOLOX = Head(
    "yolox",
    "YOLOX: (1, N, 5 + C) in units of the cells",
    _fits_x,
    _decode_x,
    fit="letterbox-corner",
    colour="bgr",
    std=(1.0, 1.0, 1.0),
    score=0.3,
)
