"""Options of sources, the clocks of captures, and what is adjusted on the way in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest

from framegate.runtime.errors import SourceError, UsageError
from framegate.runtime.health.check import CameraHealth
from framegate.runtime.passwords import hide_passwords
from framegate.runtime.sources.address import StreamAddress
from framegate.runtime.sources.adjust import AdjustedSource
from framegate.runtime.sources.base import BaseSource
from framegate.runtime.sources.clock import ArrivalClock, DriverClock, StreamClock
from framegate.runtime.sources.live import FIRST_DELAY_S, LONGEST_DELAY_S, Captured, Connection, LiveSource
from framegate.runtime.sources.open import open_source
from framegate.runtime.sources.options import SourceOptions, parse_size
from framegate.runtime.sources.synthetic import SyntheticSource, read_frame_number
from framegate.runtime.verdict import NV12, Frame, Image, Reason

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


def believable(result: int, stamp_ms: float, now: int) -> bool:
    return result == now or (result <= now and abs(result - stamp_ms * 1e6) < 1000)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_driver_says_no_frame_is_from_the_future_or_from_nowhere(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clock, now = DriverClock(), 5000 * SECOND
    for _ in range(200):
        now += int(rng.integers(1, 200 * MS))
        wild = [0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e300, rng.normal() * 1e9]
        near = (now + rng.normal() * 100 * MS) / 1e6
        stamp = float(rng.choice([near, near, near, near, *wild]))
        assert believable(clock.captured_ns(stamp, now), stamp, now)
        assert clock.trusted or clock.captured_ns(0.0, now) == now


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_stream_says_no_frame_is_from_the_future(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clock, now, pts = StreamClock(), 5000 * SECOND, 0.0
    for _ in range(300):
        now += int(rng.integers(1, 100 * MS))
        pts += float(rng.normal(30, 40))
        said = float(rng.choice([pts, pts, pts, pts, 0.0, float("nan"), 1e300, -1e300]))
        assert 0 <= clock.captured_ns(said, now) <= now


class Queue:
    """A queue in front of a reader, as drivers have one: `depth` places, each free again when its frame is taken."""

    def __init__(self, arrivals: list[int], depth: int) -> None:
        self.arrivals, self.depth = list(arrivals), depth
        self.waiting: list[int] = []

    def take(self, asked: int) -> tuple[int, int]:
        """When the frame truly arrived, and when it is handed over."""
        while self.arrivals and self.arrivals[0] <= asked:
            arrival = self.arrivals.pop(0)
            if len(self.waiting) < self.depth:  # otherwise the driver has no room and the frame is lost
                self.waiting.append(arrival)
        if self.waiting:
            return self.waiting.pop(0), asked + 1000
        arrival = self.arrivals.pop(0)
        return arrival, arrival + 1000


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("seed", range(10))
def test_a_frame_without_a_stamp_is_never_taken_for_newer_than_it_is(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    arrivals = (1000 * SECOND + np.cumsum(rng.integers(5 * MS, 60 * MS, 3000))).tolist()
    queue, clock, now, latest = Queue(arrivals, depth), ArrivalClock(depth), 1000 * SECOND, 0
    first = True
    for _ in range(150):
        asked = now + int(rng.choice([10_000, 1 * MS, 30 * MS, 500 * MS]))
        arrival, now = queue.take(asked)
        captured = clock.captured_ns(asked, now)
        assert latest < captured <= now
        # Of the very first frame nothing is known. One for which one hardly waited may count as waited for.
        assert first or captured <= max(arrival, latest + 1) + 2 * MS
        latest, first = captured, False


def test_a_reader_that_waits_for_every_frame_sees_them_arrive() -> None:
    clock = ArrivalClock()
    times = [1000 * SECOND + 33 * MS * k for k in range(100)]
    assert [clock.captured_ns(now - 20 * MS, now) for now in times] == times


def test_a_reader_that_was_held_up_takes_no_old_frame_for_a_new_one() -> None:
    clock, now = ArrivalClock(), 1000 * SECOND
    clock.captured_ns(now - 20 * MS, now)
    late = now + 5 * SECOND
    assert clock.captured_ns(late, late + 1000) == now + 1
    assert clock.captured_ns(late + 10 * MS, late + 30 * MS) == late + 30 * MS


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


class Timed:
    """A connection whose frames were captured at given times."""

    frame_size: tuple[int, int] | None = None
    fps: float | None = None

    def __init__(self, times: list[int]) -> None:
        self.times = iter(times)

    def read(self) -> Captured:
        time_ns = next(self.times, None)
        if time_ns is None:
            raise SourceError("camera: gone")
        return Captured(np.zeros((20, 20, 3), np.uint8), time_ns)

    def close(self) -> None:
        pass


def limited(times: list[int], fps: float) -> list[int]:
    """Which of these frames get through."""
    source = AdjustedSource(LiveSource("camera", lambda: Timed(times), reconnect=False), fps=fps)
    found: list[int] = []
    with pytest.raises(SourceError, match="gone"):
        found.extend(frame.captured_ns for frame in iter(source.read, None) if frame is not None)
    assert source.status.skipped == len(times) - len(found)
    return found


@pytest.mark.parametrize(
    ("rate", "limit"), [(30, 20), (30, 15), (60, 25), (30, 29), (30, 30), (25, 30), (120, 7), (30, 0.5)]
)
@pytest.mark.parametrize("jitter", [0.0, 0.05])
def test_a_limited_rate_is_kept_and_used(rate: float, limit: float, jitter: float) -> None:
    rng = np.random.default_rng(0)
    seconds = 40
    ideal = np.arange(rate * seconds) / rate + rng.uniform(-jitter, jitter, round(rate * seconds)) / rate
    times = (1000 * SECOND + ideal * SECOND).astype(np.int64).tolist()
    found = limited(times, limit)
    expected = min(rate, limit) * seconds
    assert expected * 0.97 - 1 <= len(found) <= expected * 1.01 + 1
    gaps = np.diff(found)
    assert gaps.min() >= 0.4 * SECOND / limit  # made up for, but never two at once


def test_a_pause_is_no_credit_for_a_burst() -> None:
    times = [1000 * SECOND + 33 * MS * k for k in range(30)]
    times += [times[-1] + 10 * SECOND + 5 * MS * k for k in range(100)]  # what has queued up comes at once
    found = limited(times, 30.0)
    assert np.diff(found).min() > 29 * MS
    assert 14 <= len(found) - 30 <= 15  # in half a second


# --- adjusted --------------------------------------------------------------------------------------------------------


def test_fault_what_is_not_the_picture_that_it_should_be_is_rejected_and_no_error_of_the_source() -> None:
    """A pipeline of one's own, say, whose caps are not those that ``--format`` says."""

    class Odd(BaseSource):
        def _produce(self, frame_id: int) -> Frame:
            return Frame(frame_id, time.monotonic_ns(), np.zeros(shapes[frame_id], np.uint8), "", NV12)

    shapes = [(240, 320, 3), (241, 320), (360, 321), (100,), (360, 320)]
    with AdjustedSource(Odd("odd", live=True), flip="180") as source:
        frames = [frame for _ in shapes if (frame := source.read()) is not None]
    health = CameraHealth()
    found = [health.admit(frame.image, frame.pixel_format) for frame in frames]
    assert [set(each) for each in found] == [{Reason.BAD_INPUT}] * 4 + [set()]


@pytest.mark.parametrize(("flip", "code"), [("horizontal", 1), ("vertical", 0), ("180", -1)])
def test_flips(flip: str, code: int) -> None:
    uri = "synthetic://?width=128&height=64&frames=3"
    with open_source(uri, SourceOptions(flip=flip), realtime=False) as source:
        flipped = [frame.image for frame in iter(source.read, None) if frame is not None]
    with open_source(uri, realtime=False) as source:
        plain: list[Image] = [frame.image for frame in iter(source.read, None) if frame is not None]
    assert len(plain) == 3
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


@pytest.mark.parametrize(
    "options",
    [SourceOptions(), SourceOptions(skip=3), SourceOptions(fps=100, flip="180"), SourceOptions(fps=200, skip=1)],
    ids=["plain", "skip", "fps and flip", "fps and skip"],
)
def test_ages_in_a_loop_are_those_of_a_camera(tmp_path: Path, options: SourceOptions) -> None:
    """Later than the frame before (equal times are a STALE_FRAME), after the call began, and not in the future."""
    write_video(tmp_path / "a.avi", 5)
    pictures(tmp_path, 4)
    for uri in (str(tmp_path / "a.avi"), str(tmp_path / "*.png"), "synthetic://?width=128&height=64&fps=100&frames=4"):
        if options.fps is not None and uri.startswith("synthetic"):
            continue
        latest = 0
        with open_source(uri, options, loop=True) as source:
            for _ in range(12):
                asked = time.monotonic_ns()
                frame = source.read()
                assert frame is not None
                assert max(latest, asked) < frame.captured_ns <= time.monotonic_ns()
                latest = frame.captured_ns


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


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("rtmp://me:s3cret@camera/x", "rtmp://me:***@camera/x"),
        ("rtmp://me:s3:c@ret@camera/x", "rtmp://me:***@camera/x"),
        (
            "rtspsrc location=rtsp://me:s3cret@camera/x ! decodebin",
            "rtspsrc location=rtsp://me:***@camera/x ! decodebin",
        ),
        ("rtspsrc user-id=me user-pw=s3cret ! decodebin", "rtspsrc user-id=me user-pw=*** ! decodebin"),
        ('souphttpsrc proxy-pw="s3 cret" ! jpegdec', "souphttpsrc proxy-pw=*** ! jpegdec"),
        ("http://camera:8080/a@b", "http://camera:***@b"),  # or user "camera", password "8080/a", host "b"
        ("clips/a:b@c.mp4", "clips/a:b@c.mp4"),
    ],
)
def test_passwords_are_not_shown(typed: str, shown: str) -> None:
    assert hide_passwords(typed) == shown


@pytest.mark.parametrize(
    "uri", ["rtmp://me:s3cret@camera/x", "rtspsrc location=rtsp://me:s3cret@127.0.0.1/x ! nothing"]
)
def test_no_message_shows_a_password(uri: str) -> None:
    with pytest.raises(SourceError, match=r"me:\*\*\*@") as caught:
        open_source(uri)
    assert "s3cret" not in str(caught.value)


def test_addresses() -> None:
    address = StreamAddress.parse("rtsp://me:p%40ss@[fe80::1]:8554/a?b=c")
    assert address.shown == "rtsp://me:***@[fe80::1]:8554/a?b=***"
    assert address.bare == "rtsp://[fe80::1]:8554/a?b=c"
    assert (address.user, address.password, address.place) == ("me", "p@ss", "[fe80::1]:8554")
    assert StreamAddress.parse("RTSP://camera").port == 554
    assert StreamAddress.parse("https://camera/x").place == "camera:443"
