"""Trains a network of the registry.

A state from which the run can be resumed is saved after every epoch, and within one when the run is asked to stop.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framegate.models.half_precision import autocast
from framegate.models.hybrid import HybridClassifier
from framegate.models.labelled import LabelledImages
from framegate.models.mobilenet_v2 import FEATURE_BLOCKS
from framegate.models.pixels import PixelInput, to_pixels
from framegate.models.plain_cnn import PlainCNN
from framegate.models.training.adversarial import (
    RobustWatch,
    adversarial_loss,
    attacked_pixels,
    entropy_loss,
    pgd_pixels,
)
from framegate.models.training.augment import Augmentation
from framegate.models.training.batches import Batch, CachedBatches, FreshBatches, Position, Progress
from framegate.models.training.interval_bounds import interval_loss
from framegate.models.training.masked_views import hardest
from framegate.models.training.settings import TrainSettings
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.preprocess import PreprocessSpec

WATCHED_IMAGES = 500
"""Held-out training images on which accuracy is reported after an epoch, and adversarial training watches its own."""
ROBUST_STEPS = 10
_STATE_FORMAT = "framegate-training-1"
_SUMS = ("loss", "outlier_loss", "train_accuracy")

Report = Callable[[list[dict[str, float]]], None]
"""Called with one record for every epoch so far."""


class TrainingStopped(Exception):  # noqa: N818 - nothing went wrong
    """A run was asked to stop, and has saved its state.

    Args:
        epoch: The epoch that it stopped in, from 1.
        step: Steps of this epoch that are done.
        steps: Steps of an epoch.
    """

    def __init__(self, epoch: int, step: int, steps: int) -> None:
        super().__init__(f"stopped in epoch {epoch} after step {step} of {steps}")


@dataclass(frozen=True)
class Task:
    """What is trained on what.

    Attributes:
        model: Trained in place.
        preprocess: How an image becomes its input.
        train: Training split.
        watched: Held-out part of the training split (`framegate.models.held_out.hold_out`), on which accuracy is
            reported; adversarial training stops early by it. Never calibration images: what proves must not have been
            looked at.
        augment: Random views that keep the label.
        teacher: (N, classes) logits of a teacher for the training images, or None.
        device: ``cpu`` or ``cuda``.
        bfloat16_on_cpu: See `framegate.models.half_precision.autocast`.
        made_of: What else decides the outcome (images, network, the weights that it began with, a teacher): what it is,
            as the command line calls it -> by what it is known again. A state of another making is not resumed.
    """

    model: nn.Module
    preprocess: PreprocessSpec
    train: LabelledImages
    watched: LabelledImages
    augment: Augmentation
    teacher: Tensor | None = None
    device: str = "cpu"
    bfloat16_on_cpu: bool = False
    made_of: Mapping[str, str] = field(default_factory=dict)


def choose_device(wanted: str) -> str:
    """``auto`` takes CUDA where there is one.

    Raises:
        UsageError: CUDA was asked for and PyTorch sees none.
    """
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise UsageError("device: cuda given, but this PyTorch sees no CUDA device; give --device cpu")
    return ("cuda" if found else "cpu") if wanted == "auto" else wanted


def outlier_loss(logits: Tensor) -> Tensor:
    """Cross-entropy to the uniform distribution, shifted so that a uniform answer costs 0."""
    return torch.logsumexp(logits, 1).sub(logits.mean(1)).mean() - math.log(logits.shape[1])


def _optimizer(
    model: nn.Module, settings: TrainSettings, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """A short warm-up and a cosine to zero; a pretrained trunk moves four times slower than the rest."""
    warm_up = min(200, max(1, steps // 10))
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in trained if not n.startswith("trunk.")], "lr": settings.learning_rate},
        {"params": [p for n, p in trained if n.startswith("trunk.")], "lr": settings.learning_rate / 4},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay)
    else:
        optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * min(s, steps) / steps)))
    )
    return optimizer, schedule


class Trainer:
    """One run. `run` trains to the end, from the beginning or from a saved state.

    Args:
        task: What is trained on what.
        settings: How.
        state_file: Where the state is saved after every epoch.
        progress: Called after every step.
        report: Called with the history after every epoch, for people and plots.

    Raises:
        UsageError: The settings do not fit the network or the data.
    """

    def __init__(
        self, task: Task, settings: TrainSettings, state_file: Path, progress: Progress, report: Report | None = None
    ) -> None:
        self.task, self.settings, self.state_file, self.progress = task, settings, state_file, progress
        torch.manual_seed(settings.seed)
        self.history: list[dict[str, float]] = []
        self._report = report or (lambda history: None)
        self._stop = threading.Event()
        self._begun: tuple[Position, dict[str, float]] | None = None
        self._rng = np.random.default_rng(settings.seed)
        self._watch = RobustWatch(settings.patience)
        self._best: dict[str, Any] | None = None
        self._prepare = PixelInput(task.preprocess).to(task.device)
        self._layout = torch.channels_last_3d if task.preprocess.depth > 1 else torch.channels_last
        self._model = task.model.to(device=task.device, memory_format=self._layout)  # type: ignore[call-overload]
        self._frozen, self._forward, self.batches = self._data()
        self._optimizer, self._schedule = _optimizer(self._model, settings, len(self.batches) * settings.epochs)
        self._average = torch.optim.swa_utils.AveragedModel(
            self._model,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.average),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )

    def _data(self) -> tuple[nn.Module | None, Callable[[Tensor], Tensor], FreshBatches | CachedBatches]:
        task, settings, model = self.task, self.settings, self._model
        if settings.outlier_share and task.preprocess.depth > 1:
            raise UsageError("outlier exposure is made from images; for volumes give --outlier-share 0")
        if settings.interval_bounds and not isinstance(model, PlainCNN):
            raise UsageError("interval bounds: only plaincnn is a plain chain whose bounds are tight; train that one")
        if settings.interval_bounds and settings.outlier_share:
            raise UsageError(
                f"outlier share: {settings.outlier_share:g} given; training with interval bounds uses no outliers: "
                "give --outlier-share 0"
            )
        if not settings.frozen_blocks:
            fresh = FreshBatches(task.train, task.augment, task.preprocess.depth, settings)
            return None, self._on_pixels, fresh
        if not isinstance(model, HybridClassifier) or settings.frozen_blocks > FEATURE_BLOCKS:
            raise UsageError(
                f"frozen blocks: {settings.frozen_blocks} given; only the hybrid has trunk blocks to freeze, "
                f"0 to {FEATURE_BLOCKS}"
            )
        frozen, tuned = model.stages(settings.frozen_blocks)
        cached = CachedBatches(frozen, self._prepare, task.train, task.augment, settings, task.device, self.progress)
        frozen.requires_grad_(False)
        return frozen, lambda x: model.head(tuned(x)), cached

    def _on_pixels(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self._model(self._prepare(pixels).contiguous(memory_format=self._layout))
        return logits

    def stop(self) -> None:
        """Ask `run` to save its state after the step that is under way, and to end. From any thread."""
        self._stop.set()

    def run(self, resume: bool = False) -> list[dict[str, float]]:
        """Train and leave the averaged (adversarial: the most robust averaged) weights in the model.

        Returns:
            One record per epoch: epoch, loss, train_accuracy and held_out_accuracy in [0, 1], learning_rate, seconds,
            and what else was measured.

        Raises:
            TrainingStopped: `stop` was called; the state is saved.
            DataError: The saved state cannot be resumed.
            UsageError: The saved state was made with other settings, or of other data or weights.
        """
        first = self._restore() if resume else 0
        torch.set_flush_denormal(True)  # vanishing moments of the optimiser would slow a CPU down tenfold
        try:
            if not self.stop_reason:  # a state may be that of a run that had decided to end
                self._epochs(first)
        finally:
            torch.set_flush_denormal(False)  # it holds for the whole process, which may go on to do exact arithmetic
        best = self._best or self._average.module.state_dict()
        self._model.load_state_dict(best)
        self._model.requires_grad_(True).eval()
        return self.history

    def _epochs(self, first: int) -> None:
        for epoch in range(first, self.settings.epochs):
            started = time.monotonic()
            record = {"epoch": epoch + 1, **self._epoch(epoch)}
            record["held_out_accuracy"] = self._held_out_accuracy()
            record["learning_rate"] = float(self._schedule.get_last_lr()[0])
            self.history.append(record)
            if self.settings.adversarial != "none" and not self.settings.interval_bounds:
                self._watch_robustness(epoch + 1)
            record["seconds"] = round(time.monotonic() - started, 1)
            self._save(epoch + 1)
            self._report(self.history)
            if self._watch.reason:
                self.history[-1]["stopped"] = 1.0
                break

    @property
    def stop_reason(self) -> str:
        """Why adversarial training ended early, empty if it did not."""
        return self._watch.reason

    def _epoch(self, epoch: int) -> dict[str, float]:
        self._model.train()
        if self._frozen is not None:
            self._frozen.eval()
        labels = torch.from_numpy(self.task.train.labels)
        steps, total = len(self.batches), len(self.batches) * self.settings.epochs
        what = f"epoch {epoch + 1}/{self.settings.epochs}"
        position, sums = self._begun or (self.batches.begin(self._rng), dict.fromkeys(_SUMS, 0.0))
        self._begun = None
        if not position.step:
            self.progress(what, epoch * steps, total)  # a step can take a minute: something is said before the first
        for batch in self.batches.epoch(position, self._rng):
            self._step(batch, labels[batch.index].to(self.task.device), sums)
            done = position.step
            shown = f"{what}  loss {sums['loss'] / done:.3f}  accuracy {sums['train_accuracy'] / done:.3f}"
            self.progress(shown, epoch * steps + done, total)
            if self._stop.is_set():
                self._save(epoch, (position, sums))
                raise TrainingStopped(epoch + 1, done, steps)
        if not math.isfinite(sums["loss"]):
            raise DataError(
                f"training diverged in epoch {epoch + 1}: the loss is not finite; give a lower --learning-rate"
            )
        return {name: value / steps for name, value in sums.items() if value or name != "outlier_loss"}

    def _step(self, batch: Batch, labels: Tensor, sums: dict[str, float]) -> None:
        inputs = batch.inputs.to(self.task.device)
        if inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with autocast(self.task.device, self.task.bfloat16_on_cpu):
            loss, known, strange = self._losses(inputs, labels, batch.index)
        sums["loss"] += float(loss.detach())
        sums["train_accuracy"] += float((known.argmax(1) == labels).float().mean())
        if len(strange):
            extra = outlier_loss(strange)
            sums["outlier_loss"] += float(extra.detach())
            loss = loss + self.settings.outlier_weight * extra
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()
        self._average.update_parameters(self._model)

    def _losses(self, inputs: Tensor, labels: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss on the labelled images, their logits, and the logits of the outliers."""
        count, settings = len(labels), self.settings
        attacked = settings.adversarial != "none"
        if settings.interval_bounds:
            done = self._schedule.last_epoch / (len(self.batches) * settings.epochs)
            seen = attacked_pixels(self._on_pixels, inputs, labels, settings) if attacked else None
            loss, known = interval_loss(self._model, self._prepare, inputs, labels, done, settings, seen)
            return self._taught(loss, known, index), known, inputs[:0]
        if attacked:
            loss, known = adversarial_loss(self._on_pixels, inputs[:count], labels, settings)
            if settings.entropy_weight:
                loss = loss + settings.entropy_weight * entropy_loss(known, labels)
            strange = self._on_pixels(inputs[count:]).float() if len(inputs) > count else inputs[:0]
            return self._taught(loss, known, index), known, strange
        if settings.mask_choices > 1:
            inputs = torch.cat([self._masked(inputs[:count], labels), inputs[count:]])
        logits = self._forward(inputs).float()
        known, strange = logits[:count], logits[count:]
        loss = F.cross_entropy(known, labels, label_smoothing=settings.label_smoothing)
        return self._taught(loss, known, index), known, strange

    def _masked(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """The images with the worst of some random masks, judged without a change of the statistics that normalise."""
        share, side, choices = self.settings.masked_views, self.settings.mask_side, self.settings.mask_choices
        self._model.eval()
        found = hardest(self._on_pixels, pixels, labels, share, side, choices)
        self._model.train()
        return found.contiguous(memory_format=torch.channels_last)

    def _taught(self, loss: Tensor, known: Tensor, index: Tensor) -> Tensor:
        """The loss mixed with the distance to the teacher's answers to the plain images, if there is a teacher."""
        if self.task.teacher is None:
            return loss
        share, t = self.settings.distillation, self.settings.distillation_temperature
        answers = (self.task.teacher[index].to(known.device) / t).softmax(1)
        # t^2 keeps the gradient's size (Hinton et al. 2015, arXiv:1503.02531, section 2).
        follow = F.kl_div((known / t).log_softmax(1), answers, reduction="batchmean") * t * t
        return (1 - share) * loss + share * follow

    def _held_out_accuracy(self) -> float:
        """Accuracy of the averaged network on held-out training images."""
        model, count = self._average.module.eval(), min(WATCHED_IMAGES, len(self.task.watched))
        right = 0
        for k in range(0, count, 50):
            chunk = slice(k, min(k + 50, count))
            pixels = to_pixels(self.task.watched.images[chunk], self.task.preprocess.depth, self.task.device)
            with torch.inference_mode():
                answers = model(self._prepare(pixels).contiguous(memory_format=self._layout)).argmax(1)
            right += int((answers.cpu() == torch.from_numpy(self.task.watched.labels[chunk])).sum())
        return right / count

    def _watch_robustness(self, epoch: int) -> None:
        """Attack the averaged network on held-out training images; keep the best weights."""
        model = self._average.module.eval()
        split = self.task.watched
        right = done = 0
        count = min(WATCHED_IMAGES, len(split))

        def logits_of(pixels: Tensor) -> Tensor:
            logits: Tensor = model(self._prepare(pixels).contiguous(memory_format=self._layout))
            return logits

        for k in range(0, count, 250):
            chunk = slice(k, min(k + 250, count))
            pixels = to_pixels(split.images[chunk], self.task.preprocess.depth, self.task.device)
            labels = torch.from_numpy(split.labels[chunk]).to(self.task.device)
            moved = pgd_pixels(logits_of, pixels, labels, self.settings.epsilon, ROBUST_STEPS)
            with torch.inference_mode():
                right += int((logits_of(moved).argmax(1) == labels).sum())
            done += len(labels)
            self.progress("robust accuracy on held-out images", done, count)
        robust = right / count
        self.history[-1]["robust_held_out_accuracy"] = robust
        if self._watch.update(epoch, robust):
            self._best = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}

    def _save(self, epochs_done: int, begun: tuple[Position, dict[str, float]] | None = None) -> None:
        state = {
            "format": _STATE_FORMAT,
            "settings": self.settings.to_json(),
            "made_of": dict(self.task.made_of),
            "epochs_done": epochs_done,
            "history": self.history,
            "model": self._model.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": {k: v for k, v in self._schedule.state_dict().items() if k != "lr_lambdas"},
            "torch_rng": torch.get_rng_state(),
            "numpy_rng": self._rng.bit_generator.state,
            "watch": vars(self._watch),
            "best": self._best,
            "begun": None if begun is None else (begun[0].to_state(), begun[1]),
        }
        self.state_file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.state_file.with_suffix(self.state_file.suffix + ".part")
        torch.save(state, temporary)
        os.replace(temporary, self.state_file)

    def _require_same_making(self, made_of: Mapping[str, str]) -> None:
        """Refuse to go on with other data or weights: the checkpoint's notes would speak of those of the end alone.

        Raises:
            UsageError: The state is of another making, or does not say of which.
        """
        mine = self.task.made_of
        for what in (what for what in {**made_of, **mine} if made_of.get(what) != mine.get(what)):
            raise UsageError(
                f"resume: {self.state_file} was made with {what} {made_of.get(what, 'that it does not name')}, now "
                f"{mine.get(what, 'none')} is given; give the same, or --restart to begin anew"
            )

    def _restore(self) -> int:
        try:
            state = torch.load(self.state_file, map_location="cpu", weights_only=True)
        except FileNotFoundError as error:
            raise DataError(f"resume: {self.state_file} does not exist; start without --resume") from error
        except Exception as error:  # torch.load raises whatever strange bytes provoke
            raise DataError(f"resume: {self.state_file} is damaged; delete it and start again") from error
        if not isinstance(state, dict) or state.get("format") != _STATE_FORMAT:
            raise DataError(f"resume: {self.state_file} is no saved training; delete it and start again")
        mine = self.settings.to_json()
        # A setting that is newer than the state had its default then.
        made = {**TrainSettings().to_json(), **state["settings"]}
        other = sorted(key for key in mine if made[key] != mine[key])
        if other:
            key = other[0]
            raise UsageError(
                f"resume: {self.state_file} was made with {key} {made[key]!r}, now {mine[key]!r} is given; give the "
                "same settings, or --restart to begin anew"
            )
        self._require_same_making(state.get("made_of", {}))
        try:
            self._model.load_state_dict(state["model"])
            self._average.load_state_dict(state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise DataError(f"resume: {self.state_file} belongs to another network; give --restart") from error
        self._schedule.load_state_dict({**self._schedule.state_dict(), **state["schedule"]})
        torch.set_rng_state(state["torch_rng"])
        self._rng.bit_generator.state = state["numpy_rng"]
        self._watch.__dict__.update(state["watch"])
        self._best = state["best"]
        self.history = list(state["history"])
        if state.get("begun") is not None:
            self._begun = Position.from_state(state["begun"][0]), dict(state["begun"][1])
        return int(state["epochs_done"])
