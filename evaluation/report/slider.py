"""What a threshold costs, for the slider of the page: at each coverage the frames, the errors and their interval."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from framegate.evaluation.metrics.design_effect import KEY, independent, of_count
from framegate.evaluation.metrics.selective import GATE_COVERAGE
from framegate.evaluation.report.findings import ENTROPY, is_control, notable, score_named
from framegate.evaluation.report.score_words import in_words
from framegate.evaluation.report.values import array, count, estimate, follow, mapping, number

_STEPS = 40
"""Stops of the slider, evenly spaced in coverage; the last is all frames."""
_MOST = 4
"""Scores that can be chosen."""


def slider(results: object) -> dict[str, Any] | None:
    """The data of the slider, None where no curve was measured.

    Returns:
        ``frames``, ``wrong`` (clean test frames, and errors among them), ``start`` (stop that it begins at), ``said``
        (what is said there, for readers without scripts), ``scores``: ``name``, and ``stops``: ``accepted``, ``wrong``
        (frames), ``low`` and ``high`` (95 % interval of the risk), ``threshold`` (in the score's own unit, or None).
    """
    accuracy = estimate(results, "clean", "accuracy")
    if accuracy is None or not accuracy.n:
        return None
    recorded = mapping(results, "risk_coverage")
    named = [name for name in [*notable(results, 99), *recorded] if name in recorded]
    names = [name for name in named if not is_control(score_named(results, name))]  # nobody gates on a control
    scores: list[dict[str, Any]] = []
    for name in list(dict.fromkeys(names))[:_MOST]:
        stops = _stops(recorded[name], accuracy.n, _effect(results))
        if stops:
            unit = " nats" if name.startswith(ENTROPY) else ""
            scores.append({"name": in_words(name), "unit": unit, "stops": stops})
    if not scores:
        return None
    frames = accuracy.n
    first = scores[0]["stops"]
    start = min(range(len(first)), key=lambda k: abs(first[k]["accepted"] / frames - GATE_COVERAGE))
    wrong = round((1 - accuracy.value) * frames)
    return {"frames": frames, "wrong": wrong, "start": start, "said": _said(first[start], frames), "scores": scores}


def as_json(data: Mapping[str, Any]) -> str:
    """For a script element of the page: no text of a record can end it."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")


def _effect(results: object) -> tuple[float, int]:
    effect, frames = number(results, KEY, "effect"), number(results, KEY, "frames")
    return (effect, int(frames)) if effect is not None and effect >= 1 and frames and frames >= 1 else (1.0, 1)


def _stops(curve: object, frames: int, effect: tuple[float, int]) -> list[dict[str, Any]]:
    """One stop for each step of coverage, from the nearest point of the curve."""
    points = _points(curve)
    chosen = {}
    for step in range(1, _STEPS + 1) if points else ():
        nearest = min(points, key=lambda point: abs(point[0] - step / _STEPS))
        chosen[nearest[0]] = nearest
    stops = []
    for coverage, risk, threshold in sorted(chosen.values(), key=lambda point: point[0]):
        accepted = round(coverage * frames)
        if accepted:
            low, high = of_count(risk, independent(accepted, *effect))
            errors = round(risk * accepted)
            stops.append(
                {
                    "accepted": accepted,
                    "wrong": errors,
                    "low": round(min(low, risk), 6),
                    "high": round(max(high, risk), 6),
                    "threshold": threshold,
                }
            )
    return stops


def _points(curve: object) -> list[tuple[float, float, float | None]]:
    """(coverage, risk, threshold) of a recorded curve; older records have no thresholds."""
    coverage, risk, recorded = array(curve, "coverage"), array(curve, "risk"), follow(curve, "threshold")
    if coverage is None or risk is None or coverage.ndim != 1 or coverage.shape != risk.shape:
        return []
    thresholds: list[float | None] = [None] * len(coverage)
    if isinstance(recorded, list) and len(recorded) == len(coverage):
        thresholds = [number({"threshold": value}, "threshold") for value in recorded]
    found = zip(coverage.tolist(), risk.tolist(), thresholds, strict=True)
    return [(c, r, threshold) for c, r, threshold in found if 0 < c <= 1 and 0 <= r <= 1]


def _said(stop: Mapping[str, Any], frames: int) -> str:
    accepted, wrong = stop["accepted"], stop["wrong"]
    return (
        f"{count(accepted)} of {count(frames)} frames are accepted ({accepted / frames * 100:.1f} %), {count(wrong)} "
        f"of them wrong: risk {wrong / accepted * 100:.2f} % [{stop['low'] * 100:.2f}, {stop['high'] * 100:.2f}]."
    )
