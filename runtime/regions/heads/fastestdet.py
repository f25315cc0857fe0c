"""FastestDet (dog-qiuqiu/FastestDet, utils/tool.py, handle_preds): (1, 5 + C, rows, columns), one box a cell.

Objectness; centre x = (column + tanh) / columns and y = (row + tanh) / rows, width and height by the sigmoid, all
shares of the picture; C class probabilities. score = objectness^0.6 x class^0.4. The picture is stretched by area.
"""

from __future__ import annotations

import numpy as np

from framegate.runtime.regions.heads.base import Decoded, Head, Outputs, Shapes, from_centres, only, sigmoid

_STRIDE = 16


def _fits(shapes: Shapes, classes: int, width: int, height: int) -> bool:
    return only(shapes) == (1, 5 + classes, height // _STRIDE, width // _STRIDE)


def _decode(outputs: Outputs, classes: int, width: int, height: int) -> Decoded:
    cells = next(iter(outputs.values()))[0]
    rows, columns = cells.shape[1:]
    row, column = np.mgrid[:rows, :columns].astype(np.float32)
    flat = cells.reshape(5 + classes, -1)
    x = (column.ravel() + np.tanh(flat[1])) / columns * width
    y = (row.ravel() + np.tanh(flat[2])) / rows * height
    corners = from_centres(x, y, sigmoid(flat[3]) * width, sigmoid(flat[4]) * height)
    objectness = np.clip(flat[0], 0, 1)[:, None] ** 0.6
    return Decoded(corners, np.ascontiguousarray(objectness * np.clip(flat[5:].T, 0, 1) ** 0.4, np.float32))


FASTESTDET = Head(
    "fastestdet",
    "FastestDet: (1, 5 + C, rows, columns), one box a cell",
    _fits,
    _decode,
    fit="stretch",
    colour="bgr",
    resize="area",
)
