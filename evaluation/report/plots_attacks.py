"""Figures under attack: outcomes, epsilon and the adaptive attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framegate.evaluation.report.findings import name_of
from framegate.evaluation.report.score_words import about_both_sides, in_words, short_names
from framegate.evaluation.report.style import (
    BLUE,
    RED,
    SKY,
    Picture,
    error_bars,
    legend_below,
    looks,
    new_figure,
    percent_axis,
)
from framegate.evaluation.report.values import count, estimate, number, records, text


def outcomes(results: object) -> Picture | None:
    """What becomes of the frames under each attack: right, wrong and rejected, wrong and accepted."""
    rows = []
    for attack in records(results, "attacks"):
        accuracy, accepted = number(attack, "accuracy", "value"), number(attack, "accepted_wrong", "value")
        if accuracy is not None and accepted is not None:
            rows.append((attack, accuracy, min(accepted, 1 - accuracy)))
    if not rows:
        return None
    figure, axes = new_figure(1.5 + 0.3 * len(rows))
    names = [name_of(results, text(attack, "key")) for attack, _, _ in rows]
    where = range(len(rows))
    right = [accuracy for _, accuracy, _ in rows]
    passed = [accepted for _, _, accepted in rows]
    caught = [1 - accuracy - accepted for _, accuracy, accepted in rows]
    axes.barh(where, passed, color=RED, hatch="///", edgecolor="white", linewidth=0, label="wrong and accepted")
    axes.barh(where, caught, left=passed, color=SKY, label="wrong and rejected")
    both = [a + b for a, b in zip(passed, caught, strict=True)]
    axes.barh(where, right, left=both, color=BLUE, label="right (accepted or not)")
    axes.set_yticks(where, names, fontsize=8.5)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.grid(visible=False, axis="y")
    percent_axis(axes, "x")
    axes.set_xlabel("share of the frames under attack")
    legend_below(axes, 2)
    frames = sorted({int(n) for attack, _, _ in rows if (n := number(attack, "n")) is not None})
    span = (
        " to ".join(dict.fromkeys(count(n) for n in (frames[0], frames[-1]))) if frames else "an unrecorded number of"
    )
    alt = "; ".join(
        f"{name}: {a:.1%} right, {b:.1%} wrong and accepted" for name, (_, a, b) in zip(names, rows, strict=True)
    )
    return Picture(
        "attack-outcomes",
        "What the entropy gate lets through under attack",
        f"One bar an attack, {span} frames each, at the entropy threshold for 95 % clean coverage. The hatched red "
        "part is used although it is wrong; where it fills the bar, entropy does not protect from this attack.",
        f"Stacked bars. {alt}.",
        figure,
    )


def adaptive(results: object) -> Picture | None:
    """Share of frames wrong and accepted under plain PGD and under the attack that knows of the score."""
    rows = [row for row in records(results, "adaptive") if estimate(row, "evaded") is not None]
    if not rows:
        return None
    figure, axes = new_figure(1.6 + 0.4 * len(rows))
    series = (("plain_pgd_accepted", "plain PGD", BLUE, "o", "none"), ("evaded", "adaptive attack", RED, "s", RED))
    for key, label, colour, marker, face in series:
        found = [(row, figure_of) for row, entry in enumerate(rows) if (figure_of := estimate(entry, key)) is not None]
        if not found:
            continue
        values, spread = error_bars([item for _, item in found])
        where = [row for row, _ in found]
        axes.errorbar(
            values,
            where,
            xerr=spread,
            color=colour,
            marker=marker,
            markerfacecolor=face,
            linestyle="none",
            capsize=2,
            label=label,
        )
    axes.set_yticks(range(len(rows)), _rule_names(rows), fontsize=8.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    percent_axis(axes, "x")
    axes.set_xlabel("wrong and accepted")
    legend_below(axes, 2)
    alt = "; ".join(f"{in_words(text(row, 'score'))} {number(row, 'evaded', 'value') or 0:.1%}" for row in rows)
    frames = sorted({int(n) for row in rows if (n := number(row, "n")) is not None})
    seen = " / ".join(count(n) for n in frames)
    return Picture(
        "adaptive",
        "When the attacker knows of the score",
        "Left is better: the share of attacked frames that are wrong and accepted at the score's threshold for 95 % "
        f"clean coverage, with 95 % intervals; {seen or 'unrecorded number of'} frames. Where the square lies far to "
        f"the right of the circle, the score only stops attackers who do not know of it."
        + about_both_sides(_rule_names(rows)),
        f"Wrong and accepted under the adaptive attack: {alt}.",
        figure,
    )


def _rule_names(rows: list[Mapping[str, Any]]) -> list[str]:
    """Names of the attacked rules, one line for each signal of a combined one."""
    return ["\n& ".join(short_names(text(row, "score").split(" and "), 38)) for row in rows]


def epsilon(results: object, what: str) -> Picture | None:
    """``accuracy`` or ``false_accept_rate`` against the attack's radius."""
    series: dict[str, list[tuple[float, Any]]] = {}
    for row in records(results, "epsilon_curve"):
        radius, found = number(row, "epsilon"), estimate(row, what)
        if radius is not None and found is not None:
            series.setdefault(text(row, "attack").upper() or "attack", []).append((radius * 255, found))
    if not series:
        return None
    figure, axes = new_figure(3.6)
    for (name, points), (colour, marker, line) in zip(series.items(), looks(len(series)), strict=True):
        points.sort(key=lambda point: point[0])
        values, spread = error_bars([found for _, found in points])
        axes.errorbar(
            [radius for radius, _ in points],
            values,
            yerr=spread,
            color=colour,
            marker=marker,
            linestyle=line,
            capsize=2,
            label=name,
        )
    axes.set_xlabel("attack radius epsilon (L-infinity, 255ths of the pixel range)")
    axes.set_ylabel("accuracy" if what == "accuracy" else "wrong and accepted / all frames")
    axes.set_ylim(-0.03, 1.03)
    percent_axis(axes)
    legend_below(axes, 3)
    title = (
        "Accuracy against the attack's strength"
        if what == "accuracy"
        else "False accepts against the attack's strength"
    )
    frames = sorted({found.n for points in series.values() for _, found in points if found.n})
    alt = "; ".join(f"{name} {points[-1][1].value:.1%} at {points[-1][0]:.3g}/255" for name, points in series.items())
    gate = "" if what == "accuracy" else ", at the entropy threshold for 95 % clean coverage"
    lesson = (
        "The radius at which a curve reaches the bottom is enough to make every frame wrong."
        if what == "accuracy"
        else "A curve that rises shows attacks that make the network wrong and sure of it."
    )
    return Picture(
        "epsilon-accuracy" if what == "accuracy" else "epsilon-false-accepts",
        title,
        f"To the right the attack may change each pixel by more{gate}; "
        f"{' / '.join(count(n) for n in frames) or 'unrecorded number of'} frames a point, with 95 % intervals. "
        f"{lesson}",
        f"{title}: {alt}.",
        figure,
    )
