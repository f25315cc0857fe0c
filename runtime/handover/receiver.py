"""The receiver of one stream: bytes in, and whether the newest verdict may be used now."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping

from framegate.runtime.errors import UsageError
from framegate.runtime.handover.config import ReceiverConfig
from framegate.runtime.handover.machine_native import machine_for
from framegate.runtime.handover.reading import Fault, Reading, WhyNot

__all__ = ["Receiver", "ReceiverConfig"]
# Plain numbers: each operation on the flags themselves takes a microsecond.
_NOT_ALIVE, _NOT_FRESH = int(WhyNot.NOT_ALIVE), int(WhyNot.NOT_FRESH)
_CLOCK_WENT_BACK = int(WhyNot.CLOCK_WENT_BACK)


class Receiver:
    """Decides whether the verdicts of one stream may be used. One thread feeds it, any thread may read.

    Args:
        config: What it expects.
        labels: Of the classes, for `Reading.label`; empty if they are not needed.
        compiled: Use the state machine in C where it was compiled, which takes a fraction of the time; False takes the
            one in Python. They do the same.

    Attributes:
        config: What it expects.
    """

    def __init__(self, config: ReceiverConfig, labels: tuple[str, ...] = (), *, compiled: bool = True) -> None:
        self.config = config
        self._labels = labels
        self._writing = threading.RLock()
        self._machine = machine_for(config, compiled)

    @property
    def faults(self) -> Counter[Fault]:
        """How often each fault was found since the start."""
        return self._machine.faults

    @property
    def received(self) -> int:
        """Messages fed."""
        return self._machine.received

    @property
    def good(self) -> int:
        """Messages without a fault."""
        return self._machine.good

    @property
    def lost_messages(self) -> int:
        """Messages that the counters show to be missing, within one epoch."""
        return self._machine.lost_messages

    def feed(self, data: bytes, arrival_ns: int | None = None) -> Fault:
        """Take one message.

        Args:
            data: Its bytes, whatever they are.
            arrival_ns: When it came, on the receiver's monotonic clock; None is now.

        Returns:
            What was wrong with it; MISSED, NEW_EPOCH and NEW_TRACK speak of what came before it, and the message itself
            is good.

        Raises:
            UsageError: A signal handler calls it that has interrupted another call in this thread.
        """
        arrival = time.monotonic_ns() if arrival_ns is None else arrival_ns
        self._require_idle()
        with self._writing:
            return self._machine.feed(bytes(data), arrival)

    def verdict(self, now_ns: int | None = None) -> Reading:
        """The newest verdict, and whether it may be used. Never waits, changes nothing, can be called from any thread.

        Args:
            now_ns: The receiver's monotonic clock; None is now.
        """
        # First the snapshot, then the clock: a message in between must not seem to come from the future.
        why, state, message, ends_ns, arrival_ns, good_ns = self._machine.standing
        now = time.monotonic_ns() if now_ns is None else now_ns
        if not now >= arrival_ns:
            why |= _CLOCK_WENT_BACK
        if not now - good_ns <= self.config.alive_ns:
            why |= _NOT_ALIVE
        if message is None or not now <= ends_ns:
            why |= _NOT_FRESH
        return Reading(why, state, message, self._labels, ends_ns)

    def release(self, now_ns: int | None = None) -> bool:
        """Leave LATCHED, if the cause is gone: for people, or for what has looked into the cause.

        Args:
            now_ns: The receiver's monotonic clock; None is now.

        Returns:
            Whether the receiver is not latched any more. False: good messages are missing since the fault, or it was
            too short a time ago.

        Raises:
            UsageError: See `feed`.
        """
        now = time.monotonic_ns() if now_ns is None else now_ns
        self._require_idle()
        with self._writing:
            return self._machine.release(now)

    def restart(self) -> None:
        """Forget epoch, bundle, latch and everything proven, as a new receiver would; the counts stay.

        Raises:
            UsageError: See `feed`.
        """
        self._require_idle()
        with self._writing:
            self._machine.restart()

    def _require_idle(self) -> None:
        # A signal handler runs in the thread that it interrupts: it would wait for ever for that thread to go on.
        if self._writing._is_owned():  # type: ignore[attr-defined] # as threading.Condition asks its lock
            raise UsageError(
                "this receiver is at work on a message, which a signal handler has interrupted; set a flag there, and "
                "call feed(), release() or restart() from the loop"
            )

    def counts(self) -> Mapping[str, int]:
        """Counts of messages and of every kind of fault, by name."""
        numbers = {"received": self.received, "good": self.good, "lost_messages": self.lost_messages}
        return numbers | {fault.name.lower(): self.faults[fault] for fault in Fault if fault}
