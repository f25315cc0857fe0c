"""Which score is the best to gate on, by rules that are stated and not by taste.

The best of many scores is chosen on the very test frames that its figure is reported on, so the figure flatters it.
Its interval is therefore widened until the intervals of **all** compared scores hold at once (union bound, Bonferroni):
then the interval of whichever was chosen holds, too.

Never chosen for any purpose:

- a control, which looks at the pixels alone: scores of the network are measured beside it, it is no gate;
- a score that does not beat a coin at its task with the lower end of that interval. For a gate, which is there to find
  the network's own errors, the task is these errors.

Made-up noise does not count: no camera delivers it, and a statistic of the pixels tells it apart without any idea of
what the network gets wrong. Foreign frames are those that the user gave.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

from framegate.evaluation.metrics.intervals import CONFIDENCE
from framegate.evaluation.metrics.selective import GATE_COVERAGE
from framegate.evaluation.report.findings import ENTROPY, is_control, score_named, target_row
from framegate.evaluation.report.values import Estimate, estimate, mapping, number, records, text
from framegate.runtime.bundle.calibration import SCORES

Row = Mapping[str, Any]
LOST_COVERAGE = 0.02
"""By how much a threshold may miss its coverage on the test frames."""
NOISE = "noise-"
"""Beginning of the names of sets of made-up noise."""
COIN = 0.5
"""AUROC of a coin toss."""
FEWEST_ERRORS = 10
"""With fewer wrong frames an interval of an AUROC says nothing: resamples of so few look alike."""

_OWN_ERRORS = ("failure", "auroc")
_GATES = ("failure", "corruption", "overall")
"""Purposes for which a score stands alone: it has to find the network's own errors."""
_AT_A_THRESHOLD = ("corruption", "overall")
_PURPOSES = ("failure", "corruption", "ood", "attack", "overall")


def _joint(parts: Sequence[Estimate | None]) -> Estimate | None:
    """The mean of independent figures with its interval; None if there are none, or one was not measured."""
    known = [part for part in parts if part is not None]
    if not known or len(known) != len(parts):
        return None
    value = sum(part.value for part in known) / len(known)
    down, up = (math.hypot(*ends) / len(known) for ends in zip(*(part.spread() for part in known), strict=True))
    return Estimate(value, value - down, value + up, sum(part.n or 0 for part in known) or None)


def _over_foreign(row: Row, figure: str) -> Estimate | None:
    """Mean of a figure over the foreign sets that the user gave."""
    return _joint([estimate(row, "ood", name, figure) for name in mapping(row, "ood") if not name.startswith(NOISE)])


def foreign_auroc(row: Row) -> Estimate | None:
    """Mean AUROC of a score for telling foreign frames from clean ones, made-up noise left out."""
    return _over_foreign(row, "auroc")


def keeps_coverage(row: Row) -> bool:
    """Whether the threshold keeps its coverage on the test frames, to within two points; True if not measured.

    A score that remembers its calibration frames finds neighbours of the same track there, and rejects far more
    later on. It then accepts few wrong frames only because it accepts few frames.
    """
    coverage = number(target_row(row), "coverage", "value")
    return coverage is None or coverage >= GATE_COVERAGE - LOST_COVERAGE


def let_through(row: Row) -> Estimate | None:
    """What a gate on this score lets through without a warning: the mean of three shares at one threshold.

    Wrong and accepted clean frames, wrong and accepted corrupted frames, accepted foreign frames (mean over the sets
    that the user gave), at the threshold for 95 % clean coverage. What was not measured for a row is left out.
    """
    parts = (
        estimate(target_row(row), "false_accept_rate"),
        estimate(row, "corruptions", "far"),
        _over_foreign(row, "accepted"),
    )
    return _joint([part for part in parts if part is not None])


def task(row: Row, purpose: str, attack: str) -> Estimate | None:
    """The AUROC in which a score has to beat a coin to be chosen for a purpose."""
    if purpose in _GATES:
        return estimate(row, *_OWN_ERRORS)
    return foreign_auroc(row) if purpose == "ood" else estimate(row, "attacks", attack, "auroc")


def _figure(row: Row, purpose: str, attack: str) -> float | None:
    """What scores are ranked by, less is better."""
    if purpose == "failure":
        return number(row, "failure", "augrc", "value")
    if purpose == "corruption":
        return number(row, "corruptions", "far", "value")
    found = let_through(row) if purpose == "overall" else task(row, purpose, attack)
    if found is None:
        return None
    return found.value if purpose == "overall" else -found.value


def _compared(rows: Sequence[Row], purpose: str, attack: str) -> list[tuple[float, Row]]:
    """The scores that are compared for a purpose, with a figure of which less is better."""
    allowed = [row for row in rows if not is_control(row)]
    if purpose in _AT_A_THRESHOLD:
        allowed = [row for row in allowed if keeps_coverage(row)]
    figures = ((_figure(row, purpose, attack), row) for row in allowed)
    return [(figure, row) for figure, row in figures if figure is not None]


def compared(rows: Sequence[Row], purpose: str, attack: str) -> int:
    """Among how many scores `choose_best` chooses."""
    return len(_compared(rows, purpose, attack))


def _wider(among: int) -> float:
    """By what factor a 95 % interval grows if those of ``among`` scores are to hold at once."""
    tail = (1.0 - CONFIDENCE) / 2.0
    return NormalDist().inv_cdf(1.0 - tail / max(among, 1)) / NormalDist().inv_cdf(1.0 - tail)


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
    wider = _wider(among)
    down, up = figure.spread()
    low = None if figure.low is None else max(0.0, figure.value - wider * down)
    high = None if figure.high is None else min(1.0, figure.value + wider * up)
    return replace(figure, low=low, high=high)


def beats_a_coin(figure: Estimate | None, among: int = 1) -> bool:
    """Whether an AUROC is above one half with its whole interval; one without an interval is not."""
    found = of_the_best(figure, among)
    return found is not None and found.low is not None and found.low > COIN


def choose_best(rows: Sequence[Row], attack: str) -> dict[str, Any]:
    """The best score for each purpose.

    ``failure``: lowest AUGRC on clean frames. ``corruption``: fewest false accepts on corrupted frames at the threshold
    for 95 % clean coverage. ``ood``: highest mean AUROC over the foreign sets. ``attack``: highest AUROC against
    ``attack``, which does not adapt to it. ``overall``: least `let_through`. Attacks do not count there,
    because every single score falls to an attack that knows it. Where a threshold decides (``corruption``,
    ``overall``) only scores that `keeps_coverage` allows are compared; for ``overall`` none that is clearly worse at
    the network's own errors than entropy. A control, or a score that does not beat a coin at its `task`, is chosen for
    nothing.

    Args:
        rows: The report's scores.
        attack: Key of the attack that detection is judged on.

    Returns:
        Purpose -> name of the score, None where nothing deserves it; ``why``: the rules in one sentence.
    """
    best: dict[str, Any] = {}
    entropy = estimate(score_named({"scores": rows}, ENTROPY), *_OWN_ERRORS)
    for purpose in _PURPOSES:
        found = _compared(rows, purpose, attack)
        able = [(figure, row) for figure, row in found if beats_a_coin(task(row, purpose, attack), len(found))]
        if purpose == "overall":
            able = [(figure, row) for figure, row in able if not _clearly_worse(row, entropy, len(found))]
        best[purpose] = text(min(able, key=lambda each: each[0])[1], "name") if able else None
    best["why"] = (
        "own errors: lowest AUGRC on clean frames; corrupted frames: fewest false accepts at 95 % clean coverage; "
        "frames of other things: highest mean AUROC over the foreign sets that were given; attacks: highest AUROC "
        f"against {attack}, which does not adapt; overall: fewest clean, corrupted and foreign frames let through "
        "without a warning at 95 % clean coverage (mean of the three shares, made-up noise left out); for corrupted "
        "frames and overall only scores that keep 93 % coverage on the test frames; never a score without the network, "
        "nor one that does not beat a coin at its task; for overall none that finds the network's own errors clearly "
        "worse than entropy does"
    )
    return best


def _clearly_worse(row: Row, other: Estimate | None, among: int) -> bool:
    """Whether a score finds the network's own errors worse than another, with an interval for all compared scores."""
    own = of_the_best(estimate(row, *_OWN_ERRORS), among)
    return other is not None and own is not None and own.high is not None and not own.high >= other.value


@dataclass(frozen=True)
class Advice:
    """What somebody who has to choose a score should do.

    Attributes:
        answer: ``keep`` the present score, ``switch`` to ``score``, ``collect`` more frames, or ``none`` of the scores
            will do.
        score: The score to gate on; empty for ``collect`` and ``none``.
        present: The score that the others were compared with, see `present_score`.
        through: What a gate on ``present`` lets through (`let_through`), if measured.
        instead: What ``score`` lets through, if it is another one.
        errors: Wrong clean frames that were seen, None if not recorded.
        among: Scores that were compared.
        promising: A score that the runtime has not, and that lets clearly less through than ``present``; or empty.
    """

    answer: str
    score: str = ""
    present: str = ENTROPY
    through: Estimate | None = None
    instead: Estimate | None = None
    errors: int | None = None
    among: int = 0
    promising: str = ""


def present_score(results: object) -> str:
    """The score that the bundle gates on, if the record says so and measured it; entropy otherwise."""
    own = text(results, "bundle", "score")
    return own if score_named(results, own) else ENTROPY


def advise(results: object) -> Advice | None:
    """Which score to gate on, by these rules; None if no score was measured.

    The present score stays unless another one deserves its place: it must beat a coin at the network's own errors, must
    not be clearly worse at them than the present one, and must let clearly less through without a warning
    (`let_through`), each with intervals that hold for all compared scores at once. Both scores judge the same frames,
    so taking their figures for independent makes the difference harder to prove, not easier.

    Args:
        results: A results record; any of it may be missing.
    """
    rows = records(results, "scores")
    name = present_score(results)
    present = score_named(results, name)
    own = estimate(present, *_OWN_ERRORS)
    if not rows or not present:
        return None
    found = [row for _, row in _compared(rows, "overall", "")]
    errors = _errors(results)
    if own is None or (errors is not None and errors < FEWEST_ERRORS):
        return Advice("collect", present=name, errors=errors, among=len(found))
    base = let_through(present)
    better = [row for row in found if _deserves(row, own, base, len(found))]
    better.sort(key=lambda row: _figure(row, "overall", "") or 0.0)
    usable = [row for row in better if text(row, "name") in SCORES]
    promising = text(better[0], "name") if better and better[0] not in usable else ""
    if usable:
        best = usable[0]
        return Advice("switch", text(best, "name"), name, base, let_through(best), errors, len(found), promising)
    if beats_a_coin(own):
        return Advice("keep", name, name, base, None, errors, len(found), promising)
    answer = "collect" if own.high is None or own.high > COIN else "none"
    return Advice(answer, "", name, base, None, errors, len(found))


def _errors(results: object) -> int | None:
    accuracy = estimate(results, "clean", "accuracy")
    return None if accuracy is None or not accuracy.n else round((1.0 - accuracy.value) * accuracy.n)


def _deserves(row: Row, present: Estimate, base: Estimate | None, among: int) -> bool:
    """Whether a score deserves the present one's place."""
    own, through = estimate(row, *_OWN_ERRORS), let_through(row)
    if through is None or base is None or not beats_a_coin(own, among) or _clearly_worse(row, present, among):
        return False
    doubt = _wider(among) * math.hypot(through.spread()[1], base.spread()[0])
    return base.value - through.value > doubt
