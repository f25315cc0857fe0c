"""How many frames a reason needs to fall into rejection, and how many clean ones to come back.

A soft reason (the picture is blurred, a signal has shifted) may flicker on single frames; M of the last N frames keeps
such flicker from the driving logic at the price of a stated delay. A hard reason makes this very frame unusable, so
nothing may delay it; coming back can be delayed for both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from framegate.runtime.errors import UsageError
from framegate.runtime.verdict import Reason

SOFT = frozenset(
    (
        Reason.ACTIVATION_SHIFT,
        Reason.BLURRED,
        Reason.NOISY,
        Reason.LOW_CONTRAST,
        Reason.COLOUR_LOST,
        Reason.DRIFT,
    )
)
"""Reasons that may wait for M of the last N frames. Of ACTIVATION_SHIFT only what a window of the stream found may: the
calibrated promise counts frames outside a single-frame limit as rejected."""
HARD = frozenset(Reason) - SOFT
"""Reasons that reject at once, whatever is configured. HIGH_SCORE is one of them: the calibrated promise counts every
frame above the threshold as rejected, so a frame let through by a debounce would break it."""
BLIND = frozenset(
    (
        Reason.BAD_INPUT,
        Reason.WRONG_SIZE,
        Reason.BACKEND_FAULT,
        Reason.NOT_FINITE,
        Reason.BLACK,
        Reason.FROZEN,
        Reason.STALE_FRAME,
    )
)
"""Frames with one of these show nothing of the present scene: they are evidence neither for nor against a soft reason,
and do not count as clean."""
_AFTER = {
    Reason.LATE: "it is judged at publication, for each frame alone",
    Reason.EXPIRED: "it is judged when a verdict is read",
    Reason.NO_FRAME: "it says that there is no frame, and ends with the next one",
    Reason.UNCONFIRMED: "it is judged after the policy, by the rule of the track (--track-rule)",
}
"""Reasons that the policy of a stream never sees, and why."""
_LONGEST = 10_000


@dataclass(frozen=True, slots=True)
class Debounce:
    """The rule of one reason.

    Attributes:
        m: Fall into rejection when this many of the last ``n`` frames had the reason, 1 <= m <= n.
        n: See ``m``, in frames.
        k: Come back with the k-th clean frame in a row; the k - 1 before it are still rejected.
    """

    m: int = 1
    n: int = 1
    k: int = 1

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UsageError: They are not whole numbers with 1 <= m <= n and k >= 1, or beyond 10,000 frames.
        """
        numbers = (self.m, self.n, self.k)
        whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
        if not (whole and 1 <= self.m <= self.n <= _LONGEST and 1 <= self.k <= _LONGEST):
            raise UsageError(
                f"debounce {self}: expected M/N/K with 1 <= M <= N and K >= 1, whole numbers up to {_LONGEST}"
            )

    @property
    def delay(self) -> int:
        """Frames with a lasting reason that are accepted before the first rejection."""
        return self.m - 1

    @property
    def longest_delay(self) -> int:
        """Frames from the first with the reason to the rejection, at worst, once M of N have it.

        Of any N frames in a row at most `delay` with the reason are accepted.
        """
        return self.n - 1 if self.m > 1 else 0

    @property
    def hold(self) -> int:
        """Clean frames that are still rejected after the last one with the reason."""
        return self.k - 1

    def __str__(self) -> str:
        return f"{self.m}/{self.n}/{self.k}"


def check_rule(reason: Reason, rule: Debounce) -> None:
    """Refuse what a reason cannot have.

    Raises:
        UsageError: A hard reason shall wait, or one that is not judged by the policy shall be held.
    """
    if reason in _AFTER:
        raise UsageError(f"{reason} cannot be debounced: {_AFTER[reason]}")
    if reason in HARD and rule.m > 1:
        soft = ", ".join(sorted(SOFT))
        raise UsageError(
            f"debounce {reason}={rule}: {reason} always rejects at once, only K can be set ({reason}=1/1/{rule.k}); "
            f"M of N is for {soft}"
        )


def parse_debounce(texts: list[str]) -> dict[Reason, Debounce]:
    """Read ``REASON=M/N/K`` of a command line, e.g. ``BLURRED=3/5/10``.

    Raises:
        UsageError: Unknown reason, not three whole numbers, a reason given twice, or one that cannot have this rule.
    """
    rules: dict[Reason, Debounce] = {}
    for text in texts:
        name, _, numbers = (part.strip() for part in text.partition("="))
        parts = [part.strip() for part in numbers.split("/")]
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise UsageError(f"debounce {text!r}: expected REASON=M/N/K in whole numbers, e.g. BLURRED=3/5/10")
        if name.upper() not in Reason.__members__:
            raise UsageError(f"debounce {text!r}: unknown reason; reasons are {', '.join(sorted(Reason))}")
        reason = Reason(name.upper())
        if reason in rules:
            raise UsageError(f"debounce {text!r}: {reason} was already given as {rules[reason]}")
        rule = Debounce(*map(int, parts))
        check_rule(reason, rule)
        rules[reason] = rule
    return rules


class _State:
    """What is remembered of one reason."""

    __slots__ = ("clean", "rejecting", "rule", "seen")

    def __init__(self, rule: Debounce) -> None:
        self.rule = rule
        self.seen: deque[bool] = deque(maxlen=rule.n)
        self.rejecting = False
        self.clean = 0

    def saw(self, present: bool) -> None:
        """Take one frame that could be judged for this reason."""
        self.seen.append(present)
        if present:
            self.clean = 0
            # The past stays in memory when the stream comes back, so a reason that returns soon takes effect sooner.
            self.rejecting = self.rejecting or sum(self.seen) >= self.rule.m
        elif self.rejecting:
            self.clean += 1
            self.rejecting = self.clean < self.rule.k


class Debouncer:
    """Applies the rules to one stream, frame by frame.

    Args:
        rules: Reasons without one reject at once and come back at once.

    Attributes:
        may_wait: Reasons with which a frame may be accepted all the same.
    """

    def __init__(self, rules: Mapping[Reason, Debounce]) -> None:
        self._states = {reason: _State(rule) for reason, rule in rules.items()}
        self.may_wait = frozenset(reason for reason, rule in rules.items() if rule.m > 1)

    @property
    def has_rules(self) -> bool:
        """False: `decide` gives back what it was given."""
        return bool(self._states)

    def decide(self, reasons: tuple[Reason, ...], certain: tuple[Reason, ...] = ()) -> tuple[Reason, ...]:
        """The reasons that count for this frame.

        Args:
            reasons: Everything found on this frame.
            certain: Soft ones among them that may not wait this time.

        Returns:
            All hard and certain ones of ``reasons``, the soft ones that have fallen into rejection, and those that are
            held.
        """
        if not self._states:
            return reasons
        blind = not BLIND.isdisjoint(reasons)
        held: tuple[Reason, ...] = ()
        waiting: set[Reason] = set()
        for reason, state in self._states.items():
            present = reason in reasons
            if present or not blind:
                state.saw(present)
            if present and not state.rejecting and reason not in certain:
                waiting.add(reason)
            elif state.rejecting and not present:
                held += (reason,)
        # Hard reasons pass whatever their state says: no rule can turn one into ACCEPT.
        return tuple(reason for reason in reasons if reason in HARD or reason not in waiting) + held
