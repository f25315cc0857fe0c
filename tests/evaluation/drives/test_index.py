"""Recordings become rows: all of them, exactly, and a damaged file costs itself alone."""

from __future__ import annotations

import json
import math
import shutil

import cv2
import duckdb
import pyarrow.parquet as pq
import pytest
from drive_files import FRAMES, ROIS, scene
from flipped_bits import fuzz
from recordings import mcap_messages

from framegate.evaluation.drives.index import read_file
from framegate.evaluation.drives.table import FORMAT, KEY, NAMES, DriveTable
from framegate.evaluation.drives.work import Unit
from framegate.runtime.cli import main as cli
from framegate.runtime.errors import DataError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.policy.stream import Policy
from framegate.runtime.replay.recording import Recording
from framegate.runtime.session import Session
from framegate.runtime.sinks.mcap_file import McapSink
from framegate.runtime.verdict import FoundObject, Frame, Prediction, Reason


def index(*arguments):
    return cli.main(["drives", "index", *map(str, arguments), "--workers", "1"])


def test_every_verdict_is_a_row_with_exactly_its_numbers(drives, table):
    rows = DriveTable(table).read().to_pylist()
    assert len(rows) == 6 * FRAMES * 2
    assert list(DriveTable(table).schema.names) == list(NAMES)
    (path,) = (drives / "car04").glob("*.mcap")
    written = [json.loads(data) for topic, data in mcap_messages(path) if topic.startswith("/verdict/")]
    found = [row for row in rows if row["drive"] == "d04"]
    assert [(row["frame_id"], row["region"]) for row in found] == [
        (each["frame_id"], each["stream"]) for each in written
    ]
    for row, each in zip(found, written, strict=True):
        assert row["score"] == each["evidence"]["score"]
        assert row["threshold"] == each["evidence"]["threshold"]
        assert row["energy"] == each["evidence"]["values"]["energy"]
        assert row["reasons"].split() == each["reasons"]
        assert row["accepted"] == (not each["reasons"])
        assert row["captured_ns"] == each["captured_ns"]
    pictured = [int(json.loads(data)["frame_id"]) for topic, data in mcap_messages(path) if topic == "/camera"]
    assert sorted({row["frame_id"] for row in found if row["picture"]}) == sorted(set(pictured))
    assert {kind for row in found for kind in row["events"].split()} >= {"sample", "changed"}


def test_duckdb_answers_from_it(table):
    ((count, drives),) = duckdb.sql(f"select count(*), count(distinct drive) from '{table}' where accepted").fetchall()
    assert 0 < count < 6 * FRAMES * 2
    assert drives == 6


def test_infinities_nan_objects_and_silences_keep_what_they_are(tmp_path):
    path = tmp_path / "objects.mcap"
    sink = McapSink(path, (), Recording("b", "d" * 64, "onnxruntime", "fp32", None, Policy(), True, ()))
    box = FoundObject((3, 4, 30, 40), "cat", 0.5, 7, 2)
    one = Prediction(
        0, "track-7", (Reason.NOT_FINITE,), "", math.nan, math.nan, math.nan, math.inf, math.nan, 0.5, 10, 20,
        found_reasons=(Reason.NOT_FINITE,), found=box, signals={"shift": -math.inf, "a'b": 1.5},
    )  # fmt: skip
    scene = Prediction.without_frame("frame", Reason.NO_FRAME, "", 30)
    sink.write(FrameResult((one,), None, "", scene=Prediction(0, "frame", (), "", *[math.nan] * 6, 10, 20)))
    sink.write(FrameResult((), None, "", scene=scene))
    sink.close()
    rows, signals, _ = read_file(Unit(str(path), '{"drive":"x","camera":"c"}'))
    whole, found, silence = rows.to_pylist()
    assert (whole["region"], whole["accepted"], whole["score"]) == ("frame", True, None)
    assert (whole["scene"], found["scene"], silence["scene"]) == (True, False, True)
    assert (found["x"], found["y"], found["width"], found["height"], found["track"]) == (3, 4, 30, 40, 7)
    assert found["energy"] == math.inf
    assert found["score"] is None
    assert signals == ("signal:a'b", "signal:shift")
    assert (found["signal:shift"], found["signal:a'b"]) == (-math.inf, 1.5)
    assert (silence["frame_id"], silence["reasons"]) == (None, "NO_FRAME")


def test_fault_scaled_pictures_are_neither_labelled_nor_judged_again(tmp_path, tiny_bundle, capsys):
    """On a picture made smaller for people a region of pixels lies elsewhere."""
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1)
    recording = Recording.of(session, ROIS, sequence=True, source="made")
    sink = McapSink(tmp_path / "d.mcap", ROIS, recording)
    for number in range(5):
        image = cv2.resize(scene(0, number), (1280, 768))
        frame = Frame(number, 10**9 + number, image)
        judged = session.frame_judge.judge(frame, ROIS, session.camera_health(), None, None)
        sink.write(FrameResult(judged, image, ""))
    sink.close()
    out = tmp_path / "t.parquet"
    assert index(tmp_path / "d.mcap", "--out", out) == 0
    assert [row["picture"] for row in DriveTable(out).read(["picture"]).to_pylist()] == [False] * 10
    for arguments in (["mine"], ["mine", "--random"], ["what-if", "--bundle", str(tiny_bundle)]):
        target = str(tmp_path / ("w.json" if arguments[0] == "what-if" else "m"))
        assert cli.main(["drives", arguments[0], str(out), *arguments[1:], "--out", target]) == 1
        assert "picture" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_damaged_files_cost_themselves_alone(drives, tmp_path, capsys):
    folder = tmp_path / "drives"
    shutil.copytree(drives, folder)
    first, second, third, *_ = sorted(folder.rglob("*.mcap"))
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])  # killed
    second.write_bytes(b"nothing like it" * 10)
    third.write_bytes(b"")
    out = tmp_path / "drives.parquet"
    assert index(folder, "--out", out) == 1
    said = capsys.readouterr().err
    for path in (first, second, third):
        assert str(path) in said.replace("\n", "")
    found = DriveTable(out)
    assert set(found.about.broken) == {str(first), str(second), str(third)}
    counts = dict(duckdb.sql(f"select drive, count(*) from '{out}' group by drive").fetchall())
    assert set(counts) == {"d00", "d03", "d04", "d05"}
    assert 0 < counts["d00"] < FRAMES * 2 == counts["d03"]


def test_a_folder_is_the_same_table(drives, table, tmp_path, capsys):
    folder = tmp_path / "drives"
    shutil.copytree(drives, folder)
    broken = sorted(folder.rglob("*.mcap"))[-1]
    broken.write_bytes(b"nothing like it")
    out = tmp_path / "table"
    assert index(folder, "--out", out) == 1
    assert len(list(out.iterdir())) == 6  # five recordings, and what is said about the sixth
    assert not (tmp_path / "table.parts").exists()
    found, whole = DriveTable(out), DriveTable(table)
    assert set(found.about.broken) == {str(broken)}
    names = [name for name in NAMES if name != "file"]
    expected = [row for row in whole.read(names).to_pylist() if row["drive"] != "d05"]
    assert found.read(names).to_pylist() == expected
    assert duckdb.sql(f"select count(*) from {found.sql_source()}").fetchall() == [(len(expected),)]
    assert index(folder, "--out", out) == 2
    assert "it is there already" in capsys.readouterr().err


def test_a_flipped_byte_is_found(drives, tmp_path):
    (source,) = (drives / "car00").glob("*.mcap")
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path = tmp_path / "flipped.mcap"
    path.write_bytes(bytes(data))
    _, _, about = read_file(Unit(str(path), '{"drive":"x","camera":"c"}'))
    assert "breaks off" in about.broken[str(path)]


@pytest.mark.parametrize("bit", [0, 7])
def test_fault_flipped_bit_in_a_length_costs_its_file_alone(drives, tmp_path, capsys, bit):
    folder = tmp_path / "drives"
    shutil.copytree(drives, folder)
    broken = sorted(folder.rglob("*.mcap"))[1]
    data = bytearray(broken.read_bytes())
    data[14] ^= 1 << bit  # the first record claims to be 256 TB long, or more
    broken.write_bytes(data)
    out = tmp_path / "drives.parquet"
    assert index(folder, "--out", out) == 1
    assert str(broken) in capsys.readouterr().err.replace("\n", "")
    assert set(DriveTable(out).about.broken) == {str(broken)}
    assert duckdb.sql(f"select count(distinct drive) from '{out}'").fetchall() == [(5,)]


@pytest.mark.parametrize("reader", ["indexed", "indexed_slowly", "pictures", "replayed"])
def test_fault_flipped_bits_end_no_reading_of_a_black_box(drives, reader):
    (path,) = (drives / "car00").glob("*.mcap")
    lines, last = fuzz(path, reader, 200 if reader == "indexed_slowly" else 400, 150)
    assert not lines
    assert " read, " in last


def test_fault_numbers_beyond_all_sense_are_damage(tmp_path):
    from mcap.writer import Writer

    texts = Recording("b", "d" * 64, "onnxruntime", "fp32", None, Policy(), True, ()).to_metadata()
    policy = json.loads(texts["policy"]) | {"debounce": {"NOISY": [math.inf, 3, 2]}}
    for k, (metadata, at) in enumerate(((texts, 2**63), (texts | {"policy": json.dumps(policy)}, 1))):
        path = tmp_path / f"{k}.mcap"
        with path.open("wb") as file:
            writer = Writer(file)
            writer.start()
            writer.add_metadata("framegate.recording", metadata)
            writer.add_message(writer.register_channel("/verdict/front", "json", 0), at, b"{}", at)
            writer.finish()
        with pytest.raises(DataError):
            read_file(Unit(str(path), '{"drive":"x","camera":"c"}'))


def test_two_drives_with_one_name_are_refused(drives, tmp_path, capsys):
    (source,) = (drives / "car00").glob("*.mcap")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(source, tmp_path / name / source.name)
    assert index(tmp_path, "--out", tmp_path / "x.parquet") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "two drives are called 'd00'" in said
    assert "the name is inside the files, so index each folder by itself" in said
    assert not list(tmp_path.glob("*.parts"))


def test_of_two_files_that_are_no_black_boxes_one_is_to_be_renamed(tiny_bundle, tmp_path, capsys):
    """A black box says its drive's name inside the file; of another recording it is the file's name."""
    recording = Recording.of(Session.open(tiny_bundle, "onnxruntime", "fp32", 1), ROIS, sequence=True, source="made")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        McapSink(tmp_path / name / "d00.mcap", ROIS, recording).close()
    assert index(tmp_path, "--out", tmp_path / "x.parquet") == 2
    assert f"rename {tmp_path / 'a' / 'd00.mcap'}, or" in " ".join(capsys.readouterr().err.split())


def test_bad_input_is_one_sentence(drives, table, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for arguments, sentence in (
        ((tmp_path / "nowhere", "--out", tmp_path / "x.parquet"), "there is no such file or folder"),
        ((tmp_path / "empty", "--out", tmp_path / "x.parquet"), "there is no recording (.mcap) in this folder"),
        ((drives, "--out", tmp_path / "x.csv"), "ends in .parquet, or a folder"),
        ((drives, "--out", table / "below.parquet"), "cannot be"),
    ):
        assert index(*arguments) in (1, 2)
        said = capsys.readouterr().err
        assert sentence in said
        assert "Traceback" not in said
    other = tmp_path / "other.parquet"
    schema = pq.read_schema(table)
    old = schema.with_metadata({KEY: schema.metadata[KEY].replace(FORMAT.encode(), b"framegate-drives-0")})
    pq.write_table(old.empty_table(), other)
    with pytest.raises(DataError, match="index the drives again"):
        DriveTable(other)
    pq.write_table(schema.remove_metadata().empty_table(), other)
    with pytest.raises(DataError, match="it is no table of drives"):
        DriveTable(other)
    other.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="no whole Parquet file"):
        DriveTable(other)
