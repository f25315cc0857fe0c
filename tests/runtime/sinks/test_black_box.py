"""The black box: bounded, whole up to the last flush, quiet on a full disk, and silent about what it must not show."""

from __future__ import annotations

import base64
import json
import math
import os
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings import fill, mcap_messages, small_disk

from framegate.runtime.cli.black_box import parse_bytes
from framegate.runtime.errors import SinkError, UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.policy.stream import Policy
from framegate.runtime.replay.recording import Recording
from framegate.runtime.replay.replay import read_recording, replay
from framegate.runtime.roi import Roi
from framegate.runtime.sinks import black_box
from framegate.runtime.sinks.black_box import BlackBoxSink
from framegate.runtime.sinks.events import Events, near_threshold
from framegate.runtime.verdict import Prediction, Reason

pytest.importorskip("mcap")
ROIS = (Roi("car", 16, 8, 32, 16, fractions=False),)
RECORDING = Recording("tiny", "d" * 64, "onnxruntime", "fp32", None, Policy(), True, ROIS)
MIB = 2**20


def result(number, reasons=(), score=0.1, image=None, rng=None):
    at = 10**9 + number * 40_000_000
    one = Prediction(number, "car", reasons, "cat", 0.9, 0.1, 0.8, -3.0, score, 0.5, at, at + 10**6)
    if rng is not None:
        image = rng.integers(0, 256, (192, 256, 3), np.uint8)
    return FrameResult((one,), np.full((48, 64, 3), 200, np.uint8) if image is None else image, "")


def box(folder, keep=4 * MIB, said=None, drive="d", **options):
    report = (lambda line: None) if said is None else said.append
    return BlackBoxSink(
        folder, keep, ROIS, RECORDING, drive=drive, camera="front", version="1", report=report, **options
    )


def fill_box(sink, frames=80):
    """Write noise, of which several files are full."""
    rng = np.random.default_rng(0)
    for number in range(frames):
        sink.write(result(number, (Reason.HIGH_SCORE,) if number % 2 else (), rng=rng))
    sink.close()


def numbers(folder, drive="d"):
    return sorted(int(path.name.split(".")[2]) for path in folder.glob(f"{drive}.front.*.mcap"))


def set_times(paths, hours):
    """As if the files had been written so many hours from now."""
    at = time.time() + 3600 * hours
    for path in paths:
        os.utime(path, (at, at))


def pictures(folder, topic="/camera"):
    found = {}
    for path in sorted(folder.glob("*.mcap")):
        for name, data in mcap_messages(path):
            if name == topic:
                record = json.loads(data)
                raw = np.frombuffer(base64.b64decode(record["data"]), np.uint8)
                found[int(record["frame_id"])] = cv2.imdecode(raw, cv2.IMREAD_COLOR)
    return found


def verdicts(path):
    return sum(topic == "/verdict/car" for topic, _ in mcap_messages(path))


def test_all_verdicts_and_the_pictures_around_an_event_are_kept(tmp_path):
    sink = box(tmp_path)
    for number in range(60):
        sink.write(result(number, (Reason.HIGH_SCORE,) if number >= 30 else ()))
    sink.close()
    (path,) = tmp_path.glob("*.mcap")
    topics = Counter(topic for topic, _ in mcap_messages(path))
    assert topics == {"/verdict/car": 60, "/event": 2, "/camera": 12, "/preview": 3}
    assert sorted(pictures(tmp_path)) == [0, *range(25, 36)]
    assert [json.loads(data) for topic, data in mcap_messages(path) if topic == "/event"] == [
        {"frame_id": 0, "captured_ns": 10**9, "kinds": ["sample"]},
        {"frame_id": 30, "captured_ns": 10**9 + 30 * 40_000_000, "kinds": ["changed"]},
    ]
    assert replay(path, read_recording(path), None).verdicts == 60


def test_a_killed_process_leaves_what_was_flushed(tmp_path):
    sink = box(tmp_path)
    for number in range(20):
        sink.write(result(number))
    sink.flush()
    sink.write(result(20))
    (path,) = tmp_path.glob("*.mcap")
    assert sum(topic == "/verdict/car" for topic, _ in mcap_messages(path)) == 20  # nothing was closed
    sink._held.close()  # as the system does for a dead process
    second = box(tmp_path)  # the drive goes on after a restart, in a file of its own
    second.close()
    assert len(list(tmp_path.glob("*.mcap"))) == 2


def test_fault_two_processes_do_not_remove_each_others_files(tmp_path):
    sink = box(tmp_path, drive="first")
    with pytest.raises(SinkError, match="camera front is being recorded there already; give another folder"):
        box(tmp_path, drive="second")
    assert not numbers(tmp_path, "second")
    fill_box(sink, 10)
    box(tmp_path, drive="second").close()  # the first one has ended


def test_fault_a_file_that_was_fetched_meanwhile_costs_nothing(tmp_path, monkeypatch):
    said = []
    sink, rng, unlink = box(tmp_path, said=said), np.random.default_rng(0), Path.unlink
    fetched = []

    def gone(path, **options):
        if path.suffix == ".mcap":
            unlink(path)  # somebody moves it away just now
            fetched.append(path)
        return unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", gone)
    for number in range(140):
        sink.write(result(number, (Reason.HIGH_SCORE,) if number % 2 else (), rng=rng))
    sink.close()
    assert fetched
    assert not said


def test_the_ring_stays_within_its_size(tmp_path):
    sink, rng = box(tmp_path), np.random.default_rng(0)
    largest = 0
    for number in range(140):
        sink.write(result(number, (Reason.HIGH_SCORE,) if number % 2 else (), rng=rng))
        if number % 10 == 0:
            sink.flush()
        largest = max(largest, sum(path.stat().st_size for path in tmp_path.glob("*.mcap")))
    sink.close()
    assert 2 * MIB < largest <= 4 * MIB
    assert not (tmp_path / "d.front.000000.mcap").exists()


def test_fault_clock_set_back_costs_earlier_drives_and_not_this_one(tmp_path):
    fill_box(box(tmp_path, drive="before"))
    set_times(tmp_path.glob("before.*"), 240)
    sink, rng = box(tmp_path), np.random.default_rng(0)
    for number in range(30):
        sink.write(result(number, (Reason.HIGH_SCORE,) if number % 2 else (), rng=rng))
        set_times([tmp_path / f"d.front.{sink._number:06d}.mcap"], -number)  # and it goes on going back
    sink.close()
    first, *rest = numbers(tmp_path)
    assert [first, *rest] == list(range(sink._number + 1))  # nothing of this drive is gone
    assert numbers(tmp_path, "before")
    assert numbers(tmp_path, "before")[0] > 0  # of the other one the oldest are
    fill_box(box(tmp_path, drive="third"), 140)
    kept = numbers(tmp_path, "third")
    assert kept == list(range(kept[0], kept[-1] + 1))
    assert kept[0] > 0  # this drive alone fills the ring; its own oldest files went
    assert not numbers(tmp_path)
    assert not numbers(tmp_path, "before")


def test_earlier_drives_go_whole_and_the_oldest_first(tmp_path):
    for k, drive in enumerate(("z", "a")):
        fill_box(box(tmp_path, drive=drive), 30)
        set_times(tmp_path.glob(f"{drive}.*"), k - 2)
        set_times([tmp_path / f"{drive}.front.000000.mcap"], k - 1.5)  # touched since, as by a copy
    before = numbers(tmp_path, "z"), numbers(tmp_path, "a")
    assert min(len(each) for each in before) > 2
    sink, rng = box(tmp_path), np.random.default_rng(0)
    while numbers(tmp_path, "z") == before[0]:
        sink.write(result(sink._pending, rng=rng))
        sink.write(result(sink._pending, (Reason.HIGH_SCORE,), rng=rng))
    sink.close()
    assert numbers(tmp_path, "z") == before[0][-len(numbers(tmp_path, "z")) :]
    assert numbers(tmp_path, "a") == before[1]


def test_fault_a_drive_that_goes_on_writes_over_none_of_its_files(tmp_path):
    fill_box(box(tmp_path, keep=24 * MIB))
    set_times(tmp_path.glob("*.mcap"), -1)
    (tmp_path / "d.front.000000.mcap").unlink()  # fetched, and removed
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.mcap")}
    last = numbers(tmp_path)[-1]
    assert last > 1
    (tmp_path / f"d.rear.{last + 7:06d}.mcap").touch()  # of another camera
    fill_box(box(tmp_path, keep=24 * MIB))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.mcap") if path.name in before} == before
    assert numbers(tmp_path)[len(before)] == last + 1


def test_fault_a_file_that_appears_under_the_next_name_stays(tmp_path):
    sink = box(tmp_path, keep=24 * MIB)
    (tmp_path / "d.front.000001.mcap").write_bytes(b"whole")
    fill_box(sink)
    assert (tmp_path / "d.front.000001.mcap").read_bytes() == b"whole"
    assert numbers(tmp_path)[:3] == [0, 1, 2]
    assert verdicts(tmp_path / "d.front.000000.mcap") + verdicts(tmp_path / "d.front.000002.mcap") > 0


def test_numbers_above_a_million_are_of_the_ring(tmp_path):
    (tmp_path / "d.front.999999.mcap").write_bytes(b"0" * MIB)
    (tmp_path / "d.front.1000000.mcap").write_bytes(b"0" * MIB)
    sink = box(tmp_path)
    assert numbers(tmp_path)[-1] == 1_000_001
    fill_box(sink, 140)
    assert numbers(tmp_path)[0] > 1_000_000
    assert sum(path.stat().st_size for path in tmp_path.glob("*.mcap")) <= 4 * MIB


def test_a_full_disk_is_said_once_and_the_box_goes_on_when_there_is_room(tmp_path, monkeypatch):
    said = []
    with small_disk(tmp_path / "disk", 1024) as disk:
        sink = box(disk / "box", said=said)
        fill(disk)
        for number in range(50):
            sink.write(result(number))
            sink.flush()
        assert len(said) == 1
        assert "No space left" in said[0]
        assert "judging goes on" in said[0]
        (disk / "rest").unlink()
        monkeypatch.setattr(black_box, "RETRY_S", 0.0)
        sink._retry_at = time.monotonic()
        sink.write(result(50))
        sink.close()
        assert len(said) == 2
        *older, newest = sorted((disk / "box").glob("*.mcap"))
        assert all(path.stat().st_size for path in older)
        assert verdicts(newest) == 1
        lost = 50 - sum(verdicts(path) for path in older)
        assert lost > 25
        assert f"records again; {lost} frames were not recorded" in said[1]


def test_a_disk_that_stays_full_is_a_failed_recording(tmp_path):
    with small_disk(tmp_path / "disk", 1024) as disk:
        sink = box(disk / "box", said=[])
        fill(disk)
        for number in range(50):
            sink.write(result(number))
            sink.flush()
        with pytest.raises(SinkError, match="frames were not recorded"):
            sink.close()


def test_outside_the_regions_nothing_is_stored(tmp_path):
    sink = box(tmp_path, pictures="regions")
    for number in range(40):
        sink.write(result(number, (Reason.HIGH_SCORE,) if number == 20 else ()))
    sink.close()
    for topic in ("/camera", "/preview"):
        found = pictures(tmp_path, topic)
        assert found
        for image in found.values():
            assert image[10:22, 20:44].mean() > 190
            outside = image.copy()
            outside[0:32, 8:56] = 0  # JPEG blurs an edge within its block of 8 or 16 pixels
            assert outside.max() <= 3


def test_without_pictures_there_are_none(tmp_path):
    sink = box(tmp_path, pictures="none")
    assert not sink.takes_pictures
    for number in range(40):
        sink.write(result(number, (Reason.HIGH_SCORE,) if number == 20 else ()))
    sink.close()
    assert not pictures(tmp_path)
    assert not pictures(tmp_path, "/preview")


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(UsageError, match="the region is the whole frame"):
        BlackBoxSink(
            tmp_path, 4 * MIB, (Roi.whole(),), RECORDING, drive="d", camera="c", version="1", pictures="regions"
        )
    with pytest.raises(UsageError, match="--keep"):
        box(tmp_path, keep=1000)
    with pytest.raises(UsageError, match="such as 500MB"):
        parse_bytes("two gigabytes", "--keep")
    assert (parse_bytes("2GB", "--keep"), parse_bytes("1.5 MiB", "--keep")) == (2 * 10**9, 1_572_864)
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot be created"):
        box(tmp_path / "file" / "below")


def test_events_are_beginnings_and_nearness():
    events = Events()
    given = [
        result(0),
        result(1, score=0.46),
        result(2, (Reason.HIGH_SCORE,), 0.9),
        result(3, (Reason.HIGH_SCORE, Reason.DRIFT), 0.9),
        result(4, (Reason.HIGH_SCORE, Reason.DRIFT), 0.9),
        result(5, (Reason.BACKEND_FAULT,), math.nan),
        result(6, (Reason.NO_AGREEMENT,)),
    ]
    kinds = [events.of(each) for each in given]
    assert kinds == [(), ("near_threshold",), ("changed",), ("drift",), (), ("fault",), ("disagreement",)]
    assert not near_threshold(math.nan, 0.5)
    assert not near_threshold(0.5, math.nan)


def test_without_the_package_the_option_is_named_and_no_folder_made(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--black-box .*drives: the package 'mcap'"):
        box(tmp_path / "drives")
    assert not (tmp_path / "drives").exists()
