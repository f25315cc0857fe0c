"""The state machine of a receiver in C (framegate_verdict.h), for receivers in Python; what it does is `machine`'s."""

from __future__ import annotations

import ctypes
import struct
from collections import Counter

from framegate.runtime.errors import UsageError
from framegate.runtime.handover.config import ReceiverConfig
from framegate.runtime.handover.machine import Machine, PythonMachine, Standing
from framegate.runtime.handover.message import LATEST_NS, VerdictMessage, decode
from framegate.runtime.handover.reading import Fault, State
from framegate.runtime.native import short_calls

_STANDING = struct.Struct("=8q")
_NUMBERS = struct.Struct("=16q3Q")
_FAULTS, _STATES = tuple(Fault), tuple(State)
_MISSED_BEFORE = 256
_KEY_BYTES = 64


def machine_for(config: ReceiverConfig, compiled: bool = True) -> Machine:
    """The state machine in C where there is compiled code, else that in Python.

    Args:
        config: What it expects.
        compiled: False takes that in Python in any case.

    Raises:
        UsageError: The configuration is out of range.
    """
    code = short_calls() if compiled else None
    return PythonMachine(config) if code is None else NativeMachine(config, code)


class NativeMachine:
    """The state machine in C. Attributes are those of `Machine`.

    Each call holds the interpreter's lock, for about half a microsecond; so no two threads are ever in it.

    Args:
        config: What it expects.
        code: The compiled functions.

    Raises:
        UsageError: The configuration is out of range.
    """

    def __init__(self, config: ReceiverConfig, code: ctypes.PyDLL) -> None:
        self.faults: Counter[Fault] = Counter()
        self.received = self.good = self.lost_messages = 0
        self._code_feed = code.framegate_handover_feed
        self._code_release, self._code_restart = code.framegate_handover_release, code.framegate_handover_restart
        self._memory = ctypes.create_string_buffer(code.framegate_handover_size())
        self._out = ctypes.create_string_buffer(_STANDING.size)
        # Addresses of what lives as long as this object: a number is passed on at once.
        self._raw, self._at = ctypes.addressof(self._memory), ctypes.addressof(self._out)
        self._message: VerdictMessage | None = None
        numbers = ctypes.create_string_buffer(_numbers(config))
        key = config.key.ljust(_KEY_BYTES, b"\0")
        if not code.framegate_handover_open(
            self._raw, ctypes.addressof(numbers), config.bundle, config.calibration, key
        ):
            raise UsageError(f"{config}: the compiled receiver takes no such configuration")
        self.restart()

    def feed(self, data: bytes, arrival: int) -> Fault:
        """Take one message; see `Receiver.feed`."""
        number: int = self._code_feed(self._raw, data, len(data), _in_range(arrival), self._at)
        self.received += 1
        if number:
            if number >= _MISSED_BEFORE:
                self.faults[Fault.MISSED] += 1
                number -= _MISSED_BEFORE
            if number:
                self.faults[_FAULTS[number]] += 1
        self._stand(data)
        return _FAULTS[number]

    def release(self, now: int) -> bool:
        """Leave LATCHED; see `Receiver.release`."""
        released = bool(self._code_release(self._raw, _in_range(now), self._at))
        self._stand(b"")
        return released

    def restart(self) -> None:
        """Forget everything but the counts."""
        self._code_restart(self._raw, self._at)
        self._stand(b"")

    def _stand(self, data: bytes) -> None:
        why, state, held, ends_ns, arrival_ns, good_ns, self.good, self.lost_messages = _STANDING.unpack(self._out)
        if held != 1:  # 1: as before; 2: that of this message
            self._message = decode(data)[1] if held else None
        self.standing = Standing(why, _STATES[state], self._message, ends_ns, arrival_ns, good_ns)


def _in_range(time_ns: int) -> int:
    """A time that fits into 64 bits; what does not is as wrong as the next number beyond those that are times."""
    if 0 <= time_ns <= LATEST_NS:
        return int(time_ns)
    return LATEST_NS + 1 if time_ns > 0 else -1


def _numbers(config: ReceiverConfig) -> bytes:
    """As `framegate_handover_open` takes them."""
    numbers = (
        config.data_id,
        config.classes,
        config.good_to_start,
        config.max_lost,
        sum(1 << fault for fault in config.grave),
        config.alive_ns,
        config.max_age_ns,
        config.period_ns,
        config.shortest_period_ns,
        config.transit_ns,
        config.future_ns,
        config.quiet_ns,
        config.offset_ns,
        config.offset_uncertainty_ns,
        int(config.scene),
        len(config.key),
        config.min_epoch,
        config.clock_domain,
        config.offset_domain,
    )
    return _NUMBERS.pack(*map(int, numbers))  # a time may have been given as 0.15e9
