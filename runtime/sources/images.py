"""Frames from a folder of image files, or from one."""

from __future__ import annotations

import glob
import re
import time
import zlib
from pathlib import Path

import cv2
import numpy as np

from framegate.runtime.console import writable
from framegate.runtime.errors import SourceError
from framegate.runtime.passwords import hide_passwords
from framegate.runtime.sources import jpeg
from framegate.runtime.sources.base import BaseSource
from framegate.runtime.sources.jpeg_decoder import decode_jpeg
from framegate.runtime.sources.opencv import IMAGE_SUFFIXES, quiet_opencv
from framegate.runtime.verdict import Frame, Image

_AS_STORED = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
"""Also turned upright. Not IMREAD_UNCHANGED, which turns TIFF and nothing else."""
AS_CAPTURED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
"""Three colours, not turned: pictures of a stream."""
_PNG = b"\x89PNG\r\n\x1a\n"


class ImageSource(BaseSource):
    """Image files in natural order (``frame2`` before ``frame10``), one frame each, without pacing.

    Args:
        path: A folder (its hidden files and sub-folders are left out), one image file, or a pattern of file names
            (``*``, ``?``, ``[a-c]``; ``**`` for folders of any depth).
        loop: Start again at the end, for ever.
        fps: Deliver them at this rate, and be `live`. None: as fast as they are read.

    Values are delivered as stored: 16-bit and grey images are not converted, so that the health check sees and
    rejects them (a session whose network is grey takes 8-bit grey ones; volumes are stored as such, see
    `framegate.runtime.preprocess`); only an alpha channel is left out. Pictures are turned upright as the file's
    orientation tag says (EXIF in JPEG, PNG and WebP, the tag of TIFF), for every format alike: a phone's portrait
    photograph arrives upright, as it did in training. Of animated and multi-page files only the first picture is read.

    A file that cannot be read or is damaged does not end the run: it becomes a frame without pixels, which the
    health check rejects as BAD_INPUT. `name` of the frame is the file name.

    Raises:
        SourceError: No such file or folder, or no image in it.
    """

    hands_over = True

    def __init__(self, path: str | Path, *, loop: bool = False, fps: float | None = None) -> None:
        quiet_opencv()
        path = Path(path)
        self._files = _image_files(path)
        self._loop = loop
        length = None if loop else len(self._files)
        super().__init__(str(path), live=fps is not None, fixed_size=False, fps=fps, length=length)

    def _produce(self, frame_id: int) -> Frame | None:
        if frame_id >= len(self._files) and not self._loop:
            return None
        file = self._files[frame_id % len(self._files)]
        image = read_image(file)
        if self.live:
            self._pace(frame_id)
        return Frame(frame_id, time.monotonic_ns(), image, writable(file.name))


def read_image(path: Path) -> Image:
    """Read one image file: values as stored, without an alpha channel, upright as its orientation tag says.

    Returns:
        The pixels, or an empty (0, 0, 3) uint8 array if the file cannot be read or is damaged.
    """
    try:
        return decode_image(path.read_bytes(), _AS_STORED)
    except OSError:
        return _unreadable()


def decode_image(data: bytes, flags: int) -> Image:
    """Decode an image file from memory, because cv2.imread silently returns a half-grey picture for half a JPEG.

    Args:
        data: The file.
        flags: ``cv2.IMREAD_...``

    Returns:
        The pixels, or an empty (0, 0, 3) uint8 array if it is damaged or no image.
    """
    if not _is_whole(data):
        return _unreadable()
    if data.startswith(jpeg.SIGNATURE):
        known = decode_jpeg(data)
        if known.damaged:
            return _unreadable()
        if known.image is not None and flags == AS_CAPTURED:
            return known.image
    image = _decoded(data, flags)
    if image is None and flags == _AS_STORED:  # so that a format which cannot be used is named, not called damaged
        image = _decoded(data, cv2.IMREAD_UNCHANGED)
    return _unreadable() if image is None else image


def _decoded(data: bytes, flags: int) -> Image | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _unreadable() -> Image:
    return np.empty((0, 0, 3), np.uint8)


def _is_whole(data: bytes) -> bool:
    """False for what the decoders would complete by guessing (JPEG) or report on stderr (PNG).

    A bit error inside the compressed data of a JPEG is found by `decode_jpeg`, where that is possible.
    """
    if data.startswith(jpeg.SIGNATURE):
        return jpeg.JpegEnd().find(data) >= 0
    if data.startswith(_PNG):
        return _is_whole_png(data)
    return bool(data)


def _is_whole_png(data: bytes) -> bool:
    """Every chunk present up to IEND, every checksum right (PNG specification, section 5.3)."""
    at = len(_PNG)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if int.from_bytes(data[end : end + 4], "big") != zlib.crc32(data[at + 4 : end]) or end + 4 > len(data):
            return False
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at = end + 4
    return False


def _image_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        if any(sign in str(path) for sign in "*?["):
            return _matching(str(path))
        raise SourceError(f"images {hide_passwords(str(path))}: there is no such file or folder")
    try:
        entries = list(path.iterdir())
    except OSError as error:
        raise SourceError(f"images {path}: the folder cannot be listed: {error.strerror}") from error
    files = [
        entry
        for entry in entries
        if entry.suffix.lower() in IMAGE_SUFFIXES
        and not entry.name.startswith(".")
        and (entry.is_file() or entry.is_symlink())  # a dangling link is a damaged image, not a missing one
    ]
    if not files:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        raise SourceError(f"images {path}: no image among its {len(entries)} entries; looked for {kinds}")
    return sorted(files, key=_natural)


def _matching(pattern: str) -> list[Path]:
    found = [Path(name) for name in glob.glob(pattern, recursive=True)]
    files = [path for path in found if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        shown = hide_passwords(pattern)
        raise SourceError(f"images {shown}: {len(found)} entries match, no image among them; looked for {kinds}")
    return sorted(files, key=lambda path: (str(path.parent), _natural(path)))


def _natural(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key under which numbers compare as numbers; the plain name decides between 1.png and 01.png."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name.lower())
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts], path.name
