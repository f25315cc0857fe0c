"""Frames with moving objects as messages, made in a time of their own; and drives with them over a bad line."""

from __future__ import annotations

import random

from handover_tape import config_line

from framegate.runtime.frame_result import FrameResult
from framegate.runtime.handover import Identity, ObjectsReceiver, ReceiverConfig, this_clock
from framegate.runtime.handover.object_sender import ObjectSender
from framegate.runtime.handover.reading import MS
from framegate.runtime.verdict import FoundObject, Prediction, Reason

ID, SLOTS, FRAME = 0x200, 3, 33 * MS
VALID = 88 * MS
"""So long after its sending a message's verdict ends."""
LABELS = ("car", "bus")
IDENTITY = Identity(LABELS, b"bundle-1", b"calibr-1")
NUMBERS = {"confidence": 0.9, "entropy": 0.1, "margin": 0.8, "energy": -1.0, "score": 0.1, "threshold": 0.3}


class Wire:
    """A transport that keeps what it is given."""

    name, unsent = "wire", 0

    def __init__(self):
        self.sent: list[bytes] = []

    def send(self, data):
        self.sent.append(data)

    def close(self):
        pass


class Clocked(ObjectSender):
    """A sender in a time that the test makes."""

    now_ns = 0

    def _now(self, stream):
        return max(self.now_ns, stream.sent_ns + 1)


class World:
    """A camera of 30 frames a second with objects, its sender, and a receiver of them."""

    def __init__(self, slots=SLOTS, regions=(), **config):
        self.now, self.frame_id = 1000 * MS, -1
        self.wire = Wire()
        self.config = {"data_id": ID, "clock_domain": this_clock(), **config}
        data_id = self.config["data_id"]
        self.sender = Clocked([self.wire], data_id, slots, IDENTITY, regions=regions, heartbeat_s=None)
        self.receiver = ObjectsReceiver(ReceiverConfig(**self.config), slots, LABELS)

    def judged(self, stream, label, reasons=(), track=None):
        times = {"captured_ns": self.now - 12 * MS, "decided_ns": self.now - 2 * MS}
        found = FoundObject((0, 0, 9, 9), track=track)
        end = self.now + VALID
        return Prediction(self.frame_id, stream, reasons, label, **NUMBERS, **times, valid_until_ns=end, found=found)

    def frame(self, objects, scene=(), left_out=None, fixed=(), unknown=0):
        """The messages about the next frame: track -> label, or the reason why it was rejected."""
        self.now += FRAME
        self.frame_id += 1
        predictions = [
            self.judged(
                f"track-{track}", "car" if isinstance(said, Reason) else said, (said,) * isinstance(said, Reason), track
            )
            for track, said in objects.items()
        ]
        predictions += [self.judged(name, "car") for name in fixed]
        predictions += [self.judged(f"object-{place}", "car") for place in range(unknown)]
        whole = self.judged("frame", "", scene)
        return self.messages(FrameResult(tuple(predictions), None, "", whole, left_out or {}))

    def messages(self, result):
        self.sender.now_ns = self.now - MS
        self.wire.sent.clear()
        self.sender.send_result(result)
        return list(self.wire.sent)

    def feed(self, messages):
        return [self.receiver.feed(data, self.now) for data in messages]

    def show(self, objects, frames=1, **rest):
        for _ in range(frames):
            self.feed(self.frame(objects, **rest))
        return self.reading()

    def reading(self, after=0):
        return self.receiver.verdict(self.now + after)


class Life:
    """A drive with objects that come and go over a bad line, and what was really there."""

    def __init__(self, seed: int, frames: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(period_ns=60 * MS, max_lost=self.rng.choice((0, 3)), good_to_start=self.rng.choice((1, 3)))
        self.said: dict[int, dict[int, object]] = {}  # end of a frame's verdicts -> track -> label or reason
        self.tape = [f"O {SLOTS} " + config_line(**self.world.config).removeprefix("C ")]
        self.readings: dict[int, int] = {}  # place in the tape -> time
        self._play(frames)

    def _play(self, frames: int) -> None:
        rng, world = self.rng, self.world
        tracks: dict[int, object] = {}
        late: list[bytes] = []
        bad = rng.choice((0.0, 0.02, 0.2))
        for _ in range(frames):
            tracks = {
                track: rng.choice(("car", "car", "bus", Reason.HIGH_SCORE)) for track in tracks if rng.random() > 0.1
            }
            if rng.random() < 0.3 and len(tracks) < SLOTS:
                tracks[rng.randrange(9)] = "car"
            messages = world.frame(tracks)
            self.said[world.now + VALID] = dict(tracks)
            if rng.random() < bad:
                rng.shuffle(messages)
            for data in [*late, *messages]:
                self._send(data, late, bad, data not in late)

    def _send(self, data: bytes, late: list[bytes], bad: float, fresh: bool) -> None:
        rng, now = self.rng, self.world.now
        if not fresh:
            late.remove(data)
        elif rng.random() < bad / 3:
            late.append(data)
            return
        if rng.random() < bad / 3:
            return
        for _ in range(1 + (rng.random() < bad / 3)):
            broken = bytearray(data)
            if rng.random() < bad / 3:
                broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            self.tape.append(f"f {now} {broken.hex()}")
        when = self.readings[len(self.tape)] = now + rng.choice((0, 0, 20, 60, 100)) * MS
        self.tape.append(f"r {when}")
