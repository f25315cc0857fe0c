"""JSON lines for a process that reads them as they come: the standard output, with a heartbeat."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from forked_command import Forked

from framegate.runtime.cli import main as cli
from framegate.runtime.sinks.jsonl import JsonLinesSink
from framegate.runtime.sinks.recorder import Recorder


def start(bundle, *options):
    command = [sys.executable, "-m", "framegate", "run", "synthetic://?fps=20", "--bundle", str(bundle)]
    return Forked(
        [*command, "--backend", "onnxruntime", "--jsonl", "-", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_recorder_writes_heartbeats_while_there_is_nothing_to_write(tmp_path):
    path = tmp_path / "lines"
    with Recorder([JsonLinesSink(path, beat_s=0.02)], lossless=False):
        time.sleep(0.3)
    beats = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(beats) >= 4
    assert [beat["heartbeat"] for beat in beats] == list(range(len(beats)))
    assert {beat["every_ms"] for beat in beats} == {20.0}
    assert len({beat["process"] for beat in beats}) == 1
    times = [beat["at_ns"] for beat in beats]
    assert times == sorted(times)
    assert times[-1] <= time.monotonic_ns()


def test_a_file_has_no_heartbeat(tmp_path):
    path = tmp_path / "lines"
    with Recorder([JsonLinesSink(path)], lossless=False):
        time.sleep(0.05)
    assert path.read_bytes() == b""


@pytest.mark.slow
def test_the_standard_output_holds_nothing_but_lines_and_a_stopped_sender_is_silent(tiny_bundle):
    with start(tiny_bundle, "--deadline-ms", "300") as sender:
        lines = [json.loads(sender.stdout.readline()) for _ in range(12)]
        assert {"heartbeat", "frame_id"} <= {key for line in lines for key in line}
        assert all("heartbeat" in line or line["stream"] == "frame" for line in lines)
        assert {line["every_ms"] for line in lines if "heartbeat" in line} == {100.0}
        sender.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        os.set_blocking(sender.stdout.fileno(), False)
        while sender.stdout.readline():  # what it wrote before
            pass
        time.sleep(0.4)  # more than a deadline: whoever waits for a line every 100 ms knows
        assert not sender.stdout.readline()
        sender.send_signal(signal.SIGCONT)
        os.set_blocking(sender.stdout.fileno(), True)
        sender.send_signal(signal.SIGINT)
        out, err = sender.communicate(timeout=30)
    assert all(json.loads(line) for line in out.splitlines())
    assert "Verdicts" in err
    assert "interrupted" in err
    assert sender.returncode == 130


@pytest.mark.slow
def test_a_run_ends_when_its_reader_has_gone(tiny_bundle):
    with start(tiny_bundle) as sender:
        sender.stdout.readline()
        sender.stdout.close()
        sender.stdout = None
        _, err = sender.communicate(timeout=30)
    assert "nobody reads the verdicts" in err
    assert "Traceback" not in err
    assert sender.returncode == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--jsonl", "-", "--json"), "leave one out"),
        (("--record", "-"), "needs a file"),
        (("--rerun", "-"), "needs a file"),
    ],
)
def test_what_cannot_go_to_the_standard_output_is_refused(capsys, tiny_bundle, options, why):
    assert cli.main(["run", "synthetic://", "--bundle", str(tiny_bundle), *options]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert why in err
    assert len(err.strip().splitlines()) == 1
