"""Linear relaxation: linear functions of a plain network's values bounded over a ball of frames, in one pass back.

ReLU is replaced by a line above it or below it, as the sign of what follows asks, and what is left is linear in the
frame (CROWN, Zhang et al. 2018, arXiv:1811.00866). The slopes of the lines below are free: each choice of them gives a
bound (Xu et al. 2021, arXiv:2011.13824).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_UNIT = 2.0**-24
"""Half the distance from 1 to the next float32: the largest relative error of one operation."""
_LARGEST = 1e30
"""Of hidden values: float32 has numbers, and sums of products, far beyond it."""
_TINY = 1e-30
"""More than an engine loses that takes the smallest numbers for zero."""


def gamma(terms: int) -> float:
    """Relative error of a sum of products in float32, in any order (Higham 2002, Accuracy and Stability, lemma 3.1).

    Args:
        terms: Products and addends.
    """
    return terms * _UNIT / (1 - terms * _UNIT)


Ball = tuple[Tensor, Tensor]
"""Centre and radius of the inputs."""
Bounds = list[tuple[Tensor, Tensor]]
"""Least and most, over the ball, of the values of hidden layers before ReLU: each (N, ...)."""


class Layer(NamedTuple):
    """A linear map of the network: forwards, and its transpose for coefficients."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]

    def apply(self, values: Tensor, weight: Tensor) -> Tensor:
        """The map with another weight of the same shape, without its bias."""
        if weight.dim() == 2:
            return values.flatten(1) @ weight.T
        return F.conv2d(values, weight, None, self.stride, self.padding)

    def transposed(self, coefficients: Tensor, shape: Sequence[int]) -> Tensor:
        """Coefficients (N, ...) of the outputs -> (N, *shape) of the inputs."""
        if self.weight.dim() == 2:
            return (coefficients.flatten(1) @ self.weight).view(-1, *shape)
        kernel = self.weight.shape[2:]
        sizes = zip(shape[1:], coefficients.shape[2:], self.stride, self.padding, kernel, strict=True)
        left = [size - ((out - 1) * stride - 2 * pad + side) for size, out, stride, pad, side in sizes]
        return F.conv_transpose2d(coefficients, self.weight, None, self.stride, self.padding, left)

    def shift(self, dims: int) -> Tensor:
        """The bias, for outputs with so many dimensions."""
        return self.bias.view(1, -1, *[1] * (dims - 2))


@dataclass(frozen=True)
class Chain:
    """The network: hidden layers with ReLU behind each, and the last one."""

    hidden: list[Layer]
    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layers: nn.Sequential, last: nn.Linear) -> Chain:
        """What a plain chain is made of."""
        hidden = []
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                stride, padding = (layer.stride[0], layer.stride[1]), (int(layer.padding[0]), int(layer.padding[1]))
                assert layer.bias is not None
                hidden.append(Layer(layer.weight, layer.bias, stride, padding))
            elif isinstance(layer, nn.Linear):
                hidden.append(Layer(layer.weight, layer.bias, (1, 1), (0, 0)))
        return cls(hidden, last.weight, last.bias)

    def to(self, dtype: torch.dtype) -> Chain:
        """The same in another precision."""
        hidden = [each._replace(weight=each.weight.to(dtype), bias=each.bias.to(dtype)) for each in self.hidden]
        return Chain(hidden, self.weight.to(dtype), self.bias.to(dtype))

    def logits(self, values: Tensor) -> Tensor:
        """Of inputs (N, C, h, w): (N, classes)."""
        for layer in self.hidden:
            out = layer.apply(values, layer.weight)
            values = F.relu(out + layer.shift(out.dim()))
        return values.flatten(1) @ self.weight.T + self.bias


@dataclass(frozen=True)
class Problem:
    """Some frames, and what is known of all frames in the ball around each.

    Attributes:
        chain: The network.
        logits: Of the clean frames.
        labels: True ones.
        ball: Around the inputs.
        bounds: Least and most of the values of each hidden layer before ReLU, as an engine computes them: (N, ...).
        lost: How far an engine's values of each layer, the last one included, can be from the layer's map of what it
            computed before: (N, ...).
    """

    chain: Chain
    logits: Tensor
    labels: Tensor
    ball: Ball
    bounds: Bounds
    lost: list[Tensor]

    @classmethod
    def of(cls, chain: Chain, inputs: Tensor, labels: Tensor, ball: Ball) -> Problem:
        """By interval arithmetic, layer after layer."""
        (centre, radius), bounds, lost = ball, Bounds(), []
        last = Layer(chain.weight, chain.bias, (1, 1), (0, 0))
        for layer in (*chain.hidden, last):
            size = layer.weight.abs()
            sums = layer.apply(centre.abs() + radius, size)
            lost.append(gamma(layer.weight[0].numel() + 1) * (sums + layer.shift(sums.dim()).abs()) + _TINY)
            if layer is last:
                break
            middle = layer.apply(centre, layer.weight) + layer.shift(sums.dim())
            moved = layer.apply(radius, size) + lost[-1]
            bounds.append((middle - moved, middle + moved))
            low, high = F.relu(middle - moved), F.relu(middle + moved)
            centre, radius = (high + low) / 2, (high - low) / 2
        return cls(chain, chain.logits(inputs), labels, ball, bounds, lost)

    def usable(self) -> Tensor:
        """(N,) whether an engine computes numbers throughout, in the whole ball: else nothing here is about them."""
        ends = [end.flatten(1).abs().amax(1) for bounds in self.bounds for end in bounds]
        return torch.stack([*ends, self.logits.abs().amax(1)]).amax(0) < _LARGEST  # NaN is not

    def rows(self, chosen: Tensor) -> Problem:
        """Some of the frames, each as often as it is named."""
        ball, bounds = (self.ball[0][chosen], self.ball[1][chosen]), [(a[chosen], b[chosen]) for a, b in self.bounds]
        lost = [each[chosen] for each in self.lost]
        return Problem(self.chain, self.logits[chosen], self.labels[chosen], ball, bounds, lost)

    def to(self, dtype: torch.dtype) -> Problem:
        """The same in another precision."""
        ball, bounds = (
            (self.ball[0].to(dtype), self.ball[1].to(dtype)),
            [(a.to(dtype), b.to(dtype)) for a, b in self.bounds],
        )
        lost = [each.to(dtype) for each in self.lost]
        return Problem(self.chain.to(dtype), self.logits.to(dtype), self.labels, ball, bounds, lost)


def relaxed(coefficients: Tensor, bounds: tuple[Tensor, Tensor], slopes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Coefficients (N, K, ...) of ReLU's outputs -> those of its inputs, and (N, K, ...) what is added: never smaller.

    Args:
        coefficients: Of the outputs.
        bounds: Least and most of the inputs, each (N, ...).
        slopes: Of the lines below ReLU where its input can have both signs, (N, ...) in [0, 1]; None: what loses less.
    """
    least, most = (each.unsqueeze(1) for each in bounds)
    both = (least < 0) & (most > 0)
    passes = (least >= 0).to(least.dtype)
    # The clamp is for float32, in which slopes are looked for.
    chord = torch.where(both, most / (most - least).clamp(min=1e-30), passes)
    line = first_slopes(*bounds) if slopes is None else slopes
    below = torch.where(both, line.unsqueeze(1), passes)
    up, down = coefficients.clamp(min=0), coefficients.clamp(max=0)
    return up * chord + down * below, up * torch.where(both, -chord * least, torch.zeros_like(least))


def constant(layer: Layer, coefficients: Tensor, lost: Tensor) -> Tensor:
    """(N, K) what a layer's bias, and what an engine loses in it, add to functions of its values.

    Args:
        layer: The layer.
        coefficients: (N, K, ...) of the values, before ReLU.
        lost: (N, ...) see `Problem`.
    """
    flat = coefficients.flatten(0, 1)
    shifted = (flat * layer.shift(flat.dim())).flatten(1).sum(1).view(coefficients.shape[:2])
    return (coefficients.abs() * lost.unsqueeze(1)).flatten(2).sum(2) + shifted


def first_slopes(least: Tensor, most: Tensor) -> Tensor:
    """Of the lines below ReLU that lose less, to begin with."""
    return (most > -least).to(most.dtype)


class Choice(NamedTuple):
    """What may be chosen freely in a bound; for each hidden layer (N, ...).

    Attributes:
        slopes: See `relaxed`; None: the first ones.
        multipliers: Of what is known beside the bounds: that the value before ReLU is not negative (where positive), or
            not positive (where negative); None: nothing is. A multiple of what is known to be positive may be added.
    """

    slopes: Sequence[Tensor] | None = None
    multipliers: Sequence[Tensor] | None = None


FIRST = Choice()


def largest(
    problem: Problem,
    coefficients: Tensor,
    chosen: Choice = FIRST,
    depth: int = 0,
    given_away: dict[int, Tensor] | None = None,
) -> Tensor:
    """(N, K) upper bounds, over the ball, of K linear functions of what an engine computes of a hidden layer.

    Args:
        problem: The frames.
        coefficients: (N, K, ...) of the functions, behind ReLU.
        chosen: Any choice gives bounds.
        depth: Number of the hidden layer, from 1; 0: the last one.
        given_away: Gets, for each hidden layer, (N, K, ...) what was added because a sign is open.
    """
    chain, (count, functions) = problem.chain, coefficients.shape[:2]
    total = torch.zeros(count, functions, dtype=coefficients.dtype)
    for number in range((depth or len(chain.hidden)) - 1, -1, -1):
        layer, bounds = chain.hidden[number], problem.bounds[number]
        coefficients = coefficients.reshape(count, functions, *bounds[0].shape[1:])
        slopes = None if chosen.slopes is None else chosen.slopes[number]
        coefficients, added = relaxed(coefficients, bounds, slopes)
        if given_away is not None:
            given_away[number] = added
        if chosen.multipliers is not None:
            coefficients = coefficients + chosen.multipliers[number].unsqueeze(1)
        total = total + added.flatten(2).sum(2) + constant(layer, coefficients, problem.lost[number])
        before = problem.bounds[number - 1][0].shape[1:] if number else problem.ball[0].shape[1:]
        coefficients = layer.transposed(coefficients.flatten(0, 1), before).view(count, functions, *before)
    centre, radius = (each.unsqueeze(1) for each in problem.ball)
    return total + (coefficients * centre + coefficients.abs() * radius).flatten(2).sum(2)


def differences(
    problem: Problem,
    label: Tensor,
    rivals: Tensor,
    chosen: Choice = FIRST,
    given_away: dict[int, Tensor] | None = None,
) -> Tensor:
    """(N, K) bounds of the differences between the logits of K labels and mixtures of all logits.

    Args:
        problem: The frames.
        label: (N, K).
        rivals: (N, K, classes): shares of the logits, not negative, each sum 1.
        chosen: See `largest`.
        given_away: See `largest`.
    """
    chain, lost = problem.chain, problem.lost[-1]
    weights, offsets = chain.weight[label] - rivals @ chain.weight, chain.bias[label] - rivals @ chain.bias
    lost = lost.gather(1, label) + (rivals * lost.unsqueeze(1)).sum(2)
    return largest(problem, weights, chosen, given_away=given_away) + offsets + lost


class Free(NamedTuple):
    """Tensors that are improved, how fast, and the range that they must stay in."""

    tensors: Sequence[Tensor]
    rate: float
    least: float = -torch.inf
    most: float = torch.inf


def improve(bounds: Callable[[], Tensor], free: Sequence[Free], steps: int) -> None:
    """Change tensors so that the sum of some bounds falls (Adam).

    Args:
        bounds: Computes them from the tensors, which it knows.
        free: The tensors.
        steps: Of gradient.
    """
    with torch.enable_grad():
        for each in free:
            for tensor in each.tensors:
                tensor.requires_grad_(True)
        optimiser = torch.optim.Adam([{"params": list(each.tensors), "lr": each.rate} for each in free])
        for _ in range(steps):
            optimiser.zero_grad()
            bounds().sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            with torch.no_grad():
                for each in free:
                    for tensor in each.tensors:
                        tensor.clamp_(each.least, each.most)
    for each in free:
        for tensor in each.tensors:
            tensor.requires_grad_(False)
