"""Recordings of which a bit is not what it was: they are named, whatever reads them, and nothing else happens."""

from __future__ import annotations

import json
import struct

import pytest
from flipped_bits import fuzz
from make_drive import DRIVE

from framegate.runtime.errors import DataError
from framegate.runtime.mcap_messages import Contents
from framegate.runtime.replay.replay import read_recording, replay

pytest.importorskip("mcap")


def flipped(path, at, bit, source=DRIVE):
    data = bytearray(source.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)
    return path


def boxes_file(path, **options):
    """Boxes of 50 frames, as another program writes them."""
    from mcap.writer import Writer

    with path.open("wb") as file:
        writer = Writer(file, chunk_size=500, **options)
        writer.start()
        channel = writer.register_channel("/boxes", "json", 0)
        for number in range(50):
            record = {"frame": number, "boxes": [{"box": [number, 2, 30, 40], "label": "car", "score": 0.5}]}
            writer.add_message(channel, number, json.dumps(record).encode(), number, number)
        writer.finish()
    return path


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("at", [9, 12, 14, 16])
def test_fault_flipped_length_of_a_record_is_damage(tmp_path, at, bit):
    """Of the first record: it is anything from a few bytes to nine exabytes long."""
    contents = Contents(flipped(tmp_path / "flipped.mcap", at, bit))
    found = [message.data for message in contents.messages(lambda topic: True)]
    assert contents.broken_off
    assert not found
    with pytest.raises(DataError, match="it broke off, or is damaged, before it says"):
        read_recording(contents.path)


def test_fault_flipped_bits_end_no_replay():
    lines, last = fuzz(DRIVE, "replayed", 400, 400)
    assert not lines
    assert " read, " in last


def test_fault_flipped_bits_end_no_reading_of_boxes(tmp_path):
    from mcap.writer import CompressionType

    for kind in (CompressionType.ZSTD, CompressionType.LZ4, CompressionType.NONE):
        path = boxes_file(tmp_path / "boxes.mcap", compression=kind)
        lines, _ = fuzz(path, "boxes", 400, 300)
        assert not lines
    lines, _ = fuzz(boxes_file(path, use_chunking=False), "boxes", 400, 300)
    assert not lines


def chunk_of(path):
    """Where the content of the first chunk begins."""
    data, at = path.read_bytes(), 8
    while data[at] != 6:
        at += 9 + struct.unpack_from("<Q", data, at + 1)[0]
    return at + 9


@pytest.mark.parametrize("byte", range(8))
def test_fault_flipped_size_of_a_chunk_takes_no_memory(tmp_path, byte):
    contents = Contents(flipped(tmp_path / "flipped.mcap", chunk_of(DRIVE) + 16 + byte, 4))
    assert not list(contents.messages(lambda topic: True))
    assert "a chunk cannot be as large as it says" in contents.broken_off


@pytest.mark.parametrize("times", [1, 1 << 17])
def test_a_chunk_that_does_not_say_its_size_is_read_if_it_can_be_so_large(tmp_path, times):
    """Compressed as a stream, which other writers do."""
    import zstandard

    data = struct.pack("<BQ", 4, 26) + struct.pack("<HHI", 1, 0, 6) + b"/boxes" + struct.pack("<I", 0) + bytes(8)
    packed = zstandard.ZstdCompressor(write_content_size=False).compress(data)
    content = struct.pack("<QQQII", 0, 0, len(data) * times, 0, 4) + b"zstd" + struct.pack("<Q", len(packed)) + packed
    path = tmp_path / "stream.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + struct.pack("<BQ", 6, len(content)) + content + struct.pack("<BQ", 15, 0))
    contents = Contents(path)
    assert list(contents.chunks()) == ([data] if times == 1 else [])
    assert contents.broken_off == ("" if times == 1 else "a chunk cannot be as large as it says")


def test_fault_flipped_bit_of_a_verdict_is_never_a_verdict(tmp_path):
    """It was one before: the reader of replay did not look at the sum of a chunk."""
    from mcap.writer import CompressionType, Writer

    recording = read_recording(DRIVE)
    path = tmp_path / "plain.mcap"
    with path.open("wb") as file:
        writer = Writer(file, compression=CompressionType.NONE)
        writer.start()
        writer.add_metadata("framegate.recording", recording.to_metadata())
        channels = {}
        for message in Contents(DRIVE).messages(lambda topic: True):
            if message.topic not in channels:
                channels[message.topic] = writer.register_channel(message.topic, "json", 0)
            writer.add_message(channels[message.topic], message.log_ns, message.data, message.log_ns, message.sequence)
        writer.finish()
    assert replay(path, recording, recording.calibration).unlike == 0
    at = path.read_bytes().index(b'"entropy":0.') + len('"entropy":0.')
    found = replay(flipped(tmp_path / "flipped.mcap", at, 0, path), recording, recording.calibration)
    assert found.verdicts == 0
    assert "crc" in found.broken_off


def test_metadata_behind_the_messages_are_found(tmp_path):
    """Tools that sort or shorten a file put them there."""
    from mcap.writer import Writer

    recording = read_recording(DRIVE)
    path = tmp_path / "sorted.mcap"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        channel = writer.register_channel("/other", "json", 0)
        writer.add_message(channel, 1, b"{}", 1)
        writer.flush()
        writer.add_metadata("framegate.recording", recording.to_metadata())
        writer.finish()
    assert read_recording(path) == recording
