"""Steps and bookkeeping of an attack with two goals: misclassified, and trusted by the monitor.

Both goals' gradients are brought to the same length first, so no weighting depends on the scale of a score. Following
one goal at a time, plain or without the part that undoes the other goal, is Bryniarski et al. 2021 (arXiv:2106.15023).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from framegate.evaluation.attacks.loss import is_wrong, margin
from framegate.runtime.errors import UsageError

Observe = Callable[[Tensor], tuple[Tensor, Tensor]]
"""(N, ...) pixels -> logits (N, C) and score (N,), both differentiable; a lower score is trusted more. A score with
steps (a histogram) can be ``soft + (hard - soft).detach()``: judged as it is, attacked through its smooth form."""

STRATEGIES = ("selective", "orthogonal", "two-phase")
FIRST_PHASE = 1 / 3
"""Share of the steps for which ``two-phase`` attacks the classifier alone."""


class BestEvasion:
    """The best pixels of each frame: evaded, then misclassified with the lowest score, then the largest margin.

    Args:
        clean: (N, ...) frames; each is its own first candidate.
        logits: (N, C) of the clean frames.
        score: (N,) of the clean frames.
        labels: (N,) labels.
        threshold: Accepted iff isfinite(score) and score <= threshold.
    """

    def __init__(self, clean: Tensor, logits: Tensor, score: Tensor, labels: Tensor, threshold: float) -> None:
        self.labels, self.threshold = labels, threshold
        self.pixels, self.logits, self.score = clean.clone(), logits.clone(), score.clone()
        self.rank, self.value = self._judge(logits, labels, score)
        self.won_by = torch.zeros_like(labels)

    def _judge(self, logits: Tensor, labels: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        wrong = is_wrong(logits, labels)
        evaded = wrong & score.isfinite() & (score <= self.threshold)
        value = torch.where(wrong, -score, margin(logits, labels))
        return wrong.long() + evaded.long(), value.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)

    def offer(self, rows: Tensor, candidates: Tensor, logits: Tensor, score: Tensor, strategy: int) -> Tensor:
        """Keep what is better than before.

        Args:
            rows: (n,) int64, which frames the candidates belong to, no index twice.
            candidates: (n, ...) pixels.
            logits: (n, C) of the candidates.
            score: (n,) of the candidates.
            strategy: Number noted in ``won_by`` for what is kept.

        Returns:
            (n,) int64, rank of the candidates: 0 still right, 1 misclassified, 2 evaded.
        """
        rank, value = self._judge(logits, self.labels[rows], score)
        better = (rank > self.rank[rows]) | ((rank == self.rank[rows]) & (value > self.value[rows]))
        kept = rows[better]
        self.pixels[kept], self.logits[kept], self.score[kept] = candidates[better], logits[better], score[better]
        self.rank[kept], self.value[kept], self.won_by[kept] = rank[better], value[better], strategy
        return rank


def goal_gradients(observe: Observe, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits (n, C), score (n,), and per frame the unit directions (n, ...) that raise the margin and lower the score.

    Raises:
        UsageError: Logits or score do not depend on the pixels by operations that can be differentiated.
    """
    moving = pixels.detach().requires_grad_(True)
    with torch.enable_grad():
        logits, score = observe(moving)
        gap = margin(logits, labels)
        if not gap.requires_grad or not score.requires_grad:
            which = "score" if gap.requires_grad else "logits"
            raise UsageError(
                f"the {which} carry no gradient; do not detach inside, and give a score with steps a smooth form"
            )
        (up,) = torch.autograd.grad(gap.sum(), moving, retain_graph=True)
        (down,) = torch.autograd.grad(-score.sum(), moving)
    return logits.detach(), score.detach(), unit(up), unit(down)


def unit(gradient: Tensor) -> Tensor:
    """Each frame's gradient divided by its Euclidean length; zero where it is zero or not finite."""
    flat = gradient.flatten(1)
    # Dividing by the largest entry first keeps the squares of tiny float32 gradients from vanishing.
    flat = flat / flat.abs().amax(1, keepdim=True)
    scaled: Tensor = flat / flat.norm(dim=1, keepdim=True)
    return scaled.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).view_as(gradient)


def direction(strategy: str, share: float, up: Tensor, down: Tensor, wrong: Tensor) -> Tensor:
    """Where the next step goes, (n, ...).

    Args:
        strategy: One of `STRATEGIES`, or ``weight W`` with W in [0, 1], the share of the score.
        share: Share of the steps that are done, in [0, 1].
        up: (n, ...) unit direction that raises the margin.
        down: (n, ...) unit direction that lowers the score.
        wrong: (n,) bool, misclassified here.
    """
    if strategy.startswith("weight "):
        weight = float(strategy.removeprefix("weight "))
        return (1 - weight) * up + weight * down
    if strategy == "two-phase" and share < FIRST_PHASE:
        return up
    wrong = wrong.view(-1, *[1] * (up.ndim - 1))
    if strategy == "selective":
        return torch.where(wrong, down, up)
    # Only the part that works against the other goal is removed: removing the common part, too, found fewer evasions.
    against = (up * down).flatten(1).sum(1).clamp(max=0).view_as(wrong)
    return torch.where(wrong, down - against * up, up - against * down)
