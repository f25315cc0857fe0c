"""Boxes of an MP4 file with one video track (ISO/IEC 14496-12, the ISO base media file format).

Numbers are big-endian. A box is its size (4 bytes), its type (4 bytes) and its content; a full box begins its content
with a version (1 byte) and flags (3 bytes).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TIMESCALE = 90_000
"""Units of a second in which the track counts time."""
MOVIE_TIMESCALE = 1000
"""Units of a second in which the file counts its length: so coarse that 32 bits are 49 days."""
TRACK_ID = 1
_SYNC, _NOT_SYNC = (
    0x02000000,
    0x01010000,
)  # sample flags: depends on no other sample; depends on others, is no key frame
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)  # as it is: neither turned nor scaled
_LARGEST_U32 = 2**32 - 1


@dataclass(frozen=True)
class Clip:
    """What an encoder wrote into an MP4 file.

    Attributes:
        description: The box ``stsd``: codec, size, and what a decoder must know.
        sizes: Bytes of every sample (an encoded frame).
        sync: Numbers of the samples that can be decoded without others, from 0.
        data: All samples, one after the other.
    """

    description: bytes
    sizes: tuple[int, ...]
    sync: tuple[int, ...]
    data: bytes


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box of these contents."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full_box(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    """A box with version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def boxes_in(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Type and content of every box.

    Raises:
        ValueError: A box is longer than what contains it, or shorter than its head.
    """
    while data:
        size, kind = struct.unpack_from(">I4s", data) if len(data) >= 8 else (0, b"")
        head = 8
        if size == 1 and len(data) >= 16:
            size, head = struct.unpack_from(">Q", data, 8)[0], 16
        if not head <= size <= len(data):
            raise ValueError(f"box {kind!r} claims {size} of {len(data)} bytes")
        yield kind, data[head:size]
        data = data[size:]


def read_clip(file: bytes) -> Clip:
    """Take an MP4 file apart that has one video track, all of whose samples lie one after the other in one ``mdat``.

    Raises:
        ValueError: It is another kind of file.
    """
    top = dict(boxes_in(memoryview(file)))
    table = top.get(b"moov", memoryview(b""))
    for kind in (b"trak", b"mdia", b"minf", b"stbl"):
        table = dict(boxes_in(table)).get(kind, memoryview(b""))
    found = dict(boxes_in(table))
    data = top.get(b"mdat", memoryview(b""))
    if not {b"stsd", b"stsz"} <= found.keys() or b"ctts" in found:
        raise ValueError("no video track without reordered frames")
    same, count = struct.unpack_from(">II", found[b"stsz"], 4)
    sizes = (same,) * count if same else struct.unpack_from(f">{count}I", found[b"stsz"], 12)
    if not count or sum(sizes) != len(data):
        raise ValueError(f"{count} samples of {sum(sizes)} bytes in {len(data)} bytes of data")
    sync = tuple(range(count))  # without a table every sample can be decoded by itself
    if b"stss" in found:
        sync = tuple(
            n - 1 for n in struct.unpack_from(f">{struct.unpack_from('>I', found[b'stss'], 4)[0]}I", found[b"stss"], 8)
        )
    return Clip(box(b"stsd", bytes(found[b"stsd"])), sizes, sync, bytes(data))


def file_type() -> bytes:
    """The box ``ftyp``."""
    return box(b"ftyp", b"isom", struct.pack(">I", 0x200), b"isom", b"iso2", b"iso6", b"mp41")


def movie_fragment(number: int, begins: int, step: int, clip: Clip) -> bytes:
    """The box ``moof``: makes the samples in the ``mdat`` behind it playable although nothing follows.

    Args:
        number: Of the fragment, from 1.
        begins: Time of its first sample.
        step: Time from sample to sample.
        clip: The samples.
    """
    sync = frozenset(clip.sync)
    samples = b"".join(struct.pack(">II", size, _SYNC if k in sync else _NOT_SYNC) for k, size in enumerate(clip.sizes))

    def made(data_offset: int) -> bytes:
        return box(
            b"moof",
            full_box(b"mfhd", 0, 0, struct.pack(">I", number)),
            box(
                b"traf",
                # flags: offsets count from the moof (0x020000), a duration for all samples (0x08)
                full_box(b"tfhd", 0, 0x020008, struct.pack(">II", TRACK_ID, step)),
                full_box(b"tfdt", 1, 0, struct.pack(">Q", begins)),
                # flags: where the data begin (0x01), size (0x200) and flags (0x400) of every sample
                full_box(b"trun", 0, 0x000601, struct.pack(">Ii", len(clip.sizes), data_offset), samples),
            ),
        )

    return made(len(made(0)) + 8)


def movie(
    size: tuple[int, int], description: bytes, duration: int, tables: Sequence[bytes], *, fragmented: bool
) -> bytes:
    """The box ``moov``.

    Args:
        size: Width and height in pixels.
        description: The box ``stsd``.
        duration: In units of `TIMESCALE`; 0 where fragments say it.
        tables: `sample_tables`.
        fragmented: Whether fragments follow.
    """
    length = min(duration * MOVIE_TIMESCALE // TIMESCALE, _LARGEST_U32)
    track_header = (
        struct.pack(">IIIII8xHHHH", 0, 0, TRACK_ID, 0, length, 0, 0, 0, 0)
        + _MATRIX
        + struct.pack(">II", size[0] << 16, size[1] << 16)
    )
    if duration > _LARGEST_U32:
        media_header = full_box(b"mdhd", 1, 0, struct.pack(">QQIQHH", 0, 0, TIMESCALE, duration, 0x55C4, 0))
    else:
        media_header = full_box(b"mdhd", 0, 0, struct.pack(">IIIIHH", 0, 0, TIMESCALE, duration, 0x55C4, 0))
    reference = full_box(b"dref", 0, 0, struct.pack(">I", 1), full_box(b"url ", 0, 1))  # 1: the data are in this file
    return box(
        b"moov",
        full_box(
            b"mvhd",
            0,
            0,
            struct.pack(">IIIIIH10x", 0, 0, MOVIE_TIMESCALE, length, 0x10000, 0x100),  # speed 1, volume 1
            _MATRIX,
            bytes(24),
            struct.pack(">I", TRACK_ID + 1),
        ),
        box(
            b"trak",
            full_box(b"tkhd", 0, 3, track_header),  # 3: enabled, in the movie
            box(
                b"mdia",
                media_header,
                full_box(b"hdlr", 0, 0, struct.pack(">I4s12x", 0, b"vide"), b"VideoHandler\0"),
                box(
                    b"minf",
                    full_box(b"vmhd", 0, 1, bytes(8)),
                    box(b"dinf", reference),
                    box(b"stbl", description, *tables),
                ),
            ),
        ),
        *(
            [box(b"mvex", full_box(b"trex", 0, 0, struct.pack(">IIIII", TRACK_ID, 1, 0, 0, _NOT_SYNC)))]
            if fragmented
            else []
        ),
    )


def sample_tables(
    step: int, sizes: Sequence[int], sync: Sequence[int], chunks: Sequence[tuple[int, int]]
) -> list[bytes]:
    """Where the samples of a finished file lie, and when they are shown.

    Args:
        step: Time from sample to sample.
        sizes: Bytes of every sample.
        sync: Numbers of the samples that can be decoded without others, from 0.
        chunks: Offset in the file and number of samples of every run of samples.
    """
    runs: list[tuple[int, int, int]] = []  # first chunk, from 1; samples in a chunk; description
    for number, (_, count) in enumerate(chunks, 1):
        if not runs or runs[-1][1] != count:
            runs.append((number, count, 1))
    times = [(len(sizes), step)] if sizes else []
    wide = bool(chunks) and chunks[-1][0] > _LARGEST_U32
    offsets = struct.pack(f">I{len(chunks)}{'Q' if wide else 'I'}", len(chunks), *(offset for offset, _ in chunks))
    return [
        full_box(b"stts", 0, 0, _counted(times)),
        full_box(b"stss", 0, 0, struct.pack(f">I{len(sync)}I", len(sync), *(k + 1 for k in sync))),
        full_box(b"stsc", 0, 0, _counted(runs)),
        full_box(b"stsz", 0, 0, struct.pack(f">II{len(sizes)}I", 0, len(sizes), *sizes)),
        full_box(b"co64" if wide else b"stco", 0, 0, offsets),
    ]


def _counted(rows: Sequence[tuple[int, ...]]) -> bytes:
    return struct.pack(">I", len(rows)) + b"".join(struct.pack(f">{len(row)}I", *row) for row in rows)
