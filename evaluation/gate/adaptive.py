"""The gate as one differentiable number, for an attack that aims at classifier and gate together.

Accepted means that the score is at most its threshold and every signal inside its limits. The distances from all these
bounds, each in units of the signal's spread on clean frames, are positive where a bound is broken; their largest is the
number, and the gate accepts iff it is at most 0.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from framegate.evaluation.attacks.monitors import AcceptanceRule, softmax_entropy
from framegate.evaluation.frames.network import Network
from framegate.evaluation.gate.rules import GateInputs
from framegate.evaluation.monitor.fit import DifferentiableHead
from framegate.export.calibration.decisions import values_of
from framegate.export.graph.pooled import FEATURES
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.errors import UsageError
from framegate.runtime.monitor import SHIFT, Monitor


def gate_rule(
    name: str, network: Network, monitor: Monitor | None, rule: Calibration, clean: GateInputs
) -> AcceptanceRule:
    """The gate as a rule that the adaptive attack can aim at.

    Args:
        name: For reports.
        network: Differentiable, with its taps.
        monitor: The bundle's, or None.
        rule: Threshold and limits.
        clean: Clean calibration frames, which give the units.

    Raises:
        UsageError: A limit is on something that has no gradient here.
    """
    bounds: list[tuple[str, float | None, float | None]] = [(rule.score, None, rule.threshold)]
    bounds += [(limit.signal, limit.low, limit.high) for limit in rule.limits if limit.frames == 1]
    needs_monitor = any(signal == SHIFT for signal, _, _ in bounds)
    shift = None if monitor is None else _Shift(monitor)
    if needs_monitor and shift is None:
        raise UsageError(f"gate {name}: it limits {SHIFT}, but the bundle has no monitor")
    values = values_of(clean.outputs, rule.temperature)
    spread = {signal: float(np.nanstd(values[signal])) or 1.0 for signal, _, _ in bounds}

    def observe(pixels: Tensor) -> tuple[Tensor, Tensor]:
        logits, features, activations = network.observe(pixels)
        signals = {} if shift is None else {SHIFT: shift(features, activations)}
        distances = []
        for number, (signal, low, high) in enumerate(bounds):
            value = _value(signal, logits, signals, rule.temperature)
            if rule.classes and number == 0:  # the threshold, and not a limit of the same score
                value = value - _looser(rule, logits)
            if high is not None:
                distances.append((value - high) / spread[signal])
            if low is not None:
                distances.append((low - value) / spread[signal])
        return logits, torch.stack(distances).amax(0)

    return AcceptanceRule(name, observe, 0.0)


def _looser(rule: Calibration, logits: Tensor) -> Tensor:
    """(N,) by how much the threshold of the label that each frame is read as is above that of most labels."""
    known = [rule.threshold_of(k) - rule.threshold for k in range(logits.shape[1])]
    return torch.tensor(known, dtype=logits.dtype)[logits.argmax(1)]


class _Shift:
    """The monitor's signal from a network's activations."""

    def __init__(self, monitor: Monitor) -> None:
        self._taps, self._head = monitor.taps, DifferentiableHead(monitor)

    def __call__(self, features: Tensor, activations: dict[str, Tensor]) -> Tensor:
        parts = [features if tap.name == FEATURES else activations[tap.name].flatten(2).mean(2) for tap in self._taps]
        return self._head(torch.cat(parts, 1))


def _value(signal: str, logits: Tensor, signals: dict[str, Tensor], temperature: float) -> Tensor:
    if signal in signals:
        return signals[signal]
    if signal == "entropy":
        return softmax_entropy(logits, temperature)
    if signal == "energy":
        return -temperature * (logits / temperature).logsumexp(1)
    top = (logits / temperature).softmax(1).topk(2, 1).values
    if signal == "max_probability":
        return 1.0 - top[:, 0]
    if signal == "margin":
        return 1.0 - (top[:, 0] - top[:, 1])
    raise UsageError(f"gate: {signal} has no differentiable form here")
