"""Signals end a command as Ctrl-C does: recordings finished, summary printed, 128 and the signal as exit code."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest
from forked_command import Forked
from recordings import frames_in, verdict_lines

from framegate.runtime.cli import signals

SOURCE = "synthetic://?width=320&height=240&fps=40"
MODULE = [sys.executable, "-m", "framegate.runtime.cli.main"]
NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def start(*arguments, **options):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    started = subprocess.Popen if options else Forked  # an option changes how the process begins
    return started([*MODULE, *map(str, arguments)], **pipes)


def until(condition):
    limit = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.02)


def lines_of(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("number", NUMBERS)
def test_run_finishes_its_recordings_and_prints_its_summary(tiny_bundle, tmp_path, number):
    jsonl, video = tmp_path / "v.jsonl", tmp_path / "v.mp4"
    process = start("run", SOURCE, "--bundle", tiny_bundle, "--jsonl", jsonl, "--video", video, "--json")
    until(lambda: lines_of(jsonl) > 30)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert {signal.SIGTERM: "ended by SIGTERM", signal.SIGHUP: "ended by SIGHUP"}.get(number, "interrupted") in err
    assert "Traceback" not in err
    summary = json.loads(out)
    ids = [row["frame_id"] for row in verdict_lines(jsonl) if row["frame_id"] is not None]
    # Nothing that was judged is missing, nothing is there twice; some of the lines may be of silence.
    assert len(ids) == len(set(ids)) == summary["evaluated"] - summary["unread"] == frames_in(video) > 20
    assert summary["unread"] <= 1  # judged when the pipeline had been stopped
    assert [one["failed"] for one in summary["recordings"]] == [None, None]


def test_an_impatient_second_signal_breaks_nothing(tiny_bundle, tmp_path):
    jsonl, video = tmp_path / "v.jsonl", tmp_path / "v.mp4"
    process = start("run", SOURCE, "--bundle", tiny_bundle, "--jsonl", jsonl, "--record", video)
    until(lambda: lines_of(jsonl) > 30)
    for k in range(100):
        if process.poll() is None:
            # SIGHUP first: of several that wait for a busy machine, Python takes the one with the lowest number first.
            process.send_signal(NUMBERS[(k + 2) % 3])
        time.sleep(0.005)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 129, err
    assert "capture to verdict" in out
    assert frames_in(video) == len([row for row in verdict_lines(jsonl) if row["frame_id"] is not None])


def test_a_signal_while_every_frame_of_a_file_is_judged_loses_none(tiny_bundle, tmp_path):
    jsonl = tmp_path / "v.jsonl"
    source = "synthetic://?width=320&height=240&fps=40&frames=1000000"
    process = start("run", source, "--bundle", tiny_bundle, "--jsonl", jsonl, "--as-fast-as-possible", "--json")
    until(lambda: lines_of(jsonl) > 100)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    ids = [row["frame_id"] for row in verdict_lines(jsonl) if row["frame_id"] is not None]
    assert ids == sorted(ids)
    summary = json.loads(out)
    assert len(ids) == summary["evaluated"] - summary["unread"]
    assert summary["unread"] <= 1


def test_a_signal_before_anything_runs_is_one_line(tiny_bundle, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # opening it waits for a reader, who never comes
    process = start("run", SOURCE, "--bundle", tiny_bundle, "--record", tmp_path / "v.mp4", "--jsonl", pipe)
    until(lambda: (tmp_path / "v.mp4").exists())
    time.sleep(0.2)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert err.splitlines()[-1] == "framegate: ended by SIGTERM"
    assert "Traceback" not in err
    assert not out


def test_bench_ends_and_leaves_no_process(tiny_bundle):
    process = start("bench", tiny_bundle, "--pace", "40", "--load", "--frames", "100000", start_new_session=True)
    until(lambda: _group(process.pid) >= 2)
    time.sleep(1.0)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "ended by SIGTERM" in err
    assert "Traceback" not in err
    until(lambda: _group(process.pid) == 0)


def _group(number):
    """How many processes of a session live."""
    count = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    state, _, _, session = file.read().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            count += int(session) == number and state != "Z"
    return count


def test_nohup_is_respected(tiny_bundle, tmp_path):
    jsonl = tmp_path / "v.jsonl"
    process = start(
        "run",
        SOURCE + "&frames=120",
        "--bundle",
        tiny_bundle,
        "--jsonl",
        jsonl,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    until(lambda: lines_of(jsonl) > 10)
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "capture to verdict" in out


def test_fault_a_closed_terminal_leaves_whole_recordings(tiny_bundle, tmp_path):
    jsonl, video = tmp_path / "v.jsonl", tmp_path / "v.mp4"
    arguments = ["run", SOURCE, "--bundle", str(tiny_bundle), "--jsonl", str(jsonl), "--record", str(video)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*MODULE, *arguments])
    drained = threading.Thread(target=_drain, args=(terminal, lambda: lines_of(jsonl) > 30))
    drained.start()
    drained.join(90)
    assert lines_of(jsonl) > 30
    os.close(terminal)  # as when a window or an ssh connection is gone
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 129
    ids = [row["frame_id"] for row in verdict_lines(jsonl) if row["frame_id"] is not None]
    assert frames_in(video) == len(ids) > 30


def _drain(terminal, enough):
    limit = time.monotonic() + 80
    while not enough() and time.monotonic() < limit:
        os.read(terminal, 65536)


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_fault_a_service_without_standard_streams(tiny_bundle, tmp_path, redirection):
    jsonl, video = tmp_path / "v.jsonl", tmp_path / "v.avi"
    words = [*MODULE, "run", "synthetic://?frames=20", "--bundle", str(tiny_bundle)]
    words += ["--jsonl", str(jsonl), "--record", str(video)]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    # No library's output landed in a file that took the place of standard output.
    rows = [row for row in verdict_lines(jsonl) if row["frame_id"] is not None]
    assert jsonl.read_bytes().endswith(b"\n")
    assert frames_in(video) == len(rows) > 0


@pytest.fixture
def handlers():
    """Those of before, whatever the test does."""
    before = [signal.getsignal(number) for number in NUMBERS]
    yield before
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)
    with signals.ended_by_signals():  # forgets the signal that was received
        pass


def test_handlers_are_those_of_before_when_a_command_has_ended(handlers):
    with signals.ended_by_signals():
        assert [signal.getsignal(number) for number in NUMBERS] != handlers
        signals.let_it_end()
        signal.raise_signal(signal.SIGTERM)  # does nothing any more
    assert [signal.getsignal(number) for number in NUMBERS] == handlers
    assert signals.received() is None


def test_the_first_signal_is_raised_and_later_ones_do_nothing(handlers):
    with signals.ended_by_signals():
        with pytest.raises(signals.EndedBySignal, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert signals.received() == signal.SIGTERM
    signal.raise_signal(signal.SIGINT)  # nor while the process ends
    assert signals.exit_code(signals.received()) == 143


def test_what_is_stopped_by_a_signal_is_not_interrupted(handlers):
    stopped = threading.Event()
    with signals.ended_by_signals(), signals.stopped_by_signals(stopped.set):
        signal.raise_signal(signal.SIGHUP)
        assert stopped.wait(10)
    assert signals.exit_code(signals.received()) == 129


def test_outside_the_main_thread_nothing_changes():
    before = [signal.getsignal(number) for number in NUMBERS]
    seen = []

    def work():
        with signals.ended_by_signals():
            seen.extend(signal.getsignal(number) for number in NUMBERS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before
