"""How sure a plain network can be made of a wrong label by any change within the budget of an L-infinity certificate.

What the vehicle computes is the network's margin on the frame that it sees. What that margin can be on an attacked form
of a clean frame is bounded here, when the certificate is proved, with as much time as it takes; the vehicle has none to
spare. The theorem is in docs/certificates.md ("The L-infinity certificate").

The largest margin over a ball is bounded by linear relaxation: ReLU is replaced by a line above it or below it, as the
sign of what follows asks, and what is left is linear in the frame (CROWN, Zhang et al. 2018, arXiv:1811.00866). The
slopes of the lines below are free, and improved by gradient (Xu et al. 2021, arXiv:2011.13824). Every choice of them is
a bound, so nothing depends on how well that succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framegate.export.calibration.temperature import Labels
from framegate.export.graph.plain_chain import plain_chain
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

_RIVALS = 3
"""Labels that are compared with: the margin is the least of the differences, so the bound of any of them will do."""
_STEPS = 40
_RATE = 0.1
_BATCH = 20
_AT_ONCE = 256
"""Hidden values whose bounds are found together."""
_ROUNDING = 1e-6
"""Of inputs, which are float32: the ball of frames is larger by so much of the largest input, and at least by this."""
_SLACK = 1e-6
"""Added at the end, relative and absolute: far more than float64 loses."""
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


class Reach:
    """Upper bounds of the margin that a wrong label can be given within the budget, by what any engine computes.

    Args:
        path: The plain network.
        spec: How images become its input.
        levels: Budget of the certificate in whole levels of 255, at the network's input.

    Raises:
        UsageError: The file holds no plain chain of layers.
    """

    def __init__(self, path: Path, spec: PreprocessSpec, levels: int) -> None:
        layers, last = plain_chain(path)
        self._chain = _Chain.of(layers.double(), last.double())
        self._prepare = Preprocessor(spec)
        self._levels = levels
        mean, std = (torch.tensor(each, dtype=torch.float64).view(1, -1, 1, 1) for each in (spec.mean, spec.std))
        self._step, self._range = 1 / std, ((0 - mean) / std, (255 - mean) / std)

    def quick(self, images: npt.NDArray[np.uint8], labels: Labels) -> npt.NDArray[np.float64]:
        """Of each frame a bound of the largest margin of a wrong label, over all frames in the ball around it.

        Args:
            images: (N, h, w, 3) uint8 BGR, clean.
            labels: (N,) the true ones.

        Returns:
            (N,); not a number where the network's own output is none.
        """
        return self._batched(images, labels, _quick)

    def margins(self, images: npt.NDArray[np.uint8], labels: Labels) -> npt.NDArray[np.float64]:
        """As `quick`, and lower, for a hundred times the work."""
        return self._batched(images, labels, _improved)

    def _batched(
        self, images: npt.NDArray[np.uint8], labels: Labels, bound: Callable[[_Problem], Tensor]
    ) -> npt.NDArray[np.float64]:
        found = np.empty(len(images))
        for first in range(0, len(images), _BATCH):
            rows = slice(first, min(first + _BATCH, len(images)))
            # Copies: the preprocessor has one buffer.
            inputs = torch.from_numpy(np.concatenate([self._prepare(image).copy() for image in images[rows]])).double()
            with torch.no_grad():
                true = torch.from_numpy(np.asarray(labels[rows], np.int64))
                problem = _Problem.of(self._chain, inputs, true, self._ball(inputs))
                least = torch.where(problem.usable(), bound(problem), torch.nan)
                found[rows] = (least + _SLACK * (1 + least.abs())).numpy()
        return found

    def _ball(self, inputs: Tensor) -> _Ball:
        """All that a camera can deliver instead, and what its rounding to float32 adds."""
        radius = self._levels * self._step
        low, high = torch.maximum(inputs - radius, self._range[0]), torch.minimum(inputs + radius, self._range[1])
        return (low + high) / 2, (high - low) / 2 + _ROUNDING * (1 + inputs.abs().max())


_Ball = tuple[Tensor, Tensor]
"""Centre and radius of the inputs."""
_Bounds = list[tuple[Tensor, Tensor]]
"""Least and most, over the ball, of the values of hidden layers before ReLU: each (N, ...)."""


class _Layer(NamedTuple):
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
class _Chain:
    """The network: hidden layers with ReLU behind each, and the last one."""

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


@dataclass(frozen=True)
class _Problem:
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

    chain: _Chain
    logits: Tensor
    labels: Tensor
    ball: _Ball
    bounds: _Bounds
    lost: list[Tensor]

    @classmethod
    def of(cls, chain: _Chain, inputs: Tensor, labels: Tensor, ball: _Ball) -> _Problem:
        """By interval arithmetic, layer after layer."""
        (centre, radius), bounds, lost = ball, _Bounds(), []
        last = _Layer(chain.weight, chain.bias, (1, 1), (0, 0))
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

    def rows(self, chosen: Tensor) -> _Problem:
        """Some of the frames, each as often as it is named."""
        ball, bounds = (self.ball[0][chosen], self.ball[1][chosen]), [(a[chosen], b[chosen]) for a, b in self.bounds]
        lost = [each[chosen] for each in self.lost]
        return _Problem(self.chain, self.logits[chosen], self.labels[chosen], ball, bounds, lost)

    def to(self, dtype: torch.dtype) -> _Problem:
        """The same in another precision."""
        ball, bounds = (
            (self.ball[0].to(dtype), self.ball[1].to(dtype)),
            [(a.to(dtype), b.to(dtype)) for a, b in self.bounds],
        )
        lost = [each.to(dtype) for each in self.lost]
        return _Problem(self.chain.to(dtype), self.logits.to(dtype), self.labels, ball, bounds, lost)


def _relaxed(coefficients: Tensor, bounds: tuple[Tensor, Tensor], slope: Tensor | None) -> tuple[Tensor, Tensor]:
    """Coefficients (N, K, ...) of ReLU's outputs -> those of its inputs, and (N, K) what is added: never smaller.

    Args:
        coefficients: Of the outputs.
        bounds: Least and most of the inputs, each (N, ...).
        slope: Of the line below ReLU where its input can have both signs, (N, ...) in [0, 1]; None: what loses less.
    """
    least, most = (each.unsqueeze(1) for each in bounds)
    both = (least < 0) & (most > 0)
    passes = (least >= 0).to(least.dtype)
    chord = torch.where(both, most / (most - least).clamp(min=1e-300), passes)
    line = _slope(*bounds) if slope is None else slope
    below = torch.where(both, line.unsqueeze(1), passes)
    up, down = coefficients.clamp(min=0), coefficients.clamp(max=0)
    added = (up * torch.where(both, -chord * least, torch.zeros_like(least))).flatten(2).sum(2)
    return up * chord + down * below, added


def _slope(least: Tensor, most: Tensor) -> Tensor:
    """Of the line below ReLU that loses less, to begin with."""
    return (most > -least).to(most.dtype)


def _largest(problem: _Problem, coefficients: Tensor, slopes: Sequence[Tensor] | None = None, depth: int = 0) -> Tensor:
    """(N, K) upper bounds, over the ball, of K linear functions of what an engine computes of a hidden layer.

    Args:
        problem: The frames.
        coefficients: (N, K, ...) of the functions, behind ReLU.
        slopes: For each hidden layer; see `_relaxed`.
        depth: Number of the hidden layer, from 1; 0: the last one.
    """
    chain, (count, functions) = problem.chain, coefficients.shape[:2]
    total = torch.zeros(count, functions, dtype=coefficients.dtype)
    for number in range((depth or len(chain.hidden)) - 1, -1, -1):
        layer, bounds = chain.hidden[number], problem.bounds[number]
        coefficients = coefficients.reshape(count, functions, *bounds[0].shape[1:])
        coefficients, added = _relaxed(coefficients, bounds, None if slopes is None else slopes[number])
        lost = (coefficients.abs() * problem.lost[number].unsqueeze(1)).flatten(2).sum(2)
        flat = coefficients.flatten(0, 1)
        shifted = (flat * layer.shift(flat.dim())).flatten(1).sum(1).view(count, functions)
        total = total + added + lost + shifted
        before = problem.bounds[number - 1][0].shape[1:] if number else problem.ball[0].shape[1:]
        coefficients = layer.transposed(flat, before).view(count, functions, *before)
    centre, radius = (each.unsqueeze(1) for each in problem.ball)
    return total + (coefficients * centre + coefficients.abs() * radius).flatten(2).sum(2)


def _differences(problem: _Problem, label: Tensor, rivals: Tensor, slopes: Sequence[Tensor] | None = None) -> Tensor:
    """(N, K) bounds of the differences between the logits of K labels and those of K others.

    Args:
        problem: The frames.
        label: (N, K) or (N, 1).
        rivals: (N, K) or (N, 1).
        slopes: See `_largest`.
    """
    chain, lost = problem.chain, problem.lost[-1]
    weights, offsets = chain.weight[label] - chain.weight[rivals], chain.bias[label] - chain.bias[rivals]
    return _largest(problem, weights, slopes) + offsets + lost.gather(1, label) + lost.gather(1, rivals)


def _of_all_labels(problem: _Problem) -> Tensor:
    """(N, classes) bounds of the difference of each logit to that of the true label; -inf for that itself."""
    true, every = problem.labels[:, None], torch.arange(problem.logits.shape[1]).expand_as(problem.logits)
    return _differences(problem, every, true.expand_as(every)).scatter(1, true, -torch.inf)


def _quick(problem: _Problem) -> Tensor:
    return _of_all_labels(problem).amax(1)


def _tightened(problem: _Problem) -> _Problem:
    """The same frames, with bounds of the hidden values by linear relaxation, too, where their signs are open."""
    bounds = list(problem.bounds)
    for number in range(1, len(bounds)):  # those of the first layer are exact
        closer = replace(problem, bounds=bounds)
        least, most = (each.clone() for each in bounds[number])
        for row in range(len(least)):
            own_least, own_most = least[row].flatten(), most[row].flatten()
            open_ones = torch.nonzero((own_least < 0) & (own_most > 0))[:, 0]
            for part in torch.split(open_ones, _AT_ONCE):
                ends = _linear_ends if problem.chain.hidden[number].weight.dim() == 2 else _convolved_ends
                low, high = ends(closer.rows(torch.tensor([row])), number, part)
                own_least[part], own_most[part] = own_least[part].maximum(low), own_most[part].minimum(high)
            least[row], most[row] = own_least.view_as(least[row]), own_most.view_as(most[row])
        bounds[number] = least, most
    return replace(problem, bounds=bounds)


def _linear_ends(problem: _Problem, number: int, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Least and most of some values (K,) of a hidden linear layer, for one frame."""
    layer, lost = problem.chain.hidden[number], problem.lost[number][0, chosen]
    weight, bias = layer.weight[chosen].unsqueeze(0), layer.bias[chosen]
    high = _largest(problem, torch.cat([weight, -weight], 1), depth=number)[0]
    return bias - high[len(chosen) :] - lost, bias + high[: len(chosen)] + lost


class _Window(NamedTuple):
    """Where in a layer's plane lies what values of a later one depend on: (K,) first rows and columns, and its size."""

    top: Tensor
    left: Tensor
    height: int
    width: int

    def below(self, layer: _Layer) -> _Window:
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


def _convolved_ends(problem: _Problem, number: int, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Least and most of some values (K,) of a convolution, for one frame: what `_largest` does, on small windows."""
    hidden, (height, width) = problem.chain.hidden, problem.bounds[number][0].shape[2:]
    channel, place = chosen // (height * width), chosen % (height * width)
    window = _Window(place // width, place % width, 1, 1)
    weight = hidden[number].weight[channel]
    coefficients, total = torch.stack([weight, -weight], 1), torch.zeros(len(chosen), 2, dtype=weight.dtype)
    for layer_number in range(number - 1, -1, -1):
        layer, window = hidden[layer_number], window.below(hidden[layer_number + 1])
        low, high = (window.of(each, -1.0) for each in problem.bounds[layer_number])  # beyond the border nothing passes
        coefficients, added = _relaxed(coefficients, (low, high), None)
        lost = (coefficients.abs() * window.of(problem.lost[layer_number], 0.0).unsqueeze(1)).flatten(2).sum(2)
        flat = coefficients.flatten(0, 1)
        total = total + added + lost + (flat * layer.shift(4)).flatten(1).sum(1).view(-1, 2)
        flat = F.conv_transpose2d(flat, layer.weight, None, layer.stride)
        coefficients = flat.view(-1, 2, *flat.shape[1:])
    window = window.below(hidden[0])
    centre, radius = (window.of(each, 0.0).unsqueeze(1) for each in problem.ball)
    total = total + (coefficients * centre + coefficients.abs() * radius).flatten(2).sum(2)
    lost, bias = problem.lost[number][0].flatten()[chosen], hidden[number].bias[channel]
    return bias - total[:, 1] - lost, bias + total[:, 0] + lost


def _improved(problem: _Problem) -> Tensor:
    """(N,) the largest bound of a frame's labels, each improved that could be the largest."""
    problem = _tightened(problem)
    bounds = _of_all_labels(problem)
    improved = torch.zeros_like(bounds, dtype=torch.bool)
    while True:
        largest, label = bounds.max(1, keepdim=True)
        rows = torch.nonzero(~improved.gather(1, label) & torch.isfinite(largest))[:, 0]
        if not len(rows):
            return largest[:, 0]
        found = _best_slopes(problem.rows(rows), label[rows])
        bounds[rows, label[rows, 0]] = torch.minimum(largest[rows, 0], found)
        improved[rows, label[rows, 0]] = True


def _best_slopes(problem: _Problem, label: Tensor) -> Tensor:
    """(N,) bounds of the margin of one wrong label of each frame, (N, 1), with slopes that are improved for it."""
    true = problem.labels[:, None]
    others = problem.logits.scatter(1, label, -torch.inf).scatter(1, true, torch.inf)  # the true label comes first
    rivals = others.topk(min(_RIVALS, others.shape[1] - 1), 1).indices
    label = label.expand_as(rivals)
    rough = problem.to(torch.float32)  # enough to look for slopes, in half the time
    with torch.enable_grad():
        slopes = [_slope(*bounds).requires_grad_(True) for bounds in rough.bounds]
        optimiser = torch.optim.Adam(slopes, lr=_RATE)
        for _ in range(_STEPS):
            optimiser.zero_grad()
            _differences(rough, label, rivals, slopes).sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            with torch.no_grad():
                for slope in slopes:
                    slope.clamp_(0, 1)
    return _differences(problem, label, rivals, [each.detach().double() for each in slopes]).amin(1)
