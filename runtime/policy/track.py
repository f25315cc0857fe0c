"""The rule of a track: when what single frames of one object say may be used.

An object is seen on many frames while the car comes nearer, and its first frames, small and blurred, are the ones that
are named wrongly. A track is confirmed when M of its last N frames were accepted by the gate and the last K accepted
ones had the same label; until then its frames are UNCONFIRMED. **Another label starts anew**: nothing of the past
counts for it. A frame on which the track was not seen counts as one that was not accepted.

The rule only ever rejects: a frame that the gate rejects stays rejected, however well its track is confirmed.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from framegate.runtime.errors import UsageError
from framegate.runtime.verdict import NO_FINDINGS, Findings, Reason

_LONGEST = 10_000


@dataclass(frozen=True, slots=True)
class TrackRule:
    """When a track is confirmed. See the module.

    Attributes:
        m: Accepted frames that are needed among the last ``n`` of the track, 1 <= m <= n.
        n: See ``m``, in frames.
        k: Accepted frames that are needed with the same label, with no other accepted label between them, 1 or more.
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
                f"track rule {self}: expected M/N/K with 1 <= M <= N and K >= 1, whole numbers up to {_LONGEST}"
            )

    @classmethod
    def parse(cls, text: str) -> TrackRule:
        """Read ``M/N/K`` of a command line.

        Raises:
            UsageError: It is none.
        """
        parts = [part.strip() for part in text.split("/")]
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
            raise UsageError(f"track rule {text!r}: expected M/N/K in whole numbers, e.g. 2/3/2")
        return cls(*map(int, parts))

    @property
    def delay(self) -> int:
        """Frames of an object that are not used although every one of them is accepted with the same label."""
        return max(self.m, self.k) - 1

    @property
    def longest_delay(self) -> int:
        """The same where only M of any N frames in a row are accepted: what the rule itself takes at worst."""
        return self.n * math.ceil(max(self.m, self.k) / self.m) - 1

    def describe(self, fps: float | None) -> str:
        """The rule and its delays in one sentence.

        Args:
            fps: Frames per second that are judged; None if unknown.
        """

        def time(frames: int) -> str:
            unit = "frame" if frames == 1 else "frames"
            return f"{frames} {unit} ({frames * 1000.0 / fps:.0f} ms at {fps:g} fps)" if fps else f"{frames} {unit}"

        if (self.m, self.k) == (1, 1):
            return "tracks: every accepted frame is used at once (rule 1/1/1)"
        rare = f", one accepted on just {self.m} of every {self.n} at most {time(self.longest_delay)} after it"
        some = "" if self.m == self.n == 1 else f"{self.m} of the last {self.n} frames were accepted and "
        return (
            f"tracks (rule {self}): used when {some}the last {self.k} accepted labels are equal; an object that is "
            f"accepted on every frame is used {time(self.delay)} after its first one"
            f"{rare if some else ''}, and the same again after each change of its label"
        )

    def __str__(self) -> str:
        return f"{self.m}/{self.n}/{self.k}"


class TrackGate:
    """Applies the rule to one track, frame by frame.

    Args:
        rule: The rule.
    """

    def __init__(self, rule: TrackRule) -> None:
        self._rule = rule
        self._seen: deque[bool] = deque(maxlen=rule.n)
        self._label = ""
        self._agreeing = 0

    def missed(self, frames: int) -> None:
        """The track was not seen for so many frames."""
        self._seen.extend([False] * min(frames, self._rule.n))

    def decide(self, accepted: bool, label: str) -> Findings:
        """UNCONFIRMED, unless the track is confirmed with this frame.

        Args:
            accepted: There is no reason against this frame.
            label: The most probable label of this frame.
        """
        if accepted and label != self._label:
            self._label, self._agreeing = label, 0
            self._seen.clear()
        self._seen.append(accepted)
        self._agreeing += accepted
        if not accepted:
            return NO_FINDINGS  # it is rejected for what it is
        times, rule = sum(self._seen), self._rule
        if times >= rule.m and self._agreeing >= rule.k:
            return NO_FINDINGS
        return {
            Reason.UNCONFIRMED: (
                f"{label!r} on {self._agreeing} accepted frames of the track, {times} of its last {rule.n}; "
                f"the rule {rule} asks for {rule.k} and {rule.m}"
            )
        }
