"""One state machine, two languages: the same tapes, the same answers."""

from __future__ import annotations

import random
import shutil
import threading
from dataclasses import replace

import pytest
from handover_tape import (
    CROSS,
    RUNNER,
    compile_c,
    config_line,
    config_of,
    matches,
    play_in_c,
    play_in_python,
    scenarios,
)
from object_drive import Life

from framegate.runtime.errors import UsageError
from framegate.runtime.handover.message import NO_CLASS, NO_TRACK, VerdictMessage, encode
from framegate.runtime.handover.protection import protect
from framegate.runtime.handover.reading import MS, Fault
from framegate.runtime.handover.receiver import Receiver, ReceiverConfig
from framegate.runtime.native import short_calls

ALL = list(scenarios())


@pytest.fixture(
    scope="module", params=["gcc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("clang", *CROSS))]
)
def runner(request, tmp_path_factory) -> list[str]:
    to = tmp_path_factory.mktemp("runner") / "tape_runner"
    if request.param not in CROSS:
        if not shutil.which(request.param):
            pytest.skip(f"{request.param} is not installed")
        return [str(compile_c(RUNNER, to, request.param, "-fsanitize=undefined", "-fno-sanitize-recover=all"))]
    compiler, emulator = CROSS[request.param]
    if not (shutil.which(compiler) and shutil.which(emulator)):
        pytest.skip(f"{compiler} or {emulator} is not installed")
    return [emulator, str(compile_c(RUNNER, to, compiler, "-static"))]


def require_same(tape: list[str], found: list[str], expected: list[str]) -> None:
    """What pytest would say about two long lists takes minutes."""
    assert len(found) == len(expected)
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert one == other, tape[max(number - 3, 0) : number + 1]


needs_compiled = pytest.mark.skipif(short_calls() is None, reason="the runtime was not compiled here")
COMPILED = [False, pytest.param(True, marks=needs_compiled)]


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: scenario.name)
def test_the_receiver_in_python_does_what_the_scenario_says(scenario, compiled):
    answers = play_in_python(scenario.tape, compiled)
    for answer, step, (number, expected) in zip(answers, scenario.tape, scenario.expected, strict=True):
        assert matches(answer, expected), f"line {number}: {step[:40]} gave {answer!r}, expected {expected!r}"


def test_the_receiver_in_c_gives_the_same_answers(runner):
    tape = [line for scenario in ALL for line in scenario.tape]
    require_same(tape, play_in_c(runner, tape), play_in_python(tape))


def random_tape(seed: int, steps: int = 60) -> list[str]:
    """A life of a receiver with everything that can go wrong, most of it in good order."""
    rng = random.Random(seed)
    key = bytes(range(16)) if rng.random() < 0.2 else b""
    values = {"data_id": 7, "good_to_start": rng.choice((1, 2, 3)), "max_lost": rng.choice((0, 3))}
    values |= {"key": key, "clock_domain": rng.choice((0, 1)), "offset_domain": rng.choice((0, 1))}
    values |= {"offset_ns": rng.choice((0, MS)), "offset_uncertainty_ns": rng.choice((0, 2 * MS))}
    values |= {"scene": int(rng.random() < 0.15)}
    values |= {"grave": frozenset(rng.sample(list(Fault)[1:14], rng.choice((0, 1, 3)))), "period_ns": 60 * MS}
    calm = rng.random() < 0.6
    clocks = [rng.choice((1, 1, 1, 0, 2)) for _ in range(3)]  # of one start, the next, and so on

    def pick(usual, *others):
        return usual if calm and rng.random() < 0.99 else rng.choice((usual, *others))

    def chance(share: float) -> bool:
        return rng.random() < (share / 10 if calm else share)

    tape = [config_line(**values)]
    now, counter, frame, epoch = 10**9, rng.choice((0, 65530)), 0, 3
    sent: list[bytes] = []
    for _ in range(steps):
        now += pick(33, 33, 33, 1, 10, 60, 170) * MS
        counter = (counter + pick(1, 1, 1, 1, 1, 1, 2, 5, 0, 40000, 65535)) % 65536
        frame += pick(1, 1, 1, 1, 1, 0)
        epoch += pick(*(0,) * 20, 1, -1)
        accepted = not chance(0.2)
        times = [now - way * MS for way in (pick(12, 12, 12, 200), 2, pick(1, 1, 1, 1, 0, -5, 160))]
        message = VerdictMessage(
            epoch=max(epoch, 0),
            sent_ns=times[2],
            accepted=accepted,
            kind=pick(*(3 if values["scene"] else 1,) * 9, 1, 2, 3, 4),
            region=4,
            track=NO_TRACK if values["scene"] else pick(*(5,) * 9, 6, NO_TRACK),
            objects=2 if values["scene"] else 0,
            frame_id=pick(*(frame,) * 9, -1, -5),
            captured_ns=pick(*(times[0],) * 15, -1, 2**62),
            decided_ns=times[1],
            valid_until_ns=times[0] + pick(100, 100, 20) * MS,
            clock_domain=clocks[epoch % 3] if chance(0.99) or calm else 1,
            reasons=0 if accepted else 1 << rng.randrange(64),
            class_id=NO_CLASS if values["scene"] else pick(*(3,) * 9, NO_CLASS),
            classes=10,
            confidence=pick(*(0.5,) * 9, float("nan"), 1.5, -0.0),
            score=pick(*(0.1,) * 9, float("inf"), -float("inf"), 0.21, float("nan")),
            threshold=0.2,
            certificate_kind=pick(*(0,) * 9, 1, 9),
            certificate_radius=pick(*(0.0,) * 9, -0.0, -1.0),
            bundle=pick(*(b"bundle-1",) * 19, b"bundle-2"),
        )
        used = pick(*(key,) * 19, bytes(16)) or None
        data = bytearray(encode(message, counter, pick(*(7,) * 19, 8), used))
        if chance(0.02):  # another version, protected as it should be
            place = rng.choice((12, 16, 19, 143))
            body = bytearray(data[12:144])
            body[place - 12] ^= 2
            data = bytearray(protect(bytes(body), counter, 7, used))
        if chance(0.05):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        if chance(0.03):
            del data[rng.randrange(len(data)) :]
        sent.append(bytes(data))
        again = rng.choice((*sent, *sent[-3:] * 5)) if chance(0.04) else sent[-1]
        tape.append(f"F {now} {again.hex()}")
        tape.append(f"R {now + rng.choice((0, 1, 50, 120, 200, -1)) * MS}")
        if rng.random() < 0.05:
            tape.append(f"L {now + rng.choice((0, 2000)) * MS}")
        if chance(0.02):
            tape.append("X")
    return tape


def test_both_receivers_agree_on_lives_that_nobody_thought_of(runner):
    tape = [line for seed in range(60) for line in random_tape(seed)]
    answers = play_in_python(tape)
    require_same(tape, play_in_c(runner, tape), answers)
    seen = {line.split()[1] for line in answers if line.startswith("F")}
    assert seen == {fault.name for fault in Fault}, "the tapes should reach every fault"
    assert sum(line.startswith("R 1") for line in answers) > 100


@needs_compiled
def test_the_compiled_receiver_in_python_lives_those_lives_and_counts_the_same():
    for seed in range(40):
        tape = random_tape(seed)
        require_same(tape, play_in_python(tape, compiled=True), play_in_python(tape))
        both = [Receiver(config_of(tape[0]), compiled=compiled) for compiled in (True, False)]
        for line in tape:
            if line.startswith("F "):
                _, now, *data = line.split()
                assert len({each.feed(bytes.fromhex("".join(data)), int(now)) for each in both}) == 1
        assert both[0].counts() == both[1].counts()
        assert repr(both[0].verdict(0)) == repr(both[1].verdict(0))
    tape = [line for seed in range(4) for line in Life(seed, 40).tape]
    require_same(tape, play_in_python(tape, compiled=True), play_in_python(tape))


@needs_compiled
def test_times_that_are_no_whole_numbers_are_taken_by_both():
    tape = next(scenario.tape for scenario in ALL if any(line.startswith("F") for line in scenario.tape))
    found = []
    for compiled in (True, False):
        receiver = Receiver(replace(config_of(tape[0]), alive_ns=0.15e9), compiled=compiled)
        faults = []
        for line in tape:
            if line.startswith("F "):
                _, now, *data = line.split()
                faults.append(receiver.feed(bytes.fromhex("".join(data)), float(now)))
        found.append((faults, receiver.counts(), receiver.verdict(1e9).why))
    assert found[0] == found[1]


@needs_compiled
@pytest.mark.parametrize("now", [-1, -(2**63), 2**61, 2**63, 2**64 + 10**9, 2**200, float("nan"), float("inf")])
def test_a_clock_that_stands_on_its_head_is_seen_in_both(now):
    found = []
    for compiled in (True, False):
        receiver = Receiver(ReceiverConfig(7, grave=frozenset(Fault)), compiled=compiled)
        assert receiver.feed(bytes(144), 10**9) is Fault.TRUNCATED
        assert receiver.feed(bytes(144), now) is Fault.FUTURE
        assert not receiver.release(now)
        found.append((receiver.counts(), receiver.verdict(10**9)))
    assert found[0] == found[1]


def test_both_receivers_of_objects_agree_on_drives_over_a_bad_line(runner):
    tape = [line for seed in range(12) for line in Life(seed, 40).tape]
    answers = play_in_python(tape)
    require_same(tape, play_in_c(runner, tape), answers)
    assert sum(line.startswith("r 1") for line in answers) > 100


@pytest.mark.parametrize("compiled", COMPILED)
def test_fault_a_signal_handler_calls_a_receiver_that_it_has_interrupted(compiled, monkeypatch):
    """It runs in the thread that feeds, and must not wait for it: a consumer that stands still does not brake."""
    receiver, refused = Receiver(ReceiverConfig(1), compiled=compiled), []

    def handler(*_):
        for call in (lambda: receiver.feed(b""), receiver.release, receiver.restart):
            with pytest.raises(UsageError, match="signal handler"):
                call()
            refused.append(call)
        assert not receiver.verdict().usable  # to read is always possible
        return Fault.NONE

    with monkeypatch.context() as patch:
        patch.setattr(receiver._machine, "feed", handler)
        feeds = threading.Thread(target=receiver.feed, args=(b"",), daemon=True)
        feeds.start()
        feeds.join(5)
    assert not feeds.is_alive(), "it waits for itself"
    assert len(refused) == 3
    assert receiver.feed(b"") is Fault.TRUNCATED
    assert receiver.release()
    receiver.restart()
