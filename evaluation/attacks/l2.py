"""Projected gradient descent within an L2 ball (Madry et al. 2018, arXiv:1706.06083, with steps along the gradient)."""

from __future__ import annotations

import torch
from torch import Tensor

from framegate.evaluation.attacks.loss import LOSSES, LogitsOf, check_loss, gradient_of
from framegate.evaluation.attacks.problem import (
    AttackResult,
    BestSoFar,
    batches,
    check_problem,
    evaluate,
    uniform,
)
from framegate.evaluation.attacks.two_goals import unit
from framegate.runtime.errors import UsageError

_TINY = 1e-12


def lengths(difference: Tensor) -> Tensor:
    """(N,) Euclidean length of each frame's (N, ...) difference, in pixel units."""
    found: Tensor = difference.flatten(1).norm(dim=1)
    return found


def _scaled(values: Tensor, factors: Tensor) -> Tensor:
    return values * factors.view(-1, *[1] * (values.ndim - 1))


def _projected(moved: Tensor, clean: Tensor, radius: float) -> Tensor:
    """Into [0, 1], then towards the clean frame until within the radius, which leaves it in [0, 1]."""
    difference = moved.clamp(0, 1) - clean
    return clean + _scaled(difference, (radius / (lengths(difference) + _TINY)).clamp(max=1.0))


def pgd_l2(
    logits_of: LogitsOf,
    pixels: Tensor,
    labels: Tensor,
    radius: float,
    steps: int = 20,
    *,
    loss: str = "margin",
    batch: int = 128,
    seed: int = 0,
) -> AttackResult:
    """Attack N frames; the best iterate of each counts, with a random start.

    Args:
        logits_of: (n, ...) pixels -> (n, C) logits; differentiable.
        pixels: (N, ...) float32 in [0, 1].
        labels: (N,) int64.
        radius: Largest Euclidean length of the change of a frame, pixels from 0 to 1; above 0.
        steps: Gradient steps of 2.5 radius / steps.
        loss: See `framegate.evaluation.attacks.loss.LOSSES`.
        batch: Frames per forward pass.
        seed: Of the random start.

    Raises:
        UsageError: See `framegate.evaluation.attacks.problem.check_problem`; or the radius or steps are not positive.
    """
    if not 0 < radius < float("inf") or steps < 1:
        raise UsageError(f"L2 attack: radius {radius:g}, {steps} steps; expected a positive radius and at least 1 step")
    check_loss(loss, check_problem(logits_of, pixels, labels, 1.0, batch, seed))
    parts = []
    for rows in batches(len(pixels), batch):
        clean, known = pixels[rows], labels[rows]
        best = BestSoFar(clean, evaluate(logits_of, clean, batch), known)
        everything = torch.arange(len(clean))
        noise = uniform(clean.shape[1:], everything + rows.start, seed, 0)
        moving = _projected(clean + _scaled(noise, radius / (lengths(noise) + _TINY)), clean, radius)
        for _ in range(steps):
            logits, values, gradient = gradient_of(logits_of, moving, known, LOSSES[loss])
            best.offer(everything, moving, logits, values)
            moving = _projected(moving + 2.5 * radius / steps * unit(gradient), clean, radius)
        logits = evaluate(logits_of, moving, batch)
        best.offer(everything, moving, logits, LOSSES[loss](logits, known))
        parts.append(best)
    return AttackResult.join(f"PGD-{steps} L2 {radius:g}", radius, parts)
