"""JSON lines: a pipe to a process that is started behind ``framegate run``, or a named pipe.

jsonl://-            standard output of the sender, standard input of the receiver
jsonl:///PATH        a named pipe

A line holds what a message says, for people and scripts, and the message itself under ``message``, in base64. Only the
message is protected; a receiver that believes the other fields believes a pipe.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import select
import stat
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from framegate.runtime.errors import FramegateError, SinkError, SourceError, UsageError
from framegate.runtime.handover.base import Address
from framegate.runtime.handover.message import HEARTBEAT, SCENE, VerdictMessage, decode

LONGEST = select.PIPE_BUF if hasattr(select, "PIPE_BUF") else 512
"""Bytes of a line that a pipe takes whole or not at all."""
_READ = 1 << 16
_MOST_WAITING = 4096
_LONGEST_MS = 2**31 - 1
"""The system waits no longer at once: 24 days."""
_NUMBERS = (
    "region",
    "frame_id",
    "captured_ns",
    "decided_ns",
    "valid_until_ns",
    "sent_ns",
    "class_id",
    "drops",
    "epoch",
)
_KINDS = {HEARTBEAT: "heartbeat", SCENE: "scene"}


def _is_ready(descriptor: int, event: int, timeout_s: float) -> bool:
    """Whether a pipe can be read or written in time, or is broken. `select.select` takes no number above 1023."""
    waiting = select.poll()
    waiting.register(descriptor, event)
    return bool(waiting.poll(min(timeout_s * 1e3, _LONGEST_MS)))


def to_line(data: bytes) -> bytes:
    """A message as a line; what is no message is a line, too."""
    record: dict[str, object] = {}
    try:
        _, said = decode(data)
    except struct.error:
        pass
    else:
        record = {"kind": _KINDS.get(said.kind, "verdict"), **_readable(said)}
    record["message"] = base64.b64encode(data).decode("ascii")
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _readable(said: VerdictMessage) -> dict[str, object]:
    record: dict[str, object] = {"verdict": "ACCEPT" if said.accepted else "REJECT", "reasons": said.reason_names}
    record |= {name: getattr(said, name) for name in _NUMBERS}
    for name in ("confidence", "score", "threshold"):
        value = getattr(said, name)
        record[name] = value if math.isfinite(value) else None
    return record


def from_line(line: bytes) -> bytes:
    """The message of a line; the line itself if it holds none, which no receiver takes for a message."""
    try:
        return base64.b64decode(json.loads(line)["message"], validate=True)
    except (ValueError, LookupError, TypeError, binascii.Error, RecursionError):
        return line


class JsonLinesOutgoing:
    """Writes lines into a pipe.

    Args:
        descriptor: Of the pipe; closed at the end.
        name: For people.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self.unsent = 0
        self._descriptor: int | None = descriptor

    def send(self, data: bytes) -> None:
        """Write one line; into a full pipe, or one that nobody reads, nothing is written."""
        line = to_line(data)
        # A pipe that can be written takes so many bytes without waiting.
        if self._descriptor is None or len(line) > LONGEST or not _is_ready(self._descriptor, select.POLLOUT, 0.0):
            self.unsent += 1
            return
        try:
            os.write(self._descriptor, line)
        except OSError:
            self.unsent += 1

    def close(self) -> None:
        """Close the pipe's end; can be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class JsonLinesIncoming:
    """Reads lines from a pipe.

    Args:
        descriptor: Of the pipe; closed at the end.
        name: For people.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self._descriptor: int | None = descriptor
        self._rest = b""
        self._lines: deque[bytes] = deque()

    def receive(self, timeout_s: float) -> tuple[bytes, int] | None:
        """The next line's message and when it was read; None if none comes in time."""
        until = time.monotonic() + timeout_s
        while not self._lines:
            left = until - time.monotonic()
            if self._descriptor is None:  # the sender has gone for good
                time.sleep(max(left, 0.0))
                return None
            if not _is_ready(self._descriptor, select.POLLIN, max(left, 0.0)):
                return None
            self._read(self._descriptor)
        return from_line(self._lines.popleft()), time.monotonic_ns()

    def _read(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, _READ)
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines.extend(lines)
        if len(self._rest) > LONGEST:  # no line of ours: it must not grow for ever
            self._lines.append(self._rest)
            self._rest = b""

    def waiting(self) -> Iterator[tuple[bytes, int]]:
        """All messages that wait, the oldest first."""
        for _ in range(_MOST_WAITING):
            received = self.receive(0)
            if received is None:
                return
            yield received

    def close(self) -> None:
        """Close the pipe's end; can be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _pipe(address: Address, error: type[FramegateError]) -> Path | None:
    """The named pipe; None for the standard streams.

    Raises:
        UsageError: The address is neither.
        FramegateError: Of the given kind; there is no such pipe.
    """
    address.require_options()
    if address.host == "-" and not address.path:
        return None
    if address.host or not address.path:
        raise UsageError(
            f"{address.text}: expected jsonl://- for the standard output, or jsonl:///PATH of a named pipe"
        )
    path = Path("/" + address.path)
    try:
        is_pipe = stat.S_ISFIFO(path.stat().st_mode)
    except (OSError, ValueError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else problem
        raise error(f"{address.text}: {path} cannot be used ({why}); make it first: mkfifo {path}") from None
    if not is_pipe:
        raise UsageError(f"{address.text}: {path} is no named pipe; mkfifo makes one, and --jsonl FILE writes a file")
    return path


def _opened(address: Address, path: Path, error: type[FramegateError]) -> int:
    try:
        # For both: a named pipe opened so neither waits for its other end nor ends with it.
        return os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as problem:
        raise error(f"{address.text}: {path} cannot be opened ({problem.strerror})") from None


def open_outgoing(address: Address) -> JsonLinesOutgoing:
    """A writer.

    Raises:
        UsageError: The address is neither the standard output nor a named pipe.
        SinkError: The pipe cannot be opened.
    """
    path = _pipe(address, SinkError)
    if path is not None:
        return JsonLinesOutgoing(_opened(address, path, SinkError), address.text)
    sys.stdout.flush()
    return JsonLinesOutgoing(os.dup(sys.stdout.fileno()), address.text)


def open_incoming(address: Address) -> JsonLinesIncoming:
    """A reader.

    Raises:
        UsageError: The address is neither the standard input nor a named pipe.
        SourceError: The pipe cannot be opened.
    """
    path = _pipe(address, SourceError)
    descriptor = os.dup(sys.stdin.fileno()) if path is None else _opened(address, path, SourceError)
    return JsonLinesIncoming(descriptor, address.text)
