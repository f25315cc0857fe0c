"""In process: a sender and receivers of one process that know the same name, ``local://NAME``."""

from __future__ import annotations

import threading

from framegate.runtime.errors import UsageError
from framegate.runtime.handover.base import Address
from framegate.runtime.handover.inbox import Inbox

_lock = threading.Lock()
_receivers: dict[str, tuple[LocalIncoming, ...]] = {}


class LocalOutgoing:
    """Hands messages to every receiver of its name.

    Args:
        key: The name.
    """

    def __init__(self, key: str) -> None:
        self.name = f"local://{key}"
        self.unsent = 0
        self._key = key
        self._closed = False

    def send(self, data: bytes) -> None:
        """Hand one message over; without a receiver it is counted as not sent."""
        receivers = () if self._closed else _receivers.get(self._key, ())
        if not receivers:
            self.unsent += 1
        for receiver in receivers:
            receiver.put(data)

    def close(self) -> None:
        """Send no more; can be called twice."""
        self._closed = True


class LocalIncoming(Inbox):
    """Takes the messages of its name.

    Args:
        key: The name.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"local://{key}")
        self._key = key
        with _lock:
            _receivers[key] = (*_receivers.get(key, ()), self)

    def close(self) -> None:
        """Take no more; can be called twice."""
        with _lock:
            left = tuple(each for each in _receivers.get(self._key, ()) if each is not self)
            if left:
                _receivers[self._key] = left
            else:
                _receivers.pop(self._key, None)


def _key(address: Address) -> str:
    address.require_options()
    if not address.host or address.port is not None or address.path:
        raise UsageError(f"{address.text}: expected local://NAME")
    return address.host


def open_outgoing(address: Address) -> LocalOutgoing:
    """A sender to the receivers of a name.

    Raises:
        UsageError: There is no name.
    """
    return LocalOutgoing(_key(address))


def open_incoming(address: Address) -> LocalIncoming:
    """A receiver of a name.

    Raises:
        UsageError: There is no name.
    """
    return LocalIncoming(_key(address))
