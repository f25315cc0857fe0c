"""Files that end at a whole record, on disks that are full for real."""

from __future__ import annotations

import io
import json
import math
import os
import resource
import subprocess
import sys
import threading
import time

import pytest
from recordings import small_disk, verdict_lines

from framegate.runtime.errors import SinkError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.sinks import record_file
from framegate.runtime.sinks.jsonl import JsonLinesSink
from framegate.runtime.sinks.record_file import STDOUT, RecordFile
from framegate.runtime.verdict import Prediction, Reason


def result(number, regions=("left", "right")):
    now = time.monotonic_ns()
    return FrameResult(
        tuple(
            Prediction(number, name, (Reason.HIGH_SCORE,), "cat", 0.9, 0.1, 0.8, math.nan, 0.1, 0.5, now - 10**6, now)
            for name in regions
        ),
        None,
        "",
    )


def test_fault_disk_full_leaves_whole_records(tmp_path):
    with small_disk(tmp_path / "disk", 64) as disk:
        file = RecordFile(disk / "out", "recording")
        record = bytes(range(250)) * 13  # no multiple of a page

        def until_full():
            while file.size < 10**6:
                file.append(record, "7 are kept")

        with pytest.raises(SinkError, match=r"recording .*out: writing failed \(No space left on device\); 7 are kept"):
            until_full()
        data = (disk / "out").read_bytes()
        assert len(data) == file.size >= 10 * len(record)
        assert data == record * (file.size // len(record))
        file.append(b"less", "")  # what fits now is appended behind the last whole record
        file.close()
        assert (disk / "out").read_bytes() == data + b"less"


def test_fault_disk_full_what_a_shell_redirects_to_keeps_what_it_had(tmp_path, monkeypatch):
    """``framegate run --jsonl - >> drives.jsonl``: the lines of earlier drives are not ours to take back."""
    with small_disk(tmp_path / "disk", 64) as disk:
        before = b"of earlier drives\n" * 100
        (disk / "log").write_bytes(before)
        with (disk / "log").open("ab") as log:
            monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(log))
            file = RecordFile(STDOUT, "verdicts")
            record = bytes(range(250)) * 13

            def until_full():
                while file.size < 10**6:
                    file.append(record, "kept")

            with pytest.raises(SinkError, match="No space left"):
                until_full()
            assert (disk / "log").read_bytes() == before + record * (file.size // len(record))
            file.append(b"less", "")
            assert (disk / "log").read_bytes() == before + record * ((file.size - 4) // len(record)) + b"less"
            file.close()


def test_fault_a_file_that_somebody_writes_is_not_taken_from_him(tmp_path):
    first = RecordFile(tmp_path / "out", "recording")
    first.append(b"one", "")
    with pytest.raises(SinkError, match=r"recording .*out: something else is writing it; give this one another name"):
        RecordFile(tmp_path / "out", "recording")
    first.append(b"two", "")
    assert (tmp_path / "out").read_bytes() == b"onetwo"
    first.close()
    RecordFile(tmp_path / "out", "recording").close()
    assert (tmp_path / "out").read_bytes() == b""  # whose writer has ended is replaced


def test_a_full_pipe_that_does_not_wait_is_waited_for(monkeypatch):
    asked = []

    class Pipe(io.FileIO):
        def write(self, data):
            asked.append(len(data))
            return super().write(data)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    monkeypatch.setattr(record_file, "_standard_output", lambda: Pipe(writer, "wb"))
    file = RecordFile(STDOUT, "verdicts")
    thread = threading.Thread(target=file.append, args=(bytes(200_000), ""), daemon=True)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    assert len(asked) < 5  # asleep, not asking again and again
    with open(reader, "rb", buffering=0) as pipe:
        taken = 0
        while taken < 200_000:
            taken += len(pipe.read(50_000))
    thread.join(10)
    assert file.size == 200_000
    file.close()


def test_fault_an_existing_file_is_kept_where_it_must_be(tmp_path):
    (tmp_path / "out").write_bytes(b"whole")
    with pytest.raises(SinkError, match=r"recording .*out: cannot be written \(File exists\)"):
        RecordFile(tmp_path / "out", "recording", replace=False)
    assert (tmp_path / "out").read_bytes() == b"whole"
    RecordFile(tmp_path / "new", "recording", replace=False).close()


def test_fault_limit_on_the_size_of_files_leaves_whole_lines(tmp_path):
    path = tmp_path / "verdicts.jsonl"
    code = f"""
import sys; sys.path[:0] = {[os.path.dirname(__file__)]!r} + {sys.path!r}
from test_record_file import JsonLinesSink, SinkError, result
sink = JsonLinesSink({str(path)!r})
try:
    for number in range(1000):
        sink.write(result(number))
except SinkError as error:
    print(error)
sink.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    lines = verdict_lines(path)
    assert 50 < len(lines) < 1000
    assert path.read_bytes().endswith(b"\n")
    assert f"the {len(lines)} lines before it are kept" in done.stdout
    assert "File too large" in done.stdout
    assert [line["frame_id"] for line in lines] == [k // 2 for k in range(len(lines))]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_fault_device_full():
    sink = JsonLinesSink("/dev/full")
    with pytest.raises(SinkError, match=r"No space left on device.*the 0 lines before it are kept"):
        sink.write(result(0))
    sink.close()
    sink.close()


def test_lines_reach_a_pipe_at_once_and_a_reader_that_leaves_is_an_error(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ends = []
    reader = threading.Thread(target=lambda: ends.append(pipe.open("rb")))
    reader.start()
    sink = JsonLinesSink(pipe)
    reader.join()
    for number in range(3):
        sink.write(result(number))
        assert [json.loads(ends[0].readline())["frame_id"] for _ in range(2)] == [number] * 2  # although it is open
    ends[0].close()
    with pytest.raises(SinkError, match=r"Broken pipe.*the 6 lines before it are kept"):
        sink.write(result(3))
    sink.close()


@pytest.mark.parametrize("where", ["no/such/folder/out", "."])
def test_what_cannot_be_created_is_said(tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SinkError, match=r"verdicts .*: cannot be written"):
        JsonLinesSink(where)
