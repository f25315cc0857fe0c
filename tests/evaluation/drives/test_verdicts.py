"""Compiled code and DuckDB give the same columns, to the byte; what the code does not understand it refuses."""

from __future__ import annotations

import ctypes
import json
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")

from mcap.writer import Writer

from framegate.evaluation.drives import verdicts
from framegate.evaluation.drives.index import IndexTask, find_files, plan, read_file
from framegate.evaluation.drives.table import VALUES
from framegate.evaluation.drives.work import Unit
from framegate.runtime.errors import DataError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.mcap_messages import Contents
from framegate.runtime.native import library
from framegate.runtime.policy.stream import Policy
from framegate.runtime.replay import columns
from framegate.runtime.replay.columns import read_columns
from framegate.runtime.replay.recording import METADATA, Recording
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.black_box import BlackBoxSink
from framegate.runtime.verdict import Prediction, Reason

ABOUT = '{"drive":"x","camera":"c"}'
TOPICS = ("/verdict/", "/camera", "/event")
compiled = pytest.mark.skipif(library()[0] is None, reason="there is no compiled code")


def record(path, messages, chunk_size=2000, topic="/verdict/frame"):
    """A recording of raw messages: texts, or (topic, text)."""
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=chunk_size)
        writer.start()
        writer.add_metadata(
            METADATA, Recording("b", "d" * 64, "onnxruntime", "fp32", None, Policy(), True, ()).to_metadata()
        )
        channels = {}
        for number, each in enumerate(messages):
            where, text = each if isinstance(each, tuple) else (topic, each)
            if where not in channels:
                channels[where] = writer.register_channel(where, "json", 0)
            at = 1_700_000_000_123_456_789 + number * 1000
            writer.add_message(channels[where], at, text.encode(), at, number)
        writer.finish()
    return Unit(str(path), ABOUT)


def verdict(number=0, **changes):
    values = dict.fromkeys(("entropy", "max_probability", "margin", "energy", "shift"), 0.25)
    one = {
        "frame_id": number, "stream": "front", "verdict": "REJECT", "reasons": ["HIGH_SCORE", "DRIFT"],
        "candidate": "cat", "confidence": 0.5, "score": 0.25, "threshold": 0.5, "captured_ns": 10, "decided_ns": 20,
        "engine_ms": 1.5, "detail": 'a "quoted" {one}', "signals": {"shift": [1, {"deep": "}"}]},
        "evidence": {"found": [], "score": 0.125, "threshold": 0.0625, "values": values},
    }  # fmt: skip
    return one | changes


def both_ways(unit, tmp_path, monkeypatch):
    """The bytes of the part, by compiled code and without it."""
    found = []
    for name in ("fast", "slow"):
        if name == "slow":
            monkeypatch.setattr(columns, "library", lambda: (None, "not now"))
        IndexTask().do(unit, tmp_path / name)
        found.append((tmp_path / name).read_bytes())
    monkeypatch.undo()
    return found


def understood(unit):
    """Whether the compiled code reads it all."""
    return read_columns(Contents(Path(unit.path)), TOPICS, VALUES) is not None


NUMBERS = (
    "0", "-0.0", "0.1", "1e22", "1E5", "1.5e+3", "123456789012345678", "9007199254740993", "9007199254740993.0",
    "5e-324", "2.2250738585072011e-308", "1.7976931348623157e+308", "0.000123", "0.00000000000000000000001",
    "1.00000000000000011102230246251565404", "100000000000000016777215.5", "4503599627370496.5", "4503599627370497.5",
    '"inf"', '"-inf"', "null",
)  # fmt: skip


@compiled
def test_every_number_is_the_nearest_double(tmp_path):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**64, 3000, dtype=np.uint64).view(np.float64)
    ordinary = rng.normal(size=3000) * 10.0 ** rng.integers(-12, 6, 3000)
    texts = [*NUMBERS[:-3], *(repr(float(each)) for each in (*bits[np.isfinite(bits)], *ordinary))]
    # Halfway between two doubles, as near as 17 to 19 digits come to it.
    texts += [f"0.{int(each)}" for each in rng.integers(10**16, 10**18, 3000)]
    messages = [json.dumps(verdict(k)).replace("0.125", text) for k, text in enumerate(texts)]
    unit = record(tmp_path / "n.mcap", messages, 2**16)
    found = read_columns(Contents(Path(unit.path)), TOPICS, VALUES)
    assert found.rows["score"].tolist() == [float(text) for text in texts]
    assert np.array_equal(np.signbit(found.rows["score"]), [text.startswith("-") for text in texts])


@compiled
def test_both_ways_give_the_same_bytes(tmp_path, monkeypatch):
    box = {"box": [3, -4, 30, 40], "detected": "c\u00e4t", "track": 7}
    messages = [json.dumps(verdict(k, stream=f"r{k % 3}")) for k in range(50)]
    messages += [json.dumps(verdict(50)).replace("0.25", text) for text in NUMBERS]
    messages += [json.dumps(verdict(k, reasons=["LATE"], **box), indent=1) for k in (60, 61)]
    messages += [
        json.dumps(verdict(62, stream='t\u00fcr "a"\\ \U0001f600', candidate=None, reasons=[], engine_ms=None)),
        json.dumps({**verdict(None), "evidence": None} | {"evidence": {"values": {}}}),
        json.dumps({key: value for key, value in verdict(None, reasons=["NO_FRAME"]).items() if key != "evidence"}),
        json.dumps(verdict(63, evidence={"found": ["DRIFT"], "score": None, "threshold": None, "values": {"new": 1}})),
        ("/camera", "{}"),
        ("/preview", "not read"),
        ("/event", '{"frame_id":3,"kinds":["changed","sample"]}'),
    ]
    unit = record(tmp_path / "v.mcap", messages)
    assert understood(unit)
    fast, slow = both_ways(unit, tmp_path, monkeypatch)
    assert fast == slow
    rows = read_file(unit)[0].to_pylist()
    assert rows[3]["events"] == "changed sample"
    assert {row["region"] for row in rows} >= {'t\u00fcr "a"\\ \U0001f600', "r1"}
    assert [row["scene"] for row in rows[-4:]] == [False, False, True, False]


def test_fault_silences_are_events_of_their_own(tmp_path, monkeypatch):
    """Of a real black box: they have no frame, and were lost, or one and the same."""
    rois = (Roi.parse("left=0,0,40,40"), Roi.parse("right=40,0,40,40"))
    recording = Recording("b", "d" * 64, "onnxruntime", "fp32", None, Policy(), True, rois)
    sink = BlackBoxSink(tmp_path / "box", 2**23, rois, recording, drive="d", camera="c", version="1", pictures="none")
    now, reported = 10**9, {}

    def write(number, *reasons):
        values = ("cat", 0.9, 0.1, 0.8, -3.0, 0.1, 0.5, now, now) if number >= 0 else ("", *[math.nan] * 6, now, now)
        sink.write(FrameResult(tuple(Prediction(number, roi.name, reasons, *values) for roi in rois), None, ""))

    for k in range(3):
        now += 10**9
        write(k)
        for again in range(2):
            now += 10**8
            write(-1, Reason.NO_FRAME)
            reported[now] = "" if again else "changed fault"
    sink.close()
    (unit,) = plan(find_files([tmp_path / "box"])).units
    fast, slow = both_ways(unit, tmp_path, monkeypatch)
    assert fast == slow
    rows = read_file(unit)[0].to_pylist()
    silent = [(row["captured_ns"], row["events"]) for row in rows if row["frame_id"] is None]
    assert silent == [each for each in reported.items() for _ in rois]
    assert {row["events"] for row in rows if row["frame_id"] is not None} == {"", "changed"}


def test_events_of_older_recordings_are_read(tmp_path, monkeypatch):
    silence = json.dumps(verdict(None, reasons=["NO_FRAME"]))
    messages = [
        json.dumps(verdict(3)), silence,
        ("/event", '{"frame_id":3,"kinds":["changed"]}'), ("/event", '{"frame_id":-1,"kinds":["fault"]}'),
    ]  # fmt: skip
    unit = record(tmp_path / "old.mcap", messages)
    fast, slow = both_ways(unit, tmp_path, monkeypatch)
    assert fast == slow
    assert [row["events"] for row in read_file(unit)[0].to_pylist()] == ["changed", ""]


@pytest.mark.parametrize(
    "event",
    ['{"frame_id":"3","kinds":[]}', '{"frame_id":1e99,"kinds":[]}', '{"frame_id":99999999999999999999,"kinds":[]}'],
)
def test_fault_garbled_event_is_said(event, tmp_path):
    unit = record(tmp_path / "g.mcap", [json.dumps(verdict(0)), ("/event", event)])
    with pytest.raises(DataError, match="an event is garbled"):
        read_file(unit)


@compiled
def test_drives_of_the_black_box_are_read_the_fast_way(drives, tmp_path, monkeypatch):
    unit = plan(find_files([drives])).units[0]
    assert understood(unit)
    fast, slow = both_ways(unit, tmp_path, monkeypatch)
    assert fast == slow


@compiled
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(verdict(1.0)),
        json.dumps(verdict(10**18 + 1)),
        json.dumps(verdict(0))[:-1] + ',"frame_id":3}',
        json.dumps(verdict(0)) + " ",
        json.dumps(verdict(0), ensure_ascii=False).replace("cat", "c\u00e4t"),
        json.dumps(verdict(0)).replace("0.125", '"0.125"'),
        json.dumps(verdict(0)).replace("0.125", "NaN"),
        json.dumps(verdict(0), separators=(",", ":")),
        json.dumps(verdict(0, box=[1, 2, 3])),
        json.dumps(verdict(0, extra=[[[]]])),
    ],
)
def test_what_is_unusual_comes_out_the_same(text, tmp_path, monkeypatch):
    unit = record(tmp_path / "u.mcap", [json.dumps(verdict(0)), text])
    try:
        fast, slow = both_ways(unit, tmp_path, monkeypatch)
    except (DataError, IndexError):
        assert not understood(unit)
    else:
        assert fast == slow


GARBLED = (
    "", "{", "[]", "null", "{}", '{"frame_id":1', json.dumps(verdict(0))[:-1], json.dumps(verdict(0)) + "x",
    json.dumps(verdict(0)).replace("0.125", "0.12.5"),
    json.dumps(verdict(0)).replace("0.125", "00.5"), json.dumps(verdict(0)).replace("0.125", "."),
    json.dumps(verdict(0, reasons=None)), json.dumps(verdict(0, captured_ns=None)),
)  # fmt: skip


@compiled
@pytest.mark.parametrize("text", GARBLED)
def test_a_garbled_verdict_is_refused_and_said(text, tmp_path):
    unit = record(tmp_path / "g.mcap", [json.dumps(verdict(0)), text])
    assert not understood(unit)
    with pytest.raises(DataError, match="a verdict"):
        read_file(unit)


@compiled
@pytest.mark.parametrize("place", ["reasons", "found"])
def test_fault_a_reason_that_this_version_does_not_know_is_said(place, tmp_path):
    odd = verdict()
    (odd if place == "reasons" else odd["evidence"])[place] = ["HIGH_SCORE", "NOPE"]
    unit = record(tmp_path / "a.mcap", [json.dumps(verdict()), json.dumps(odd)])
    with pytest.raises(DataError, match=r"a\.mcap: a verdict is rejected for 'NOPE', a reason that"):
        read_file(unit)


def test_many_signals_and_many_words_are_refused_not_lost(tmp_path, monkeypatch):
    evidence = verdict()["evidence"]
    wide = {**evidence, "values": {**evidence["values"], **{f"s{k}": float(k) for k in range(80)}}}
    unit = record(tmp_path / "w.mcap", [json.dumps(verdict(0, evidence=wide))])
    assert not understood(unit)
    assert read_file(unit)[0].column("signal:s79").to_pylist() == [79.0]
    unit = record(tmp_path / "m.mcap", [json.dumps(verdict(k, stream=f"r{k}")) for k in range(8300)], 2**18)
    assert not understood(unit)
    assert read_file(unit)[0].num_rows == 8300


@compiled
def test_cut_anywhere_nothing_is_invented(tmp_path):
    """The compiled code stays within its bytes: a chunk cut at any place gives verdicts or a refusal."""
    messages = [json.dumps(verdict(k)) for k in range(3)]
    unit = record(tmp_path / "c.mcap", messages)
    code = library()[0]
    data = b"".join(Contents(Path(unit.path)).chunks())
    for size in range(0, len(data), 7):
        state = code.framegate_verdicts_open((ctypes.c_char_p * 3)(b"/verdict/", b"/camera", b"/event"), None, 0)
        code.framegate_verdicts_chunk(state, data[:size], size)
        code.framegate_verdicts_close(state)


def test_the_slow_way_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "library", lambda: (None, "not compiled"))
    unit = record(tmp_path / "s.mcap", [json.dumps(verdict(0))])
    assert verdicts.read_verdicts(Path(unit.path)).count == 1
