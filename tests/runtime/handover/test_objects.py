"""Objects that move, handed over: which are there, which label may be used, and what lost messages do to that."""

from __future__ import annotations

import time

import pytest
from handover_tape import play_in_python
from object_drive import FRAME, ID, IDENTITY, LABELS, MS, SLOTS, VALID, Clocked, Life, Wire, World

from framegate.runtime.errors import RejectedFrame, UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.handover import Fault, ObjectsReceiver, ReceiverConfig, WhyNot, this_clock
from framegate.runtime.handover.message import HEARTBEAT, SCENE, decode
from framegate.runtime.handover.object_sender import ObjectSender
from framegate.runtime.handover.objects import ids_of
from framegate.runtime.verdict import Prediction, Reason


def labels(reading):
    """Track -> the label that may be used, or None."""
    return {each.track: each.reading.label if each.reading.usable else None for each in reading.objects}


def test_objects_are_there_at_once_and_usable_after_three_frames():
    world = World()
    assert not world.reading().whole
    assert world.reading().objects == ()
    world.show({}, frames=3)
    assert world.reading().whole
    assert world.reading().objects == ()
    assert labels(world.show({7: "car"})) == {7: None}
    assert world.reading().whole
    assert labels(world.show({7: "car"})) == {7: None}
    assert labels(world.show({7: "car", 9: "bus"})) == {7: "car", 9: None}
    assert labels(world.show({9: "bus", 7: "car"}, frames=2)) == {7: "car", 9: "bus"}
    assert [each.slot for each in world.reading().objects] == [1, 2]
    assert world.reading()
    assert world.reading().describe() == "WHOLE"


def test_an_object_that_vanished_is_not_usable_on_the_next_frame():
    world = World()
    world.show({7: "car", 9: "bus"}, frames=4)
    assert labels(world.show({9: "bus"})) == {9: "bus"}
    assert world.reading().whole


def test_a_rejected_object_is_there_without_a_label():
    world = World()
    world.show({7: "car"}, frames=4)
    reading = world.show({7: Reason.UNCONFIRMED})
    assert labels(reading) == {7: None}
    assert reading.whole
    with pytest.raises(RejectedFrame, match="UNCONFIRMED"):
        _ = reading.objects[0].reading.label


def test_another_object_in_the_same_slot_starts_from_nothing_proven():
    world = World(slots=1)
    world.show({7: "car"}, frames=4)
    reading = world.show({8: "bus"})
    assert labels(reading) == {8: None}
    assert reading.objects[0].reading.why == WhyNot.NOT_PROVEN
    assert world.receiver.counts()["new_track"] >= 1
    assert labels(world.show({8: "bus"}, frames=2)) == {8: "bus"}


def test_two_objects_that_change_places_keep_their_labels_apart():
    world = World()
    world.show({7: "car", 9: "bus"}, frames=4)
    for order in ({9: "bus", 7: "car"}, {7: "car", 9: "bus"}):
        assert labels(world.show(order)) == {7: "car", 9: "bus"}
    assert labels(world.show({7: "bus", 9: "car"})) == {
        7: "bus",
        9: "car",
    }  # the sender changed its mind: its labels count


def test_when_nothing_comes_any_more_everything_ends():
    world = World()
    world.show({7: "car"}, frames=4)
    assert labels(world.reading(VALID)) == {7: "car"}
    reading = world.reading(VALID + 1)
    assert not reading.whole
    assert reading.objects == ()
    assert "NOT_FRESH" in reading.describe()


@pytest.mark.parametrize("lost", range(SLOTS))
def test_a_lost_message_of_a_slot_is_noticed_on_the_same_frame(lost):
    world = World()
    world.show({7: "car"}, frames=4)
    messages = world.frame({7: "car", 9: "bus"})
    del messages[lost]
    world.feed(messages)
    assert not world.reading().whole
    assert "a slot is missing" in world.reading().describe()
    assert world.show({7: "car", 9: "bus"}).whole  # the next frame has all of them


def test_without_the_scenes_message_the_last_list_ends_on_time():
    world = World()
    world.show({7: "car"}, frames=4)
    until = world.now + VALID
    world.feed(world.frame({9: "bus"})[:-1])
    assert labels(world.reading()) == {7: None}  # on the frame that the scene speaks of; its slot says so no more
    assert world.reading().scene.ends_ns == until
    world.feed(world.frame({9: "bus"})[:-1])
    assert world.reading(until - world.now).whole
    assert not world.reading(until - world.now + 1).whole


def test_a_scene_that_comes_before_its_slots_is_not_whole_and_nothing_old_is_usable():
    world = World()
    world.show({7: "car"}, frames=4)
    *slots, scene = world.frame({9: "bus"})
    world.feed([scene, *slots])
    assert not world.reading().whole
    assert labels(world.reading()) == {9: None}
    assert world.show({9: "bus"}).whole


def test_frames_that_come_in_the_wrong_order_do_not_bring_an_object_back():
    world = World()
    world.show({7: "car"}, frames=4)
    older, newer = world.frame({7: "car"}), world.frame({})
    world.feed(newer)
    assert set(world.feed(older)) == {Fault.REORDERED}
    assert world.reading().objects == ()
    assert not world.reading().whole
    assert world.show({}, frames=3).whole


def test_a_flood_of_strangers_closes_the_list_and_does_not_open_it():
    world = World()
    world.show({7: "car"}, frames=4)
    stranger = Clocked([Wire()], 0x900, SLOTS, IDENTITY, heartbeat_s=None)
    noise = bytes(144)
    for _ in range(3):
        messages = world.frame({7: "car"})
        stranger.now_ns = world.now
        stranger.send_result(
            FrameResult((world.judged("track-1", "bus", track=1),), None, "", world.judged("frame", ""))
        )
        for data in messages:
            world.feed([data, noise, stranger.outgoing[0].sent[-1], noise[:7], b""])
            assert not world.reading().whole
    assert {*labels(world.reading())} <= {7}
    world.show({7: "car"}, frames=3)
    assert world.reading().whole
    assert labels(world.reading()) == {7: "car"}


@pytest.mark.parametrize("case", ["more than slots", "beyond", "no box", "followed by nobody"])
def test_objects_that_are_in_no_slot_are_counted_and_the_list_is_not_whole(case):
    world = World()
    world.show({}, frames=3)
    objects = {track: "car" for track in range(5)} if case == "more than slots" else {}
    left_out = {"beyond": {"beyond": 2}, "no box": {"not_finite": 1}}.get(case)
    reading = world.show(objects, left_out=left_out, unknown=2 * (case == "followed by nobody"))
    assert not reading.whole
    assert "LEFT_OUT" in reading.describe()
    assert world.sender.left_out == (1 if case == "no box" else 2)
    assert len(reading.objects) == min(len(objects), SLOTS)
    assert world.show({}).whole


def test_a_box_outside_the_frame_leaves_no_object_out():
    world = World()
    world.show({}, frames=3)
    assert world.show({}, left_out={"outside": 3}).whole
    assert world.sender.left_out == 0


@pytest.mark.parametrize("why", [Reason.BLACK, Reason.NO_REGIONS])
def test_no_object_on_a_frame_that_could_not_be_looked_at_is_no_free_road(why):
    world = World()
    world.show({7: "car"}, frames=4)
    reading = world.show({}, scene=(why,))
    assert not reading.whole
    assert why.value in reading.describe()
    assert reading.objects == ()


def test_silence_takes_everything_back():
    world = World()
    world.show({7: "car"}, frames=4)
    world.now += FRAME
    silent = Prediction.without_frame("frame", Reason.NO_FRAME, "", world.now - 2 * MS)
    world.feed(world.messages(FrameResult((), None, "", silent)))
    assert world.reading().objects == ()
    assert "NO_FRAME" in world.reading().describe()
    assert not world.reading().whole


def test_a_region_beside_the_objects_is_a_stream_of_its_own():
    world = World(regions=("road",))
    road = ids_of(ID, SLOTS, 1)[-1]
    *_, region, scene = world.frame({7: "car"}, fixed=("road",))
    assert decode(region)[0].data_id == road
    assert decode(region)[1].accepted
    assert (decode(scene)[1].kind, decode(scene)[1].objects, decode(scene)[1].region) == (SCENE, 1, SLOTS)
    *_, region, _ = world.frame({}, scene=(Reason.NO_REGIONS,))
    assert decode(region)[1].reason_names == ("NO_REGIONS", "NO_OBJECT")


def test_a_receiver_with_other_slots_than_the_sender_is_never_whole():
    world = World()
    for slots in (1, 2, 4):
        other = ObjectsReceiver(ReceiverConfig(**world.config), slots)
        for _ in range(5):
            for data in world.frame({7: "car", 9: "bus"}):
                other.feed(data, world.now)
        assert not other.verdict(world.now).whole


def test_a_second_sender_latches_and_release_opens_again():
    world = World(quiet_ns=0)
    old = World()
    world.show({7: "car"}, frames=4)
    old.now, old.frame_id = world.now, world.frame_id
    old.sender.epoch = world.sender.epoch - 1
    world.feed(old.frame({7: "bus"}))
    assert "LATCHED" in world.reading().describe()
    assert labels(world.reading()) == {}
    world.show({7: "car"}, frames=3)
    assert not world.reading().whole
    assert world.receiver.release(world.now)
    assert world.show({7: "car"}, frames=3).whole


def test_a_sender_that_was_started_again_is_heard_and_the_old_objects_are_gone():
    world = World()
    world.show({7: "car", 9: "bus"}, frames=4)
    again = Clocked([world.wire], ID, SLOTS, IDENTITY, heartbeat_s=None)
    again.epoch = world.sender.epoch + 1
    world.sender, world.frame_id = again, -1
    assert labels(world.show({1: "bus"})) == {}  # one frame is no rate
    assert not world.reading().whole
    assert labels(world.show({1: "bus"})) == {1: None}
    assert world.show({1: "bus"}, frames=2).whole
    assert labels(world.reading()) == {1: "bus"}


def test_heartbeats_and_the_end_are_said_in_every_stream():
    wire = Wire()
    sender = ObjectSender([wire], ID, SLOTS, IDENTITY, heartbeat_s=0.01)
    until = time.monotonic() + 10
    while len({decode(data)[0].data_id for data in wire.sent}) < 1 + SLOTS and time.monotonic() < until:
        time.sleep(0.005)
    assert {decode(data)[0].data_id for data in wire.sent} == set(range(ID, ID + 1 + SLOTS))
    assert {decode(data)[1].kind for data in wire.sent} == {HEARTBEAT}
    sender.close()
    receiver = ObjectsReceiver(ReceiverConfig(ID, clock_domain=this_clock()), SLOTS)
    faults = {receiver.feed(data) for data in wire.sent}
    assert faults == {Fault.NONE}
    assert not receiver.verdict().whole
    assert "NO_FRAME" in receiver.verdict().scene.describe()


@pytest.mark.parametrize("slots", [0, 17, -1])
def test_a_number_of_slots_that_cannot_be_is_refused(slots):
    with pytest.raises(UsageError, match="expected 1 to 16"):
        ObjectsReceiver(ReceiverConfig(ID), slots)
    with pytest.raises(UsageError, match="expected 1 to 16"):
        ObjectSender([], ID, slots, IDENTITY)


def test_fault_a_signal_handler_calls_a_sender_of_objects_that_it_has_interrupted(monkeypatch):
    """Half of the slots would speak of the next frame, and then the others of this one."""
    world = World()
    putting, asked = world.wire.send, []

    def interrupted(data):
        with pytest.raises(UsageError, match="signal handler"):
            world.sender.send_result(FrameResult((), None, "", world.judged("frame", "")))
        asked.append(data)
        putting(data)

    monkeypatch.setattr(world.wire, "send", interrupted)
    world.sender.send_result(FrameResult((), None, "", world.judged("frame", "")))
    monkeypatch.undo()
    assert len(asked) == SLOTS + 1
    world.sender.close()


def test_regions_with_one_name_are_refused():
    for regions, why in ((("road", "road"), "of its own"), (("scene",), "taken"), (("slot-1",), "taken")):
        with pytest.raises(UsageError, match=why):
            ObjectSender([], ID, SLOTS, IDENTITY, regions=regions)


def require_true(life: Life, place: int, answer: str) -> None:
    """What is usable was said of this track and has not ended; a whole list leaves nothing out, makes nothing up."""
    _, whole, _, _, *objects = answer.split()
    now = life.readings[place]
    recent = [said for end, said in life.said.items() if now <= end <= now + VALID]
    seen = set()
    for each in objects:
        _, track, why, class_id = map(int, each.split(":"))
        seen.add(track)
        assert why or any(said.get(track) == LABELS[class_id] for said in recent), (place, answer)
    assert seen <= set().union(*recent), (place, answer)
    if whole == "1":
        assert recent
        assert seen in [set(said) for said in recent], (place, answer)


def test_over_a_bad_line_nothing_is_usable_that_was_not_said_and_no_whole_list_leaves_an_object_out():
    lives = [Life(seed, 40) for seed in range(12)]
    found = [play_in_python(life.tape) for life in lives]
    for life, answers in zip(lives, found, strict=True):
        for place in life.readings:
            require_true(life, place, answers[place])
    for whole in ("r 1", "r 0"):
        assert sum(answer.startswith(whole) for answers in found for answer in answers) > 100
