"""Auto-PGD: projected gradient ascent that chooses its own step size (Croce and Hein 2020, arXiv:2003.01690).

It starts with a step of two epsilon and a momentum of a quarter; at ever closer checkpoints it halves the step
of each frame whose loss has stopped growing and sends the frame back to its best point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from framegate.evaluation.attacks.loss import LOSSES, TARGETED, LogitsOf, check_loss, gradient_of, targeted_logits_ratio
from framegate.evaluation.attacks.problem import (
    AttackResult,
    BestSoFar,
    Ticker,
    ascend,
    batches,
    check_problem,
    evaluate,
    project,
    uniform,
)
from framegate.models.training.batches import Progress
from framegate.runtime.errors import UsageError

MOMENTUM = 0.25
"""One minus the paper's alpha."""
KEEP = ("first", "best")
RHO = 0.75
"""Share of the steps between two checkpoints that must have raised the loss."""
NAMES = {"cross_entropy": "APGD-CE", "dlr": "APGD-DLR", "margin": "APGD-margin", TARGETED: "APGD-T"}


def apgd(
    logits_of: LogitsOf,
    pixels: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    loss: str = "cross_entropy",
    steps: int = 100,
    restarts: int = 1,
    targets: int = 9,
    keep: str = "first",
    batch: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> AttackResult:
    """Auto-PGD within the L-infinity ball.

    Args:
        logits_of: (n, ...) pixels -> (n, C) logits; differentiable.
        pixels: (N, ...) float32 in [0, 1].
        labels: (N,) int64 in [0, C).
        epsilon: Radius in pixel units, in (0, 1].
        loss: ``cross_entropy``, ``margin``, ``dlr`` (3 classes or more) or ``targeted`` (4 or more): APGD-T, which
            aims with the targeted DLR loss at each of the most probable wrong classes in turn.
        steps: Gradient steps per start, at least 1.
        restarts: Random starts, at least 1; for ``targeted``, starts per target.
        targets: How many wrong classes ``targeted`` aims at, at least 1.
        keep: ``first``: a frame is left alone once it is misclassified. ``best``: a start that misclassifies a frame
            goes on to the largest loss, for what also looks at how sure the wrong answer is; as many fall.
        batch: Frames per forward pass.
        seed: Of the random starts.
        progress: Called after each step of each batch.

    Raises:
        UsageError: See `check_problem`; or too few classes for the loss.
    """
    classes = check_problem(logits_of, pixels, labels, epsilon, batch, seed)
    if loss not in NAMES:
        raise UsageError(f"the loss of APGD is {loss!r}; known are {', '.join(NAMES)}")
    if keep not in KEEP:
        raise UsageError(f"APGD: keep is {keep!r}; known are {', '.join(KEEP)}")
    if min(steps, restarts, targets) < 1:
        raise UsageError(f"APGD: steps {steps}, restarts {restarts}, targets {targets}; each must be at least 1")
    check_loss(loss, classes)
    runs = restarts * (min(targets, classes - 1) if loss == TARGETED else 1)
    ticker = Ticker(progress, NAMES[loss], runs * steps * -(-len(pixels) // batch))
    parts = []
    for number, chosen in enumerate(batches(len(pixels), batch)):
        clean, logits = pixels[chosen], evaluate(logits_of, pixels[chosen], batch)
        best = BestSoFar(clean, logits, labels[chosen])
        wrong_classes = logits.scatter(1, best.labels[:, None], -torch.inf).argsort(1, descending=True)
        for run in range(runs):
            ticker.advance_to((number * runs + run) * steps)
            rows = best.open_rows()
            if len(rows) > 0:
                noise = uniform(clean.shape[1:], rows + chosen.start, seed, run)
                search = _Search(logits_of, loss, epsilon, steps, wrong_classes[rows, run // restarts], keep)
                search.run(best, rows, clean[rows], noise, ticker)
        parts.append(best)
    ticker.advance_to(ticker.total)
    return AttackResult.join(NAMES[loss], epsilon, parts)


def checkpoints(steps: int) -> list[int]:
    """The steps after which step sizes are reconsidered (section 3.1 of the paper), ascending, without the 0."""
    # In percent: 0.22 + 0.19 + 0.16 is more than 0.57 in floating point.
    before, now, found = 0, 22, set()
    while now <= 100:
        found.add(math.ceil(now * steps / 100))
        before, now = now, now + max(now - before - 3, 6)
    return sorted(found)


@dataclass
class _State:
    """The frames still under attack, one row each; step sizes are (n, 1, ...), values and counts (n,)."""

    rows: Tensor
    targets: Tensor
    clean: Tensor
    moving: Tensor
    before: Tensor
    gradient: Tensor
    value: Tensor
    best: Tensor
    best_gradient: Tensor
    best_value: Tensor
    step: Tensor
    rises: Tensor
    halved: Tensor
    value_then: Tensor

    def keep(self, kept: Tensor) -> None:
        """Go on with some of the frames, given as bool (n,)."""
        if not bool(kept.all()):
            for field in fields(self):
                setattr(self, field.name, getattr(self, field.name)[kept])


def _where(chosen: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, *[1] * (yes.ndim - 1)), yes, no)


@dataclass(frozen=True)
class _Search:
    """One start of APGD on some frames of a batch."""

    logits_of: LogitsOf
    loss: str
    epsilon: float
    steps: int
    targets: Tensor
    keep: str = "first"

    def run(self, best: BestSoFar, rows: Tensor, clean: Tensor, noise: Tensor, ticker: Ticker) -> None:
        """Offer every iterate to ``best``; with ``first``, drop the frames that are misclassified."""
        base, before = ticker.done, 0
        state = self._start(best, rows, clean, project(clean + self.epsilon * noise, clean, self.epsilon))
        reconsidered = checkpoints(self.steps)
        for done in range(1, self.steps + 1):
            if len(state.rows) == 0:
                return
            self._advance(state, best, first=done == 1)
            ticker.advance_to(base + done)
            if done in reconsidered:
                self.reconsider(state, done - before)
                before = done

    def _measure(self, best: BestSoFar, rows: Tensor, targets: Tensor, moving: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Whether the frames are misclassified, their loss and its gradient."""

        def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
            if self.loss == TARGETED:
                return targeted_logits_ratio(logits, labels, targets)
            return LOSSES[self.loss](logits, labels)

        logits, values, gradient = gradient_of(self.logits_of, moving, best.labels[rows], loss_of)
        return best.offer(rows, moving, logits, values), values, gradient

    def _start(self, best: BestSoFar, rows: Tensor, clean: Tensor, start: Tensor) -> _State:
        wrong, value, gradient = self._measure(best, rows, self.targets, start)
        step = torch.full_like(value, 2 * self.epsilon).view(-1, *[1] * (start.ndim - 1))
        never, none = torch.zeros_like(wrong), torch.zeros_like(value)
        state = _State(
            rows, self.targets, clean, start, start, gradient, value, start, gradient, value, step, none, never, value
        )
        self._drop(state, wrong)
        return state

    def _advance(self, state: _State, best: BestSoFar, first: bool) -> None:
        """One step with momentum, equations (1) of the paper."""
        target = ascend(state.moving, state.gradient, state.step, state.clean, self.epsilon)
        if not first:
            target = target + MOMENTUM * (state.moving - state.before - (target - state.moving))
            target = project(target, state.clean, self.epsilon)
        wrong, value, gradient = self._measure(best, state.rows, state.targets, target)
        state.rises = state.rises + (value > state.value)
        state.before, state.moving, state.value, state.gradient = state.moving, target, value, gradient
        better = value > state.best_value
        state.best = _where(better, target, state.best)
        state.best_gradient = _where(better, gradient, state.best_gradient)
        state.best_value = _where(better, value, state.best_value)
        self._drop(state, wrong)

    def _drop(self, state: _State, wrong: Tensor) -> None:
        if self.keep == "first":
            state.keep(~wrong)

    def reconsider(self, state: _State, since: int) -> None:
        """Halve the step where the loss rose too rarely, or neither step nor best loss changed since last time."""
        halve = (state.rises < RHO * since) | (~state.halved & (state.best_value <= state.value_then))
        state.step = _where(halve, state.step / 2, state.step)
        state.moving = _where(halve, state.best, state.moving)
        state.gradient = _where(halve, state.best_gradient, state.gradient)
        state.value = _where(halve, state.best_value, state.value)
        state.halved, state.value_then = halve, state.best_value
        state.rises = torch.zeros_like(state.rises)
