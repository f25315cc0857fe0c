"""Attacks on the shown model while the stream runs: computed beside it, pasted onto every frame.

Ten gradient steps take longer than a frame lasts. So a thread of low priority attacks the newest frame that it can get,
and the difference it found is added to all frames until the next one is ready: a patch that is always some frames old,
as one is that somebody holds in front of a camera.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from framegate.runtime.bundle import Bundle
from framegate.runtime.errors import FramegateError
from framegate.runtime.fault_plugins import FaultFunction, load_plugins
from framegate.runtime.roi import Roi
from framegate.runtime.verdict import Image

_NICE = 10


class AttackThread:
    """Faults of other packages, which are loaded when one is used for the first time.

    Args:
        bundle: The shown model.
        rois: The regions it is shown.

    Attributes:
        status: One line for people: what it is doing, or why it cannot; empty if nothing was asked for.
    """

    def __init__(self, bundle: Bundle, rois: Sequence[Roi]) -> None:
        self._bundle = bundle
        self._rois = tuple(rois)
        self._condition = threading.Condition()
        self._wanted: tuple[str, int] | None = None
        self._todo: Image | None = None
        self._found: tuple[str, int, npt.NDArray[np.int16]] | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        self.status = ""

    def apply(self, image: Image, kind: str, severity: int) -> Image:
        """The image with the newest patch of that kind, as a new array; the image itself until there is one.

        Args:
            image: (height, width, 3) uint8 BGR; anything else is returned as it is.
            kind: Name of the fault.
            severity: 1 to 5.
        """
        if image.ndim != 3 or image.dtype != np.uint8:
            return image
        with self._condition:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="framegate-demo-attack", daemon=True)
                self._thread.start()
            self._wanted, self._todo = (kind, severity), image
            self._condition.notify()
            found = self._found
        if found is None or found[:2] != (kind, severity) or found[2].shape != image.shape:
            return image
        return np.clip(image + found[2], 0, 255).astype(np.uint8)

    def rest(self) -> None:
        """No fault is asked for any more; the next one starts afresh."""
        if self._wanted is None:
            return
        with self._condition:
            self._wanted = self._todo = self._found = None
            self.status = ""

    def close(self) -> None:
        """End the thread, after the attack that it is computing."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join(10.0)

    def _work(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # where a thread has no priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        loaded: dict[str, FaultFunction] = {}
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._todo is not None)
                if self._closed or self._todo is None or self._wanted is None:
                    return
                (kind, severity), image, self._todo = self._wanted, self._todo, None
            try:
                if kind not in loaded:
                    self.status = f"{kind}: loading what it needs"
                    loaded |= load_plugins([kind], self._bundle, self._rois)
                    self.status = f"{kind}: computing the first patch"
                patch = loaded[kind](image, severity).astype(np.int16) - image
            except FramegateError as error:
                self._give_up(str(error))
                continue
            except Exception as error:  # noqa: BLE001 - code of another package; the demo goes on without it
                self._give_up(f"{kind} failed: {type(error).__name__}: {error}")
                continue
            with self._condition:
                if self._wanted == (kind, severity):
                    self._found = (kind, severity, patch)
                    self.status = f"{kind}: patch in place, renewed all the time"

    def _give_up(self, why: str) -> None:
        with self._condition:
            self._found = None
            self.status = why if self._wanted is not None else ""
