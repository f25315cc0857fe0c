"""What is remembered of every track: its policy, its rule, when it was first used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from framegate.runtime.policy.stream import StreamPolicy
from framegate.runtime.policy.track import TrackGate, TrackRule
from framegate.runtime.regions.intake import Pixels
from framegate.runtime.regions.tracker import PATIENCE, iou

_MOST = 256
"""Tracks that are remembered at once; the one that was not seen for longest is forgotten first."""
_JUMP = 2.0
"""A track whose centre moves further than so many times its larger side, per frame, is another object."""


@dataclass(slots=True)
class TrackCounts:
    """What became of the tracks of a stream.

    Attributes:
        begun: Tracks that were seen.
        used: Those of them with an accepted verdict.
        ended: Those that were not seen any more.
        jumped: How often a number turned up so far away that its memory was started anew.
        waits: Frames to the first accepted verdict, from 1 -> how many tracks.
    """

    begun: int = 0
    used: int = 0
    ended: int = 0
    jumped: int = 0
    waits: Counter[int] = field(default_factory=Counter)


class TrackState:
    """One track.

    Attributes:
        number: Its own.
        policy: What several frames of it show.
        gate: Its rule.
        age: Frames since it began, the present one included, also those on which it was not seen.
        certified: Number of the label that was certified on one of its frames; None before.
    """

    __slots__ = ("_used", "age", "began", "certified", "frame_id", "gate", "number", "pixels", "policy")

    def __init__(self, number: int, policy: StreamPolicy, rule: TrackRule, pixels: Pixels, frame_id: int) -> None:
        self.number = number
        self.policy, self.gate = policy, TrackGate(rule)
        self.pixels, self.frame_id, self.began = pixels, frame_id, frame_id
        self.age = 1
        self.certified: int | None = None
        self._used = False

    def first_use(self) -> bool:
        """Whether it is used for the first time; to be called for accepted verdicts."""
        first, self._used = not self._used, True
        return first


class TrackMemory:
    """The tracks of one stream. Not thread-safe.

    Args:
        new_policy: Makes the policy of a new track.
        rule: When a track may be used.
        patience: A track that was not seen for more frames starts anew when it comes back.
        counter_examples: Streams whose drift is not watched, see `Policy`.
    """

    def __init__(
        self,
        new_policy: Callable[[], StreamPolicy],
        rule: TrackRule,
        patience: int = PATIENCE,
        counter_examples: Collection[str] = (),
    ) -> None:
        self.counts = TrackCounts()
        self._counter_examples = counter_examples
        self._new_policy, self._rule, self._patience = new_policy, rule, patience
        self._tracks: dict[int, TrackState] = {}

    def see(self, number: int, pixels: Pixels, frame_id: int, stream: str = "") -> TrackState:
        """The track with this number, on this frame; ``stream`` is the region's name, if it has one."""
        track = self._tracks.get(number)
        if track is not None and self._is_another(track, pixels, frame_id):
            self.counts.jumped += 1
            self.counts.ended += 1
            track = None
        if track is None:
            policy = self._new_policy()
            if stream in self._counter_examples:
                policy.ignore_drift()
            track = TrackState(number, policy, self._rule, pixels, frame_id)
            self._tracks.pop(number, None)
            self._tracks[number] = track
            self.counts.begun += 1
            self._forget_some()
            return track
        track.gate.missed(max(0, frame_id - track.frame_id - 1))
        track.pixels, track.frame_id, track.age = pixels, frame_id, frame_id - track.began + 1
        return track

    def used(self, track: TrackState) -> None:
        """Its verdict on this frame was accepted."""
        if track.first_use():
            self.counts.used += 1
            self.counts.waits[track.age] += 1

    def end_unseen(self, frame_id: int) -> None:
        """Forget what was not seen for longer than the patience."""
        gone = [n for n, track in self._tracks.items() if frame_id - track.frame_id > self._patience + 1]
        for number in gone:
            del self._tracks[number]
        self.counts.ended += len(gone)

    def end(self, number: int) -> None:
        """Forget the track with this number, if there is one: it is not known any more which object it is."""
        self.counts.ended += self._tracks.pop(number, None) is not None

    def reset_drift(self) -> None:
        """End every track's drift alarm."""
        for track in self._tracks.values():
            track.policy.reset()

    def _is_another(self, track: TrackState, pixels: Pixels, frame_id: int) -> bool:
        """Whether a number stands for another object now. The same frame twice is not judged here."""
        steps = frame_id - track.frame_id
        if steps <= 0 or iou(track.pixels, pixels) > 0:
            return False
        (x, y, w, h), (a, b, c, d) = track.pixels, pixels
        moved = max(abs(x + w / 2 - a - c / 2), abs(y + h / 2 - b - d / 2))
        return moved > _JUMP * steps * max(w, h, c, d)

    def _forget_some(self) -> None:
        while len(self._tracks) > _MOST:
            oldest = min(self._tracks, key=lambda number: self._tracks[number].frame_id)
            del self._tracks[oldest]
            self.counts.ended += 1
