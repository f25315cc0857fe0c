"""Health of volumes (columns of slices): light and exact repetition. What a camera's optics do wrong does not apply."""

from __future__ import annotations

import cv2
import numpy as np

from framegate.runtime.health.frozen import HISTORY
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.verdict import Findings, Image, Reason

_NEVER = (-1.0, -1.0)  # no pixels have a negative mean


class VolumeHealth:
    """Judges volumes of one stream by all of their rows: most rows of a shape in empty space are black in all of them.

    Args:
        limits: `black_mean` and `black_std` are used.
        compare: Look for repeated volumes; False for unrelated ones.
    """

    def __init__(self, limits: HealthThresholds, compare: bool) -> None:
        self._limits = limits
        self._compare = compare
        self._ring: list[Image] = []
        self._moments: list[tuple[float, float]] = []
        self._slot = 0

    def check(self, image: Image) -> Findings:
        """Reasons to reject this volume: BLACK, FROZEN."""
        if not self._ring or self._ring[0].shape != image.shape:
            self._ring = [np.empty(image.shape, np.uint8) for _ in range(HISTORY + 1)]
            self._moments = [_NEVER] * len(self._ring)
        self._slot = (self._slot + 1) % len(self._ring)
        self._moments[self._slot] = _NEVER
        np.copyto(self._ring[self._slot], image)
        # One contiguous channel is what OpenCV's reductions are fastest on.
        values = self._ring[self._slot].reshape(1, -1)
        mean, std = cv2.meanStdDev(values)
        moments = float(mean[0, 0]), float(std[0, 0])
        found: dict[Reason, str] = {}
        if not (moments[0] > self._limits.black_mean or moments[1] > self._limits.black_std):
            found[Reason.BLACK] = ""
        # Equal pixels have equal moments, so only slots with the same ones need the comparison.
        if self._compare and any(
            known == moments and cv2.norm(past.reshape(1, -1), values, cv2.NORM_INF) == 0
            for known, past in zip(self._moments, self._ring, strict=True)
        ):
            found[Reason.FROZEN] = ""
        self._moments[self._slot] = moments
        return found
