"""Frames from a video file, at the pace of the recording or as fast as they are read."""

from __future__ import annotations

import math
import time
from pathlib import Path

import cv2

from framegate.runtime.errors import SourceError
from framegate.runtime.sources.base import BaseSource
from framegate.runtime.sources.container import inspect
from framegate.runtime.sources.opencv import file_name, quiet_opencv
from framegate.runtime.verdict import Frame, Image

_TOLERATED_FRAMES = 2
_TOLERATED_SHARE = 0.01
"""How many frames fewer than a container counts still are a regular end: a clip cut without re-encoding counts frames
that cannot be decoded."""
_CODEC_NAMES = {"AV01": "AV1", "AV1": "AV1", "HEV1": "H.265", "HVC1": "H.265", "HEVC": "H.265", "VVC1": "H.266"}


class VideoFileSource(BaseSource):
    """A video file. The first frame is decoded at opening, so a file that opens is a video.

    Args:
        path: The file.
        realtime: Frame k is delivered no earlier than k / fps seconds after the first one, and `live` is True. A
            file that states no usable frame rate cannot be paced: it is delivered as fast as it is read.
        loop: Reopen the file at its end, for ever. A file that breaks off is not looped.
        fps: Play it at this rate instead of its own.

    A file breaks off if its parts promise more bytes than there are, or its header counts more frames than can be read
    (`framegate.runtime.sources.container`); a count that OpenCV estimated from duration and rate is only used for
    progress. The last frame of such a file is usually half a picture which the decoder completed by guessing. So the
    decoder works one frame ahead, and the last frame is withheld whenever anything was missing behind it. Not seen
    here: damage in the middle that the decoder conceals, and a cut that falls exactly between two parts of a container
    that states no size of the whole, such as two packets of an MPEG-TS.

    Raises:
        SourceError: The file is not a video, or its index was lost.
    """

    hands_over = True

    def __init__(
        self, path: str | Path, *, realtime: bool = True, loop: bool = False, fps: float | None = None
    ) -> None:
        quiet_opencv()
        self._path = Path(path)
        self._loop = loop
        self._decoded = 0
        self._capture = _open(self._path)
        self._ahead = self._decode()
        if self._ahead is None:
            codec = _fourcc(self._capture)
            self._capture.release()
            raise SourceError(f"video {self._path}: {_why_no_frame(self._path, codec)}")
        rate = float(self._capture.get(cv2.CAP_PROP_FPS)) if fps is None else fps
        promised = float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        # Unknown counts come as 0, NaN or hugely negative. 1e9 frames are a year of video: not a count either.
        self._promised = round(promised) if math.isfinite(promised) and 0 < promised < 1e9 else None
        rate_known = math.isfinite(rate) and 0 < rate <= 1000
        super().__init__(
            str(self._path),
            live=realtime and rate_known,
            # Of the decoded frame, not of the header, which a rotation flag may contradict.
            frame_size=(self._ahead.shape[1], self._ahead.shape[0]),
            fps=rate if rate_known else None,
            length=None if loop else self._promised,
        )

    def _produce(self, frame_id: int) -> Frame | None:
        image = self._take()
        if image is None:
            return None
        if self.live:
            self._pace(frame_id)
        return Frame(frame_id, time.monotonic_ns(), image)

    def _take(self) -> Image | None:
        """The frame held back, once the one behind it is decoded or the file has come to its regular end."""
        while True:
            if self._ahead is None:
                if not self._loop:
                    return None
                self._rewind()
            image, self._ahead = self._ahead, self._decode()
            if self._ahead is not None:
                return image
            if self._ended_whole():
                return image
            if self._decoded <= 1:  # nothing but a doubtful frame: looping would never deliver anything
                return None

    def _ended_whole(self) -> bool:
        """At the end of the file: False if a few frames are missing, so that the last one is in doubt.

        Raises:
            SourceError: The file was cut, or more frames are missing than a count may be wrong by.
        """
        found = inspect(self._path)
        counted = self._promised if found.counts_frames else None
        promised = self._decoded if counted is None else counted
        missing = promised - self._decoded
        if missing > max(_TOLERATED_FRAMES, _TOLERATED_SHARE * promised) or found.is_cut:
            total = "" if counted is None else f" of {promised}"
            raise SourceError(
                f"video {self._path} broke off after frame {self._decoded - 1}{total}; "
                "the verdicts up to there are valid"
            )
        return missing <= 0

    def _decode(self) -> Image | None:
        ok, image = self._capture.read()
        if not ok or image is None:
            return None
        self._decoded += 1
        return image

    def _rewind(self) -> None:
        # Reopened instead of positioned: seeking is inexact or impossible in several containers.
        self._capture.release()
        self._decoded = 0
        self._capture = _open(self._path)
        self._ahead = self._decode()
        if self._ahead is None:
            raise SourceError(f"video {self._path} could be played once, but not again; was it changed meanwhile?")

    def _release(self) -> None:
        self._capture.release()
        self._ahead = None


def _open(path: Path) -> cv2.VideoCapture:
    """Open a video file.

    Raises:
        SourceError: No decoder takes it; the message says what is likely.
    """
    available = cv2.videoio_registry.getStreamBackends()
    # Named, because "any" would also take frame_001.xyz for the start of a numbered image sequence. OpenCV's own
    # MJPEG reader only where there is nothing else: it writes to stderr whatever the log level.
    wanted = [api for api in (cv2.CAP_FFMPEG, cv2.CAP_GSTREAMER) if api in available] or [cv2.CAP_OPENCV_MJPEG]
    for api in wanted:
        capture = cv2.VideoCapture(file_name(path), api)
        if capture.isOpened():
            return capture
        capture.release()
    raise SourceError(f"video {path}: {_why_not(path)}")


def _fourcc(capture: cv2.VideoCapture) -> str:
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    return code.to_bytes(4, "little").decode("latin-1").strip("\0 ") if 0 < code < 1 << 32 else ""


def _why_no_frame(path: Path, codec: str) -> str:
    """Why a file that opened gives no frame."""
    found = inspect(path)
    if found.is_cut:
        return "its end is missing, and not one frame can be decoded; copy it again"
    if codec or found.video:
        return _no_decoder(codec or found.video[0])
    return "opened, but not one frame can be decoded; is the file complete?"


def _no_decoder(codec: str) -> str:
    name = _CODEC_NAMES.get(codec.upper().rpartition("/")[2], codec)
    return (
        f"{name}: this OpenCV has no decoder for this video, or it is damaged from its first frame on; convert it, "
        "e.g. ffmpeg -i FILE -c:v libx264 NEW.mp4"
    )


def _why_not(path: Path) -> str:
    """Why no decoder opens a file."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not head:
        return "the file is empty"
    found = inspect(path)
    if found.audio and not found.video:
        return "has no video track, only sound"
    if found.video and not found.is_cut:
        return _no_decoder(found.video[0])
    if head[4:8] == b"ftyp" and not found.video:
        return (
            "this is an MP4 or MOV file without a readable index ('moov', usually written last): most likely the "
            "recording or the copy was cut off; copy it again or repair it"
        )
    if found.is_cut:
        return "its end is missing, and no decoder opens what is there; copy it again"
    return "no decoder recognises it as a video; is it one, and complete?"
