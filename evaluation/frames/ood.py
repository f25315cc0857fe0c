"""Out-of-distribution sets: frames of which no label is right. A gate should reject them all.

- `from_images`: another data set's frames, loaded already (GTSRB for CIFAR-10 and the reverse).
- `from_folder`: photographs. None are shipped.
- `from_clip`: patches cut at random from a clip. **Unlabelled**: a road clip shows cars, so for a network that knows
  cars some patches are not out of distribution. The accepted share says what happens on such a road, not what is wrong.
- `noise_set`: made by a seed, at any size, for images and volumes.

Networks trained with outlier exposure (`framegate.models.training.outliers`) saw made images too: magnified patches of
training images, linear colour gradients, stripes on gradients, and normal noise of any coarseness. The noise sets are
drawn from other distributions, but to such a network only ``checker`` is of a new kind: `RESEMBLES_EXPOSURE` names the
others, on which it does well because it has seen something like them. Only real frames show how good it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from framegate.evaluation.frames.ood_noise import NOISE_SETS, RESEMBLES_EXPOSURE, draw_noise
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.sources.base import Source
from framegate.runtime.sources.images import ImageSource
from framegate.runtime.sources.video import VideoFileSource
from framegate.runtime.verdict import Frame

__all__ = [
    "NOISE_SETS",
    "RESEMBLES_EXPOSURE",
    "FrameSet",
    "from_clip",
    "from_folder",
    "from_images",
    "noise_set",
]

Images = npt.NDArray[np.uint8]
Size = tuple[int, int]


@dataclass(frozen=True)
class FrameSet:
    """Frames without labels.

    Attributes:
        name: For reports.
        images: (N, h, w, 3) uint8 BGR; volumes are (N, depth * h, w, 3), grey.

    Raises:
        DataError: The array has another shape or type, or holds no frame.
    """

    name: str
    images: Images

    def __post_init__(self) -> None:
        """Check the array."""
        if self.images.ndim != 4 or self.images.shape[3] != 3 or self.images.dtype != np.uint8:
            found = f"{self.images.dtype} {self.images.shape}"
            raise DataError(f"frames {self.name}: array is {found}, expected uint8 (N, h, w, 3) in BGR order")
        if not self.images.size:
            raise DataError(f"frames {self.name}: there is not one frame in an array of shape {self.images.shape}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(N,) of -1: no label is right."""
        return np.full(len(self), -1, np.int64)


def _resized(image: Images, size: Size) -> Images:
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    return np.asarray(
        cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8
    )


def _check_size(what: str, size: Size, depth: int = 1) -> None:
    if len(size) != 2 or min(size) < 2 or depth < 1:
        raise UsageError(
            f"{what}: size {size} and depth {depth} given, expected (height, width) from 2 on and a depth from 1 on"
        )


def from_images(name: str, images: Images, size: Size, depth: int = 1) -> FrameSet:
    """Frames of another data set, brought to the size of the bundle's data.

    Args:
        name: For reports.
        images: (N, h, w, 3) uint8 BGR, or volumes (N, depth * h, w, 3) with as many slices as wanted.
        size: (height, width) in pixels, of one slice if there are several. The aspect ratio is not kept.
        depth: Slices of a volume; each is resized by itself.

    Raises:
        UsageError: ``size`` or ``depth`` is wrong for these images.
        DataError: ``images`` has another shape or type, or is empty.
    """
    _check_size(f"frames {name}", size, depth)
    given = FrameSet(name, images).images
    if given.shape[1] % depth:
        raise UsageError(f"frames {name}: depth {depth} given, but the height {given.shape[1]} is no multiple of it")
    slices = given.reshape(len(given) * depth, given.shape[1] // depth, *given.shape[2:])
    fitted = np.stack([_resized(image, size) for image in slices])
    return FrameSet(name, fitted.reshape(len(given), depth * size[0], size[1], 3))


def _as_bgr(frame: Frame, where: str) -> Images:
    image = frame.image
    if not image.size:
        raise DataError(f"{where}: {frame.name} cannot be read as a picture; remove or replace it")
    if image.dtype != np.uint8:
        raise DataError(f"{where}: {frame.name} has {image.dtype} pixels, expected 8 bits; convert or remove it")
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    return np.asarray(image, np.uint8)


def _middle(image: Images, size: Size) -> Images:
    """The largest part in the middle with the aspect ratio of ``size``."""
    scale = min(image.shape[0] / size[0], image.shape[1] / size[1])
    height, width = (max(1, round(scale * side)) for side in size)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _frames(source: Source) -> Iterator[Frame]:
    with source:
        while (frame := source.read()) is not None:
            yield frame


def from_folder(path: str | Path, size: Size, limit: int | None = None) -> FrameSet:
    """Photographs of a folder, in natural order: the middle of each at the wanted aspect ratio, resized.

    Args:
        path: Folder of image files (or one file); sub-folders are left out.
        size: (height, width) in pixels.
        limit: Take only so many; None: all.

    Raises:
        SourceError: There is no such folder, or no image in it.
        DataError: A file is damaged or does not have 8 bits a channel.
        UsageError: ``size`` or ``limit`` is out of range.
    """
    _check_size(f"photographs {path}", size)
    if limit is not None and limit < 1:
        raise UsageError(f"photographs {path}: limit {limit} given, expected 1 or more")
    kept = []
    for frame in _frames(ImageSource(path)):
        image = _as_bgr(frame, f"photographs {path}")
        kept.append(_resized(_middle(image, size), size))
        if len(kept) == limit:
            break
    return FrameSet(f"photographs-{Path(path).name}", np.stack(kept))


def _patch(image: Images, size: Size, rng: np.random.Generator) -> Images:
    """A random part with the aspect ratio of ``size``, from the wanted size (or the image's) up to the whole height."""
    largest = min(image.shape[0] / size[0], image.shape[1] / size[1])
    scale = math.exp(rng.uniform(min(0.0, math.log(largest)), math.log(largest)))
    height, width = (max(1, min(round(scale * size[k]), image.shape[k])) for k in (0, 1))
    top, left = (int(rng.integers(0, image.shape[k] - side + 1)) for k, side in ((0, height), (1, width)))
    return image[top : top + height, left : left + width]


def from_clip(path: str | Path, count: int, size: Size, seed: int = 0) -> FrameSet:
    """Random patches of random frames of a clip; what they show is not known (see the head of this module).

    The clip is read twice: to count its frames, then to cut. Small patches are as frequent as large ones.

    Args:
        path: Video file.
        count: How many patches.
        size: (height, width) of the result in pixels.
        seed: Which frames and where; not negative.

    Raises:
        SourceError: The file is not a video or breaks off.
        UsageError: ``count``, ``size`` or ``seed`` is out of range.
    """
    _check_size(f"clip {path}", size)
    _check_draw(f"clip {path}", count, seed)
    length = sum(1 for _ in _frames(VideoFileSource(path, realtime=False)))
    rng = np.random.default_rng([seed, 1])
    wanted = np.bincount(rng.integers(0, length, count), minlength=length)
    patches = []
    for frame, number in zip(_frames(VideoFileSource(path, realtime=False)), wanted, strict=True):
        image = np.asarray(frame.image, np.uint8)
        patches += [_resized(_patch(image, size, rng), size) for _ in range(number)]
    return FrameSet(f"clip-{Path(path).stem}", np.stack(patches))


def _check_draw(what: str, count: int, seed: int) -> None:
    if count < 1 or seed < 0:
        raise UsageError(f"{what}: count {count} and seed {seed} given, expected at least 1 and at least 0")


def noise_set(kind: str, count: int, size: Size, seed: int = 0, depth: int = 1) -> FrameSet:
    """Made frames. Frame k depends on the seed, the kind, the size and k alone.

    Args:
        kind: One of `NOISE_SETS`.
        count: How many.
        size: (height, width) in pixels, of one slice if there are several.
        seed: Not negative.
        depth: Slices; above 1 the frames are grey volumes (count, depth * h, w, 3), continuous in depth where they
            are continuous in the plane.

    Raises:
        UsageError: The kind is not known or a number is out of range.
    """
    if kind not in NOISE_SETS:
        raise UsageError(f"noise {kind!r} asked for, which is not known; known are {', '.join(NOISE_SETS)}")
    _check_size(f"noise {kind}", size, depth)
    _check_draw(f"noise {kind}", count, seed)
    shape = (depth, *size, 3 if depth == 1 else 1)
    images = np.empty((count, depth * size[0], size[1], 3), np.uint8)
    for k in range(count):
        rng = np.random.default_rng([seed, 2, NOISE_SETS.index(kind), k])
        made = np.rint(np.clip(draw_noise(kind, shape, rng), 0, 255))
        images[k] = made.reshape(depth * size[0], size[1], shape[3])
    return FrameSet(f"noise-{kind}", images)
