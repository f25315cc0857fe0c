"""How long an evaluation may still take, from the pace of the parts that are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from framegate.models.training.batches import Progress

_SAID_FROM = 0.01
"""Share of the work from which on an estimate is given."""
_SETTLED_S = 2.0


class Estimate:
    """A progress callback that says how long the whole work may still take beside what is being done.

    Args:
        parts: Part -> its size, in passes of one frame through the network.
        progress: Who is told.
        clock: Seconds; for tests.
    """

    def __init__(
        self, parts: Mapping[str, float], progress: Progress, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._left, self._progress, self._clock = dict(parts), progress, clock
        self._done = self._seconds = 0.0
        self._current: tuple[str, float] | None = None
        self._fraction = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Work on a part; one that is not known counts nothing, and so do parts within it."""
        if self._current is not None or name not in self._left:
            yield
            return
        self._current, self._fraction = (name, self._clock()), 0.0
        try:
            yield
        finally:
            _, begun = self._current
            self._current = None
            self._seconds += self._clock() - begun
            self._done += self._left.pop(name)

    def skip(self, name: str) -> None:
        """A part that is not made: it was kept from an earlier run."""
        if self._current is None:
            self._left.pop(name, None)

    def seconds_left(self) -> float | None:
        """For all parts that are not done; None while too little is known."""
        size, seconds, running = self._done, self._seconds, 0.0
        if self._current is not None:
            name, begun = self._current
            running = self._left[name] * self._fraction
            size, seconds = size + running, seconds + self._clock() - begun
        left = sum(self._left.values()) - running
        if seconds < _SETTLED_S or size < _SAID_FROM * (size + left):
            return None
        return seconds / size * left

    def __call__(self, description: str, done: int, total: int) -> None:
        """See `framegate.models.training.batches.Progress`."""
        if total:
            self._fraction = max(self._fraction, 0.95 * done / total)  # a part may count to its total more than once
        left = self.seconds_left()
        if left is not None:
            description += f" (whole work: about {duration(left)} left)"
        self._progress(description, done, total)


def duration(seconds: float) -> str:
    """A time for people: seconds below two minutes, then minutes, then hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
