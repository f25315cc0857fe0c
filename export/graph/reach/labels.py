"""Bounds of the margin that a wrong label can get: quick ones, and ones with improved slopes and mixtures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from framegate.export.graph.reach.hidden import tightened
from framegate.export.graph.reach.relaxation import Choice, Free, Problem, differences, first_slopes, improve

STEPS = 40
_RATE, _RATE_OF_SHARES = 0.1, 0.2
_TRUE_FIRST = 3.0
"""How far the true label stands before the others, before softmax, where a mixture of rivals begins."""


def of_all_labels(problem: Problem) -> Tensor:
    """(N, classes) bounds of the difference of each logit to that of the true label; -inf for that itself."""
    classes = problem.logits.shape[1]
    true = F.one_hot(problem.labels, classes).to(problem.logits.dtype)
    every = torch.arange(classes).expand_as(problem.logits)
    found = differences(problem, every, true.unsqueeze(1).expand(-1, classes, -1))
    return found.scatter(1, problem.labels[:, None], -torch.inf)


def quick(problem: Problem) -> Tensor:
    """(N,) the largest bound of a frame's labels, in one pass."""
    return of_all_labels(problem).amax(1)


def improved(problem: Problem) -> Tensor:
    """(N,) the largest bound of a frame's labels, each improved that could be the largest."""
    problem = tightened(problem)
    bounds = of_all_labels(problem)
    done = torch.zeros_like(bounds, dtype=torch.bool)
    while True:
        most, label = bounds.max(1, keepdim=True)
        rows = torch.nonzero(~done.gather(1, label) & torch.isfinite(most))[:, 0]
        if not len(rows):
            return most[:, 0]
        found = _of_one_label(problem.rows(rows), label[rows])
        bounds[rows, label[rows, 0]] = torch.fmin(most[rows, 0], found)
        done[rows, label[rows, 0]] = True


def first_shares(problem: Problem, label: Tensor) -> Tensor:
    """(N, classes) what softmax makes the first mixture of, of the rivals of the labels (N, 1)."""
    true = F.one_hot(problem.labels, problem.logits.shape[1]).to(torch.float32)
    return (true * _TRUE_FIRST).scatter(1, label, -torch.inf)


def mixture(shares: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, 1, classes) of (N, classes)."""
    return torch.softmax(shares.to(dtype), 1).unsqueeze(1)


def _of_one_label(problem: Problem, label: Tensor) -> Tensor:
    """(N,) bounds of the margins of one wrong label of each frame, (N, 1).

    The margin is the least of the differences to the other labels, so it is at most any mixture of them.
    """
    rough = problem.to(torch.float32)  # enough to look for slopes, in half the time
    slopes = [first_slopes(*bounds) for bounds in rough.bounds]
    shares = first_shares(problem, label)
    improve(
        lambda: differences(rough, label, mixture(shares, torch.float32), Choice(slopes)),
        [Free(slopes, _RATE, 0.0, 1.0), Free([shares], _RATE_OF_SHARES)],
        STEPS,
    )
    exact = Choice([each.double() for each in slopes])
    return differences(problem, label, mixture(shares, torch.float64), exact)[:, 0]
