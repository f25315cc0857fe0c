"""What a video file's structure says: cut or whole, its codec, whether it counts its frames."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from framegate.runtime.errors import SourceError
from framegate.runtime.sources.container import Container, inspect
from framegate.runtime.sources.open import open_source
from framegate.runtime.sources.synthetic import SyntheticSource

COUNT = 12
KINDS = [(".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "mp4v"), (".webm", "VP80"), (".ts", "MPG2"), (".flv", "FLV1")]
KINDS += [(".wmv", "WMV2"), (".mov", "mp4v")]


@pytest.fixture(params=KINDS, ids=lambda kind: str(kind[0]))
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    suffix, codec = request.param
    return write(tmp_path / f"a{suffix}", codec)


def write(path: Path, codec: str) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, (320, 240))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV writes no {path.suffix}")
    with SyntheticSource(320, 240, frames=COUNT, realtime=False) as source:
        for _ in range(COUNT):
            frame = source.read()
            assert frame is not None
            writer.write(frame.image)
    writer.release()
    return path


def play(path: Path) -> int:
    with open_source(str(path), realtime=False) as source:
        return sum(1 for _ in iter(source.read, None))


def test_a_whole_file_is_whole(clip: Path) -> None:
    assert not inspect(clip).is_cut
    assert play(clip) == COUNT


@pytest.mark.parametrize("share", [0.99, 0.7])
def test_a_cut_file_is_cut(clip: Path, share: float) -> None:
    data = clip.read_bytes()
    clip.write_bytes(data[: int(share * len(data)) | 1])  # not between two packets of an MPEG-TS
    assert inspect(clip).is_cut
    with pytest.raises(SourceError, match=r"broke off after frame|cut off|its end is missing"):
        play(clip)


def test_bytes_behind_the_end_are_no_cut(clip: Path) -> None:
    if clip.suffix in (".ts", ".flv", ".wmv"):
        pytest.skip("its last bytes are its end")
    with clip.open("ab") as file:
        file.write(b"\0" * 4 + b"some notes, " * 20)
    assert not inspect(clip).is_cut
    assert play(clip) == COUNT


def stretch(path: Path, factor: float) -> Path:
    """State a longer duration in a Matroska file, as one whose last pictures come slowly does."""
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    (duration,) = struct.unpack(">d", data[at : at + 8])
    data[at : at + 8] = struct.pack(">d", factor * duration)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "mp4v"), (".webm", "VP80")])
def test_a_recording_of_varying_rate_is_whole(tmp_path: Path, suffix: str, codec: str) -> None:
    """The decoder's number of frames is duration times rate there, which is any number."""
    path = stretch(write(tmp_path / f"vfr{suffix}", codec), 6.0)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) > 4 * COUNT
    capture.release()
    assert play(path) == COUNT


def test_only_counts_that_are_stored_count(tmp_path: Path) -> None:
    counts = {suffix: inspect(write(tmp_path / f"a{suffix}", codec)).counts_frames for suffix, codec in KINDS[:4]}
    assert counts == {".avi": True, ".mp4": True, ".mkv": False, ".webm": False}


def test_a_recorded_matroska_stream_has_no_sizes(tmp_path: Path) -> None:
    """Written without going back: the size of the whole is unknown; a cut is found in its last cluster."""
    path = write(tmp_path / "a.mkv", "mp4v")
    data = bytearray(path.read_bytes())
    at = data.index(b"\x18\x53\x80\x67") + 4
    data[at : at + 8] = b"\x01" + b"\xff" * 7
    path.write_bytes(data)
    assert not inspect(path).is_cut
    path.write_bytes(data[: len(data) // 2])
    assert inspect(path).is_cut


def with_codec(path: Path, codec: bytes) -> Path:
    data = path.read_bytes()
    at = data.index(b"V_MPEG4")
    size = data[at - 1] & 0x7F
    path.write_bytes(data[:at] + codec.ljust(size, b"\0") + data[at + size :])
    return path


@pytest.mark.parametrize("codec", ["V_AV1", "V_UNHEARD/OF"])
def test_a_codec_that_is_missing_is_named_and_the_file_not_called_damaged(tmp_path: Path, codec: str) -> None:
    path = with_codec(write(tmp_path / "a.mkv", "mp4v"), codec.encode())
    assert inspect(path).video == (codec.removeprefix("V_"),)
    name = "AV1" if "AV1" in codec else codec[2:]
    with pytest.raises(SourceError, match=rf"a\.mkv: {name}: this OpenCV has no decoder .*convert it"):
        open_source(str(path))


def test_a_file_without_a_picture_is_not_called_damaged(tmp_path: Path) -> None:
    sound = write(tmp_path / "a.mp4", "mp4v")
    sound.write_bytes(sound.read_bytes().replace(b"vide", b"soun", 1))
    assert inspect(sound) == Container(counts_frames=True, audio=True)
    wave = tmp_path / "a.wav"
    wave.write_bytes(
        b"RIFF\x24\x10\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\x10\0\0"
    )
    for path in (sound, wave):
        with pytest.raises(SourceError, match="has no video track, only sound"):
            open_source(str(path))


@pytest.mark.parametrize("seed", range(3))
def test_damaged_structures_raise_nothing(clip: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(clip.read_bytes())
    for _ in range(60):
        broken = bytearray(data)
        for at in rng.integers(0, min(len(data), 700), 8):
            broken[at] = rng.integers(0, 256)
        clip.write_bytes(broken)
        assert isinstance(inspect(clip), Container)
    clip.write_bytes(bytes(data[:4]) + os.urandom(3000))
    assert isinstance(inspect(clip), Container)
