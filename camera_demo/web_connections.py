"""Which connections the page's server takes, how long they may last, and how much may come through one.

The server shares its process with the pipeline, so that whatever other people's connections make it do is time that the
pipeline lacks, and every open connection is a file that a camera or a recording may lack. uvicorn limits neither: it
waits for the rest of a request for ever. So connections are taken here, at a limited pace, and uvicorn's protocols sit
behind a `Connection` each, which cuts off what is too slow, too long or too much. Who comes too often is refused before
a protocol is made for it. When all places are taken, a new connection takes the place of the oldest one that is not an
open page: who asks and reads as a browser does is done within milliseconds and keeps no place.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Callable
from typing import Any, cast

from framegate.camera_demo.allowance import Allowance

HEADER_S = 5.0
"""Within this a request must be complete: in all, not since its last byte."""
ANSWER_S = 5.0
"""Within this an answer must be read, and the connection be closed."""
CLOSE_S = 2.0
"""A connection that this side has closed is cut off when the other side has not taken what was left by then."""
MOST_CONNECTIONS = 96
"""Open at a time; fewer where the process may open few files."""
MOST_FROM_ONE = 32
"""Of them, from one address (of IPv6: one network of 64 bits)."""
TAKEN_PER_S, TAKEN_AT_ONCE = 50.0, 128.0
"""Connections that are looked at; the others wait in the system's queue."""
SERVED_PER_S, SERVED_AT_ONCE = 25.0, 128.0
"""Of them, those that may ask for something. A page that is loaded needs four."""
SERVED_FROM_ONE_PER_S, SERVED_FROM_ONE_AT_ONCE = 10.0, 64.0
"""Of them, those from one address."""
REQUEST_READS, REQUEST_BYTES = 16, 20 * 1024
"""Pieces and bytes in which a request may arrive."""
UPLOAD = b"POST /own"
"""How the one request begins that may bring a file."""
UPLOAD_READS, UPLOAD_BYTES = 64, 512 * 1024
"""Of such a request, what may arrive until the application says that it takes the file (`Connection.take_file`)."""
STREAM_BYTES_PER_S, STREAM_BYTES_AT_ONCE = 4096.0, 512.0
"""What an open page may send; confirming 120 messages a second takes 1,600 bytes."""

_REMEMBERED = 1024
"""Networks whose pace is known; of more, the one that came longest ago is forgotten."""
_FILES_SHARE = 4  # at most a fourth of the files that the process may open
_PAUSE_S = 0.1  # then some are taken at a time, which costs less than to wake up for each


def most_connections() -> int:
    """`MOST_CONNECTIONS`, or less where the process may open few files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else max(4, min(MOST_CONNECTIONS, soft // _FILES_SHARE))


def network_of(address: str) -> str:
    """What counts as one sender: an IPv4 address, or 64 bits of an IPv6 one (a household has the rest)."""
    try:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    except OSError:
        return address
    if packed[:12] == bytes(10) + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed) if not any(packed[:8]) else packed[:8].hex()


class Connection(asyncio.Protocol):
    """One connection, between its socket and uvicorn's protocol. Belongs to its event loop.

    Args:
        acceptor: Told when it ends.
        network: Of the other side, see `network_of`.
        make_protocol: Makes uvicorn's protocol for it.

    Attributes:
        network: As given.
        stays: Whether it is an open page, which stays as long as its `Viewer` says.
    """

    def __init__(
        self, acceptor: Acceptor, network: str, make_protocol: Callable[[Connection], asyncio.Protocol]
    ) -> None:
        self.network = network
        self.stays = False
        self._acceptor = acceptor
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._answered = self._over = False
        self._reads = self._bytes = 0
        self._most_reads, self._most_bytes = REQUEST_READS, REQUEST_BYTES
        self._takes_file = False
        self._stream = Allowance(STREAM_BYTES_PER_S, STREAM_BYTES_AT_ONCE)

    def stay(self) -> None:
        """From now on it is an open page: no time limit, but another one for what comes in."""
        self.stays = True
        self._set_timer(None)

    def take_file(self, most_bytes: int, seconds: float) -> None:
        """Its request brings a file that is wanted: more bytes, and another time for request and answer together.

        Args:
            most_bytes: Of the file.
            seconds: For all.
        """
        self._takes_file = True
        self._most_reads, self._most_bytes = most_bytes, most_bytes + UPLOAD_BYTES
        self._set_timer(seconds)

    def leave(self) -> None:
        """The page is being closed: it has `CLOSE_S` for that."""
        self.stays = False
        self._set_timer(CLOSE_S)

    def end(self, status: str, why: str) -> None:
        """End it at once. Whoever still waits for an answer gets one, if the system takes it at once.

        Args:
            status: Of HTTP, e.g. ``408 Request Timeout``.
            why: One sentence.
        """
        if not (self._over or self._answered or self._transport.is_closing()):
            self._transport.write(refusal(status, why))
        self.cut()

    def cut(self) -> None:
        """End it without a word."""
        if not self._over:
            self._over = True
            self._set_timer(None)
            self._transport.abort()
            self._acceptor.left(self)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: a request must come in time."""
        self._transport = cast(asyncio.Transport, transport)
        self._set_timer(HEADER_S)
        self.protocol = self._make_protocol(self)
        self.protocol.connection_made(cast(asyncio.Transport, _Watched(self._transport, self)))

    def data_received(self, data: bytes) -> None:
        """Hand it on, unless it is too much."""
        if self._over:
            return
        if self.stays:
            if not self._stream.take(len(data)):
                self.cut()  # before anything of it is parsed
                return
        else:
            if not self._reads and data.startswith(UPLOAD):
                self._most_reads, self._most_bytes = UPLOAD_READS, UPLOAD_BYTES
            self._reads += 1
            self._bytes += len(data)
            if self._reads > self._most_reads or self._bytes > self._most_bytes:
                self.end("413 Content Too Large", f"a request of this page has less than {self._most_bytes} bytes")
                return
        self.protocol.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand it on."""
        return self.protocol.eof_received()

    def pause_writing(self) -> None:
        """Hand it on."""
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        """Hand it on."""
        self.protocol.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it."""
        self._over = True
        self._set_timer(None)
        self._acceptor.left(self)
        self.protocol.connection_lost(error)

    # What its protocol did.

    def wrote(self) -> None:
        """Something was written: the request was complete."""
        if not self._answered:
            self._answered = True
            if not (self.stays or self._takes_file):
                self._set_timer(ANSWER_S)

    def closed(self) -> None:
        """It was closed from here."""
        if not self._over:
            self.leave()

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        self.end("408 Request Timeout", f"no complete request came within {HEADER_S:g} s")


class _Watched:
    """A transport as uvicorn's protocol sees it: one that tells its connection what is done with it."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._connection.wrote()
        self._transport.write(data)

    def close(self) -> None:
        self._transport.close()
        self._connection.closed()

    def set_protocol(self, protocol: asyncio.Protocol) -> None:
        self._connection.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._connection.protocol


class Acceptor:
    """Takes connections, as many and as fast as the limits allow. Belongs to its event loop.

    Args:
        make_protocol: Makes uvicorn's protocol for a connection.
        most: Open at a time; None: `most_connections`.
        from_one: Of them, from one network; None: `MOST_FROM_ONE`, and no more than half of all.
    """

    def __init__(
        self,
        make_protocol: Callable[[Connection], asyncio.Protocol],
        most: int | None = None,
        from_one: int | None = None,
    ) -> None:
        self._make_protocol = make_protocol
        self._most = most_connections() if most is None else most
        self._from_one = min(MOST_FROM_ONE, max(1, self._most // 2)) if from_one is None else from_one
        self._open: dict[Connection, None] = {}  # the oldest first
        self._taken = Allowance(TAKEN_PER_S, TAKEN_AT_ONCE)
        self._served = Allowance(SERVED_PER_S, SERVED_AT_ONCE)
        self._served_from: dict[str, Allowance] = {}  # who came last stands last

    def __len__(self) -> int:
        return len(self._open)

    async def serve(self, listener: socket.socket) -> None:
        """Take connections until cancelled.

        Args:
            listener: Listens; becomes non-blocking.
        """
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            if not self._taken.take():
                await asyncio.sleep(_PAUSE_S)
                continue
            try:
                taken, address = await loop.sock_accept(listener)
            except OSError:  # it went away before it was taken, or the process may open no more files
                await asyncio.sleep(_PAUSE_S)
                continue
            await self._take(taken, network_of(address[0]))

    def left(self, connection: Connection) -> None:
        """A connection has ended; may be said twice."""
        self._open.pop(connection, None)

    def end_all(self) -> None:
        """Cut off whoever is still there."""
        for connection in list(self._open):
            connection.end("503 Service Unavailable", "the demo has ended")

    async def _take(self, taken: socket.socket, network: str) -> None:
        why = self._refused(network)
        if why:
            with contextlib.suppress(OSError):
                taken.send(refusal("503 Service Unavailable", why))
            taken.close()
            return
        connection = Connection(self, network, self._make_protocol)
        self._open[connection] = None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, taken)
        except OSError:
            self.left(connection)
            taken.close()

    def _refused(self, network: str) -> str:
        """Why a connection is not served, or an empty string."""
        own = self._served_from.pop(network, None) or Allowance(SERVED_FROM_ONE_PER_S, SERVED_FROM_ONE_AT_ONCE)
        self._served_from[network] = own
        if len(self._served_from) > _REMEMBERED:
            del self._served_from[next(iter(self._served_from))]
        if not (own.take() and self._served.take()):
            return "too many connections in a short time; try again"
        return "" if self._has_place(network) else "all connections are taken; close another page"

    def _has_place(self, network: str) -> bool:
        """Whether there is a place, perhaps that of the oldest one that is no open page."""
        candidates = [each for each in self._open if each.network == network]
        if len(candidates) < self._from_one:
            candidates = list(self._open)
            if len(candidates) < self._most:
                return True
        oldest = next((each for each in candidates if not each.stays), None)
        if oldest is None:
            return False
        oldest.end("503 Service Unavailable", "too many connections at a time; try again")
        return True


def refusal(status: str, why: str) -> bytes:
    """A whole answer of HTTP, after which the connection is closed."""
    text = f"framegate demo: {why}\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(text)}\r\n"
    return f"{head}Connection: close\r\n\r\n{text}".encode()
