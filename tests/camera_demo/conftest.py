"""A real demo in a process of its own, and a viewer without a browser."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from forked_command import RUN, Forked

for needed in ("starlette", "uvicorn", "websockets"):
    pytest.importorskip(needed, reason=f"{needed} is not installed: pip install 'framegate[demo]'")
from websockets.sync.client import connect  # noqa: E402

ROOM = "framegate.camera_demo"
IMPORTS = f"{RUN}, {ROOM}.command_demo, {ROOM}.live_demo, {ROOM}.web_server"


class Demo:
    """``framegate demo`` with arguments; its address is known when this returns."""

    def __init__(self, *arguments: str) -> None:
        self.process = Forked(
            [sys.executable, "-m", "framegate.runtime.cli.main", "demo", "--port", "0", *arguments],
            imports=IMPORTS,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise AssertionError(f"no address: {line!r} {self.process.communicate(timeout=20)}")
        self.address = found.group()

    def end(self, number: int | None = signal.SIGINT, timeout: float = 30) -> tuple[int, str]:
        """Send a signal, unless None, and wait for the end: exit code and standard error."""
        if number is not None and self.process.poll() is None:
            self.process.send_signal(number)
        try:
            _, said = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"did not end: {self.process.communicate()}") from None
        return self.process.returncode, said


class Client:
    """One viewer. Confirms what it gets, as the page does."""

    def __init__(self, address: str, *, confirm: bool = True, **options: Any) -> None:
        page, _, query = address.partition("?")
        url = page.replace("http", "ws", 1) + "stream" + (f"?{query}" if query else "")
        self._connecting = connect(url, max_size=None, open_timeout=20, **options)
        self.socket = self._connecting.__enter__()
        self.confirm = confirm
        self.state: dict[str, Any] = {}
        self.about: dict[str, Any] = {}
        self.picture: dict[str, Any] = {}
        self.image: np.ndarray | None = None
        self.ended = ""

    def take(self, timeout: float = 20) -> str:
        """Receive one message: "state", "picture" or "ended"."""
        message = self.socket.recv(timeout=timeout)
        if self.confirm:
            with contextlib.suppress(Exception):  # the other side may have closed after its last word
                self.socket.send('"shown"')
        if isinstance(message, str):
            record = json.loads(message)
            if "ended" in record:
                self.ended = record["ended"]
                return "ended"
            self.about = record.pop("about", self.about)
            self.state = record
            return "state"
        (length,) = struct.unpack_from(">I", message)
        self.picture = json.loads(message[4 : 4 + length])
        encoded = np.frombuffer(message[4 + length :], np.uint8)
        self.image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if len(encoded) else None
        return "picture"

    def waits(self, seconds: float) -> bool:
        """Whether a message comes within so many seconds."""
        try:
            self.take(seconds)
        except TimeoutError:
            return False
        return True

    def until(self, condition: Callable[[Client], Any], timeout: float = 30) -> None:
        """Receive until the condition holds."""
        deadline = time.monotonic() + timeout
        while not condition(self):
            assert time.monotonic() < deadline, (self.picture, self.state)
            self.take()

    def press(self, name: str, severity: int = 3) -> None:
        self.socket.send(json.dumps({"press": name, "severity": severity}))

    def reasons(self) -> set[str]:
        return {reason for region in self.picture.get("regions", ()) for reason in region["reasons"]}

    def close(self) -> None:
        self._connecting.__exit__(None, None, None)


@pytest.fixture(scope="session")
def viewer() -> Callable[..., Client]:
    return Client


@pytest.fixture(scope="session")
def demo_process() -> type[Demo]:
    return Demo


@pytest.fixture
def start_demo() -> Iterator[Callable[..., Demo]]:
    """Start demos that are ended with the test."""
    running: list[Demo] = []

    def start(*arguments: str) -> Demo:
        running.append(Demo(*arguments))
        return running[-1]

    yield start
    for demo in running:
        if demo.process.poll() is None:
            demo.end()
