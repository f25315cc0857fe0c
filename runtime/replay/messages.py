"""The messages of a recording, chunk by chunk: many times as fast as one at a time.

The layout of a chunk's records is that of https://mcap.dev/spec: an opcode of one byte, a length of eight, the content.
"""

from __future__ import annotations

import importlib.util
import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from framegate.runtime.errors import DataError, UsageError

_RECORD = struct.Struct("<BQ")
_HEAD = struct.Struct("<HIQQ")
_MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _CHANNEL, _MESSAGE, _CHUNK, _MESSAGE_INDEX, _METADATA, _DATA_END = 2, 4, 5, 6, 7, 12, 15
"""Opcodes."""


class Message(NamedTuple):
    """One message.

    Attributes:
        topic: Of its channel.
        sequence: The frame's number; 0 for a report of silence.
        log_ns: Time on the wall in ns since 1970.
        data: What was written.
    """

    topic: str
    sequence: int
    log_ns: int
    data: bytes


@dataclass
class Contents:
    """A recording that is being read.

    Attributes:
        path: The file.
        broken_off: Why it ends before its end, known when it was read; empty if it is whole.
        metadata: Name of a metadata record -> its texts; those that stand before the first message are known first.
    """

    path: Path
    broken_off: str = ""

    def __post_init__(self) -> None:
        """Look for the reader.

        Raises:
            UsageError: The package mcap is not installed.
        """
        if importlib.util.find_spec("mcap") is None:
            raise UsageError(f"{self.path}: the package 'mcap' is not installed; pip install 'framegate[mcap]'")
        self.metadata: dict[str, dict[str, str]] = {}

    def messages(self, wanted: Callable[[str], bool]) -> Iterator[Message]:
        """The messages up to the end, or to where the file breaks off, in the order of the file.

        Args:
            wanted: Which topics.

        Raises:
            DataError: The file cannot be read, or is no MCAP file.
        """
        topics: dict[int, str] = {}
        known: dict[int, bool] = {}

        def meet(number: int, topic: str) -> None:
            topics[number] = topic
            known[number] = wanted(topic)

        try:
            with self.path.open("rb") as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    raise DataError(f"{self.path}: it is no MCAP file")
                while True:
                    try:
                        opcode, content = _next_record(file)
                        found = self._of_record(opcode, content, topics, known, meet)
                    except damage() as error:
                        self.broken_off = " ".join(str(error).split()) or type(error).__name__
                        return
                    if opcode in (_DATA_END, _FOOTER):
                        return
                    yield from found
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror})") from error

    def _of_record(
        self,
        opcode: int,
        content: bytes,
        topics: dict[int, str],
        known: dict[int, bool],
        meet: Callable[[int, str], None],
    ) -> list[Message]:
        """The messages in one record of the file, which is a chunk nearly always."""
        if opcode == _CHUNK:
            return _of_chunk(_unpacked(content), topics, known, meet)
        if opcode == _METADATA:
            from mcap.data_stream import ReadDataStream
            from mcap.records import Metadata

            record = Metadata.read(ReadDataStream(io.BytesIO(content)))
            self.metadata[record.name] = dict(record.metadata)
        elif opcode in (_CHANNEL, _MESSAGE):
            return _of_chunk(_RECORD.pack(opcode, len(content)) + content, topics, known, meet)
        return []

    def read_metadata(self) -> dict[str, dict[str, str]]:
        """The metadata records that stand before the first message.

        Raises:
            DataError: The file cannot be read, or is no MCAP file.
        """
        for _ in self.messages(lambda topic: True):
            break
        return self.metadata


def _next_record(file: IO[bytes]) -> tuple[int, bytes]:
    """Opcode and content of the next record of the file; nothing of an index is read.

    Raises:
        EOFError: The file breaks off.
    """
    opcode, length = _RECORD.unpack(_exactly(file, _RECORD.size))
    if opcode == _MESSAGE_INDEX:
        file.seek(length, io.SEEK_CUR)
        return opcode, b""
    return opcode, _exactly(file, length)


def _exactly(file: IO[bytes], length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise EOFError("the file ends within a record")
    return data


def _unpacked(content: bytes) -> bytes:
    """The records of a chunk, checked."""
    from mcap.data_stream import ReadDataStream
    from mcap.records import Chunk
    from mcap.stream_reader import get_chunk_data_stream

    stream, length = get_chunk_data_stream(Chunk.read(ReadDataStream(io.BytesIO(content))), validate_crc=True)
    return stream.read(length)


def _of_chunk(
    data: bytes, topics: dict[int, str], known: dict[int, bool], meet: Callable[[int, str], None]
) -> list[Message]:
    found = []
    at, end = 0, len(data)
    unpack_record, unpack_message, new = _RECORD.unpack_from, _HEAD.unpack_from, tuple.__new__
    while at < end:
        opcode, length = unpack_record(data, at)
        at += 9
        if opcode == _MESSAGE:
            channel, sequence, log_ns, _ = unpack_message(data, at)
            if known[channel]:  # without the call of a function: this is where the time goes
                found.append(new(Message, (topics[channel], sequence, log_ns, data[at + 22 : at + length])))
        elif opcode == _CHANNEL:
            number, _, size = struct.unpack_from("<HHI", data, at)
            meet(number, data[at + 8 : at + 8 + size].decode())
        at += length
    if at != end:
        raise ValueError("a record of a chunk reaches beyond it")
    return found


def damage() -> tuple[type[Exception], ...]:
    """What readers raise where a file breaks off or is damaged."""
    from mcap.exceptions import McapError

    try:
        from zstandard import ZstdError
    except ImportError:
        return (McapError, EOFError, struct.error, ValueError, RuntimeError, LookupError)
    return (McapError, EOFError, struct.error, ValueError, RuntimeError, LookupError, ZstdError)
