"""A small bounded queue between two threads that either overwrites the oldest item or makes the writer wait.

With capacity 1 and overwriting it is the one-slot mailbox of the capture thread: the reader always gets the newest
frame. The standard queue has no overwriting put.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
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
        self._closed = False
        self._spin_ns = round(spin_us * 1000)
        # A signal handler that stops the pipeline may call `close` while this very thread is in `take`.
        self._guard = threading.RLock()
        # A thread waits by acquiring one of these. A condition variable would do the same, but makes a lock for every
        # wait and takes some twenty calls between the two threads, all of them while somebody waits for a verdict.
        self._filled, self._room = threading.Lock(), threading.Lock()
        self._filled.acquire()
        self._room.acquire()
        self.overwritten = 0
        """How many items were dropped unread."""

    def put(self, item: T, timeout: float | None = None) -> bool:
        """Add an item; False if it was not taken: the channel is closed, or stayed full for ``timeout`` seconds."""
        end, too_late = None if timeout is None else time.monotonic() + timeout, False
        while True:
            with self._guard:
                if self._closed:
                    _release(self._room)  # wakes the next thread that waits
                    return False
                full = len(self._items) >= self._capacity
                if self._overwrite or not full:
                    if full:
                        self._items.popleft()
                        self.overwritten += 1
                    self._items.append(item)
                    if len(self._items) < self._capacity:
                        _release(self._room)
                    _release(self._filled)
                    return True
            if too_late:
                return False
            too_late = not _acquire(self._room, end)  # after the timeout look once more

    def take(self, timeout: float | None = None) -> T | None:
        """The oldest item; None when the channel is closed and empty, or after ``timeout`` seconds."""
        if self._spin_ns:
            self._spin()
        end, too_late = None if timeout is None else time.monotonic() + timeout, False
        while True:
            with self._guard:
                if self._items:
                    item = self._items.popleft()
                    if self._items:
                        _release(self._filled)  # wakes the next thread that waits
                    _release(self._room)
                    return item
                if self._closed:
                    _release(self._filled)
                    return None
            if too_late:
                return None
            too_late = not _acquire(self._filled, end)  # after the timeout look once more

    def _spin(self) -> None:
        end = time.monotonic_ns() + self._spin_ns
        while not self._items and not self._closed and time.monotonic_ns() < end:
            # Not 0: a thread that releases the interpreter and takes it back at once leaves no turn to those that wait.
            time.sleep(_LOOK_S)

    @property
    def interrupted(self) -> bool:
        """Whether a signal handler asks that has interrupted this thread in here: others cannot go on before it can."""
        owned: bool = self._guard._is_owned()  # type: ignore[attr-defined] # as threading.Condition asks its lock
        return owned

    @property
    def closed(self) -> bool:
        """Whether no further items are taken."""
        return self._closed

    @property
    def finished(self) -> bool:
        """True when closed and empty: `take` will only return None from now on."""
        with self._guard:
            return self._closed and not self._items

    def close(self) -> None:
        """No further items; those inside can still be taken."""
        with self._guard:
            self._closed = True
            _release(self._filled)
            _release(self._room)


def _release(lock: threading.Lock) -> None:
    """Wake one that waits for this lock, now or later; called under the guard, so never by two threads at once."""
    if lock.locked():
        with suppress(RuntimeError):  # `close`, called by a signal handler just now, has released it
            lock.release()


def _acquire(lock: threading.Lock, end: float | None) -> bool:
    """Sleep until somebody releases it; False if nobody did until this monotonic time."""
    return lock.acquire() if end is None else lock.acquire(timeout=max(0.0, end - time.monotonic()))
