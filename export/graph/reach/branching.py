"""The closest bounds: branch and bound.

A ReLU whose input can have both signs is what a bound gives something away for. Split into two cases, one for each sign
of one such input, it gives nothing away in either, and the larger of the two bounds holds. What is known in a case is
used with multipliers (beta-CROWN, Wang et al. 2021, arXiv:2103.06624). The case with the largest bound is split next,
where most is given away, until there are as many cases as are allowed.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor

from framegate.export.graph.reach.hidden import tightened
from framegate.export.graph.reach.labels import STEPS, first_shares, mixture, of_all_labels
from framegate.export.graph.reach.relaxation import Bounds, Choice, Free, Problem, differences, first_slopes, improve

_STEPS_OF_HIDDEN = 8
_STEPS = 5
"""Of a new case, which begins with what was found for the one that it was split from."""
_RATE, _RATE_OF_MULTIPLIERS, _RATE_OF_SHARES = 0.1, 0.3, 0.1
_AT_ONCE = 24


@dataclass(frozen=True)
class _Case:
    """A wrong label, and the signs of some hidden values.

    Attributes:
        bound: Of the label's margin.
        label: The wrong one.
        signs: (layer, position in it, +1 or -1).
        slopes: Of each layer.
        multipliers: Of each layer, not negative.
        shares: (classes,) of the rivals, before softmax.
        widest: Layer and position of the value to be split next; None: there is none.
        fresh: Whether it has not been improved yet.
    """

    bound: float
    label: int
    signs: tuple[tuple[int, int, int], ...]
    slopes: list[Tensor]
    multipliers: list[Tensor]
    shares: Tensor
    widest: tuple[int, int] | None = None
    fresh: bool = False


def closest(problem: Problem, cases: int) -> float:
    """Bound of the largest margin of a wrong label, of one frame.

    Args:
        problem: The frame.
        cases: That are looked at, at most, but for the first of each label.

    Returns:
        Not a number where there is no bound; -inf where there is no other label.
    """
    problem = tightened(tightened(problem), _STEPS_OF_HIDDEN)
    rough = problem.to(torch.float32)
    number, order = count(), list[tuple[float, int, _Case]]()

    def keep(case: _Case) -> None:
        heapq.heappush(order, (-case.bound, next(number), case))

    first = of_all_labels(problem)[0]
    if torch.isnan(first).any() or len(first) < 2:
        return float(first.amax())
    for label, bound in enumerate(first.tolist()):
        if label != int(problem.labels[0]):
            keep(_first(rough, label, bound))
    left = cases
    while True:
        _, _, case = order[0]
        if case.fresh:
            heapq.heappop(order)
            keep(_solved(problem, rough, [case], STEPS)[0])
            continue
        if left < 2 or case.widest is None:
            return case.bound
        split = list[_Case]()
        while order and len(split) + 2 <= min(left, _AT_ONCE):
            _, _, case = order[0]
            if case.fresh or case.widest is None:
                break
            heapq.heappop(order)
            split += [replace(case, signs=(*case.signs, (*case.widest, sign))) for sign in (1, -1)]
        left -= len(split)
        for solved in _solved(problem, rough, split, _STEPS):
            keep(solved)


def _first(rough: Problem, label: int, bound: float) -> _Case:
    slopes = [first_slopes(*bounds)[0] for bounds in rough.bounds]
    shares = first_shares(rough, torch.tensor([[label]]))[0]
    return _Case(bound, label, (), slopes, [torch.zeros_like(each) for each in slopes], shares, fresh=True)


def _known(problem: Problem, cases: Sequence[_Case]) -> tuple[Problem, list[Tensor]]:
    """One frame as often as there are cases, its bounds as each case says; and for each layer the signs, else 0."""
    every = problem.rows(torch.zeros(len(cases), dtype=torch.int64))
    bounds, signs = Bounds(), list[Tensor]()
    for layer, (least, most) in enumerate(every.bounds):
        own = torch.zeros_like(least)
        flat = least.flatten(1).clone(), most.flatten(1).clone(), own.flatten(1)
        for row, case in enumerate(cases):
            for where, place, sign in case.signs:
                if where == layer:
                    flat[2][row, place] = sign
                    end = flat[0] if sign > 0 else flat[1]
                    end[row, place] = end[row, place].clamp(min=0) if sign > 0 else end[row, place].clamp(max=0)
        bounds.append((flat[0].view_as(least), flat[1].view_as(most)))
        signs.append(own)
    return replace(every, bounds=bounds), signs


def _solved(problem: Problem, rough: Problem, cases: Sequence[_Case], steps: int) -> list[_Case]:
    """The cases with bounds of their own, none above that of the case from which it was split."""
    label = torch.tensor([[case.label] for case in cases])
    slopes = [torch.stack(each) for each in zip(*(case.slopes for case in cases), strict=True)]
    multipliers = [torch.stack(each) for each in zip(*(case.multipliers for case in cases), strict=True)]
    shares = torch.stack([case.shares for case in cases])
    some, signs = _known(rough, cases)

    def bounds(given_away: dict[int, Tensor] | None = None) -> Tensor:
        signed = [each * sign for each, sign in zip(multipliers, signs, strict=True)]
        return differences(some, label, mixture(shares, torch.float32), Choice(slopes, signed), given_away)

    free = [
        Free(slopes, _RATE, 0.0, 1.0),
        Free(multipliers, _RATE_OF_MULTIPLIERS, 0.0),
        Free([shares], _RATE_OF_SHARES),
    ]
    improve(bounds, free, steps)
    given_away = dict[int, Tensor]()
    bounds(given_away)
    exact, signs = _known(problem, cases)
    signed = [each.double() * sign for each, sign in zip(multipliers, signs, strict=True)]
    choice = Choice([each.double() for each in slopes], signed)
    found = differences(exact, label, mixture(shares, torch.float64), choice)[:, 0].tolist()
    return [
        replace(
            case,
            bound=min(case.bound, found[row]),
            slopes=[each[row] for each in slopes],
            multipliers=[each[row] for each in multipliers],
            shares=shares[row],
            widest=_widest([given_away[layer][row, 0] for layer in range(len(slopes))]),
            fresh=False,
        )
        for row, case in enumerate(cases)
    ]


def _widest(given_away: Sequence[Tensor]) -> tuple[int, int] | None:
    """Layer and position of the value for which most is given away; None if nothing is."""
    most = torch.stack([each.max() for each in given_away])
    layer = int(most.argmax())
    return (layer, int(given_away[layer].argmax())) if most[layer] > 0 else None
