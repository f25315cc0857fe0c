"""The Square attack: random search without gradients (Andriushchenko et al. 2020, arXiv:1912.00049).

Every query moves one square window, a cube in a volume, to a corner of the L-infinity ball and keeps it if the margin
grew. As it sees logits only, it beats a gradient attack only where the gradients mislead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from framegate.evaluation.attacks.loss import LogitsOf, margin
from framegate.evaluation.attacks.problem import (
    AttackResult,
    BestSoFar,
    Ticker,
    batches,
    check_problem,
    evaluate,
    generator_of,
    project,
)
from framegate.models.training.batches import Progress
from framegate.runtime.errors import UsageError

HALVINGS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the queries at which the window's area is halved: the paper's 10, 50, ... 8000 of 10,000."""


def square(
    logits_of: LogitsOf,
    pixels: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    queries: int = 5000,
    first_share: float = 0.8,
    batch: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> AttackResult:
    """Attack N frames by random search; a frame is left alone once it is misclassified.

    Args:
        logits_of: (n, ...) pixels -> (n, C) logits; no gradient is taken.
        pixels: (N, channels, h, w) or (N, channels, d, h, w) float32 in [0, 1].
        labels: (N,) int64 in [0, C).
        epsilon: Radius in pixel units, in (0, 1].
        queries: Forward passes per frame, at least 1.
        first_share: Share of the frame that the first windows cover, in (0, 1].
        batch: Frames per forward pass; the random numbers depend on it.
        seed: Of the random numbers.
        progress: Called after each query of each batch.

    Raises:
        UsageError: See `check_problem`; or frames without width and height, or queries or share out of range.
    """
    check_problem(logits_of, pixels, labels, epsilon, batch, seed)
    if pixels.ndim not in (4, 5):
        raise UsageError(f"pixels are {tuple(pixels.shape)}; the Square attack needs (N, C, h, w) or (N, C, d, h, w)")
    if queries < 1 or not 0 < first_share <= 1:
        raise UsageError(f"Square: {queries} queries, first share {first_share:g}; at least 1 and (0, 1] expected")
    ticker = Ticker(progress, "Square", queries * -(-len(pixels) // batch))
    parts = []
    for number, chosen in enumerate(batches(len(pixels), batch)):
        ticker.advance_to(number * queries)
        generator = generator_of(seed, chosen.start)
        search = (epsilon, queries, first_share, generator, ticker)
        parts.append(_attack_batch(logits_of, pixels[chosen], labels[chosen], *search))
    ticker.advance_to(ticker.total)
    return AttackResult.join("Square", epsilon, parts)


def _attack_batch(
    logits_of: LogitsOf,
    clean: Tensor,
    labels: Tensor,
    epsilon: float,
    queries: int,
    first_share: float,
    generator: torch.Generator,
    ticker: Ticker,
) -> BestSoFar:
    base, space = ticker.done, clean.shape[2:]
    best = BestSoFar(clean, evaluate(logits_of, clean, len(clean)), labels)
    for query in range(queries):
        rows = best.open_rows()
        if len(rows) == 0:
            break
        if query == 0:
            # Stripes along the height: the paper found them to be a good start for convolutional networks.
            signs = _signs((len(rows), clean.shape[1], *space[:-2], 1, space[-1]), generator).to(clean.device)
            candidates = clean[rows] + epsilon * signs
        else:
            side = _side(space, first_share * 0.5 ** sum(query > share * queries for share in HALVINGS))
            signs = _signs((len(rows), clean.shape[1], *[1] * len(space)), generator).to(clean.device)
            window = _windows(len(rows), space, side, generator).to(clean.device)
            candidates = best.pixels[rows] + 2 * epsilon * signs * window
        candidates = project(candidates, clean[rows], epsilon)
        logits = evaluate(logits_of, candidates, len(candidates))
        best.offer(rows, candidates, logits, margin(logits, labels[rows]))
        ticker.advance_to(base + query + 1)
    return best


def _side(space: torch.Size, share: float) -> int:
    """Side of the window, in pixels, that covers about ``share`` of the frame."""
    side: float = (share * space.numel()) ** (1 / len(space))
    return int(max(1, min(*space, round(side))))


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(0, 2, shape, generator=generator) - 1.0


def _windows(size: int, space: torch.Size, side: int, generator: torch.Generator) -> Tensor:
    """(size, 1, *space) bool: one window per frame, placed evenly inside it."""
    window = torch.ones(size, 1, *space, dtype=torch.bool)
    for axis, length in enumerate(space):
        corner = torch.randint(0, length - side + 1, (size, 1), generator=generator)
        place = torch.arange(length)
        covered = (place >= corner) & (place < corner + side)
        window &= covered.view(size, 1, *[length if k == axis else 1 for k in range(len(space))])
    return window
