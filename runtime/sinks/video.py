"""An annotated video of every evaluated frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from framegate.runtime.errors import SinkError
from framegate.runtime.health.check import unusable
from framegate.runtime.pipeline import FrameResult
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.overlay import draw
from framegate.runtime.sources.opencv import file_name

# What the FFmpeg inside the OpenCV wheels can encode in real time: no H.264 for licence reasons.
_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
_DEFAULT_FPS = 25.0


class OverlayVideoSink:
    """Draws the verdicts and encodes; the size is that of the first usable frame.

    Args:
        path: ``.mp4`` or ``.avi`` file to create; an existing one is replaced.
        rois: The pipeline's regions.
        fps: Frame rate of the source, None if it has none.

    Raises:
        SinkError: The ending is unknown, or the file cannot be created.
    """

    takes_silence = False

    def __init__(self, path: str | Path, rois: tuple[Roi, ...], fps: float | None) -> None:
        self.path = Path(path)
        self._rois = rois
        self._fps = fps or _DEFAULT_FPS
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._frames = 0
        if self.path.suffix.lower() not in _CODECS:
            raise SinkError(f"video {self.path}: the ending decides the format; use {' or '.join(_CODECS)}")
        try:
            self.path.open("ab").close()  # find out now, not after the first frame; an old video stays until then
        except OSError as error:
            raise SinkError(f"video {self.path}: cannot be written ({error.strerror})") from error

    def write(self, result: FrameResult) -> None:
        """Add one frame; a frame that is no image or of another size is drawn onto black or resized."""
        if result.image is None:
            raise SinkError(f"video {self.path}: the pipeline must be made with keep_frames=True")
        image = result.image
        if isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype == np.uint8 and image.size:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        if unusable(image):
            if self._writer is None:
                return
            image = np.zeros((self._size[1], self._size[0], 3), np.uint8)
        frame = draw(image, result.predictions, self._rois)
        if self._writer is None:
            self._size = (frame.shape[1], frame.shape[0])
            fourcc = cv2.VideoWriter.fourcc(*_CODECS[self.path.suffix.lower()])
            self._writer = cv2.VideoWriter(file_name(self.path), fourcc, self._fps, self._size)
            if not self._writer.isOpened():
                raise SinkError(f"video {self.path}: this OpenCV cannot encode {_CODECS[self.path.suffix.lower()]}")
        if (frame.shape[1], frame.shape[0]) != self._size:
            frame = cv2.resize(frame, self._size)
        self._writer.write(frame)
        self._frames += 1

    def close(self) -> None:
        """Finish the file; can be called twice.

        Raises:
            SinkError: It is not the video that it should be. OpenCV says nothing when it cannot write.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        written = cv2.VideoCapture(file_name(self.path))
        try:
            found = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.read()[0] else 0
        finally:
            written.release()
        if found < self._frames:
            raise SinkError(
                f"video {self.path}: {self._frames} frames were written, {max(found, 0)} can be read; is the disk full?"
            )
