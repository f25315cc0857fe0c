"""What a receiver expects of a stream."""

from __future__ import annotations

from dataclasses import dataclass, field

from framegate.runtime.errors import UsageError
from framegate.runtime.handover.message import LATEST_NS, NOTHING
from framegate.runtime.handover.reading import GRAVE, MS, Fault


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """What a receiver expects. Times are in nanoseconds.

    Attributes:
        data_id: Of the stream.
        bundle: First 8 bytes of the expected bundle's digest; `NOTHING` takes that of the first good message.
        calibration: The same of the calibration.
        classes: Number of labels; 0 takes that of the first good message.
        good_to_start: Good verdicts in a row until anything is usable, 1 to 1000.
        alive_ns: Longest time between two good messages.
        max_age_ns: Longest time from capture to reading.
        period_ns: Longest time between two verdicts on frames, on average.
        shortest_period_ns: Shortest such time.
        transit_ns: Longest way of a message.
        future_ns: How much earlier than its sending a message may seem to arrive.
        max_lost: Messages that may be missing at once.
        quiet_ns: Time without a grave fault before a release.
        min_epoch: Smallest epoch that is accepted: the last one that an earlier run of the consumer has seen.
        clock_domain: Of the receiver's clock; 0 if it is not known.
        offset_domain: Clock domain for which an offset was measured; 0 for none.
        offset_ns: The receiver's clock minus that domain's.
        offset_uncertainty_ns: How far that may be off.
        grave: Faults that latch.
        key: Of the authentication; empty: messages must have no code.
        scene: Expects what is said about whole frames with moving objects, in place of verdicts.
    """

    data_id: int
    bundle: bytes = NOTHING
    calibration: bytes = NOTHING
    classes: int = 0
    good_to_start: int = 3
    alive_ns: int = 150 * MS
    max_age_ns: int = 500 * MS
    period_ns: int = 200 * MS
    shortest_period_ns: int = 1 * MS
    transit_ns: int = 150 * MS
    future_ns: int = 1 * MS
    max_lost: int = 3
    quiet_ns: int = 1000 * MS
    min_epoch: int = 0
    clock_domain: int = 0
    offset_domain: int = 0
    offset_ns: int = 0
    offset_uncertainty_ns: int = 0
    grave: frozenset[Fault] = GRAVE
    key: bytes = field(default=b"", repr=False)
    scene: bool = False

    def __post_init__(self) -> None:
        for name, low, high in (
            ("data_id", 0, 2**32 - 1),
            ("classes", 0, 2**32 - 1),
            ("good_to_start", 1, 1000),
            ("max_lost", 0, 1000),
            ("min_epoch", 0, 2**64 - 1),
            ("clock_domain", 0, 2**64 - 1),
            ("offset_domain", 0, 2**64 - 1),
            ("offset_ns", -LATEST_NS, LATEST_NS),
        ):
            self._require(name, low, high)
        for name in ("alive_ns", "max_age_ns", "period_ns"):
            self._require(name, 1, 3_600_000 * MS)
        for name in ("shortest_period_ns", "transit_ns", "future_ns", "quiet_ns", "offset_uncertainty_ns"):
            self._require(name, 0, 3_600_000 * MS)
        for name in ("bundle", "calibration"):
            if len(getattr(self, name)) != len(NOTHING):
                raise UsageError(f"{name} is {getattr(self, name)!r}; expected {len(NOTHING)} bytes")
        if self.key and not 16 <= len(self.key) <= 64:
            raise UsageError(f"the key has {len(self.key)} bytes; expected 16 to 64")

    def _require(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise UsageError(f"{name} is {value}; expected {low} to {high}")
