"""Trains the hybrid classifier on top of a frozen ImageNet trunk.

The frozen part of the trunk sees every augmented view of every image exactly once; its output is kept in memory and
the rest is trained from there. On two cores that turns hours into minutes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framegate.models.cifar10 import LabelledImages
from framegate.models.hybrid import INPUT_SIZE, PIXEL_MEAN, PIXEL_STD, HybridClassifier
from framegate.models.mobilenet_v2 import FEATURE_BLOCKS
from framegate.models.outliers import make_outliers
from framegate.runtime.errors import UsageError
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

PREPROCESS = PreprocessSpec(
    width=INPUT_SIZE,
    height=INPUT_SIZE,
    resize="bilinear",
    fit="stretch",
    colour="rgb",
    mean=(PIXEL_MEAN,) * 3,
    std=(PIXEL_STD,) * 3,
)
"""How training, calibration and the runtime make the network's input."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


@dataclass(frozen=True)
class TrainSettings:
    """What decides the outcome of a training run; stored in the checkpoint.

    Attributes:
        frozen_blocks: How many of the trunk's 19 blocks keep their ImageNet weights (19: only the head is trained).
        views: Augmented views of each image, made once and cached.
        epochs: Passes over all cached views of one image each, i.e. one epoch sees every image once.
        batch: Images per step.
        learning_rate: Peak rate of AdamW for the head; the unfrozen trunk blocks get a quarter of it.
        weight_decay: AdamW's decoupled decay.
        outlier_share: Outlier images per training image in a batch, in [0, 1].
        outlier_weight: Weight of the outlier term (0.5 in Hendrycks et al. 2019).
        average: Decay of the exponential moving average of the weights, in [0, 1).
        seed: Seed of everything random.
    """

    frozen_blocks: int = 14
    views: int = 5
    epochs: int = 15
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    outlier_share: float = 0.125
    outlier_weight: float = 0.5
    average: float = 0.998
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: A value is outside its range.
        """
        if not 0 <= self.frozen_blocks <= FEATURE_BLOCKS:
            raise UsageError(f"frozen blocks: {self.frozen_blocks} given, expected 0 to {FEATURE_BLOCKS}")
        if min(self.views, self.epochs, self.batch) < 1:
            raise UsageError("views, epochs and batch must be at least 1")


def augment(images: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One random view of each image: shift by up to 4 pixels, mirror, brightness and contrast."""
    views = np.empty_like(images)
    for k, image in enumerate(images):
        padded = cv2.copyMakeBorder(image, 4, 4, 4, 4, cv2.BORDER_REFLECT_101)
        top, left = rng.integers(0, 9, 2)
        view = padded[top : top + 32, left : left + 32]
        if rng.random() < 0.5:
            view = view[:, ::-1]
        if rng.random() < 0.5:
            view = cv2.convertScaleAbs(view, alpha=rng.uniform(0.7, 1.3), beta=rng.uniform(-25, 25))
        views[k] = view
    return views


def to_tensor(images: npt.NDArray[np.uint8]) -> Tensor:
    """(N, h, w, 3) uint8 BGR -> (N, 3, 96, 96) float32 through the runtime's own preprocessing."""
    preprocessor = Preprocessor(PREPROCESS)
    batch = torch.empty(len(images), 3, INPUT_SIZE, INPUT_SIZE)
    for k, image in enumerate(images):
        batch[k] = torch.from_numpy(preprocessor(image)[0])
    return batch


@torch.inference_mode()
def predict(model: nn.Module, images: npt.NDArray[np.uint8], batch: int = 250) -> npt.NDArray[np.float32]:
    """Logits (N, classes) of ``model`` in evaluation mode, float32."""
    model.eval()
    parts = [model(to_tensor(images[k : k + batch])).numpy() for k in range(0, len(images), batch)]
    return np.concatenate(parts).astype(np.float32)


@torch.inference_mode()
def _cache(frozen: nn.Module, images: npt.NDArray[np.uint8], tick: Callable[[int], None]) -> Tensor:
    """Outputs of the frozen blocks as float16, (N, C, h, w)."""
    # bfloat16 halves the time where the processor has it; its error acts as a small noise on the training
    # features only. Calibration, parity and reports always run in float32.
    low = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    frozen = copy.deepcopy(frozen).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts: list[Tensor] = []
    for k in range(0, len(images), 256):
        x = to_tensor(images[k : k + 256]).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            parts.append(frozen(x).to(torch.float16).contiguous())
        tick(len(x))
    return torch.cat(parts)


def _outlier_loss(logits: Tensor) -> Tensor:
    """Cross-entropy to the uniform distribution, shifted so that a uniform answer costs 0."""
    return torch.logsumexp(logits, 1).sub(logits.mean(1)).mean() - math.log(logits.shape[1])


class _CachedViews:
    """Outputs of the frozen blocks for all augmented views, and for outliers; a batch is a look-up.

    Attributes:
        views: For each view the features of all images, float16.
        outliers: For each view the features of as many outlier images as settings ask for; empty if none.
    """

    def __init__(
        self,
        frozen: nn.Module,
        train: LabelledImages,
        settings: TrainSettings,
        rng: np.random.Generator,
        progress: Progress,
    ) -> None:
        outliers = int(len(train) * settings.outlier_share)
        total = settings.views * (len(train) + outliers)
        done = 0

        def tick(count: int) -> None:
            nonlocal done
            done += count
            progress("trunk features", done, total)

        self.views: list[Tensor] = []
        self.outliers: list[Tensor] = []
        self._rng = rng
        self._extra = max(1, int(settings.batch * settings.outlier_share)) if outliers else 0
        for _ in range(settings.views):
            self.views.append(_cache(frozen, augment(train.images, rng), tick))
            if outliers:
                self.outliers.append(_cache(frozen, make_outliers(train.images, outliers, rng), tick))

    def batch(self, index: Tensor, which: Tensor) -> Tensor:
        """Features of the images at ``index``, each in view ``which[image]``, followed by the outliers."""
        inputs = torch.stack([self.views[int(which[i])][i] for i in index])
        if self._extra:
            pool = self.outliers[int(self._rng.integers(len(self.outliers)))]
            chosen = torch.from_numpy(self._rng.integers(0, len(pool), self._extra))
            inputs = torch.cat([inputs, pool[chosen]])
        return inputs.float().to(memory_format=torch.channels_last)


def _optimizer(
    model: HybridClassifier, tuned: nn.Module, settings: TrainSettings, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW with a short warm-up and a cosine to zero; the ImageNet blocks move four times slower."""
    warm_up = min(200, max(1, steps // 10))
    head = [p for name, p in model.named_parameters() if not name.startswith("trunk.")]
    optimizer = torch.optim.AdamW(
        [
            {"params": head, "lr": settings.learning_rate},
            {"params": list(tuned.parameters()), "lr": settings.learning_rate / 4},
        ],
        weight_decay=settings.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * min(s, steps) / steps)))
    )
    return optimizer, schedule


def train_hybrid(
    model: HybridClassifier, train: LabelledImages, settings: TrainSettings, progress: Progress
) -> list[dict[str, float]]:
    """Train ``model`` in place and leave the averaged weights in it.

    Args:
        model: The trunk holds its ImageNet weights already.
        train: The training split.
        settings: See `TrainSettings`.
        progress: Called after every step.

    Returns:
        One record per epoch: epoch, loss, outlier_loss, training accuracy in [0, 1].
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    frozen, tuned = model.stages(settings.frozen_blocks)
    cached = _CachedViews(frozen, train, settings, rng, progress)
    frozen.requires_grad_(False)
    labels = torch.from_numpy(train.labels)
    per_epoch = len(train) // settings.batch
    steps = per_epoch * settings.epochs
    optimizer, schedule = _optimizer(model, tuned, settings, steps)
    average = torch.optim.swa_utils.AveragedModel(
        model,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.average),  # type: ignore[no-untyped-call]
        use_buffers=True,
    )
    low = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    history = []
    for epoch in range(settings.epochs):
        model.train()
        frozen.eval()
        order = torch.from_numpy(rng.permutation(len(train)))
        which = torch.from_numpy(rng.integers(0, settings.views, len(train)))
        losses, outlier_losses, correct = 0.0, 0.0, 0
        for step in range(per_epoch):
            index = order[step * settings.batch : (step + 1) * settings.batch]
            inputs = cached.batch(index, which)  # outside autocast, which cannot stack float16 tensors
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                logits = model.head(tuned(inputs)).float()
            known, strange = logits[: len(index)], logits[len(index) :]
            loss = F.cross_entropy(known, labels[index])
            losses += loss.item()
            correct += int((known.argmax(1) == labels[index]).sum())
            if len(strange):
                outlier = _outlier_loss(strange)
                outlier_losses += outlier.item()
                loss = loss + settings.outlier_weight * outlier
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            progress(f"epoch {epoch + 1}/{settings.epochs}", epoch * per_epoch + step + 1, steps)
        history.append(
            {
                "epoch": epoch + 1,
                "loss": losses / per_epoch,
                "outlier_loss": outlier_losses / per_epoch,
                "train_accuracy": correct / (per_epoch * settings.batch),
            }
        )
    model.load_state_dict(average.module.state_dict())
    model.eval()
    return history
