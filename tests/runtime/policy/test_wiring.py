"""The policy where a user meets it: sessions, pipelines, the command line."""

from __future__ import annotations

import json
import time

import cv2
import numpy as np
import pytest

from framegate.runtime import Debounce, Frame, Pipeline, Policy, Reason, Roi, Session
from framegate.runtime.cli import main as cli
from framegate.runtime.faults.inject import FaultInjector, parse_faults
from framegate.runtime.sources.base import BaseSource

HIGH, BLACK = Reason.HIGH_SCORE, Reason.BLACK
RUNS = {"B": (250, 10, 10), "g": (128, 128, 128)}
"""Blue frames are accepted, grey ones are HIGH_SCORE."""


class Clip(BaseSource):
    """Frames of one colour each, by letter; ``captured`` may tamper with the times."""

    def __init__(self, coloured, letters, captured=None, fixed_size=True):
        super().__init__("clip", frame_size=(64, 48), fps=25.0, fixed_size=fixed_size)
        self._coloured, self._letters, self._captured = coloured, letters, captured

    def _produce(self, frame_id):
        if frame_id == len(self._letters):
            return None
        now = time.monotonic_ns()
        image = self._coloured(RUNS[self._letters[frame_id]], seed=frame_id)
        return Frame(frame_id, self._captured(frame_id, now) if self._captured else now, image)


@pytest.fixture
def session(tiny_bundle):
    return Session.open(tiny_bundle, "onnxruntime", "fp32", threads=1)


def reasons_of(session, source, **options):
    with Pipeline(source, session, lossless=True, **options) as pipeline:
        return [prediction.reasons for prediction in pipeline], pipeline.stats


def test_warm_up_and_hold_in_a_pipeline_each_region_for_itself(session, coloured):
    rois = (Roi.parse("a=0,0,32,48"), Roi.parse("b=32,0,32,48"))
    source = FaultInjector(Clip(coloured, "B" * 8), parse_faults("black:4"))
    policy = Policy({BLACK: Debounce(1, 1, 3)}, warm_up=2)
    reasons, _ = reasons_of(session, source, policy=policy, rois=rois)
    assert [r == (Reason.WARMING_UP,) for r in reasons[:4]] == [True] * 4
    for region in (reasons[0::2], reasons[1::2]):
        assert [BLACK in r for r in region] == [False] * 4 + [True] * 3 + [False]
        assert region[2] == region[3] == region[7] == ()


def test_the_sessions_policy_is_the_pipelines_default(tiny_bundle, coloured):
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", threads=1, policy=Policy({HIGH: Debounce(1, 1, 2)}))
    reasons, _ = reasons_of(session, Clip(coloured, "BgBB"))
    assert reasons == [(), (HIGH,), (HIGH,), ()]
    seen = [session.infer(coloured(RUNS[letter], seed=k)).reasons for k, letter in enumerate("gBB")]
    assert seen == [(HIGH,), (HIGH,), ()]


def test_a_source_whose_time_stands_still_or_runs_ahead_is_stale(session, coloured):
    begun = time.monotonic_ns()
    reasons, _ = reasons_of(session, Clip(coloured, "BBBB", lambda k, now: begun if k in (0, 2) else now))
    assert reasons == [(), (), (Reason.STALE_FRAME,), ()]
    reasons, _ = reasons_of(session, Clip(coloured, "BBB", lambda k, now: now + (10**12 if k == 1 else 0)))
    assert reasons == [(), (Reason.STALE_FRAME,), ()]


def test_infer_with_an_old_time_of_capture_is_stale_for_a_camera_only(tiny_bundle, coloured):
    for camera, expected in ((True, (Reason.STALE_FRAME,)), (False, ())):
        session = Session.open(tiny_bundle, "onnxruntime", "fp32", threads=1, camera=camera)
        session.infer(coloured(RUNS["B"], seed=1), captured_ns=1000)
        assert session.infer(coloured(RUNS["B"], seed=2), captured_ns=999).reasons == expected


def test_a_stream_of_unclear_frames_drifts_and_the_statistics_say_so(session, coloured):
    reasons, stats = reasons_of(session, Clip(coloured, "B" * 20 + "g" * 1200))
    assert Reason.DRIFT not in set().union(*reasons[:500])
    assert reasons[-1] == (HIGH, Reason.DRIFT)
    record = json.loads(json.dumps(stats.to_json(), allow_nan=False))
    assert record["calibrated_coverage"] == 0.9
    assert (record["streams"]["frame"]["drift_alarms"], record["streams"]["frame"]["drifting"]) == (1, True)
    assert "drift: frame (still, " in str(stats)
    assert "1 alarm); coverage 1.6% of 1220, 90.0% calibrated" in stats.drift_line()
    reasons, stats = reasons_of(session, Clip(coloured, "g" * 1200), policy=Policy(drift=False))
    assert set(reasons) == {(HIGH,)}
    assert stats.drift_line().startswith("drift: none;")


def test_drift_is_reset_from_outside_and_comes_back_if_it_lasts(session, coloured):
    with Pipeline(Clip(coloured, "g" * 2200), session, lossless=True) as pipeline:
        drifted = []
        for prediction in pipeline:
            drifted.append(Reason.DRIFT in prediction.reasons)
            if len(drifted) == 1000:
                pipeline.reset_drift()
    assert drifted[999]
    # The worker is up to 66 frames ahead of this loop; a lasting cause needs 600 frames again.
    assert not any(drifted[1070:1590])
    assert drifted[-1]
    assert pipeline.stats.streams["frame"].drift_alarms == 2


def test_drift_of_single_calls_is_reset_too(session, coloured):
    image = [coloured(RUNS["g"], seed=k) for k in range(1000)]
    assert Reason.DRIFT in [session.infer(each) for each in image][-1].reasons
    session.reset_drift()
    assert session.infer(image[0]).reasons == (HIGH,)


def test_photographs_of_a_folder_are_no_sequence(session, coloured):
    policy = Policy({HIGH: Debounce(1, 1, 9)}, warm_up=5)
    reasons, _ = reasons_of(session, Clip(coloured, "BgB", fixed_size=False), policy=policy)
    assert reasons == [(), (HIGH,), ()]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 240))
    noise = np.random.default_rng(0)
    for _ in range(12):
        writer.write(np.clip(np.array((240, 12, 12)) + noise.integers(-9, 10, (240, 320, 3)), 0, 255).astype(np.uint8))
    writer.release()
    return path


def test_run_and_info_take_a_policy_and_state_its_delays(clip, tiny_bundle, capsys):
    options = ["--debounce", "BLURRED=3/5/10", "--debounce", "black=1/1/4", "--warm-up", "2"]
    run = ["run", str(clip), "--bundle", str(tiny_bundle), "--backend", "onnxruntime", "--as-fast-as-possible"]
    assert cli.main([*run, *options, "--inject", "black:5", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["rejected_by_reason"]["BLACK"] == 4
    assert record["rejected_by_reason"]["WARMING_UP"] == 2
    assert record["policy"]["debounce"]["BLURRED"]["longest_delay_ms"] == 160.0
    assert cli.main([*run, *options]) == 0
    out = capsys.readouterr().out
    assert "drift: none; coverage" in out
    assert "debounce BLURRED: rejects when 3 of the last 5 frames" in out
    assert cli.main(["info", str(tiny_bundle), *options, "--fps", "50"]) == 0
    out = capsys.readouterr().out
    assert out.count("4 frames (80 ms at 50 fps)") == 1  # one text for all calibrations that share it
    assert cli.main(["info", str(tiny_bundle), *options, "--fps", "50", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["policy"]["openvino/int8"]["debounce"]["BLURRED"]["longest_delay_ms"] == 80.0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--debounce", "HIGH_SCORE=2/3/1"], "only K can be set"),
        (["--debounce", "FOG=1/1/1"], "unknown reason"),
        (["--warm-up", "-1"], "warm-up is -1"),
    ],
)
@pytest.mark.parametrize("command", ["run", "info"])
def test_bad_options_are_one_line_and_exit_code_2(clip, tiny_bundle, capsys, command, options, says):
    target = [str(clip), "--bundle", str(tiny_bundle)] if command == "run" else [str(tiny_bundle)]
    assert cli.main([command, *target, *options]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert says in lines[0]


def test_info_refuses_a_rate_that_is_none(tiny_bundle, capsys):
    for rate in ("0", "nan", "-5"):
        assert cli.main(["info", str(tiny_bundle), "--fps", rate]) == 2
        assert "--fps" in capsys.readouterr().err


def test_run_refuses_debounce_and_warm_up_for_a_folder(tiny_bundle, tmp_path, coloured, capsys):
    for k in range(3):
        cv2.imwrite(str(tmp_path / f"{k}.png"), coloured(RUNS["B"], seed=k))
    run = ["run", str(tmp_path), "--bundle", str(tiny_bundle)]
    assert cli.main([*run, "--warm-up", "1"]) == 2
    assert "do not follow each other in time" in capsys.readouterr().err
    assert cli.main(run) == 0
    assert "drift: none; coverage 100.0% of 3" in capsys.readouterr().out
