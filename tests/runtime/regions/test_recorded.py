from __future__ import annotations

import json
import math
import os
import threading
import time

import numpy as np
import pytest

from framegate.runtime.errors import DataError
from framegate.runtime.regions.recorded import RecordedRegions, StreamedRegions, open_recorded
from framegate.runtime.verdict import Frame, Reason

LINES = [
    {"origin": "a test", "frames": 4},
    {"frame": 0, "boxes": [{"box": [1, 2, 30, 40], "label": "car", "score": 0.5, "track": 3}]},
    {"frame": 1, "boxes": []},
    {"frame": 2, "boxes": [{"box": [1, None, 30, 40]}]},
]


def frame(number):
    return Frame(number, time.monotonic_ns(), np.zeros((48, 64, 3), np.uint8))


@pytest.fixture
def file(tmp_path):
    def write(lines):
        path = tmp_path / "boxes.jsonl"
        path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines))
        return path

    return write


def test_boxes_of_each_frame(file):
    regions = RecordedRegions(file(LINES))
    (box,) = regions.find(frame(0)).boxes
    assert (*box[:4], box.label, box.score, box.track) == (1, 2, 30, 40, "car", 0.5, 3)
    assert regions.find(frame(1)) == ((), {})
    assert math.isnan(regions.find(frame(2)).boxes[0].y)
    assert regions.notes["origin"] == "a test"


def test_what_a_box_does_not_say_is_null_or_left_out(file):
    nothing = {"box": [1, 2, 30, 40], "label": None, "score": None, "track": None}
    boxes = RecordedRegions(file([{"frame": 0, "boxes": [nothing, {"box": nothing["box"]}]}])).find(frame(0)).boxes
    assert [(box.label, math.isnan(box.score), box.track) for box in boxes] == [("", True, None)] * 2


def test_fault_a_frame_without_a_line_is_not_one_without_objects(file):
    regions = RecordedRegions(file(LINES))
    assert Reason.NO_REGIONS in regions.find(frame(3)).problem
    assert Reason.NO_REGIONS in regions.find(frame(4)).problem
    again = RecordedRegions(file(LINES), loop=True)
    assert again.find(frame(4)).boxes
    assert Reason.NO_REGIONS in again.find(frame(7)).problem


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("no json", "not a JSON object"),
        ("[1]", "expected an object"),
        ({"frame": -1, "boxes": []}, "whole number"),
        ({"frame": 1.5, "boxes": []}, "whole number"),
        ({"frame": 3}, "empty list"),
        ({"frame": 3, "boxes": [{"box": [1, 2, 3]}]}, "is no box"),
        ({"frame": 3, "boxes": [{"box": "1234"}, 5]}, "is no box"),
        ({"frame": 3, "boxes": [{"box": [1, 2, 3, 4], "track": "x"}]}, "is no box"),
        ({"frame": 3, "boxes": [{"box": [1, 2, 3, 4]}] * 10_001}, "at most 10000"),
        ({"frame": 0, "boxes": []}, "has a line already"),
    ],
)
def test_fault_a_line_that_is_none_is_named(file, line, says):
    with pytest.raises(DataError, match=says) as caught:
        RecordedRegions(file([*LINES, line]))
    assert "boxes.jsonl:5" in str(caught.value)


def test_fault_a_missing_or_empty_file_is_refused(tmp_path, file):
    with pytest.raises(DataError, match="cannot be read"):
        open_recorded(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="holds no frame"):
        RecordedRegions(file([{"origin": "nothing"}]))


def test_boxes_of_an_mcap_file(tmp_path):
    from mcap.writer import Writer

    path = tmp_path / "boxes.mcap"
    with path.open("wb") as out:
        writer = Writer(out)
        writer.start()
        schema = writer.register_schema("boxes", "jsonschema", b"{}")
        channel = writer.register_channel("/boxes", "json", schema)
        for number, line in enumerate(LINES):
            writer.add_message(channel, number, json.dumps(line).encode(), number, number)
        writer.finish()
    regions = open_recorded(path)
    assert regions.find(frame(0)).boxes[0].label == "car"
    path.write_bytes(b"no mcap at all")
    with pytest.raises(DataError, match="MCAP"):
        open_recorded(path)


def test_boxes_that_come_through_a_pipe_belong_to_their_frames(tmp_path):
    pipe = tmp_path / "boxes"
    os.mkfifo(pipe)
    regions = open_recorded(pipe, wait_ms=2000)
    assert isinstance(regions, StreamedRegions)

    def write():
        with pipe.open("w") as out:
            for line in LINES[1:]:
                out.write(json.dumps(line) + "\n")
                out.flush()
                time.sleep(0.02)
            time.sleep(0.3)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert regions.find(frame(0)).boxes[0].track == 3
        assert regions.find(frame(2)).boxes  # frame 1 was dropped
        assert Reason.NO_REGIONS in regions.find(frame(1)).problem  # its boxes are gone
    finally:
        writer.join()
    assert Reason.NO_REGIONS in regions.find(frame(3)).problem  # whoever wrote has left
    regions.close()
    regions.close()


def test_fault_boxes_that_do_not_come_in_time(tmp_path):
    pipe = tmp_path / "boxes"
    os.mkfifo(pipe)
    regions = StreamedRegions(pipe, wait_ms=30)
    began = time.monotonic()
    problem = regions.find(frame(0)).problem
    assert time.monotonic() - began < 1
    assert "came within 30 ms" in problem[Reason.NO_REGIONS]
    regions.close()
    with pytest.raises(DataError, match="mkfifo"):
        StreamedRegions(tmp_path / "none")


@pytest.mark.parametrize("note", [[], [{"frames": 2}], [{"frames": "4"}]])
def test_fault_a_clip_that_starts_again_is_not_known_to_be_as_long_as_its_lines(file, note):
    """Its last frame may have no line: it would be given the boxes of the first one."""
    path = file([*note, *LINES[1:]])
    with pytest.raises(DataError, match=r'add the line \{"frames": N\}, N being 3 or more'):
        RecordedRegions(path, loop=True)
    assert RecordedRegions(path).find(frame(0)).boxes


@pytest.mark.parametrize("asked_between", [False, True])
def test_fault_a_writer_of_one_line_an_object_does_not_lose_all_but_one(tmp_path, asked_between):
    pipe = tmp_path / "boxes"
    os.mkfifo(pipe)
    regions = StreamedRegions(pipe, wait_ms=2_000)
    with pipe.open("w") as writer:
        writer.write('{"frame": 0, "boxes": [{"box": [1, 1, 5, 5]}]}\n')
        writer.flush()
        if asked_between:
            assert len(regions.find(frame(0)).boxes) == 1
        writer.write('{"frame": 0, "boxes": [{"box": [6, 6, 3, 3]}]}\n')
        writer.flush()
        regions._thread.join(5)
        found = regions.find(frame(int(asked_between)))
    assert found.boxes == ()
    assert "frame 0 has had a line already" in found.problem[Reason.NO_REGIONS]
    regions.close()
