"""What the bounds of an L-infinity certificate can be made to say of a label by any change within their budget.

A label is certified by a lower bound of its margin over a ball around the frame that is seen. On an attacked frame this
bound is at most the margin on the clean frame, but mostly well below it: the ball of the attacked frame is large, too,
and its box is wider than what the network makes of it. How high the bound can come is itself bounded here, which counts
fewer clean frames against a threshold. The theorem is in docs/certificates.md ("What the bounds can reach").

The interval bounds are a network of their own: its hidden values are the ends of the boxes, each of its layers is a
linear map and ReLU. Its largest value over a ball is bounded by linear relaxation: ReLU is replaced by a line above it
or below it, as the sign of what follows asks, and what is left is linear in the frame (CROWN, Zhang et al. 2018,
arXiv:1811.00866). The slopes of the lines below are free, and improved by gradient (Xu et al. 2021, arXiv:2011.13824).
Every choice of them is a bound, so nothing depends on how well that succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framegate.export.graph.plain_chain import plain_chain
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

_RIVALS = 3
"""Labels that are compared with: the bound of a margin is that of the least of the differences, so any few will do."""
_STEPS = 12
_RATE = 0.1
_BATCH = 20
_ROUNDING = 1e-6
"""Of inputs, which are float32: the ball of frames is larger by so much of the largest input, and at least by this."""
_SLACK = 1e-6
"""Added at the end, relative and absolute: far more than float64 loses."""


class Reach:
    """Upper bounds of what a certificate can be made to compute for the label of a clean frame, within its budget.

    Args:
        path: The plain network, with bounds or without.
        spec: How images become its input.
        levels: Budget of the certificate in whole levels of 255, at the network's input.

    Raises:
        BundleError: The file holds no plain chain of layers.
    """

    def __init__(self, path: Path, spec: PreprocessSpec, levels: int) -> None:
        layers, last = plain_chain(path)
        self._chain = _Chain.of(layers.double(), last.double())
        self._prepare = Preprocessor(spec)
        self._radius = torch.tensor([levels / each for each in spec.std], dtype=torch.float64).view(1, -1, 1, 1)

    def margins(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """(N,) over all frames in the ball around each of (N, h, w, 3) uint8 BGR clean ones, for its largest label.

        Not a number where the network's own output is none.
        """
        found = np.empty(len(images))
        for first in range(0, len(images), _BATCH):
            rows = slice(first, min(first + _BATCH, len(images)))
            # Copies: the preprocessor has one buffer.
            inputs = torch.from_numpy(np.concatenate([self._prepare(image).copy() for image in images[rows]])).double()
            found[rows] = _reached(self._chain, inputs, self._radius).numpy()
        return found


_Slopes = list[tuple[Tensor, Tensor]]
"""Of the lines below ReLU, for the upper and the lower ends of each hidden layer."""


class _Layer(NamedTuple):
    """A linear map of the plain network: forwards, and its transpose for coefficients."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]

    def apply(self, values: Tensor, weight: Tensor) -> Tensor:
        """The map with another weight of the same shape, without its bias."""
        if weight.dim() == 2:
            return values.flatten(1) @ weight.T
        return F.conv2d(values, weight, None, self.stride, self.padding)

    def transposed(self, coefficients: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """Coefficients (N, ...) of the outputs -> (N, *shape) of the inputs."""
        if weight.dim() == 2:
            return (coefficients.flatten(1) @ weight).view(-1, *shape)
        sizes = zip(shape[1:], coefficients.shape[2:], self.stride, self.padding, weight.shape[2:], strict=True)
        left = [size - ((out - 1) * stride - 2 * pad + kernel) for size, out, stride, pad, kernel in sizes]
        return F.conv_transpose2d(coefficients, weight, None, self.stride, self.padding, left)

    def shift(self, dims: int) -> Tensor:
        """The bias, for outputs with so many dimensions."""
        return self.bias.view(1, -1, *[1] * (dims - 2))


@dataclass(frozen=True)
class _Chain:
    """The plain network: hidden layers with ReLU behind each, and the last one."""

    hidden: list[_Layer]
    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layers: nn.Sequential, last: nn.Linear) -> _Chain:
        hidden = []
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                stride, padding = (layer.stride[0], layer.stride[1]), (int(layer.padding[0]), int(layer.padding[1]))
                assert layer.bias is not None
                hidden.append(_Layer(layer.weight, layer.bias, stride, padding))
            elif isinstance(layer, nn.Linear):
                hidden.append(_Layer(layer.weight, layer.bias, (1, 1), (0, 0)))
        return cls(hidden, last.weight, last.bias)

    def to(self, dtype: torch.dtype) -> _Chain:
        """The same in another precision."""
        hidden = [each._replace(weight=each.weight.to(dtype), bias=each.bias.to(dtype)) for each in self.hidden]
        return _Chain(hidden, self.weight.to(dtype), self.bias.to(dtype))

    def logits(self, values: Tensor) -> Tensor:
        for layer in self.hidden:
            out = layer.apply(values, layer.weight)
            values = F.relu(out + layer.shift(out.dim()))
        return values.flatten(1) @ self.weight.T + self.bias


def _around(inputs: Tensor, radius: Tensor) -> Tensor:
    """(1, ...) radius of the ball of frames: what is attacked may lie a rounding further away."""
    return (radius + _ROUNDING * (1 + inputs.abs().max())).expand_as(inputs[:1])


class _Ends(NamedTuple):
    """Bounds, over the ball of frames, of the upper and of the lower end of each box, both before ReLU."""

    high: tuple[Tensor, Tensor]
    low: tuple[Tensor, Tensor]


def _ends(chain: _Chain, inputs: Tensor, radius: Tensor) -> list[_Ends]:
    """By interval arithmetic about the ends themselves, layer after layer.

    The upper end of a box is W+ high + W- low + b of the ends before it, the lower one W- high + W+ low + b; W+ and W-
    are the positive and the negative part of W. Each is monotone in each of them.
    """
    first = chain.hidden[0]
    middle = first.apply(inputs, first.weight)
    middle = middle + first.shift(middle.dim())
    moved = first.apply(_around(inputs, radius), first.weight.abs())
    own = first.apply(radius.expand_as(inputs[:1]), first.weight.abs())
    found = [_Ends((middle - moved + own, middle + moved + own), (middle - moved - own, middle + moved - own))]
    for layer in chain.hidden[1:]:
        (high_least, high_most), (low_least, low_most) = (tuple(map(F.relu, end)) for end in found[-1])
        plus, minus = layer.weight.clamp(min=0), layer.weight.clamp(max=0)

        def carried(high: Tensor, low: Tensor, of_high: Tensor, of_low: Tensor, layer: _Layer = layer) -> Tensor:
            out = layer.apply(high, of_high) + layer.apply(low, of_low)
            return out + layer.shift(out.dim())

        found.append(
            _Ends(
                (carried(high_least, low_most, plus, minus), carried(high_most, low_least, plus, minus)),
                (carried(high_most, low_least, minus, plus), carried(high_least, low_most, minus, plus)),
            )
        )
    return found


def _slope(least: Tensor, most: Tensor) -> Tensor:
    """Of the line below ReLU that loses less, to begin with."""
    return (most > -least).to(most.dtype)


def _leaf(slope: Tensor, like: Tensor) -> Tensor:
    return slope.to(like.dtype).requires_grad_(True)


def _relaxed(coefficients: Tensor, bounds: tuple[Tensor, Tensor], slope: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients (N, K, ...) of ReLU's outputs -> those of its inputs, and (N, K) what is added: never smaller.

    Args:
        coefficients: Of the outputs.
        bounds: Least and most of the inputs, each (N, ...).
        slope: Of the line below ReLU where its input can have both signs, (N, ...) in [0, 1].
    """
    least, most = (each.unsqueeze(1) for each in bounds)
    both = (least < 0) & (most > 0)
    passes = (least >= 0).to(least.dtype)
    chord = torch.where(both, most / (most - least).clamp(min=1e-300), passes)
    below = torch.where(both, slope.unsqueeze(1), passes)
    up, down = coefficients.clamp(min=0), coefficients.clamp(max=0)
    added = (up * torch.where(both, -chord * least, torch.zeros_like(least))).flatten(2).sum(2)
    return up * chord + down * below, added


def _largest(
    chain: _Chain, ends: list[_Ends], slopes: _Slopes, of_high: Tensor, of_low: Tensor,
    inputs: Tensor, radius: Tensor,
) -> Tensor:  # fmt: skip
    """(N, K) upper bounds, over the ball of frames, of K linear functions of the last hidden boxes' ends."""
    count, functions = of_high.shape[:2]
    total = torch.zeros(count, functions, dtype=inputs.dtype)
    for number in range(len(chain.hidden) - 1, -1, -1):
        layer, bounds, (high_slope, low_slope) = chain.hidden[number], ends[number], slopes[number]
        shape = bounds.high[0].shape[1:]
        of_high, added = _relaxed(of_high.reshape(count, functions, *shape), bounds.high, high_slope)
        total = total + added
        of_low, added = _relaxed(of_low.reshape(count, functions, *shape), bounds.low, low_slope)
        total = total + added
        flat_high, flat_low = of_high.flatten(0, 1), of_low.flatten(0, 1)
        shift = layer.shift(flat_high.dim())
        total = total + ((flat_high + flat_low) * shift).flatten(1).sum(1).view(count, functions)
        if number == 0:  # here the ends are functions of the frame: W x + b, and the radius of the box up or down
            own = layer.apply(radius.expand_as(inputs[:1]), layer.weight.abs())
            total = total + ((flat_high - flat_low) * own).flatten(1).sum(1).view(count, functions)
            of_input = layer.transposed(flat_high + flat_low, layer.weight, inputs.shape[1:])
            of_input = of_input.view(count, functions, *inputs.shape[1:])
            total = total + (of_input * inputs.unsqueeze(1)).flatten(2).sum(2)
            return total + (of_input.abs() * _around(inputs, radius).unsqueeze(1)).flatten(2).sum(2)
        before = ends[number - 1].high[0].shape[1:]
        plus, minus = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
        of_high = layer.transposed(flat_high, plus, before) + layer.transposed(flat_low, minus, before)
        of_low = layer.transposed(flat_high, minus, before) + layer.transposed(flat_low, plus, before)
        of_high, of_low = (each.view(count, functions, *before) for each in (of_high, of_low))
    raise AssertionError("a chain has at least one hidden layer")


def _reached(chain: _Chain, inputs: Tensor, radius: Tensor) -> Tensor:
    """(N,) the least of the bounds of the differences to the largest other labels."""
    with torch.no_grad():
        logits = chain.logits(inputs)
        label = logits.argmax(1)
        rivals = logits.scatter(1, label[:, None], -torch.inf).topk(min(_RIVALS, logits.shape[1] - 1), 1).indices
        ends = _ends(chain, inputs, radius)
        slopes = [(_slope(*each.high), _slope(*each.low)) for each in ends]
        bounds = _margins(chain, ends, slopes, label, rivals, inputs, radius)
    # float32 is enough to look for slopes, in half the time.
    improved = _improved(chain.to(torch.float32), slopes, label, rivals, inputs.float(), radius.float())
    with torch.no_grad():
        bounds = torch.minimum(bounds, _margins(chain, ends, improved, label, rivals, inputs, radius))
    least = bounds.amin(1)
    return least + _SLACK * (1 + least.abs())


def _margins(
    chain: _Chain,
    ends: list[_Ends],
    slopes: _Slopes,
    label: Tensor,
    rivals: Tensor,
    inputs: Tensor,
    radius: Tensor,
) -> Tensor:
    """(N, rivals) upper bounds of the lower end of each difference between the label's logit and a rival's."""
    difference = chain.weight[label].unsqueeze(1) - chain.weight[rivals]
    # The lower end of the difference takes the lower end of what speaks for the label, the upper of what does not.
    of_high, of_low = difference.clamp(max=0), difference.clamp(min=0)
    offset = chain.bias[label].unsqueeze(1) - chain.bias[rivals]
    return _largest(chain, ends, slopes, of_high, of_low, inputs, radius) + offset


def _improved(chain: _Chain, slopes: _Slopes, label: Tensor, rivals: Tensor, inputs: Tensor, radius: Tensor) -> _Slopes:
    """Slopes with lower bounds, by a few steps along the gradient; in the precision of those that are given."""
    with torch.no_grad():
        ends = _ends(chain, inputs, radius)
    moving = [(_leaf(high, inputs), _leaf(low, inputs)) for high, low in slopes]
    optimiser = torch.optim.Adam([slope for pair in moving for slope in pair], lr=_RATE)
    for _ in range(_STEPS):
        optimiser.zero_grad()
        _margins(chain, ends, moving, label, rivals, inputs, radius).sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            for pair in moving:
                for slope in pair:
                    slope.clamp_(0, 1)
    return [(high.detach().double(), low.detach().double()) for high, low in moving]
