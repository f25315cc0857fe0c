"""A small bounded queue between two threads that either overwrites the oldest item or makes the writer wait.

With capacity 1 and overwriting it is the one-slot mailbox of the capture thread: the reader always gets the newest
frame. The standard queue has no overwriting put.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")
_LOOK_S = 10e-6


class Channel(Generic[T]):
    """One writer, one reader.

    Args:
        capacity: Items held at most, at least 1.
        overwrite: When full, drop the oldest item instead of waiting for the reader.
        spin_us: How long the reader looks again and again before it sleeps, in microseconds. It saves the waking,
            which takes tens of microseconds, and costs the processor time.
    """

    def __init__(self, capacity: int, overwrite: bool, spin_us: float = 0.0) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._overwrite = overwrite
        self._condition = threading.Condition()
        self._closed = False
        self._spin_ns = round(spin_us * 1000)
        self.overwritten = 0
        """How many items were dropped unread."""

    def put(self, item: T, timeout: float | None = None) -> bool:
        """Add an item; False if it was not taken: the channel is closed, or stayed full for ``timeout`` seconds."""
        with self._condition:
            if not self._overwrite:
                self._condition.wait_for(lambda: self._closed or len(self._items) < self._capacity, timeout)
                if len(self._items) >= self._capacity:
                    return False
            if self._closed:
                return False
            if len(self._items) >= self._capacity:
                self._items.popleft()
                self.overwritten += 1
            self._items.append(item)
            self._condition.notify_all()
            return True

    def take(self, timeout: float | None = None) -> T | None:
        """The oldest item; None when the channel is closed and empty, or after ``timeout`` seconds."""
        if self._spin_ns:
            self._spin()
        with self._condition:
            if not self._condition.wait_for(lambda: self._items or self._closed, timeout) or not self._items:
                return None
            item = self._items.popleft()
            if not self._overwrite:
                self._condition.notify_all()
            return item

    def _spin(self) -> None:
        end = time.monotonic_ns() + self._spin_ns
        while not self._items and not self._closed and time.monotonic_ns() < end:
            # Not 0: a thread that releases the interpreter and takes it back at once leaves no turn to those that wait.
            time.sleep(_LOOK_S)

    @property
    def closed(self) -> bool:
        """Whether no further items are taken."""
        with self._condition:
            return self._closed

    @property
    def finished(self) -> bool:
        """True when closed and empty: `take` will only return None from now on."""
        with self._condition:
            return self._closed and not self._items

    def close(self) -> None:
        """No further items; those inside can still be taken."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
