"""Figures of the page about drives."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator

from framegate.evaluation.drives.questions import Questions
from framegate.evaluation.report.style import BLUE, GREY, Picture, legend_below, looks, new_figure, percent_axis, style

BINS = 40
_MOST = 6


def pictures(questions: Questions) -> tuple[Picture, Picture, Picture]:
    """Coverage, reasons and scores, in the report's style, which also makes room for labels and legend."""
    with style():
        return coverage(questions), reasons(questions), scores(questions)


def drive_count(number: int) -> str:
    """The number of drives in words."""
    return f"{number:,} drive" if number == 1 else f"{number:,} drives"


def coverage(questions: Questions) -> Picture:
    """Coverage of every drive, sorted."""
    rows = questions.ask("select drive, avg(accepted::int), count(*) from drives group by drive order by 2, 1")
    shares = [float(row[1]) for row in rows]
    figure, axes = new_figure()
    axes.plot(np.arange(1, len(shares) + 1), shares, "o", color=BLUE)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(0.5, len(shares) + 0.5)  # a drive is a whole number, also where there is one alone
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("drive, from the lowest coverage")
    axes.set_ylabel("accepted / evaluated")
    percent_axis(axes)
    return Picture(
        "coverage",
        "Coverage of each drive",
        f"{drive_count(len(shares))}; lowest {shares[0]:.1%} ({rows[0][0]}), highest {shares[-1]:.1%}.",
        f"Coverage of {drive_count(len(shares))}, from {shares[0]:.1%} to {shares[-1]:.1%}.",
        figure,
    )


def reasons(questions: Questions) -> Picture:
    """The most frequent reasons, in the order of time."""
    rows = questions.ask(
        f"""with ordered as (
                select reasons, accepted, ntile({BINS}) over (order by recorded_at, drive, camera, region) as bin
                from drives),
            sizes as (select bin, count(*) as n from ordered group by bin),
            each as (
                select bin, unnest(string_split(reasons, ' ')) as reason from ordered where not accepted),
            top as (select reason from each group by reason order by count(*) desc, reason limit {_MOST})
        select reason, bin, count(*) / any_value(n) from each join sizes using (bin)
        where reason in (from top) group by reason, bin order by reason, bin"""
    )
    found: dict[str, np.ndarray] = {}
    for reason, number, share in rows:
        found.setdefault(str(reason), np.zeros(BINS))[int(number) - 1] = float(share)
    figure, axes = new_figure()
    places = (np.arange(BINS) + 0.5) / BINS
    for (name, values), (colour, _, line) in zip(found.items(), looks(max(len(found), 1)), strict=False):
        axes.plot(places, values, line, color=colour, label=name)
    axes.set_ylim(bottom=0.0)
    axes.set_xlabel("verdicts in the order of time")
    axes.set_ylabel("verdicts with the reason")
    percent_axis(axes)
    percent_axis(axes, "x")
    legend_below(axes)
    most = ", ".join(f"{name} at most {values.max():.0%}" for name, values in found.items()) or "none"
    return Picture(
        "reasons",
        "Reasons over time",
        f"All verdicts in {BINS} pieces of the same size; the {_MOST} most frequent reasons.",
        f"Share of verdicts with each reason over time: {most}.",
        figure,
    )


def scores(questions: Questions) -> Picture:
    """How the scores lie around the threshold."""
    rows = questions.ask(
        """select least(greatest(floor((score / threshold) * 20), 0), 60)::int, count(*) from drives
        where isfinite(score) and threshold > 0 group by 1 order by 1"""
    )
    counts = np.zeros(61)
    for place, number in rows:
        counts[int(place)] = number
    total = max(counts.sum(), 1.0)
    figure, axes = new_figure()
    axes.bar((np.arange(61) + 0.5) / 20, counts / total, 0.05, color=BLUE)
    axes.axvline(1.0, linestyle="--", color=GREY, linewidth=1.2)
    axes.set_xlabel("score / threshold (3 and more in the last bar)")
    axes.set_ylabel("verdicts")
    percent_axis(axes)
    near = counts[18:22].sum() / total
    return Picture(
        "scores",
        "Scores around the threshold",
        f"{int(total)} verdicts with a positive threshold; {near:.1%} within a tenth of it. Accepted left of the line.",
        f"Histogram of the score in units of the threshold; {near:.1%} lie within a tenth of it.",
        figure,
    )
