"""Compares the decisions of two engines about the same images.

Compared is what the runtime decides, with its own functions: the scores of `framegate.runtime.scores` at each engine's
own temperature, judged by `framegate.runtime.policy.rules` with its own limits and threshold. What a stream's history
adds (windows, drift, debouncing) is left out: images are judged one by one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from framegate.export.calibration.decisions import Outputs
from framegate.export.calibration.temperature import Labels
from framegate.export.checks.parity import Loss, accuracy, loss
from framegate.export.progress import Progress
from framegate.runtime.bundle.calibration import SCORES, Calibration
from framegate.runtime.policy.rules import judge_limits, judge_score
from framegate.runtime.scores import FrameScores, frame_scores


@dataclass(frozen=True)
class Side:
    """One engine and what it computed.

    Attributes:
        key: ``backend/precision``.
        engine: Library and version.
        outputs: Of the N images.
        calibration: Its temperature, limits and threshold.
    """

    key: str
    engine: str
    outputs: Outputs
    calibration: Calibration


@dataclass(frozen=True)
class Decision:
    """What one engine decided about one image.

    Attributes:
        predicted: Number of the label, -1 if the output is not finite.
        scores: Its scores.
        reasons: Why it was rejected; empty if accepted.
    """

    predicted: int
    scores: FrameScores
    reasons: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """True if the runtime would accept."""
        return not self.reasons


@dataclass(frozen=True)
class Tally:
    """What one engine did over all images.

    Attributes:
        key: ``backend/precision``.
        engine: Library and version.
        calibrated_on: Library and version that computed the calibration.
        accuracy: Share of right predictions, in [0, 1]; rejections do not count here.
        accepted: Images accepted.
        false_accepts: Images accepted with a wrong label.
        not_finite: Images whose output was NaN or infinite.
    """

    key: str
    engine: str
    calibrated_on: str
    accuracy: float
    accepted: int
    false_accepts: int
    not_finite: int


@dataclass(frozen=True)
class WorstFrame:
    """One image on which the engines disagree.

    Attributes:
        index: Its place in the data, from 0.
        label: Number of the true label.
        first: Decision of the reference.
        second: Decision of the other engine.
    """

    index: int
    label: int
    first: Decision
    second: Decision


@dataclass(frozen=True)
class Comparison:
    """Two engines beside each other.

    Attributes:
        images: Number of images.
        first: The reference.
        second: The engine that is judged.
        same_label: Images with the same predicted label.
        same_verdict: Images with the same verdict.
        largest: Score -> largest absolute difference over the images that are finite in both; NaN if there are none.
        largest_logit: The same for single logits.
        worst: Images on which they disagree, the most severe first, then the largest differences of entropy.
        loss: What the second engine loses, by which an export is judged, too.
        failures: Why the comparison fails; empty if it passes.
    """

    images: int
    first: Tally
    second: Tally
    same_label: int
    same_verdict: int
    largest: dict[str, float]
    largest_logit: float
    worst: tuple[WorstFrame, ...]
    loss: Loss
    failures: tuple[str, ...]


def compare_sides(first: Side, second: Side, labels: Labels, worst: int, progress: Progress) -> Comparison:
    """Compare two engines image by image.

    Args:
        first: The reference.
        second: The engine that is judged.
        labels: (N,) true labels.
        worst: How many images to name.
        progress: Called during the work.
    """
    frames = []
    for k, label in enumerate(labels.tolist()):
        frames.append(WorstFrame(k, label, decide(first, k), decide(second, k)))
        if k % 500 == 0 or k + 1 == len(labels):
            progress("comparing decisions", k + 1, len(labels))
    tallies = [
        _tally(side, labels, [frame.first if side is first else frame.second for frame in frames])
        for side in (first, second)
    ]
    lost = loss(second.outputs, second.calibration, first.outputs, first.calibration, labels)
    same_label = sum(frame.first.predicted == frame.second.predicted for frame in frames)
    same_verdict = sum(frame.first.accepted == frame.second.accepted for frame in frames)
    both = np.isfinite(first.outputs.logits).all(1) & np.isfinite(second.outputs.logits).all(1)
    differences = np.abs(first.outputs.logits[both].astype(np.float64) - second.outputs.logits[both])
    return Comparison(
        images=len(frames),
        first=tallies[0],
        second=tallies[1],
        same_label=same_label,
        same_verdict=same_verdict,
        largest={score: _largest(frames, score) for score in SCORES},
        largest_logit=float(differences.max()) if differences.size else math.nan,
        worst=tuple(sorted(frames, key=_severity, reverse=True)[:worst]),
        loss=lost,
        failures=lost.failures(second.key, first.key),
    )


def decide(side: Side, index: int) -> Decision:
    """What the runtime decides about one image of a side."""
    scores = frame_scores(side.outputs.logits[index : index + 1], side.calibration.temperature)
    signals = {name: float(values[index]) for name, values in side.outputs.signals.items()}
    values = {**scores.values(), **signals}
    found = judge_score(values.get(side.calibration.score, math.nan), scores.finite, side.calibration, scores.argmax)
    shifted = judge_limits(values, [limit for limit in side.calibration.limits if limit.frames == 1])
    return Decision(scores.argmax, scores, tuple(reason.value for reason in {**found, **shifted}))


def _tally(side: Side, labels: Labels, decisions: list[Decision]) -> Tally:
    accepted = [d.accepted for d in decisions]
    return Tally(
        key=side.key,
        engine=side.engine,
        calibrated_on=side.calibration.engine,
        accuracy=accuracy(side.outputs.logits, labels),
        accepted=sum(accepted),
        false_accepts=sum(d.accepted and d.predicted != k for d, k in zip(decisions, labels.tolist(), strict=True)),
        not_finite=sum(not d.scores.finite for d in decisions),
    )


def _largest(frames: list[WorstFrame], score: str) -> float:
    pairs = [(getattr(f.first.scores, score), getattr(f.second.scores, score)) for f in frames]
    return max((abs(a - b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)), default=math.nan)


def _severity(frame: WorstFrame) -> tuple[bool, bool, bool, float]:
    """What sorts the worst frames: a new false accept is worst, then another verdict, another label, another score."""
    false_accept = frame.second.accepted and frame.second.predicted != frame.label
    gap = abs(frame.first.scores.entropy - frame.second.scores.entropy)
    other_verdict = frame.first.accepted != frame.second.accepted
    other_label = frame.first.predicted != frame.second.predicted
    new = other_verdict or other_label
    return false_accept and new, other_verdict, other_label, gap if math.isfinite(gap) else math.inf


def to_json(comparison: Comparison, labels: tuple[str, ...], names: tuple[str, ...]) -> dict[str, Any]:
    """A record of plain JSON values; what is not a finite number becomes null.

    Args:
        comparison: The result.
        labels: The network's labels.
        names: One per image, empty where it has none.
    """
    return {
        "passed": not comparison.failures,
        "failures": list(comparison.failures),
        "images": comparison.images,
        "engines": [asdict(comparison.first), asdict(comparison.second)],
        "same_label": comparison.same_label,
        "same_verdict": comparison.same_verdict,
        "loss": asdict(comparison.loss),
        "largest_difference": {name: _number(v) for name, v in comparison.largest.items()}
        | {"logit": _number(comparison.largest_logit)},
        "worst": [
            {
                "index": frame.index,
                "name": names[frame.index] or None,
                "label": labels[frame.label],
                "decisions": [
                    {
                        "predicted": labels[d.predicted] if d.predicted >= 0 else None,
                        **{score: _number(getattr(d.scores, score)) for score in SCORES},
                        "verdict": "ACCEPT" if d.accepted else "REJECT",
                        "reasons": list(d.reasons),
                    }
                    for d in (frame.first, frame.second)
                ],
            }
            for frame in comparison.worst
        ],
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
