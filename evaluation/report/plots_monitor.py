"""Figures of the activation monitor: layers, and batches against frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from framegate.evaluation.report.findings import headline_attack, name_of
from framegate.evaluation.report.style import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    Picture,
    error_bars,
    legend_below,
    looks,
    new_figure,
    percent_axis,
)
from framegate.evaluation.report.values import count, estimate, mapping, number, records, text

_QUANTILES = ("p5", "p25", "p50", "p75", "p95")
_LAYER_ATTACKS = 3
_MOST = 4  # figures of one kind
_UNITS = ("frame", "batch 16", "batch 128")


def layerwise(results: object) -> list[Picture]:
    """For each activation statistic: where its clean and attacked values lie, layer by layer."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in records(results, "layerwise"):
        layer, _, statistic = text(row, "tap").rpartition(":")
        if layer and _shifts(row, row.get("clean")) is not None:
            groups.setdefault(statistic, []).append(row)
    return [_layers(results, statistic, rows) for statistic, rows in groups.items()]


def _shifts(row: Mapping[str, Any], quantiles: object) -> list[float] | None:
    """Quantiles as distance from the clean median, in units of the clean 5 to 95 % range."""
    clean = [number(row, "clean", key) for key in _QUANTILES]
    found = [number(quantiles, key) for key in _QUANTILES]
    low, middle, high = clean[0], clean[2], clean[4]
    if low is None or middle is None or high is None or not high > low:
        return None
    values = [(value - middle) / (high - low) for value in found if value is not None]
    return values if len(values) == len(_QUANTILES) else None


def _layers(results: object, statistic: str, rows: list[Mapping[str, Any]]) -> Picture:
    first = text(headline_attack(results), "key")
    keys = list(dict.fromkeys(key for row in rows for key in mapping(row, "attacked")))
    keys.sort(key=lambda key: key != first)
    keys = keys[:_LAYER_ATTACKS]
    figure, axes = new_figure(1.7 + len(rows) * (0.34 + 0.17 * len(keys)))
    styles = [(GREY, "o"), (RED, "s"), (BLUE, "^"), (ORANGE, "D")]
    step = 0.8 / (len(keys) + 2)
    for place, row in enumerate(rows):
        layer = text(row, "tap").rpartition(":")[0]
        axes.text(0.01, place - 0.4, layer, fontsize=8.5, va="center", transform=axes.get_yaxis_transform())
        entries = [("clean", row.get("clean")), *((key, mapping(row, "attacked").get(key)) for key in keys)]
        for k, ((key, quantiles), (colour, marker)) in enumerate(zip(entries, styles, strict=False)):
            values = _shifts(row, quantiles)
            if values is not None:
                label = None if place else ("clean" if key == "clean" else name_of(results, key))
                _quantile_bar(axes, values, place - 0.4 + step * (k + 1.2), colour, marker, label)
    axes.set_yticks([])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(0, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_xlabel("shift from the clean median\n(1 = the clean frames' 5 to 95 % range)")
    legend_below(axes, 2)
    medians = []
    for row in rows:
        values = _shifts(row, mapping(row, "attacked").get(keys[0])) if keys else None
        if values is not None:
            medians.append(f"{text(row, 'tap')} {values[2]:+.2f}")
    frames = sorted({found.n for row in rows for key in keys if (found := estimate(row, "auroc", key)) and found.n})
    return Picture(
        f"layers-{''.join(c if c.isalnum() else '-' for c in statistic)}",
        f"Layer by layer: {statistic.replace('_', ' ')}",
        "Per frame, one block per tapped layer: median (mark), middle half (thick) and 5 to 95 % (thin), as a shift "
        "from that layer's clean median, to either side. Where attacked bars lie on the clean ones, the layer sees "
        f"nothing in a single frame. {' / '.join(count(n) for n in frames) or 'Unrecorded number of'} frames (clean "
        "and attacked).",
        f"Quantile bars of {statistic} at {len(rows)} layers. Median shift under "
        f"{name_of(results, keys[0]) if keys else 'attack'}: {'; '.join(medians) or 'not measured'}.",
        figure,
    )


def _quantile_bar(axes: Axes, values: list[float], y: float, colour: str, marker: str, label: str | None) -> None:
    p5, p25, p50, p75, p95 = values
    axes.plot([p5, p95], [y, y], color=colour, linewidth=1.2)
    axes.plot([p25, p75], [y, y], color=colour, linewidth=4, solid_capstyle="butt")
    axes.plot([p50], [y], color=colour, marker=marker, linestyle="none", label=label)


def batchwise(results: object) -> list[Picture]:
    """AUROC and detection accuracy per frame and per batch, one figure per protocol and layer."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in records(results, "batchwise"):
        if text(row, "unit") and estimate(row, "detection_accuracy") is not None:
            groups.setdefault((text(row, "protocol"), text(row, "layer")), []).append(row)
    return [_batches(results, k, *key, rows) for k, (key, rows) in enumerate(list(groups.items())[:_MOST])]


def _batches(results: object, k: int, protocol: str, layer: str, rows: list[Mapping[str, Any]]) -> Picture:
    units = [unit for unit in _UNITS if any(text(row, "unit") == unit for row in rows)]
    units += [unit for unit in dict.fromkeys(text(row, "unit") for row in rows) if unit not in units]
    keys = list(dict.fromkeys(text(row, "attack") for row in rows))
    figure, axes = new_figure(3.8)
    for number_of, (key, (colour, marker, line)) in enumerate(zip(keys, looks(len(keys)), strict=True)):
        own = sorted(
            (row for row in rows if text(row, "attack") == key), key=lambda row: units.index(text(row, "unit"))
        )
        found = [(row, item) for row in own if (item := estimate(row, "detection_accuracy")) is not None]
        offset = (number_of - (len(keys) - 1) / 2) * 0.06
        values, spread = error_bars([item for _, item in found])
        axes.errorbar(
            [units.index(text(row, "unit")) + offset for row, _ in found],
            values,
            yerr=spread,
            color=colour,
            marker=marker,
            linestyle=line,
            capsize=2,
            label=name_of(results, key),
        )
    axes.axhline(0.5, color=GREY, linestyle=":", linewidth=1)
    decisions = [_decisions(rows, unit) for unit in units]
    axes.set_xticks(range(len(units)), [f"{unit}\nn = {n}" for unit, n in zip(units, decisions, strict=True)])
    axes.set_xlim(-0.4, len(units) - 0.6)
    axes.set_ylim(0.35, 1.03)
    percent_axis(axes)
    axes.set_ylabel("detection accuracy")
    axes.set_xlabel("one decision per ... (n decisions)")
    legend_below(axes, 2)
    alt = "; ".join(
        f"{name_of(results, text(row, 'attack'))} per {text(row, 'unit')} "
        f"{number(row, 'detection_accuracy', 'value') or 0:.1%}"
        for row in rows
    )
    per_unit = ", ".join(f"{n} decisions per {unit}" for unit, n in zip(units, decisions, strict=True))
    return Picture(
        f"batches{k}",
        f"Per batch against per frame: {layer}",
        f"Protocol: {protocol or 'not recorded'}. Share of right clean-or-attacked decisions at a threshold fitted on "
        f"the calibration frames, with 95 % intervals; {per_unit}. Dotted: a coin toss. Of these, only a "
        "decision per frame can gate a camera.",
        f"Detection accuracy: {alt}.",
        figure,
    )


def _decisions(rows: list[Mapping[str, Any]], unit: str) -> str:
    found = [number(row, "decisions") for row in rows if text(row, "unit") == unit]
    seen = [n for n in found if n is not None]
    return " to ".join(dict.fromkeys(count(n) for n in (min(seen), max(seen)))) if seen else "?"
