"""The receiver of a stream with moving objects: which of them are there now, and which labels may be used.

framegate_objects.h is the same in C; docs/handover.md says what both do.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from framegate.runtime.errors import UsageError
from framegate.runtime.handover.message import NO_TRACK, VerdictMessage
from framegate.runtime.handover.reading import Fault, Reading, State, WhyNot
from framegate.runtime.handover.receiver import Receiver, ReceiverConfig
from framegate.runtime.verdict import NO_FRAME_ID

MAX_SLOTS: Final = 16
"""Slots at most: the objects of a frame that are judged at most."""
MAX_REGIONS: Final = 1000
"""Fixed regions beside the objects at most that a receiver is told of."""
SCENE_NAME: Final = "scene"
_IDS = 1 << 32
# A slot that says nothing else than these is good, and of the present: it is empty, rejected, or not proven yet.
_HARMLESS = int(WhyNot.REJECTED | WhyNot.NOT_PROVEN)


class _Said(NamedTuple):
    """What the slots said when a scene came: epoch, frame, objects, and the reading of each.

    A reading of later may find a slot that went on to the next frame, whose scene is not there yet: so the list of the
    scene's frame is kept.
    """

    of: tuple[int, int, int]
    slots: tuple[Reading, ...]


_NOTHING = _Said((0, NO_FRAME_ID, 0), ())


def _of(scene: VerdictMessage, slots: int) -> tuple[int, int, int] | None:
    """What the slots must have said for a scene to be whole: epoch, frame, objects; None if none could be."""
    whole = scene.region == slots and scene.frame_id != NO_FRAME_ID
    return (scene.epoch, scene.frame_id, scene.objects) if whole else None


def _reading_of(held: Reading, newest: Reading) -> Reading:
    """What is said now about an object of the list: whatever its slot says, if that still speaks of this object."""
    assert held.message is not None
    assert newest.message is not None
    one, other = held.message, newest.message
    if (one.epoch, one.track) == (other.epoch, other.track):
        return newest
    why = _HARMLESS if not one.accepted else int(WhyNot.NOT_PROVEN)
    return Reading(why, State.DO_NOT_USE, one, held.labels, held.ends_ns)


def slot_name(number: int) -> str:
    """What the stream of a slot, from 1, is called."""
    return f"slot-{number}"


def ids_of(data_id: int, slots: int, regions: int = 0) -> list[int]:
    """Data ids of the scene, the slots, and the fixed regions that are judged beside them.

    Args:
        data_id: Of the scene.
        slots: How many there are.
        regions: How many fixed regions.

    Raises:
        UsageError: The number of slots or of regions is out of range.
    """
    if not 1 <= slots <= MAX_SLOTS:
        raise UsageError(f"{slots} slots for objects: expected 1 to {MAX_SLOTS}")
    if not 0 <= regions <= MAX_REGIONS:
        raise UsageError(f"{regions} regions beside the objects: expected 0 to {MAX_REGIONS}")
    return [(data_id + number) % _IDS for number in range(1 + slots + regions)]


@dataclass(frozen=True, slots=True)
class SeenObject:
    """An object that is there now.

    Attributes:
        slot: From 1.
        track: The object's number, the same on every frame.
        reading: Whether its label may be used, and the label.
    """

    slot: int
    track: int
    reading: Reading


@dataclass(frozen=True, slots=True)
class ObjectsReading:
    """What is known about the objects at one time.

    Attributes:
        scene: Whether the frame could be looked at; it has no label.
        objects: Those that are there now, by slot, each with a label that may be used or not.
        agrees: Whether each slot was heard of on the frame that the scene speaks of, and as many objects were in them;
            then `objects` are those of that frame.
    """

    scene: Reading
    objects: tuple[SeenObject, ...]
    agrees: bool

    @property
    def whole(self) -> bool:
        """True if `objects` are all that were found on a frame of the present. False says nothing about the road."""
        return self.agrees and self.scene.usable

    def __bool__(self) -> bool:
        """The same as `whole`."""
        return self.whole

    def describe(self) -> str:
        """In words."""
        if self.whole:
            return "WHOLE"
        if self.scene.usable:
            return "NOT WHOLE: a slot is missing or not good"
        return f"NOT WHOLE: {self.scene.describe().removeprefix('DO NOT USE: ')}"


class ObjectsReceiver:
    """Decides which objects are there, and whether their labels may be used. One thread feeds it, any thread may read.

    Args:
        config: What the scene's receiver expects, with the data id of the scene; the slots' receivers expect the same.
        slots: As many as the sender has, 1 to `MAX_SLOTS`.
        labels: Of the classes, for `Reading.label`; empty if they are not needed.
        regions: Fixed regions that the sender judges beside the objects and whose messages come here, too. They are
            counted, and otherwise ignored: whoever uses their verdicts has a `Receiver` for each.
        compiled: See `Receiver`.

    Attributes:
        beside: Messages of these regions.

    Raises:
        UsageError: The number of slots or of regions is out of range.
    """

    def __init__(
        self,
        config: ReceiverConfig,
        slots: int = MAX_SLOTS,
        labels: tuple[str, ...] = (),
        *,
        regions: int = 0,
        compiled: bool = True,
    ) -> None:
        ids = ids_of(config.data_id, slots, regions)
        ids, self._beside = ids[: 1 + slots], frozenset(ids[1 + slots :])
        self.beside = 0
        self._scene = Receiver(replace(config, scene=True), compiled=compiled)
        self._slots = [
            Receiver(replace(config, data_id=each, scene=False), labels, compiled=compiled) for each in ids[1:]
        ]
        self._by_id = dict(zip(ids, (self._scene, *self._slots), strict=True))
        self._said = _NOTHING, _NOTHING

    @property
    def data_ids(self) -> tuple[int, ...]:
        """Of the scene and of every slot: for a consumer that gets messages of several streams at one place."""
        return tuple(self._by_id)

    def feed(self, data: bytes, arrival_ns: int | None = None) -> Fault:
        """Take one message of any of the streams; what belongs to none of them is the scene's to refuse.

        What is sent for a region beside the objects says nothing about them, whatever its bytes are: it is ignored.

        Args:
            data: Its bytes, whatever they are.
            arrival_ns: When it came, on the receiver's monotonic clock; None is now.

        Returns:
            What was wrong with it; see `Receiver.feed`.
        """
        data_id = int.from_bytes(data[4:8], "big") if len(data) >= 8 else self._scene.config.data_id
        if data_id in self._beside:
            self.beside += 1
            return Fault.NONE
        receiver = self._by_id.get(data_id, self._scene)
        if receiver is self._scene:
            self._look_at_slots()
        return receiver.feed(data, arrival_ns)

    def verdict(self, now_ns: int | None = None) -> ObjectsReading:
        """The objects now. Never waits, changes nothing, can be called from any thread.

        Args:
            now_ns: The receiver's monotonic clock; None is now.
        """
        scene = self._scene.verdict(now_ns)
        said = self._said_of(scene.message)
        slots = [each.verdict(now_ns) for each in self._slots]
        now = time.monotonic_ns() if now_ns is None else now_ns
        good = all(not each.why & ~_HARMLESS for each in slots)
        agrees = good and said is not None and all(now <= each.ends_ns for each in said.slots)
        there = said.slots if agrees and said is not None else slots
        objects = tuple(
            SeenObject(number, held.message.track, _reading_of(held, newest))
            for number, (held, newest) in enumerate(zip(there, slots, strict=True), 1)
            if held.message is not None and held.message.track != NO_TRACK and not newest.why & ~_HARMLESS
        )
        return ObjectsReading(scene, objects, agrees)

    def release(self, now_ns: int | None = None) -> bool:
        """Leave LATCHED, in every stream whose cause is gone; see `Receiver.release`.

        Returns:
            Whether no stream is latched any more.
        """
        return all([each.release(now_ns) for each in self._by_id.values()])

    def restart(self) -> None:
        """Forget everything proven; the counts stay."""
        for each in self._by_id.values():
            each.restart()
        self._said = _NOTHING, _NOTHING

    def counts(self) -> Mapping[str, int]:
        """Counts of messages and of every kind of fault, of all streams together, and of the regions' messages."""
        total: Counter[str] = Counter(beside=self.beside)
        for each in self._by_id.values():
            total.update(each.counts())
        return total

    @property
    def state(self) -> State:
        """Of the scene's receiver; LATCHED if any stream is."""
        states = [each.verdict().state for each in self._by_id.values()]
        return State.LATCHED if State.LATCHED in states else states[0]

    def _said_of(self, scene: VerdictMessage | None) -> _Said | None:
        """What the slots said on the scene's frame; None if they differed, or the scene says something else."""
        wanted = None if scene is None else _of(scene, len(self._slots))
        return next((said for said in self._said if said.of == wanted), None)

    def _look_at_slots(self) -> None:
        """Note what the slots say, when a scene comes and before it is read: so no reader ever finds the two apart."""
        slots = tuple(each.verdict(0) for each in self._slots)
        held = [each.message for each in slots if each.message is not None]
        said = {(each.epoch, each.frame_id) for each in held}
        objects = sum(each.track != NO_TRACK for each in held)
        same = len(held) == len(slots) and len(said) == 1
        self._said = (self._said[-1], _Said((*said.pop(), objects), slots) if same else _NOTHING)
