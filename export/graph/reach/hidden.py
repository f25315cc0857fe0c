"""Least and most of hidden values over the ball, by linear relaxation where their signs are open."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from framegate.export.graph.reach.relaxation import (
    Bounds,
    Choice,
    Free,
    Layer,
    Problem,
    constant,
    first_slopes,
    improve,
    largest,
    relaxed,
)

_AT_ONCE = 256
"""Values whose bounds are found together."""
_RATE = 0.2


def tightened(problem: Problem, steps: int = 0) -> Problem:
    """The same frames, with closer bounds of the hidden values whose signs are open.

    Args:
        problem: The frames.
        steps: Of gradient that improve the slopes for each bound; 0: none, which takes a tenth of the time of eight.
    """
    bounds = list(problem.bounds)
    for number in range(1, len(bounds)):  # those of the first layer are exact
        closer = replace(problem, bounds=bounds)
        least, most = (each.clone() for each in bounds[number])
        for row in range(len(least)):
            own_least, own_most = least[row].flatten(), most[row].flatten()
            open_ones = torch.nonzero((own_least < 0) & (own_most > 0))[:, 0]
            for part in torch.split(open_ones, _AT_ONCE):
                ends = linear_ends if problem.chain.hidden[number].weight.dim() == 2 else convolved_ends
                low, high = ends(closer.rows(torch.tensor([row])), number, part, steps)
                own_least[part], own_most[part] = own_least[part].fmax(low), own_most[part].fmin(high)
            least[row], most[row] = own_least.view_as(least[row]), own_most.view_as(most[row])
        bounds[number] = least, most
    return replace(problem, bounds=bounds)


def linear_ends(problem: Problem, number: int, chosen: Tensor, steps: int = 0) -> tuple[Tensor, Tensor]:
    """Least and most of some values (K,) of a hidden linear layer, for one frame; see `tightened`."""
    layer, lost = problem.chain.hidden[number], problem.lost[number][0, chosen]
    weight, bias = layer.weight[chosen], layer.bias[chosen]
    coefficients = torch.cat([weight, -weight])
    high = largest(problem, coefficients.unsqueeze(0), depth=number)[0]
    if steps:  # each of the functions has slopes of its own
        every = problem.rows(torch.zeros(len(coefficients), dtype=torch.int64))
        rough, functions = every.to(torch.float32), coefficients.unsqueeze(1)
        slopes = [first_slopes(*bounds) for bounds in rough.bounds[:number]]
        improve(
            lambda: largest(rough, functions.float(), Choice(slopes), number), [Free(slopes, _RATE, 0.0, 1.0)], steps
        )
        improved = largest(every, functions, Choice([each.double() for each in slopes]), number)[:, 0]
        high = torch.fmin(high, improved)  # a search that overflowed finds nothing
    return bias - high[len(chosen) :] - lost, bias + high[: len(chosen)] + lost


class _Window(NamedTuple):
    """Where in a layer's plane lies what values of a later one depend on: (K,) first rows and columns, and its size."""

    top: Tensor
    left: Tensor
    height: int
    width: int

    def below(self, layer: Layer) -> _Window:
        """The window of the layer's input, for that of its output; it may go beyond the border."""
        (down, across), (upper, side) = layer.stride, layer.padding
        rows, columns = layer.weight.shape[2:]
        height, width = (self.height - 1) * down + rows, (self.width - 1) * across + columns
        return _Window(self.top * down - upper, self.left * across - side, height, width)

    def of(self, plane: Tensor, outside: float) -> Tensor:
        """(K, C, height, width) of a plane (1, C, h, w), and a number beyond its border."""
        down = self.top[:, None] + torch.arange(self.height)
        across = self.left[:, None] + torch.arange(self.width)
        height, width = plane.shape[2:]
        inside = ((down >= 0) & (down < height))[:, :, None] & ((across >= 0) & (across < width))[:, None, :]
        found = plane[0][:, down.clamp(0, height - 1)[:, :, None], across.clamp(0, width - 1)[:, None, :]]
        return torch.where(inside, found, outside).transpose(0, 1)


class _Part(NamedTuple):
    """What some values of a convolution depend on, of each layer before it from the last to the first, and of the ball.

    Attributes:
        coefficients: (K, 2, C, rows, columns) of the functions, behind ReLU of the last of these layers; (2 K, 1, ...)
            once they are `apart`.
        layers: From the last to the first.
        bounds: Of each, in windows (K, C, height, width).
        lost: Of each.
        ball: Centre and radius.
    """

    coefficients: Tensor
    layers: list[Layer]
    bounds: Bounds
    lost: list[Tensor]
    ball: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, problem: Problem, number: int, channel: Tensor, window: _Window) -> _Part:
        """Of a value and of its negative, for each of some values."""
        hidden, bounds, lost = problem.chain.hidden, Bounds(), list[Tensor]()
        for before in range(number - 1, -1, -1):
            window = window.below(hidden[before + 1])
            low, high = (window.of(each, -1.0) for each in problem.bounds[before])  # beyond the border nothing passes
            bounds.append((low, high))
            lost.append(window.of(problem.lost[before], 0.0))
        window = window.below(hidden[0])
        ball = window.of(problem.ball[0], 0.0), window.of(problem.ball[1], 0.0)
        weight = hidden[number].weight[channel]
        return cls(torch.stack([weight, -weight], 1), hidden[number - 1 :: -1], bounds, lost, ball)

    def apart(self) -> _Part:
        """Each function with bounds of its own: (2 K, 1, ...)."""

        def twice(each: Tensor) -> Tensor:
            return each.repeat_interleave(2, 0)

        bounds = [(twice(low), twice(high)) for low, high in self.bounds]
        ball = twice(self.ball[0]), twice(self.ball[1])
        return _Part(self.coefficients.flatten(0, 1).unsqueeze(1), self.layers, bounds, [*map(twice, self.lost)], ball)

    def to(self, dtype: torch.dtype) -> _Part:
        """The same in another precision."""
        layers = [each._replace(weight=each.weight.to(dtype), bias=each.bias.to(dtype)) for each in self.layers]
        bounds = [(low.to(dtype), high.to(dtype)) for low, high in self.bounds]
        ball = self.ball[0].to(dtype), self.ball[1].to(dtype)
        return _Part(self.coefficients.to(dtype), layers, bounds, [each.to(dtype) for each in self.lost], ball)

    def largest(self, slopes: list[Tensor] | None = None) -> Tensor:
        """What `framegate.export.graph.reach.relaxation.largest` finds, on windows: (K, functions)."""
        coefficients = self.coefficients
        count, functions = coefficients.shape[:2]
        total = torch.zeros(count, functions, dtype=coefficients.dtype)
        for place, layer in enumerate(self.layers):
            own = None if slopes is None else slopes[place]
            coefficients, added = relaxed(coefficients, self.bounds[place], own)
            total = total + added.flatten(2).sum(2) + constant(layer, coefficients, self.lost[place])
            flat = F.conv_transpose2d(coefficients.flatten(0, 1), layer.weight, None, layer.stride)
            coefficients = flat.view(count, functions, *flat.shape[1:])
        centre, radius = (each.unsqueeze(1) for each in self.ball)
        return total + (coefficients * centre + coefficients.abs() * radius).flatten(2).sum(2)


def convolved_ends(problem: Problem, number: int, chosen: Tensor, steps: int = 0) -> tuple[Tensor, Tensor]:
    """Least and most of some values (K,) of a convolution, for one frame; see `tightened`."""
    height, width = problem.bounds[number][0].shape[2:]
    channel, place = chosen // (height * width), chosen % (height * width)
    part = _Part.of(problem, number, channel, _Window(place // width, place % width, 1, 1))
    high = part.largest()
    if steps:
        apart = part.apart()
        rough = apart.to(torch.float32)
        slopes = [first_slopes(*bounds) for bounds in rough.bounds]
        improve(lambda: rough.largest(slopes), [Free(slopes, _RATE, 0.0, 1.0)], steps)
        high = torch.fmin(high, apart.largest([each.double() for each in slopes]).view_as(high))
    lost, bias = problem.lost[number][0].flatten()[chosen], problem.chain.hidden[number].bias[channel]
    return bias - high[:, 1] - lost, bias + high[:, 0] + lost
