"""``framegate run --realtime``: what is in force is said, what is not allowed too, and the verdicts stay the same."""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path

import pytest
from forked_command import run_forked

from framegate.runtime.cli import main as cli
from framegate.runtime.errors import UsageError
from framegate.runtime.realtime import spin_us

needs_cores = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores and SCHED_FIFO: only on Linux")
SOURCE = "synthetic://?width=320&height=240&fps=100&frames=20"


@needs_cores
@pytest.mark.parametrize("waiting", ["block", "spin"])
def test_run_says_what_is_in_force_and_judges_as_ever(tiny_bundle: Path, tmp_path: Path, waiting: str) -> None:
    if waiting == "spin" and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("spinning takes a core and needs one more")
    jsonl, video = tmp_path / "v.jsonl", tmp_path / "v.mp4"
    words = ["run", SOURCE, "--bundle", str(tiny_bundle), "--backend", "onnxruntime", "--realtime", waiting, "--json"]
    words += ["--roi", "a=0,0,160,120", "--roi", "b=0.5,0.5,0.5,0.5", "--jsonl", str(jsonl), "--video", str(video)]
    command = [sys.executable, "-m", "framegate.runtime.cli.main", *words]
    done = run_forked(command, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    found = summary["realtime"]
    assert found["waiting"] == waiting
    assert found["applied"][0] == "garbage collector off"
    for what in found["applied"]:
        assert what in done.stderr
    for problem in found["refused"]:
        assert f"NOT allowed: {problem}" in done.stderr
    rows = [json.loads(line) for line in jsonl.read_text().splitlines()]
    rows = [row for row in rows if row["frame_id"] is not None]  # on a busy machine some lines say that no frame came
    assert len(rows) == 2 * summary["frames"]
    assert summary["frames"] + summary["dropped"] == 20
    assert video.stat().st_size > 0


@needs_cores
def test_what_the_system_does_not_allow_is_said_and_the_run_goes_on(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", forbidden, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", forbidden, raising=False)
    assert cli.main(["run", SOURCE, "--bundle", str(tiny_bundle), "--realtime", "block"]) == 0
    told = capsys.readouterr().err
    assert "real time: garbage collector off\n" in told
    assert "NOT allowed: SCHED_FIFO: Operation not permitted" in told
    assert "NOT allowed: cores: Operation not permitted" in told
    assert gc.isenabled()


def test_without_it_nothing_is_tuned(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", SOURCE, "--bundle", str(tiny_bundle), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["realtime"] is None
    assert "real time" not in err


def test_frames_that_wait_are_not_tuned(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", SOURCE, "--bundle", str(tiny_bundle), "--backend", "onnxruntime", "--realtime", "block"]
    assert cli.main([*words, "--as-fast-as-possible"]) == 2
    assert "--realtime is for frames that come by themselves" in capsys.readouterr().err


@needs_cores
def test_spinning_lasts_a_period_and_needs_a_spare_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert spin_us(None, 30.0) == spin_us("block", 30.0) == 0.0
    assert spin_us("spin", 50.0) == pytest.approx(24_000)
    assert spin_us("spin", None) == pytest.approx(40_000)  # a rate that is not known
    with pytest.raises(UsageError, match="3 in all, this process may use 2; take fewer --streams"):
        spin_us("spin", 30.0, streams=2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    with pytest.raises(UsageError, match="2 in all, this process may use 1; take --realtime block"):
        spin_us("spin", 30.0)
