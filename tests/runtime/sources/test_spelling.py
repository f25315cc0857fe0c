"""Names and addresses that look right and name nothing: the error says which sign, proxy or folder is the reason."""

from __future__ import annotations

import os
import re
import socket
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

from framegate.runtime.errors import SourceError
from framegate.runtime.sources.address import StreamAddress
from framegate.runtime.sources.images import ImageSource
from framegate.runtime.sources.open import open_source
from framegate.runtime.sources.options import SourceOptions
from framegate.runtime.sources.proxy import through_proxy
from framegate.runtime.sources.video import VideoFileSource

QUICK = SourceOptions(open_timeout_s=0.5, read_timeout_s=0.5, reconnect=False)
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["001", "2026", "98", "00"])
def test_a_folder_is_not_taken_for_a_camera(here: Path, name: str) -> None:
    (here / name).mkdir()
    cv2.imwrite(f"{name}/a.png", IMAGE)
    camera = f"/dev/video{int(name)}"
    says = rf"a number is a camera, here {camera}, .* write \./{name} for the folder or {camera} for the camera"
    with pytest.raises(SourceError, match=says):
        open_source(name)
    with open_source(f"./{name}") as source:
        assert isinstance(source, ImageSource)


def test_a_file_or_a_link_is_not_taken_for_a_camera_either(here: Path) -> None:
    (here / "97").write_bytes(b"x")
    (here / "96").symlink_to("nowhere")
    for name in ("97", "96"):
        with pytest.raises(SourceError, match=r"write \./9[67] for the file"):
            open_source(name)
    with pytest.raises(SourceError, match="camera /dev/video95: no such device"):
        open_source("95")


def test_names_that_a_library_takes_for_an_address(here: Path) -> None:
    """FFmpeg opens what stands behind a colon with the protocol in front of it."""
    for name in ("12:30.avi", "pipe:0.avi", "concat:a|b.avi", "-.avi", "%03d.avi", "a?b#c.avi", "ü e\u0301.avi"):
        writer = cv2.VideoWriter(os.path.abspath("plain.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 64))
        for _ in range(3):
            writer.write(IMAGE)
        writer.release()
        os.rename("plain.avi", name)
        with VideoFileSource(name, realtime=False) as source:
            assert sum(1 for _ in iter(source.read, None)) == 3


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_same_name_in_another_unicode_form_is_found_and_named(here: Path, form: str) -> None:
    other = "NFD" if form == "NFC" else "NFC"
    (here / unicodedata.normalize(other, "Übung")).mkdir()
    typed = unicodedata.normalize(form, "Übung/klein.mp4")
    with pytest.raises(SourceError, match="the same letters in another Unicode form"):
        open_source(typed)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("clip\u200b.mp4", r"U\+200B \(zero width space\), which is not seen"),
        ("\ufeffclip.mp4", r"U\+FEFF"),
        ("cl\u00a0ip.mp4", r"U\+00A0 \(no-break space\), which is not seen"),
        ("“clip.mp4”", r'U\+201C \(left double quotation mark\) where " may be meant'),
        ("clip–1.mp4", r"U\+2013 \(en dash\) where - may be meant"),
        ("１.mp4x", r"U\+FF11 \(fullwidth digit one\) where 1 may be meant"),
        (" nothing.mp4", "begins or ends with a space"),
        ("CLIP.mp4", r"has 'clip.mp4'; is that meant\?"),
        ("rtsp：//127.0.0.1/s", r"U\+FF1A \(fullwidth colon\) where : may be meant"),
        ("rtsp\u200b://127.0.0.1/s", r"U\+200B"),
        ("rtsp://127.0.0.1\u200b/s", r"its host is no name or address; it has U\+200B"),
        ("http://127.0.0.1：80/s", r"its host is none; it has U\+FF1A"),
        ("http://a..b/s", "its host is no name or address; its parts between dots"),
        ("http://" + "a" * 64 + "/s", "its host is no name or address"),
        ("http://my cam/s", "its host is no name or address; it has ' '"),
        ("http://cam|era/s", "its host is no name or address"),
    ],
)
def test_signs_that_are_not_seen_or_look_like_others_are_named(here: Path, typed: str, says: str) -> None:
    (here / "clip.mp4").write_bytes(b"")
    with pytest.raises(SourceError, match=says):
        open_source(typed, QUICK)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("clip.mp4?fps=3", "clip.mp4 is there, and files and folders take no parameters behind a"),
        ("file:///tmp/clip.mp4", "leave out file://"),
        ("~/clip.mp4", "in place of ~ only where it is not quoted"),
        ("rtsp:/127.0.0.1/s", "begins with rtsp://"),
        ("http:127.0.0.1", "begins with http://"),
    ],
)
def test_what_is_nearly_right_is_answered_with_what_is_right(here: Path, typed: str, says: str) -> None:
    (here / "clip.mp4").write_bytes(b"")
    with pytest.raises(SourceError, match=re.escape(says)):
        open_source(typed, QUICK)


def test_every_scheme_may_be_in_capitals() -> None:
    with open_source("SYNTHETIC://?frames=1&width=192&height=144", realtime=False) as source:
        assert source.frame_size == (192, 144)


def test_no_part_of_a_password_is_explained() -> None:
    with pytest.raises(SourceError) as caught:
        open_source("admin:s\u2013cret@cam", QUICK)
    assert "en dash" not in str(caught.value)
    with pytest.raises(SourceError) as caught:
        open_source("rtsp://admin:s\uff1acret@127.0.0.1：5/s", QUICK)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("path", ["/ümlaut", "/a b", "/\U0001f4f7?name=ü", "/a|b{c}"])
def test_signs_in_a_path_are_asked_for_and_blame_nobody(path: str) -> None:
    asked = StreamAddress.parse(f"http://me:secret@127.0.0.1:9{path}").bare
    assert asked.isascii()
    assert " " not in asked
    assert "secret" not in asked
    with pytest.raises(SourceError, match=r"nothing listens at 127\.0\.0\.1:9"):
        open_source(f"http://127.0.0.1:9{path}", QUICK)


def test_what_is_quoted_already_stays() -> None:
    assert StreamAddress.parse("http://h/a%20b%C3%BC?x=%26&y=1+2").bare == "http://h/a%20b%C3%BC?x=%26&y=1+2"


@pytest.fixture
def dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY"])
def test_a_proxy_is_named_instead_of_the_camera(monkeypatch: pytest.MonkeyPatch, dead_port: int, variable: str) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv(variable, f"http://me:s3cret@127.0.0.1:{dead_port}")
    with pytest.raises(SourceError) as caught:
        open_source("http://192.0.2.7/stream", QUICK)
    message = str(caught.value)
    assert f"asked through the proxy http://me:***@127.0.0.1:{dead_port}" in message
    assert f"the environment variable {variable} names" in message
    assert "add 192.0.2.7 to no_proxy" in message
    assert "s3cret" not in message


@pytest.mark.parametrize("value", ["garbage", "ftp://", "http://", "http://["])
def test_a_broken_proxy_variable_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", value)
    with pytest.raises(SourceError, match=re.escape("asked through the proxy " + value)):
        open_source("http://192.0.2.7/stream", QUICK)


def test_whoever_is_not_asked_through_a_proxy_is_not_said_to_be(
    monkeypatch: pytest.MonkeyPatch, dead_port: int
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{dead_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(SourceError, match=rf"nothing listens at 127\.0\.0\.1:{dead_port}"):
        open_source(f"http://127.0.0.1:{dead_port}/stream", QUICK)
    assert not through_proxy(StreamAddress.parse("rtsp://192.0.2.7/s"), ffmpeg=True)
    assert through_proxy(StreamAddress.parse("rtsps://192.0.2.7/s"), ffmpeg=True)  # FFmpeg's TLS takes http_proxy
    assert not through_proxy(StreamAddress.parse("udp://0.0.0.0:5"), ffmpeg=True)
    assert not through_proxy(StreamAddress.parse("https://192.0.2.7/s"))
