"""A recorded drive is decided again: exactly the same with its own calibration, as asked with another one."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import replace as with_changes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_drive import DRIVE, GOLDEN, decided

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.bundle.class_risk import ClassRisk
from framegate.runtime.cli import main as cli
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.policy.debounce import Debounce
from framegate.runtime.policy.stream import Policy
from framegate.runtime.replay.recording import Recording, evidence, exact, number
from framegate.runtime.replay.replay import read_recording, replay, require_applicable
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.sinks.mcap_file import McapSink
from framegate.runtime.verdict import FoundObject, Frame, Prediction, Reason

pytest.importorskip("mcap")
POLICY = Policy({Reason.HIGH_SCORE: Debounce(1, 1, 3), Reason.LOW_CONTRAST: Debounce(2, 3, 2)}, warm_up=2)
ROIS = (Roi("left", 0, 0, 0.5, 1.0, fractions=True), Roi("right", 0.5, 0, 0.5, 1.0, fractions=True))


@pytest.fixture(scope="module")
def drive(tiny_bundle, tmp_path_factory, blue_scene):
    """60 frames: blue and certain at first, then ever greyer, some black; and what was decided about each."""
    path = tmp_path_factory.mktemp("drive") / "drive.mcap"
    session = Session.open(tiny_bundle, "onnxruntime", policy=POLICY)
    sink = McapSink(path, ROIS, Recording.of(session, ROIS, sequence=True, fps=20.0, source="x"), pictures=False)
    health, streams = session.camera_health(), tuple(session.stream_policy() for _ in ROIS)
    given = []
    for k in range(60):
        picture = blue_scene(k).astype(float)
        picture = picture * (1 - k / 70) + 120 * k / 70 if k % 13 else picture * 0
        frame = Frame(k, 10**9 + k * 50_000_000, picture.clip(0, 255).astype("uint8"))
        predictions = session.frame_judge.judge(frame, ROIS, health, None, streams)
        given += predictions
        sink.write(FrameResult(predictions, None, ""))
    silence = tuple(Prediction.without_frame(roi.name, Reason.NO_FRAME, "", 5 * 10**9) for roi in ROIS)
    sink.write(FrameResult(silence, None, ""))
    sink.close()
    return path, given


def test_a_drive_comes_out_as_it_was_recorded(drive):
    path, given = drive
    recording = read_recording(path)
    found = replay(path, recording, recording.calibration)
    assert found.unlike == 0
    assert not found.broken_off
    assert found.verdicts == len(given) == 120
    assert [region.silences for region in found.regions.values()] == [1, 1]
    assert 0 < sum(region.accepted for region in found.regions.values()) < 120
    assert not any(region.changes for region in found.regions.values())
    assert {reason for each in given for reason in each.decided_reasons} >= {Reason.HIGH_SCORE, Reason.WARMING_UP}


@pytest.mark.parametrize(
    ("threshold", "own"),
    [
        (-1.0, ()),
        (0.01, ()),
        (0.2, ()),
        (0.5, ()),
        (0.9, ()),
        (5.0, ()),
        (0.5, (0.05, 0)),
        (0.01, (0.5, 0)),
        (0.2, (0.01, 2)),
    ],
)
def test_another_threshold_gives_what_a_session_with_it_would_have_given(
    drive, tiny_bundle, blue_scene, threshold, own
):
    path, given = drive
    recording = read_recording(path)
    classes = tuple(
        ClassRisk(Bundle.open(tiny_bundle).labels[number], number, 0.01, its, 1000, 0, 0.01)
        for its, number in ([own] if own else ())
    )
    other = with_changes(recording.calibration, threshold=threshold, classes=classes)
    found = replay(path, recording, other)
    session = Session.open(tiny_bundle, "onnxruntime", policy=POLICY)
    session = Session(session.bundle, session.scorer.backend, session.precision, other, policy=POLICY)
    health, streams = session.camera_health(), tuple(session.stream_policy() for _ in ROIS)
    expected = []
    for k in range(60):
        picture = blue_scene(k).astype(float)
        picture = picture * (1 - k / 70) + 120 * k / 70 if k % 13 else picture * 0
        frame = Frame(k, 10**9 + k * 50_000_000, picture.clip(0, 255).astype("uint8"))
        expected += session.frame_judge.judge(frame, ROIS, health, None, streams)
    for region in ("left", "right"):
        ours = [each for each in expected if each.stream == region]
        assert found.regions[region].accepted_now == sum(each.accepted_when_decided for each in ours)
        changed = {
            now.frame_id: set(now.decided_reasons)
            for now, was in zip(ours, (each for each in given if each.stream == region), strict=True)
            if bool(now.decided_reasons) != bool(was.decided_reasons)
        }
        assert {each.verdict.frame_id: set(each.reasons) for each in found.regions[region].changes} == changed


def test_the_golden_drive_is_decided_as_ever():
    assert decided() == json.loads(GOLDEN.read_text())
    assert cli.main(["replay", str(DRIVE)]) == 0


@given(st.floats())
def test_numbers_survive_a_recording_bit_by_bit(value):
    back = number(json.loads(json.dumps(exact(value))))
    assert struct.pack("d", back) == struct.pack("d", value) or (math.isnan(back) and math.isnan(value))


def test_what_a_recording_says_about_itself_is_read_back():
    calibration = Calibration(1.5, "energy", -2.0, 0.01, 0.95, 0.009, 0.8, 0.001, 900, "f", "m", "e").to_json()
    limits = [{"signal": "a", "low": 1.0}, {"signal": "b", "high": 2.0, "frames": 9}]
    for given_calibration in (Calibration.from_json({**calibration, "limits": limits}), None):
        given = Recording("b", "d", "onnxruntime", "int8", given_calibration, POLICY, False, ROIS, 100.0, 25.0, "cam")
        assert Recording.from_metadata(given.to_metadata()) == given


def test_fault_a_flipped_digit_of_a_recorded_calibration_is_noticed(capsys, drive, tmp_path):
    content = bytearray(drive[0].read_bytes())
    at = content.index(b'"threshold": ') + len(b'"threshold": ')
    at += next(k for k, letter in enumerate(content[at:]) if letter in b"123456789")
    content[at] ^= 1  # another digit
    flipped = tmp_path / "flipped.mcap"
    flipped.write_bytes(content)
    assert "is not what was written" in refused(capsys, 1, flipped)
    texts = read_recording(drive[0]).to_metadata()
    assert Recording.from_metadata({**texts, "source": "another"})  # it decides nothing
    older = {name: text for name, text in texts.items() if name != "sha256"}
    assert Recording.from_metadata(older) == Recording.from_metadata(texts)


def test_a_verdict_without_output_has_no_values():
    silence = Prediction.without_frame("left", Reason.NO_FRAME, "", 1)
    assert evidence(silence) == {"found": [], "score": None, "threshold": None, "values": {}}


def test_a_calibration_of_another_network_or_temperature_is_refused(drive):
    recording = read_recording(drive[0])
    for change, why in (
        ({"model_sha256": "0" * 64}, "for the network 000000"),
        ({"temperature": 2.0}, "need the logits"),
    ):
        with pytest.raises(UsageError, match=why):
            require_applicable(recording, with_changes(recording.calibration, **change), "--calibration x")


def refused(capsys, code, *words):
    assert cli.main(["replay", *map(str, words)]) == code
    _, err = capsys.readouterr()
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1, err
    return err


def test_what_cannot_be_replayed_is_said_in_one_sentence(capsys, drive, tmp_path, tiny_bundle):
    path = drive[0]
    assert "cannot be read (No such file" in refused(capsys, 1, tmp_path / "none.mcap")
    assert "cannot be read (Is a directory" in refused(capsys, 1, tmp_path)
    no_mcap = tmp_path / "a.mcap"
    for content in (b"", b"no recording at all", b"\x89MCAP"):
        no_mcap.write_bytes(content)
        assert "recording" in refused(capsys, 1, no_mcap)
    objects = tmp_path / "objects.mcap"
    sink = McapSink(objects, (), Recording("b", "d" * 64, "onnxruntime", "fp32", None, Policy(), True, ()))
    one = Prediction(0, "track-7", (), "cat", 0.9, 0.1, 0.8, -3.0, 0.1, 0.5, 10, 20, found=FoundObject((3, 4, 30, 40)))
    whole = Prediction(0, "frame", (), "", *[math.nan] * 6, 10, 20)
    sink.write(FrameResult((one,), None, "", scene=whole))
    sink.close()
    assert "framegate drives what-if decides that again" in refused(capsys, 1, objects)
    assert "finite" in refused(capsys, 2, path, "--threshold", "nan")
    no_calibration = tmp_path / "calibration.json"
    for content in ("", "[]", "{}", '{"format": "x", "records": {}}', '{"format": 1, "records": 1}'):
        no_calibration.write_text(content)
        assert "calibration" in refused(capsys, 1, path, "--calibration", no_calibration)
    assert "No such file" in refused(capsys, 1, path, "--calibration", tmp_path / "none.json")
    good = json.loads((tiny_bundle / "calibration.json").read_text())
    good["records"] = {"openvino/int8": next(iter(good["records"].values()))}
    no_calibration.write_text(json.dumps(good))
    assert "no record for onnxruntime/" in refused(capsys, 1, path, "--calibration", no_calibration)


def test_a_recording_that_broke_off_is_replayed_up_to_there(capsys, drive, tmp_path):
    data = drive[0].read_bytes()
    cut = tmp_path / "cut.mcap"
    seen = set()
    for share in (0.3, 0.5, 0.7, 0.9, 0.99):
        cut.write_bytes(data[: int(len(data) * share)])
        code = cli.main(["replay", str(cut), "--json"])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert code in (0, 1)
        seen.add("broke off" in err)
        assert not out or json.loads(out)["not_reproduced"] == 0
    assert True in seen


@pytest.mark.parametrize("data", [b"", b"\x89MC", b"\x89MCAP0\r\n" + bytes(40)])
def test_a_recording_that_broke_off_before_it_said_anything_is_one_sentence(capsys, tmp_path, data):
    path = tmp_path / "cut.mcap"
    path.write_bytes(data)
    assert "it broke off, or is damaged" in refused(capsys, 1, path)


@pytest.mark.parametrize("kind", ["region", "reason", "number"])
def test_a_garbled_verdict_ends_the_replay(tmp_path, tiny_bundle, kind):
    from mcap.writer import Writer

    session = Session.open(tiny_bundle, "onnxruntime")
    recording = Recording.of(session, ROIS, sequence=True)
    record = {"frame_id": 1, "captured_ns": 1, "decided_ns": 2, "reasons": [], "candidate": "red"}
    record["evidence"] = {"found": [], "values": {"entropy": 0.1}}
    if kind == "reason":
        record["reasons"] = ["NO_SUCH_REASON"]
    if kind == "number":
        record["evidence"]["values"]["entropy"] = True
    path = tmp_path / "drive.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start(library="test")
        writer.add_metadata("framegate.recording", recording.to_metadata())
        channel = writer.register_channel("/verdict/" + ("other" if kind == "region" else "left"), "json", 0)
        writer.add_message(channel, 1, json.dumps(record).encode(), 1)
        writer.finish()
    with pytest.raises(DataError, match=r"is no region of it|lacks or garbles"):
        replay(path, read_recording(path), recording.calibration)
