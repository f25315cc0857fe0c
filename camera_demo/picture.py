"""One frame and its verdicts as one message, so that no page can show the one without the other.

A message is a 4-byte big-endian length, so many bytes of JSON (UTF-8), then a JPEG.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from framegate.runtime.console import plain
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.picture import WIDTH, jpeg, number, shown
from framegate.runtime.sinks.shade import shaded
from framegate.runtime.verdict import Image, Prediction

_FRESH_NS = 250_000_000
_SIDE = 96  # of a thumbnail


def is_fresh(result: FrameResult) -> bool:
    """Whether the verdicts are so new that people should see them.

    Where showing takes longer than a frame lasts, results queue up before whoever shows them. Those that waited long
    are left out, so that what is seen is less, not old.
    """
    return time.monotonic_ns() - result.first.decided_ns < _FRESH_NS


def thumbnail(image: Image | None, roi: Roi) -> bytes:
    """A small JPEG of a region, of black if the frame does not reach so far."""
    crop = roi.crop(shown(image))
    return jpeg(np.zeros((_SIDE, _SIDE, 3), np.uint8) if crop is None else crop, _SIDE)


def _verdict(prediction: Prediction, roi: Roi, width: int, height: int) -> dict[str, Any]:
    box = roi.pixels(width, height)
    return {
        "name": plain(prediction.stream),
        "whole": roi.is_whole,
        "box": None if box is None else [box[0] / width, box[1] / height, box[2] / width, box[3] / height],
        "accepted": prediction.accepted_when_decided,
        "reasons": [reason.value for reason in prediction.decided_reasons],
        "label": plain(prediction.candidate),
        "confidence": number(prediction.confidence),
        "entropy": number(prediction.entropy),
        "detail": plain(prediction.detail),
        **({} if prediction.dense is None else {"usable": number(prediction.dense.usable_share)}),
        **({} if prediction.found is None else {"detected": plain(prediction.found.detected)}),
    }


def _scene(scene: Prediction) -> dict[str, Any]:
    return {
        "accepted": scene.accepted_when_decided,
        "reasons": [reason.value for reason in scene.decided_reasons],
        "detail": plain(scene.detail),
    }


def message(
    result: FrameResult,
    rois: tuple[Roi, ...],
    title: Callable[[str], str] = str,
    across: int = WIDTH,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """What is sent to the page for one frame.

    Args:
        result: Its verdicts.
        rois: The pipeline's fixed regions.
        title: What a stream is called on the page.
        across: Pixels across of the picture, at most.
        more: What else the record says.
    """
    image = shown(result.image)
    height, width = image.shape[:2]
    regions = [
        _verdict(each, roi, width, height) for each, roi in zip(result.predictions, result.rois(rois), strict=True)
    ]
    for region, each in zip(regions, result.predictions, strict=True):
        region["name"] = plain(title(each.stream))
    scene = {} if result.scene is None else {"scene": _scene(result.scene)}
    record = {"frame": result.first.frame_id, "regions": regions, **scene, **more}
    head = json.dumps(record, separators=(",", ":")).encode()
    image = shaded(image, result.predictions, result.rois(rois))
    return struct.pack(">I", len(head)) + head + jpeg(image, across)


def gone(frame: int) -> bytes:
    """The message about a frame of which no picture is kept (any more).

    Args:
        frame: Its number.
    """
    head = json.dumps({"frame": frame, "moment": True, "gone": True}).encode()
    return struct.pack(">I", len(head)) + head
