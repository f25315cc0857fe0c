"""The figures of `framegate bench` hang together; how fast anything is, is never asserted."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from framegate.benchmarks.latency import machine
from framegate.benchmarks.latency.compare import compare_records
from framegate.benchmarks.latency.machine import ForeignLoad, Usage
from framegate.benchmarks.latency.scenarios import PacedBareLoop, Scenario, measure_scenario
from framegate.benchmarks.latency.series import histogram, in_blocks, jitter_ms, percentiles, ratio, summarise
from framegate.benchmarks.latency.stream import BenchStream, FrameFeed, read_frames
from framegate.runtime import Pipeline, Reason, Session, UsageError, open_source
from framegate.runtime.cli import main as cli
from framegate.runtime.realtime import realtime
from framegate.runtime.roi import parse_rois
from framegate.runtime.stage_clock import STAGES, StageClock

SMALL = "synthetic://?width=128&height=96&frames=40"


@pytest.fixture(scope="module")
def images():
    return read_frames(SMALL)


@pytest.fixture
def stream(tiny_bundle, images):
    def make(fps=None, delay_s=0.0, **options):
        session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1)
        if delay_s:
            finish = session.scorer.backend.finish

            def slow():
                time.sleep(delay_s)
                return finish()

            session.scorer.backend.finish = slow
        return BenchStream(session, FrameFeed(images, fps), 1000, **options)

    return make


def quiet(*_):
    pass


def refused(capsys, code, *words):
    assert cli.main(["bench", *map(str, words)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def test_the_stages_add_up_to_capture_to_verdict_exactly(stream):
    with stream() as one:
        one.run(3, 20)
    assert one.stages_ns.shape == (20, len(STAGES))
    assert (one.stages_ns >= 0).all()
    assert one.stages_ns.sum(1).tolist() == one.samples.verdict_ns
    assert one.samples.frame_ids == list(range(3, 23))


def test_time_spent_in_the_engine_is_found_in_the_engines_stage(stream):
    with stream(delay_s=0.02) as one:
        one.run(1, 5)
    engine = one.stages_ns[:, STAGES.index("engine")]
    assert (engine >= 20_000_000).all()
    # Called within the stage, so never longer than it.
    assert (np.asarray(one.samples.engine_ns) <= engine).all()


def test_several_regions_add_up_too(tiny_bundle, images):
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1)
    session.frame_judge.stages = StageClock(100)
    rois = parse_rois(["left=0,0,64,64", "right=64,0,64,64"])
    with Pipeline(FrameFeed(images), session, rois=rois) as pipeline:
        results = pipeline.results()
        for _ in range(3):
            pipeline._source.grant(1)
            last = next(results).predictions[-1]
    assert session.frame_judge.stages.count == 3
    assert session.frame_judge.stages.durations_ns[-1].sum() == last.decided_ns - last.captured_ns


def test_a_full_clock_stops_recording(tiny_bundle, images):
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1)
    session.frame_judge.stages = StageClock(2)
    for image in images[:5]:
        session.infer(image)
    assert session.frame_judge.stages.count == 2
    assert session.frame_judge.stages.frame_ids.tolist() == [0, 1]


def test_a_paced_stream_keeps_its_pace_and_counts_what_it_drops(stream):
    with stream(fps=100.0, delay_s=0.05) as one:
        begun = time.monotonic()
        one.run(0, 30)
        assert time.monotonic() - begun >= 0.29
    samples = one.samples
    assert samples.fed == 30
    # The engine takes five periods: most frames are overwritten by newer ones, the last one never.
    assert 0 < len(samples.frame_ids) < 30
    assert samples.dropped == 30 - len(samples.frame_ids)
    assert samples.frame_ids[-1] == 29
    due = np.asarray(samples.captured_ns) - samples.captured_ns[0]
    ahead = np.asarray(samples.frame_ids) * 10_000_000 - due
    assert ahead.max() < 10_000_000  # never before it is due, seen from a first frame that may have been late itself


def test_deadlines_are_counted_by_the_pipelines_own_verdict(stream):
    with stream(delay_s=0.02, deadline_ms=5.0) as one:
        one.run(0, 4)
    assert one.samples.deadline_misses == 4
    assert one.samples.reasons[Reason.LATE.value] == 4


def test_interleaved_blocks_of_one_stream_are_counted_without_the_settling(stream):
    with stream(fps=200.0) as one:
        one.run(2, 5)
        one.run(2, 5)
    assert one.samples.fed == 10
    counted = set(one.samples.frame_ids)
    assert counted <= {*range(2, 7), *range(9, 14)}
    assert {6, 13} <= counted  # the last frame of a block is overwritten by none


def test_percentiles_are_those_of_the_sorted_list():
    durations = np.random.default_rng(0).permutation(np.arange(1, 1001)) * 1_000_000
    assert percentiles(durations) == {"p50_ms": 500, "p90_ms": 900, "p99_ms": 990, "p99.9_ms": 999, "max_ms": 1000}


def test_jitter_is_the_mean_step():
    assert jitter_ms([1_000_000, 3_000_000, 2_000_000]) == 1.5
    assert jitter_ms([5]) == 0.0


@pytest.mark.parametrize("durations", [[7], [5, 5, 5], [1, 10**9], list(range(1, 3000, 7))])
def test_every_duration_is_in_the_histogram(durations):
    found = histogram(durations)
    assert sum(found["counts"]) == len(durations)
    assert found["counts"][-1] > 0
    top = found["lowest_ms"] * found["ratio"] ** len(found["counts"])
    assert top * (1 + 1e-6) >= max(durations) / 1e6


@pytest.mark.parametrize(("count", "block"), [(1, 50), (49, 50), (10_000, 50), (2500, 50), (2550, 50), (120, 50)])
def test_blocks_lose_nothing_and_are_few(count, block):
    parts = in_blocks(list(range(count)), block)
    assert np.concatenate(parts).tolist() == list(range(count))
    assert len(parts) <= 50
    assert count < block or min(map(len, parts)) >= block


def test_a_ratio_of_equals_is_one_and_of_the_double_is_two():
    durations = np.random.default_rng(1).lognormal(13, 0.2, 1000).astype(np.int64)
    assert ratio(durations, durations, 50) == {"ratio": 1.0, "low": 1.0, "high": 1.0, "blocks": 20}
    twice = ratio(2 * durations, durations, 50, 99.0)
    assert twice["ratio"] == pytest.approx(2)
    assert twice["low"] <= 2.0 <= twice["high"]


def record(seed, factor=1.0, bare_factor=1.0, dropped=0):
    """A record of drawn durations: blocks with a level of their own, and a tail."""
    rng = np.random.default_rng(seed)
    level = np.repeat(rng.normal(1, 0.05, 40), 50)

    def durations(mean_ns):
        tail = np.where(rng.random(2000) < 0.02, rng.exponential(1.5, 2000), 0)
        return (mean_ns * level * (rng.normal(1, 0.03, 2000) + tail)).astype(np.int64)

    bare = summarise(durations(600_000 * bare_factor), 50)
    whole = summarise(durations(700_000 * factor), 50) | {"reference": "x bare", "fed": 2000, "dropped": dropped}
    machine, bundle = {"cpu": "one", "commit": str(seed)}, {"name": "tiny"}
    return {"machine": machine, "bundle": bundle, "source": "s", "series": {"x bare": bare, "x": whole}}


def moved(first, second):
    return {(change.series, change.figure) for change in compare_records(first, second) if change.beyond_noise}


def test_a_record_has_not_changed_against_itself():
    one = record(0)
    assert moved(one, one) == set()
    ratios = [change.ratio for change in compare_records(one, one) if change.figure != "dropped"]
    assert len(ratios) >= 4
    assert set(ratios) == {1}


@pytest.mark.parametrize("seed", range(1, 6))
def test_two_runs_of_the_same_thing_are_within_noise(seed):
    assert moved(record(0), record(seed)) == set()


@pytest.mark.parametrize("seed", range(1, 3))
def test_a_slowdown_of_fifteen_percent_is_found_and_named_worse(seed):
    first, second = record(0), record(seed, factor=1.15)
    found = [c for c in compare_records(first, second) if c.beyond_noise]
    assert ("x", "p50_ms") in {(c.series, c.figure) for c in found}
    assert all(c.worse for c in found)
    assert not any(c.worse for c in compare_records(second, first))


def test_a_slower_machine_is_not_blamed_on_the_pipeline():
    found = moved(record(0), record(5, factor=1.3, bare_factor=1.3))
    assert ("x bare", "p50_ms") in found
    assert ("x", "p50_ms") not in found


def test_more_drops_are_worse_and_a_few_are_noise():
    assert ("x", "dropped") in moved(record(0), record(1, dropped=40))
    assert ("x", "dropped") not in moved(record(0, dropped=3), record(1, dropped=6))


def test_a_real_slowdown_is_found_in_real_records(stream):
    # Where something else wants the processor for a while, the intervals are wide, and rightly nothing is found.
    assert any(_found_worse(stream) for _ in range(5))


def _found_worse(stream):
    records = []
    for delay_s in (0.0, 0.02):
        with stream() as reference, stream(delay_s=delay_s) as one:
            for _ in range(6):
                reference.run(1, 10)
                one.run(1, 10)
        series = {
            "bare": summarise(reference.samples.verdict_ns, 10),
            "x": summarise(one.samples.verdict_ns, 10) | {"reference": "bare"},
        }
        records.append({"machine": {}, "bundle": {}, "source": "", "series": series})
    change = next(c for c in compare_records(*records) if (c.series, c.figure) == ("x", "p50_ms"))
    assert change.reference == "bare"
    return change.worse


@pytest.fixture(scope="module")
def measured(tiny_bundle, tmp_path_factory):
    """A record and a page of the whole command: two paces, load, tuned."""
    folder = tmp_path_factory.mktemp("bench")
    out, page = folder / "record.json", folder / "page.html"
    words = ["--source", SMALL, "--frames", "20", "--pace", "100", "--pace", "back-to-back", "--load"]
    code = cli.main(["bench", str(tiny_bundle), *words, "--realtime", "block", "--out", str(out), "--html", str(page)])
    assert code == 0
    return out, page


def test_scenarios_are_recorded_with_all_their_variants(measured):
    record = json.loads(measured[0].read_text())
    variants = ("", ", realtime", ", load", ", load, realtime")
    assert set(record["series"]) == {f"{pace}, 1 stream{v}" for pace in ("100 fps", "back to back") for v in variants}
    assert "--pace 100 --pace back-to-back" in record["command"]
    for name, row in record["series"].items():
        assert sum(row["stages"][stage]["mean_ms"] for stage in STAGES) == pytest.approx(row["mean_ms"], rel=1e-9)
        assert row["frames"] == row["fed"] - row["dropped"] == row["verdicts"]["evaluated"]
        assert sum(row["histogram"]["counts"]) == row["frames"]
        assert row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"] <= row["p99.9_ms"] <= row["max_ms"]
        assert row["usage"]["cpu_percent_of_one_core"] > 0
        assert row["usage"]["resident_mib"] > 10
        assert ("to_untuned" in row) == name.endswith("realtime")
        assert ("publication_interval" in row) == name.startswith("100 fps")
        if name.startswith("back"):
            assert row["dropped"] == 0


def test_a_record_compares_with_itself_in_silence(measured, capsys):
    assert cli.main(["bench", "--compare", str(measured[0]), str(measured[0])]) == 0
    out = capsys.readouterr().out
    assert "nothing changed beyond noise" in out
    assert "differs" not in out


def test_the_comparison_ends_with_one_if_something_is_worse(measured, tmp_path, capsys):
    record = json.loads(measured[0].read_text())
    row = record["series"]["back to back, 1 stream"]
    row["blocks"]["p50_ms"] = [3 * value for value in row["blocks"]["p50_ms"]]
    record["machine"]["cpu"] = "another"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(record))
    assert cli.main(["bench", "--compare", str(measured[0]), str(other)]) == 1
    out = capsys.readouterr().out
    assert "WORSE" in out
    assert "differs: machine cpu" in out
    assert cli.main(["bench", "--compare", str(measured[0]), str(other), "--json"]) == 1
    assert any(change["beyond_noise"] for change in json.loads(capsys.readouterr().out)["changes"])


def test_the_page_stands_alone_and_shows_every_series(measured):
    record, text = json.loads(measured[0].read_text()), measured[1].read_text()
    assert all(name in text for name in record["series"])
    assert text.count("<svg") == len(record["series"])
    assert "http" not in text
    assert "<script" not in text
    assert "nan" not in text.lower().split("</style>")[1]


def test_a_source_at_its_own_pace(tiny_bundle, tmp_path):
    out = tmp_path / "r.json"
    words = ["--source", "synthetic://?width=128&height=96&fps=200", "--pace", "source", "--frames", "50"]
    assert cli.main(["bench", str(tiny_bundle), *words, "--out", str(out)]) == 0
    row = json.loads(out.read_text())["series"]["the source's pace, 1 stream"]
    assert row["fed"] == 50 == row["frames"] + row["dropped"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "needs a bundle"),
        (["no.bundle"], 1, "no.bundle"),
        (["TINY", "--frames", "0"], 2, "--frames"),
        (["TINY", "--source", "no/such/clip.mp4"], 1, "no/such/clip.mp4"),
        (["TINY", "--pace", "fast"], 2, "--pace fast"),
        (["TINY", "--pace", "nan"], 2, "--pace nan"),
        (["TINY", "--pace", "0"], 2, "--pace 0"),
        (["TINY", "--pace", "source"], 2, "--source"),
        (["TINY", "--streams", "0"], 2, "1 to 8"),
        (["TINY", "--streams", "9"], 2, "1 to 8"),
        (["TINY", "--pace", "30", "--deadline-ms", "0"], 2, "--deadline-ms"),
        (["TINY", "--precision", "fp32"], 2, "--precision"),
        (["TINY", "--pace", "30", "--precision", "fp12", "--frames", "1"], 1, "fp12"),
        (["TINY", "--threads", "0"], 2, "--threads"),
        (["TINY", "--source", SMALL, "--size", "128x128"], 2, "--size"),
        (["TINY", "--html", "no/where/p.html"], 1, "no/where"),
        (["TINY", "--compare", "a", "b"], 2, "--compare"),
        (["--compare", "no.json", "no.json"], 1, "no.json"),
    ],
)
def test_wrong_usage_is_said_in_one_line(tiny_bundle, capsys, words, code, said):
    error = refused(capsys, code, *(tiny_bundle if word == "TINY" else word for word in words))
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_spinning_streams_that_take_more_cores_than_there_are_is_wrong_usage(tiny_bundle, capsys, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    error = refused(capsys, 2, tiny_bundle, "--streams", "8", "--realtime", "spin")
    assert "9 in all, this process may use 2; take fewer --streams" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[]", "expected the format"),
        (b"{}", "expected the format"),
        (b'{"format": "framegate-bench", "version": 99}', "version 99"),
        (b'{"format": "framegate-bench", "version": 1}', "damaged"),
        (b'{"format": "framegate-bench", "version": 1, "series": {"x": {"blocks": {"p50_ms": []}}}}', "damaged"),
        (
            b'{"format": "framegate-bench", "version": 1, "series": '
            b'{"x": {"blocks": {"p50_ms": [NaN], "p99_ms": [1]}}}}',
            "damaged",
        ),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path, capsys, content, said):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    assert said in refused(capsys, 1, "--compare", path, path)


def test_frames_of_several_sizes_are_refused(tmp_path, capsys, tiny_bundle):
    import cv2

    for k, size in enumerate(((64, 64), (80, 64))):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.zeros((*size, 3), np.uint8))
    assert "2 sizes" in refused(capsys, 1, tiny_bundle, "--source", tmp_path)


def test_realtime_puts_everything_back(tiny_bundle, images):
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1)
    with Pipeline(FrameFeed(images), session) as pipeline:
        worker = pipeline.worker_id
        state = [(os.sched_getaffinity(task), os.sched_getscheduler(task)) for task in (0, worker, pipeline.capture_id)]
        with realtime(pipeline) as tuning:
            assert not gc.isenabled()
            assert len(os.sched_getaffinity(worker)) == 1
            fifo = os.sched_getscheduler(worker) == os.SCHED_FIFO
            assert fifo == any("SCHED_FIFO" in what for what in tuning.applied)
            assert fifo != any("SCHED_FIFO" in what for what in tuning.refused)
        assert gc.isenabled()
        assert state == [
            (os.sched_getaffinity(task), os.sched_getscheduler(task)) for task in (0, worker, pipeline.capture_id)
        ]


def test_realtime_that_is_not_allowed_is_said_and_the_rest_stays(tiny_bundle, images, monkeypatch):
    def forbidden(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", forbidden)
    with Pipeline(FrameFeed(images), Session.open(tiny_bundle, "onnxruntime", "fp32", 1)) as pipeline:
        with realtime(pipeline) as tuning:
            assert len(os.sched_getaffinity(pipeline.worker_id)) == 1
        assert "ulimit -r" in str(tuning)
        assert "garbage collector off" in str(tuning)


def test_realtime_refuses_what_makes_no_sense(tiny_bundle, images):
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1)
    pipeline = Pipeline(FrameFeed(images), session)
    for arguments, options in (((), {}), ((pipeline,), {})):  # none, and one that does not run
        with pytest.raises(UsageError, match="running pipelines"), realtime(*arguments, **options):
            pass
    with pipeline:
        with pytest.raises(UsageError, match="1 to 98"), realtime(pipeline, priority=99):
            pass
        with pytest.raises(UsageError, match="cores"), realtime(pipeline, cores=(4096,)):
            pass
    assert gc.isenabled()


def test_a_spinning_pipeline_gives_the_same_verdicts_and_stops(tiny_bundle):
    found = []
    for spin_us in (0.0, 5_000.0):
        source = open_source(SMALL, realtime=False)
        session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1)
        with Pipeline(source, session, lossless=True, spin_us=spin_us) as pipeline:
            found.append(list(pipeline))
    waiting, spinning = found
    assert len(waiting) == 40
    assert [(p.frame_id, p.reasons) for p in waiting] == [(p.frame_id, p.reasons) for p in spinning]
    assert [p.score for p in waiting] == pytest.approx([p.score for p in spinning], abs=1e-6)
    with pytest.raises(UsageError, match="spin_us"):
        Pipeline(open_source(SMALL), session, spin_us=-1)


def test_fault_a_signal_while_the_load_starts_leaves_no_process(monkeypatch):
    """Its script says that it is ready into a pipe that nobody reads any more: without a word, too."""
    started = []

    class Ended(subprocess.Popen):
        def __init__(self, *command, **settings):
            super().__init__(*command, **settings)
            started.append(self)
            self.stdout.close()
            self.stdout = SimpleNamespace(readline=self.ended, close=lambda: None)

        def ended(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(machine.subprocess, "Popen", Ended)
    with pytest.raises(KeyboardInterrupt), ForeignLoad():
        pass
    assert started[0].returncode is not None


def test_fault_the_parent_of_the_load_is_gone_before_it_is_ready():
    command = [sys.executable, "-c", machine._LOAD_SCRIPT, str(min(os.sched_getaffinity(0)))]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child.stdout.close()
    assert child.wait(60) == 0
    assert child.stderr.read() == ""
    child.stderr.close()


def test_the_load_runs_only_when_let_and_leaves_nothing_behind():
    def ticks(pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    with ForeignLoad() as load:
        pid = load._child.pid
        time.sleep(0.05)
        before = ticks(pid)
        time.sleep(0.3)
        assert ticks(pid) == before
        deadline = time.monotonic() + 20
        with load.running():
            while ticks(pid) == before and time.monotonic() < deadline:
                time.sleep(0.05)
        assert ticks(pid) > before
    assert not os.path.exists(f"/proc/{pid}")


def test_usage_counts_processor_time_of_what_it_measured():
    usage = Usage()
    with usage.measuring():
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
    record = usage.to_json()
    assert usage.processor_s >= 0.05
    assert record["cpu_percent_of_one_core"] == pytest.approx(100 * usage.processor_s / usage.wall_s)


def test_several_streams_are_pooled_and_leave_no_thread(tiny_bundle, images):
    before = threading.active_count()
    scenario = Scenario(None, 3)
    found = measure_scenario(scenario, lambda: Session.open(tiny_bundle, "onnxruntime", "fp32", 1), images, 50, quiet)
    row = found["back to back, 3 streams"]
    assert row["frames"] == row["fed"] == 150
    for _ in range(100):  # the threads of the camera check end by themselves
        if threading.active_count() == before:
            break
        time.sleep(0.05)
    assert threading.active_count() == before
    assert replace(scenario, pace=30.0).name == "30 fps, 3 streams"


def test_the_bare_loop_takes_its_turns_at_the_same_pace(tiny_bundle, images):
    seen = []
    bare = PacedBareLoop(lambda image: seen.append((time.monotonic(), image)), images, 200.0)
    scenario = Scenario(200.0, 1)
    found = measure_scenario(
        scenario, lambda: Session.open(tiny_bundle, "onnxruntime", "fp32", 1), images, 400, quiet, bare=bare
    )
    assert list(found) == ["200 fps, 1 stream"]
    assert len(bare.took_ns) == 400
    assert len(seen) == 400 + 2 * 5  # two turns, of which the first frames are not counted
    assert all(image is images[k % len(images)] for k, (_, image) in enumerate(seen))
    assert seen[204][0] - seen[0][0] >= 0.99 * 204 / 200
