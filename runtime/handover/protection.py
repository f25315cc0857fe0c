"""Protection of a message: AUTOSAR E2E Profile 4 against accidents, HMAC-SHA-256 against intent.

The header of Profile 4 (AUTOSAR FO "E2E Protocol Specification", PRS_E2EProtocol, Profile 4) is the first 12 bytes of
a message, big-endian: length (16 bits), counter (16), data id (32), CRC (32). The CRC is CRC-32/AUTOSAR over
everything but itself.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from framegate.runtime.errors import UsageError
from framegate.runtime.native import short_calls

HEADER = struct.Struct(">HHII")
"""Length, counter, data id, CRC."""
COUNTERS = 1 << 16
MAC_BYTES = 16
"""HMAC-SHA-256, cut off after 128 bits."""
_CRC_AT, _AFTER_CRC = 8, 12
_POLYNOMIAL = 0xC8DF352F  # 0xF4ACFB13 with its bits in reverse order
_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
# As framegate_read_number: so short that any value fits, whatever it is.
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,99}|0|[1-9][0-9]{0,99}")
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2})+")
_SHORTEST_KEY, _LONGEST_KEY = 16, 64  # bytes; the longest is HMAC's block


@cache
def _table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


def _crc32_in_python(data: bytes) -> int:
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def crc32_p4(data: bytes) -> int:
    """CRC-32/AUTOSAR, the polynomial 0xF4ACFB13, of some bytes; 0x1697D06A of ``b"123456789"``."""
    compiled = short_calls()
    if compiled is None:
        return _crc32_in_python(data)
    return int(compiled.framegate_crc32_autosar(data, len(data)))


def protect(body: bytes, counter: int, data_id: int, key: bytes | None = None) -> bytes:
    """The message: header, body, and with a key the code behind it.

    Args:
        body: Everything behind the header.
        counter: 0 to 65535.
        data_id: Of the stream, 32 bits.
        key: Of the authentication; None for none.

    Raises:
        struct.error: A number does not fit.
    """
    length = HEADER.size + len(body) + (MAC_BYTES if key else 0)
    return protected(HEADER.pack(length, counter, data_id, 0) + body, key)


def protected(whole: bytes, key: bytes | None = None) -> bytes:
    """A message with its CRC, and with a key the code behind it.

    Args:
        whole: Header and body; the place of the CRC may hold anything, and the code is missing.
        key: Of the authentication; None for none.
    """
    if key:
        signed = whole[:_CRC_AT] + whole[_AFTER_CRC:]
        whole += hmac.digest(key, signed, "sha256")[:MAC_BYTES]
    return b"".join((whole[:_CRC_AT], _crc_of(whole, len(whole)).to_bytes(4, "big"), whole[_AFTER_CRC:]))


def _crc_of_in_python(message: bytes, size: int) -> int:
    return _crc32_in_python(message[:_CRC_AT] + message[_AFTER_CRC:])


def _quickest_crc() -> Callable[[bytes, int], int]:
    compiled = short_calls()
    return _crc_of_in_python if compiled is None else compiled.framegate_crc32_of_message


_crc_of: Final = _quickest_crc()
"""CRC of a message of at least 12 bytes, and how many: over everything but the CRC itself."""


def crc_holds(message: bytes) -> bool:
    """Whether a message of at least 12 bytes has the CRC that it should have."""
    return _crc_of(message, len(message)) == int.from_bytes(message[_CRC_AT:_AFTER_CRC], "big")


def mac_holds(message: bytes, key: bytes) -> bool:
    """Whether the last 16 bytes of a message are the code of the others; takes the same time wherever it differs."""
    signed = message[:_CRC_AT] + message[_AFTER_CRC:-MAC_BYTES]
    return hmac.compare_digest(hmac.digest(key, signed, "sha256")[:MAC_BYTES], message[-MAC_BYTES:])


def stream_id(source: str, region: str) -> int:
    """The data id of a stream for which none was given: the same at every start.

    Args:
        source: The source's name, without passwords.
        region: The region's name.
    """
    return int.from_bytes(hashlib.sha256(f"framegate/{source}/{region}".encode()).digest()[:4], "big")


def read_data_id(text: str) -> int:
    """A data id that somebody wrote, decimal or with 0x.

    Raises:
        UsageError: It is none.
    """
    value = int(text, 0) if _NUMBER.fullmatch(text) else -1
    if not 0 <= value < 1 << 32:
        raise UsageError(f"{text!r} is no data id; expected 0 to 4294967295, or 0x0 to 0xffffffff")
    return value


def read_key(path: Path) -> bytes:
    """The shared key of a file: 32 to 128 hexadecimal digits, as ``openssl rand -hex 32`` writes them, and no more.

    Raises:
        UsageError: It cannot be read, holds something else, or others than its owner may read or write it.
    """
    try:
        # Without waiting: opening a pipe would take until somebody writes into it.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _AT_ONCE)) as file:
            about = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(about):
                raise UsageError(f"key file {path} is no plain file; expected one with the key in it")
            text = file.read(1024)
    except OSError as error:
        raise UsageError(f"key file {path}: {error.strerror}") from None
    mode = about & 0o777
    if mode & 0o077:
        raise UsageError(f"key file {path} has mode {mode:03o}, so others can use it; do: chmod 600 {path}")
    # As framegate_read_key does: nothing before the digits, among them or behind them but the end of their line.
    digits = text.removesuffix(b"\n")
    key = bytes.fromhex(digits.decode("ascii")) if _HEX.fullmatch(digits) else b""
    if not _SHORTEST_KEY <= len(key) <= _LONGEST_KEY:
        raise UsageError(
            f"key file {path}: expected {2 * _SHORTEST_KEY} to {2 * _LONGEST_KEY} hexadecimal digits in one line, and "
            f"nothing else; make one: (umask 077; openssl rand -hex 32 > {path})"
        )
    return key
