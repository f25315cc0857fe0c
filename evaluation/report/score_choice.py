"""Which score is the best to gate on, by rules that are stated and not by taste.

The best of many scores is chosen on the very test frames that its figure is reported on, so the figure flatters it.
Its interval is therefore widened until the intervals of **all** compared scores hold at once (union bound, Bonferroni):
then the interval of whichever was chosen holds, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import Any

from framegate.evaluation.metrics.intervals import CONFIDENCE
from framegate.evaluation.metrics.selective import GATE_COVERAGE
from framegate.evaluation.report.findings import target_row
from framegate.evaluation.report.values import Estimate, number

Row = Mapping[str, Any]
LOST_COVERAGE = 0.02
"""By how much a threshold may miss its coverage on the test frames."""
NOISE = "noise-"
"""Beginning of the names of sets of synthetic noise."""


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _failure(row: Row) -> float | None:
    return number(row, "failure", "augrc", "value")


def _over_foreign(row: Row, figure: str) -> float | None:
    """Mean of a figure over the foreign sets; all kinds of noise together count as one set."""
    groups: dict[str, list[float | None]] = {}
    for name, each in row["ood"].items():
        groups.setdefault(NOISE if name.startswith(NOISE) else name, []).append(number(each, figure, "value"))
    return _mean([_mean(values) for values in groups.values()])


def foreign_auroc(row: Row) -> float | None:
    """Mean AUROC of a score for telling foreign frames from clean ones."""
    return _over_foreign(row, "auroc")


def _foreign(row: Row) -> float | None:
    mean = foreign_auroc(row)
    return None if mean is None else -mean


def _corrupted(row: Row) -> float | None:
    return number(row, "corruptions", "far", "value")


def _attacked(attack: str) -> Callable[[Row], float | None]:
    def rank(row: Row) -> float | None:
        value = number(row, "attacks", attack, "auroc", "value")
        return None if value is None else -value

    return rank


def _at_gate(row: Row, figure: str) -> float | None:
    """A figure of the clean test frames at the threshold for 95 % coverage."""
    return number(target_row(row), figure, "value")


def keeps_coverage(row: Row) -> bool:
    """Whether the threshold keeps its coverage on the test frames, to within two points; True if not measured.

    A score that remembers its calibration frames finds neighbours of the same track there, and rejects far more
    later on. It then accepts few wrong frames only because it accepts few frames.
    """
    coverage = _at_gate(row, "coverage")
    return coverage is None or coverage >= GATE_COVERAGE - LOST_COVERAGE


def share_let_through(row: Row) -> float | None:
    """What a gate on this score lets through without a warning: the mean of three shares at one threshold.

    Wrong and accepted clean frames, wrong and accepted corrupted frames, accepted foreign frames (mean over the sets,
    all noise as one), at the threshold for 95 % clean coverage. What was not measured for a row is left out.
    """
    shares = (_at_gate(row, "false_accept_rate"), _corrupted(row), _over_foreign(row, "accepted"))
    return _mean([share for share in shares if share is not None])


_AT_A_THRESHOLD = ("corruption", "overall")
_RANKS: Mapping[str, Callable[[Row], float | None] | None] = {
    "failure": _failure,
    "corruption": _corrupted,
    "ood": _foreign,
    "attack": None,  # depends on the attack
    "overall": share_let_through,
}


def _ranked(rows: Sequence[Row], purpose: str, attack: str) -> list[tuple[float, str]]:
    """The scores that are compared for a purpose, by a figure of which less is better."""
    rank = _RANKS[purpose] or _attacked(attack)
    allowed = [row for row in rows if keeps_coverage(row)] if purpose in _AT_A_THRESHOLD else rows
    return [(value, row["name"]) for row in allowed if (value := rank(row)) is not None]


def compared(rows: Sequence[Row], purpose: str, attack: str) -> int:
    """Among how many scores `choose_best` chooses."""
    return len(_ranked(rows, purpose, attack))


def of_the_best(figure: Estimate | None, among: int) -> Estimate | None:
    """A figure of the best of several scores, with an interval that holds although it was chosen.

    Every score's interval would have to hold with 1 - 0.05 / ``among``. Bootstrap intervals are widened by the ratio of
    the normal quantiles, which supposes nearly normal figures.

    Args:
        figure: A share or an AUROC with its 95 % interval; None if it was not measured.
        among: Scores that were compared.
    """
    if figure is None or among < 2:
        return figure
    tail = (1.0 - CONFIDENCE) / 2.0
    wider = NormalDist().inv_cdf(1.0 - tail / among) / NormalDist().inv_cdf(1.0 - tail)
    down, up = figure.spread()
    low = None if figure.low is None else max(0.0, figure.value - wider * down)
    high = None if figure.high is None else min(1.0, figure.value + wider * up)
    return replace(figure, low=low, high=high)


def choose_best(rows: Sequence[Row], attack: str) -> dict[str, Any]:
    """The best score for each purpose.

    ``failure``: lowest AUGRC on clean frames. ``corruption``: fewest false accepts on corrupted frames at the threshold
    for 95 % clean coverage. ``ood``: highest mean AUROC over the foreign sets. ``attack``: highest AUROC against
    ``attack``, which does not adapt to it. ``overall``: least `share_let_through`. Attacks do not count there,
    because every single score falls to an attack that knows it. Where a threshold decides (``corruption``,
    ``overall``) only scores that `keeps_coverage` allows are compared.

    Args:
        rows: The report's scores.
        attack: Key of the attack that detection is judged on.

    Returns:
        Purpose -> name of the score, None where it was not measured; ``why``: the rules in one sentence.
    """
    best: dict[str, Any] = {}
    for purpose in _RANKS:
        ranked = _ranked(rows, purpose, attack)
        best[purpose] = min(ranked)[1] if ranked else None
    best["why"] = (
        "failure: lowest AUGRC on clean frames; corruption: fewest false accepts at 95 % clean coverage; ood: highest "
        f"mean AUROC over the foreign sets; attack: highest AUROC against {attack}, which does not adapt; overall: "
        "fewest clean, corrupted and foreign frames let through without a warning at 95 % clean coverage (mean of the "
        "three shares); for corruption and overall only scores that keep 93 % coverage on the test frames"
    )
    return best
