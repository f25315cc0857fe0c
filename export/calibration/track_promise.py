"""The promise for tracks: of the tracks at most a share r ever show a wrong accepted label.

The unit is a track, and what is counted is whether **any** of its used frames had a wrong label, so nothing is assumed
about how frames of a track depend on each other. Rules are tested one after the other, from the strictest to the
laxest, in an order that is fixed before anything is counted; each with the exact one-sided bound of Clopper and Pearson
at the full confidence level, until one fails. The last that passed is proved: a fixed sequence needs no correction
(Maurer, Hothorn and Lehmacher 1995).

It holds for tracks that are exchangeable with those that were counted, and only if neither thresholds nor rules were
chosen on them. Objects that a detector misses are not covered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from framegate.export.calibration.selective_risk import binomial_upper_bound, check_promise, images_needed
from framegate.runtime.policy.track import TrackRule


@dataclass(frozen=True)
class TrackPromise:
    """What was proved.

    Attributes:
        target_risk: The largest share of tracks that may ever show a wrong accepted label.
        confidence_level: With which probability it is kept.
        rule: The laxest rule that keeps it; None if none does.
        wrong: Tracks that ever showed a wrong accepted label under that rule; under the strictest one if none keeps it.
        tracks: Tracks that were counted, also those that were never used.
        bound: Upper bound of the share, at the confidence level.
        needed: Tracks without a single wrong one that would keep it.
    """

    target_risk: float
    confidence_level: float
    rule: TrackRule | None
    wrong: int
    tracks: int
    bound: float
    needed: int

    def describe(self) -> str:
        """The promise, or why there is none, in one sentence."""
        found = f"{self.wrong} of {self.tracks} tracks were ever wrong, bound {self.bound:.2%}"
        if self.rule is None:
            return (
                f"no rule keeps {self.target_risk:.2%} with probability {self.confidence_level:.0%}: under the "
                f"strictest {found}; {self.needed} tracks without a wrong one would do"
            )
        return (
            f"rule {self.rule}: at most {self.target_risk:.2%} of the tracks ever show a wrong accepted label, with "
            f"probability {self.confidence_level:.0%} ({found}; objects that are missed are not covered)"
        )

    def to_json(self) -> dict[str, Any]:
        """A record of plain JSON values."""
        return {**vars(self), "rule": None if self.rule is None else str(self.rule)}


def prove_rule(
    counted: Sequence[tuple[TrackRule, int]], tracks: int, target_risk: float, confidence_level: float
) -> TrackPromise:
    """Find the laxest rule that keeps a target.

    Args:
        counted: Each rule with its tracks that were ever wrong, **from the strictest to the laxest**, in an order that
            was fixed before they were counted.
        tracks: How many there are, at least one.
        target_risk: In (0, 1).
        confidence_level: In (0, 1).

    Raises:
        UsageError: The target or the confidence level is no share.
    """
    check_promise(target_risk, confidence_level)
    proved: TrackRule | None = None
    wrong = counted[0][1]
    bound = binomial_upper_bound(wrong, tracks, confidence_level)
    for rule, errors in counted:
        upper = binomial_upper_bound(errors, tracks, confidence_level)
        if not upper <= target_risk:
            break
        proved, wrong, bound = rule, errors, upper
    needed = images_needed(target_risk, confidence_level)
    return TrackPromise(target_risk, confidence_level, proved, wrong, tracks, bound, needed)
