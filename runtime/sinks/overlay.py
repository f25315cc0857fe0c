"""Draws verdicts onto a frame so that nobody can take a rejected prediction for a usable one.

Accepted: green solid box, "USE label". Rejected: red crossed-out box, "DO NOT USE" and the reasons. Shape and words
carry the meaning, colour only repeats it.
"""

from __future__ import annotations

import cv2
import numpy as np

from framegate.runtime.console import plain
from framegate.runtime.frame_result import is_fixed
from framegate.runtime.roi import FULL, Roi
from framegate.runtime.sinks.shade import shaded
from framegate.runtime.verdict import Image, Prediction
from framegate.runtime.words import short

_GREEN, _RED, _WHITE, _BLACK = (60, 160, 0), (40, 40, 220), (255, 255, 255), (0, 0, 0)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


def _text_size(lines: list[str], scale: float) -> tuple[int, int, int]:
    """Width and height of the ground of these lines, and the step from line to line."""
    sizes = [cv2.getTextSize(line, _FONT, scale, _thickness(scale))[0] for line in lines]
    step = max(size[1] for size in sizes) + 10
    return max(size[0] for size in sizes) + 10, step * len(lines) + 4, step


def _thickness(scale: float) -> int:
    return 2 if scale >= 0.6 else 1


def _place(wanted: list[tuple[int, int]], size: tuple[int, int], frame: tuple[int, int], taken: list[Box]) -> Box:
    """The first wanted corner where the text fits into the frame without covering another text, else the first."""
    width, height = size
    boxes = []
    for x, y in wanted:
        box = (max(0, min(x, frame[0] - width)), max(0, min(y, frame[1] - height)), width, height)
        boxes.append(box)
        if box[1] == y and not any(_overlap(box, other) for other in taken):
            return box
    return boxes[0]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def _text(image: Image, lines: list[str], box: Box, scale: float, ground: tuple[int, int, int]) -> None:
    """Write lines on a filled ground."""
    x, y, width, height = box
    step = _text_size(lines, scale)[2]
    cv2.rectangle(image, (x, y), (x + width, y + height), ground, cv2.FILLED)
    for k, line in enumerate(lines):
        at = (x + 5, y + step * (k + 1) - 4)
        cv2.putText(image, line, at, _FONT, scale, _WHITE, _thickness(scale), cv2.LINE_AA)


def _lines(prediction: Prediction, named: bool) -> list[str]:
    detected = prediction.found.detected if prediction.found else ""
    who = f"{prediction.stream}{f' ({detected})' * bool(detected)}: " if named else ""
    dense = prediction.dense
    if prediction.accepted_when_decided:
        sure = f"{prediction.confidence:.2f}" if dense is None else f"{dense.usable_share:.0%} of the pixels"
        return [f"{who}USE {prediction.candidate} {sure}"]
    lines = [f"{who}DO NOT USE"]
    lines += [short(reason) for reason in prediction.decided_reasons]
    if dense is not None:
        lines.append(f"({dense.usable_share:.0%} of the pixels usable, {1 - prediction.threshold:.0%} needed)")
    elif prediction.candidate:
        lines.append(
            f"({prediction.candidate}? score {prediction.score:.2f} > {prediction.threshold:.2f})"
            if prediction.score > prediction.threshold
            else f"({prediction.candidate}?)"
        )
    return lines


def draw(
    image: Image, predictions: tuple[Prediction, ...], rois: tuple[Roi, ...], scene: Prediction | None = None
) -> Image:
    """A copy of the frame with a box and a text for every region, and a status bar at the top.

    Args:
        image: (height, width, 3) uint8 BGR, not changed.
        predictions: One per region.
        rois: The regions, in the same order.
        scene: With moving regions, see `framegate.runtime.frame_result.FrameResult`.
    """
    canvas = np.ascontiguousarray(shaded(image, predictions, rois))
    canvas = canvas.copy() if canvas is image else canvas
    height, width = canvas.shape[:2]
    scale = float(np.clip(width / 1280 * 0.6, 0.35, 1.2))
    line = max(2, round(width / 400))
    shown = [
        (prediction, roi, box)
        for prediction, roi in zip(predictions, rois, strict=True)
        if (box := roi.pixels(width, height)) is not None
    ]
    for prediction, roi, box in shown:
        inset = line if roi.name == FULL else 0
        _outline(canvas, box, _colour(prediction), line, inset, crossed=not prediction.accepted_when_decided)
    taken = [box for _, roi, box in shown if roi.name != FULL]
    for prediction, roi, (x, y, w, h) in shown:
        # As text: OpenCV crashes on a half character (surrogate).
        lines = [plain(line) for line in _lines(prediction, named=roi.name != FULL)]
        text_width, text_height, _ = _text_size(lines, scale)
        below, above = y + h + line, y - text_height - line
        wanted = [(x, below), (x, above), (x, below + text_height), (x + w - text_width, above)]
        place = _place(wanted, (text_width, text_height), (width, height), taken)
        taken.append(place)
        _text(canvas, lines, place, scale, _colour(prediction))
    bar, shared = _bar(predictions, scene)
    _text(canvas, [bar], (0, 0, *_text_size([bar], scale)[:2]), scale, _RED if shared else _BLACK)
    return canvas


def _bar(predictions: tuple[Prediction, ...], scene: Prediction | None) -> tuple[str, bool]:
    """What the status bar says, and whether it is that nothing may be used."""
    if scene is not None:
        shared = set(scene.decided_reasons)
        regions = tuple(each for each in predictions if is_fixed(each))
        objects = tuple(each for each in predictions if not is_fixed(each))
        both = [_share(objects, "objects")] * bool(objects or not regions) + [_share(regions, "regions")] * bool(
            regions
        )
        bar = f"frame {scene.frame_id}: {', '.join(both)} usable"
    elif predictions:
        shared = set.intersection(*(set(prediction.decided_reasons) for prediction in predictions))
        bar = f"frame {predictions[0].frame_id}: {_share(predictions, 'regions')} usable"
    else:
        return "", False
    words = ", ".join(sorted(map(short, shared)))
    if shared and any(each.accepted_when_decided for each in predictions):  # a debounce lets a soft reason wait
        return f"{bar}   picture: {words}", False
    if shared:
        bar += f"   ALL REJECTED: {words}"
    elif scene is not None and scene.detail:
        bar += f"   {plain(scene.detail)}"
    return bar, bool(shared)


def _share(predictions: tuple[Prediction, ...], what: str) -> str:
    return f"{sum(prediction.accepted_when_decided for prediction in predictions)} of {len(predictions)} {what}"


def _colour(prediction: Prediction) -> tuple[int, int, int]:
    return _GREEN if prediction.accepted_when_decided else _RED


def _outline(image: Image, box: Box, colour: tuple[int, int, int], line: int, inset: int, crossed: bool) -> None:
    """A box with a white rim, crossed out if it must not be used."""
    x, y, w, h = box
    first, last = (x + inset, y + inset), (x + w - 1 - inset, y + h - 1 - inset)
    cv2.rectangle(image, first, last, _WHITE, line + 2)
    cv2.rectangle(image, first, last, colour, line)
    if crossed:
        for start, end in ((first, last), ((first[0], last[1]), (last[0], first[1]))):
            cv2.line(image, start, end, colour, max(1, line - 1), cv2.LINE_AA)
