"""``--show``: the annotated frames in a window of this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import cv2
import numpy as np

from framegate.runtime.channel import Channel
from framegate.runtime.errors import UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.overlay import draw
from framegate.runtime.sinks.picture import shown
from framegate.runtime.verdict import Image

_TITLE = "framegate (q or Escape ends)"
_KEYS = (ord("q"), ord("Q"), 27)
_POLL_S = 0.05
_WIDEST = 1280
_PROBE = "import cv2; cv2.namedWindow('framegate'); cv2.destroyAllWindows()"
_PROBE_S = 30.0


class Window:
    """Shows the newest result.

    Args:
        rois: The pipeline's regions.
        stale_ms: Without a result for so long, in milliseconds, the last picture is crossed out.

    Raises:
        UsageError: This OpenCV has no windows, or this session no display.
    """

    def __init__(self, rois: tuple[Roi, ...], stale_ms: float) -> None:
        self._rois = rois
        self._stale_s = stale_ms / 1e3
        self._newest: Channel[FrameResult] = Channel(1, overwrite=True)
        gui = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
        if gui is None or gui.group(1) == "NONE":
            raise UsageError(
                "--show: this OpenCV was built without windows (opencv-python-headless); use the page, or "
                "pip uninstall opencv-python-headless && pip install opencv-python"
            )
        os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")  # Qt misses fonts that are not needed
        # Qt ends the whole process where it finds no display, instead of saying so: let it end another one.
        try:
            probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, timeout=_PROBE_S, check=False)
            opens = probe.returncode == 0
        except subprocess.TimeoutExpired:  # a display that accepts and then says nothing
            opens = False
        if not opens:
            display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
            found = f"on the display {display!r}" if display else "because this session has no display"
            raise UsageError(f"--show: no window can be opened {found}; use the page")

    def show(self, result: FrameResult) -> None:
        """Take a result; from any one thread."""
        self._newest.put(result)

    def finish(self) -> None:
        """There are no more results: `run` returns."""
        self._newest.close()

    def run(self) -> bool:
        """Show what comes; belongs to the main thread.

        Returns:
            True when somebody pressed q or Escape or closed the window, False after `finish`.
        """
        size = (0, 0)
        last, crossed = time.monotonic(), False
        canvas: Image = np.zeros((360, 640, 3), np.uint8)
        cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        try:
            cv2.imshow(_TITLE, canvas)
            while not self._newest.finished:
                result = self._newest.take(_POLL_S)
                if result is not None:
                    canvas = draw(shown(result.image), result.predictions, result.rois(self._rois), result.scene)
                    last, crossed = time.monotonic(), False
                    if canvas.shape[1::-1] != size:
                        size = canvas.shape[1], canvas.shape[0]
                        shrink = min(1.0, _WIDEST / size[0])
                        cv2.resizeWindow(_TITLE, round(size[0] * shrink), round(size[1] * shrink))
                    cv2.imshow(_TITLE, canvas)
                elif not crossed and time.monotonic() - last > self._stale_s:
                    crossed = True
                    cv2.imshow(_TITLE, no_verdict(canvas))
                if cv2.waitKey(1) & 0xFF in _KEYS or not _is_open():
                    return True
            return False
        finally:
            cv2.destroyAllWindows()


def _is_open() -> bool:
    try:
        return cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1
    except cv2.error:  # what Qt's windows raise instead, when the last one was closed
        return False


def no_verdict(image: Image) -> Image:
    """A darkened copy, crossed out: nobody may take the last picture for a live one."""
    canvas = np.ascontiguousarray(image // 3)
    height, width = canvas.shape[:2]
    line = max(2, round(width / 200))
    for start, end in (((0, 0), (width, height)), ((0, height), (width, 0))):
        cv2.line(canvas, start, end, (40, 40, 220), line, cv2.LINE_AA)
    scale = width / 800
    text = "DO NOT USE: no live verdict"
    (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 2)
    left, low = (width - wide) // 2, (height + high) // 2
    cv2.rectangle(canvas, (left - high, low - 2 * high), (left + wide + high, low + high), (40, 40, 220), cv2.FILLED)
    cv2.putText(canvas, text, (left, low), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 2, cv2.LINE_AA)
    return canvas
