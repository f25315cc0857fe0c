"""Attacks on the shown model while the stream runs: computed beside it, pasted onto every frame.

Ten gradient steps take longer than a frame lasts. So a process of low priority attacks the newest frame that it can
get, and the difference it found is added to all frames until the next one is ready: a patch that is always some frames
old, as one is that somebody holds in front of a camera.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from framegate.runtime.roi import Roi
from framegate.runtime.verdict import Image

_ENDED_S = 5.0


class LiveAttacks:
    """Faults of other packages; their process starts when one is used for the first time.

    Args:
        bundle: Folder of the shown model.
        rois: The regions it is shown.

    Attributes:
        status: One line for people: what it is doing, or why it cannot; empty if nothing was asked for.
    """

    def __init__(self, bundle: Path, rois: Sequence[Roi]) -> None:
        self._start_with = (bundle, tuple(rois))
        self._condition = threading.Condition()
        self._wanted: tuple[str, int] | None = None
        self._todo: Image | None = None
        self._found: tuple[tuple[str, int], npt.NDArray[np.int16]] | None = None
        self._closed = False
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
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
        wanted = (kind, severity)
        with self._condition:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="framegate-demo-attacks", daemon=True)
                self._thread.start()
            if self._wanted != wanted:
                self.status = f"{kind}: computing the first patch"
            self._wanted, self._todo = wanted, image
            self._condition.notify()
            found = self._found
        if found is None or found[0] != wanted or found[1].shape != image.shape:
            return image
        return np.clip(image + found[1], 0, 255).astype(np.uint8)

    def rest(self) -> None:
        """No fault is asked for any more; the next one starts afresh."""
        if self._wanted is None:
            return
        with self._condition:
            self._wanted = self._todo = self._found = None
            self.status = ""
            self._condition.notify()

    def close(self) -> None:
        """End the process and the thread."""
        with self._condition:
            self._closed = True
            self._condition.notify()
            if self._process is not None:
                self._process.kill()
        if self._thread is not None:
            self._thread.join(_ENDED_S)

    def _work(self) -> None:
        with self._condition:
            if self._closed:
                return
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "framegate.camera_demo.attack_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) - 1))},
                start_new_session=True,  # Ctrl-C in the terminal is handled by the demo
            )
        try:
            self._talk(process)
        except (OSError, EOFError, pickle.UnpicklingError):  # it has ended; asked to, or by itself
            with self._condition:
                self._wanted = self._todo = self._found = None
                self.status = "" if self._closed else "the process that computes attacks has ended; no attack any more"
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _talk(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump(self._start_with, process.stdin)
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._todo is not None)
                if self._closed or self._todo is None or self._wanted is None:
                    return
                wanted, image, self._todo = self._wanted, self._todo, None
            pickle.dump((*wanted, image), process.stdin)
            process.stdin.flush()
            outcome, value = pickle.load(process.stdout)
            with self._condition:
                if self._wanted != wanted:
                    continue
                if outcome == "failed":
                    self._found, self.status = None, value
                    self._condition.wait_for(lambda: self._closed or self._wanted != wanted)  # noqa: B023
                else:
                    self._found = (wanted, value)
                    self.status = f"{wanted[0]}: patch in place, renewed all the time"
