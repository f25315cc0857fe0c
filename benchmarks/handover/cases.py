"""The faults of the campaign: each takes a `Bench`, does harm, and says what it was."""

from __future__ import annotations

import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from framegate.benchmarks.handover.rig import MS, Camera, Consumer, Damage, Link, config_for, listening, untouched
from framegate.runtime.handover import VerdictMessage
from framegate.runtime.handover.message import ACCEPT, decode, encode

DATA_ID = 0x101
FAULT_S = 1.0
"""How long a fault lasts."""
Changed = Callable[[VerdictMessage], VerdictMessage]


class Bench:
    """A camera, a link and a consumer, and the times of a fault.

    Args:
        keyed: Whether messages are authenticated.
        transport: Carries them: ``udp``, ``zenoh`` or ``ros2``.
    """

    consumer_of: type[Consumer] = Consumer
    camera_options: tuple[str, ...] = ()

    def __init__(self, keyed: bool = False, transport: str = "udp") -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._options: tuple[str, ...] = ("--fps", "20", "--deadline-ms", "300", *self.camera_options)
        key = b""
        if keyed:
            path, key = Path(self._folder.name) / "key", bytes(range(32))
            path.touch(0o600)
            path.write_text(key.hex())
            self._options += ("--key", str(path))
        incoming, address = listening(transport, "consumer")
        self.link = Link(address, transport)
        self.consumer = self.consumer_of(incoming, config_for(DATA_ID, key=key), self.link.genuine)
        self.random = random.Random(1)
        self.cameras: list[Camera] = []
        self.began_ns = self.ended_ns = 0
        self.start()

    def start(self, *options: str) -> Camera:
        """Start one more camera process."""
        camera = Camera(self.link.address, DATA_ID, *self._options, *options)
        self.cameras.append(camera)
        return camera

    def fault(self) -> None:
        """From now on: the fault."""
        self.consumer.begin()
        self.began_ns = time.monotonic_ns()

    def damage(self, damage: Damage, seconds: float = FAULT_S) -> None:
        """Let the link do damage for a while."""
        self.fault()
        self.link.damage = damage
        time.sleep(seconds)
        self.link.damage = untouched
        self.over()

    def over(self) -> None:
        """From now on it should recover."""
        self.ended_ns = time.monotonic_ns()

    def rewrite(self, change: Changed) -> Damage:
        """Damage that changes what a message says and makes its CRC anew, as somebody without the key could."""

        def damage(data: bytes) -> Iterable[tuple[float, bytes]]:
            envelope, said = decode(data)
            return ((0.0, encode(change(said), envelope.counter, envelope.data_id)),)

        return damage

    def reset(self) -> None:
        """Be as new, with the camera that runs."""
        self.link.damage = untouched
        self.consumer.pause_s = 0.0
        self.consumer.allowed = lambda _: True
        self.consumer.receiver.restart()

    def close(self) -> None:
        """End everything."""
        for camera in self.cameras:
            camera.kill()
        self.consumer.close()
        self.link.close()
        self._folder.cleanup()


def killed(bench: Bench) -> None:
    """``kill -9`` of the camera process; later it is started again."""
    bench.fault()
    bench.cameras[0].signal(signal.SIGKILL)
    time.sleep(FAULT_S)
    bench.start()
    bench.over()


def stopped(bench: Bench) -> None:
    """``SIGSTOP`` of the camera process, then ``SIGCONT``."""
    bench.fault()
    bench.cameras[0].signal(signal.SIGSTOP)
    time.sleep(FAULT_S)
    bench.cameras[0].signal(signal.SIGCONT)
    bench.over()


def restarted(bench: Bench) -> None:
    """``kill -9`` of the camera process, and at once another one in its place: a new epoch."""
    second = bench.start("--held")
    bench.fault()
    bench.cameras[0].signal(signal.SIGKILL)
    second.tell("begin")
    bench.over()


def hung_engine(bench: Bench) -> None:
    """The engine does not answer any more."""
    bench.fault()
    bench.cameras[0].tell("hang")
    time.sleep(FAULT_S)
    bench.cameras[0].tell("go")
    bench.over()


def unplugged(bench: Bench) -> None:
    """The camera gives no frame any more."""
    bench.fault()
    bench.cameras[0].tell("unplug")
    time.sleep(FAULT_S)
    bench.cameras[0].tell("plug")
    bench.over()


def clock_forward(bench: Bench) -> None:
    """The sender's clock is an hour ahead."""
    bench.damage(bench.rewrite(_shifted(3600 * 1000 * MS)))


def clock_back(bench: Bench) -> None:
    """The sender's clock is an hour behind."""
    bench.damage(bench.rewrite(_shifted(-3600 * 1000 * MS)))


def _shifted(by: int) -> Changed:
    def change(said: VerdictMessage) -> VerdictMessage:
        times = ("captured_ns", "decided_ns", "valid_until_ns", "sent_ns")
        return said._replace(**{name: max(getattr(said, name) + by, 0) for name in times})

    return change


def slow_consumer(bench: Bench) -> None:
    """The consumer takes one message every 0.3 s, so that it falls ever further behind."""
    bench.fault()
    bench.consumer.pause_s = 0.3
    time.sleep(2 * FAULT_S)
    bench.consumer.pause_s = 0.0
    bench.over()


def bit_flips(bench: Bench) -> None:
    """One bit of every message is flipped, at every position in turn."""
    positions = iter(range(10**9))

    def damage(data: bytes) -> Iterable[tuple[float, bytes]]:
        bit = next(positions) * 7 % (8 * len(data))
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        return ((0.0, bytes(changed)),)

    bench.damage(damage)


def truncation(bench: Bench) -> None:
    """Every message is cut off somewhere."""
    bench.damage(lambda data: ((0.0, data[: bench.random.randrange(len(data))]),))


def duplication(bench: Bench) -> None:
    """Every message comes twice."""
    bench.damage(lambda data: ((0.0, data), (0.0, data)))


def reordering(bench: Bench) -> None:
    """Every second message takes 60 ms longer than the one behind it."""
    turns = iter(range(10**9))
    bench.damage(lambda data: ((0.06 * (next(turns) % 2), data),))


def delay(bench: Bench) -> None:
    """Every message takes 300 ms."""
    bench.damage(lambda data: ((0.3, data),))


def cut_link(bench: Bench) -> None:
    """Nothing comes through."""
    bench.damage(lambda _: ())


def replay_of_a_recording(bench: Bench) -> None:
    """The last two seconds of messages are sent again, in place of the sender's."""
    time.sleep(2.0)
    old = bench.link.passed[-50:]
    again = iter(old * 100)
    bench.damage(lambda _: ((0.0, next(again)),))


def replay_beside(bench: Bench) -> None:
    """The same beside the sender's messages."""
    time.sleep(2.0)
    old = bench.link.passed[-50:]
    again = iter(old * 100)
    bench.damage(lambda data: ((0.0, data), (0.0, next(again))))


def two_senders(bench: Bench) -> None:
    """A second camera process sends under the same data id; the consumer is then told to start anew."""
    first = {epoch for _, epoch, _ in list(bench.link.genuine)}
    bench.consumer.allowed = lambda message: message.epoch in first
    second = bench.start("--held")
    bench.fault()
    second.tell("begin")
    time.sleep(FAULT_S)
    second.kill()
    bench.cameras.remove(second)
    bench.over()
    bench.consumer.receiver.restart()


def foreign_bundle(bench: Bench) -> None:
    """A camera process with another bundle takes over; then the right one comes back."""
    expected = next(iter(bench.link.genuine.values())).bundle
    bench.consumer.allowed = lambda message: message.bundle == expected
    bench.fault()
    bench.cameras[0].signal(signal.SIGKILL)
    foreign = bench.start("--bundle", "hybrid-gtsrb")
    time.sleep(FAULT_S)
    foreign.kill()
    bench.cameras.remove(foreign)
    bench.start()
    bench.over()


def forged(bench: Bench) -> None:
    """Somebody without the key turns verdicts into another class and makes the CRC anew."""
    bench.damage(bench.rewrite(lambda said: said._replace(class_id=(said.class_id + 1) % 10)))


def forged_with_code(bench: Bench) -> None:
    """The same, and keeps the old authentication code."""

    def damage(data: bytes) -> Iterable[tuple[float, bytes]]:
        envelope, said = decode(data)
        other = encode(said._replace(class_id=0), envelope.counter, envelope.data_id, b"another key, 16 bytes or more")
        return ((0.0, other),)

    bench.damage(damage)


def flood(bench: Bench) -> None:
    """A stranger sends as fast as it can: noise, and ACCEPT under another data id."""
    stop = threading.Event()

    def shout() -> None:
        noise = bytearray(144)
        noise[1] = len(noise)  # the right length, so that the CRC must find it
        _, said = decode(bench.link.passed[-1])
        alien = encode(said._replace(accepted=True), 1, DATA_ID + 1)
        assert alien[18] == ACCEPT
        while not stop.is_set():
            for _ in range(100):
                bench.link.inject(bytes(noise))
                bench.link.inject(alien)
            time.sleep(0)

    thread = threading.Thread(target=shout)
    bench.fault()
    thread.start()
    time.sleep(FAULT_S)
    stop.set()
    thread.join()
    bench.over()


def loss(percent: int) -> Callable[[Bench], None]:
    """A case that loses messages by chance."""

    def case(bench: Bench) -> None:
        bench.damage(lambda data: ((0.0, data),) if bench.random.random() * 100 >= percent else (), 5.0)

    case.__doc__ = f"{percent} % of the messages are lost, by chance, for 5 s."
    return case


CASES: dict[str, Callable[[Bench], None]] = {
    "kill -9": killed,
    "SIGSTOP": stopped,
    "restart": restarted,
    "hung engine": hung_engine,
    "camera unplugged": unplugged,
    "clock ahead": clock_forward,
    "clock behind": clock_back,
    "slow consumer": slow_consumer,
    "bit flips": bit_flips,
    "truncation": truncation,
    "duplication": duplication,
    "reordering": reordering,
    "delay": delay,
    "cut link": cut_link,
    "replay": replay_of_a_recording,
    "replay beside the sender": replay_beside,
    "two senders": two_senders,
    "foreign bundle": foreign_bundle,
    "forged": forged,
    "forged with a code": forged_with_code,
    "1 % loss": loss(1),
    "10 % loss": loss(10),
    "50 % loss": loss(50),
    "flood": flood,
}
KEYED = frozenset(("forged", "forged with a code"))
ENDS_CAMERA = frozenset(("kill -9", "restart", "two senders", "foreign bundle"))
"""Faults after which another camera process is the sender, or none."""
STAYS_OPEN = frozenset(("1 % loss", "restart"))
"""Faults that need not close the receiver."""
