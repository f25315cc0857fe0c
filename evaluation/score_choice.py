"""Which score is the best to gate on, by rules that are stated and not by taste."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
GATE_COVERAGE = 0.95
"""Clean coverage of the threshold at which false accepts under attack, corruption and foreign frames are counted."""


def _value(estimate: Any) -> float | None:
    value = estimate.get("value") if isinstance(estimate, Mapping) else None
    return None if value is None else float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _failure(row: Row) -> float | None:
    return _value(row["failure"]["augrc"])


def _foreign(row: Row) -> float | None:
    aurocs = [_value(each["auroc"]) for each in row["ood"].values()]
    mean = _mean(aurocs)
    return None if mean is None else -mean


def _corrupted(row: Row) -> float | None:
    return _value(row.get("corruptions", {}).get("far"))


def _attacked(attack: str) -> Callable[[Row], float | None]:
    def rank(row: Row) -> float | None:
        value = _value(row["attacks"].get(attack, {}).get("auroc"))
        return None if value is None else -value

    return rank


def _clean(row: Row) -> float | None:
    found = [each for each in row.get("selective", ()) if abs(each["target_coverage"] - GATE_COVERAGE) < 1e-9]
    return _value(found[0]["false_accept_rate"]) if found else None


def _accepted_foreign(row: Row) -> float | None:
    return _mean([_value(each.get("accepted")) for each in row["ood"].values()])


def unwarned(row: Row) -> float | None:
    """What a gate on this score lets through without a warning: the mean of three shares at one threshold.

    Wrong and accepted clean frames, wrong and accepted corrupted frames, accepted foreign frames (mean over the sets),
    at the threshold for 95 % clean coverage. What was not measured for a row is left out of its mean.
    """
    shares = [value for rate in (_clean, _corrupted, _accepted_foreign) if (value := rate(row)) is not None]
    return _mean(shares)


def choose_best(rows: Sequence[Row], attack: str) -> dict[str, Any]:
    """The best score for each purpose.

    ``failure``: lowest AUGRC on clean frames. ``corruption``: fewest false accepts on corrupted frames at the threshold
    for 95 % clean coverage. ``ood``: highest mean AUROC over the foreign sets. ``attack``: highest AUROC against
    ``attack``, which does not adapt to it. ``overall``: least `unwarned`. Attacks do not count there,
    because every single score falls to an attack that knows it.

    Args:
        rows: The report's scores.
        attack: Key of the attack that detection is judged on.

    Returns:
        Purpose -> name of the score, None where it was not measured; ``why``: the rules in one sentence.
    """
    purposes: dict[str, Callable[[Row], float | None]] = {
        "failure": _failure,
        "corruption": _corrupted,
        "ood": _foreign,
        "attack": _attacked(attack),
        "overall": unwarned,
    }
    best: dict[str, Any] = {}
    for purpose, rank in purposes.items():
        ranked = [(value, row["name"]) for row in rows if (value := rank(row)) is not None]
        best[purpose] = min(ranked)[1] if ranked else None
    best["why"] = (
        "failure: lowest AUGRC on clean frames; corruption: fewest false accepts at 95 % clean coverage; ood: highest "
        f"mean AUROC over the foreign sets; attack: highest AUROC against {attack}, which does not adapt; overall: "
        "fewest clean, corrupted and foreign frames let through without a warning at 95 % clean coverage (mean of the "
        "three shares)"
    )
    return best
