"""Options of sources, the clocks of captures, and what is adjusted on the way in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from framegate.runtime.capture_clock import DriverClock, StreamClock
from framegate.runtime.errors import SourceError, UsageError
from framegate.runtime.source import open_source
from framegate.runtime.source_adjust import AdjustedSource
from framegate.runtime.source_live import FIRST_DELAY_S, LONGEST_DELAY_S, Captured, Connection, LiveSource
from framegate.runtime.source_options import SourceOptions, parse_size
from framegate.runtime.source_synthetic import SyntheticSource, read_frame_number
from framegate.runtime.stream_address import StreamAddress
from framegate.runtime.verdict import Image

MS = 1_000_000
SECOND = 1_000 * MS


def pictures(folder: Path, count: int) -> None:
    with SyntheticSource(128, 64, frames=count, realtime=False) as source:
        for frame in iter(source.read, None):
            assert frame is not None
            cv2.imwrite(str(folder / f"{frame.frame_id}.png"), frame.image)


def write_video(path: Path, count: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (128, 64))
    assert writer.isOpened()
    with SyntheticSource(128, 64, frames=count, realtime=False) as source:
        for frame in iter(source.read, None):
            assert frame is not None
            writer.write(frame.image)
    writer.release()


# --- clocks ----------------------------------------------------------------------------------------------------------


def test_a_monotonic_driver_is_believed_also_when_the_frame_is_old() -> None:
    clock, now = DriverClock(), 5000 * SECOND
    assert clock.captured_ns((now - 30 * MS) / 1e6, now) == now - 30 * MS
    assert clock.trusted
    now += 10 * SECOND  # the process was held up: the frame is truly old
    assert clock.captured_ns((now - 9 * SECOND) / 1e6, now) == now - 9 * SECOND


@pytest.mark.parametrize(
    "stamp_ms", [0.0, -5.0, float("nan"), float("inf"), 1e300, 1.7e12, 4_000_000.0], ids=lambda value: f"{value:g}"
)
def test_other_stamps_are_not(stamp_ms: float) -> None:
    clock, now = DriverClock(), 5000 * SECOND
    assert clock.captured_ns(stamp_ms, now) == now
    assert not clock.trusted


def test_a_stamp_that_does_not_advance_ends_the_belief() -> None:
    clock, now = DriverClock(), 5000 * SECOND
    clock.captured_ns((now - 30 * MS) / 1e6, now)
    assert clock.captured_ns((now - 30 * MS) / 1e6, now + 33 * MS) == now + 33 * MS
    assert clock.captured_ns((now + 40 * MS) / 1e6, now + 66 * MS) == now + 40 * MS


def test_a_queue_that_builds_up_shows_in_the_age() -> None:
    clock = StreamClock()
    delays = [0] * 30 + [20 * k for k in range(30)] + [0] * 5
    ages = []
    for k, delay in enumerate(delays):
        now = 1000 * SECOND + 33 * k * MS + delay * MS
        ages.append((now - clock.captured_ns(33.0 * k, now)) / MS)
    assert max(ages[:30]) < 1
    assert ages[30:60] == pytest.approx([20 * k for k in range(30)], abs=1)
    assert max(ages[60:]) < 1


@pytest.mark.parametrize(("rate", "worst_ms"), [(1 + 100e-6, 1), (1 - 100e-6, 1), (1 + 1000e-6, 80)])
def test_a_clock_that_is_a_little_off_does_not_age_the_frames(rate: float, worst_ms: float) -> None:
    clock, age = StreamClock(), 0.0
    for k in range(3000):  # 100 s
        now = 1000 * SECOND + round(k * 33.333 * MS * rate)
        age = (now - clock.captured_ns(33.333 * k, now)) / MS
    assert 0 <= age <= worst_ms + 1
    assert worst_ms < 10 or age > 50  # beyond the tolerance it does show


def test_a_stream_without_times_counts_as_captured_on_arrival() -> None:
    clock = StreamClock()
    for pts in (0.0, 0.0, 0.0, float("nan"), -1.0):
        assert clock.captured_ns(pts, 7 * SECOND) == 7 * SECOND
    clock = StreamClock()
    clock.captured_ns(9e6, 7 * SECOND)
    assert clock.captured_ns(10.0, 8 * SECOND) == 8 * SECOND  # it began again
    assert clock.captured_ns(43.0, 8 * SECOND + 50 * MS) == pytest.approx(8 * SECOND + 33 * MS, abs=MS // 10)


# --- breaking off and coming back ------------------------------------------------------------------------------------


class Scripted:
    """A connection that delivers so many pictures and then breaks."""

    def __init__(self, pictures: int) -> None:
        self.frame_size: tuple[int, int] | None = None
        self.fps: float | None = None
        self.left = pictures
        self.closed = 0

    def read(self) -> Captured:
        if not self.left:
            raise SourceError("camera: gone")
        self.left -= 1
        return Captured(np.zeros((20, 20, 3), np.uint8), time.monotonic_ns())

    def close(self) -> None:
        self.closed += 1


def scripted(outcomes: Iterable[int]) -> tuple[LiveSource, list[float], list[Scripted]]:
    """A source whose n-th connection delivers so many pictures; -1 cannot be opened. Waits are recorded, not waited."""
    remaining, opened, waits = iter(outcomes), [], []

    def connect() -> Connection:
        count = next(remaining)
        if count < 0:
            raise SourceError("camera: not there")
        opened.append(Scripted(count))
        return opened[-1]

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return self.is_set()

    source = LiveSource("camera", connect)
    vars(source)["_closed"] = Impatient()
    return source, waits, opened


def test_the_waits_double_up_to_a_limit_and_start_again_after_a_frame() -> None:
    source, waits, opened = scripted([1, *[-1] * 7, 0, 0, 2, 1])
    assert source.read() is not None
    assert source.read() is not None
    expected = [min(FIRST_DELAY_S * 2**k, LONGEST_DELAY_S) for k in range(10)]
    assert waits == expected  # connections that open and deliver nothing do not shorten it
    assert (source.status.reconnects, source.status.state) == (1, "open")
    assert source.read() is not None
    assert source.read() is not None
    assert waits == [*expected, FIRST_DELAY_S]
    assert source.status.reconnects == 2
    assert [connection.closed for connection in opened] == [1] * 4 + [0]
    source.close()
    assert [connection.closed for connection in opened] == [1] * 5
    assert source.read() is None


def test_what_cannot_be_opened_at_first_is_an_error() -> None:
    with pytest.raises(SourceError, match="not there"):
        scripted([-1])


def test_warm_up_frames_are_left_out_after_every_opening() -> None:
    source, _, _ = scripted([5, 5, 5])
    adjusted = AdjustedSource(source, skip=3)
    assert [frame.frame_id for _ in range(6) if (frame := adjusted.read())] == list(range(6))
    assert adjusted.status.skipped == 9
    assert adjusted.status is source.status
    adjusted.close()
    assert adjusted.read() is None


# --- adjusted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flip", "code"), [("horizontal", 1), ("vertical", 0), ("180", -1)])
def test_flips(flip: str, code: int) -> None:
    uri = "synthetic://?width=128&height=64&frames=3"
    with open_source(uri, SourceOptions(flip=flip), realtime=False) as source:
        flipped = [frame.image for frame in iter(source.read, None) if frame is not None]
    with open_source(uri, realtime=False) as source:
        plain: list[Image] = [frame.image for frame in iter(source.read, None) if frame is not None]
    assert all(np.array_equal(cv2.flip(a, code), b) for a, b in zip(plain, flipped, strict=True))


def test_fps_plays_files_and_pictures_and_skip_leaves_the_first_out(tmp_path: Path) -> None:
    pictures(tmp_path, 6)
    write_video(tmp_path / "a.avi", 6)
    for uri in (str(tmp_path), str(tmp_path / "a.avi")):
        started = time.monotonic_ns()
        with open_source(uri, SourceOptions(fps=100, skip=2)) as source:
            assert (source.live, source.fps, source.length) == (True, 100, 4)
            frames = [frame for frame in iter(source.read, None) if frame is not None]
        assert [read_frame_number(frame.image) for frame in frames] == [2, 3, 4, 5]
        assert [frame.frame_id for frame in frames] == [0, 1, 2, 3]
        assert all(frame.captured_ns - started >= (frame.frame_id + 2) * 10 * MS for frame in frames)


def test_patterns_of_file_names(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        pictures(tmp_path / folder, 12)
    (tmp_path / "a" / "notes.txt").write_text("none")
    for pattern, count in (("a/*", 12), ("a/?.png", 10), ("*/1*.png", 6), ("**/[0-4].png", 10)):
        with open_source(str(tmp_path / pattern)) as source:
            assert source.length == count
            numbers = [read_frame_number(frame.image) for frame in iter(source.read, None) if frame is not None]
        assert len(numbers) == count
        assert numbers[: count // 2] == sorted(numbers[: count // 2])
    with pytest.raises(SourceError, match=r"1 entries match, no image among them"):
        open_source(str(tmp_path / "a" / "*.txt"))
    with pytest.raises(SourceError, match=r"0 entries match"):
        open_source(str(tmp_path / "c" / "*"))


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (0, 480)},
        {"size": (640, 99999)},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"format": "h264"},
        {"exposure_ms": -1.0},
        {"exposure_ms": float("nan")},
        {"buffers": 0},
        {"flip": "sideways"},
        {"skip": -1},
        {"open_timeout_s": 0.0},
        {"read_timeout_s": float("inf")},
        {"transport": "carrier pigeon"},
    ],
    ids=str,
)
def test_values_out_of_range_are_wrong_usage(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=rf"source option {next(iter(wrong))} is .*; expected"):
        SourceOptions(**wrong)  # type: ignore[arg-type]


def test_parameters_in_an_address() -> None:
    options = SourceOptions(fps=15, skip=4).with_query("0", "size=1280x720&fps=30&format=MJPEG&buffers=2&reconnect=no")
    assert options == SourceOptions((1280, 720), 30.0, "mjpeg", buffers=2, skip=4, reconnect=False)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("speed=3", "unknown parameter 'speed'; possible are buffers"),
        ("fps=3&fps=4", "'fps' is given twice"),
        ("fps=fast", "expected a number"),
        ("size=720p", "expected WIDTHxHEIGHT"),
        ("buffers=1.5", "expected a whole number"),
        ("reconnect=maybe", "expected yes or no"),
        ("fps=", "expected a number"),
        ("format=h264", "expected one of mjpeg, yuyv, nv12"),
    ],
)
def test_wrong_parameters_in_an_address(query: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_source(f"/dev/video0?{query}" if Path("/dev/video0").exists() else f"0?{query}")


@pytest.mark.parametrize(
    ("uri", "options", "says"),
    [
        ("synthetic://", SourceOptions(exposure_ms=5), "has no exposure_ms; possible are flip, skip"),
        ("0", SourceOptions(transport="udp"), "camera 0 has no transport"),
        ("rtsp://127.0.0.1/x", SourceOptions(size=(640, 480)), "rtsp:// has no size"),
    ],
)
def test_what_a_source_would_ignore_is_refused(uri: str, options: SourceOptions, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_source(uri, options)


@pytest.mark.parametrize("text", ["", "640", "640x", "x480", "640x480x3", "-640x480", "640 x 480"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="WIDTHxHEIGHT"):
        parse_size(text)


def test_addresses() -> None:
    address = StreamAddress.parse("rtsp://me:p%40ss@[fe80::1]:8554/a?b=c")
    assert address.shown == "rtsp://me:***@[fe80::1]:8554/a?b=c"
    assert address.bare == "rtsp://[fe80::1]:8554/a?b=c"
    assert (address.user, address.password, address.place) == ("me", "p@ss", "[fe80::1]:8554")
    assert StreamAddress.parse("RTSP://camera").port == 554
    assert StreamAddress.parse("https://camera/x").place == "camera:443"
