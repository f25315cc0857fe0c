"""A frame of which only some messages are there: the list is that of a whole frame, or is said not to be whole.

Every drive is played to the receiver in Python, with either state machine, and to that in C.
"""

from __future__ import annotations

import shutil

import pytest
from handover_tape import RUNNER, compile_c, config_line, play_in_c, play_in_python
from object_drive import ID, MS, SLOTS, VALID, World

from framegate.runtime.errors import UsageError
from framegate.runtime.handover import ObjectsReceiver, ReceiverConfig
from framegate.runtime.handover.message import NO_CLASS
from framegate.runtime.handover.reading import WhyNot
from framegate.runtime.native import short_calls
from framegate.runtime.verdict import Reason

NOT_PROVEN, REJECTED = int(WhyNot.NOT_PROVEN), int(WhyNot.REJECTED)


@pytest.fixture(scope="module")
def runner(tmp_path_factory) -> list[str]:
    compiler = next((name for name in ("gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        return []
    to = tmp_path_factory.mktemp("runner") / "tape_runner"
    return [str(compile_c(RUNNER, to, compiler, "-fsanitize=undefined", "-fno-sanitize-recover=all"))]


class Drive:
    """A drive as a tape, with a reading wherever the test asks for one."""

    def __init__(self, regions=(), listed=0, **config):
        self.world = World(regions=regions, **config)
        head = config_line(**self.world.config).removeprefix("C ")
        self.tape = [f"O {SLOTS}{f'/{listed}' if listed else ''} {head}"]

    def feed(self, messages) -> None:
        self.tape += [f"f {self.world.now} {data.hex()}" for data in messages]

    def show(self, objects, frames=1, **rest) -> None:
        for _ in range(frames):
            self.feed(self.world.frame(objects, **rest))

    def read(self, after=0) -> None:
        self.tape.append(f"r {self.world.now + after}")

    def play(self, runner) -> list[tuple[bool, dict[int, tuple[int, int]]]]:
        """Of each reading: whether it was whole, and why not and class of each track. The same from every receiver."""
        answers = play_in_python(self.tape)
        if runner:
            assert play_in_c(runner, self.tape) == answers
        if short_calls() is not None:
            assert play_in_python(self.tape, compiled=True) == answers
        found = []
        for answer in answers:
            if answer.startswith("r "):
                _, whole, _, _, *objects = answer.split()
                each = [tuple(map(int, one.split(":"))) for one in objects]
                found.append((whole == "1", {track: (why, class_id) for _, track, why, class_id in each}))
        return found


def test_a_sender_that_dies_within_a_frame_leaves_the_list_of_the_frame_before(runner):
    drive = Drive()
    drive.show({11: "car"}, frames=5)
    for data in drive.world.frame({12: "car", 13: "bus"})[:2]:  # slot 1 and slot 2 of frame 6, and no more
        drive.feed([data])
        drive.read()
    end = VALID - drive.world.now + (1000 + 5 * 33) * MS
    drive.read(end)
    drive.read(end + 1)
    *there, (whole, _) = drive.play(runner)
    assert len(there) == 3
    for still_whole, objects in there:
        assert still_whole
        assert set(objects) == {11}
    assert not whole


def test_while_the_next_frame_comes_in_the_list_is_always_that_of_one_frame(runner):
    frames = [{11: "car"}, {12: "car", 13: "bus"}, {}, {14: "bus", 12: "car", 15: "car"}, {15: "car"}] * 2
    drive = Drive()
    drive.show(frames[-1], frames=4)
    for objects in frames:
        for data in drive.world.frame(objects):
            drive.feed([data])
            drive.read()
    answers = drive.play(runner)
    before = frames[-1]
    for number, objects in enumerate(frames):
        *partly, complete = answers[number * (SLOTS + 1) : (number + 1) * (SLOTS + 1)]
        assert [(whole, set(seen)) for whole, seen in partly] == [(True, set(before))] * SLOTS
        assert (complete[0], set(complete[1])) == (True, set(objects))
        before = objects


def test_an_object_whose_slot_went_on_to_another_is_there_without_a_label(runner):
    drive = Drive()
    drive.show({11: "car"}, frames=5)
    drive.read()
    slot, *_ = drive.world.frame({12: "car"})
    drive.feed([slot])
    drive.read()
    before, after = drive.play(runner)
    assert before == (True, {11: (0, 0)})
    assert after == (True, {11: (NOT_PROVEN, NO_CLASS)})


def test_of_an_object_that_is_rejected_on_the_next_frame_no_label_is_used_before_its_scene_comes(runner):
    drive = Drive()
    drive.show({11: "car", 12: "bus"}, frames=5)
    slot, *_ = drive.world.frame({11: Reason.UNCONFIRMED, 12: "bus"})
    drive.feed([slot])
    drive.read()
    assert drive.play(runner) == [(True, {11: (REJECTED, NO_CLASS), 12: (0, 1)})]


def test_a_rejected_object_whose_slot_went_on_stays_rejected(runner):
    drive = Drive()
    drive.show({11: "car"}, frames=4)
    drive.show({11: Reason.UNCONFIRMED})
    slot, *_ = drive.world.frame({12: "car"})
    drive.feed([slot])
    drive.read()
    assert drive.play(runner) == [(True, {11: (REJECTED | NOT_PROVEN, NO_CLASS)})]


def test_a_bad_message_of_a_slot_within_a_frame_is_not_whole(runner):
    drive = Drive()
    drive.show({11: "car"}, frames=5)
    slot, *_ = drive.world.frame({11: "car", 12: "car"})
    drive.feed([slot[:-1] + bytes([slot[-1] ^ 1])])
    drive.read()
    ((whole, objects),) = drive.play(runner)
    assert not whole
    assert objects == {}


def test_a_restart_of_the_sender_within_a_frame_is_not_whole(runner):
    drive = Drive(good_to_start=1)
    drive.show({1: "car"}, frames=5)
    drive.world.sender.epoch += 1
    slot, *_ = drive.world.frame({1: "bus"})  # another object, which the new sender gives the same number
    drive.feed([slot])
    drive.read()
    ((whole, objects),) = drive.play(runner)
    assert not whole
    assert objects == {}


def test_regions_beside_the_objects_are_counted_and_the_list_is_whole(runner):
    """Between the slots and the scene of every frame; a receiver that was not told of them refuses them."""
    regions = ("road", "sky")
    for listed in range(4):
        drive = Drive(regions=regions, listed=listed)
        drive.show({11: "car"}, frames=5, fixed=regions)
        drive.read()
        ((whole, objects),) = drive.play(runner)
        assert whole == (listed >= 2)
        assert objects == {11: (0, 0)}
    receiver = ObjectsReceiver(ReceiverConfig(ID), SLOTS, regions=2)
    for data in drive.world.frame({11: "car"}, fixed=regions):
        receiver.feed(data, drive.world.now)
    assert receiver.beside == receiver.counts()["beside"] == 2
    assert receiver.counts()["received"] == SLOTS + 1


def test_nothing_that_is_sent_under_a_regions_data_id_changes_the_list(runner):
    drive = Drive(listed=1)
    drive.show({11: "car"}, frames=5)
    region = (ID + SLOTS + 1).to_bytes(4, "big")
    drive.feed([bytes(4) + region + bytes(136), bytes(4) + region, b"\xff" * 4 + region + b"\xff" * 999])
    drive.read()
    drive.feed([bytes(4) + (ID + SLOTS + 2).to_bytes(4, "big") + bytes(136)])  # one region more than there are
    drive.read()
    (whole, objects), (after, _) = drive.play(runner)
    assert whole
    assert objects == {11: (0, 0)}
    assert not after


def test_data_ids_that_wrap_around_are_those_of_slots_and_regions(runner):
    for data_id in (2**32 - 1, 2**32 - 2, 2**32 - SLOTS - 1, 2**32 - SLOTS - 2):
        drive = Drive(regions=("road",), listed=1, data_id=data_id)
        drive.show({11: "car"}, frames=5, fixed=("road",))
        drive.read()
        assert drive.play(runner) == [(True, {11: (0, 0)})]


@pytest.mark.parametrize("regions", [-1, 1001, 2**32])
def test_a_number_of_regions_that_cannot_be_is_refused(regions):
    with pytest.raises(UsageError, match="expected 0 to 1000"):
        ObjectsReceiver(ReceiverConfig(ID), SLOTS, regions=regions)


@pytest.mark.parametrize("size", range(9))
def test_a_datagram_that_is_too_short_for_a_data_id_goes_to_the_scene(runner, size):
    drive = Drive()
    drive.show({11: "car"}, frames=5)
    drive.feed([(bytes(4) + (ID + 1).to_bytes(4, "big"))[:size], bytes([0, 0, 0, 0, 2, 1])])
    drive.read()
    ((whole, objects),) = drive.play(runner)
    assert not whole
    # The slot's own id is complete with 8 bytes; then it is the slot that was sent something that is no message.
    assert objects == ({} if size == 8 else {11: (0, 0)})
