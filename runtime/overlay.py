"""Draws verdicts onto a frame so that nobody can take a rejected prediction for a usable one.

Accepted: green solid box, "USE label". Rejected: red crossed-out box, "DO NOT USE" and the reasons. Shape and words
carry the meaning, colour only repeats it.
"""

from __future__ import annotations

import cv2
import numpy as np

from framegate.runtime.roi import FULL, Roi
from framegate.runtime.verdict import Image, Prediction

_GREEN, _RED, _WHITE, _BLACK = (60, 160, 0), (40, 40, 220), (255, 255, 255), (0, 0, 0)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def _text(image: Image, lines: list[str], x: int, y: int, scale: float, ground: tuple[int, int, int]) -> None:
    """Write lines on a filled ground, their top left corner at (x, y), moved as needed to stay inside the image."""
    thickness = 2 if scale >= 0.6 else 1
    sizes = [cv2.getTextSize(line, _FONT, scale, thickness)[0] for line in lines]
    step = max(size[1] for size in sizes) + 10
    width, height = max(size[0] for size in sizes) + 10, step * len(lines) + 4
    x = max(0, min(x, image.shape[1] - width))
    y = max(0, min(y, image.shape[0] - height))
    cv2.rectangle(image, (x, y), (x + width, y + height), ground, cv2.FILLED)
    for k, line in enumerate(lines):
        cv2.putText(image, line, (x + 5, y + step * (k + 1) - 4), _FONT, scale, _WHITE, thickness, cv2.LINE_AA)


def _lines(prediction: Prediction, named: bool) -> list[str]:
    who = f"{prediction.stream}: " if named else ""
    if prediction.accepted:
        return [f"{who}USE {prediction.label} {prediction.confidence:.2f}"]
    lines = [f"{who}DO NOT USE"]
    lines += [reason.value for reason in prediction.reasons]
    if prediction.candidate:
        lines.append(
            f"({prediction.candidate}? H={prediction.entropy:.2f} > {prediction.threshold:.2f})"
            if prediction.entropy > prediction.threshold
            else f"({prediction.candidate}?)"
        )
    return lines


def draw(image: Image, predictions: tuple[Prediction, ...], rois: tuple[Roi, ...]) -> Image:
    """A copy of the frame with a box and a text for every region, and a status bar at the top.

    Args:
        image: (height, width, 3) uint8 BGR, not changed.
        predictions: One per region.
        rois: The regions, in the same order.
    """
    canvas = np.ascontiguousarray(image).copy()
    height, width = canvas.shape[:2]
    scale = float(np.clip(width / 1280 * 0.6, 0.35, 1.2))
    line = max(2, round(width / 400))
    for prediction, roi in zip(predictions, rois, strict=True):
        box = roi.pixels(width, height)
        if box is None:
            continue
        x, y, w, h = box
        whole = roi.name == FULL
        colour = _GREEN if prediction.accepted else _RED
        inset = line if whole else 0
        first, last = (x + inset, y + inset), (x + w - 1 - inset, y + h - 1 - inset)
        cv2.rectangle(canvas, first, last, _WHITE, line + 2)
        cv2.rectangle(canvas, first, last, colour, line)
        if not prediction.accepted:
            for start, end in ((first, last), ((first[0], last[1]), (last[0], first[1]))):
                cv2.line(canvas, start, end, colour, max(1, line - 1), cv2.LINE_AA)
        lines = _lines(prediction, named=not whole)
        # Below the box, or above it where the frame ends.
        text_height = round(len(lines) * 36 * scale / 0.6) + 4
        below = y + h + line
        _text(canvas, lines, x, below if below + text_height <= height else y - text_height - line, scale, colour)
    accepted = sum(prediction.accepted for prediction in predictions)
    shared = set.intersection(*(set(prediction.reasons) for prediction in predictions)) if predictions else set()
    bar = f"frame {predictions[0].frame_id}: {accepted} of {len(predictions)} regions usable" if predictions else ""
    if shared:
        bar += "   ALL REJECTED: " + ", ".join(sorted(reason.value for reason in shared))
    _text(canvas, [bar], 0, 0, scale, _RED if shared else _BLACK)
    return canvas
