"""Every figure of the report, by section; and those of the clean and attacked predictions themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from framegate.evaluation.report import plots_attacks as report_plots_attacks
from framegate.evaluation.report import plots_monitor as report_plots_monitor
from framegate.evaluation.report import plots_scores as report_plots_scores
from framegate.evaluation.report import plots_shift as report_plots_shift
from framegate.evaluation.report.findings import (
    ENTROPY,
    attack_name,
    headline_attack,
    name_of,
    score_named,
    target_row,
)
from framegate.evaluation.report.style import (
    GREY,
    LINES,
    SERIES,
    Picture,
    cell_number,
    legend_below,
    new_figure,
    on_colour,
    percent_axis,
    style,
)
from framegate.evaluation.report.values import array, confusion, count, follow, mapping, number, records, text

_NUMBERS_UP_TO = 12  # classes; beyond that, cell numbers and label names are unreadable
_CONFUSIONS = 3


def pictures(results: Mapping[str, Any]) -> dict[str, list[Picture]]:
    """Draw whatever the record holds data for.

    Args:
        results: A results record; any of it may be missing.

    Returns:
        Section key -> its figures, in reading order. A section without figures is missing.
    """
    with style():
        drawn: dict[str, Sequence[Picture | None]] = {
            "clean": [clean_confusion(results), entropy_histograms(results)],
            "scores": [
                report_plots_scores.ranking(results),
                report_plots_scores.risk_coverage(results),
                report_plots_scores.detection_map(results),
            ],
            "selective": [
                report_plots_scores.selective(results, "accuracy"),
                report_plots_scores.selective(results, "false_accept_rate"),
            ],
            "attacks": [report_plots_attacks.outcomes(results), *attacked_confusions(results)],
            "adaptive": [report_plots_attacks.adaptive(results)],
            "epsilon": [
                report_plots_attacks.epsilon(results, "accuracy"),
                report_plots_attacks.epsilon(results, "false_accept_rate"),
            ],
            "layerwise": report_plots_monitor.layerwise(results),
            "batchwise": report_plots_monitor.batchwise(results),
            "corruptions": [
                report_plots_shift.corruption_map(results, "accuracy"),
                report_plots_shift.corruption_map(results, "false_accept_rate"),
            ],
            "ood": [report_plots_shift.ood(results)],
        }
    found = {section: [picture for picture in group if picture is not None] for section, group in drawn.items()}
    return {section: group for section, group in found.items() if group}


def clean_confusion(results: object) -> Picture | None:
    """Confusion matrix of the clean test frames."""
    matrix = confusion(results, "clean", "confusion")
    return None if matrix is None else _confusion("confusion-clean", "clean frames", matrix, _labels(results))


def attacked_confusions(results: object) -> list[Picture]:
    """Confusion matrices under attack, the headline attack first."""
    found = [attack for attack in records(results, "attacks") if confusion(attack, "confusion") is not None]
    first = text(headline_attack(results), "key")
    found.sort(key=lambda attack: text(attack, "key") != first)
    drawn = []
    for k, attack in enumerate(found[:_CONFUSIONS]):
        matrix = confusion(attack, "confusion")
        if matrix is not None:
            drawn.append(_confusion(f"confusion-attack{k}", f"under {attack_name(attack)}", matrix, _labels(results)))
    return drawn


def entropy_histograms(results: object) -> Picture | None:
    """Distribution of softmax entropy over right, wrong and attacked frames."""
    edges = array(results, "entropy_histograms", "edges")
    if edges is None or edges.ndim != 1 or len(edges) < 2:
        return None
    found: list[tuple[str, NDArray[np.float64]]] = []
    groups = [("right, clean", "right"), ("wrong, clean", "wrong")]
    for label, key in groups:
        _append(found, label, array(results, "entropy_histograms", key), len(edges) - 1)
    for key in mapping(results, "entropy_histograms", "attacked"):
        counts = array(results, "entropy_histograms", "attacked", key)
        _append(found, name_of(results, key), counts, len(edges) - 1)
    if not found:
        return None
    figure, axes = new_figure(3.7)
    for k, (label, counts) in enumerate(found):
        axes.stairs(
            counts / counts.sum(),
            edges,
            label=f"{label} (n = {count(float(counts.sum()))})",
            color=SERIES[k % len(SERIES)],
            linestyle=LINES[k % len(LINES)],
            linewidth=1.8,
            fill=False,
            baseline=None,
        )
    least = min(1.0 / counts.sum() for _, counts in found)
    axes.set_yscale("log")
    axes.set_ylim(bottom=least / 2, top=2.0)
    threshold = number(target_row(score_named(results, ENTROPY)), "threshold")
    if threshold is not None and edges[0] <= threshold <= edges[-1]:
        axes.axvline(threshold, color=GREY, linewidth=1.2)
        axes.annotate(
            "threshold, 95 % coverage",
            (threshold, 1.3),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=8,
            va="center",
        )
    temperature = number(results, "clean", "temperature")
    at = "" if temperature is None else f", temperature {temperature:.2f}"
    axes.set_xlabel(f"softmax entropy (nats{at})")
    axes.set_ylabel("share of the group's frames in a bin")
    legend_below(axes, 2)
    accepted = "; ".join(f"{label}: median bin {_median(edges, counts):.3g} nats" for label, counts in found)
    return Picture(
        "entropy",
        "Entropy of right, wrong and attacked frames",
        "To the right the network is less sure; each curve sums to 1, the vertical scale is logarithmic. What lies "
        "left of the threshold is accepted, also the wrong and the attacked frames that lie there. "
        f"Frames: {', '.join(f'{label} {count(float(counts.sum()))}' for label, counts in found)}.",
        f"Histograms of softmax entropy. {accepted}.",
        figure,
    )


def _append(
    found: list[tuple[str, NDArray[np.float64]]], label: str, counts: NDArray[np.float64] | None, bins: int
) -> None:
    if counts is not None and counts.shape == (bins,) and counts.min() >= 0 and counts.sum() > 0:
        found.append((label, counts))


def _median(edges: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    k = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return float(edges[k] + edges[k + 1]) / 2


def _labels(results: object) -> list[str]:
    found = follow(results, "bundle", "labels")
    return [str(label) for label in found] if isinstance(found, list | tuple) else []


def _confusion(name: str, what: str, matrix: NDArray[np.float64], labels: list[str]) -> Picture:
    classes, frames = len(matrix), matrix.sum()
    names = labels if len(labels) == classes else [str(k) for k in range(classes)]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure, axes = new_figure(4.9 if classes > 4 else 3.9)
    axes.grid(visible=False)
    colours = mpl.colormaps["Blues"]
    image = axes.imshow(shares, cmap=colours, vmin=0, vmax=1, interpolation="none")
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.75, label="share of the true class's frames")
    percent_axis(bar.ax, "x")
    if classes <= _NUMBERS_UP_TO:
        axes.set_xticks(range(classes), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(classes), names)
        for row in range(classes):
            for column in range(classes):
                share = shares[row, column]
                ink = on_colour(*colours(float(share))[:3])
                cell_number(axes, row, column, f"{share * 100:.0f}", ink)
    else:
        ticks = range(0, classes, 5)
        axes.set_xticks(ticks, [str(k) for k in ticks])
        axes.set_yticks(ticks, [str(k) for k in ticks])
    axes.set_xlabel("predicted class" if classes <= _NUMBERS_UP_TO else "predicted class (index)")
    axes.set_ylabel("true class" if classes <= _NUMBERS_UP_TO else "true class (index)")
    right = float(np.trace(matrix) / frames)
    numbers = "; the numbers are percent of a row" if classes <= _NUMBERS_UP_TO else ""
    worst = matrix - np.diag(np.diag(matrix))
    true, predicted = divmod(int(worst.argmax()), classes)
    worst_words = f", most often {names[true]} for {names[predicted]}" if worst.max() > 0 else ""
    often = f" Most frequent error: {names[true]} taken for {names[predicted]}, {worst.max():.0f} frames."
    return Picture(
        name,
        f"Confusion, {what}",
        f"Rows are true classes, columns what the network says{numbers}. {count(frames)} frames, "
        f"{right * 100:.1f} % right. Off the diagonal is what it takes for something else{worst_words}.",
        f"Confusion matrix of {classes} classes, {what}: {right:.1%} of {count(frames)} frames lie on the diagonal."
        + (often if worst.max() > 0 else ""),
        figure,
    )
