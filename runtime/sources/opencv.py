"""What sources need to know about OpenCV."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import cast

import cv2

IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
"""Files that are read as single images, in lower case; every other existing file is opened as a video."""


def opencv_is_at_least(major: int, minor: int) -> bool:
    """Whether OpenCV is of this version or a later one."""
    return tuple(map(int, cv2.__version__.split(".")[:2])) >= (major, minor)


def file_name(path: Path) -> str:
    """A file's name for OpenCV, which crashes on a string with bytes that are not UTF-8.

    Returns:
        The bytes of its absolute name: FFmpeg takes what stands in front of a colon for a protocol, so that
        ``12:30.mp4`` would be no file. OpenCV takes bytes as well; its type declarations only know strings.
    """
    return cast(str, os.fsencode(os.path.abspath(path)))


@functools.cache
def quiet_opencv() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr: our own errors say the same in one line.

    Must run before the process opens its first video, because FFmpeg's level is read only then. Whoever sets
    OPENCV_LOG_LEVEL or OPENCV_FFMPEG_LOGLEVEL wants to see the messages and still does.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    if "OPENCV_LOG_LEVEL" in os.environ:
        return
    if hasattr(cv2, "setLogLevel"):  # OpenCV 4
        cv2.setLogLevel(0)
    else:  # OpenCV 5 moved it
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
