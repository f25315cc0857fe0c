"""Encode pictures with OpenCV into files that can be played although their writer was killed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Protocol

import cv2

from framegate.runtime.errors import SinkError
from framegate.runtime.sinks.mp4_boxes import read_clip
from framegate.runtime.sinks.mp4_file import Mp4File
from framegate.runtime.sources.opencv import file_name
from framegate.runtime.verdict import Image

# What the FFmpeg inside the OpenCV wheels can encode in real time: no H.264 for licence reasons.
CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
_CLIP_S = 2.0
_RESERVE_BYTES = 8 * 2**20


class Encoder(Protocol):
    """Takes pictures of one size."""

    def write(self, frame: Image) -> None:
        """Add one, (height, width, 3) uint8 BGR.

        Raises:
            SinkError: It cannot be written.
        """

    def flush(self) -> None:
        """See `framegate.runtime.sinks.base.Sink.flush`."""

    def close(self) -> None:
        """See `framegate.runtime.sinks.base.Sink.close`."""


def open_encoder(path: Path, fps: float, size: tuple[int, int]) -> Encoder:
    """The encoder for a file's ending.

    Args:
        path: Ends in one of `CODECS`; an existing file is replaced.
        fps: Frames per second.
        size: Width and height in pixels.

    Raises:
        SinkError: The file cannot be created, or OpenCV cannot encode this.
    """
    return Mp4Encoder(path, fps, size) if path.suffix.lower() == ".mp4" else OpenCvEncoder(path, fps, size)


def _open_writer(path: Path, shown: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    """OpenCV's writer.

    Args:
        path: What it writes.
        shown: The file that people know.
        fps: Frames per second.
        size: Width and height in pixels.

    Raises:
        SinkError: It cannot encode this.
    """
    codec = CODECS[shown.suffix.lower()]
    writer = cv2.VideoWriter(file_name(path), cv2.VideoWriter.fourcc(*codec), fps, size)
    if not writer.isOpened():
        raise SinkError(f"video {shown}: this OpenCV cannot encode {codec}")
    return writer


class Mp4Encoder:
    """Encodes short clips in memory, and appends each to an `Mp4File`.

    OpenCV writes the index of an MP4 file at its very end and offers no fragments (its variable
    ``OPENCV_FFMPEG_WRITER_OPTIONS`` never reaches the container), so that what it writes by itself is lost with the
    process. A clip ends with a flush, or after two seconds of video.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        self._path, self._fps, self._size = path, fps, size
        self._file = Mp4File(path, fps, size)
        self._longest = max(1, round(_CLIP_S * fps))
        # OpenCV takes the format from a name's ending, which a piece of memory does not have: a link has.
        self._folder = tempfile.TemporaryDirectory(prefix="framegate-")
        self._link = Path(self._folder.name) / "clip.mp4"
        if hasattr(os, "memfd_create") and os.path.exists("/proc/self/fd"):
            self._memory = os.memfd_create("framegate-clip")
            self._link.symlink_to(f"/proc/self/fd/{self._memory}")
        else:  # no Linux: a file
            self._memory = os.open(self._link, os.O_RDWR | os.O_CREAT, 0o600)
        self._writer: cv2.VideoWriter | None = None
        self._waiting = 0
        self._closed = False

    def write(self, frame: Image) -> None:
        """See `Encoder.write`."""
        if self._writer is None:
            self._writer = _open_writer(self._link, self._path, self._fps, self._size)
        self._writer.write(frame)
        self._waiting += 1
        if self._waiting >= self._longest:
            self.flush()

    def flush(self) -> None:
        """See `Encoder.flush`."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer, frames, self._waiting = None, self._waiting, 0
        data = os.pread(self._memory, os.fstat(self._memory).st_size, 0)
        try:
            clip = read_clip(data)
        except ValueError as error:
            raise SinkError(
                f"video {self._path}: this OpenCV's MP4 cannot be taken apart ({error}); use .mkv or .avi; "
                f"{self._file.kept}"
            ) from error
        if len(clip.sizes) != frames:
            raise SinkError(f"video {self._path}: {len(clip.sizes)} of {frames} frames were encoded; {self._file.kept}")
        self._file.add(clip)

    def close(self) -> None:
        """See `Encoder.close`."""
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
        finally:
            os.close(self._memory)
            self._folder.cleanup()
            self._file.close()


class OpenCvEncoder:
    """Lets OpenCV write the file, in a container that can be read without its end.

    A killed process loses of an ``.avi`` what its stream buffer held (less than a frame of usual size), of an ``.mkv``
    the last cluster (at most 5 s or 5 MB). OpenCV says nothing when it cannot write, so the video ends while there is
    room for its index: 8 MiB before the disk is full.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        self._path = path
        self._writer: cv2.VideoWriter | None = _open_writer(path, path, fps, size)
        self._frames = 0

    def write(self, frame: Image) -> None:
        """See `Encoder.write`."""
        if self._writer is None:
            return
        if _free_bytes(self._path) < _RESERVE_BYTES:
            raise SinkError(
                f"video {self._path}: less than {_RESERVE_BYTES >> 20} MiB are left on its disk; its first "
                f"{self._frames} frames are kept"
            )
        self._writer.write(frame)
        self._frames += 1

    def flush(self) -> None:
        """See `Encoder.flush`; OpenCV cannot be made to write what it holds."""

    def close(self) -> None:
        """See `Encoder.close`."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        written = cv2.VideoCapture(file_name(self._path))
        try:
            found = int(written.get(cv2.CAP_PROP_FRAME_COUNT)) if written.read()[0] else 0
        finally:
            written.release()
        if found < self._frames:
            raise SinkError(
                f"video {self._path}: of {self._frames} frames the index has {max(found, 0)}; is the disk full? "
                "What was written before is kept"
            )


def _free_bytes(path: Path) -> int:
    """What can still be written on the disk of a file; a part of it may be for the administrator only."""
    disk = os.statvfs(path)
    return disk.f_frsize * (disk.f_bavail if os.geteuid() else disk.f_bfree)
