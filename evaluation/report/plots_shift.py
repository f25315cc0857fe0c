"""Figures of frames unlike the training data: corrupted ones, and ones of other data sets."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np

from framegate.evaluation.report.style import (
    GREY,
    RED,
    Picture,
    cell_number,
    error_bars,
    legend_below,
    new_figure,
    on_colour,
    percent_axis,
)
from framegate.evaluation.report.values import Estimate, count, estimate, number, records, text


def corruption_map(results: object, what: str) -> Picture | None:
    """``accuracy`` or ``false_accept_rate`` of each corruption at each severity, as a heat map."""
    cells: dict[tuple[str, int], float] = {}
    frames = set()
    for row in records(results, "corruptions"):
        severity, found = number(row, "severity"), estimate(row, what)
        if severity is not None and found is not None:
            cells[text(row, "name"), int(severity)] = found.value
            frames.add(found.n or int(number(row, "n") or 0))
    if not cells:
        return None
    names = list(dict.fromkeys(name for name, _ in cells))
    severities = sorted({severity for _, severity in cells})
    values = np.array([[cells.get((name, severity), np.nan) for severity in severities] for name in names])
    figure, axes = new_figure(1.5 + 0.27 * len(names))
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    colours = mpl.colormaps["cividis" if what == "accuracy" else "YlOrBr"]
    top = 1.0 if what == "accuracy" else max(0.1, float(np.nanmax(values)))
    image = axes.imshow(values, cmap=colours, vmin=0, vmax=top, aspect="auto", interpolation="none")
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.8, aspect=30)
    bar.set_label("accuracy" if what == "accuracy" else "wrong and accepted / all frames")
    percent_axis(bar.ax, "x")
    for row, column in np.argwhere(np.isfinite(values)):
        value = float(values[row, column])
        ink = on_colour(*colours(value / top)[:3])
        cell_number(axes, row, column, f"{value * 100:.0f}", ink)
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8.5)
    axes.set_xticks(range(len(severities)), [str(severity) for severity in severities])
    axes.set_xlabel("severity")
    worst = min(cells, key=lambda key: cells[key] if what == "accuracy" else -cells[key])
    title = "Accuracy on corrupted frames" if what == "accuracy" else "False accepts on corrupted frames"
    seen = " / ".join(count(n) for n in sorted(frames) if n) or "unrecorded number of"
    gate = "" if what == "accuracy" else ", at the entropy threshold for 95 % clean coverage"
    lesson = (
        "A row that gets worse to the right names what this network can't stand."
        if what == "accuracy"
        else "A dark cell is damage that makes the network wrong but not unsure: leave it to the camera check."
    )
    return Picture(
        f"corruption-{'accuracy' if what == 'accuracy' else 'false-accepts'}",
        title,
        f"One row a kind of damage, stronger to the right; the numbers are percent, {seen} frames a cell{gate}. "
        f"{lesson}",
        f"Heat map of {len(names)} corruptions at {len(severities)} severities. Worst: {worst[0]} at severity "
        f"{worst[1]} with {cells[worst]:.1%}.",
        figure,
    )


def ood(results: object) -> Picture | None:
    """Share of frames from other data sets that the entropy gate accepts."""
    found: list[tuple[str, Estimate]] = []
    for row in records(results, "ood"):
        accepted = estimate(row, "accepted")
        if accepted is not None:
            found.append((text(row, "name"), accepted))
    if not found:
        return None
    found.sort(key=lambda item: -item[1].value)
    figure, axes = new_figure(1.5 + 0.32 * len(found))
    values, spread = error_bars([item for _, item in found])
    axes.errorbar(
        values, range(len(found)), xerr=spread, color=RED, marker="o", linestyle="none", capsize=3, label="accepted"
    )
    axes.axvline(0.95, color=GREY, linestyle=":", label="clean coverage the threshold aims at")
    axes.set_yticks(range(len(found)), [f"{name}\n(n = {count(item.n)})" for name, item in found], fontsize=8.5)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    percent_axis(axes, "x")
    axes.set_xlabel("share of frames accepted")
    legend_below(axes, 2)
    return Picture(
        "ood-accepted",
        "Frames that show none of the classes",
        "Left is better: the share accepted at the entropy threshold for 95 % clean coverage, with 95 % intervals. "
        "Every accepted one gets a label that it can't have; sets called noise are made up, no camera delivers them. "
        f"Frames: {', '.join(f'{name} {count(item.n)}' for name, item in found)}.",
        f"Accepted: {'; '.join(f'{name} {item.value:.1%}' for name, item in found)}.",
        figure,
    )
