"""Monitors that an adaptive attack can aim at: differentiable scores with the acceptance region they were given.

The region of a two-sided score is an interval around the calibration frames, so the distance from its middle, divided
by half its width, decides the same and has a gradient everywhere. Thresholds accept 95 % of the clean calibration
frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from framegate.evaluation.frames.network import Network
from framegate.evaluation.frames.observations import Observations
from framegate.evaluation.scores.activation import FREE_OF_BINS, ON_MAPS
from framegate.evaluation.scores.input import CONTROLS
from framegate.runtime.errors import UsageError

COVERAGE = 0.95
_STATISTICS = {**FREE_OF_BINS, **ON_MAPS}


@dataclass(frozen=True)
class Monitor:
    """One acceptance rule.

    Attributes:
        name: For reports.
        observe: Pixels -> logits (N, C) and score (N,), both differentiable.
        threshold: Accept iff isfinite(score) and score <= threshold.
    """

    name: str
    observe: Callable[[Tensor], tuple[Tensor, Tensor]]
    threshold: float

    @torch.no_grad()
    def scores(self, pixels: Tensor, batch: int = 64) -> np.ndarray:
        """(N,) scores of frames."""
        parts = [self.observe(pixels[k : k + batch])[1] for k in range(0, len(pixels), batch)]
        return np.asarray(torch.cat(parts).double())


def softmax_entropy(logits: Tensor, temperature: float) -> Tensor:
    """(N,) entropy of the softmax in nats."""
    log_p = (logits / temperature).log_softmax(1)
    entropy: Tensor = -(log_p.exp() * log_p).sum(1)
    return entropy


def _check(network: Network, name: str) -> None:
    layer, _, statistic = name.rpartition(":")
    if name != "entropy" and name not in CONTROLS and not (layer in network.taps and statistic in _STATISTICS):
        raise UsageError(f"monitor: {name!r} given; expected entropy, an input control or LAYER:STATISTIC of a tap")


def _observed(
    network: Network, names: Sequence[str], temperature: float, pixels: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the value of every signal: ``entropy``, ``LAYER:STATISTIC`` or an input control."""
    logits, _, activations = network.observe(pixels)
    values = []
    for name in names:
        layer, _, statistic = name.rpartition(":")
        if name == "entropy":
            values.append(softmax_entropy(logits, temperature))
        elif name in CONTROLS:
            values.append(CONTROLS[name](pixels))
        else:
            values.append(_STATISTICS[statistic](activations[layer]))
    return logits, values


def _recorded(calibration: Observations, name: str, temperature: float) -> np.ndarray:
    if name == "entropy":
        return np.asarray(softmax_entropy(torch.from_numpy(np.array(calibration.logits)), temperature).double())
    return np.asarray({**calibration.taps, **calibration.controls}[name])


def one_sided(network: Network, calibration: Observations, name: str, temperature: float) -> Monitor:
    """Accept unless the signal is among the highest 5 % of the calibration frames."""
    _check(network, name)
    values = _recorded(calibration, name, temperature)

    def observe(pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits, found = _observed(network, [name], temperature, pixels)
        return logits, found[0]

    return Monitor(name, observe, float(np.nanquantile(values, COVERAGE)))


def two_sided(network: Network, calibration: Observations, names: Sequence[str], temperature: float) -> Monitor:
    """Accept only if every signal lies in the middle of the calibration frames' values, 95 % of which pass in all.

    Args:
        network: Differentiable.
        calibration: Clean frames.
        names: Signals watched together.
        temperature: Of the softmax entropy.
    """
    for name in names:
        _check(network, name)
    values = np.stack([_recorded(calibration, name, temperature) for name in names])
    middle, half = _intervals(values)

    def observe(pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits, found = _observed(network, names, temperature, pixels)
        distances = [(value.double() - middle[k]).abs() / half[k] for k, value in enumerate(found)]
        return logits, torch.stack(distances).amax(0)

    label = " and ".join(f"{name} (two-sided)" for name in names)
    return Monitor(label, observe, 1.0)


def _intervals(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle and half width of the central intervals, equal tails in every signal, that pass 95 % of the frames."""
    low, high = 0.0, (1 - COVERAGE) / 2  # the share cut off each end
    for _ in range(40):
        tail = (low + high) / 2
        lower, upper = np.nanquantile(values, [tail, 1 - tail], axis=1)
        inside = ((values >= lower[:, None]) & (values <= upper[:, None])).all(0).mean()
        low, high = (tail, high) if inside >= COVERAGE else (low, tail)
    lower, upper = np.nanquantile(values, [low, 1 - low], axis=1)
    return (lower + upper) / 2, np.maximum((upper - lower) / 2, 1e-9)
