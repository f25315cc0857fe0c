"""Golden messages: both implementations read the same fields from the same bytes, and write the same bytes."""

from __future__ import annotations

import hashlib
import hmac
import struct

import pytest
from autosar_oracle import p04
from handover_tape import RUNNER, c_compiler, compile_c, play_in_c, play_in_python
from make_handover_messages import FILE, examples

from framegate.runtime.handover.message import encode

BLOCKS = [block.splitlines() for block in FILE.read_text(encoding="utf-8").split("\n\n")[1:]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The answers to a tape, in each language."""
    compiler = c_compiler()
    runner = compiler and compile_c(RUNNER, tmp_path_factory.mktemp("runner") / "runner", compiler)
    return {"python": play_in_python, "c": runner and (lambda tape: play_in_c([str(runner)], tape))}


@pytest.mark.parametrize("language", ["python", "c"])
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block[0])
def test_read_and_written_byte_for_byte(answers, language, block):
    if answers[language] is None:
        pytest.skip("no C compiler is installed")
    _, fields, key, data = block
    read, written = answers[language]([f"D {data}", f"G {data} {key if key != '-' else ''}"])
    assert read == f"D {fields}"
    assert written == f"G {data}"


def test_the_file_holds_every_example_and_their_bytes():
    assert len(BLOCKS) == len(examples())
    for (name, _, _, data), (expected, values) in zip(BLOCKS, examples().items(), strict=True):
        assert name == expected
        assert encode(*values).hex() == data


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block[0])
def test_the_bytes_are_those_of_the_specification(block):
    """Neither implementation is asked: AUTOSAR's library, hashlib's HMAC, and the table of docs/handover.md."""
    said = dict(part.split("=") for part in block[1].split())
    data = bytes.fromhex(block[3])
    assert p04.e2e_p04_check(bytearray(data), int(said["data_id"]))
    assert struct.unpack(">HHI", data[:8]) == tuple(int(said[name]) for name in ("length", "counter", "data_id"))
    assert data[12:17] == b"FGVD\x01"
    assert (data[17], data[18], data[19]) == tuple(int(said[name]) for name in ("kind", "verdict", "authenticated"))
    for place, code, name in (
        (20, ">I", "region"),
        (24, ">Q", "epoch"),
        (32, ">q", "frame_id"),
        (40, ">q", "captured_ns"),
        (48, ">q", "decided_ns"),
        (56, ">q", "valid_until_ns"),
        (64, ">q", "sent_ns"),
        (72, ">Q", "clock_domain"),
        (80, ">Q", "reasons"),
        (88, ">I", "class_id"),
        (92, ">I", "classes"),
        (108, ">I", "certificate_kind"),
        (116, ">I", "drops"),
        (136, ">I", "track"),
        (140, ">I", "objects"),
    ):
        assert struct.unpack_from(code, data, place) == (int(said[name]),), name
    for place, size, name in (
        (96, 4, "confidence"),
        (100, 4, "score"),
        (104, 4, "threshold"),
        (112, 4, "certificate_radius"),
        (120, 8, "bundle"),
        (128, 8, "calibration"),
    ):
        assert data[place : place + size].hex() == said[name], name
    if block[2] != "-":
        code = hmac.new(bytes.fromhex(block[2]), data[:8] + data[12:144], hashlib.sha256).digest()[:16]
        assert data[144:] == code
