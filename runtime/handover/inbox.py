"""Messages that another thread brings, for a receiver that takes them when it likes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator

HELD = 4096
"""Messages that wait for a receiver at most; a newer one then takes the oldest one's place."""


class Inbox:
    """Any threads put messages in, one thread takes them out.

    Args:
        name: The address, for people.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._waiting: deque[tuple[bytes, int]] = deque(maxlen=HELD)
        self._came = threading.Event()

    def put(self, data: bytes) -> None:
        """Called by whatever brings a message; never waits."""
        self._waiting.append((data, time.monotonic_ns()))
        if not self._came.is_set():
            self._came.set()

    def receive(self, timeout_s: float) -> tuple[bytes, int] | None:
        """The next message and when it came; None if none comes in time."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                return self._waiting.popleft()
            except IndexError:
                pass
            # Cleared before the last look: what comes after it sets the event again.
            self._came.clear()
            if self._waiting:
                continue
            left = until - time.monotonic()
            if not (left > 0 and self._came.wait(left)):
                return None

    def waiting(self) -> Iterator[tuple[bytes, int]]:
        """All messages that wait, the oldest first."""
        for _ in range(HELD):
            received = self.receive(0)
            if received is None:
                return
            yield received

    def close(self) -> None:
        """Take no more; can be called twice."""
