"""What the cars of made drives see, with the truth of every region of every frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from framegate.evaluation.corruptions.suite import corrupt
from framegate.models.gtsrb import LABELS, load_training
from framegate.runtime.roi import Roi
from framegate.runtime.verdict import Image

FPS = 25.0
OTHER = "other"
"""Label of what is none of the network's classes."""
WEATHER = (("", 0), ("fog", 2), ("brightness", 2), ("gaussian_noise", 1), ("defocus_blur", 1), ("contrast", 1))
"""Corruption and severity of each drive, in turn."""
BURST = (5, 15)
"""Frames of an injected error."""
BURSTS_PER_MINUTE = 6.0


@dataclass(frozen=True)
class Moment:
    """One frame.

    Attributes:
        picture: (height, width, 3) uint8 BGR.
        labels: What each region shows.
        injected: Whether an error was put there.
    """

    picture: Image
    labels: tuple[str, ...]
    injected: tuple[bool, ...]


class Scene(Protocol):
    """A kind of drive."""

    @property
    def rois(self) -> tuple[Roi, ...]:
        """What is judged."""

    def moments(self, drive: int, frames: int, seed: int) -> Iterator[Moment]:
        """The frames of one drive."""


@dataclass(frozen=True)
class Burst:
    """One injected error."""

    region: int
    first: int
    last: int


def clip_frames(path: Path, scale: float) -> list[Image]:
    """The clip, smaller."""
    capture = cv2.VideoCapture(str(path))
    found: list[Image] = []
    while True:
        more, image = capture.read()
        if not more:
            return found
        found.append(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def bursts(rng: np.random.Generator, frames: int, regions: int) -> list[Burst]:
    """When which of the first regions shows what it should not."""
    found = []
    for _ in range(rng.poisson(BURSTS_PER_MINUTE * frames / FPS / 60)):
        first = int(rng.integers(0, max(frames - BURST[1], 1)))
        found.append(Burst(int(rng.integers(0, regions)), first, first + int(rng.integers(*BURST))))
    return found


def pictures(base: list[Image], rng: np.random.Generator, frames: int) -> Iterator[Image]:
    """Frames there and back again, with light that changes slowly, and sensor noise."""
    period = 2 * len(base) - 2
    for number in range(frames):
        place = number % period
        image = base[place if place < len(base) else period - place]
        light = cv2.convertScaleAbs(image, alpha=1.0 + 0.06 * np.sin(number / 70.0))
        noise = rng.integers(-5, 6, image.shape, np.int8)
        yield np.asarray(cv2.add(light, noise.astype(np.int16), dtype=cv2.CV_8U), np.uint8)


def inject(picture: Image, roi: Roi, burst: Burst, corner: tuple[int, int], size: tuple[int, int]) -> None:
    """Put a piece of the roadside into a region, turned and stretched.

    Args:
        picture: Is changed.
        roi: The region.
        burst: Whose frames show the same piece.
        corner: Largest column, and first row, of the piece; it lies at most 70 rows below that.
        size: Width and height of the piece.
    """
    box = roi.pixels(picture.shape[1], picture.shape[0])
    assert box is not None
    x, y, width, height = box
    rng = np.random.default_rng([burst.first, burst.last])
    left, top = int(rng.integers(0, corner[0])), int(rng.integers(corner[1], corner[1] + 70))
    piece = cv2.rotate(picture[top : top + size[1], left : left + size[0]], cv2.ROTATE_90_CLOCKWISE)
    picture[y : y + height, x : x + width] = cv2.resize(piece, (width, height))


@dataclass(frozen=True)
class Highway:
    """The shipped clip, half as large: two cars, labelled automobile, and sky and road, which are ``other``.

    Errors are bursts in which a car's region shows a piece of another place, which is no car.
    """

    clip: Path

    @property
    def rois(self) -> tuple[Roi, ...]:
        """Cars, sky and road."""
        return tuple(
            Roi(name, x / 2, y / 2, width / 2, height / 2, fractions=False)
            for name, x, y, width, height in (
                ("black-car", 796, 384, 160, 130),
                ("white-car", 1000, 370, 270, 160),
                ("sky", 700, 20, 160, 130),
                ("road", 560, 500, 160, 130),
            )
        )

    @cached_property
    def _clean(self) -> list[Image]:
        return clip_frames(self.clip, 0.5)

    @cached_property
    def _weathers(self) -> dict[tuple[str, int], list[Image]]:
        return {WEATHER[0]: self._clean}

    def moments(self, drive: int, frames: int, seed: int) -> Iterator[Moment]:
        """See `Scene`."""
        weather = WEATHER[drive % len(WEATHER)]
        if weather not in self._weathers:
            # The network sees regions of a picture of half the size: so is the weather made.
            self._weathers[weather] = list(corrupt(np.stack(self._clean), *weather, seed))
        rng = np.random.default_rng([seed, drive])
        injected, rois = bursts(rng, frames, 2), self.rois
        for number, picture in enumerate(pictures(self._weathers[weather], rng, frames)):
            now = [each for each in injected if each.first <= number <= each.last]
            for burst in now:
                inject(picture, rois[burst.region], burst, (150, 150), (90, 60))
            broken = tuple(any(each.region == k for each in now) for k in range(4))
            cars = tuple(OTHER if bad else "automobile" for bad in broken[:2])
            yield Moment(picture, (*cars, OTHER, OTHER), broken)


@dataclass(frozen=True)
class Signs:
    """Tracks of traffic signs, one after the other, each as its car came nearer.

    The tracks are those of the calibration split, which no network was trained on. They have 32x32 pixels, and lie as
    they are on the clip's frames. Errors are bursts in which the region shows a piece of the roadside.
    """

    clip: Path
    data: Path

    @property
    def rois(self) -> tuple[Roi, ...]:
        """Where the signs are."""
        return (Roi("sign", 200, 40, 32, 32, fractions=False),)

    @cached_property
    def _clean(self) -> list[Image]:
        return clip_frames(self.clip, 0.25)

    @cached_property
    def _tracks(self) -> list[tuple[str, npt.NDArray[np.uint8]]]:
        split = load_training(self.data)[1]
        assert split.groups is not None
        found = []
        for number in np.unique(split.groups):
            places = np.flatnonzero(split.groups == number)
            found.append((LABELS[int(split.labels[places[0]])], split.images[places]))
        return found

    def moments(self, drive: int, frames: int, seed: int) -> Iterator[Moment]:
        """See `Scene`."""
        name, severity = WEATHER[drive % len(WEATHER)]
        rng = np.random.default_rng([seed, drive, 1])
        shown: list[tuple[str, Image]] = []
        while len(shown) < frames:
            for number in rng.permutation(len(self._tracks)).tolist():
                label, images = self._tracks[number]
                seen = corrupt(images, name, severity, seed) if name else images
                shown += [(label, image) for image in seen]
                if len(shown) >= frames:
                    break
        injected, roi = bursts(rng, frames, 1), self.rois[0]
        for number, picture in enumerate(pictures(self._clean, rng, frames)):
            label, sign = shown[number]
            now = [each for each in injected if each.first <= number <= each.last]
            picture[40:72, 200:232] = sign
            for burst in now:
                inject(picture, roi, burst, (60, 75), (45, 30))
            yield Moment(picture, (OTHER if now else label,), (bool(now),))
