"""The adaptive attack: against the classifier and the monitor's score together.

A monitor that only ever saw attacks on the classifier has not been attacked (Carlini et al. 2019, arXiv:1902.06705;
Tramer et al. 2020, arXiv:2002.08347). Here a frame falls when it is misclassified AND its score stays at or below the
acceptance threshold: a false accept. As both goals pull in different directions, each frame is attacked in several ways
and the best outcome counts: weighted sums of both normalised gradients, and the two rules of Bryniarski et al. 2021
(arXiv:2106.15023), which follow one goal at a time, plain or without what would undo the other goal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from framegate.evaluation.attacks.problem import (
    AttackResult,
    Ticker,
    batches,
    check_problem,
    project,
    uniform,
)
from framegate.evaluation.attacks.radius import epsilon_text, levels_text
from framegate.evaluation.attacks.two_goals import STRATEGIES, BestEvasion, Observe, direction, goal_gradients
from framegate.models.training.batches import Progress
from framegate.runtime.errors import UsageError

KEEP = ("best", "first")
CLEAN = "clean frame"


@dataclass(frozen=True)
class AdaptiveSettings:
    """What decides the outcome, for reports.

    Attributes:
        epsilon: L-infinity radius in pixel units, in (0, 1].
        steps: Gradient steps per strategy and restart, at least 1.
        restarts: At least 1; the first starts at the clean frame, the others from noise in the ball.
        step_size: First step in pixel units, None for a quarter of epsilon; it falls linearly to a tenth of that.
        weights: Shares of the score in the weighted strategies, each in [0, 1]. 0 attacks the classifier only, 1 the
            monitor only.
        strategies: Of ``selective`` (the score once misclassified, else the classifier), ``orthogonal`` (the same,
            without what would undo the other goal) and ``two-phase`` (the classifier alone for the first third, then
            ``orthogonal``).
        keep: ``best``: success first, then the lowest score. ``first``: a frame that fell is left alone; as many fall.
    """

    epsilon: float
    steps: int = 50
    restarts: int = 1
    step_size: float | None = None
    weights: tuple[float, ...] = (0.1, 0.5, 0.9)
    strategies: tuple[str, ...] = STRATEGIES
    keep: str = "best"

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: A value is outside its range.
        """
        if self.steps < 1 or self.restarts < 1:
            raise UsageError(f"adaptive: steps {self.steps}, restarts {self.restarts}; both must be at least 1")
        if self.step_size is not None and not 0 < self.step_size <= 1:
            raise UsageError(f"adaptive: step size is {self.step_size:g}; it must lie in (0, 1], in pixel units")
        if not all(0 <= weight <= 1 for weight in self.weights) or not set(self.strategies) <= set(STRATEGIES):
            raise UsageError(
                f"adaptive: weights {self.weights}, strategies {self.strategies}; weights in [0, 1] and "
                f"strategies out of {', '.join(STRATEGIES)} expected"
            )
        if not self.names or self.keep not in KEEP:
            raise UsageError(f"adaptive: {len(self.names)} strategies, keep {self.keep!r}; keep is one of {KEEP}")

    @property
    def names(self) -> tuple[str, ...]:
        """The strategies in the order they run."""
        return (*self.strategies, *(f"weight {weight:g}" for weight in self.weights))

    def __str__(self) -> str:
        """One line for a report, with every parameter."""
        return (
            f"adaptive PGD on classifier and score: L-inf, epsilon {epsilon_text(self.epsilon)}, {self.steps} steps "
            f"from {levels_text(self.step)} down, restarts {self.restarts}, {', '.join(self.names)}; {self.keep} kept"
        )

    @property
    def step(self) -> float:
        """The first step size in pixel units."""
        return self.epsilon / 4 if self.step_size is None else self.step_size


@dataclass(frozen=True)
class AdaptiveResult(AttackResult):
    """What the adaptive attack made of N frames.

    Attributes:
        evaded: (N,) bool, misclassified and accepted: isfinite(score) and score <= threshold.
        score: (N,) of the pixels kept.
        won_by: (N,) int64, index into ``strategies`` of where the pixels come from.
        strategies: ``clean frame`` and the strategies that ran.
        blind: Share of the gradients of the score that were zero or not finite, in [0, 1]; if it is high, the attack
            could not follow the score, and its outcome proves little.
    """

    evaded: Tensor
    score: Tensor
    won_by: Tensor
    strategies: tuple[str, ...]
    blind: float


def adaptive_pgd(
    observe: Observe,
    pixels: Tensor,
    labels: Tensor,
    threshold: float,
    settings: AdaptiveSettings,
    *,
    batch: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> AdaptiveResult:
    """Look for frames that are misclassified and accepted.

    Args:
        observe: (n, ...) pixels -> logits (n, C), score (n,); both differentiable.
        pixels: (N, ...) float32 in [0, 1], images or volumes.
        labels: (N,) int64 in [0, C).
        threshold: The monitor accepts iff isfinite(score) and score <= threshold.
        settings: The strategies and their budget.
        batch: Frames per forward pass.
        seed: Of the random starts.
        progress: Called after each step of each batch.

    Raises:
        UsageError: See `check_problem`; or a score of another shape, without gradient, or a threshold that is not
            finite.
    """
    check_problem(lambda some: _check_score(*observe(some)), pixels, labels, settings.epsilon, batch, seed)
    if not math.isfinite(threshold):
        raise UsageError(f"the threshold is {threshold}; a finite one is needed to say what is accepted")
    per_batch = len(settings.names) * settings.restarts * settings.steps
    ticker = Ticker(progress, "adaptive PGD", per_batch * -(-len(pixels) // batch))
    parts, blind, seen = [], 0, 0
    for number, chosen in enumerate(batches(len(pixels), batch)):
        ticker.advance_to(number * per_batch)
        best, blind_here, seen_here = _attack_batch(
            observe, pixels[chosen], labels[chosen], threshold, settings, chosen.start, seed, ticker
        )
        parts.append(best)
        blind, seen = blind + blind_here, seen + seen_here
    ticker.advance_to(ticker.total)
    rank = torch.cat([part.rank for part in parts])
    return AdaptiveResult(
        "adaptive PGD",
        settings.epsilon,
        torch.cat([part.pixels for part in parts]),
        torch.cat([part.logits for part in parts]),
        rank > 0,
        rank > 1,
        torch.cat([part.score for part in parts]),
        torch.cat([part.won_by for part in parts]),
        (CLEAN, *settings.names),
        blind / max(seen, 1),
    )


def _check_score(logits: Tensor, score: Tensor) -> Tensor:
    if score.shape != logits.shape[:1]:
        raise UsageError(f"the score has shape {tuple(score.shape)}; one number a frame, ({len(logits)},), is needed")
    return logits


def _attack_batch(
    observe: Observe,
    clean: Tensor,
    labels: Tensor,
    threshold: float,
    settings: AdaptiveSettings,
    first_frame: int,
    seed: int,
    ticker: Ticker,
) -> tuple[BestEvasion, int, int]:
    """The best pixels of one batch; how many gradients of the score were useless, and how many were taken."""
    base, blind, seen = ticker.done, 0, 0
    with torch.no_grad():
        best = BestEvasion(clean, *observe(clean), labels, threshold)
    runs = [(restart, name) for restart in range(settings.restarts) for name in settings.names]
    for run, (restart, name) in enumerate(runs):
        ticker.advance_to(base + run * settings.steps)
        rows = torch.nonzero((best.rank < 2) | (settings.keep == "best"))[:, 0]
        moving = clean[rows]
        if restart > 0 and len(rows) > 0:
            noise = uniform(clean.shape[1:], rows + first_frame, seed, restart)
            moving = project(moving + settings.epsilon * noise, moving, settings.epsilon)
        # The last round only evaluates the pixels that the last step reached.
        for step in range(settings.steps + 1):
            if len(rows) == 0:
                break
            logits, score, up, down = goal_gradients(observe, moving, labels[rows])
            rank = best.offer(rows, moving, logits, score, 1 + run % len(settings.names))
            seen += len(rows)
            blind += int((down.flatten(1).abs().amax(1) == 0).sum())
            share = step / settings.steps
            toward = direction(name, share, up, down, rank > 0).sign()
            moving = project(moving + settings.step * (1 - 0.9 * share) * toward, clean[rows], settings.epsilon)
            if settings.keep == "first":
                rows, moving = rows[rank < 2], moving[rank < 2]
            ticker.advance_to(base + run * settings.steps + step)
    return best, blind, seen
