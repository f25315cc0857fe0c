"""``--show``: the annotated frames in a window of this machine."""

from __future__ import annotations

import os
import re
import sys

import cv2

from framegate.camera_demo.picture import is_fresh, shown
from framegate.runtime.errors import UsageError
from framegate.runtime.overlay import draw
from framegate.runtime.pipeline import FrameResult
from framegate.runtime.roi import Roi

_TITLE = "framegate (q or Escape ends)"
_KEYS = (ord("q"), 27)


class WindowClosed(Exception):  # noqa: N818 - no error
    """Somebody pressed q or Escape, or closed the window."""


class Window:
    """Shows results; belongs to the main thread.

    Args:
        rois: The pipeline's regions.

    Raises:
        UsageError: This OpenCV has no windows, or this session no display.
    """

    def __init__(self, rois: tuple[Roi, ...]) -> None:
        self._rois = rois
        self._open = False
        gui = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
        if gui is None or gui.group(1) == "NONE":
            raise UsageError(
                "--show: this OpenCV was built without windows (opencv-python-headless); use the page, or "
                "pip uninstall opencv-python-headless && pip install opencv-python"
            )
        # Qt ends the whole process where it finds no display, instead of saying so.
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UsageError("--show: this session has no display (DISPLAY is not set); use the page")

    def show(self, result: FrameResult) -> None:
        """Show one frame, if it is fresh.

        Raises:
            WindowClosed: Nobody wants to see more.
        """
        if not is_fresh(result):
            return
        if not self._open:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
            self._open = True
        cv2.imshow(_TITLE, draw(shown(result.image), result.predictions, self._rois))
        if cv2.waitKey(1) & 0xFF in _KEYS or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
            raise WindowClosed

    def close(self) -> None:
        """Close the window; can be called twice."""
        if self._open:
            cv2.destroyWindow(_TITLE)
            self._open = False
