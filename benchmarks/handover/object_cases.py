"""The faults of the campaign for a stream with objects that move: slots and scene between a camera and a list."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from framegate.benchmarks.handover.cases import (
    DATA_ID,
    FAULT_S,
    Bench,
    bit_flips,
    cut_link,
    delay,
    duplication,
    flood,
    foreign_bundle,
    killed,
    loss,
    reordering,
    replay_beside,
    restarted,
    slow_consumer,
    stopped,
    truncation,
    two_senders,
    unplugged,
)
from framegate.benchmarks.handover.rig import Consumer
from framegate.runtime.handover import ObjectsReceiver, Receiver, ReceiverConfig
from framegate.runtime.handover.message import NO_TRACK, decode, encode
from framegate.runtime.handover.objects import ids_of

OBJECTS = "objects: "
"""Begins the name of each of these faults."""
SLOTS = 3
FORGED_SLOT = "a slot under another's id"
OBJECTS_KEYED = frozenset((OBJECTS + FORGED_SLOT,))


class ObjectsConsumer(Consumer):
    """The same for a receiver of objects: what may be used, and whether a list that says it is whole leaves one out."""

    def _receiver(self, config: ReceiverConfig) -> Receiver | ObjectsReceiver:
        return ObjectsReceiver(config, SLOTS)

    def ready(self) -> bool:
        """Whether the list is whole, and each label of two objects may be used."""
        reading: Any = self.receiver.verdict()
        return reading.whole and len(reading.objects) == 2 and all(each.reading for each in reading.objects)

    def _look(self, reading: Any, now: int) -> str:
        ids = ids_of(self._data_id, SLOTS)
        for each in reading.objects:
            problem = self._problem(ids[each.slot], each.reading.message, now) if each.reading else ""
            if problem:
                return problem
        if not reading.whole:
            return ""
        return self._problem(ids[0], reading.scene.message, now) or self._left_out(reading, ids)

    def _left_out(self, reading: Any, ids: list[int]) -> str:
        """What a whole list should hold and does not: of each slot, what was said since the scene's frame."""
        if self._genuine is None:
            return ""
        scene, seen = reading.scene.message, {each.slot: each.track for each in reading.objects}
        for slot, data_id in enumerate(ids[1:], 1):
            said = [self._genuine.get((data_id, scene.epoch, scene.frame_id + later)) for later in range(4)]
            tracks = {message.track for message in said if message is not None}
            if seen.get(slot, NO_TRACK) not in tracks:
                return f"slot {slot} holds {seen.get(slot)}, and {tracks} was said since frame {scene.frame_id}"
        return ""


class ObjectsBench(Bench):
    """A camera with two objects, a link and a consumer of lists."""

    consumer_of = ObjectsConsumer
    camera_options = ("--objects", str(SLOTS))


def silent_giver(bench: Bench) -> None:
    """What says where the objects are does not answer any more."""
    bench.fault()
    bench.cameras[0].tell("silent")
    time.sleep(FAULT_S)
    bench.cameras[0].tell("answer")
    bench.over()


def _without(data_id: int) -> Callable[[Bench], None]:
    def case(bench: Bench) -> None:
        def damage(data: bytes) -> Iterable[tuple[float, bytes]]:
            return () if decode(data)[0].data_id == data_id else ((0.0, data),)

        bench.damage(damage)

    return case


lost_slot = _without(DATA_ID + 1)
lost_slot.__doc__ = "No message of the first object's slot comes through."
lost_scene = _without(DATA_ID)
lost_scene.__doc__ = "No message of the scene comes through."


def scene_first(bench: Bench) -> None:
    """Every message of a slot takes 20 ms longer than that of the scene behind it."""
    bench.damage(lambda data: ((0.0 if decode(data)[0].data_id == DATA_ID else 0.02, data),))


def one_slot_again(bench: Bench) -> None:
    """Somebody without the key sends messages of one slot again as another slot's, with a new CRC."""

    def damage(data: bytes) -> Iterable[tuple[float, bytes]]:
        envelope, said = decode(data)
        if envelope.data_id != DATA_ID + 1:
            return ((0.0, data),)
        return (0.0, data), (0.0, encode(said, envelope.counter, DATA_ID + 2))

    bench.damage(damage)


def vanished(bench: Bench) -> None:
    """One of two objects vanishes, while one message in ten is lost; then it comes back."""
    bench.fault()
    bench.link.damage = lambda data: ((0.0, data),) if bench.random.random() >= 0.1 else ()
    bench.cameras[0].tell("vanish")
    time.sleep(FAULT_S)
    bench.cameras[0].tell("appear")
    bench.over()
    bench.link.damage = lambda data: ((0.0, data),)


OBJECT_CASES: dict[str, Callable[[Bench], None]] = {
    OBJECTS + name: case
    for name, case in {
        "kill -9": killed,
        "SIGSTOP": stopped,
        "restart": restarted,
        "hung detector": silent_giver,
        "camera unplugged": unplugged,
        "slow consumer": slow_consumer,
        "bit flips": bit_flips,
        "truncation": truncation,
        "duplication": duplication,
        "reordering": reordering,
        "delay": delay,
        "cut link": cut_link,
        "replay beside the sender": replay_beside,
        "two senders": two_senders,
        "foreign bundle": foreign_bundle,
        "1 % loss": loss(1),
        "10 % loss": loss(10),
        "flood": flood,
        "a slot is lost": lost_slot,
        "the scene is lost": lost_scene,
        "scene before its slots": scene_first,
        FORGED_SLOT: one_slot_again,
        "an object vanishes": vanished,
    }.items()
}
