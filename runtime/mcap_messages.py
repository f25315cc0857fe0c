"""The messages of a recording, chunk by chunk: many times as fast as one at a time.

The layout of a chunk's records is that of https://mcap.dev/spec: an opcode of one byte, a length of eight, the content.
"""

from __future__ import annotations

import importlib.util
import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from framegate.runtime.errors import DataError, UsageError

_RECORD = struct.Struct("<BQ")
_HEAD = struct.Struct("<HIQQ")
_CHUNK_HEAD = struct.Struct("<QQQII")
_BUFFER = 2**18
_MOST_TIMES = 2**16
"""Nothing that zstd compressed becomes so many times as large: three bytes stand for 128 KiB at most."""
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

        for data in self.chunks():
            try:
                found = _of_chunk(data, topics, known, meet)
            except damage() as error:
                self._ends(error)
                return
            yield from found

    def chunks(self) -> Iterator[bytes]:
        """The records that stand in chunks, unpacked and checked, up to the end, or to where the file breaks off.

        A channel or a message that stands outside is given as a chunk of its own. Metadata are kept on the way.

        Raises:
            DataError: The file cannot be read, or is no MCAP file.
        """
        try:
            with self.path.open("rb", buffering=_BUFFER) as file:
                first = file.read(len(_MAGIC))
                if first != _MAGIC:
                    if not _MAGIC.startswith(first):
                        raise DataError(f"{self.path}: it is no MCAP file")
                    self._ends(EOFError("the file ends within its first bytes"))
                    return
                unpack = _Unpacker()
                while True:
                    try:
                        opcode, content = _next_record(file)
                        found = self._of_record(opcode, content, unpack)
                    except damage() as error:
                        self._ends(error)
                        return
                    if opcode in (_DATA_END, _FOOTER):
                        return
                    if found:
                        yield found
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror})") from error

    def _ends(self, error: Exception) -> None:
        self.broken_off = " ".join(str(error).split()) or type(error).__name__

    def _of_record(self, opcode: int, content: bytes, unpack: _Unpacker) -> bytes:
        """What may hold messages in one record of the file, which is a chunk nearly always."""
        if opcode == _CHUNK:
            return unpack(content)
        if opcode == _METADATA:
            from mcap.data_stream import ReadDataStream
            from mcap.records import Metadata

            record = Metadata.read(ReadDataStream(io.BytesIO(content)))
            self.metadata[record.name] = dict(record.metadata)
        elif opcode in (_CHANNEL, _MESSAGE):
            return _RECORD.pack(opcode, len(content)) + content
        return b""

    def read_metadata(self, name: str = "") -> dict[str, dict[str, str]]:
        """The metadata records that stand before the first message.

        Args:
            name: Of one that is looked for to the end of the file if need be; a tool may have put it there.

        Raises:
            DataError: The file cannot be read, or is no MCAP file.
        """
        if name:
            for _ in self.chunks():
                if name in self.metadata:
                    break
        else:
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
        _require(file, length)
        file.seek(length, io.SEEK_CUR)
        return opcode, b""
    return opcode, _exactly(file, length)


def _exactly(file: IO[bytes], length: int) -> bytes:
    if length > _BUFFER:
        _require(file, length)
    data = file.read(length)
    if len(data) != length:
        raise EOFError("the file ends within a record")
    return data


def _require(file: IO[bytes], length: int) -> None:
    """Before memory is taken: one flipped bit makes a length of some bytes one of exabytes.

    Raises:
        EOFError: The file has not so much left.
    """
    if length > os.fstat(file.fileno()).st_size - file.tell():
        raise EOFError("the file ends within a record, or a record is longer than it was")


class _Unpacker:
    """Unpacks the chunks of a file; what decompresses is made once, since a chunk is often as small as one second."""

    def __init__(self) -> None:
        try:
            import zstandard
        except ImportError:
            self._zstd = None
        else:
            self._zstd = zstandard.ZstdDecompressor()
            self._said_size = zstandard.frame_content_size

    def __call__(self, content: bytes) -> bytes:
        """The records of a chunk, checked.

        Raises:
            One of `damage`: It is damaged.
        """
        _, _, size, crc, length = _CHUNK_HEAD.unpack_from(content)
        at = _CHUNK_HEAD.size + length
        if content[_CHUNK_HEAD.size : at] != b"zstd" or self._zstd is None:
            return _unpacked(content)
        (packed,) = struct.unpack_from("<Q", content, at)
        at += 8
        if at + packed > len(content):
            raise EOFError("a chunk is shorter than it says")
        frame = memoryview(content)[at : at + packed]
        if self._said_size(frame) not in (size, -1) or size > packed * _MOST_TIMES:  # before the memory is taken
            raise ValueError("a chunk cannot be as large as it says")
        data = self._zstd.decompress(frame, max_output_size=size)
        if crc and zlib.crc32(data) != crc:
            return _unpacked(content)  # which says so
        return data


def _unpacked(content: bytes) -> bytes:
    """The records of a chunk, checked, whatever it is compressed with."""
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
    """What readers raise where a file breaks off or is damaged, whatever a garbled length or number makes them do."""
    from mcap.exceptions import McapError

    found = (McapError, EOFError, struct.error, ValueError, RuntimeError, LookupError, MemoryError, OverflowError)
    try:
        from zstandard import ZstdError
    except ImportError:
        return found
    return (*found, ZstdError)
