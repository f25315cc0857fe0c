"""Millions of verdicts decided again by columns: exactly what the replay decides one by one."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pyarrow as pa
import pytest
from certified_bundles import certified_bundle
from drive_files import record_drive
from repository import BUNDLES
from squares import BLUE, counted_session, judge_of, scene_maker

from framegate.evaluation.drives.intervals import difference, ratio
from framegate.evaluation.drives.table import DriveTable, full_schema, words, write_table
from framegate.evaluation.drives.what_if import _Drift, _Runs, what_if
from framegate.runtime.bundle.calibration import Limit
from framegate.runtime.bundle.class_risk import ClassRisk
from framegate.runtime.cli import main as cli
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.policy.debounce import Debounce
from framegate.runtime.policy.drift import DriftAlarm
from framegate.runtime.policy.stream import Policy
from framegate.runtime.policy.track import TrackRule
from framegate.runtime.replay.recording import Recording
from framegate.runtime.replay.replay import read_recording, replay
from framegate.runtime.session import Session
from framegate.runtime.sinks.black_box import BlackBoxSink
from framegate.runtime.verdict import Reason


def nothing(*_):
    return None


def replayed(drives, change):
    found = {}
    for path in sorted(drives.rglob("*.mcap")):
        recording = read_recording(path)
        done = replay(path, recording, change(recording.calibration))
        regions = done.regions.values()
        drive = path.name.split(".")[0]
        found[drive] = [
            sum(each.verdicts for each in regions),
            sum(each.accepted for each in regions),
            sum(each.accepted_now for each in regions),
            done.unlike,
        ]
        found.setdefault("reasons", {})
        for each in regions:
            for reason, count in each.reasons.items():
                found["reasons"][reason] = found["reasons"].get(reason, 0) + count
    return found


CHANGES = {
    "a label's own": lambda c: replace(c, classes=(ClassRisk("green", 1, 0.04, 0.05, 100, 0, 0.03),)),
    "same": lambda c: c,
    "lower": lambda c: replace(c, threshold=0.2),
    "limit": lambda c: replace(c, limits=(Limit("energy", high=-4.5),)),
    "other score": lambda c: replace(c, score="max_probability", threshold=0.05),
    "drifts": lambda c: replace(c, threshold=0.05, coverage=0.999, size=100_000),
    "label": lambda c: replace(c, classes=(ClassRisk("blue", 0, 0.01, 0.1, 1000, 0, 0.01),)),
    "window": lambda c: replace(c, limits=(Limit("energy", high=-4.5, frames=4),)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_it_decides_as_the_replay_does(drives, table, name):
    found = what_if(DriveTable(table), lambda recording: CHANGES[name](recording.calibration), nothing)
    expected = replayed(drives, CHANGES[name])
    assert dict(found.reasons) == expected.pop("reasons")
    assert {drive: counts[:3].tolist() for drive, counts in found.drives.items()} == {
        drive: counts[:3] for drive, counts in expected.items()
    }
    assert found.unlike == 0
    if name == "same":
        assert found.changed_drives == 0


def test_a_debounce_is_decided_in_order(tmp_path, tiny_bundle):
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1)
    policy = Policy({Reason.HIGH_SCORE: Debounce(1, 1, 4)}, warm_up=3)
    record_drive(tmp_path, session, 4, policy)
    out = tmp_path / "t.parquet"
    assert cli.main(["drives", "index", str(tmp_path), "--out", str(out), "--workers", "1"]) == 0
    found = what_if(DriveTable(out), lambda recording: replace(recording.calibration, threshold=0.3), nothing)
    expected = replayed(tmp_path, lambda c: replace(c, threshold=0.3))
    assert dict(found.reasons) == expected["reasons"]
    assert found.drives["d04"][:3].tolist() == expected["d04"][:3]
    assert found.unlike == 0


@pytest.mark.parametrize(
    ("policy", "rule", "held"),
    [
        (Policy({Reason.LOW_CONTRAST: Debounce(3, 5, 10)}), TrackRule(), Reason.LOW_CONTRAST),
        (Policy({Reason.BLACK: Debounce(1, 1, 4)}), TrackRule(1, 1, 3), Reason.UNCONFIRMED),
    ],
)
def test_fault_what_the_stream_and_the_track_decided_about_objects_stays(tmp_path, tiny_bundle, policy, rule, held):
    """The debounce of the camera's reasons is that of the stream; a track that begins does not begin it anew."""
    session, scene, boxes = counted_session(tiny_bundle), scene_maker(), []
    session.policy = policy
    judged = judge_of(session, lambda image: boxes, rule=rule)
    recording = Recording.of(session, (), sequence=True, fps=30.0, source="made", policy=policy)
    sink = BlackBoxSink(tmp_path / "box", 10**7, (), recording, drive="d", camera="front", version="test")
    accepted = 0
    for number in range(36):
        image = scene({(10, 10): BLUE}, seed=number)
        if 12 <= number < 24:  # fog, and the object before it
            object_, image = image[10:50, 10:50], cv2.GaussianBlur(scene({}, seed=number), (0, 0), 8)
            image[10:50, 10:50] = object_
        boxes[:] = [(10, 10, 40, 40, "", 0.9, number // 3)]  # another object every three frames
        verdict, predictions, left_out = judged(image, number)
        accepted += predictions[0].accepted
        sink.write(FrameResult(predictions, None, "", verdict, left_out))
    sink.close()
    out = tmp_path / "t.parquet"
    assert cli.main(["drives", "index", str(tmp_path / "box"), "--out", str(out), "--workers", "1"]) == 0
    found = what_if(DriveTable(out), lambda recording: recording.calibration, nothing)
    assert found.unlike == 0
    assert found.drives["d"][:3].tolist() == [36, accepted, accepted]
    assert found.reasons[held.value] > 3
    stricter = what_if(DriveTable(out), lambda recording: replace(recording.calibration, threshold=0.0), nothing)
    assert stricter.drives["d"][2] == 0
    assert stricter.reasons["HIGH_SCORE"] == 36


def test_fault_a_drive_that_was_started_again_remembers_nothing(tmp_path, tiny_bundle):
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1)
    for policy in (Policy({Reason.HIGH_SCORE: Debounce(1, 1, 8)}), Policy()):
        place = tmp_path / f"{len(policy.debounce)}"
        for _ in range(4):  # each ends rejected, and the box goes on with the drive that is there
            record_drive(place, session, 0, policy)
        out = place / "t.parquet"
        assert cli.main(["drives", "index", str(place), "--out", str(out), "--workers", "1"]) == 0
        for change in (lambda c: c, CHANGES["drifts"]):
            found = what_if(DriveTable(out), lambda recording, change=change: change(recording.calibration), nothing)
            assert found.unlike == 0
            files = [replay(path, *with_calibration(path, change)) for path in sorted(place.rglob("*.mcap"))]
            accepted = sum(region.accepted_now for done in files for region in done.regions.values())
            assert found.drives["d00"][2] == accepted


def test_fault_runs_of_one_frame_are_runs_of_their_own():
    """A process that dies at its second frame and is started again and again."""
    files, frames = ["a", "a", "b", "b", "c", "c", "c", "d"], [0, 0, 0, 0, 0, 0, 1, 2]
    whole = full_schema(())
    rows = [{"drive": "d", "camera": "c", "file": file, "frame_id": k} for file, k in zip(files, frames, strict=True)]
    batch = pa.Table.from_pylist(rows, pa.schema([whole.field(name) for name in rows[0]]))
    assert _Runs().of(batch).tolist() == [0, 0, 1, 1, 2, 2, 2, 2]
    parts = _Runs()
    assert [int(parts.of(batch.slice(k, 1))[0]) for k in range(8)] == [0, 0, 1, 1, 2, 2, 2, 2]


def with_calibration(path, change):
    recording = read_recording(path)
    return recording, change(recording.calibration)


def test_what_lacks_a_certificate_is_evidence_about_drift_as_it_is_on_the_road(tmp_path, make_bundle):
    bundle = certified_bundle(make_bundle(), tau=1.0)  # which nothing reaches
    session = Session.open(bundle, "onnxruntime", "fp32", 1, certificate="patch:3")
    record_drive(tmp_path, session, 4, frames=600)
    out = tmp_path / "t.parquet"
    assert cli.main(["drives", "index", str(tmp_path), "--out", str(out), "--workers", "1"]) == 0
    found = what_if(DriveTable(out), lambda recording: CHANGES["drifts"](recording.calibration), nothing)
    expected = replayed(tmp_path, CHANGES["drifts"])
    assert expected["reasons"]["NOT_CERTIFIED"] > 0
    assert expected["reasons"]["DRIFT"] > 0
    assert dict(found.reasons) == expected["reasons"]
    assert found.unlike == 0


def test_the_drift_of_columns_is_that_of_frames(tiny_bundle):
    calibration = replace(
        Session.open(tiny_bundle, "onnxruntime", "fp32", 1).calibration, score_quantiles=tuple(np.linspace(0, 0.5, 31))
    )
    rng = np.random.default_rng(0)
    rejected = np.concatenate([rng.random(3000) < share for share in (0.05, 0.9, 0.02)])
    scores = np.where(rejected, 0.9, rng.random(9000) * 0.5)
    counts = rng.random(9000) < 0.8
    slow, fast = DriftAlarm(calibration), _Drift(DriftAlarm(calibration), 100)
    one_by_one = [
        slow.saw((Reason.HIGH_SCORE,) if bad else (), score) if counted else slow.alarm
        for counted, bad, score in zip(counts, rejected, scores, strict=True)
    ]
    pieces, at = [], 0
    for size in (1, 99, 2, 700, 8198):
        part = slice(at, at + size)
        pieces.append(fast.feed(counts[part], rejected[part], ~(scores[part] <= fast.alarm.high_score)))
        at += size
    assert at == 9000
    assert np.concatenate(pieces).tolist() == one_by_one
    assert True in one_by_one
    assert not one_by_one[-1]  # it ended by itself


def test_the_command_writes_page_and_record(table, tiny_bundle, tmp_path, capsys):
    out = tmp_path / "w.json"
    assert cli.main(["drives", "what-if", str(table), "--threshold", "0.1", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert record["accept_to_reject"] > 0 == record["reject_to_accept"]
    figures = record["figures"]["coverage_difference"]
    assert figures["low"] <= figures["value"] < 0
    assert "coverage: " in capsys.readouterr().out
    page = tmp_path / "w.html"
    calibration = tiny_bundle / "calibration.json"
    assert cli.main(["drives", "what-if", str(table), "--calibration", str(calibration), "--out", str(page)]) == 0
    assert "Drives that change" not in page.read_text()
    for arguments, sentence in (
        (["--threshold", "nan"], "expected a finite number"),
        (["--calibration", str(table)], "no calibration.json"),
        (["--bundle", str(tmp_path)], "bundle"),
    ):
        assert cli.main(["drives", "what-if", str(table), *arguments, "--out", str(out)]) != 0
        assert sentence in capsys.readouterr().err


def test_fault_a_table_of_a_later_version_is_one_sentence(table, tiny_bundle, tmp_path, capsys):
    whole = DriveTable(table)
    rows = whole.read()
    later = words(["NOPE"] * len(rows)).cast(rows.schema.field("found").type)
    path = tmp_path / "later.parquet"
    write_table(path, [rows.set_column(rows.schema.get_field_index("found"), "found", later)], [], whole.about)
    for arguments in (["--threshold", "0.1"], ["--bundle", str(tiny_bundle), "--workers", "1"]):
        out = str(tmp_path / "w.json")
        assert cli.main(["drives", "what-if", str(path), *arguments, "--out", out]) == 1
        assert "a reason that this version does not know" in capsys.readouterr().err


def test_another_network_is_refused(table, tmp_path, tiny_bundle, capsys):
    content = json.loads((tiny_bundle / "calibration.json").read_text())
    for record in content["records"].values():
        record["model_sha256"] = "1" * 64
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(content))
    assert (
        cli.main(["drives", "what-if", str(table), "--calibration", str(path), "--out", str(tmp_path / "x.json")]) == 2
    )
    assert "is for the network 111111111111" in capsys.readouterr().err


def test_pictures_are_judged_again(table, tiny_bundle, make_bundle, tmp_path):
    out = tmp_path / "w.json"
    common = ["--workers", "1", "--out", str(out)]
    assert cli.main(["drives", "what-if", str(table), "--bundle", str(tiny_bundle), *common]) == 0
    same = json.loads(out.read_text())
    # JPEG changes a score a little: a verdict that was next to the threshold may turn.
    assert same["accept_to_reject"] + same["reject_to_accept"] <= 0.02 * same["verdicts"]
    assert cli.main(["drives", "what-if", str(table), "--bundle", str(make_bundle(threshold=0.001)), *common]) == 0
    assert json.loads(out.read_text())["figures"]["coverage_after"]["value"] == 0.0
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("simplecnn-cifar10", "3 of 3 recorded labels are none of its own, first 'blue'"),
        ("hybrid3d-adrenalmnist3d", "it is for volumes"),
        ("dense-signs", "is for classifiers, this one holds a dense network"),
    ],
)
def test_fault_a_bundle_that_says_something_else_is_not_compared(table, tmp_path, capsys, name, sentence):
    out = tmp_path / "w.json"
    bundle = str(BUNDLES / f"{name}.bundle")
    assert cli.main(["drives", "what-if", str(table), "--bundle", bundle, "--workers", "1", "--out", str(out)]) != 0
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_intervals_are_over_drives():
    ones = np.ones(10, np.int64)
    found = ratio(ones * 5, ones * 10)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)  # all drives are alike, so nothing is uncertain
    none, all_of_them = ratio(ones * 0, ones * 10), ratio(ones * 10, ones * 10)
    assert (none.value, none.low) == (0.0, 0.0)  # ten drives without one do not show that there is none
    assert none.high == pytest.approx(0.3085, abs=1e-4)
    assert (all_of_them.low, all_of_them.high) == (pytest.approx(1 - none.high), 1.0)
    spread = ratio(np.array([0, 10] * 5), ones * 10)
    assert spread.low < 0.35 < 0.65 < spread.high
    assert ratio(ones[:3], ones[:3]).low is None
    assert ratio(ones * 0, ones * 0) is None
    assert difference(ones * 6, ones * 10, ones * 4, ones * 10).value == pytest.approx(0.2)
