"""A square of any content at the place where it hurts most (Brown et al. 2017, arXiv:1712.09665)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from framegate.evaluation.attacks.loss import LOSSES, LogitsOf, gradient_of
from framegate.evaluation.attacks.problem import AttackResult, BestSoFar, batches, check_problem, evaluate, uniform
from framegate.runtime.errors import UsageError

PLACES = 3
_STEP = 0.15


def _places(gradient: Tensor, side: int, count: int) -> Tensor:
    """(n, count, 2) rows and columns of the squares with the largest gradient, no two closer than half a side."""
    pull = gradient.abs().sum(1, keepdim=True)
    sums = F.avg_pool2d(pull, side, 1)[:, 0]
    found = []
    across = sums.shape[2]
    for _ in range(count):
        best = sums.flatten(1).argmax(1)
        top, left = best // across, best % across
        found.append(torch.stack([top, left], 1))
        for k, (row, column) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
            half = max(1, side // 2)
            sums[k, max(0, row - half) : row + half + 1, max(0, column - half) : column + half + 1] = -1.0
    return torch.stack(found, 1)


def _masks(places: Tensor, side: int, shape: torch.Size) -> Tensor:
    """(n, 1, h, w) 1 inside the square."""
    rows, columns = torch.arange(shape[2]), torch.arange(shape[3])
    down = (rows >= places[:, :1]) & (rows < places[:, :1] + side)
    across = (columns >= places[:, 1:]) & (columns < places[:, 1:] + side)
    return (down[:, None, :, None] & across[:, None, None, :]).float()


def patch(
    logits_of: LogitsOf,
    pixels: Tensor,
    labels: Tensor,
    side: int,
    steps: int = 20,
    *,
    places: int = PLACES,
    batch: int = 64,
    seed: int = 0,
) -> AttackResult:
    """Attack N frames with one square each: signed gradient steps on its pixels, at the most sensitive places.

    Args:
        logits_of: (n, 3, h, w) pixels -> (n, C) logits; differentiable.
        pixels: (N, 3, h, w) float32 in [0, 1].
        labels: (N,) int64.
        side: Of the square in pixels, 1 to the frame's shorter side.
        steps: Gradient steps at each place; their size falls from 0.15 to a tenth of that.
        places: That are tried one after the other; the best result counts.
        batch: Frames per forward pass.
        seed: Of the content that each square starts with.

    Raises:
        UsageError: See `framegate.evaluation.attacks.problem.check_problem`; or the square does not fit.
    """
    check_problem(logits_of, pixels, labels, 1.0, batch, seed)
    if pixels.ndim != 4 or not 1 <= side <= min(pixels.shape[2:]) or steps < 1 or places < 1:
        raise UsageError(
            f"patch of {side} pixels, {steps} steps, {places} places, in frames of shape {tuple(pixels.shape[1:])}; "
            "expected images, a square that fits, and at least 1 of each"
        )
    loss = LOSSES["margin"]
    parts = []
    for rows in batches(len(pixels), batch):
        clean, known = pixels[rows], labels[rows]
        best = BestSoFar(clean, evaluate(logits_of, clean, batch), known)
        everything = torch.arange(len(clean))
        tried = _places(gradient_of(logits_of, clean, known, loss)[2], side, places)
        for number in range(places):
            mask = _masks(tried[:, number], side, clean.shape)
            content = (uniform(clean.shape[1:], everything + rows.start, seed, number) + 1) / 2
            moving = clean * (1 - mask) + content * mask
            for step in range(steps):
                logits, values, gradient = gradient_of(logits_of, moving, known, loss)
                best.offer(everything, moving, logits, values)
                size = _STEP * (1 - 0.9 * step / steps)
                moving = (moving + size * gradient.nan_to_num(nan=0.0).sign() * mask).clamp(0, 1)
            logits = evaluate(logits_of, moving, batch)
            best.offer(everything, moving, logits, loss(logits, known))
        parts.append(best)
    return AttackResult.join(f"patch {side}x{side}", 1.0, parts)
