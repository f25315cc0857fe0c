"""Figures of the scores: which one finds the errors, what a threshold gains, and which detects what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.lines import Line2D

from framegate.evaluation.report.findings import (
    CONTROL_FAMILY,
    adaptive_by_score,
    is_control,
    name_of,
    notable,
    score_named,
    shown,
)
from framegate.evaluation.report.score_choice import NOISE
from framegate.evaluation.report.score_words import about_both_sides, in_words, short_names
from framegate.evaluation.report.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    Picture,
    cell_number,
    error_bars,
    legend_below,
    looks,
    new_figure,
    on_colour,
    percent_axis,
)
from framegate.evaluation.report.values import Estimate, array, count, estimate, mapping, number, records, text

_FAMILIES = {
    "output": (BLUE, "o"),
    "feature": (GREEN, "s"),
    "activation": (PURPLE, "D"),
    "combined": (ORANGE, "^"),
    CONTROL_FAMILY: (RED, "X"),
}


_SETTLED = 0.05
"""Coverage from which on a curve of risk sets the scale of its figure."""


def ranking(results: object) -> Picture | None:
    """Every score's AUROC for finding the classifier's own errors, best on top."""
    chosen = [(score, estimate(score, "failure", "auroc")) for score in shown(results)]
    rows = [(score, found) for score, found in chosen if found is not None]
    if not rows:
        return None
    figure, axes = new_figure(1.5 + 0.23 * len(rows))
    handles: dict[str, Line2D] = {}
    for row, (score, found) in enumerate(rows):
        family = text(score, "family") or "other"
        colour, marker = _FAMILIES.get(family, (SKY, "P"))
        _, spread = error_bars([found])
        drawn = axes.errorbar(
            [found.value],
            [row],
            xerr=spread,
            color=colour,
            marker=marker,
            markerfacecolor="none" if is_control(score) else colour,
            linestyle="none",
            capsize=2,
        )
        handles.setdefault(f"{family} (control, no network)" if is_control(score) else family, drawn.lines[0])
    names = _row_names([score for score, _ in rows])
    axes.set_yticks(range(len(rows)), names, fontsize=8.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle=":")
    axes.set_xlabel("AUROC for finding wrong frames")
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=2)
    best, last = rows[0], rows[-1]
    rest = len(records(results, "scores")) - len(rows)
    left_out = f" {rest} more are in the table only." if rest > 0 else ""
    return Picture(
        "ranking",
        "Which score finds the network's errors",
        "Right is better: how well a score tells wrong from right clean frames (area under the ROC curve), with 95 % "
        f"intervals; {_frames(best[1].n)}. A score whose interval reaches 0.5, a coin toss, is no gate. Hollow crosses "
        f"are controls, which look at the pixels only.{about_both_sides(names)}{left_out}",
        f"Dot plot of {len(rows)} scores. Best: {in_words(text(best[0], 'name'))} with AUROC {best[1].value:.3f}; "
        f"last shown: {in_words(text(last[0], 'name'))} with {last[1].value:.3f}.",
        figure,
    )


def risk_coverage(results: object) -> Picture | None:
    """Selective risk against coverage for the scores that matter, with the best and the blind possible."""
    curves = _curves(results)
    if not curves:
        return None
    figure, axes = new_figure(4.1)
    labels = short_names([name for name, _, _ in curves], 32)
    for (_, coverage, risk), label, (colour, _, line) in zip(curves, labels, looks(len(curves)), strict=True):
        axes.plot(coverage, risk, color=colour, linestyle=line, label=label)
    accuracy = estimate(results, "clean", "accuracy")
    if accuracy is not None:
        grid = np.linspace(0.005, 1.0, 200)
        axes.plot(grid, np.full(200, 1 - accuracy.value), color=GREY, linestyle=":", label="random rejection")
        oracle = np.maximum(0.0, (grid - accuracy.value) / grid)
        axes.plot(grid, oracle, color=GREY, linestyle=(0, (6, 1.5, 1, 1.5)), label="oracle (best possible)")
    axes.set_xlabel("coverage (accepted / evaluated)")
    axes.set_ylabel("selective risk (errors / accepted)")
    axes.set_xlim(0, 1)
    percent_axis(axes, "x")
    percent_axis(axes)
    # Of the first few frames one error is a risk of 100 %, which would flatten everything else.
    settled = [float(risk[coverage >= _SETTLED].max(initial=0.0)) for _, coverage, risk in curves]
    axes.set_ylim(0, max(1.15 * max(settled), 0.001))
    legend_below(axes)
    ends = "; ".join(
        f"{in_words(name)}: {np.interp(0.8, c[np.argsort(c)], r[np.argsort(c)]):.2%}" for name, c, r in curves
    )
    return Picture(
        "risk-coverage",
        "Risk against coverage",
        "Lower is better: errors among the accepted clean frames, when the threshold accepts the share below. The "
        "further a curve falls to the left, the more each rejected frame buys; the oracle rejects exactly the wrong "
        f"frames first, random rejection gains nothing. {_frames(accuracy.n if accuracy else None)}."
        + about_both_sides(labels),
        f"Risk-coverage curves. Selective risk at 80 % coverage: {ends}.",
        figure,
    )


def selective(results: object, what: str) -> Picture | None:
    """``accuracy`` of accepted frames, or ``false_accept_rate``, at the calibrated thresholds."""
    found = [(name, _selective_points(results, name, what)) for name in notable(results, 5)]
    found = [(name, points) for name, points in found if points]
    if not found:
        return None
    figure, axes = new_figure(3.9)
    labels = short_names([name for name, _ in found], 32)
    for (_, points), label, (colour, marker, line) in zip(found, labels, looks(len(found)), strict=True):
        values, spread = error_bars([point for _, point in points])
        coverages = [coverage for coverage, _ in points]
        axes.errorbar(
            coverages, values, yerr=spread, color=colour, marker=marker, linestyle=line, capsize=2, label=label
        )
    accuracy = estimate(results, "clean", "accuracy")
    if accuracy is not None:
        level = accuracy.value if what == "accuracy" else 1 - accuracy.value
        axes.axhline(level, color=GREY, linestyle=":", label="without rejecting any")
    axes.set_xlabel("coverage on the test frames (accepted / evaluated)")
    axes.set_ylabel("accuracy of accepted frames" if what == "accuracy" else "false accepts / all frames")
    axes.invert_xaxis()
    percent_axis(axes, "x")
    percent_axis(axes)
    legend_below(axes)
    frames = max((coverage_n for name, _ in found for coverage_n in _frame_counts(results, name)), default=None)
    title = "Accuracy of what is accepted" if what == "accuracy" else "False accepts (wrong and accepted)"
    alt = "; ".join(
        f"{in_words(name)} {points[-1][1].value:.2%} at {points[-1][0]:.0%} coverage" for name, points in found
    )
    return Picture(
        "selective-accuracy" if what == "accuracy" else "selective-false-accepts",
        title,
        "Each point is a threshold set on the calibration frames, at the coverage that it has on the test frames, with "
        f"95 % intervals; {_frames(frames)}. To the right more frames are rejected: what a curve gains there is what "
        f"these rejections buy, for frames like the calibration frames.{about_both_sides(labels)}",
        f"{title} against coverage: {alt}.",
        figure,
    )


def detection_map(results: object) -> Picture | None:
    """AUROC of every score at every task, as a heat map; the adaptive attack is its last column."""
    ranked = shown(results)
    columns: list[tuple[str, tuple[str, ...]]] = [("own errors", ("failure", "auroc"))]
    attacks = dict.fromkeys(key for score in ranked for key in mapping(score, "attacks"))
    columns += [(name_of(results, key), ("attacks", key, "auroc")) for key in attacks]
    sets = dict.fromkeys(key for score in ranked for key in mapping(score, "ood"))
    columns += [(_set_name(key), ("ood", key, "auroc")) for key in sets]
    columns.append(("corruptions", ("corruptions", "auroc")))
    adaptive = adaptive_by_score(results)
    rows = [
        [
            *(number(score, *path, "value") for _, path in columns),
            number(adaptive.get(text(score, "name")), "auroc", "value"),
        ]
        for score in ranked
    ]
    titles = [*(title for title, _ in columns), "ADAPTIVE on this score"]
    used = [k for k in range(len(titles)) if any(row[k] is not None for row in rows)]
    if len(used) < 2:
        return None
    values = np.array([[np.nan if row[k] is None else row[k] for k in used] for row in rows], dtype=np.float64)
    figure, axes = new_figure(1.9 + 0.25 * len(rows), 2.6 + 0.5 * len(used))
    axes.grid(visible=False)
    colours = mpl.colormaps["PuOr_r"]
    image = axes.imshow(values, cmap=colours, vmin=0, vmax=1, aspect="auto", interpolation="none")
    figure.colorbar(image, ax=axes, shrink=0.6, label="AUROC")
    axes.set_yticks(range(len(ranked)), _row_names(ranked), fontsize=8.5)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(used)), [titles[k] for k in used], rotation=40, ha="left", rotation_mode="anchor")
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(np.isfinite(values)):
        value = float(values[row, column])
        ink = on_colour(*colours(value)[:3])
        cell_number(axes, row, column, f"{value:.2f}", ink)
    return Picture(
        "detection-map",
        "Which score sees what",
        "One row a score, one column a task: AUROC at telling wrong, attacked, foreign or corrupted frames from right "
        "or clean ones (frames per figure are in the tables). 0.5 is a coin toss, below it the score points the wrong "
        "way, empty cells were not measured. No row is good everywhere; the last column is the same score under the "
        f"attack that knows of it.{about_both_sides(_row_names(ranked))}",
        f"Heat map of AUROC for {len(ranked)} scores and {len(used)} tasks; the values are in the tables.",
        figure,
        wide=True,
    )


def _set_name(key: str) -> str:
    return f"made up: {key.removeprefix(NOISE)}" if key.startswith(NOISE) else f"foreign: {key}"


def _row_names(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    names = short_names([text(score, "name") for score in scores])
    return [name + (" (control)" if is_control(score) else "") for name, score in zip(names, scores, strict=True)]


def _curves(results: object) -> list[tuple[str, Any, Any]]:
    recorded = mapping(results, "risk_coverage")
    names = [name for name in notable(results, 99) if name in recorded]
    names += [name for name in recorded if name not in names]
    curves = []
    for name in names:
        coverage, risk = array(recorded, name, "coverage"), array(recorded, name, "risk")
        if coverage is not None and risk is not None and coverage.ndim == 1 and coverage.shape == risk.shape:
            curves.append((name, coverage, risk))
    return curves[:6]


def _selective_points(results: object, name: str, what: str) -> list[tuple[float, Estimate]]:
    points = []
    for row in records(score_named(results, name), "selective"):
        coverage, found = number(row, "coverage", "value"), estimate(row, what)
        if coverage is not None and found is not None:
            points.append((coverage, found))
    return sorted(points, key=lambda point: -point[0])


def _frame_counts(results: object, name: str) -> list[int]:
    rows = records(score_named(results, name), "selective")
    found = [estimate(row, "coverage") for row in rows]
    return [item.n for item in found if item is not None and item.n]


def _frames(n: int | None) -> str:
    return "frames not recorded" if n is None else f"{count(n)} frames"
