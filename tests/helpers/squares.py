"""Frames with coloured squares, and a session that knows the colours: for tests of objects."""

from __future__ import annotations

import time

import cv2
import numpy as np

from framegate.runtime import Bundle, Frame, Session
from framegate.runtime.backends.base import CpuBackend
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.regions.function import FunctionRegions
from framegate.runtime.regions.judge import Objects
from framegate.runtime.regions.tracks import TrackMemory

BLUE, GREEN, RED, GREY = (250, 10, 10), (10, 250, 10), (10, 10, 250), (120, 120, 120)


class Counted(CpuBackend):
    """A real engine that counts its calls, and can be told to fail or to repeat itself."""

    calls = 0
    mode = ""

    def __init__(self, inner):
        self._inner = inner
        self.name, self.engine, self.classes, self.pooled = inner.name, inner.engine, inner.classes, None
        self._old = None

    def bind(self, tensor):
        self._inner.bind(tensor)

    def share(self):
        return Counted(self._inner.share())

    def finish(self):
        Counted.calls += 1
        if Counted.mode == "fail":
            raise RuntimeError("the engine is gone")
        if Counted.mode == "stuck" and self._old is not None:
            return self._old
        self._old = self._inner.finish().copy()
        if Counted.mode == "nan":
            self._old[0] = np.nan
        return self._old


def counted_session(tiny_bundle):
    Counted.calls, Counted.mode = 0, ""
    bundle = Bundle.open(tiny_bundle)
    engine = Counted(load_backend("onnxruntime", bundle.model_path("fp32"), 1))
    return Session(bundle, engine, "fp32", bundle.calibration("onnxruntime", "fp32"))


def scene_maker():
    """A healthy camera's frame, 320 x 240, with coloured squares of 40 x 40: scene({(x, y): colour}, seed)."""
    structure = cv2.GaussianBlur(np.random.default_rng(0).normal(120, 180, (240, 320, 3)), (0, 0), 3)

    def make(squares, seed=0):
        rng = np.random.default_rng([1, seed])
        image = np.clip(structure + rng.normal(0, 5, structure.shape), 0, 255).astype(np.uint8)
        for (x, y), colour in squares.items():
            noise = rng.integers(-5, 6, (40, 40, 3))
            image[y : y + 40, x : x + 40] = np.clip(np.array(colour) + noise, 0, 255)
        return image

    return make


def judge_of(session, giver, **options):
    objects = Objects(giver if hasattr(giver, "find") else FunctionRegions(giver), **options)
    memory = TrackMemory(session.stream_policy, objects.rule)
    judge, health = session.object_judge(objects, memory), session.camera_health()

    def judged(image, number=0, deadline_ns=None):
        return judge.judge(Frame(number, time.monotonic_ns(), image), health, deadline_ns)

    return judged


PLACES = {(10, 10): BLUE, (60, 10): GREEN, (110, 10): RED, (160, 10): GREY, (210, 10): BLUE}
BOXES = [(x, y, 40, 40, "", 0.9 - 0.1 * k) for k, (x, y) in enumerate(PLACES)]
