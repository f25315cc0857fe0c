"""What a video file says about itself: whether its end is there, which codecs it needs, whether its count is a count.

A decoder that comes to the end of a cut file calls that the end. A header's frame count cannot tell either: where the
container stores none (Matroska, FLV, MPEG-TS, MP4 in fragments), OpenCV multiplies duration and rate, which for a
recording of varying rate is any number. But every container states the sizes of its parts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"udta", b"uuid", b"moof", b"mfra", b"sidx", b"styp")
"""What an MP4 or MOV file has at its top level."""
_TS_PACKET, _TS_SYNC = 188, 0x47
_EBML, _SEGMENT, _CLUSTER, _TRACKS, _TRACK = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0x1654AE6B, 0xAE
_TRACK_TYPE, _CODEC_ID = 0x83, 0x86
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_LARGEST_HEADER = 16 * 2**20
"""Bytes; a track list is never larger."""
_AUDIO_FILES = (b"ID3", b"fLaC", b"\xff\xfb", b"\xff\xf3", b"\xff\xf1")


@dataclass(frozen=True, slots=True)
class Container:
    """What a file's structure says.

    Attributes:
        is_cut: A part of it is longer than what is left of the file. False also where that cannot be known: in other
            containers, and where sizes were left open, as in a recorded stream.
        counts_frames: It stores how many frames it holds.
        video: Codecs of its video tracks, in the container's own words; empty if it names none.
        audio: Whether it names an audio track.
    """

    is_cut: bool = False
    counts_frames: bool = False
    video: tuple[str, ...] = ()
    audio: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    name: int | bytes
    start: int
    end: int
    """Where it begins (behind its own head) and ends."""


def inspect(path: Path) -> Container:
    """Look at a file's outermost parts and its list of tracks. Whatever is not understood is left out."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(_TS_PACKET + 1)
            for fits, read in _KINDS:
                if fits(head):
                    return read(file, end)
    except (OSError, ValueError):
        pass
    return Container()


def _is_mp4(head: bytes) -> bool:
    return head[4:8] in _BOXES


def _is_ts(head: bytes) -> bool:
    return len(head) > _TS_PACKET and head[0] == head[_TS_PACKET] == _TS_SYNC


# --- MP4 and MOV: boxes (ISO 14496-12) --------------------------------------------------------------------------------


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[_Part]:
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        size, start = int.from_bytes(head[:4], "big"), at + 8
        if size == 1:
            size, start = int.from_bytes(head[8:16], "big"), at + 16
        elif size == 0:  # up to the end of the file, also in a recorded stream
            size = end - at
        if size < start - at:
            return
        yield _Part(head[4:8], start, at + size)
        at += size


def _mp4(file: BinaryIO, end: int) -> Container:
    is_cut, fragments = False, False
    video: list[str] = []
    audio = False
    for box in _boxes(file, 0, end):
        if box.name not in _BOXES and box.end > end:  # bytes behind the last box
            break
        is_cut = box.end > end
        fragments = fragments or box.name == b"moof"
        if box.name == b"moov":
            for kind, codec in _mp4_tracks(file, box):
                video += [codec] * (kind == b"vide")
                audio = audio or kind == b"soun"
    return Container(is_cut, not fragments, tuple(video), audio)


def _mp4_tracks(file: BinaryIO, moov: _Part) -> Iterator[tuple[bytes, str]]:
    for track in _boxes(file, moov.start, moov.end):
        if track.name != b"trak":
            continue
        kind, codec = b"", b""
        for box in _inside(file, track, (b"mdia", b"minf", b"stbl")):
            if box.name == b"hdlr" and not kind:  # the first is that of the media, a later one that of its data
                kind = _bytes(file, box.start + 8, 4)
            elif box.name == b"stsd":
                codec = _bytes(file, box.start + 12, 4)
        yield kind, codec.decode("latin-1").strip()


def _inside(file: BinaryIO, outer: _Part, opened: tuple[bytes, ...]) -> Iterator[_Part]:
    for box in _boxes(file, outer.start, outer.end):
        if box.name in opened:
            yield from _inside(file, box, opened)
        else:
            yield box


def _bytes(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


# --- AVI: chunks (RIFF) -----------------------------------------------------------------------------------------------


def _chunks(file: BinaryIO, at: int, end: int) -> Iterator[_Part]:
    while at + 8 <= end:
        head = _bytes(file, at, 12)
        size = int.from_bytes(head[4:8], "little")
        is_list = head[:4] in (b"RIFF", b"LIST")
        name = head[:4] + head[8:12] if is_list else head[:4]
        yield _Part(name, at + (12 if is_list else 8), at + 8 + size)
        at += 8 + size + size % 2  # padded to even addresses


def _avi(file: BinaryIO, end: int) -> Container:
    is_cut = False
    video: list[str] = []
    audio = False
    for riff in _chunks(file, 0, end):
        if not isinstance(riff.name, bytes) or not riff.name.startswith(b"RIFF"):
            break
        is_cut = riff.end > end
        for part in _chunks(file, riff.start, min(riff.end, end)):
            if part.name != b"LISThdrl":
                continue
            for stream in _chunks(file, part.start, min(part.end, end)):
                if stream.name == b"LISTstrl":
                    head = _bytes(file, stream.start + 8, 8)
                    video += [head[4:8].decode("latin-1").strip("\0 ")] * (head[:4] == b"vids")
                    audio = audio or head[:4] == b"auds"
    return Container(is_cut, True, tuple(video), audio)


# --- Matroska and WebM: elements (RFC 8794, RFC 9559) -----------------------------------------------------------------


def _elements(file: BinaryIO, at: int, end: int) -> Iterator[_Part]:
    """Elements one after the other; one of unknown size ends where its content begins, so that this comes next."""
    while at + 2 <= end:
        head = _bytes(file, at, 12)
        name_size = 9 - head[0].bit_length()
        if name_size > 4 or len(head) <= name_size:
            return
        size_size = 9 - head[name_size].bit_length()
        if size_size > 8:
            return
        start = at + name_size + size_size
        size = int.from_bytes(head[name_size : name_size + size_size], "big") & (1 << 7 * size_size) - 1
        if size == (1 << 7 * size_size) - 1:
            size = 0
        yield _Part(int.from_bytes(head[:name_size], "big"), start, start + size)
        at = start + size


def _matroska(file: BinaryIO, end: int) -> Container:
    video: list[str] = []
    audio = is_cut = False
    segment = next((part for part in _elements(file, 0, end) if part.name == _SEGMENT), None)
    if segment is None:
        return Container()
    known = segment.end > segment.start
    for part in _elements(file, segment.start, min(segment.end, end) if known else end):
        is_cut = is_cut or part.end > end
        if part.name == _TRACKS and part.end - part.start <= _LARGEST_HEADER:
            for kind, codec in _matroska_tracks(file, part, end):
                video += [codec] * (kind == 1)
                audio = audio or kind == 2
        if known and part.name == _CLUSTER and (video or audio):
            break
    return Container(segment.end > end if known else is_cut, False, tuple(video), audio)


def _matroska_tracks(file: BinaryIO, tracks: _Part, end: int) -> Iterator[tuple[int, str]]:
    for track in _elements(file, tracks.start, min(tracks.end, end)):
        if track.name != _TRACK:
            continue
        kind, codec = 0, b""
        for field in _elements(file, track.start, min(track.end, end)):
            if field.name == _TRACK_TYPE:
                kind = int.from_bytes(_bytes(file, field.start, min(8, field.end - field.start)), "big")
            elif field.name == _CODEC_ID:
                codec = _bytes(file, field.start, min(64, field.end - field.start))
        yield kind, codec.partition(b"\0")[0].decode("latin-1").removeprefix("V_")


# --- the others: only whether their end is there ----------------------------------------------------------------------


def _mpeg_ts(file: BinaryIO, end: int) -> Container:
    return Container(end % _TS_PACKET != 0)


def _flv(file: BinaryIO, end: int) -> Container:
    """Behind every tag stands its size (Adobe FLV 10.1, annex E)."""
    size = int.from_bytes(_bytes(file, end - 4, 4), "big")
    tag = _bytes(file, max(0, end - 4 - size), 4)
    whole = 11 <= size <= end - 4 and tag[0] & 0x1F in (8, 9, 18) and int.from_bytes(tag[1:4], "big") == size - 11
    return Container(not whole)


def _asf(file: BinaryIO, end: int) -> Container:
    at = 0
    while at + 24 <= end:
        size = int.from_bytes(_bytes(file, at + 16, 8), "little")
        if size < 24:
            return Container()  # left open by a live recording
        at += size
    return Container(at > end)


def _ogg(file: BinaryIO, end: int) -> Container:
    """Pages (RFC 3533)."""
    at = 0
    while at + 27 <= end:
        head = _bytes(file, at, 27 + 255)
        if not head.startswith(b"OggS"):
            return Container()
        count = head[26]
        at += 27 + count + sum(head[27 : 27 + count])
    return Container(at != end)


def _gif(file: BinaryIO, end: int) -> Container:
    return Container(b"\x3b" not in _bytes(file, max(0, end - 64), 64))


def _audio(file: BinaryIO, end: int) -> Container:
    return Container(audio=True)


_KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], Container]], ...] = (
    (_is_ts, _mpeg_ts),
    (_is_mp4, _mp4),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"WAVE", _audio),
    (lambda head: head.startswith(b"RIFF"), _avi),
    (lambda head: head.startswith(_EBML.to_bytes(4, "big")), _matroska),
    (lambda head: head.startswith(b"FLV\x01"), _flv),
    (lambda head: head.startswith(_ASF), _asf),
    (lambda head: head.startswith(b"OggS"), _ogg),
    (lambda head: head.startswith(b"GIF8"), _gif),
    (lambda head: head.startswith(_AUDIO_FILES), _audio),
)
