from __future__ import annotations

import dataclasses
import math
import re
import struct
from types import SimpleNamespace

import pytest
from autosar_oracle import p04
from hypothesis import given
from hypothesis import strategies as st
from repository import ROOT

from framegate.runtime.errors import UsageError
from framegate.runtime.handover.message import (
    AUTHENTICATED_BYTES,
    LATEST_NS,
    OTHER_BIT,
    PLAIN_BYTES,
    REASON_BITS,
    VerdictMessage,
    contradiction,
    decode,
    encode,
    fields_of,
    reason_names,
)
from framegate.runtime.handover.protection import (
    _crc32_in_python,
    crc32_p4,
    crc_holds,
    mac_holds,
    read_key,
    stream_id,
)
from framegate.runtime.verdict import NEVER_NS, Prediction, Reason

KEY = bytes(range(32))
U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
FLOAT = st.floats(width=32)
MESSAGES = st.builds(
    VerdictMessage,
    U64,
    I64,
    st.booleans(),
    st.integers(0, 255),
    U32,
    I64,
    I64,
    I64,
    I64,
    U64,
    U64,
    U32,
    U32,
    FLOAT,
    FLOAT,
    FLOAT,
    U32,
    FLOAT,
    U32,
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=8, max_size=8),
    U32,
    objects=st.just(0),
)


def accepted(**changes) -> VerdictMessage:
    times = {"captured_ns": 100, "decided_ns": 200, "valid_until_ns": 1000, "sent_ns": 300}
    numbers = {"class_id": 1, "classes": 10, "confidence": 0.75, "score": 0.25, "threshold": 0.5}
    return VerdictMessage(**{"epoch": 7, "accepted": True, "frame_id": 3, **times, **numbers, **changes})


@given(st.binary(max_size=300))
def test_the_compiled_crc_is_the_one_in_python(data):
    assert crc32_p4(data) == _crc32_in_python(data)


def test_the_check_value_of_crc_32_autosar():
    assert crc32_p4(b"123456789") == _crc32_in_python(b"123456789") == 0x1697D06A


@given(MESSAGES, st.integers(0, 65535), U32, st.sampled_from([None, KEY]))
def test_autosars_own_check_passes_every_message_and_decode_is_the_inverse(message, counter, data_id, key):
    data = encode(message, counter, data_id, key)
    assert len(data) == (AUTHENTICATED_BYTES if key else PLAIN_BYTES)
    assert p04.e2e_p04_check(bytearray(data), data_id)
    assert crc_holds(data)
    assert key is None or mac_holds(data, key)
    envelope, found = decode(data)
    assert (envelope.length, envelope.counter, envelope.data_id) == (len(data), counter, data_id)
    assert envelope.known
    for field in message._fields:
        one, other = getattr(message, field), getattr(found, field)
        assert one == other or (math.isnan(one) and math.isnan(other)), field


@given(MESSAGES, st.integers(0, 65534), U32)
def test_a_message_that_autosars_library_protects_is_the_same(message, counter, data_id):
    data = bytearray(encode(message, counter, data_id))
    expected = encode(message, counter + 1, data_id)
    p04.e2e_p04_protect(data, data_id)  # counts one up
    assert bytes(data) == expected


def _reason_table() -> str:
    page = (ROOT / "docs/handover.md").read_text(encoding="utf-8")
    return page[page.index("### Reason bits") : page.index("A bit is never given")]


def test_every_reason_has_a_bit_of_its_own():
    assert set(REASON_BITS) == set(Reason), (
        "give the new reason the next bit: REASON_BITS, docs/handover.md, the header"
    )
    assert len(set(REASON_BITS.values())) == len(REASON_BITS)
    assert OTHER_BIT not in REASON_BITS.values()
    words = dict(re.findall(r"\| (\d+) \| ([A-Z_]+)(?=[ :|])", _reason_table()))
    header = (ROOT / "runtime/handover/c/framegate_verdict.h").read_text(encoding="utf-8")
    in_c = re.findall(r'"(\w+)"', header[header.index("framegate_reason_name(") :].partition("};")[0])
    for reason, bit in REASON_BITS.items():
        assert words[str(bit)] == reason.value
        assert in_c[bit] == reason.value
    assert reason_names(1 << 2 | 1 << 50 | 1 << OTHER_BIT) == ("BLACK", "BIT_50", "OTHER")


@pytest.mark.parametrize("value", [1e39, -1e39, 3.4028235677973366e38, math.inf, 1e308])
def test_what_no_float32_holds_becomes_an_infinity_which_is_not_accepted(value):
    envelope, found = decode(encode(accepted(score=value), 0, 1))
    assert math.isinf(found.score)
    assert contradiction(envelope, found)


@pytest.mark.parametrize(
    "changes",
    [
        *({name: math.nan} for name in ("confidence", "score", "threshold")),
        {"confidence": 1.1},
        {"confidence": -0.1},
        {"confidence": math.inf},
        {"score": 0.6},
        {"score": -math.inf},
        {"threshold": math.inf},
        {"class_id": 10},
        {"class_id": 0xFFFFFFFF},
        {"classes": 0},
        {"frame_id": -1},
        {"frame_id": -2},
        {"reasons": 1},
        {"reasons": 1 << 40},
        {"kind": 2},
        {"kind": 0},
        {"kind": 3},
        {"captured_ns": -1},
        {"valid_until_ns": LATEST_NS + 1},
        {"sent_ns": 2**63 - 1},
        {"certificate_kind": 4},
        {"certificate_radius": math.nan},
        {"certificate_radius": -1.0},
        {"accepted": False},
    ],
)
def test_a_message_that_contradicts_itself_is_seen(changes):
    assert contradiction(*decode(encode(accepted(), 0, 1))) == ""
    assert contradiction(*decode(encode(accepted(**changes), 0, 1)))


def prediction(**changes) -> Prediction:
    numbers = {"confidence": 0.75, "entropy": 0.3, "margin": 0.5, "energy": -3.0, "score": 0.25, "threshold": 0.5}
    times = {"captured_ns": 100, "decided_ns": 200, "valid_until_ns": 1000}
    usual = {"frame_id": 3, "stream": "road", "decided_reasons": (), "candidate": "cat", **numbers, **times}
    return Prediction(**{**usual, **changes})


def made(p: Prediction, sent_ns: int = 300) -> VerdictMessage:
    ids = {"dog": 0, "cat": 1}
    return VerdictMessage._make(
        fields_of(p, epoch=1, sent_ns=sent_ns, clock_domain=5, class_ids=ids, bundle=b"bundle--")
    )


def test_a_prediction_becomes_a_message():
    message = made(prediction())
    assert message.accepted
    assert (message.class_id, message.classes, message.reasons, message.bundle) == (1, 2, 0, b"bundle--")
    assert contradiction(*decode(encode(message, 0, 1))) == ""


@pytest.mark.parametrize(
    ("p", "sent_ns", "names"),
    [
        (prediction(decided_reasons=(Reason.BLACK, Reason.FROZEN)), 300, ("BLACK", "FROZEN")),
        (prediction(), 1001, ("EXPIRED",)),
        (prediction(candidate="horse"), 300, ("BAD_INPUT",)),
        (Prediction.without_frame("road", Reason.NO_FRAME, "", 250), 300, ("NO_FRAME",)),
    ],
)
def test_what_is_not_accepted_now_is_rejected_in_the_message(p, sent_ns, names):
    message = made(p, sent_ns)
    assert not message.accepted
    assert message.reason_names == names
    assert contradiction(*decode(encode(message, 0, 1))) == ""


def test_a_reason_without_a_bit_rejects_all_the_same(monkeypatch):
    monkeypatch.delitem(REASON_BITS, Reason.FROZEN)
    assert made(prediction(decided_reasons=(Reason.FROZEN,))).reason_names == ("OTHER",)


def test_a_verdict_without_an_end_fits_into_the_field():
    assert made(prediction(valid_until_ns=NEVER_NS)).valid_until_ns == LATEST_NS


def test_too_few_bytes_are_no_message():
    with pytest.raises(struct.error):
        decode(bytes(143))


def test_a_streams_id_depends_on_source_and_region_and_on_nothing_else():
    assert stream_id("/dev/video0", "road") == stream_id("/dev/video0", "road") == 0x5AE507E1
    assert stream_id("/dev/video0", "road") != stream_id("/dev/video0", "sky")


def test_a_key_file(tmp_path):
    path = tmp_path / "key"
    path.write_text(KEY.hex() + "\n")
    path.chmod(0o600)
    assert read_key(path) == KEY


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_key_file_that_others_can_use_is_refused(tmp_path, mode):
    path = tmp_path / "key"
    path.write_text(KEY.hex())
    path.chmod(mode)
    with pytest.raises(UsageError, match="chmod 600"):
        read_key(path)


@pytest.mark.parametrize("text", ["", "00" * 15, "00" * 65, "no key at all", "\xff\xfe", "0" * 33])
def test_a_key_file_with_something_else_is_refused(tmp_path, text):
    path = tmp_path / "key"
    path.write_text(text, encoding="latin-1")
    path.chmod(0o600)
    with pytest.raises(UsageError, match="openssl rand -hex 32"):
        read_key(path)


def test_a_key_file_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"key file .*nowhere: No such file"):
        read_key(tmp_path / "nowhere")


def with_more(certificate=None, track=None, **changes):
    """A prediction with a certificate, or of an object that is followed."""
    fields = {field.name: getattr(prediction(**changes), field.name) for field in dataclasses.fields(Prediction)}
    return SimpleNamespace(**{**fields, "certificate": certificate, "found": SimpleNamespace(track=track)})


@pytest.mark.parametrize(
    ("kind", "margin", "expected"),
    [
        ("patch", 0.5, (3, 5.0)),
        ("linf", 0.4, (1, 5.0)),
        ("linf", 0.39, (0, 0.0)),
        ("linf", math.nan, (0, 0.0)),
        ("unheard of", 0.5, (0, 0.0)),
    ],
)
def test_a_certificate_travels_if_it_holds(kind, margin, expected):
    certificate = SimpleNamespace(kind=kind, budget=5, tau=0.4, margin=margin)
    message = made(with_more(certificate))
    assert (message.certificate_kind, message.certificate_radius) == expected
    rejected = made(with_more(certificate, decided_reasons=(Reason.BLACK,)))
    assert (rejected.certificate_kind, rejected.certificate_radius) == (0, 0.0)


@pytest.mark.parametrize(("track", "expected"), [(17, 17), (None, 2**32 - 1), (-3, 2**32 - 1), (2**32, 2**32 - 1)])
def test_the_number_of_a_track_travels(track, expected):
    assert made(with_more(track=track)).track == expected
