"""Pictures out of multipart bodies as servers really write them, and out of chunked ones."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from framegate.runtime.sources.http_body import HttpBody
from framegate.runtime.sources.jpeg import JpegEnd
from framegate.runtime.sources.multipart import MultipartParser

RNG = np.random.default_rng(0)


def picture(side: int = 64) -> bytes:
    return cv2.imencode(".jpg", RNG.integers(0, 255, (side, side, 3), np.uint8))[1].tobytes()


PICTURES = [picture() for _ in range(4)]
LARGE = picture(320)  # more bytes than any limit on what may stand in front of a picture


def length(data: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(data)


BODIES: dict[str, Callable[[bytes], bytes]] = {
    "with a length": lambda p: b"--frame\r\nContent-Type: image/jpeg\r\n" + length(p) + b"\r\n" + p + b"\r\n",
    "without a length": lambda p: b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + p + b"\r\n",
    "boundary behind": lambda p: b"Content-Type: image/jpeg\r\n" + length(p) + b"\r\n" + p + b"\r\n--frame\r\n",
    "boundary behind, no length": lambda p: b"Content-Type: image/jpeg\r\n\r\n" + p + b"\r\n--frame\r\n",
    "no headers": lambda p: b"--frame\r\n\r\n" + p + b"\r\n",
    "no headers, no blank line": lambda p: b"--frame\r\n" + p + b"\r\n",
    "bare line feeds": lambda p: b"--frame\nContent-length:%d\n\n" % len(p) + p + b"\n",
    "length too small": lambda p: b"--frame\r\n" + length(p[:-90]) + b"\r\n" + p + b"\r\n",
    "length too large": lambda p: b"--frame\r\n" + length(p + b"x" * 300) + b"\r\n" + p + b"\r\n",
    "bytes behind the picture": lambda p: b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + p + bytes(500) + b"\r\n",
    "padded with its length": lambda p: b"--frame\r\n" + length(p + bytes(9)) + b"\r\n" + p + bytes(9) + b"\r\n",
    "other headers": lambda p: b"--frame\r\nX-Timestamp: 1.5\r\n" + length(p) + b"X-Content-Length: 3\r\n\r\n" + p,
}


def parse(parser: MultipartParser, body: bytes, step: int) -> list[bytes]:
    found = []
    for at in range(0, len(body), step):
        parser.feed(body[at : at + step])
        while (got := parser.next_picture()) is not None:
            found.append(got)
    return found


@pytest.mark.parametrize("step", [61, 1000, 1 << 20])
@pytest.mark.parametrize("announced", [b"frame", b"--frame", b""], ids=["plain", "dashes", "none"])
@pytest.mark.parametrize("part", BODIES.values(), ids=BODIES)
def test_every_picture_comes_out(part: Callable[[bytes], bytes], announced: bytes, step: int) -> None:
    body = b"".join(map(part, PICTURES))
    found = parse(MultipartParser(announced), body, step)
    assert [JpegEnd().find(got) for got in found] == [len(each) for each in PICTURES]
    assert all(got.startswith(each) for got, each in zip(found, PICTURES, strict=True))


@pytest.mark.parametrize("part", BODIES.values(), ids=BODIES)
def test_no_byte_behind_a_picture_is_waited_for(part: Callable[[bytes], bytes]) -> None:
    parser = MultipartParser(b"frame")
    if part is BODIES["length too small"]:
        pytest.skip("what its server states is not the picture")
    body = part(PICTURES[0])
    end = body.index(PICTURES[0]) + len(PICTURES[0])
    parser.feed(body[:end])
    assert parser.next_picture() == PICTURES[0]


@pytest.mark.parametrize("part", BODIES.values(), ids=BODIES)
def test_the_first_picture_counts_for_no_limit(part: Callable[[bytes], bytes]) -> None:
    assert len(LARGE) > 1 << 16
    assert len(parse(MultipartParser(b"frame"), part(LARGE) + part(LARGE), 5000)) == 2


def test_half_a_picture_ends_at_the_next_boundary() -> None:
    body = b"".join(map(BODIES["without a length"], [PICTURES[0], PICTURES[1][:900], PICTURES[2], PICTURES[3]]))
    assert parse(MultipartParser(b"frame"), body, 700)[:3] == [PICTURES[0], PICTURES[1][:900], PICTURES[2]]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"x" * 70_000, "not motion JPEG"),
        (b"--frame\r\n" + b"x" * 70_000, "not motion JPEG"),
        (b"--frame\r\nContent-Length: 99999999\r\n\r\n", "more than 64 MiB"),
        (b"--frame\r\nContent-Length: 99999999999999999\r\n\r\n", "more than 64 MiB"),
    ],
    ids=["no boundary", "no end of headers", "bomb", "larger bomb"],
)
def test_what_is_no_such_stream_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(MultipartParser(b"frame"), body, 9000)


def answered(head: bytes, body: bytes) -> tuple[HttpBody, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)
    response = http.client.HTTPResponse(ours)
    response.begin()
    ours.close()
    return HttpBody(response, 0.3), theirs


def test_a_chunk_is_handed_out_before_the_next_one_begins() -> None:
    body, server = answered(b"Transfer-Encoding: chunked\r\n", b"3;name=value\r\nabc\r\n")
    with server:
        assert body.receive(wait=True) == b"abc"
        assert body.receive(wait=False) is None
        server.sendall(b"00")
        assert body.receive(wait=False) == b""  # half of a line
        assert body.receive(wait=False) is None
        server.sendall(b"02\r\nd")
        assert body.receive(wait=True) == b"d"
        server.sendall(b"e\r\n0\r\n\r\n")
        assert body.receive(wait=True) == b"e"
        for wait in (True, True, False):
            with pytest.raises(EOFError):
                body.receive(wait)
    body.close()


def test_a_body_without_chunks_and_its_silence() -> None:
    body, server = answered(b"Connection: close\r\n", b"abc")
    with server:
        assert body.receive(wait=False) == b"abc"
        assert body.receive(wait=False) is None
        with pytest.raises(TimeoutError):
            body.receive(wait=True)
    body.close()


@pytest.mark.parametrize("line", [b"xyz\r\n", b"-3\r\n", b"\r\n", b"1" * 5000, b"0x3\r\n", b"9" * 16 + b"\r\n"])
def test_a_chunk_without_a_size_is_an_error(line: bytes) -> None:
    body, server = answered(b"Transfer-Encoding: chunked\r\n", line)
    with server, pytest.raises(ValueError, match="the size of a chunk"):
        body.receive(wait=True)
    body.close()
