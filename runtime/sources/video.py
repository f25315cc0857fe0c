"""Frames from a video file, at the pace of the recording or as fast as they are read."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import cv2

from framegate.runtime.errors import SourceError
from framegate.runtime.sources.base import BaseSource
from framegate.runtime.sources.opencv import file_name, quiet_opencv
from framegate.runtime.verdict import Frame, Image

_TOLERATED_FRAMES = 2
_TOLERATED_SHARE = 0.01
"""How many frames fewer than promised still count as a regular end. Where a container stores no frame count (Matroska,
FLV, MPEG-TS), OpenCV computes duration x rate, and a clip cut without re-encoding counts frames that cannot be decoded:
both are off by a frame or two, or in proportion to the length."""
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"udta", b"uuid", b"moof", b"mfra", b"sidx", b"styp")
"""What an MP4 or MOV file has at its top level."""
_TS_PACKET, _TS_SYNC = 188, 0x47


class VideoFileSource(BaseSource):
    """A video file. The first frame is decoded at opening, so a file that opens is a video.

    Args:
        path: The file.
        realtime: Frame k is delivered no earlier than k / fps seconds after the first one, and `live` is True. A
            file that states no usable frame rate cannot be paced: it is delivered as fast as it is read.
        loop: Reopen the file at its end, for ever. A file that breaks off is not looped.
        fps: Play it at this rate instead of its own.

    A file breaks off if its outermost parts promise more bytes than there are (AVI, MP4), or its header more frames
    than can be read. The last frame of such a file is usually half a picture which the decoder completed by guessing.
    So the decoder works one frame ahead, and the last frame is withheld whenever anything was missing behind it. Not
    seen here: damage in the middle that the decoder conceals, and an MPEG-TS cut between two packets. Conversely, a
    Matroska file of varying frame rate can be reported as broken off although it is whole.

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
            self._capture.release()
            raise SourceError(f"video {self._path}: opened, but not one frame can be decoded; is the file complete?")
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
            SourceError: The file was cut, or more frames are missing than an estimate may be wrong by.
        """
        promised = self._decoded if self._promised is None else self._promised
        missing = promised - self._decoded
        if missing > max(_TOLERATED_FRAMES, _TOLERATED_SHARE * promised) or _is_cut(self._path):
            raise SourceError(
                f"video {self._path} broke off after frame {self._decoded - 1} of {promised}; "
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


def _is_cut(path: Path) -> bool:
    """True if an AVI (RIFF chunks) or MP4/MOV (ISO 14496-12 boxes) is shorter than its outermost parts say.

    Or if an MPEG-TS does not end with a whole packet. False for other containers, and where the sizes were left open,
    as in a recorded stream.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(0)
            packet = file.read(_TS_PACKET + 1)
            if len(packet) > _TS_PACKET and packet[0] == packet[_TS_PACKET] == _TS_SYNC:
                return end % _TS_PACKET != 0
            at = 0
            while at < end:
                file.seek(at)
                head = file.read(16)
                if head.startswith(b"RIFF"):
                    size = 8 + int.from_bytes(head[4:8], "little")
                    size += size % 2  # chunks are padded to even addresses
                elif head[4:8] in _BOXES:
                    size = int.from_bytes(head[:4], "big")
                    size = int.from_bytes(head[8:16], "big") if size == 1 else size
                else:
                    return False
                if size < 8:
                    return False
                at += size
            return at > end
    except OSError:
        return False


def _why_not(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not head:
        return "the file is empty"
    if head[4:8] == b"ftyp":
        return (
            "this is an MP4 or MOV file without a readable index ('moov', usually written last): most likely the "
            "recording or the copy was cut off; copy it again or repair it"
        )
    return "no decoder recognises it as a video; is it one, and complete?"
