"""The receiver in Python and the one in C under bytes that nobody meant, from one corpus (tests/fuzz)."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from handover_tape import HEADERS, RUNNER, WARNINGS, c_compiler, compile_c, config_line, play_in_c, play_in_python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from repository import ROOT

from framegate.runtime.handover.message import AUTHENTICATED_BYTES, PLAIN_BYTES
from framegate.runtime.handover.protection import protect
from framegate.runtime.handover.reading import MS, Fault, State
from framegate.runtime.handover.receiver import Receiver, ReceiverConfig

FUZZ = ROOT / "tests/fuzz"
CORPUS = [path.read_bytes() for path in sorted((FUZZ / "corpus").iterdir())]
KEY = bytes(16)
HARMLESS = (Fault.NONE, Fault.MISSED, Fault.NEW_EPOCH)


def config(flags: int) -> dict[str, object]:
    key = {"key": KEY} if flags & 1 else {}
    return {"data_id": 0x101, "clock_domain": 9 if flags & 2 else 0, "quiet_ns": 100 * MS, **key}


def messages(data: bytes):
    """What handover_fuzz.c makes of an input: times and bytes."""
    flags, place, now = data[0], 1, 1000 * MS
    while place + 2 <= len(data):
        now += data[place] * 2 * MS
        raw = data[place + 2 : place + 2 + data[place + 1]]
        place += 2 + len(raw)
        if flags & 4 and len(raw) in (PLAIN_BYTES, AUTHENTICATED_BYTES):
            key = KEY if len(raw) == AUTHENTICATED_BYTES else None
            counter, data_id = int.from_bytes(raw[2:4], "big"), int.from_bytes(raw[4:8], "big")
            raw = protect(raw[12:PLAIN_BYTES], counter, data_id, key)
        yield now, raw


def require_safe(data: bytes) -> None:
    receiver = Receiver(ReceiverConfig(**config(data[0])))
    for now, raw in messages(data):
        fault = receiver.feed(raw, now)
        reading = receiver.verdict(now)
        assert not (reading.usable and fault not in HARMLESS)
        for when in (now - 1, -(2**63), now + 500 * MS + 1, 2**63 - 1):
            assert not receiver.verdict(when).usable
        if reading.usable:
            assert reading.state is State.USABLE
            assert reading.message.accepted
            assert reading.message.reasons == 0
            assert reading.class_id < reading.message.classes
            assert receiver.good >= 3
        receiver.release(now)
    assert receiver.received - receiver.good <= sum(receiver.faults.values())


@st.composite
def changed(draw) -> bytes:
    """An input of the corpus with some bytes changed, taken away, doubled or put in."""
    data = bytearray(draw(st.sampled_from(CORPUS)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(data) - 1))
        what = draw(st.sampled_from(("set", "flip", "cut", "double", "insert")))
        if what == "set":
            data[place] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)))
        elif what == "flip":
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif what == "cut" and len(data) > 1:
            del data[max(place, 1) : place + draw(st.integers(1, 160))]
        elif what == "double":
            data[place:place] = data[place : place + draw(st.integers(1, 300))]
        else:
            data[place:place] = draw(st.binary(max_size=20))
    return bytes(data)


@given(changed())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_whatever_arrives_nothing_is_usable_that_should_not_be(data):
    require_safe(data)


@given(st.binary(min_size=1, max_size=600))
@settings(deadline=None)
def test_nor_under_bytes_without_any_meaning(data):
    require_safe(data)


def as_tape(data: bytes) -> list[str]:
    tape = [config_line(**config(data[0]))]
    for now, raw in messages(data):
        tape += [f"F {now} {raw.hex()}", f"R {now}", f"R {now + 60 * MS}", f"L {now}"]
    return tape


def test_both_receivers_say_the_same_about_the_corpus_and_its_relatives(tmp_path):
    compiler = c_compiler()
    if compiler is None:
        pytest.skip("no C compiler is installed")
    runner = compile_c(RUNNER, tmp_path / "runner", compiler)

    @given(st.lists(changed(), min_size=1, max_size=4))
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def same(inputs):
        tape = [line for data in inputs for line in as_tape(data)]
        found, expected = play_in_c([str(runner)], tape), play_in_python(tape)
        assert all(one == other for one, other in zip(found, expected, strict=True))

    same()
    assert any(line.startswith("R 1") for data in CORPUS for line in play_in_python(as_tape(data)))


@pytest.mark.long
@pytest.mark.slow
def test_the_fuzz_target_finds_nothing_in_a_few_seconds(tmp_path):
    if not shutil.which("clang"):
        pytest.skip("clang is not installed")
    target = tmp_path / "fuzz"
    options = ["-g", "-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
    command = [
        "clang",
        "-std=c11",
        *options,
        *WARNINGS,
        f"-I{HEADERS}",
        str(FUZZ / "handover_fuzz.c"),
        "-o",
        str(target),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if "libclang_rt" in built.stderr:
        pytest.skip("clang has no libFuzzer here")
    assert built.returncode == 0, built.stderr
    (tmp_path / "new").mkdir()
    run = [
        str(target),
        "-max_total_time=4",
        f"-artifact_prefix={tmp_path}/",
        str(tmp_path / "new"),
        str(FUZZ / "corpus"),
    ]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
