"""UDP: one datagram, one message. No daemon, no connection, and any microcontroller can read it.

udp://HOST:PORT      the sender sends there; the receiver listens on that address, and on no other
"""

from __future__ import annotations

import ipaddress
import select
import socket
import time
from collections.abc import Iterator, Sequence

from framegate.runtime.errors import FramegateError, SinkError, SourceError, UsageError
from framegate.runtime.handover.base import Address

LARGEST = 2048
"""Bytes read of a datagram: more than any message has, so that a longer one is seen to be longer."""
_MOST_WAITING = 4096
_BUFFER = 1 << 20
_LONGEST_MS = 2**31 - 1
"""The system waits no longer at once: 24 days."""


class UdpOutgoing:
    """Sends datagrams to one address.

    Args:
        family: Of the address.
        target: Where to.
        name: For people.
        settings: Level, option and value of what is set before the first message.
        source: Address of this machine to send from; empty lets the system choose, for every message.

    Raises:
        OSError: The system refuses a setting.
    """

    def __init__(
        self,
        family: int,
        target: tuple[object, ...],
        name: str,
        settings: Sequence[tuple[int, int, int | bytes]] = (),
        source: str = "",
    ) -> None:
        self.name = name
        self.unsent = 0
        # Not connected: a receiver that is not there yet, or not any more, is no error of the sender.
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._target = target
        try:
            for setting in settings:
                self._socket.setsockopt(*setting)
            if source:  # a socket that is bound to nothing could be sent to from everywhere
                self._socket.bind((source, 0))
        except OSError:
            self._socket.close()
            raise

    def send(self, data: bytes) -> None:
        """Send one datagram; what the system does not take at once is dropped and counted."""
        try:
            self._socket.sendto(data, self._target)
        except OSError:
            self.unsent += 1

    def close(self) -> None:
        """Close the socket; can be called twice."""
        self._socket.close()


class UdpIncoming:
    """Receives the datagrams of one address.

    Args:
        opened: A bound socket.
        name: For people.
    """

    def __init__(self, opened: socket.socket, name: str) -> None:
        self.name = name
        self._socket = opened
        self._socket.setblocking(False)
        # Not SO_RCVTIMEO: interrupted by a signal, Python begins that wait anew, so that a timer of the program that
        # comes more often than the timeout ends would make a receiver wait for as long as its sender is silent.
        self._coming = select.poll()
        self._coming.register(opened, select.POLLIN)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._socket.getsockname()[1])

    def receive(self, timeout_s: float) -> tuple[bytes, int] | None:
        """The next datagram and when it was read; None if none comes in time."""
        try:
            if timeout_s > 0 and not self._coming.poll(min(timeout_s * 1e3, _LONGEST_MS)):
                return None
            data = self._socket.recv(LARGEST)
        except OSError:  # nothing there, or what the network said about an earlier datagram
            return None
        return data, time.monotonic_ns()

    def waiting(self) -> Iterator[tuple[bytes, int]]:
        """All datagrams that wait, the oldest first."""
        for _ in range(_MOST_WAITING):
            received = self.receive(0)
            if received is None:
                return
            yield received

    def close(self) -> None:
        """Close the socket; can be called twice."""
        self._socket.close()


def _resolved(address: Address, error: type[FramegateError]) -> tuple[int, tuple[object, ...]]:
    address.require_options()
    if not address.host or address.port is None or address.path:
        raise UsageError(f"{address.text}: expected a host and a port, e.g. udp://127.0.0.1:47800")
    try:
        family, _, _, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[0]
    except (OSError, UnicodeError) as problem:  # a name with an empty label is no Unicode error to a user
        why = getattr(problem, "strerror", None) or "no host can have this name"
        raise error(f"{address.text}: the host {address.host!r} is not known here ({why})") from None
    if ipaddress.ip_address(str(target[0]).partition("%")[0]).is_multicast:
        raise UsageError(f"{address.text}: {address.host} is a multicast group; use multicast:// for it")
    return family, target


def open_outgoing(address: Address) -> UdpOutgoing:
    """A sender to one address.

    Raises:
        UsageError: The address has no host or port.
        SinkError: The host is not known.
    """
    family, target = _resolved(address, SinkError)
    if address.port == 0:
        raise UsageError(f"{address.text}: port 0 is no port to send to; expected 1 to 65535")
    host = str(target[0])
    source = host if ipaddress.ip_address(host.partition("%")[0]).is_loopback else ""
    return UdpOutgoing(family, target, address.text, source=source)


def open_incoming(address: Address) -> UdpIncoming:
    """A receiver on one address; port 0 takes a free one.

    Raises:
        UsageError: The address has no host or port.
        SourceError: The port is in use, or no interface of this machine has the address.
    """
    family, target = _resolved(address, SourceError)
    opened = socket.socket(family, socket.SOCK_DGRAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        opened.bind(target)
    except OSError as problem:
        opened.close()
        raise SourceError(
            f"{address.text}: cannot listen there ({problem.strerror}); is another receiver running, and has this "
            "machine that address?"
        ) from None
    return UdpIncoming(opened, address.text)
