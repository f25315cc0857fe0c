"""The kind of camera monitor that the field uses: what a camera usually looks like, in eight numbers, and three sigma.

Written after the public description of the camera monitor in NVIDIA's Halos Outside-In Safety Blueprint (its Safety AI
Monitor, documentation of version 1.4): each camera is learnt for a while, frames are scored against that, a camera is
untrusted until it is proven healthy, and a sustained change, not a single frame, changes the verdict. What it leaves
open is filled in here: which statistics, and how the score follows from them. It is a baseline to be compared with, not
a copy of that product.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from framegate.runtime.verdict import Image

STATISTICS = ("mean", "contrast", "sharpness", "edges", "entropy", "saturation", "blue", "red")
_SIGMAS = 6.0
"""Standard deviations at which the score is 0; at three it is 50, between the two limits of the hysteresis."""
_BAD, _GOOD = 40.0, 60.0
_CAP, _MOST_STEP = 15, 3
_WIDTH = 480
"""Pixels; wider frames are scaled down for the statistics."""
_EDGE = 60.0


def statistics(image: Image) -> npt.NDArray[np.float64]:
    """The eight numbers of `STATISTICS`: light, contrast, sharpness, detail, entropy and colour of one frame.

    Args:
        image: (height, width, 3) uint8 BGR.
    """
    if image.shape[1] > _WIDTH:
        scale = _WIDTH / image.shape[1]
        image = cv2.resize(image, (_WIDTH, round(image.shape[0] * scale)), interpolation=cv2.INTER_AREA)
    luma, blue, red = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)[:, :, (0, 2, 1)])
    across, down = cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1)
    shares = np.bincount(luma.ravel(), minlength=256) / luma.size
    shares = shares[shares > 0]
    return np.array(
        [
            luma.mean(),
            luma.std(),
            cv2.Laplacian(luma, cv2.CV_32F).var(),
            (cv2.magnitude(across, down) > _EDGE).mean(),
            -(shares * np.log2(shares)).sum(),
            np.abs(np.stack([blue, red]).astype(np.float32) - 128.0).mean(),
            blue.mean(),
            red.mean(),
        ],
        np.float64,
    )


class StatisticsMonitor:
    """Learns frames of one camera, then judges others.

    A frame's score is 100 less what its most unusual statistic takes away: 50 at three standard deviations. Below 40 it
    adds 1 to 3 to a counter, the more the lower; above 60 it takes 3 away; in between it changes nothing. The camera is
    untrusted from the time when the counter reaches 15 until it is back at 0, and at the start.

    Attributes:
        untrusted: The verdict.
    """

    def __init__(self) -> None:
        self._learnt: list[npt.NDArray[np.float64]] = []
        self._usual: npt.NDArray[np.float64] | None = None
        self._spread: npt.NDArray[np.float64] | None = None
        self.start()

    def start(self) -> None:
        """Begin a stream: untrusted until it is proven healthy."""
        self._counter = _CAP
        self.untrusted = True

    def learn(self, image: Image) -> None:
        """Take one frame of the healthy camera."""
        self._learnt.append(statistics(image))
        self._usual = None

    def score(self, image: Image) -> float:
        """How usual a frame is, 0 to 100.

        Raises:
            ValueError: Nothing was learnt.
        """
        if not self._learnt:
            raise ValueError("the monitor has learnt no frame")
        if self._usual is None or self._spread is None:
            frames = np.array(self._learnt)
            self._usual, self._spread = frames.mean(axis=0), np.maximum(frames.std(axis=0), 1e-9)
        unusual = float(np.max(np.abs(statistics(image) - self._usual) / self._spread))
        return 100.0 * max(0.0, 1.0 - unusual / _SIGMAS)

    def judge(self, image: Image) -> bool:
        """Whether the camera is untrusted after this frame."""
        score = self.score(image)
        if score < _BAD:
            self._counter = min(_CAP, self._counter + min(_MOST_STEP, 1 + int((_BAD - score) / (_BAD / _MOST_STEP))))
        elif score > _GOOD:
            self._counter = max(0, self._counter - _MOST_STEP)
        if self._counter in (0, _CAP):
            self.untrusted = self._counter == _CAP
        return self.untrusted
