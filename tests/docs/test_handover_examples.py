"""The control loops of docs/examples, built and run: they drive while they may, and brake when a sender is stopped."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from handover_tape import HEADERS, WARNINGS
from repository import ROOT
from transports import free_port

from framegate.runtime.errors import UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.handover import Identity, Sender, open_outgoing, read_data_id, this_clock
from framegate.runtime.handover.object_sender import ObjectSender
from framegate.runtime.handover.ros2_topic import INSTALL
from framegate.runtime.verdict import FoundObject, Prediction, Reason

EXAMPLES = ROOT / "docs/examples"
ID = 0x101
CONSUMERS = ["py", "c", "cpp", "ros2"]
TOPICS = (f"t{os.getpid()}n{number}/verdicts" for number in itertools.count())


@pytest.fixture(scope="module", params=CONSUMERS)
def program(request, tmp_path_factory) -> list[str]:
    if request.param == "ros2":
        if importlib.util.find_spec("rclpy") is None:
            pytest.skip(f"rclpy is not installed: {INSTALL}")
        return [sys.executable, str(EXAMPLES / "brake_or_drive_ros2.py")]
    source = EXAMPLES / f"brake_or_drive.{request.param}"
    if request.param == "py":
        return [sys.executable, str(source)]
    return built(source, tmp_path_factory.mktemp("built") / request.param)


def built(source: Path, to: Path) -> list[str]:
    """An example in C or C++, compiled with every warning an error."""
    compiler, standard = ("cc", "c11") if source.suffix == ".c" else ("c++", "c++17")
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not installed")
    command = [compiler, f"-std={standard}", *WARNINGS, f"-I{HEADERS}", str(source), "-o", str(to)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [str(to)]


class Consumer:
    """One running control loop and what it has said."""

    def __init__(self, command: list[str], *options: str) -> None:
        where = next(TOPICS) if command[-1].endswith("_ros2.py") else str(free_port())
        self.url = f"ros2://{where}" if "/" in where else f"udp://127.0.0.1:{where}"
        self.process = subprocess.Popen(
            [*command, where, hex(ID), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        self.wait_for("BRAKE")

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line)

    def wait_for(self, word: str, after: int = 0, limit_s: float = 20.0) -> int:
        """The number of the first line after some that begins with a word."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            for number, line in enumerate(self.lines[after:], after):
                if line.startswith(word):
                    return number
            time.sleep(0.005)
        raise AssertionError(f"no {word} after line {after}: {self.lines}")

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, self.process.stderr.read()


def prediction(frame_id: int, reasons: tuple[Reason, ...] = ()) -> Prediction:
    now = time.monotonic_ns()
    numbers = {"confidence": 0.9, "entropy": 0.1, "margin": 0.8, "energy": -1.0, "score": 0.1, "threshold": 0.3}
    return Prediction(
        frame_id,
        "road",
        reasons,
        "dog",
        **numbers,
        captured_ns=now,
        decided_ns=now,
        valid_until_ns=now + 400_000_000,
    )


class Camera(threading.Thread):
    """Sends verdicts at 25 Hz until it is told to stop without a word."""

    def __init__(self, sender: Sender) -> None:
        super().__init__(daemon=True)
        self.sender, self.reasons, self.running, self.frame_id = sender, (), True, 0
        self.start()

    def run(self) -> None:
        while self.running:
            self.sender.send(prediction(self.frame_id, self.reasons))
            self.frame_id += 1
            time.sleep(0.04)


def sender_to(url: str, **options) -> Sender:
    out = open_outgoing(url)
    return Sender([out], [("road", ID)], Identity(("cat", "dog"), b"bundle-1", b"calibr-1"), **options)


@pytest.mark.slow
def test_a_control_loop_drives_and_brakes(program):
    with Consumer(program) as consumer:
        first = sender_to(consumer.url)
        camera = Camera(first)
        line = consumer.wait_for("DRIVE class 1")
        camera.reasons = (Reason.BLACK,)
        line = consumer.wait_for("BRAKE", line)
        assert "BLACK" in consumer.lines[line]
        camera.reasons = ()
        line = consumer.wait_for("DRIVE class 1", line)
        camera.running = False  # the camera hangs, heartbeats go on
        line = consumer.wait_for("BRAKE", line)
        assert re.search("NOT_FRESH|NOT_ALIVE", consumer.lines[line])
        camera.join()
        camera = Camera(first)
        camera.frame_id = 10_000
        line = consumer.wait_for("DRIVE class 1", line)
        camera.running = False
        camera.join()
        first.close()  # says so
        line = consumer.wait_for("BRAKE", line)
        second = sender_to(consumer.url)  # starts again: another epoch
        camera = Camera(second)
        line = consumer.wait_for("DRIVE class 1", line)
        foreign = Camera(sender_to(consumer.url))  # a second sender with the same id
        line = consumer.wait_for("BRAKE", line)
        consumer.wait_for("BRAKE: DO NOT USE: " if program[0] == sys.executable else "BRAKE: ", line)
        until = time.monotonic() + 10
        while not any("LATCHED" in each for each in consumer.lines[line:]):
            assert time.monotonic() < until, consumer.lines[line:]
            time.sleep(0.01)
        latched = len(consumer.lines)
        time.sleep(0.3)
        assert not any(each.startswith("DRIVE") for each in consumer.lines[latched:])
        for each in (camera, foreign):
            each.running = False
            each.join()
            each.sender.close()


@pytest.mark.slow
@pytest.mark.parametrize("program", ["py", "c"], indirect=True)
def test_a_control_loop_with_a_key_takes_nothing_without_it(program, tmp_path):
    key = tmp_path / "key"
    key.write_text("00" * 32)
    key.chmod(0o600)
    with Consumer(program, str(key)) as consumer:
        sender = sender_to(consumer.url, key=bytes(32))
        camera = Camera(sender)
        line = consumer.wait_for("DRIVE class 1")
        other = Camera(sender_to(consumer.url, key=bytes(31) + b"\1"))
        line = consumer.wait_for("BRAKE", line)
        assert any("LATCHED" in each for each in consumer.lines[line:])
        for each in (camera, other):
            each.running = False
            each.join()
            each.sender.close()


@pytest.mark.parametrize("program", ["py", "c"], indirect=True)
def test_a_control_loop_refuses_a_key_that_others_can_read(program, tmp_path):
    key: Path = tmp_path / "key"
    key.write_text("00" * 32)
    key.chmod(0o644)
    done = subprocess.run([*program, "47800", "1", str(key)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "chmod 600" in done.stderr


MISTAKES = [
    ("x", "1"),
    ("65536", "1"),
    ("47800", "zz"),
    ("47800", "-1"),
    ("47800", "010"),
    ("47800", "0x1ffffffff"),
    ("47800", ""),
    ("47800", "1", "/no/such/key"),
]


@pytest.mark.parametrize("program", CONSUMERS, indirect=True)
def test_a_control_loop_says_a_users_mistake_in_one_sentence(program):
    name = program[-1]
    mistakes = [words for words in MISTAKES if len(words) == 2 or name.endswith(("py", "c"))]
    if name.endswith("_ros2.py"):
        mistakes = [("framegate/verdicts", "zz"), ("no topic", "1")]
    elif name.endswith(".py"):  # each takes a second
        mistakes = [("47800", "zz"), ("65536", "1")]
    for words in mistakes:
        done = subprocess.run([*program, *words], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode in (1, 2), words
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert any(word and word in done.stderr for word in words)


def test_a_data_id_is_one_number_and_nothing_else():
    assert [read_data_id(text) for text in ("0", "257", "0x101", "0xFFFFFFFF")] == [0, 257, 257, 2**32 - 1]
    for _, text, *_ in MISTAKES[2:-1]:
        with pytest.raises(UsageError, match="no data id; expected 0 to 4294967295"):
            read_data_id(text)


@pytest.mark.parametrize("program", ["py", "c"], indirect=True)
def test_a_control_loop_does_not_wait_for_a_key_that_is_a_pipe(program, tmp_path):
    os.mkfifo(tmp_path / "key", 0o600)
    command = [*program, "47800", "1", str(tmp_path / "key")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "plain file" in done.stderr


@pytest.mark.parametrize("program", ["py", "c", "cpp"], indirect=True)
def test_a_second_control_loop_on_one_port_says_so(program):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        done = subprocess.run([*program, port, "1"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert re.search("another receiver running", done.stderr)
    assert port in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["c", "cpp"])
def test_the_control_loop_for_objects_says_what_is_there_and_brakes_when_it_does_not_know(tmp_path, suffix):
    program = built(EXAMPLES / f"objects.{suffix}", tmp_path / "objects")
    mistakes = [("47800", "zz", "4"), ("x", "1", "4"), ("47800", "1", "17"), ("47800", "1", "4x")]
    for words in (*mistakes, ("47800", "1", "4", "1001"), ("47800", "1", "4", "-1"), ("47800", "1", "4", "")):
        done = subprocess.run([*program, *words], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), words
    with Consumer(program, "4", "2") as consumer:
        out = open_outgoing(consumer.url)
        identity = Identity(("cat", "dog"), b"bundle-1", b"calibr-1")
        with ObjectSender([out], ID, 4, identity, regions=("road", "sky")) as sender:
            for frame_id in range(500):
                whole = replace(prediction(frame_id), stream="frame", candidate="")
                seen = replace(prediction(frame_id), stream="track-7", found=FoundObject((0, 0, 9, 9), track=7))
                beside = [replace(prediction(frame_id), stream=name) for name in ("road", "sky")]
                sender.send_result(FrameResult((seen, *beside), None, "", whole))
                time.sleep(0.03)
                if any(line == "WHOLE 7:class1\n" for line in consumer.lines):
                    break
        line = consumer.wait_for("WHOLE 7:class1")
        consumer.wait_for("BRAKE", line)


def test_c_and_python_give_one_clock_one_name(tmp_path):
    if not shutil.which("cc"):
        pytest.skip("no C compiler is installed")
    source, program = tmp_path / "clock.c", tmp_path / "clock"
    lines = ("#define _POSIX_C_SOURCE 200809L", '#include "framegate_posix.h"', "int main(void)")
    call = '{ printf("%llu", (unsigned long long)framegate_this_clock()); return 0; }'
    source.write_text("\n".join((*lines, call)))
    command = ["cc", "-std=c11", *WARNINGS, f"-I{HEADERS}", str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    said = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    assert int(said) == this_clock() != 0
