"""The shipped clip, over and over, without repeating itself."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from framegate.camera_demo.clip_boxes import place_name
from framegate.runtime.sources.base import BaseSource
from framegate.runtime.sources.video import VideoFileSource
from framegate.runtime.verdict import Frame

SHIFTS = tuple(itertools.product((0, 6, 12), (0, 5, 10)))
"""Pixels to the right and down, one pair a pass."""


class LoopedClip(BaseSource):
    """A short video file in a loop at its own pace; every pass is shifted by a few pixels.

    The camera-health check compares a frame with the 32 before it, and calls it FROZEN if its content comes back. On a
    machine that is busy enough to leave out most frames of a clip of 38, the last 32 reach back into passes before,
    and a plain loop would rightly be rejected.

    Args:
        path: The file.

    Raises:
        SourceError: It is not a video.
    """

    hands_over = True

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._passes = itertools.cycle(SHIFTS)
        self._shift = next(self._passes)
        self._clip = VideoFileSource(path)
        clip = self._clip
        super().__init__(clip.name, live=True, frame_size=clip.frame_size, fps=clip.fps)

    def close(self) -> None:
        """Close this and the file."""
        super().close()
        self._clip.close()

    def _produce(self, frame_id: int) -> Frame | None:
        frame = self._clip.read()
        if frame is None:
            if self._closed.is_set():
                return None
            self._clip.close()
            self._clip = VideoFileSource(self._path)
            if self._closed.is_set():  # close() came while it was opened, and closed the one before
                self._clip.close()
                return None
            self._shift = next(self._passes)
            frame = self._clip.read()
            if frame is None:
                return None
        right, down = self._shift
        frame = replace(frame, name=place_name(frame.frame_id, right, down))
        if not right and not down:
            return replace(frame, frame_id=frame_id)
        height, width = frame.image.shape[:2]
        matrix = np.array([[1, 0, right], [0, 1, down]], np.float32)
        moved = cv2.warpAffine(
            frame.image, matrix, (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101
        )
        return replace(frame, frame_id=frame_id, image=moved)
