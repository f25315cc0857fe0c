"""The campaign of faults between sender and receiver, and the soak, as `make faults` runs them, but shorter."""

from __future__ import annotations

import json
import time

import pytest
from object_drive import ID, World

from framegate.benchmarks.fault_tables import handover_faults
from framegate.benchmarks.handover import campaign, cases, object_cases, soak
from framegate.runtime.errors import UsageError
from framegate.runtime.handover.message import NO_TRACK
from framegate.runtime.handover.objects import ids_of


@pytest.mark.parametrize("transport", ["udp", "local"])
def test_a_short_soak(transport):
    found = soak.soak(3000, transport)
    assert soak.passed(found), found
    assert found["counts"]["received"] + found["counts"].get("lost_messages", 0) == 3000
    assert 0 < found["usable"] < 3000


def test_a_soak_fails_for_each_thing_that_it_looks_at():
    good = {"memory_growth_kib": 0, "files_growth": 0, "counters_agree": True, "unsafe": 0, "usable": 1}
    assert soak.passed(good)
    for name, bad in (
        ("memory_growth_kib", 10**6),
        ("files_growth", 1),
        ("counters_agree", False),
        ("unsafe", 1),
        ("usable", 0),
    ):
        assert not soak.passed({**good, name: bad})
    with pytest.raises(UsageError, match="expected 100 or more"):
        soak.soak(3)


@pytest.mark.long
@pytest.mark.slow
def test_the_campaign_finds_nothing_usable_that_must_not_be_and_its_record_makes_the_table(tmp_path):
    out = tmp_path / "faults.json"
    words = ["--out", str(out)]
    for name in ("bit flips", "camera unplugged", "kill -9", "objects: a slot is lost"):
        words += ["--only", name]
    assert campaign.main(words) == 0
    record = json.loads(out.read_text())
    rows = {row["fault"]: row for row in record["faults"]}
    assert [row["unsafe"] for row in rows.values()] == [0, 0, 0, 0]
    assert rows["bit flips"]["found"]["corrupted"] > 0
    assert rows["kill -9"]["found"]["new_epoch"] == 1
    table = handover_faults(record)
    assert "| kill -9 |" in table
    assert "0 of " in table


@pytest.mark.slow
def test_the_watcher_sees_a_usable_reading_that_must_not_be():
    """The campaign can fail: a receiver that believes everything is found out."""
    bench = cases.Bench()
    try:
        assert bench.consumer.wait_until_usable() < 100
        bench.consumer.allowed = lambda message: False  # whatever is usable now is too much
        bench.consumer.begin()
        assert bench.consumer.wait_until_usable() < 100
        watched = bench.consumer.watched
        for _ in range(500):
            if watched.unsafe:
                break
            time.sleep(0.01)
        assert watched.unsafe
        assert "not allowed by the case" in watched.examples[0]
    finally:
        bench.close()


def test_the_watcher_of_objects_sees_a_list_that_leaves_one_out_or_makes_a_label_up():
    world = World(slots=object_cases.SLOTS)
    reading = world.show({7: "car", 9: "bus"}, frames=4)
    assert reading.whole
    ids = ids_of(ID, object_cases.SLOTS)
    messages = [reading.scene.message, *(each.reading.message for each in reading.objects)]
    empty = messages[1]._replace(track=NO_TRACK, accepted=False)
    genuine = {(data_id, m.epoch, m.frame_id): m for data_id, m in zip(ids, [*messages, empty], strict=True)}
    consumer = object.__new__(object_cases.ObjectsConsumer)
    consumer._data_id, consumer._genuine, consumer.allowed = ID, genuine, lambda _: True
    assert consumer._look(reading, world.now) == ""
    third = ids[3], empty.epoch, empty.frame_id
    genuine[third] = messages[1]._replace(track=11)
    assert "slot 3 holds None, and {11} was said" in consumer._look(reading, world.now)
    genuine[third] = empty
    assert "after its end" in consumer._look(reading, world.now + 10**9)
    genuine[ids[2], empty.epoch, empty.frame_id] = messages[2]._replace(class_id=0)
    assert "nobody said" in consumer._look(reading, world.now)
