"""A sender, a link that does damage, a receiver, and somebody who looks whether anything is usable that must not be.

camera process --transport--> Link (damage) --transport--> Consumer: Receiver, asked every millisecond
"""

from __future__ import annotations

import heapq
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from framegate.runtime.handover import (
    ObjectsReceiver,
    Receiver,
    ReceiverConfig,
    VerdictMessage,
    open_incoming,
    open_outgoing,
    this_clock,
)
from framegate.runtime.handover.base import Incoming
from framegate.runtime.handover.message import decode
from framegate.runtime.handover.udp import UdpIncoming

MS = 1_000_000
PATIENCE_S = 60.0
_NUMBERS = itertools.count()
Damage = Callable[[bytes], Iterable[tuple[float, bytes]]]
"""Takes a message and gives what arrives in its place: (delay in seconds, bytes), none, one or many."""


Genuine = dict[tuple[int, int, int], VerdictMessage]
"""(data id, epoch, frame id) -> what a sender really said."""


def untouched(data: bytes) -> Iterable[tuple[float, bytes]]:
    """No damage."""
    return ((0.0, data),)


def listening(transport: str, name: str) -> tuple[Incoming, str]:
    """A receiver's end that nobody else has, and its address.

    Args:
        transport: ``udp``, ``zenoh`` or ``ros2``.
        name: Of the end, for those that have names.
    """
    if transport != "udp":
        address = f"{transport}://faults{os.getpid()}n{next(_NUMBERS)}/{name}"
        return open_incoming(address), address
    incoming = open_incoming("udp://127.0.0.1:0")
    assert isinstance(incoming, UdpIncoming)
    return incoming, f"udp://127.0.0.1:{incoming.port}"


class Link:
    """Carries messages from one address to another and does damage on the way.

    Args:
        target: Where messages go.
        transport: They come over.

    Attributes:
        address: Where it listens.
        damage: What is done now.
        genuine: (data id, epoch, frame id) -> what the senders really said.
        passed: Every message that came in, in order.
    """

    def __init__(self, target: str, transport: str = "udp") -> None:
        self._incoming, self.address = listening(transport, "link")
        self._outgoing = open_outgoing(target)
        self.damage: Damage = untouched
        self.genuine: Genuine = {}
        self.passed: list[bytes] = []
        self._stopped = threading.Event()
        self._late: list[tuple[float, int, bytes]] = []
        self._thread = threading.Thread(target=self._carry, name="link", daemon=True)
        self._thread.start()

    def inject(self, data: bytes) -> None:
        """Send something that no sender sent."""
        self._outgoing.send(data)

    def close(self) -> None:
        """Stop."""
        self._stopped.set()
        self._thread.join()
        self._incoming.close()
        self._outgoing.close()

    def _carry(self) -> None:
        number = itertools.count()
        while not self._stopped.is_set():
            now = time.monotonic()
            while self._late and self._late[0][0] <= now:
                self._outgoing.send(heapq.heappop(self._late)[2])
            received = self._incoming.receive(min(0.02, self._late[0][0] - now if self._late else 0.02))
            if received is None:
                continue
            data = received[0]
            envelope, said = decode(data)
            self.genuine[envelope.data_id, said.epoch, said.frame_id] = said
            self.passed.append(data)
            for delay, changed in self.damage(data):
                if delay > 0:
                    heapq.heappush(self._late, (time.monotonic() + delay, next(number), changed))
                else:
                    self._outgoing.send(changed)


class Camera:
    """A camera process; see `framegate.benchmarks.handover.camera_process`."""

    def __init__(self, to: str, data_id: int, *options: str) -> None:
        command = [sys.executable, "-m", "framegate.benchmarks.handover.camera_process", to, "--data-id", str(data_id)]
        self.process = subprocess.Popen(
            [*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"the camera process did not start: {' '.join(self.process.args)}")  # type: ignore[arg-type]

    def tell(self, word: str) -> None:
        """Let it misbehave."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@dataclass
class Watched:
    """What a consumer read while somebody watched.

    Attributes:
        read: Readings.
        usable: Usable ones among them.
        unsafe: Usable ones that must not have been.
        first_closed_ns: When the first reading was not usable; 0 if none was.
        examples: Of unsafe readings, for people.
    """

    read: int = 0
    usable: int = 0
    unsafe: int = 0
    first_closed_ns: int = 0
    examples: list[str] = field(default_factory=list)


class Consumer:
    """Feeds a receiver in one thread, and asks it every millisecond in another.

    A usable reading must hold what a sender really said (`Link.genuine`), word by word, an ACCEPT that has not ended
    by the sender's own clock, and what the case allows besides.

    Attributes:
        receiver: The receiver.
        allowed: What the case allows: takes the message, and is asked at the time of reading.
        pause_s: How long the feeding thread sleeps before every look: a slow consumer.
    """

    def __init__(self, incoming: Incoming, config: ReceiverConfig, genuine: Genuine | None) -> None:
        self.receiver: Receiver | ObjectsReceiver = self._receiver(config)
        self._data_id = config.data_id
        self.allowed: Callable[[VerdictMessage], bool] = lambda _: True
        self.pause_s = 0.0
        self.watched = Watched()
        self._genuine = genuine
        self._incoming = incoming
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._feed, self._ask)]
        for thread in self._threads:
            thread.start()

    def _receiver(self, config: ReceiverConfig) -> Receiver | ObjectsReceiver:
        return Receiver(config)

    def ready(self) -> bool:
        """Whether everything that a reading can say may be used now."""
        return bool(self.receiver.verdict())

    def begin(self) -> None:
        """Count anew."""
        self.watched = Watched()

    def wait_until_usable(self, within_s: float = PATIENCE_S) -> float:
        """Seconds until a reading is usable; infinite if none is in time."""
        begun = time.monotonic()
        while not self.ready():
            if time.monotonic() - begun > within_s:
                return float("inf")
            time.sleep(0.001)
        return time.monotonic() - begun

    def close(self) -> None:
        """Stop."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._incoming.close()

    def _feed(self) -> None:
        while not self._stopped.is_set():
            if self.pause_s:
                time.sleep(self.pause_s)
            received = self._incoming.receive(0.05)
            if received is not None:
                self.receiver.feed(*received)

    def _ask(self) -> None:
        while not self._stopped.is_set():
            reading, now = self.receiver.verdict(), time.monotonic_ns()
            watched = self.watched
            watched.read += 1
            if reading:
                watched.usable += 1
            elif not watched.first_closed_ns:
                watched.first_closed_ns = now
            problem = self._look(reading, now)
            if problem:
                watched.unsafe += 1
                watched.examples.append(problem)
            time.sleep(0.001)

    def _look(self, reading: Any, now: int) -> str:
        """Why what a reading lets one use must not have been; empty if it may."""
        return self._problem(self._data_id, reading.message, now) if reading.usable else ""

    def _problem(self, data_id: int, message: VerdictMessage, now: int) -> str:
        """Why a usable message must not have been; empty if it may."""
        said = message if self._genuine is None else self._genuine.get((data_id, message.epoch, message.frame_id))
        if said is None or repr(said) != repr(message):
            return f"nobody said {message}"
        # The clock is read after the verdict: a millisecond between the two is the watcher's own.
        if not (said.accepted and now <= min(said.valid_until_ns, said.captured_ns + 500 * MS) + MS):
            return f"REJECT, or {(now - said.valid_until_ns) / MS:.1f} ms after its end: {message}"
        return "" if self.allowed(message) else f"not allowed by the case: {message}"


def config_for(data_id: int, **changes: Any) -> ReceiverConfig:
    """What the campaign's receivers expect: the defaults, on one machine."""
    return ReceiverConfig(data_id=data_id, clock_domain=this_clock(), **changes)
