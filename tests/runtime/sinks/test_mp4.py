"""MP4 files that play although their writer was killed, and are plain ones when it was not."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from recordings import fill, frames_in, small_disk

from framegate.runtime.errors import SinkError
from framegate.runtime.sinks.encoders import Mp4Encoder
from framegate.runtime.sinks.mp4_boxes import boxes_in, movie, read_clip, sample_tables
from framegate.runtime.sinks.mp4_file import Mp4File

SIZE = (160, 120)


def picture(number, size=SIZE):
    """Numbered by its brightness, which compression keeps; with a pattern that moves."""
    image = np.full((size[1], size[0], 3), 30 + 8 * (number % 25), np.uint8)
    cv2.circle(image, (10 + number % 100, 60), 8, (0, 0, 250), -1)
    return image


def encode(path, frames, each, fps=25.0, finish=True):
    """A video of so many frames, flushed after ``each``."""
    encoder = Mp4Encoder(path, fps, SIZE)
    for k in range(frames):
        encoder.write(picture(k))
        if k % each == each - 1:
            encoder.flush()
    if finish:
        encoder.close()


def kinds(path):
    return [kind for kind, _ in boxes_in(memoryview(path.read_bytes()))]


def test_a_finished_file_is_a_plain_mp4(tmp_path):
    path = tmp_path / "out.mp4"
    encode(path, 23, 10)
    assert kinds(path) == [b"ftyp", b"mdat", b"moov", b"free"]
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 23
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(25)
    for k in range(23):
        read, image = video.read()
        assert read
        assert abs(float(image[:20].mean()) - float(picture(k)[:20].mean())) < 4
    assert not video.read()[0]
    video.set(cv2.CAP_PROP_POS_FRAMES, 15)  # its index says where that is
    assert abs(float(video.read()[1][:20].mean()) - float(picture(15)[:20].mean())) < 4


def fragments(path):
    """Where every box `moof` and the `mdat` behind it lie."""
    at, found = 0, []
    data = path.read_bytes()
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"moof":
            found.append([at, at])
        if kind == b"mdat":
            found[-1][1] = at + size
        at += size
    return data, found


def test_fault_killed_at_any_moment_all_that_was_flushed_plays(tmp_path):
    path, cut = tmp_path / "out.mp4", tmp_path / "cut.mp4"
    encode(path, 32, 8, finish=False)
    data, found = fragments(path)
    assert len(found) == 4
    for number, (begin, end) in enumerate(found):
        assert begin % 4 == 0
        # The state of the file before the four bytes that say moof are written.
        hidden = data[: begin + 4] + b"free" + data[begin + 8 : end]
        for length in (begin, begin + 1, begin + 7, begin + 60, begin + 120, begin + 200, begin + 800, end):
            cut.write_bytes(hidden[:length])
            assert frames_in(cut) == 8 * number
        cut.write_bytes(data[:end])
        assert frames_in(cut) == 8 * (number + 1)


def test_fault_killed_while_it_is_finished(tmp_path):
    path, cut = tmp_path / "out.mp4", tmp_path / "cut.mp4"
    encode(path, 32, 8, finish=False)
    begin = path.stat().st_size
    encode(path, 32, 8)
    data = path.read_bytes()
    index = data[begin:]
    assert index[4:8] == b"moov"
    # What is written first is the index as a box that is skipped, then its type, then the head of the data.
    unfinished = data[:32] + struct.pack(">I4s8x", 16, b"free") + data[48:begin]
    for written in (0, 4, 9, 100, len(index)):
        cut.write_bytes(unfinished + (index[:4] + b"free" + index[8:])[:written])
        assert frames_in(cut) == 32
    cut.write_bytes(unfinished + index)
    assert frames_in(cut) == 32
    cut.write_bytes(data)
    assert frames_in(cut) == 32
    assert kinds(cut) == [b"ftyp", b"mdat", b"moov", b"free"]


@pytest.mark.parametrize("fps", [1.0, 7.5, 29.97, 240.0])
def test_rates_of_frames(tmp_path, fps):
    path = tmp_path / "out.mp4"
    encode(path, 12, 5, fps)
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(fps, rel=1e-3)
    assert frames_in(path) == 12


def test_without_a_flush_a_fragment_ends_after_two_seconds(tmp_path):
    path = tmp_path / "out.mp4"
    encode(path, 45, 1000, fps=10.0, finish=False)
    assert frames_in(path) == 40


def test_no_frame_no_video(tmp_path):
    path = tmp_path / "out.mp4"
    encode(path, 0, 1)
    assert kinds(path) == [b"ftyp", b"free"]


def test_fault_disk_full_keeps_what_fits_as_a_plain_mp4(tmp_path):
    with small_disk(tmp_path / "disk", 128) as disk:
        path = disk / "out.mp4"
        encoder = Mp4Encoder(path, 25.0, (160, 120))
        rng = np.random.default_rng(0)

        def until_full():
            for k in range(200):
                encoder.write(rng.integers(0, 255, (120, 160, 3), np.uint8))
                if k % 2:
                    encoder.flush()

        with pytest.raises(SinkError, match=r"No space left on device\); its first \d+ frames are kept") as caught:
            until_full()
        kept = int(str(caught.value).split("first ")[1].split()[0])
        assert kept >= 2
        encoder.close()
        assert frames_in(path) == kept
        assert kinds(path) == [b"ftyp", b"mdat", b"moov", b"free"]


def test_fault_disk_full_to_the_last_byte_leaves_fragments(tmp_path):
    with small_disk(tmp_path / "disk", 256) as disk:
        path = disk / "out.mp4"
        encoder = Mp4Encoder(path, 1000.0, (32, 32))
        for _ in range(1900):  # their index is longer than what is left of a page of memory
            encoder.write(np.full((32, 32, 3), 99, np.uint8))
        encoder.flush()
        fill(disk)
        with pytest.raises(SinkError, match=r"No space left on device\); its first 1900 frames are kept"):
            encoder.close()
        encoder.close()
        assert frames_in(path) == 1900


def test_what_is_no_clip_is_refused():
    for data in (b"", b"\0\0\0", struct.pack(">I4s", 99, b"moov"), struct.pack(">I4s", 4, b"moov") + bytes(8)):
        with pytest.raises(ValueError, match=r"claims|no video track"):
            read_clip(data)


def test_a_clip_is_what_was_put_in(tmp_path):
    path = tmp_path / "plain.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, SIZE)
    for k in range(15):
        writer.write(picture(k))
    writer.release()
    clip = read_clip(path.read_bytes())
    assert len(clip.sizes) == 15
    assert clip.sync[0] == 0
    assert sum(clip.sizes) == len(clip.data)
    assert clip.description[4:8] == b"stsd"
    # What is written from it holds the same samples.
    tables = sample_tables(3600, clip.sizes, clip.sync, [(0, 15)])
    again = read_clip(movie(SIZE, clip.description, 15 * 3600, tables, fragmented=False) + _data(clip))
    assert again == clip


def _data(clip):
    return struct.pack(">I4s", 8 + len(clip.data), b"mdat") + clip.data


def test_beyond_four_gigabytes_and_thirteen_hours_numbers_are_wide():
    far = 5 * 2**30
    tables = sample_tables(3600, (7, 7, 7), (0,), [(100, 2), (far, 1)])
    found = dict(boxes_in(memoryview(b"".join(tables))))
    assert struct.unpack(">IIQQ", bytes(found[b"co64"])) == (0, 2, 100, far)
    assert struct.unpack(">II6I", bytes(found[b"stsc"])) == (0, 2, 1, 2, 1, 2, 1, 1)
    assert b"stco" in dict(boxes_in(memoryview(b"".join(sample_tables(3600, (7,), (0,), [(100, 1)])))))
    day = 24 * 3600 * 90_000
    table = dict(boxes_in(memoryview(movie(SIZE, b"", day, (), fragmented=False))[8:]))[b"trak"]
    header = dict(boxes_in(dict(boxes_in(table))[b"mdia"]))[b"mdhd"]
    assert struct.unpack_from(">IQQIQ", header)[3:] == (90_000, day)
    assert header[0] == 1


def test_an_mp4_without_frames_in_its_index_is_closed_once(tmp_path):
    file = Mp4File(tmp_path / "out.mp4", 25.0, SIZE)
    file.close()
    file.close()
    assert file.frames == 0
