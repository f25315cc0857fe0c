"""The process that computes attacks: run as ``python -m framegate.camera_demo.attack_process``, never imported.

It has an interpreter, torch and a low priority of its own, so that it takes little from the pipeline, and can be ended
at any moment. It reads pickled requests from standard input and writes pickled answers to what was its standard output:

    (bundle's path, regions)            once
    (kind, severity, image)             -> ("patch", int16 array to be added to the image) or ("failed", why)
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from typing import Any

import numpy as np

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import FramegateError
from framegate.runtime.faults.plugins import FaultFunction, load_plugins

NICE = 5


def serve() -> None:
    """Answer requests until there are no more."""
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an imported library prints is no answer
    with contextlib.suppress(OSError):
        os.nice(NICE)
    path, rois = pickle.load(requests)
    loaded: dict[str, FaultFunction] = {}
    while True:
        try:
            kind, severity, image = pickle.load(requests)
        except EOFError:
            return
        answer: tuple[str, Any]
        try:
            if kind not in loaded:
                loaded |= load_plugins([kind], Bundle.open(path), rois)
            answer = "patch", loaded[kind](image, severity).astype(np.int16) - image
        except FramegateError as error:
            answer = "failed", str(error)
        except Exception as error:  # noqa: BLE001 - code of another package; the demo goes on without it
            answer = "failed", f"{kind}: {type(error).__name__}: {error}"
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):  # the demo ends this process by itself
        serve()
