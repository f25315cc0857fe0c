"""Counting a frame's rows on another core, while this one preprocesses and the network computes (beside.c)."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable

import numpy as np

from framegate.runtime.native import fast_path_module
from framegate.runtime.verdict import Image

_P, _I = ctypes.c_void_p, ctypes.c_int32
NAME = "framegate-check"
"""Of the threads that count."""


_ATTENDED_NS = 300_000
"""Longest look for a frame: a worker that was asleep asks for the check within a third of a millisecond."""


_PIXELS, _HELPED = 1, 2
"""Places of what is kept."""


class Job(ctypes.Structure):
    """See beside.c."""

    _fields_ = (
        ("flat_share", ctypes.c_double),
        *((name, _I) for name in ("rows", "width", "blocks", "pieces", "slots", "rank")),
        *(
            (name, _P)
            for name in ("sums", "spare", "histogram", "counts", "weights", "starts", "means", "marks", "known")
        ),
        *((name, _P) for name in ("farthest", "equal", "changed", "summary", "content", "limits", "healthy", "pixels")),
        ("row_bytes", ctypes.c_int64),
        ("grey", _P),
        ("current", _I),
        ("previous", _I),
        ("resize", _P),
    )


class Beside:
    """A thread that counts, for one stream. It ends with this object.

    Args:
        code: From `framegate.runtime.native.library`.

    Attributes:
        at: Address of its state (beside.c).

    Raises:
        OSError: The system has no such thread.
    """

    def __init__(self, code: ctypes.CDLL) -> None:
        size = int(code.framegate_beside_size())
        self._state = np.zeros(size, np.uint8)
        self.at = self._state.ctypes.data
        if not size or code.framegate_beside_open(self.at):
            raise OSError("there is no thread for the camera check")
        self._start, self._finish = code.framegate_beside_start, code.framegate_beside_finish
        module, attend = fast_path_module(), code.framegate_beside_attend
        # Of the two ways the module's is the shorter one, and the worker waits until it lets go of the interpreter.
        self._attend: Callable[[int, int], object] = attend if module is None else module.attend
        run, state, at = code.framegate_beside_run, self._state, self.at

        def stay(_kept: object = state) -> None:  # whose memory the thread waits in
            run(at)

        self.thread = threading.Thread(target=stay, name=NAME, daemon=True)
        self.thread.start()
        self.kept: list[object] = [state, None, None]
        """What the thread may be working on: it lives until the thread has stopped."""
        self.close = weakref.finalize(self, _stop, code, at, self.kept, os.getpid())
        """Ends the thread; what is asked for afterwards is done by whoever asks."""

    def keep(self, helped: object) -> None:
        """Keep what somebody lets the thread help with (``resize`` of its job), in place of what was kept before."""
        if self.kept:  # else the thread has stopped
            self.kept[_HELPED] = helped

    def start(self, job: int, pixels: Image, row_bytes: int, grey: int, current: int, previous: int) -> None:
        """Ask for a frame's rows, the first of which is that of ``pixels``; `finish` must follow."""
        if self.kept:
            self.kept[_PIXELS] = pixels
        self._start(self.at, job, pixels.ctypes.data, row_bytes, grey, current, previous, None)

    def attend(self) -> bool:
        """Look for a frame for a moment, and count its rows, so that nobody need be woken; True if there was one.

        Called by the thread that hands frames over, which is awake, and has nothing else to do then.
        """
        return bool(self._attend(self.at, _ATTENDED_NS))

    def finish(self) -> bool:
        """Wait for it; False if the thread had not begun, and the work was done here."""
        return bool(self._finish(self.at))


def _stop(code: ctypes.CDLL, at: int, kept: list[object], process: int) -> None:
    if os.getpid() == process:  # a child that was forked has no such thread, and would wait for ever for its work
        code.framegate_beside_stop(at)
        kept.clear()
