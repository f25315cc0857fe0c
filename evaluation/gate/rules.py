"""What the whole gate lets through: score, threshold and limits together, frame by frame.

Three rules stand beside each other: ``entropy`` alone and the ``gate`` with all its signals, both set to accept 95 % of
the clean calibration frames, and the gate as ``promised``, with the threshold that its calibration proved. All are
evaluated on the float32 network in PyTorch, which attacks can differentiate, with the bundle's calibration of that
precision. A false accept is a frame that is wrong and accepted; its rate is over the wrong frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from framegate.evaluation.frames.engine_network import ObservedNetwork
from framegate.evaluation.gate.names import RULES, WINDOWS
from framegate.evaluation.metrics.intervals import share
from framegate.evaluation.metrics.selective import GATE_COVERAGE, threshold_at
from framegate.evaluation.monitor.fit import head_score, layer_means, separation
from framegate.evaluation.scores.combined import Typicality
from framegate.evaluation.scores.input import CONTROLS
from framegate.export.calibration.decisions import (
    Flags,
    Floats,
    Outputs,
    accepted,
    accepts,
    predicted,
    values_of,
    within,
)
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.errors import CalibrationError
from framegate.runtime.monitor import ENTROPY, SHIFT, Monitor

BATCH = 32
_WINDOW_FALSE_ALARMS = 0.01
_WINDOW_DRAWS = 4_000
_KEYS = ("openvino/fp32", "onnxruntime/fp32")


@dataclass(frozen=True, eq=False)
class GateInputs:
    """What the gate reads of N frames.

    Attributes:
        outputs: Logits and signals.
        wrong: (N,) the prediction is not the label; True for every frame that shows none of the labels.
        controls: Statistic of the input that needs no network -> (N,).
    """

    outputs: Outputs
    wrong: Flags
    controls: Mapping[str, Floats]

    def __len__(self) -> int:
        return len(self.wrong)


def fp32_calibration(bundle: Bundle) -> Calibration:
    """The calibration of the float32 network on a CPU.

    Raises:
        CalibrationError: The bundle has none.
    """
    for key in _KEYS:
        if key in bundle.calibrations:
            return bundle.calibrations[key]
    raise CalibrationError(
        f"bundle {bundle.path}: the fp32 network is not calibrated; framegate calibrate {bundle.path} --data DIR"
    )


@torch.no_grad()
def observe(network: ObservedNetwork, monitor: Monitor | None, pixels: Tensor, labels: Tensor | None) -> GateInputs:
    """Push frames through the network.

    Args:
        network: Of the bundle, with its taps.
        monitor: Of the bundle; without one there are no signals.
        pixels: (N, ...) in [0, 1].
        labels: (N,), None for frames that show none of the labels.
    """
    logits: list[npt.NDArray[np.float32]] = []
    controls: dict[str, list[Floats]] = {name: [] for name in CONTROLS}
    for k in range(0, len(pixels), BATCH):
        logits.append(network(pixels[k : k + BATCH]).numpy())
        for name, control in CONTROLS.items():
            controls[name].append(np.asarray(control(pixels[k : k + BATCH]).double()))
    signals: dict[str, Floats] = {}
    if monitor is not None:
        means = layer_means(network, pixels)
        signals[SHIFT] = head_score(monitor, means)
        for tap in monitor.taps:
            signals[ENTROPY + tap.name] = _channel_entropy(means[tap.name])
    outputs = Outputs(np.concatenate(logits), signals)
    wrong = np.ones(len(pixels), bool) if labels is None else predicted(outputs) != labels.numpy()
    return GateInputs(outputs, wrong, {name: np.concatenate(parts) for name, parts in controls.items()})


def _channel_entropy(means: npt.NDArray[np.float32]) -> Floats:
    mass = np.abs(means).astype(np.float64)
    total = mass.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(mass > 0, np.log(mass), 0.0)
        return np.asarray(np.log(total) - (mass * logs).sum(axis=1) / total)


def rules(calibration: Calibration, clean: GateInputs) -> dict[str, Calibration]:
    """The three rules of this module, set on clean calibration frames."""
    values = values_of(clean.outputs, calibration.temperature)
    inside = within(values, calibration.limits)
    scores = np.where(inside, values[calibration.score], np.inf)
    return {
        "entropy": replace(
            calibration,
            score="entropy",
            threshold=threshold_at(values["entropy"], GATE_COVERAGE),
            limits=(),
            classes=(),
        ),
        "gate": replace(calibration, threshold=threshold_at(scores, GATE_COVERAGE), classes=()),
        "promised": calibration,
    }


def judge(seen: GateInputs, chosen: Mapping[str, Calibration]) -> dict[str, Any]:
    """Coverage, false accepts and what stopped the frames, by rule."""
    record: dict[str, Any] = {"n": len(seen), "wrong": int(seen.wrong.sum())}
    for name, rule in chosen.items():
        passed = accepted(seen.outputs, rule)
        record[name] = {
            "coverage": share(passed).to_json(),
            "false_accepts": int((passed & seen.wrong).sum()),
            "false_accept_rate": share(passed[seen.wrong]).to_json(),
            "selective_risk": share(seen.wrong[passed]).to_json(),
        }
    gate = chosen["gate"]
    values = values_of(seen.outputs, gate.temperature)
    stopped = {"score": ~accepts(values[gate.score], gate.threshold)}
    for limit in gate.limits:
        if limit.frames == 1:
            stopped[limit.signal] = stopped.get(limit.signal, np.zeros(len(seen), bool)) | ~within(values, (limit,))
    record["stopped_by"] = {name: float(flags[seen.wrong].mean()) if seen.wrong.any() else None
                            for name, flags in stopped.items()}  # fmt: skip
    return record


def detection(clean: GateInputs, attacked: GateInputs, calibration: GateInputs, temperature: float) -> dict[str, float]:
    """AUROC of every signal and every control, attacked against clean frames; two-sided where that is its form."""
    found = {}
    names = list(values_of(clean.outputs, temperature))
    sides = [({**values_of(seen.outputs, temperature), **seen.controls}) for seen in (calibration, clean, attacked)]
    for name in [*names, *clean.controls]:
        fitted, here, there = (side[name] for side in sides)
        if name == SHIFT:
            found[name] = separation(here, there)
            continue
        typical = Typicality.fit(name, fitted)
        found[f"two_sided({name})"] = separation(typical.atypicality(here), typical.atypicality(there))
        if name in clean.controls:
            found[name] = separation(here, there)
    return {name: round(value, 4) for name, value in found.items()}


def windows(clean: GateInputs, attacked: GateInputs, calibration: GateInputs, seed: int = 0) -> dict[str, Any]:
    """Share of windows of n attacked frames that the mean of a signal stops, one clean window in a hundred stopped.

    Frames are drawn independently: a stream whose frames resemble each other gains less.

    Returns:
        Signal -> n as text -> share and AUROC, for ``shift`` and, beside it, the best control without a network.
    """
    rng = np.random.default_rng(seed)
    result: dict[str, Any] = {}
    for name in (SHIFT, *CONTROLS):
        fitted, here, there = (
            {**seen.outputs.signals, **seen.controls}.get(name) for seen in (calibration, clean, attacked)
        )
        if fitted is None or here is None or there is None:
            continue
        rows = {}
        for n in WINDOWS:
            means = [np.mean(rng.choice(values, (_WINDOW_DRAWS, n)), axis=1) for values in (fitted, here, there)]
            limit = float(np.quantile(means[0], 1 - _WINDOW_FALSE_ALARMS))
            rows[str(n)] = {
                "detected": round(float((means[2] > limit).mean()), 4),
                "false_alarms": round(float((means[1] > limit).mean()), 4),
                "auroc": round(separation(means[1], means[2]), 4),
            }
        result[name] = rows
    return result


def pooled_record(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum the counts of several `judge` records, for one line over many corruptions or foreign sets."""
    record: dict[str, Any] = {"n": sum(part["n"] for part in parts), "wrong": sum(part["wrong"] for part in parts)}
    for rule in RULES:
        record[rule] = {"false_accepts": sum(part[rule]["false_accepts"] for part in parts)}
    return record
