"""Where the training batches come from: freshly augmented images, or cached outputs of the trunk's frozen blocks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from framegate.models.half_precision import autocast
from framegate.models.labelled import LabelledImages
from framegate.models.pixels import PixelInput, to_pixels
from framegate.models.training.augment import Augmentation
from framegate.models.training.outliers import make_outliers
from framegate.models.training.settings import TrainSettings

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


@dataclass(frozen=True)
class Batch:
    """One step's data.

    Attributes:
        inputs: The labelled images, then the outliers: pixels (N + M, 3, h, w) in [0, 1] or cached features.
        index: (N,) int64, which training images they are.
    """

    inputs: Tensor
    index: Tensor


@dataclass
class Position:
    """Where an epoch stands: enough to go on within it.

    Attributes:
        order: (N,) int64, the training images in the order of this epoch.
        views: (N,) int64, which cached view of each image is used; empty where every view is made afresh.
        step: Steps done.
    """

    order: npt.NDArray[np.int64]
    views: npt.NDArray[np.int64]
    step: int = 0

    def to_state(self) -> dict[str, Any]:
        """What `torch.save` takes and `torch.load` gives back without running code."""
        return {"order": torch.from_numpy(self.order), "views": torch.from_numpy(self.views), "step": self.step}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Position:
        """See `to_state`."""
        return cls(state["order"].numpy(), state["views"].numpy(), int(state["step"]))


class FreshBatches:
    """Augments every image anew in every epoch; a batch holds pixels."""

    def __init__(self, train: LabelledImages, augment: Augmentation, depth: int, settings: TrainSettings) -> None:
        self._train, self._augment, self._depth = train, augment, depth
        self._batch = min(settings.batch, len(train))
        self._extra = round(self._batch * settings.outlier_share)

    def __len__(self) -> int:
        """Steps of an epoch."""
        return len(self._train) // self._batch

    def begin(self, rng: np.random.Generator) -> Position:
        """An epoch's random order."""
        return Position(rng.permutation(len(self._train)), np.empty(0, np.int64))

    def epoch(self, position: Position, rng: np.random.Generator) -> Iterator[Batch]:
        """The rest of a pass; ``position.step`` counts the batches that were taken."""
        while position.step < len(self):
            index = position.order[position.step * self._batch :][: self._batch]
            images = self._augment(self._train.images[index], rng)
            if self._extra:
                images = np.concatenate([images, make_outliers(self._train.images, self._extra, rng)])
            position.step += 1
            yield Batch(to_pixels(images, self._depth), torch.from_numpy(index))


_CACHE_BATCH = 32
"""So few images that the first layers' large activations stay in a CPU's cache; 256 took three times as long."""


@torch.inference_mode()
def _cache(
    frozen: nn.Module, prepare: PixelInput, images: npt.NDArray[np.uint8], device: str, tick: Callable[[int], None]
) -> Tensor:
    """Outputs of the frozen blocks as float16, (N, C, h, w), in main memory."""
    parts: list[Tensor] = []
    for k in range(0, len(images), _CACHE_BATCH):
        pixels = to_pixels(images[k : k + _CACHE_BATCH], device=device)
        x = prepare(pixels).contiguous(memory_format=torch.channels_last)
        with autocast(device, on_cpu=True):
            parts.append(frozen(x).to(torch.float16).contiguous().cpu())
        tick(len(x))
    return torch.cat(parts)


class CachedBatches:
    """The frozen blocks see every augmented view of every image exactly once; a batch is a look-up of their outputs.

    On two cores that turns hours into minutes, at the price of a fixed number of views.
    """

    def __init__(
        self,
        frozen: nn.Module,
        prepare: PixelInput,
        train: LabelledImages,
        augment: Augmentation,
        settings: TrainSettings,
        device: str,
        progress: Progress,
    ) -> None:
        outliers = int(len(train) * settings.outlier_share)
        total, done = settings.views * (len(train) + outliers), 0

        def tick(count: int) -> None:
            nonlocal done
            done += count
            progress("trunk features", done, total)

        # A generator of its own: a resumed run makes the same views again.
        rng = np.random.default_rng([settings.seed, 1])
        frozen = copy.deepcopy(frozen).eval().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._views: list[Tensor] = []
        self._outliers: list[Tensor] = []
        for _ in range(settings.views):
            self._views.append(_cache(frozen, prepare, augment(train.images, rng), device, tick))
            if outliers:
                self._outliers.append(_cache(frozen, prepare, make_outliers(train.images, outliers, rng), device, tick))
        self._size = len(train)
        self._batch = min(settings.batch, len(train))
        self._extra = round(self._batch * settings.outlier_share)

    def __len__(self) -> int:
        """Steps of an epoch."""
        return self._size // self._batch

    def begin(self, rng: np.random.Generator) -> Position:
        """An epoch's random order, and which view of each image it takes."""
        return Position(rng.permutation(self._size), rng.integers(0, len(self._views), self._size))

    def epoch(self, position: Position, rng: np.random.Generator) -> Iterator[Batch]:
        """The rest of a pass; ``position.step`` counts the batches that were taken."""
        while position.step < len(self):
            index = position.order[position.step * self._batch :][: self._batch]
            inputs = torch.stack([self._views[position.views[i]][i] for i in index])
            if self._outliers and self._extra:
                pool = self._outliers[int(rng.integers(len(self._outliers)))]
                inputs = torch.cat([inputs, pool[torch.from_numpy(rng.integers(0, len(pool), self._extra))]])
            position.step += 1
            yield Batch(inputs.float(), torch.from_numpy(index))
