"""The worst of a grid of rotations and shifts (Engstrom et al. 2019, arXiv:1712.02779)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from framegate.evaluation.attacks.loss import LOSSES, LogitsOf
from framegate.evaluation.attacks.problem import AttackResult, BestSoFar, batches, check_problem, evaluate
from framegate.runtime.errors import UsageError

ANGLES, SHIFTS = 5, 3
"""Angles, and shifts along each axis, of the grid; odd, so that the frame itself is one of its points."""


def turned(pixels: Tensor, degrees: float, right: float, down: float) -> Tensor:
    """Frames rotated about their centre and shifted, bilinear, the border mirrored.

    Args:
        pixels: (N, 3, h, w).
        degrees: Of rotation, against the clock.
        right: Pixels.
        down: Pixels.
    """
    height, width = pixels.shape[2:]
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    # grid_sample counts from -1 to 1 along each axis.
    matrix = torch.tensor(
        [
            [cosine, -sine * height / width, -2 * right / width],
            [sine * width / height, cosine, -2 * down / height],
        ],
        dtype=pixels.dtype,
    )
    grid = F.affine_grid(matrix.expand(len(pixels), 2, 3), list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return moved.clamp(0, 1)


def spatial(
    logits_of: LogitsOf, pixels: Tensor, labels: Tensor, degrees: float, shift: float, *, batch: int = 128
) -> AttackResult:
    """Every combination of angles and shifts on a grid; the best of each frame counts.

    Args:
        logits_of: (n, 3, h, w) pixels -> (n, C) logits.
        pixels: (N, 3, h, w) float32 in [0, 1].
        labels: (N,) int64.
        degrees: Largest rotation to either side, 0 to 180.
        shift: Largest shift along each axis in pixels, 0 or more.
        batch: Frames per forward pass.

    Raises:
        UsageError: See `framegate.evaluation.attacks.problem.check_problem`; or an angle or shift is out of range.
    """
    check_problem(logits_of, pixels, labels, 1.0, batch)
    if pixels.ndim != 4 or not 0 <= degrees <= 180 or not 0 <= shift < min(pixels.shape[2:]):
        raise UsageError(
            f"rotation to {degrees:g} degrees and shift to {shift:g} pixels of {tuple(pixels.shape[1:])}; expected "
            "images, 0 to 180 degrees, and shifts smaller than the frame"
        )
    angles = torch.linspace(-degrees, degrees, ANGLES).tolist() if degrees else [0.0]
    shifts = torch.linspace(-shift, shift, SHIFTS).tolist() if shift else [0.0]
    parts = []
    for rows in batches(len(pixels), batch):
        clean, known = pixels[rows], labels[rows]
        best = BestSoFar(clean, evaluate(logits_of, clean, batch), known)
        everything = torch.arange(len(clean))
        for angle in angles:
            for right in shifts:
                for down in shifts:
                    moved = turned(clean, angle, right, down)
                    logits = evaluate(logits_of, moved, batch)
                    best.offer(everything, moved, logits, LOSSES["margin"](logits, known))
        parts.append(best)
    return AttackResult.join(f"rotation to {degrees:g} degrees, shift to {shift:g} pixels", 1.0, parts)
