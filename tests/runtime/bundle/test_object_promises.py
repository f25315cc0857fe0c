"""Promises about tracks and boxes in a bundle: stored, printed, and refused where they contradict themselves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from framegate.export.bundle_writer import edited, replace_calibrations, store_promise
from framegate.runtime import Bundle, BundleError, Session
from framegate.runtime.bundle.bundle import CALIBRATION, seal
from framegate.runtime.bundle.object_promises import BOXES, ENTRY, TRACKS, ObjectPromise
from framegate.runtime.cli.main import main
from framegate.runtime.cli.run import promises_on
from framegate.runtime.errors import CalibrationError
from framegate.runtime.policy.track import TrackRule
from framegate.runtime.regions.function import FunctionRegions
from framegate.runtime.regions.judge import Objects

KEY = "onnxruntime/fp32"


@pytest.fixture
def bundle(tiny_bundle, tmp_path):
    return Bundle.open(shutil.copytree(tiny_bundle, tmp_path / "tiny.bundle"))


def tracks(bundle, **changes):
    threshold = bundle.calibrations[KEY].threshold
    return ObjectPromise(**{**BASE, "threshold": threshold, **changes})


BASE = {
    "about": TRACKS,
    "target_risk": 0.05,
    "confidence_level": 0.95,
    "wrong": 0,
    "counted": 100,
    "bound": 1 - 0.05 ** (1 / 100),
    "threshold": 0.0,
    "rule": "1/1/3",
}


def store(bundle, promise):
    store_promise(Bundle.open(bundle.path), KEY, promise)


def test_a_promise_is_stored_shown_and_goes_with_a_new_calibration(bundle, capsys):
    store(bundle, tracks(bundle))
    boxes = tracks(bundle, about=BOXES, rule="", giver="yolo", labelled=50, missed=5)
    store(bundle, boxes)
    store_promise(
        Bundle.open(bundle.path), KEY, tracks(bundle, counted=200, bound=1 - 0.05 ** (1 / 200))
    )  # in place of the first
    opened = Bundle.open(bundle.path)
    assert [(each.about, each.counted) for each in opened.object_promises[KEY]] == [(BOXES, 100), (TRACKS, 200)]
    assert main(["info", str(bundle.path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "tracks under the rule 1/1/3: at most 5.00% are ever wrong" in said
    assert "it missed 5 of 50 labelled objects (10.0%)" in said
    assert said.count("NOT covered") == 2
    with edited(opened) as folder:
        replace_calibrations(folder, opened.calibrations)
    assert Bundle.open(bundle.path).object_promises == {}


def test_a_run_says_what_is_promised_about_its_objects_and_nothing_else(bundle):
    store(bundle, tracks(bundle))
    store_promise(
        Bundle.open(bundle.path), KEY, tracks(bundle, about=BOXES, rule="", giver="yolo", labelled=50, missed=5)
    )
    session = Session.open(bundle.path, "onnxruntime", "fp32", 1)
    others = Objects(FunctionRegions(lambda image: []), rule=TrackRule(1, 1, 2))
    assert promises_on(session, others) == []
    assert len(promises_on(session, Objects(others.giver, rule=TrackRule(1, 1, 3)))) == 1
    others.giver.name = "yolo"
    assert promises_on(session, others) == []  # that is what others call it, too
    others.giver.identity = "yolo"
    (said,) = promises_on(session, others)
    assert "it missed 5 of 50" in said


@pytest.mark.parametrize(
    "changes",
    [
        {"bound": 0.01},
        {"wrong": 3},
        {"bound": 0.06},
        {"rule": ""},
        {"about": "frames"},
        {"confidence_level": 1.0},
        {"bound": float("nan")},
    ],
)
def test_fault_a_promise_that_does_not_follow_from_its_counts(bundle, changes):
    with pytest.raises(CalibrationError):
        tracks(bundle, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"threshold": 9.0}, "another threshold"), ({"bound": 0.001}, "does not follow"), ({"colour": 1}, "not usable")],
)
def test_fault_an_edited_promise_is_refused_with_the_bundle(bundle, changes, said):
    record = {**tracks(bundle).to_json(), **changes}
    file = bundle.path / CALIBRATION
    file.write_text(json.dumps({**json.loads(file.read_text()), ENTRY: {KEY: [record]}}))
    seal(bundle.path, json.loads((bundle.path / "manifest.json").read_text()))
    with pytest.raises(BundleError, match=said):
        Bundle.open(bundle.path)


def test_what_was_measured_before_somebody_changed_the_bundle_is_not_stored(bundle):
    """The same threshold, and other verdicts: what was counted was counted on another gate."""
    opened = Bundle.open(bundle.path)
    with edited(Bundle.open(bundle.path)) as folder:
        changed = {key: replace(each, temperature=each.temperature * 2) for key, each in opened.calibrations.items()}
        replace_calibrations(folder, changed)
    with pytest.raises(BundleError, match="another command has changed it meanwhile"):
        store_promise(opened, KEY, tracks(opened))
    assert not Bundle.open(bundle.path).object_promises
