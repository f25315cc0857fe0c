"""NanoDet-Plus (RangiLyu/nanodet, nanodet/model/head/nanodet_plus_head.py): (1, N, C + 4 x 8).

Each row holds C class logits (the exported graph has applied the sigmoid: its values are probabilities) and, for left,
top, right and bottom, eight logits of a distance; the distance is the mean of 0 to 7 under their softmax, in units of
the cell's stride. The centre of a cell is column x stride, row x stride. Strides are 8, 16, 32, 64.
"""

from __future__ import annotations

import numpy as np

from framegate.runtime.regions.heads.base import Decoded, Head, Outputs, Shapes, cell_count, cells, only, softmax

_STRIDES = (8, 16, 32, 64)
_BINS = 8


def _fits(shapes: Shapes, classes: int, width: int, height: int) -> bool:
    return only(shapes) == (1, cell_count(width, height, _STRIDES), classes + 4 * _BINS)


def _decode(outputs: Outputs, classes: int, width: int, height: int) -> Decoded:
    rows = next(iter(outputs.values()))[0]
    column, row, stride = cells(width, height, _STRIDES)
    shares = softmax(rows[:, classes:].reshape(-1, 4, _BINS))
    left, top, right, bottom = ((shares @ np.arange(_BINS, dtype=np.float32)) * stride[:, None]).T
    x, y = column * stride, row * stride
    corners = np.stack([x - left, y - top, x + right, y + bottom], axis=1).astype(np.float32)
    limits = np.array([width, height, width, height], np.float32)
    return Decoded(np.clip(corners, 0, limits), rows[:, :classes])


NANODET = Head(
    "nanodet",
    "NanoDet-Plus: (1, N, C + 32), distances as distributions",
    _fits,
    _decode,
    fit="stretch",
    colour="bgr",
    mean=(103.53, 116.28, 123.675),
    std=(57.375, 57.12, 58.395),
    overlap=0.6,
)
