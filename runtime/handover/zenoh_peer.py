"""Zenoh (https://zenoh.io): peer to peer on one machine, over routers and TLS across machines.

zenoh://KEY/EXPRESSION?config=FILE&connect=ENDPOINT&listen=ENDPOINT      e.g. zenoh://car/front

Without options both ends are peers that find each other on loopback, and nothing leaves the machine. A configuration
file of Zenoh (JSON5) says everything itself; docs/transports.md has one for mutual TLS.
"""

from __future__ import annotations

import importlib.util
import json
import os
from typing import TYPE_CHECKING, Any, Final

from framegate.runtime.errors import FramegateError, SinkError, SourceError, UsageError
from framegate.runtime.handover.base import Address
from framegate.runtime.handover.inbox import Inbox

if TYPE_CHECKING:
    import zenoh

_LOOPBACK: Final[dict[str, object]] = {
    "mode": "peer",
    "listen/endpoints": ["tcp/127.0.0.1:0"],
    "scouting/multicast/interface": "lo",
    "transport/shared_memory/enabled": False,  # nothing for 144 bytes, and every session would leave a file open
    "transport/link/tx/queue/size/real_time": 16,  # batches; with 2, which is usual, a busy machine drops messages
}


class ZenohOutgoing:
    """Publishes messages; what the network does not take at once is dropped by Zenoh.

    Args:
        session: Closed at the end.
        key: The key expression.
        name: For people.
    """

    def __init__(self, session: zenoh.Session, key: str, name: str) -> None:
        import zenoh

        self.name = name
        self.unsent = 0
        self._session = session
        self._publisher = session.declare_publisher(
            key,
            congestion_control=zenoh.CongestionControl.DROP,  # never wait for a slow receiver
            priority=zenoh.Priority.REAL_TIME,
            express=True,  # no batching: each message goes out at once
            reliability=zenoh.Reliability.BEST_EFFORT,
        )
        self._closed = False

    def send(self, data: bytes) -> None:
        """Publish one message."""
        try:
            self._publisher.put(data)
        except Exception:  # noqa: BLE001 - whatever Zenoh says, the sender goes on, and the receiver sees a gap
            self.unsent += 1

    def close(self) -> None:
        """Leave the network; can be called twice."""
        if not self._closed:
            self._closed = True
            self._session.close()  # type: ignore[no-untyped-call]


class ZenohIncoming(Inbox):
    """Takes what is published under a key.

    Args:
        session: Closed at the end.
        key: The key expression.
        name: For people.
    """

    def __init__(self, session: zenoh.Session, key: str, name: str) -> None:
        import zenoh

        super().__init__(name)
        self._session = session

        def came(sample: zenoh.Sample) -> None:
            self.put(sample.payload.to_bytes())

        # Called by Zenoh's own thread. Otherwise the package starts one of Python's for it, which is one more to wake
        # up for each message, and which keeps a process from ending as long as the session is open.
        self._subscriber = session.declare_subscriber(key, zenoh.handlers.Callback(came, indirect=False))
        self._closed = False

    def close(self) -> None:
        """Leave the network; can be called twice."""
        if not self._closed:
            self._closed = True
            self._session.close()  # type: ignore[no-untyped-call]


def _open(address: Address, error: type[FramegateError]) -> tuple[zenoh.Session, str]:
    """A session and the key expression of an address.

    Raises:
        UsageError: The package is missing, or the address or an option cannot be used.
        FramegateError: Of the given kind; Zenoh cannot open it.
    """
    if importlib.util.find_spec("zenoh") is None:
        raise UsageError(
            f"{address.text}: the package 'eclipse-zenoh' is not installed; pip install 'framegate[zenoh]'"
        )
    import zenoh

    address.require_options("config", "connect", "listen")
    # Taken from the text: a host name would be turned into lower case.
    text = address.text.partition("://")[2].partition("?")[0].strip("/")
    try:
        key = str(zenoh.KeyExpr(text))
    except Exception as problem:  # noqa: BLE001 - what Zenoh raises is not said anywhere
        raise UsageError(
            f"{address.text}: {text!r} is no key expression of Zenoh ({_short(problem)}); e.g. zenoh://car/front"
        ) from None
    config = _config(address)
    try:
        return zenoh.open(config), key
    except Exception as problem:  # noqa: BLE001
        raise error(f"{address.text}: Zenoh cannot open it ({_short(problem)})") from None


def _config(address: Address) -> Any:
    import zenoh

    options = address.options
    if path := options.get("config"):
        if not os.access(path, os.R_OK):
            raise UsageError(f"{address.text}: the configuration {path} cannot be read; give a file of Zenoh (JSON5)")
        try:
            config = zenoh.Config.from_file(path)
        except Exception as problem:  # noqa: BLE001
            raise UsageError(f"{address.text}: {path} is no configuration of Zenoh ({_short(problem)})") from None
        _require_files(address, config)
        settings: dict[str, object] = {}
    else:
        config, settings = loopback_config(), {}
    for option in ("connect", "listen"):
        if option in options:
            settings[f"{option}/endpoints"] = [options[option]]
    for where, value in settings.items():
        try:
            config.insert_json5(where, json.dumps(value))
        except Exception as problem:  # noqa: BLE001
            raise UsageError(
                f"{address.text}: {value} cannot be used ({_short(problem)}), e.g. tcp/10.0.0.1:7447"
            ) from None
    return config


def loopback_config() -> zenoh.Config:
    """A peer that finds others on loopback and listens nowhere else."""
    import zenoh

    config = zenoh.Config()
    for where, value in _LOOPBACK.items():
        config.insert_json5(where, json.dumps(value))
    return config


def _require_files(address: Address, config: Any) -> None:
    """Refuse a configuration whose certificates or keys cannot be read: Zenoh would go on trying and say nothing.

    Raises:
        UsageError: One of them cannot be.
    """
    for name, path in (json.loads(config.get_json("transport/link/tls")) or {}).items():
        is_file = name.endswith(("_certificate", "_private_key"))
        if is_file and isinstance(path, str) and not os.access(path, os.R_OK):
            raise UsageError(
                f"{address.text}: {name} of the configuration is {path}, which cannot be read; paths are "
                "taken from the current folder"
            )


def _short(problem: Exception) -> str:
    """What Zenoh says, in one line and without the place in its source."""
    return " ".join(str(problem).split()).partition(" at /")[0]


def open_outgoing(address: Address) -> ZenohOutgoing:
    """A publisher.

    Raises:
        UsageError: The package is missing, or the address or an option cannot be used.
        SinkError: Zenoh cannot open it.
    """
    session, key = _open(address, SinkError)
    return ZenohOutgoing(session, key, address.text)


def open_incoming(address: Address) -> ZenohIncoming:
    """A subscriber.

    Raises:
        UsageError: The package is missing, or the address or an option cannot be used.
        SourceError: Zenoh cannot open it.
    """
    session, key = _open(address, SourceError)
    return ZenohIncoming(session, key, address.text)
