"""The state machine of a receiver: what each message proves, and what speaks against using the newest verdict.

It is drawn in docs/handover.md. framegate_verdict.h is the same in C, which `framegate.runtime.handover.machine_native`
uses where it was compiled; one file of scenarios tests both.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple, Protocol

from framegate.runtime.handover.config import ReceiverConfig
from framegate.runtime.handover.message import (
    AUTHENTICATED_BYTES,
    HEARTBEAT,
    LATEST_NS,
    NOTHING,
    PLAIN_BYTES,
    SCENE,
    VERDICT,
    Envelope,
    VerdictMessage,
    contradiction,
    decode,
)
from framegate.runtime.handover.protection import COUNTERS, crc_holds, mac_holds
from framegate.runtime.handover.reading import Fault, State, WhyNot
from framegate.runtime.verdict import NO_FRAME_ID

WINDOW = 8
"""Verdicts on frames over which the rate is averaged."""
DRIFT = 5_000
"""The offset by arrival may grow by one nanosecond in so many: 200 millionths."""


class Standing(NamedTuple):
    """Everything that a reading needs. Replaced as a whole, so that no reader ever sees a half of it.

    Attributes:
        why: Why nothing may be used, as far as it does not depend on the time of reading.
        state: What the receiver is in.
        message: The newest good verdict.
        ends_ns: When it ends.
        arrival_ns: Of the last message.
        good_ns: Of the last good message; 0 before.
    """

    why: int
    state: State
    message: VerdictMessage | None
    ends_ns: int
    arrival_ns: int
    good_ns: int


class Machine(Protocol):
    """What a receiver asks of a state machine. One thread at a time calls it; any may read `standing`.

    Attributes:
        faults: How often each fault was found since the start.
        received: Messages fed.
        good: Messages without a fault.
        lost_messages: Messages that the counters show to be missing, within one epoch.
        standing: What is known now.
    """

    faults: Counter[Fault]
    received: int
    good: int
    lost_messages: int
    standing: Standing

    def feed(self, data: bytes, arrival: int) -> Fault:
        """Take one message; see `Receiver.feed`."""

    def release(self, now: int) -> bool:
        """Leave LATCHED; see `Receiver.release`."""

    def restart(self) -> None:
        """Forget everything but the counts."""


# Plain numbers: each operation on the flags themselves takes a microsecond.
_NOT_ALIVE, _NOT_IN_RATE, _NOT_IN_SEQUENCE = (
    int(WhyNot.NOT_ALIVE),
    int(WhyNot.NOT_IN_RATE),
    int(WhyNot.NOT_IN_SEQUENCE),
)
_NOT_FRESH, _NOT_VALID, _NOT_PROVEN = int(WhyNot.NOT_FRESH), int(WhyNot.NOT_VALID), int(WhyNot.NOT_PROVEN)
_LATCHED, _REJECTED, _CLOCK_WENT_BACK = int(WhyNot.LATCHED), int(WhyNot.REJECTED), int(WhyNot.CLOCK_WENT_BACK)


class PythonMachine:
    """The state machine in Python. Attributes are those of `Machine`.

    Args:
        config: What it expects.
    """

    def __init__(self, config: ReceiverConfig) -> None:
        self.config = config
        self.faults: Counter[Fault] = Counter()
        self.received = self.good = self.lost_messages = 0
        self.restart()

    def restart(self) -> None:
        """Forget everything but the counts."""
        self._arrival_ns = 0
        self._epoch: int | None = None
        self._clock_domain = 0
        self._bundle, self._calibration = self.config.bundle, self.config.calibration
        self._classes = self.config.classes
        self._counter = self._sent_ns = 0
        self._frame_id = NO_FRAME_ID
        self._good_ns: int | None = None
        self._in_a_row = 0
        self._in_sequence = self._valid = False
        self._state = State.DO_NOT_USE
        self._grave_ns = 0
        self._held: VerdictMessage | None = None
        self._ends_ns = 0
        self._frames: deque[int] = deque(maxlen=WINDOW)
        self._in_rate = False
        self._offset_domain: int | None = None
        self._offset_ns = self._offset_at_ns = 0
        self._publish()

    def feed(self, data: bytes, arrival: int) -> Fault:
        """Take one message; see `Receiver.feed`."""
        self.received += 1
        fault = self._judge(data, arrival)
        if fault:
            self.faults[fault] += 1
        self._settle()
        self._publish()
        return fault

    def release(self, now: int) -> bool:
        """Leave LATCHED; see `Receiver.release`."""
        if self._state is not State.LATCHED:
            return True
        proven = self._proven() and self._good_ns is not None and self._in_rate
        alive = proven and 0 <= now - (self._good_ns or 0) <= self.config.alive_ns
        if not (alive and now - self._grave_ns >= self.config.quiet_ns):
            return False
        self._state, self._in_a_row = State.DO_NOT_USE, 0
        self._publish()
        return True

    def _judge(self, data: bytes, arrival: int) -> Fault:
        """Check one message and take it if it is good."""
        if not self._arrival_ns <= arrival <= LATEST_NS:  # the receiver's own clock stands on its head
            return self._bad(Fault.FUTURE, self._arrival_ns)
        self._arrival_ns = arrival
        fault, envelope, message = self._opened(data)
        if fault or envelope is None or message is None:
            return self._bad(fault, arrival)
        fault = self._content_fault(envelope, message)
        if fault:
            return self._bad(fault, arrival)
        offset, uncertainty = self._clock(message, arrival)
        fault = self._time_fault(message, arrival, offset, uncertainty)
        if fault:
            return self._bad(fault, arrival)
        before = self._missed(arrival)
        if self._epoch is None or message.epoch > self._epoch:
            if self._epoch is not None:
                if before:
                    self.faults[before] += 1
                before = self._start_again(Fault.NEW_EPOCH)
            self._begin(message)
        elif fault := self._sequence_fault(envelope, message):
            if before:
                self.faults[before] += 1
            return self._bad(fault, arrival)
        if self._is_another(message):
            if before:
                self.faults[before] += 1
            before = self._bad(Fault.NEW_TRACK, arrival)
        self._take(envelope, message, arrival, offset - uncertainty)
        return before

    def _is_another(self, message: VerdictMessage) -> bool:
        """Whether the held verdict speaks of another object: nothing that was proven holds for this one."""
        return self._held is not None and message.kind != HEARTBEAT and message.track != self._held.track

    def _missed(self, arrival: int) -> Fault:
        """Whether no good message came for too long, or the held verdict ended before anything newer came."""
        if self._good_ns is None:
            return Fault.NONE
        silent = arrival - self._good_ns > self.config.alive_ns
        ended = self._held is not None and arrival > self._ends_ns
        return self._start_again(Fault.MISSED) if silent or ended else Fault.NONE

    def _opened(self, data: bytes) -> tuple[Fault, Envelope | None, VerdictMessage | None]:
        """What protects a message, from the outside to the inside."""
        if len(data) not in (PLAIN_BYTES, AUTHENTICATED_BYTES) or int.from_bytes(data[:2], "big") != len(data):
            return Fault.TRUNCATED, None, None
        if not crc_holds(data):
            return Fault.CORRUPTED, None, None
        envelope, message = decode(data)
        if envelope.data_id != self.config.data_id:
            return Fault.WRONG_ID, None, None
        if not envelope.known or envelope.authenticated != (len(data) == AUTHENTICATED_BYTES):
            return Fault.WRONG_VERSION, None, None
        key = self.config.key
        if envelope.authenticated != bool(key) or (key and not mac_holds(data, key)):
            return Fault.FORGED, None, None
        return Fault.NONE, envelope, message

    def _content_fault(self, envelope: Envelope, message: VerdictMessage) -> Fault:
        if contradiction(envelope, message) or message.kind not in (HEARTBEAT, SCENE if self.config.scene else VERDICT):
            return Fault.INVALID
        known = (self._bundle, self._calibration, self._classes)
        found = (message.bundle, message.calibration, message.classes)
        epoch = self._epoch
        if known != found:
            # Before the first good message, what was not configured may be anything.
            free = (NOTHING, NOTHING, 0) if epoch is None else (None, None, None)
            if any(one not in (other, any_one) for one, other, any_one in zip(known, found, free, strict=True)):
                return Fault.WRONG_BUNDLE
        if message.epoch < self.config.min_epoch or (epoch is not None and message.epoch < epoch):
            return Fault.WRONG_EPOCH
        # One start has one clock; a second one would begin the offset by arrival anew with every message.
        if message.epoch == epoch and message.clock_domain != self._clock_domain:
            return Fault.INVALID
        return Fault.NONE if message.captured_ns <= message.decided_ns <= message.sent_ns else Fault.FUTURE

    def _clock(self, message: VerdictMessage, arrival: int) -> tuple[int, int]:
        """The receiver's clock minus the sender's, as well as it is known, and how far that may be off."""
        domain = message.clock_domain
        if domain != 0 and domain == self.config.clock_domain:
            return 0, 0
        if domain != 0 and domain == self.config.offset_domain:
            return self.config.offset_ns, self.config.offset_uncertainty_ns
        return self._offset_by_arrival(message, arrival), 0

    def _time_fault(self, message: VerdictMessage, arrival: int, offset: int, uncertainty: int) -> Fault:
        way = arrival - message.sent_ns - offset
        if not way >= -(self.config.future_ns + uncertainty):
            if message.clock_domain == 0 or message.clock_domain not in (
                self.config.clock_domain,
                self.config.offset_domain,
            ):  # by arrival: the clocks changed, or all messages before were held up: begin anew
                self._offset_ns, self._offset_at_ns = arrival - message.sent_ns, arrival
            return Fault.FUTURE
        return Fault.NONE if way <= self.config.transit_ns + uncertainty else Fault.LATE

    def _offset_by_arrival(self, message: VerdictMessage, arrival: int) -> int:
        seen = arrival - message.sent_ns
        # A clock without a name may be another one after each start.
        another = message.clock_domain == 0 and self._epoch is not None and message.epoch > self._epoch
        if another or self._offset_domain != message.clock_domain:
            self._offset_domain, self._offset_ns, self._offset_at_ns = message.clock_domain, seen, arrival
        grown = self._offset_ns + (arrival - self._offset_at_ns) // DRIFT
        lowest = grown - max(self.config.transit_ns, self.config.future_ns)
        if lowest <= seen <= grown:
            self._offset_ns, self._offset_at_ns = seen, arrival
            return seen
        return grown

    def _sequence_fault(self, envelope: Envelope, message: VerdictMessage) -> Fault:
        step = (envelope.counter - self._counter) % COUNTERS
        if step == 0:
            return Fault.REPEATED
        # How far the counter went does not tell which of two messages is the newer one: it wraps around.
        if message.sent_ns <= self._sent_ns:
            return Fault.REORDERED
        self.lost_messages += step - 1
        if step - 1 > self.config.max_lost:
            self._counter, self._sent_ns = envelope.counter, message.sent_ns
            return Fault.LOST
        if message.kind != HEARTBEAT and NO_FRAME_ID != message.frame_id <= self._frame_id:
            self._counter, self._sent_ns = envelope.counter, message.sent_ns
            return Fault.REPEATED
        return Fault.NONE

    def _bad(self, fault: Fault, arrival: int) -> Fault:
        self._in_a_row = 0
        self._valid = False
        if fault in (Fault.REPEATED, Fault.REORDERED, Fault.LOST, Fault.WRONG_EPOCH):
            self._in_sequence = False
        if fault in self.config.grave:
            self._state, self._grave_ns = State.LATCHED, arrival
        elif self._state is State.USABLE:
            self._state = State.DO_NOT_USE
        return fault

    def _start_again(self, fault: Fault) -> Fault:
        self._held, self._ends_ns = None, 0
        self._frames.clear()
        self._in_rate = False
        return self._bad(fault, self._arrival_ns)

    def _begin(self, message: VerdictMessage) -> None:
        """A new epoch."""
        self._epoch, self._clock_domain = message.epoch, message.clock_domain
        self._bundle, self._calibration, self._classes = message.bundle, message.calibration, message.classes
        self._frame_id = NO_FRAME_ID

    def _take(self, envelope: Envelope, message: VerdictMessage, arrival: int, later: int) -> None:
        """A good message; so much later, by the receiver's clock, its times end."""
        self.good += 1
        self._counter, self._sent_ns = envelope.counter, message.sent_ns
        self._good_ns = arrival
        self._in_sequence = self._valid = True
        if message.kind == HEARTBEAT:
            return
        self._in_a_row += 1
        self._held = message
        end, oldest = message.valid_until_ns, message.captured_ns + self.config.max_age_ns
        self._ends_ns = (end if end <= oldest else oldest) + later
        if message.frame_id != NO_FRAME_ID:
            self._frame_id = message.frame_id
            self._frames.append(arrival)
            self._in_rate = self._rate_holds()

    def _rate_holds(self) -> bool:
        intervals = len(self._frames) - 1
        if intervals < 1:
            return False
        took = self._frames[-1] - self._frames[0]
        fast = intervals == WINDOW - 1 and took < intervals * self.config.shortest_period_ns
        return took <= intervals * self.config.period_ns and not fast

    def _proven(self) -> bool:
        return self._in_a_row >= self.config.good_to_start and self._in_sequence and self._valid

    def _settle(self) -> None:
        """From the facts to the state."""
        if self._state is State.LATCHED:
            return
        if self._state is State.USABLE and not self._in_rate:
            self._in_a_row = 0
        self._state = State.USABLE if self._proven() and self._in_rate else State.DO_NOT_USE

    def _standing(self) -> int:
        """Why nothing may be used, as far as it does not depend on the time of reading."""
        why = 0 if self._in_rate else _NOT_IN_RATE
        if self._good_ns is None:
            why |= _NOT_ALIVE
        if not self._in_sequence:
            why |= _NOT_IN_SEQUENCE
        if not self._valid:
            why |= _NOT_VALID
        if self._state is not State.USABLE:
            why |= _NOT_PROVEN
        if self._state is State.LATCHED:
            why |= _LATCHED
        if self._held is not None and not self._held.accepted:
            why |= _REJECTED
        return why

    def _publish(self) -> None:
        self.standing = Standing(
            self._standing(),
            self._state,
            self._held,
            self._ends_ns,
            self._arrival_ns,
            self._good_ns or 0,
        )
