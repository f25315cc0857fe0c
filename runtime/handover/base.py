"""What carries messages: the interface of every transport, and the table of those that exist.

A transport is one module that has two functions, each taking a parsed address and giving one end:

    open_outgoing(address) -> Outgoing      open_incoming(address) -> Incoming
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Final, Protocol
from urllib.parse import parse_qsl, urlsplit

from framegate.runtime.errors import UsageError

TRANSPORTS: Final[dict[str, str]] = {
    "udp": "framegate.runtime.handover.udp",
    "multicast": "framegate.runtime.handover.multicast",
    "zenoh": "framegate.runtime.handover.zenoh_peer",
    "ros2": "framegate.runtime.handover.ros2_topic",
    "jsonl": "framegate.runtime.handover.json_lines",
    "local": "framegate.runtime.handover.local",
}
"""Scheme of the address -> module, which is imported when it is asked for. A further transport is a line here."""


class Outgoing(Protocol):
    """The sender's end.

    Attributes:
        name: The address, for people.
        unsent: Messages that could not be sent at once and were dropped.
    """

    name: str
    unsent: int

    def send(self, data: bytes) -> None:
        """Send one message. Never waits and never raises: what cannot be sent now is dropped and counted."""

    def close(self) -> None:
        """Give up what it holds; can be called twice."""


class Incoming(Protocol):
    """The receiver's end.

    Attributes:
        name: The address, for people.
    """

    name: str

    def receive(self, timeout_s: float) -> tuple[bytes, int] | None:
        """The next message and the monotonic time of its arrival in ns; None if none comes in time.

        Args:
            timeout_s: Longest wait in seconds; 0 does not wait.
        """

    def waiting(self) -> Iterator[tuple[bytes, int]]:
        """All messages that wait, without waiting for another one; at most some thousand at a time."""

    def close(self) -> None:
        """Give up what it holds; can be called twice."""


@dataclass(frozen=True, slots=True)
class Address:
    """A transport's address, taken apart.

    Attributes:
        text: As it was given.
        scheme: Before ``://``, in lower case.
        host: Name or number, without brackets; empty if there is none.
        port: None if there is none.
        path: Behind host and port, without the leading slash.
        options: What follows the question mark.
    """

    text: str
    scheme: str
    host: str = ""
    port: int | None = None
    path: str = ""
    options: dict[str, str] = field(default_factory=dict)

    def require_options(self, *known: str) -> None:
        """Refuse options that nobody reads.

        Raises:
            UsageError: There is one that is not known.
        """
        for name in self.options:
            if name not in known:
                expected = f"known are {', '.join(known)}" if known else "it has none"
                raise UsageError(f"{self.text}: there is no option {name!r}; {expected}")


def parse_address(text: str) -> Address:
    """Take an address apart.

    Raises:
        UsageError: It is no address, or its transport does not exist.
    """
    known = ", ".join(f"{scheme}://" for scheme in TRANSPORTS)
    try:
        parts = urlsplit(text)
        port = parts.port
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise UsageError(f"{text!r} is no address ({error}); expected e.g. udp://127.0.0.1:47800") from None
    if "://" not in text or parts.scheme not in TRANSPORTS:
        raise UsageError(f"{text!r}: unknown transport; there are {known}, e.g. udp://127.0.0.1:47800")
    return Address(text, parts.scheme, parts.hostname or "", port, parts.path.lstrip("/"), options)


def _module(address: Address) -> ModuleType:
    return import_module(TRANSPORTS[address.scheme])


def open_outgoing(text: str) -> Outgoing:
    """The sender's end of a transport.

    Args:
        text: Its address, e.g. ``udp://127.0.0.1:47800``.

    Raises:
        UsageError: The address cannot be used, or a package is missing.
        SinkError: The system refuses it.
    """
    address = parse_address(text)
    opened: Outgoing = _module(address).open_outgoing(address)
    return opened


def open_incoming(text: str) -> Incoming:
    """The receiver's end of a transport.

    Args:
        text: Its address, e.g. ``udp://127.0.0.1:47800``.

    Raises:
        UsageError: The address cannot be used, or a package is missing.
        SourceError: The system refuses it, e.g. because the port is in use.
    """
    address = parse_address(text)
    opened: Incoming = _module(address).open_incoming(address)
    return opened
