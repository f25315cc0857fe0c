"""The attack's own health: does a high robust accuracy come from the network, or from an attack that fails?

The checks follow the checklist of Carlini et al. 2019 (arXiv:1902.06705) and the flags that AutoAttack raises (Croce
and Hein 2020, arXiv:2003.01690). A failed check marks a report as failed; the figures beside it must not be quoted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from framegate.evaluation.attacks.health_checks import (
    HealthCheck,
    check_clean,
    check_constant_class,
    check_deterministic,
    check_gradients,
    check_inside_ball,
    check_never_weaker,
    check_unbounded,
    check_white_box,
    check_whole_ball,
)
from framegate.evaluation.attacks.linf import LinfSettings, run_linf, uniform_noise
from framegate.evaluation.attacks.loss import LogitsOf, check_loss
from framegate.evaluation.attacks.problem import AttackResult, Ticker, check_problem, evaluate
from framegate.evaluation.attacks.radius import epsilon_text
from framegate.evaluation.attacks.square import square
from framegate.models.training.batches import Progress
from framegate.runtime.errors import UsageError

UNBOUNDED = 0.5
"""At this epsilon mid-grey lies in the ball of every frame."""
RUNS = 9


@dataclass(frozen=True)
class AttackHealth:
    """All checks of one report.

    Attributes:
        checks: In the order they ran.
        frames: How many frames the measured checks used.
    """

    checks: tuple[HealthCheck, ...]
    frames: int

    @property
    def passed(self) -> bool:
        """No check failed."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(check.name for check in self.checks if not check.passed)

    def __str__(self) -> str:
        """One line a check."""
        return "\n".join(str(check) for check in self.checks)


def check_attack_health(
    logits_of: LogitsOf,
    pixels: Tensor,
    labels: Tensor,
    settings: LinfSettings,
    *,
    results: Sequence[AttackResult] = (),
    frames: int = 64,
    queries: int = 200,
    tolerance: float = 0.01,
    batch: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> AttackHealth:
    """Check the white-box attack that a report relies on, and what it and others produced.

    The comparisons run the attack about nine times on a sample of the frames; as frames that fall are left alone, that
    is quick for a network that is not robust.

    Args:
        logits_of: (n, ...) pixels -> (n, C) logits; differentiable.
        pixels: (N, ...) clean frames, float32 in [0, 1].
        labels: (N,) int64 in [0, C).
        settings: The attack under check.
        results: What attacks made of these same N frames, for the checks of their output.
        frames: Sample size, spread evenly over the N frames; at least 1.
        queries: Of the Square attack that must not be stronger, at least 1.
        tolerance: Share of the sample by which a stronger attack may look weaker by chance, in [0, 1); one frame is
            always allowed.
        batch: Frames per forward pass.
        seed: Of everything random.
        progress: Called after each run of an attack.

    Raises:
        UsageError: See `check_problem`, notably a network that gives probabilities; results of other frames.
    """
    check_loss(settings.loss, check_problem(logits_of, pixels, labels, settings.epsilon, batch, seed))
    if frames < 1 or not 0 <= tolerance < 1:
        raise UsageError(f"attack health: {frames} frames, tolerance {tolerance:g}; at least 1 and [0, 1) expected")
    for result in results:
        if result.pixels.shape != pixels.shape:
            shapes = f"{tuple(result.pixels.shape)} pixels, the clean frames have {tuple(pixels.shape)}"
            raise UsageError(f"{result.attack}: {shapes}; give the results of the same frames")
    chosen = torch.linspace(0, len(pixels) - 1, min(frames, len(pixels))).round().long().to(pixels.device)
    ticker = Ticker(progress, "attack health", RUNS)
    sample = _Sample(logits_of, pixels[chosen], labels[chosen], settings, batch, seed, ticker)
    clean = evaluate(logits_of, pixels, batch)
    checks = [
        check_clean(clean, labels),
        check_deterministic(logits_of, sample.pixels),
        check_gradients(logits_of, sample.pixels, sample.labels, settings.loss),
        *sample.compare(queries, tolerance),
    ]
    for result in results:
        checks.append(check_constant_class(result, clean, labels))
        checks.append(check_inside_ball(logits_of, result, pixels, labels, batch))
    return AttackHealth(tuple(checks), len(chosen))


@dataclass(frozen=True)
class _Sample:
    """The frames on which attacks are compared."""

    logits_of: LogitsOf
    pixels: Tensor
    labels: Tensor
    settings: LinfSettings
    batch: int
    seed: int
    ticker: Ticker

    def compare(self, queries: int, tolerance: float) -> list[HealthCheck]:
        """Run the attack with more and less of everything."""
        settings = self.settings
        # The first misclassified iterate shows success as well as the best one does, in fewer passes.
        usual = replace(settings, keep="last" if settings.keep == "last" else "first")
        fewer, more = max(1, settings.steps // 2), 2 * settings.steps
        attacked = self._attacked(usual)
        base = ~attacked.misclassified
        by_steps = {
            f"{fewer} steps": self._right(replace(usual, steps=fewer)),
            f"{settings.steps} steps": base,
            f"{more} steps": self._right(replace(usual, steps=more)),
        }
        again = replace(usual, random_start=True)
        by_restarts = {
            f"{settings.restarts} restarts": base if settings.random_start else self._right(again),
            f"{2 * settings.restarts} restarts": self._right(replace(again, restarts=2 * settings.restarts)),
        }
        half, double = settings.epsilon / 2, min(1.0, 2 * settings.epsilon)
        by_epsilon = {
            epsilon_text(half): self._right(replace(usual, epsilon=half)),
            epsilon_text(settings.epsilon): base,
            epsilon_text(double): self._right(replace(usual, epsilon=double)),
        }
        far = self._right(replace(usual, epsilon=UNBOUNDED, steps=more, step_size=None))
        grey = evaluate(self.logits_of, torch.full_like(self.pixels[:1], 0.5)).argmax(1)
        problem = (self.logits_of, self.pixels, self.labels, settings.epsilon)
        noise = self._count(uniform_noise(*problem, draws=3, batch=self.batch, seed=self.seed))
        black_box = self._count(square(*problem, queries=queries, batch=self.batch, seed=self.seed))
        return [
            check_never_weaker("more steps", by_steps, tolerance),
            check_never_weaker("more restarts", by_restarts, tolerance),
            check_never_weaker("larger epsilon", by_epsilon, tolerance),
            check_whole_ball(attacked, self.pixels),
            check_unbounded(far, self.labels != grey),
            check_white_box(settings.name, base, "3 draws of noise", noise, tolerance),
            check_white_box(settings.name, base, f"Square with {queries} queries", black_box, tolerance),
        ]

    def _attacked(self, settings: LinfSettings) -> AttackResult:
        problem = (self.logits_of, self.pixels, self.labels)
        result = run_linf(settings, *problem, batch=self.batch, seed=self.seed)
        self._count(result)
        return result

    def _right(self, settings: LinfSettings) -> Tensor:
        return ~self._attacked(settings).misclassified

    def _count(self, result: AttackResult) -> Tensor:
        """(n,) bool, still right; one more run is over."""
        self.ticker.advance_to(self.ticker.done + 1)
        return ~result.misclassified
