"""Tapes: what happens to a receiver, one line each, played to the receiver in Python and to that in C.

    C key=value ...    a new receiver with this configuration      F TIME HEX    a message arrives
    R TIME             a reading                                   L TIME        a release
    X                  a restart                                   G HEX [KEY]   read a message and write it again
    D HEX              every field of a message
    O N key=value ...  a new receiver of objects with N slots      f, r, l, x   the same to it
    O N/M key=value ...  the same beside M regions

The answers are lines, too, the same in both languages.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from repository import ROOT

from framegate.runtime.handover.message import (
    CERTIFICATE_NAMES,
    HEARTBEAT,
    NO_CLASS,
    REASON_BITS,
    SCENE,
    VERDICT,
    VerdictMessage,
    contradiction,
    decode,
    encode,
)
from framegate.runtime.handover.objects import ObjectsReceiver
from framegate.runtime.handover.reading import MS, Fault, WhyNot
from framegate.runtime.handover.receiver import Receiver, ReceiverConfig
from framegate.runtime.verdict import Reason

HEADERS = ROOT / "runtime/handover/c"
RUNNER = ROOT / "tests/helpers/tape_runner.c"
SCENARIOS = ROOT / "tests/golden/handover_scenarios.txt"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-pedantic")
CROSS = {"aarch64": ("aarch64-linux-gnu-gcc", "qemu-aarch64"), "armhf": ("arm-linux-gnueabihf-gcc", "qemu-arm")}


def compile_c(source: Path, to: Path, compiler: str = "cc", *options: str) -> Path:
    """Compile one C11 file against the header, every warning an error."""
    command = [compiler, "-std=c11", "-O2", *WARNINGS, f"-I{HEADERS}", str(source), "-o", str(to), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return to


def c_compiler() -> str | None:
    """Any C compiler of this machine."""
    return next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def play_in_c(runner: list[str], tape: list[str]) -> list[str]:
    """The answers of the C receiver."""
    done = subprocess.run(runner, input="\n".join(tape) + "\n", capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def config_line(**values) -> str:
    """The line of a configuration; bytes as hex, sets of faults as bits."""
    parts = []
    for key, value in values.items():
        if isinstance(value, bytes):
            value = value.hex()
        elif isinstance(value, frozenset):
            value = sum(1 << fault for fault in value)
        parts.append(f"{key}={value}")
    return " ".join(["C", *parts])


def config_of(line: str) -> ReceiverConfig:
    """The configuration of a line."""
    values: dict[str, object] = {}
    for part in line.split()[1:]:
        key, _, text = part.partition("=")
        if key in ("bundle", "calibration", "key"):
            values[key] = bytes.fromhex(text)
        elif key == "grave":
            values[key] = frozenset(fault for fault in Fault if int(text) >> fault & 1)
        else:
            values[key] = int(text)
    return ReceiverConfig(**values)


def play_in_python(tape: list[str], compiled: bool = False) -> list[str]:
    """The answers of the receiver in Python, with the state machine in Python or with the compiled one."""
    receiver = Receiver(ReceiverConfig(0), compiled=compiled)
    objects = ObjectsReceiver(ReceiverConfig(0), compiled=compiled)
    answers = []
    for line in tape:
        kind, *rest = line.split()
        if kind == "C":
            receiver = Receiver(config_of(line), compiled=compiled)
            answers.append("C 1")
        elif kind == "O":
            slots, _, beside = rest[0].partition("/")
            config, regions = config_of(line.removeprefix("O ")), int(beside or 0)
            objects = ObjectsReceiver(config, int(slots), regions=regions, compiled=compiled)
            answers.append("O 1")
        elif kind in "frlx":
            answers.append(_of_objects(objects, kind, rest))
        elif kind == "X":
            receiver.restart()
            answers.append("X")
        elif kind == "G":
            envelope, message = decode(bytes.fromhex(rest[0]))
            key = bytes.fromhex(rest[1]) if len(rest) > 1 else None
            answers.append(f"G {encode(message, envelope.counter, envelope.data_id, key).hex()}")
        elif kind == "D":
            answers.append(fields(bytes.fromhex(rest[0])))
        elif kind == "F":
            fault = receiver.feed(bytes.fromhex(rest[1]) if len(rest) > 1 else b"", int(rest[0]))
            state = receiver.verdict(0).state
            answers.append(f"F {fault.name} {int(state)} {receiver.good} {receiver.lost_messages}")
        elif kind == "L":
            answers.append(f"L {int(receiver.release(int(rest[0])))}")
        elif kind == "R":
            answers.append(_reading(receiver, int(rest[0])))
    return answers


def _of_objects(objects: ObjectsReceiver, kind: str, rest: list[str]) -> str:
    if kind == "x":
        objects.restart()
        return "x"
    now = int(rest[0])
    if kind == "f":
        return f"f {objects.feed(bytes.fromhex(rest[1]) if len(rest) > 1 else b'', now).name}"
    if kind == "l":
        return f"l {int(objects.release(now))}"
    reading = objects.verdict(now)
    seen = [
        f"{each.slot}:{each.track}:{each.reading.why}:{each.reading.class_id if each.reading.usable else NO_CLASS}"
        for each in reading.objects
    ]
    return " ".join([f"r {int(reading.whole)} {int(reading.agrees)} {reading.scene.why}", *seen])


def _bits(value: float) -> str:
    return struct.pack(">f", value).hex()


def fields(data: bytes) -> str:
    """Every field of a message, floats as their bits."""
    e, m = decode(data)
    whole = {"length": e.length, "counter": e.counter, "data_id": e.data_id, "known": int(e.known), "kind": m.kind}
    whole |= {"verdict": e.verdict, "authenticated": int(e.authenticated), "region": m.region, "epoch": m.epoch}
    for name in ("frame_id", "captured_ns", "decided_ns", "valid_until_ns", "sent_ns", "clock_domain", "reasons"):
        whole[name] = getattr(m, name)
    numbers = {"confidence": _bits(m.confidence), "score": _bits(m.score), "threshold": _bits(m.threshold)}
    certificate = {"certificate_kind": m.certificate_kind, "certificate_radius": _bits(m.certificate_radius)}
    rest = {
        "drops": m.drops,
        "bundle": m.bundle.hex(),
        "calibration": m.calibration.hex(),
        "track": m.track,
        "objects": m.objects,
    }
    classes = {"class_id": m.class_id, "classes": m.classes}
    consistent = {"consistent": int(not contradiction(e, m))}
    every = {**whole, **classes, **numbers, **certificate, **rest, **consistent}
    return " ".join(["D", *(f"{name}={value}" for name, value in every.items())])


def _reading(receiver: Receiver, now: int) -> str:
    reading = receiver.verdict(now)
    held = reading.message
    confidence = held.confidence if reading.usable and held else 0.0
    class_id = held.class_id if reading.usable and held else 0xFFFFFFFF
    frame, reasons = (held.frame_id, held.reasons) if held else (-1, 0)
    bits = _bits(confidence)
    kind, radius = (reading.certificate if reading.usable and held.kind != SCENE else None) or ("", 0.0)
    kinds = {name: number for number, name in CERTIFICATE_NAMES.items()}
    certified = f"{kinds.get(kind, 0)}:{_bits(radius)}"
    return (
        f"R {int(reading.usable)} {int(reading.why)} {class_id} {int(reading.state)} {reasons} {frame} "
        f"{reading.ends_ns} {bits} {certified}"
    )


@dataclass
class Scenario:
    """One scenario of the file: its tape, and what each answer must begin with."""

    name: str
    tape: list[str] = field(default_factory=list)
    expected: list[tuple[int, str]] = field(default_factory=list)  # number of the line in the file, text


def _value(text: str) -> int:
    for unit, factor in (("ms", MS), ("us", 1000), ("ns", 1), ("s", 1000 * MS)):
        if text.endswith(unit):
            return int(text[: -len(unit)]) * factor
    return int(text, 0)


class _Player:
    """Makes the bytes of a scenario's messages: each follows the one before unless told otherwise."""

    TIMES = ("captured", "decided", "valid_until", "sent")

    def __init__(self) -> None:
        self.now = 1000 * MS
        self.data_id, self.counter, self.frame, self.skew = 0x101, 0, 0, 0
        self.key: bytes | None = None
        self.last = b""
        self.message = VerdictMessage(
            epoch=5, sent_ns=0, accepted=True, class_id=2, classes=10, confidence=0.75, score=0.25, threshold=0.5
        )
        self.message = self.message._replace(bundle=b"bundle-1", calibration=b"calibr-1", clock_domain=9)

    def make(self, words: dict[str, str]) -> bytes:
        """The next message, changed as the words say."""
        self.counter = int(words.pop("counter", self.counter + 1)) % 65536
        kind = {"verdict": VERDICT, "heartbeat": HEARTBEAT, "scene": SCENE}[words.pop("kind", "verdict")]
        silent = kind == HEARTBEAT or words.get("frame") == "none"
        if silent:
            words.pop("frame", None)
            frame = -1
        else:
            frame = self.frame = int(words.pop("frame", self.frame + 1))
        clock = self.now - self.skew
        times = {"sent": clock - 1 * MS, "decided": clock - 2 * MS, "captured": clock - 12 * MS}
        times["valid_until"] = times["captured"] + 100 * MS
        for name in self.TIMES:
            if name in words:
                times[name] = clock + _value(words.pop(name))
        reasons = [Reason[name] for name in words.pop("reasons", "").split(",") if name]
        bits = sum(1 << REASON_BITS[reason] for reason in reasons) or (1 << REASON_BITS[Reason.NO_FRAME]) * silent
        values = {"kind": kind, "frame_id": frame, "reasons": bits, "accepted": not bits}
        values |= {f"{name}_ns": time for name, time in times.items()}
        for name in ("epoch", "classes", "clock_domain", "track", "region"):
            if name in words:
                values[name] = int(words.pop(name))
        if "bundle" in words:
            values["bundle"] = words.pop("bundle").encode()
        if "score" in words:
            values["score"] = float(words.pop("score"))
        once = {name: values.pop(name) for name in ("score",) if name in values}
        if kind == SCENE:
            once |= {"class_id": NO_CLASS, "objects": int(words.pop("objects", 0))}
        self.message = self.message._replace(**values)
        data_id = int(words.pop("id", self.data_id))
        key = bytes.fromhex(words.pop("key")) if "key" in words else self.key
        return self._broken(encode(self.message._replace(**once), self.counter, data_id, key), words)

    @staticmethod
    def _broken(data: bytes, words: dict[str, str]) -> bytes:
        if "flip" in words:
            place = int(words.pop("flip"))
            data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        if "cut" in words:
            data = data[: int(words.pop("cut"))]
        assert not words, f"unknown words {words}"
        return data


def scenarios(path: Path = SCENARIOS) -> Iterator[Scenario]:
    """The scenarios of a file; its head says what the lines mean."""
    scenario, player = None, _Player()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text, _, expected = line.partition("#")[0].partition("->")
        words = text.split()
        if not words:
            continue
        command, rest = words[0], words[1:]
        if command == "scenario":
            if scenario:
                yield scenario
            scenario, player = Scenario(" ".join(rest)), _Player()
            continue
        assert scenario is not None, number
        for step in _steps(player, command, rest):
            scenario.tape.append(step)
            scenario.expected.append((number, expected.strip()))
    assert scenario is not None
    yield scenario


def _steps(player: _Player, command: str, rest: list[str]) -> Iterator[str]:
    words = dict(part.partition("=")[::2] for part in rest if "=" in part)
    plain = [part for part in rest if "=" not in part]
    if command == "config":
        values: dict[str, object] = {"data_id": 0x101}
        for key, text in words.items():
            names = frozenset(Fault[name] for name in text.split(",") if name) if key == "grave" else None
            raw = text if key in ("bundle", "calibration", "key") else None
            values[key] = names if names is not None else bytes.fromhex(raw) if raw is not None else _value(text)
        player.key = values.get("key", player.key)  # type: ignore[assignment]
        yield config_line(**values)
        return
    if command == "skew":
        player.skew += _value(plain[0])
        return
    count = int(plain.pop(0)) if command == "good" else 1
    for _ in range(count):
        player.now += _value(plain[0]) if plain else 33 * MS
        if command in ("send", "good"):
            player.last = player.make(dict(words))
            yield f"F {player.now} {player.last.hex()}"
        elif command == "repeat":
            yield f"F {player.now} {player.last.hex()}"
        elif command == "bytes":
            yield f"F {player.now} {words['hex']}"
        elif command in ("read", "release"):
            yield f"{'R' if command == 'read' else 'L'} {player.now}"
        elif command == "restart":
            yield "X"
        else:
            raise AssertionError(f"unknown command {command}")


def matches(answer: str, expected: str) -> bool:
    """Whether an answer is what the file expects: a fault, USABLE n, why not, or yes and no."""
    if not expected:
        return answer.startswith(("F NONE", "R", "C 1", "X", "L"))
    kind, *rest = answer.split()
    if kind == "F":
        return rest[0] == expected
    if kind == "L":
        return rest[0] == {"yes": "1", "no": "0"}[expected]
    if expected.startswith("USABLE"):
        return rest[0] == "1" and rest[2] == expected.split()[1]
    why = sum(WhyNot[name] for name in expected.replace(",", " ").split())
    return rest[0] == "0" and int(rest[1]) == why
