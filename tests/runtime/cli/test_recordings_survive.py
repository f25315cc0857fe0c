"""`framegate run` killed, and with a full disk, for real: what can be read afterwards, and that judging went on."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from forked_command import Forked
from recordings import frames_in, mcap_messages, small_disk, verdict_lines

SOURCE = "synthetic://?width=320&height=240&fps=40"
HAS_MCAP = importlib.util.find_spec("mcap") is not None
HAS_RERUN = importlib.util.find_spec("rerun") is not None


def start(*arguments):
    command = [sys.executable, "-m", "framegate.runtime.cli.main", *map(str, arguments)]
    return Forked(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until_lines(path, count):
    limit = time.monotonic() + 90
    while not (path.exists() and path.read_bytes().count(b"\n") >= count):
        assert time.monotonic() < limit, "no verdicts came"
        time.sleep(0.02)


def outputs(folder):
    """Options for every kind of recording that can be made here, and their files."""
    files = {name: folder / f"out.{name}" for name in ("mp4", "avi", "jsonl")}
    if HAS_MCAP:
        files["mcap"] = folder / "out.mcap"
    if HAS_RERUN:
        files["rrd"] = folder / "out.rrd"
    option = {"jsonl": "--jsonl", "rrd": "--rerun"}
    return files, [part for name, path in files.items() for part in (option.get(name, "--record"), path)]


def test_fault_killed_every_recording_opens_up_to_the_last_seconds(tiny_bundle, tmp_path):
    files, options = outputs(tmp_path)
    process = start("run", SOURCE, "--bundle", tiny_bundle, *options)
    until_lines(files["jsonl"], 160)
    process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    rows = verdict_lines(files["jsonl"])
    ids = [row["frame_id"] for row in rows if row["frame_id"] is not None]
    assert ids == sorted(set(ids))
    # A flush a second, and as much again for a machine that is busy with other tests.
    fewest = len(ids) - 2 * 40 - 10
    for name, path in files.items():
        if name != "jsonl":
            assert fewest <= frames_in(path) <= len(ids) + 40, name
    if HAS_MCAP:
        messages = mcap_messages(files["mcap"])
        verdicts = [json.loads(data) for topic, data in messages if topic.startswith("/verdict")]
        assert len(verdicts) == frames_in(files["mcap"])
        by_id = {row["frame_id"]: row for row in rows}
        plain = [{key: value for key, value in one.items() if key != "evidence"} for one in verdicts]
        assert all(by_id.get(one["frame_id"], one) == one for one in plain)


def test_fault_disk_full_judging_goes_on_and_the_others_are_whole(tiny_bundle, tmp_path):
    with small_disk(tmp_path / "one", 160) as one_disk, small_disk(tmp_path / "other", 160) as other_disk:
        kinds = ("mp4", "mcap") if HAS_MCAP else ("mp4",)
        full = {"mp4": one_disk / "out.mp4", "mcap": other_disk / "out.mcap"}
        files = {name: tmp_path / f"out.{name}" for name in kinds}
        options = [part for path in (*(full[name] for name in kinds), *files.values()) for part in ("--record", path)]
        process = start("run", SOURCE + "&frames=160", "--bundle", tiny_bundle, "--json", *options)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 1, err
        assert "Traceback" not in err
        summary = json.loads(out)
        assert summary["frames"] + summary["dropped"] == 160
        by_file = {one["file"]: one for one in summary["recordings"]}
        for name in kinds:
            said = [line for line in err.splitlines() if str(full[name]) in line]
            assert len(said) == 1, err
            for words in ("No space left on device", "kept", "judging goes on", by_file[str(full[name])]["failed"]):
                assert words in said[0]
            assert 10 < frames_in(full[name]) < summary["frames"]
            whole = {"file": str(files[name]), "frames": summary["frames"], "left_out": 0, "failed": None}
            assert by_file[str(files[name])] == whole
            assert frames_in(files[name]) == summary["frames"]


@pytest.mark.parametrize("lossless", [False, True])
def test_fault_disk_full_verdicts_that_fit_are_whole_lines(tiny_bundle, tmp_path, lossless):
    frames, options = 240, ["--as-fast-as-possible"] if lossless else []
    with small_disk(tmp_path / "disk", 32) as disk:
        jsonl, video = disk / "out.jsonl", tmp_path / "out.mp4"
        source = f"synthetic://?width=320&height=240&fps=80&frames={frames}"
        process = start("run", source, "--bundle", tiny_bundle, "--jsonl", jsonl, "--record", video, *options)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 1, err
        assert "capture to verdict" in out
        assert "Traceback" not in err
        rows = verdict_lines(jsonl)
        assert jsonl.read_bytes().endswith(b"\n")
        assert len(rows) > 20
        said = [line for line in err.splitlines() if "No space left on device" in line]
        assert len(said) == 1, err
        assert f"verdicts {jsonl}" in said[0]
        assert f"the {len(rows)} lines before it are kept; judging goes on" in said[0]
        assert frames_in(video) > 1.5 * len(rows)


@pytest.mark.skipif(not HAS_RERUN, reason="rerun-sdk is not installed: pip install 'framegate[rerun]'")
def test_fault_disk_full_rerun_neither_hangs_nor_hides_it(tiny_bundle, tmp_path):
    with small_disk(tmp_path / "disk", 256) as disk:
        path, jsonl = disk / "out.rrd", tmp_path / "out.jsonl"
        process = start("run", SOURCE + "&frames=160", "--bundle", tiny_bundle, "--rerun", path, "--jsonl", jsonl)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 1, err
        assert "capture to verdict" in out
        assert f"recording {path}: writing failed (No space left on device); what came before is kept" in err
        assert len(verdict_lines(jsonl)) > 100
        assert 5 < frames_in(path) < 160


def test_fault_a_reader_of_verdicts_that_leaves_is_said_and_judging_goes_on(tiny_bundle, tmp_path):
    pipe, video = tmp_path / "pipe", tmp_path / "out.mp4"
    os.mkfifo(pipe)
    process = start("run", SOURCE + "&frames=120", "--bundle", tiny_bundle, "--jsonl", pipe, "--record", video)
    with pipe.open("rb") as reader:
        rows = [json.loads(reader.readline()) for _ in range(10)]
    out, err = process.communicate(timeout=120)
    assert [row["frame_id"] for row in rows if row["frame_id"] is not None] == sorted(
        row["frame_id"] for row in rows if row["frame_id"] is not None
    )
    assert process.returncode == 1, err
    assert "Broken pipe" in err
    assert "judging goes on" in err
    assert "capture to verdict" in out
    assert frames_in(video) > 60


def test_nothing_is_imported_that_nobody_asked_for(tiny_bundle, tmp_path):
    code = f"""
import sys
from framegate.runtime.cli.main import main
code = main(["run", "synthetic://?frames=5", "--bundle", {str(tiny_bundle)!r}, "--jsonl", {str(tmp_path / "v")!r}])
assert not {{"mcap", "rerun", "pyarrow"}} & set(sys.modules), sorted(sys.modules)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
