"""Limits of the camera-health check as data: written, read back, refused when they make no sense, and learnt."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from repository import CLIPS

from framegate.runtime import Pipeline, Reason, Session, open_source
from framegate.runtime.cli import main as cli
from framegate.runtime.errors import CalibrationError, UsageError
from framegate.runtime.health.content import Content
from framegate.runtime.health.learning import calibrated, learnt
from framegate.runtime.health.thresholds import HealthThresholds

CLIP = CLIPS / "highway_960x540_25fps.mp4"
GOOD = Content(100.0, 50.0, 0.02, 40.0, 0.1, 10.0, 1.0, 0.9, 0.0, (5.0,) * 16, "", True)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    limits = replace(HealthThresholds(), noise=3.25, zones=tuple(map(float, range(16))), colour=False, learn_frames=0)
    limits.save(tmp_path / "h.json", {"sources": ["a"]})
    assert HealthThresholds.load(tmp_path / "h.json") == limits
    assert json.loads((tmp_path / "h.json").read_text())["from"] == {"sources": ["a"]}
    assert HealthThresholds.from_json({"format": "framegate-health-1"}) == HealthThresholds()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise", math.nan),
        ("noise", math.inf),
        ("noise", -1),
        pytest.param("noise", 10**400, id="noise-huge"),
        ("noise", "3"),
        ("noise", True),
        ("noise", None),
        ("saturated_share", 1.5),
        ("learn_frames", 2.5),
        ("learn_frames", -1),
        ("zones", [1, 2]),
        ("zones", [math.nan] * 16),
        ("zones", "abc"),
        ("colour", "yes"),
    ],
)
def test_a_file_edited_by_hand_to_nonsense_is_refused(tmp_path: Path, name: str, value: object) -> None:
    file = tmp_path / "h.json"
    file.write_text(json.dumps({"format": "framegate-health-1", name: value}))
    with pytest.raises(UsageError, match=rf"health thresholds .*h.json: health threshold {name} is"):
        HealthThresholds.load(file)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# framegate", "not JSON .*; write one with framegate health"),
        ("{", "not JSON"),
        ('{"format": "framegate-health-1", "noise": 1' + "0" * 5000 + "}", "not JSON"),
        ("[]", "found 'a list'"),
        ('{"format": "framegate-calibration-1"}', "found 'framegate-calibration-1'"),
        ('{"format": "framegate-health-1", "nose": 3}', "unknown threshold 'nose'"),
        ("\udcff", "not a text file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "h.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=says):
        HealthThresholds.load(file)
    with pytest.raises(UsageError, match="cannot be read"):
        HealthThresholds.load(tmp_path / "missing.json")


def test_learnt_limits_are_never_wider_than_the_absolute_ones() -> None:
    base = HealthThresholds()
    limits = learnt(base, [GOOD])
    assert (limits.contrast, limits.detail, limits.sharpness) == pytest.approx((16.0, 5.0, 0.05))
    assert (limits.noise, limits.blockiness, limits.saturated_share) == pytest.approx((4.0, 1.35, 0.32))
    assert limits.colour is True
    bad = GOOD._replace(contrast=3.0, sharpness=0.03, noise=15.0, blockiness=2.4, saturated=0.7, coloured=False)
    limits = learnt(base, [bad])
    assert (limits.contrast, limits.sharpness) == (base.contrast, base.sharpness)
    assert (limits.noise, limits.blockiness, limits.saturated_share) == (base.noise, base.blockiness, 0.8)
    assert limits.colour is False


def test_a_calibration_covers_every_frame_of_its_run() -> None:
    rng = np.random.default_rng(0)
    frames = [
        GOOD._replace(
            contrast=float(rng.uniform(8, 60)),
            sharpness=float(rng.uniform(0.03, 0.3)),
            noise=float(rng.uniform(0.5, 9)),
            zones=tuple(rng.uniform(0, 9, 16)),
        )
        for _ in range(100)
    ]
    limits = calibrated(HealthThresholds(), frames)
    assert limits.learn_frames == 0
    for content in frames:
        assert content.contrast >= limits.contrast
        assert content.sharpness >= limits.sharpness
        assert content.noise <= limits.noise
    assert limits.zones == ()  # the zones of these frames have nothing in common


def test_too_few_good_frames_are_no_calibration() -> None:
    dark = GOOD._replace(mean=1.0, std=1.0)
    with pytest.raises(CalibrationError, match="29 of 79 frames lie within the absolute limits; expected at least 30"):
        calibrated(HealthThresholds(), [GOOD] * 29 + [dark] * 50)


def test_the_command_writes_limits_that_run_takes(tmp_path: Path, tiny_bundle: Path) -> None:
    out = tmp_path / "h.json"
    assert cli.main(["health", str(CLIP), "--frames", "60", "--out", str(out)]) == 0
    limits = HealthThresholds.load(out)
    assert limits.learn_frames == 0
    assert limits.colour is True
    session = Session.open(tiny_bundle, "onnxruntime", health=limits)
    assert session.health_thresholds == limits
    arguments = ["run", "synthetic://?frames=3", "--bundle", str(tiny_bundle), "--backend", "onnxruntime"]
    verdicts = tmp_path / "v.jsonl"
    assert cli.main([*arguments, "--as-fast-as-possible", "--health", str(out), "--jsonl", str(verdicts)]) == 0
    # From its first frame on the pattern, which is no street, is judged by the street's limits.
    first = json.loads(verdicts.read_text().splitlines()[0])
    assert {"BLURRED", "LOW_CONTRAST"} & set(first["reasons"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["health", "nowhere.mp4", "--out", "h.json"], 1, "no such file"),
        (["health", str(CLIP), "--out", "nowhere/h.json"], 1, "does not exist"),
        (["health", str(CLIP), "--frames", "0", "--out", "h.json"], 2, "at least 1"),
        (["health", str(CLIP), "--frames", "5", "--out", "h.json"], 1, "expected at least 30"),
        (["health", "synthetic://?frames=2", "synthetic://?width=320&frames=2", "--out", "h.json"], 1, "one camera"),
        (  # the second one is looked at, too, though the first alone has as many frames as are taken
            ["health", "synthetic://?frames=9", "synthetic://?width=320&frames=9", "--frames", "9", "--out", "h.json"],
            1,
            "one camera",
        ),
    ],
)
def test_bad_calibration_runs_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == code
    assert says in capsys.readouterr().err
    assert not (tmp_path / "h.json").exists()


def test_a_pipeline_takes_the_limits_of_its_session(tiny_bundle: Path) -> None:
    strict = replace(HealthThresholds(), contrast=200.0)
    session = Session.open(tiny_bundle, "onnxruntime", health=strict)
    source = open_source("synthetic://?frames=3", realtime=False)
    with Pipeline(source, session, lossless=True) as pipeline:
        assert [Reason.LOW_CONTRAST in prediction.reasons for prediction in pipeline] == [True] * 3
