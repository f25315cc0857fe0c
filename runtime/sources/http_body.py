"""The body of an endless HTTP answer, byte by byte as it arrives.

`http.client` reads a chunked body well, but asks for the next chunk's first line before it hands out what it has, and a
BufferedReader cannot be asked what it holds. Whoever wants the newest picture has to know what has arrived, and must
never wait for what it does not need.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from http.client import HTTPResponse

_AT_ONCE = 1 << 16
_LONGEST_LINE = 4096


class HttpBody:
    """Reads the rest of an answer, of which the headers are read already.

    Args:
        response: Open; belongs to this from now on.
        timeout_s: Silence that `receive` bears.

    Raises:
        ValueError: It has no body.
    """

    def __init__(self, response: HTTPResponse, timeout_s: float) -> None:
        stream = response.fp
        connection = getattr(getattr(stream, "raw", None), "_sock", None)
        if stream is None or not isinstance(connection, socket.socket):
            raise ValueError("the answer is empty")
        self._response = response
        self._stream = stream
        self._socket = connection
        self._timeout_s = timeout_s
        self._chunks = _Chunks() if response.chunked else None

    def receive(self, wait: bool) -> bytes | None:
        """What arrives next, at most 64 KiB.

        Args:
            wait: For the first byte, as long as the timeout.

        Returns:
            It, which is empty where it only says how long a chunk is; None: nothing has arrived that could be had
            without waiting.

        Raises:
            TimeoutError: Silence.
            EOFError: The server has ended it.
            OSError: The connection broke off.
            ValueError: The body is no valid chunked one.
        """
        if self._chunks is not None and self._chunks.ended:
            raise EOFError
        data = self._read(wait)
        return data if data is None or self._chunks is None else self._chunks.decode(data)

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._response.close()

    def _read(self, wait: bool) -> bytes | None:
        self._socket.settimeout(self._timeout_s if wait else 0.0)
        try:
            data = self._stream.read1(_AT_ONCE)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        if data:
            return data
        if not wait:  # silence or the end; the next call that waits finds out
            return None
        raise EOFError


class _Chunks:
    """Takes the chunked transfer coding away (RFC 9112, section 7.1).

    Attributes:
        ended: The last chunk has come.
    """

    def __init__(self) -> None:
        self.ended = False
        self._line = bytearray()
        self._left = 0
        self._border = False  # between a chunk's data and the next line stands an empty one

    def decode(self, data: bytes) -> bytes:
        """The content in what arrived; may be empty.

        Raises:
            ValueError: A chunk's size is no number.
        """
        content = bytearray()
        at = 0
        while at < len(data) and not self.ended:
            if self._left:
                piece = data[at : at + self._left]
                content += piece
                at += len(piece)
                self._left -= len(piece)
                self._border = not self._left
                continue
            end = data.find(b"\n", at)
            self._line += data[at : len(data) if end < 0 else end + 1]
            if len(self._line) > _LONGEST_LINE:
                raise ValueError("the size of a chunk has no end")
            if end < 0:
                break
            at = end + 1
            self._take_line()
        return bytes(content)

    def _take_line(self) -> None:
        line, self._line = bytes(self._line).strip(), bytearray()
        if self._border and not line:
            self._border = False
            return
        size = line.partition(b";")[0].strip()
        if not size or len(size) > 15 or size.strip(b"0123456789abcdefABCDEF"):
            raise ValueError("the size of a chunk is no number")
        self._left = int(size, 16)
        self.ended = not self._left
