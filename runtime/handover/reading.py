"""What a receiver finds, and what it says: the kinds of faults, why a verdict must not be used, and one reading."""

from __future__ import annotations

import enum
from typing import NamedTuple

from framegate.runtime.errors import RejectedFrame, UsageError
from framegate.runtime.handover.message import CERTIFICATE_NAMES, SCENE, VerdictMessage, reason_names

MS = 1_000_000
"""Nanoseconds."""


class State(enum.IntEnum):
    """What the receiver is in."""

    DO_NOT_USE = 0
    USABLE = 1
    LATCHED = 2


class Fault(enum.IntEnum):
    """What was wrong with a message; docs/handover.md says when each is found."""

    NONE = 0
    TRUNCATED = 1
    CORRUPTED = 2
    WRONG_ID = 3
    WRONG_VERSION = 4
    FORGED = 5
    INVALID = 6
    WRONG_BUNDLE = 7
    WRONG_EPOCH = 8
    FUTURE = 9
    LATE = 10
    REPEATED = 11
    REORDERED = 12
    LOST = 13
    MISSED = 14
    NEW_EPOCH = 15
    NEW_TRACK = 16


GRAVE = frozenset({Fault.FORGED, Fault.WRONG_BUNDLE, Fault.WRONG_EPOCH})
"""Faults that no accident of a network makes: by default they latch."""


class WhyNot(enum.IntFlag):
    """Bits of `Reading.why`: why a verdict must not be used; 0 exactly if it may be."""

    NOT_ALIVE = 1
    NOT_IN_RATE = 2
    NOT_IN_SEQUENCE = 4
    NOT_FRESH = 8
    NOT_VALID = 16
    NOT_PROVEN = 32
    LATCHED = 64
    REJECTED = 128
    CLOCK_WENT_BACK = 256


class Reading(NamedTuple):
    """What a receiver says at one time.

    Attributes:
        why: Why nothing may be used, bits of `WhyNot`; 0 exactly if the verdict may be.
        state: Of the receiver.
        message: The newest good verdict, for displays and records, **never for decisions**; None if there is none.
        labels: Of the classes, if the receiver knows them.
        ends_ns: When the verdict ends, on the receiver's clock; 0 without a verdict.
    """

    why: int
    state: State
    message: VerdictMessage | None
    labels: tuple[str, ...] = ()
    ends_ns: int = 0

    @property
    def usable(self) -> bool:
        """True if driving logic may use the class now."""
        return self.why == 0 and self.message is not None

    def __bool__(self) -> bool:
        """The same as `usable`."""
        return self.usable

    @property
    def class_id(self) -> int:
        """The class.

        Raises:
            RejectedFrame: It must not be used.
        """
        self._require_class("class_id")
        assert self.message is not None
        return self.message.class_id

    @property
    def label(self) -> str:
        """The class's label.

        Raises:
            RejectedFrame: It must not be used.
            UsageError: The receiver was not told the labels.
        """
        class_id = self.class_id
        if class_id >= len(self.labels):
            raise UsageError(f"class {class_id} has no label here; give the receiver the bundle's labels")
        return self.labels[class_id]

    @property
    def certificate(self) -> tuple[str, float] | None:
        """What was certified about the class on this frame; None if nothing was.

        Returns:
            ``linf`` or ``l2`` and the radius in 255ths of the pixel range, or ``patch`` and its side in pixels of the
            region.

        Raises:
            RejectedFrame: The class must not be used.
        """
        self._require_class("certificate")
        assert self.message is not None
        kind = CERTIFICATE_NAMES.get(self.message.certificate_kind)
        return None if kind is None else (kind, self.message.certificate_radius)

    def _require_class(self, wanted: str) -> None:
        if self.message is None or self.why != 0:
            raise RejectedFrame(f"nothing may be used now: {self.describe()}; check .usable before using .{wanted}")
        if self.message.kind == SCENE:
            raise RejectedFrame("a scene has no class; ask its objects")

    def describe(self) -> str:
        """In words: USABLE, or why not."""
        if self.usable:
            return "USABLE"
        words = [each.name for each in WhyNot if each & self.why and each.name]
        reasons = reason_names(self.message.reasons) if self.message and self.why & WhyNot.REJECTED else ()
        return "DO NOT USE: " + ", ".join([*words, *reasons])
