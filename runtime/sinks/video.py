"""An annotated video of every evaluated frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from framegate.runtime.errors import SinkError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.health.check import unusable
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.base import FLUSH_S
from framegate.runtime.sinks.encoders import CODECS, Encoder, open_encoder
from framegate.runtime.sinks.overlay import draw

_DEFAULT_FPS = 25.0


class OverlayVideoSink:
    """Draws the verdicts and encodes; the size is that of the first usable frame.

    Args:
        path: ``.mp4``, ``.mkv`` or ``.avi`` file to create; an existing one is replaced.
        rois: The pipeline's regions.
        fps: Frame rate of the source, None if it has none.

    Raises:
        SinkError: The ending is unknown, or the file cannot be created.
    """

    takes_silence = False
    takes_pictures = True
    flush_s = FLUSH_S

    def __init__(self, path: str | Path, rois: tuple[Roi, ...], fps: float | None) -> None:
        self.path = Path(path)
        self._rois = rois
        self._fps = fps or _DEFAULT_FPS
        self._encoder: Encoder | None = None
        self._size = (0, 0)
        if self.path.suffix.lower() not in CODECS:
            raise SinkError(f"video {self.path}: the ending decides the format; use {', '.join(CODECS)}")
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
            if self._encoder is None:
                return
            image = np.zeros((self._size[1], self._size[0], 3), np.uint8)
        frame = draw(image, result.predictions, result.rois(self._rois), result.scene)
        if self._encoder is None:
            self._size = (frame.shape[1], frame.shape[0])
            self._encoder = open_encoder(self.path, self._fps, self._size)
        if (frame.shape[1], frame.shape[0]) != self._size:
            frame = cv2.resize(frame, self._size)
        self._encoder.write(frame)

    def flush(self) -> None:
        """End the fragment of an MP4 file."""
        if self._encoder is not None:
            self._encoder.flush()

    def close(self) -> None:
        """Finish the file; can be called twice.

        Raises:
            SinkError: It is not the video that it should be.
        """
        if self._encoder is not None:
            self._encoder.close()
