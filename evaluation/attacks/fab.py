"""FAB, the fast adaptive boundary attack: the smallest L-infinity change that alters the class.

Croce and Hein 2020 (arXiv:1907.02044). Each step takes the network as linear, goes a little beyond the nearest decision
boundary and is pulled towards the projection of the clean frame onto that boundary; on the far side it turns back. The
paper's closing line search is left out: turning back by a tenth each time approaches the boundary as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from framegate.evaluation.attacks.loss import TINY, LogitsOf, is_wrong
from framegate.evaluation.attacks.problem import (
    AttackResult,
    BestSoFar,
    Ticker,
    batches,
    check_problem,
    evaluate,
    uniform,
)
from framegate.models.training.batches import Progress
from framegate.runtime.errors import UsageError

OVERSHOOT = 1.05
"""The paper's eta: how far beyond the linear boundary a step goes."""
LARGEST_PULL = 0.1
"""The paper's alpha_max: weight of the clean frame's projection."""
TURN_BACK = 0.9
"""The paper's beta: what is left of the perturbation after the boundary was crossed."""


@dataclass(frozen=True)
class FabResult(AttackResult):
    """What FAB found.

    Attributes:
        distance: (N,) smallest L-infinity distance at which the frame was misclassified, in pixel units, also where it
            is beyond epsilon; 0 for a frame that was wrong from the start, infinity where none was found.
    """

    distance: Tensor


def fab(
    logits_of: LogitsOf,
    pixels: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    steps: int = 100,
    restarts: int = 1,
    candidates: int = 9,
    smallest: bool = False,
    batch: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> FabResult:
    """Attack N frames; misclassified are those whose class changes within epsilon, the others come back clean.

    Args:
        logits_of: (n, ...) pixels -> (n, C) logits; differentiable.
        pixels: (N, ...) float32 in [0, 1].
        labels: (N,) int64 in [0, C).
        epsilon: Radius in pixel units, in (0, 1].
        steps: At least 1, each with one backward pass per candidate.
        restarts: The first starts at the clean frame, the others at random near it.
        candidates: How many wrong classes, the most probable on the clean frame, a step may choose from.
        smallest: Go on after a frame was fooled within epsilon, for the smallest distance.
        batch: Frames per forward pass.
        seed: Of the random starts.
        progress: Called after each step of each batch.

    Raises:
        UsageError: See `check_problem`; or steps, restarts or candidates below 1.
    """
    classes = check_problem(logits_of, pixels, labels, epsilon, batch, seed)
    if min(steps, restarts, candidates) < 1:
        raise UsageError(f"FAB: steps {steps}, restarts {restarts}, candidates {candidates}; each must be at least 1")
    search = _Search(logits_of, epsilon, steps, restarts, min(candidates, classes - 1), smallest, seed)
    ticker = Ticker(progress, "FAB", restarts * steps * -(-len(pixels) // batch))
    parts, distances = [], []
    for number, chosen in enumerate(batches(len(pixels), batch)):
        ticker.advance_to(number * restarts * steps)
        best, distance = search.run(pixels[chosen], labels[chosen], chosen.start, ticker)
        parts.append(best)
        distances.append(distance)
    ticker.advance_to(ticker.total)
    joined = AttackResult.join("FAB", epsilon, parts)
    return FabResult("FAB", epsilon, joined.pixels, joined.logits, joined.misclassified, torch.cat(distances))


@dataclass(frozen=True)
class _Search:
    logits_of: LogitsOf
    epsilon: float
    steps: int
    restarts: int
    candidates: int
    smallest: bool
    seed: int

    def run(self, clean: Tensor, labels: Tensor, first_frame: int, ticker: Ticker) -> tuple[BestSoFar, Tensor]:
        """The best pixels within epsilon of one batch, and the smallest distances."""
        base = ticker.done
        logits = evaluate(self.logits_of, clean, len(clean))
        best = BestSoFar(clean, logits, labels)
        others = logits.scatter(1, labels[:, None], -torch.inf).topk(self.candidates, dim=1).indices
        distance = torch.where(best.misclassified, 0.0, torch.inf)
        for restart in range(self.restarts):
            rows = torch.nonzero(distance > (0 if self.smallest else self.epsilon))[:, 0]
            moving = clean[rows]
            if restart > 0:
                radius = distance[rows].clamp(max=self.epsilon) / 2
                noise = uniform(clean.shape[1:], rows + first_frame, self.seed, restart)
                moving = (moving + _per_frame(radius, moving) * noise).clamp(0, 1)
            for step in range(self.steps):
                if len(rows) == 0:
                    break
                value, normal = self._nearest_boundary(moving, labels[rows], others[rows])
                moving = _step(moving, clean[rows], value, normal)
                moving = self._keep_crossed(best, distance, rows, moving, clean[rows])
                if not self.smallest:
                    going = distance[rows] > self.epsilon
                    rows, moving = rows[going], moving[going]
                ticker.advance_to(base + restart * self.steps + step + 1)
        return best, distance

    def _nearest_boundary(self, moving: Tensor, labels: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """The linear boundary nearest in L-infinity: logit difference (n,) and its gradient (n, pixels)."""
        moving = moving.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self.logits_of(moving)
            gaps = logits.gather(1, others) - logits.gather(1, labels[:, None])
        value, normal, nearest = gaps[:, 0].detach(), moving.detach().flatten(1), gaps.new_full((len(gaps),), torch.inf)
        for k in range(others.shape[1]):
            last = k + 1 == others.shape[1]
            (gradient,) = torch.autograd.grad(gaps[:, k].sum(), moving, retain_graph=not last)
            gradient = gradient.flatten(1).nan_to_num(nan=0.0)
            gap = gaps[:, k].detach()
            reach = gap.abs() / (gradient.abs().sum(1) + TINY)
            closer = reach < nearest
            nearest = torch.where(closer, reach, nearest)
            value = torch.where(closer, gap, value)
            normal = torch.where(closer[:, None], gradient, normal)
        return value, normal

    def _keep_crossed(self, best: BestSoFar, distance: Tensor, rows: Tensor, moving: Tensor, clean: Tensor) -> Tensor:
        """Note the frames that crossed the boundary, and send those back towards the clean frame."""
        logits = evaluate(self.logits_of, moving, len(moving))
        crossed = is_wrong(logits, best.labels[rows])
        reached = (moving - clean).abs().flatten(1).amax(1)
        distance[rows] = torch.where(crossed, torch.minimum(reached, distance[rows]), distance[rows])
        inside = crossed & (reached <= self.epsilon)
        best.offer(rows[inside], moving[inside], logits[inside], -reached[inside])
        return torch.where(_per_frame(crossed, moving), clean + TURN_BACK * (moving - clean), moving)


def _per_frame(values: Tensor, like: Tensor) -> Tensor:
    """(n,) -> (n, 1, ...) with the number of axes of ``like``."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _step(moving: Tensor, clean: Tensor, value: Tensor, normal: Tensor) -> Tensor:
    """The biased step of section 2.3: a mean of both projections, each with overshoot."""
    here, origin = moving.flatten(1), clean.flatten(1)
    at_origin = value + (normal * (origin - here)).sum(1)
    change, change_of_clean = to_boundary(here, value, normal), to_boundary(origin, at_origin, normal)
    length, length_of_clean = change.abs().amax(1), change_of_clean.abs().amax(1)
    pull = (length / (length + length_of_clean + TINY)).clamp(max=LARGEST_PULL)[:, None]
    mixed = (1 - pull) * (here + OVERSHOOT * change) + pull * (origin + OVERSHOOT * change_of_clean)
    return mixed.clamp(0, 1).view_as(moving)


def to_boundary(points: Tensor, value: Tensor, normal: Tensor) -> Tensor:
    """Smallest L-infinity change that brings points onto a hyperplane inside the box [0, 1] (section 2.2).

    Every coordinate moves by the same amount t against the sign of the value until its room in the box is used up, so
    the value falls along a concave, piecewise linear curve in t, whose corners are the sorted rooms.

    Args:
        points: (n, d) in [0, 1].
        value: (n,) the linear function at the points; the hyperplane is where it is zero.
        normal: (n, d) its gradient.

    Returns:
        (n, d) change; where the box does not reach the hyperplane, the change to the nearest corner.
    """
    direction = -torch.sign(value)[:, None] * normal.sign()
    room = torch.where(direction > 0, 1 - points, torch.where(direction < 0, points, 0.0))
    corners, order = room.sort(dim=1)
    slope_used = normal.abs().gather(1, order).double()
    done_by_full = (slope_used * corners).cumsum(1)
    slope_left = slope_used.sum(1, keepdim=True) - slope_used.cumsum(1)
    reached = done_by_full + corners * slope_left
    wanted = value.abs().double()[:, None]
    corner = torch.searchsorted(reached, wanted)
    inside = corner < room.shape[1]
    first = corner == 0
    before = (corner - 1).clamp(min=0)
    done = torch.where(first, 0.0, done_by_full.gather(1, before))
    left = torch.where(first, slope_used.sum(1, keepdim=True), slope_left.gather(1, before))
    t = torch.where(inside, (wanted - done) / left.clamp(min=TINY), 1.0)
    return direction * torch.minimum(room, t.to(room.dtype))
