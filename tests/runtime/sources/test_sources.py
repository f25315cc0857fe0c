"""Every source against one contract, with real files; then what is particular to each."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from framegate.runtime.errors import SourceError, UsageError
from framegate.runtime.faults.inject import FaultInjector, parse_faults
from framegate.runtime.health.check import CameraHealth, unusable
from framegate.runtime.sources.base import BaseSource, Source
from framegate.runtime.sources.camera import CameraSource
from framegate.runtime.sources.images import ImageSource, decode_image, read_image
from framegate.runtime.sources.open import open_source
from framegate.runtime.sources.options import SourceOptions
from framegate.runtime.sources.synthetic import SyntheticSource, read_frame_number
from framegate.runtime.sources.video import VideoFileSource
from framegate.runtime.verdict import Frame, Image

HANG = 20.0
"""Seconds after which a thread counts as stuck; never reached unless something is broken."""


def numbered(count: int, width: int = 320, height: int = 240) -> list[Image]:
    with SyntheticSource(width, height, frames=count, realtime=False) as source:
        return [frame.image for frame in drain(source)]


def drain(source: Source) -> list[Frame]:
    return [frame for frame in iter(source.read, None) if frame is not None]


def numbers(frames: list[Frame]) -> list[int]:
    return [read_frame_number(frame.image) for frame in frames]


def write_video(path: Path, count: int, codec: str = "MJPG", fps: float = 30.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (320, 240))
    assert writer.isOpened()
    for image in numbered(count):
        writer.write(image)
    writer.release()
    return path


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def index_first(path: Path) -> Path:
    """Move an MP4's index to the front ("fast start"), so that a cut leaves it whole."""
    data, boxes, at = path.read_bytes(), {}, 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        boxes[data[at + 4 : at + 8]] = data[at : at + size]
        at += size
    assert list(boxes)[-1] == b"moov"
    moov = bytearray(boxes.pop(b"moov"))
    table = moov.index(b"stco") + 8
    for k in range(int.from_bytes(moov[table : table + 4], "big")):
        entry = slice(table + 4 + 4 * k, table + 8 + 4 * k)
        moov[entry] = (int.from_bytes(moov[entry], "big") + len(moov)).to_bytes(4, "big")
    path.write_bytes(boxes.pop(b"ftyp") + bytes(moov) + b"".join(boxes.values()))
    return path


def read_until_error(source: Source) -> tuple[list[Frame], str]:
    frames: list[Frame] = []
    try:
        while (frame := source.read()) is not None:
            frames.append(frame)
    except SourceError as error:
        return frames, str(error)
    pytest.fail(f"a regular end after {len(frames)} frames")


def close_while_reading(source: Source) -> None:
    """Read one frame, block in the second read, close from here: the read must return None."""
    assert source.read() is not None
    started = threading.Event()
    results: list[Frame | None] = []

    def work() -> None:
        started.set()
        results.append(source.read())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert started.wait(HANG)
    time.sleep(0.05)  # most likely blocked by now; the outcome is the same if not
    source.close()
    thread.join(HANG)
    assert not thread.is_alive()
    assert results == [None]


class FakeCapture:
    """A V4L2 capture without hardware: delivers `frames` images, then fails. Blocks while `silent` is set."""

    frames = 5
    silent = False
    released = 0
    reading = False

    def __init__(self, path: str, api: int) -> None:
        assert api == cv2.CAP_V4L2
        self.images = iter(numbered(type(self).frames))
        self.settings: dict[int, float] = {cv2.CAP_PROP_FRAME_WIDTH: 320, cv2.CAP_PROP_FRAME_HEIGHT: 240}
        self.image: Image | None = None

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def set(self, prop: int, value: float) -> bool:
        self.settings[prop] = value
        return True

    def get(self, prop: int) -> float:
        return self.settings.get(prop, 0.0)

    def grab(self) -> bool:
        type(self).reading = True
        self.image = next(self.images, None)
        if self.silent and self.image is not None and read_frame_number(self.image) > 0:
            time.sleep(0.3)
        type(self).reading = False
        return self.image is not None

    def retrieve(self) -> tuple[bool, Image | None]:
        return True, self.image

    def release(self) -> None:
        assert not self.reading, "released during a read: the real one would crash"
        type(self).released += 1


@pytest.fixture
def fake_camera(monkeypatch: pytest.MonkeyPatch) -> type[FakeCapture]:
    fresh = type("FreshCapture", (FakeCapture,), {})
    monkeypatch.setattr(cv2, "VideoCapture", fresh)
    return fresh


class SourceContract:
    """What the pipeline relies on; every source inherits it. The `source` fixture has five frames."""

    count = 5

    def read_all(self, source: Source) -> list[Frame]:
        return drain(source)

    def test_ids_count_from_0_without_gaps(self, source: Source) -> None:
        assert [frame.frame_id for frame in self.read_all(source)] == list(range(self.count))

    def test_numbers_in_numbers_out(self, source: Source) -> None:
        assert numbers(self.read_all(source)) == list(range(self.count))

    def test_capture_times_lie_in_the_past_and_never_decrease(self, source: Source) -> None:
        earlier = time.monotonic_ns()
        for frame in self.read_all(source):
            assert earlier <= frame.captured_ns <= time.monotonic_ns()
            earlier = frame.captured_ns

    def test_attributes_hold(self, source: Source) -> None:
        frames = self.read_all(source)
        assert source.name
        assert isinstance(source.live, bool)
        assert source.fps is None or source.fps > 0
        assert source.length in (None, self.count)
        sizes = {(frame.image.shape[1], frame.image.shape[0]) for frame in frames}
        assert source.frame_size is None or sizes == {source.frame_size}
        assert not source.fixed_size or len(sizes) == 1

    def test_frames_are_usable_and_healthy(self, source: Source) -> None:
        health = CameraHealth(source.frame_size, source.fixed_size)
        assert [health.check(frame.image) for frame in self.read_all(source)] == [{}] * self.count

    def test_frames_do_not_share_memory(self, source: Source) -> None:
        first, second = source.read(), source.read()
        assert first is not None
        assert second is not None
        assert not np.shares_memory(first.image, second.image)

    def test_after_close_read_returns_none(self, source: Source) -> None:
        assert source.read() is not None
        source.close()
        assert source.read() is None
        assert source.read() is None

    def test_close_before_reading_and_twice(self, source: Source) -> None:
        source.close()
        source.close()
        assert source.read() is None

    def test_context_manager_closes(self, source: Source) -> None:
        with source as same:
            assert same is source
            assert source.read() is not None
        assert source.read() is None

    def test_close_from_another_thread(self, source: Source) -> None:
        thread = threading.Thread(target=source.close)
        thread.start()
        thread.join(HANG)
        assert not thread.is_alive()
        assert source.read() is None


class FiniteContract(SourceContract):
    def test_the_end_stays_the_end(self, source: Source) -> None:
        self.read_all(source)
        assert source.read() is None
        assert source.read() is None


class TestSynthetic(FiniteContract):
    @pytest.fixture
    def source(self) -> Iterator[Source]:
        with open_source("synthetic://?width=320&height=240&frames=5", realtime=False) as source:
            yield source


class TestSyntheticRealtime(FiniteContract):
    @pytest.fixture
    def source(self) -> Iterator[Source]:
        with open_source("synthetic://?width=320&height=240&frames=5&fps=200") as source:
            assert source.live
            yield source


class TestVideo(FiniteContract):
    @pytest.fixture(params=[("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("a.mkv", "mp4v")], ids=lambda param: str(param[0]))
    def source(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
        name, codec = request.param
        with open_source(str(write_video(tmp_path / name, 5, codec)), realtime=False) as source:
            assert not source.live
            yield source


class TestVideoRealtime(FiniteContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Iterator[Source]:
        with open_source(str(write_video(tmp_path / "a.avi", 5, fps=100))) as source:
            assert source.live
            yield source


class TestFolder(FiniteContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Iterator[Source]:
        # 8, 9, 10: in natural order; the other entries are no images
        for k, image in enumerate(numbered(5), start=8):
            cv2.imwrite(str(tmp_path / f"frame{k}.png"), image)
        (tmp_path / "notes.txt").write_text("no image")
        (tmp_path / "._frame8.png").write_bytes(b"resource fork")
        (tmp_path / "folder.png").mkdir()
        with open_source(str(tmp_path)) as source:
            yield source


class TestCamera(SourceContract):
    """The logic around V4L2; the driver itself needs hardware. /dev/null stands in for the device node."""

    @pytest.fixture
    def source(self, fake_camera: type[FakeCapture]) -> Iterator[Source]:
        with CameraSource("/dev/null", SourceOptions(reconnect=False)) as source:
            yield source

    def read_all(self, source: Source) -> list[Frame]:
        return [frame for _ in range(self.count) if (frame := source.read()) is not None]


class TestFaultInjector(FiniteContract):
    @pytest.fixture
    def source(self) -> Iterator[Source]:
        with FaultInjector(SyntheticSource(320, 240, frames=5, realtime=False), parse_faults("")) as source:
            yield source


# --- video -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("realtime", [True, False])
def test_every_number_of_a_long_clip_arrives(tmp_path: Path, realtime: bool) -> None:
    with VideoFileSource(write_video(tmp_path / "a.avi", 200, fps=500), realtime=realtime) as source:
        assert source.length == 200
        assert numbers(drain(source)) == list(range(200))


def test_realtime_is_never_faster_than_the_recording(tmp_path: Path) -> None:
    with VideoFileSource(write_video(tmp_path / "a.avi", 10, fps=50)) as source:
        started = time.monotonic_ns()
        frames = drain(source)
    assert len(frames) == 10
    for frame in frames:
        assert frame.captured_ns - started >= frame.frame_id * 1e9 / 50


def test_a_late_reader_gets_every_frame_at_once(tmp_path: Path) -> None:
    with VideoFileSource(write_video(tmp_path / "a.avi", 5, fps=20)) as source:
        first = source.read()
        assert first is not None
        time.sleep(0.3)  # everything is overdue by now
        late = drain(source)
        assert numbers([first, *late]) == list(range(5))


def test_close_wakes_a_paced_video(tmp_path: Path) -> None:
    close_while_reading(VideoFileSource(write_video(tmp_path / "a.avi", 3, fps=0.01)))


def test_loop_starts_again_and_goes_on_counting(tmp_path: Path) -> None:
    with VideoFileSource(write_video(tmp_path / "a.mp4", 4, "mp4v"), realtime=False, loop=True) as source:
        frames = [source.read() for _ in range(10)]
        assert source.length is None
    assert [frame.frame_id for frame in frames if frame] == list(range(10))
    assert numbers([frame for frame in frames if frame]) == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("x.avi", "XVID"), ("a.mkv", "mp4v")])
def test_a_truncated_video_is_a_fault_after_its_whole_frames(tmp_path: Path, name: str, codec: str, loop: bool) -> None:
    path = cut(write_video(tmp_path / name, 60, codec), 0.5)
    with VideoFileSource(path, realtime=False, loop=loop) as source:
        frames, message = read_until_error(source)
        assert numbers(frames) == list(range(len(frames)))
        assert 10 < len(frames) < 50
        total = " of 60" if name.endswith(".avi") else ""  # Matroska stores no count
        assert f"broke off after frame {len(frames)}{total}; the verdicts up to there are valid" in message
        with pytest.raises(SourceError, match="broke off"):
            source.read()
        source.close()
        assert source.read() is None


def test_a_truncated_mp4_with_its_index_in_front(tmp_path: Path) -> None:
    path = index_first(write_video(tmp_path / "a.mp4", 60, "mp4v"))
    with VideoFileSource(path, realtime=False) as source:
        assert numbers(drain(source)) == list(range(60))
    with VideoFileSource(cut(path, 0.6), realtime=False) as source:
        frames, message = read_until_error(source)
    assert numbers(frames) == list(range(len(frames)))
    assert "broke off" in message


def test_the_half_frame_at_a_cut_is_never_delivered(tmp_path: Path) -> None:
    """The decoder hands out a frame of which the lower part is missing. It must not be judged."""
    path = write_video(tmp_path / "a.avi", 20)
    with VideoFileSource(path, realtime=False) as source:
        originals = [frame.image for frame in drain(source)]
    data = path.read_bytes()
    starts = [at for at in range(len(data)) if data.startswith(b"00dc", at) and data.startswith(b"\xff\xd8", at + 8)]
    assert len(starts) == 20
    path.write_bytes(data[: (starts[8] + starts[9]) // 2])  # in the middle of frame 8
    with VideoFileSource(path, realtime=False) as source:
        frames, _ = read_until_error(source)
    assert len(originals) == 20
    assert len(frames) == 8
    assert all(np.array_equal(frame.image, original) for frame, original in zip(frames, originals[:8], strict=True))


def promise(path: Path, count: int) -> Path:
    """Change the number of frames in an AVI's stream header, as if it had been estimated."""
    data = bytearray(path.read_bytes())
    at = data.index(b"strh") + 40
    data[at : at + 4] = count.to_bytes(4, "little")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("frames", "promised"), [(20, 21), (20, 22), (250, 252), (396, 400)])
def test_a_frame_or_two_short_is_an_estimate_but_the_last_is_in_doubt(
    tmp_path: Path, frames: int, promised: int
) -> None:
    with VideoFileSource(promise(write_video(tmp_path / "a.avi", frames), promised), realtime=False) as source:
        assert source.length == promised
        assert numbers(drain(source)) == list(range(frames - 1))


@pytest.mark.parametrize(("frames", "promised"), [(20, 23), (250, 253), (395, 400)])
def test_more_is_a_fault(tmp_path: Path, frames: int, promised: int) -> None:
    with VideoFileSource(promise(write_video(tmp_path / "a.avi", frames), promised), realtime=False) as source:
        delivered, message = read_until_error(source)
    assert numbers(delivered) == list(range(frames - 1))
    assert f"broke off after frame {frames - 1} of {promised}" in message


@pytest.mark.parametrize("promised", [0, 19, 2**31])
def test_more_frames_than_promised_or_no_promise_is_no_fault(tmp_path: Path, promised: int) -> None:
    with VideoFileSource(promise(write_video(tmp_path / "a.avi", 20), promised), realtime=False) as source:
        assert numbers(drain(source)) == list(range(20))


def test_a_doubtful_last_frame_is_also_withheld_in_a_loop(tmp_path: Path) -> None:
    with VideoFileSource(promise(write_video(tmp_path / "a.avi", 4), 5), realtime=False, loop=True) as source:
        frames = [frame for _ in range(8) if (frame := source.read()) is not None]
    assert numbers(frames) == [0, 1, 2, 0, 1, 2, 0, 1]


def test_looping_a_clip_without_a_trustworthy_frame_ends(tmp_path: Path) -> None:
    with VideoFileSource(promise(write_video(tmp_path / "a.avi", 1), 2), realtime=False, loop=True) as source:
        assert source.read() is None


@pytest.mark.parametrize("loop", [False, True])
def test_a_cut_inside_the_last_frame_is_found_by_the_size_of_the_file(tmp_path: Path, loop: bool) -> None:
    """The number of frames is right then, but the last one is half a picture."""
    path = write_video(tmp_path / "a.avi", 20)
    data = path.read_bytes()
    last = data.rindex(b"00dc", 0, data.rindex(b"idx1"))
    path.write_bytes(data[: last + (data.rindex(b"idx1") - last) // 2])
    with VideoFileSource(path, realtime=False, loop=loop) as source:
        frames, message = read_until_error(source)
    assert numbers(frames) == list(range(19))
    assert "broke off after frame 19 of 20" in message


def test_a_cut_transport_stream_is_found_by_its_packets(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.ts", 60, "MPG2")
    with VideoFileSource(path, realtime=False) as source:
        assert numbers(drain(source)) == list(range(60))
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2 // 188 * 188 + 100])
    with VideoFileSource(path, realtime=False) as source:
        frames, message = read_until_error(source)
    assert numbers(frames) == list(range(len(frames)))
    assert "broke off" in message


def test_an_mp4_cut_inside_the_last_frame(tmp_path: Path) -> None:
    path = cut(index_first(write_video(tmp_path / "a.mp4", 60, "mp4v")), 0.999)
    with VideoFileSource(path, realtime=False) as source:
        frames, message = read_until_error(source)
    assert len(frames) >= 58
    assert "broke off" in message


def test_an_mp4_without_its_index_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"without a readable index \('moov'.*cut off"):
        open_source(str(cut(write_video(tmp_path / "a.mp4", 20, "mp4v"), 0.7)))


@pytest.mark.parametrize(("content", "says"), [(b"", "empty"), (b"hello world " * 500, "no decoder recognises")])
@pytest.mark.parametrize("name", ["a.mp4", "noise_001.bin"])
def test_what_is_no_video_is_refused_at_opening(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=says):
        open_source(str(path))


def test_damaged_files_print_nothing(tmp_path: Path) -> None:
    """In a fresh process: FFmpeg's level counts only if it is set before the first video."""
    cut(write_video(tmp_path / "moov.mp4", 20, "mp4v"), 0.5)
    cut(index_first(write_video(tmp_path / "front.mp4", 20, "mp4v")), 0.5)
    cut(write_video(tmp_path / "a.avi", 20, "XVID"), 0.5)
    cut(write_video(tmp_path / "j.avi", 20), 0.5)
    for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp"):
        cv2.imwrite(str(tmp_path / f"image{suffix}"), numbered(1)[0])
        cut(tmp_path / f"image{suffix}", 0.5)
    script = (
        "import sys\n"
        "from framegate.runtime.errors import SourceError\n"
        "from framegate.runtime.sources.open import open_source\n"
        "for uri in sys.argv[1:]:\n"
        "    try:\n"
        "        with open_source(uri, realtime=False) as source:\n"
        "            while source.read() is not None: pass\n"
        "    except SourceError as error: print(error)\n"
    )
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    plain = {key: value for key, value in os.environ.items() if not key.startswith("OPENCV_")}
    done = subprocess.run(
        [sys.executable, "-c", script, "/dev/video98", *files], capture_output=True, text=True, timeout=60, env=plain
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 5  # the camera and the four videos


# --- images ----------------------------------------------------------------------------------------------------------


def test_images_come_in_natural_order_with_their_names(tmp_path: Path) -> None:
    for name in ("b10.png", "b9.PNG", "a.jpg", "b010.bmp", "10.tiff", "9.webp"):
        cv2.imwrite(str(tmp_path / name.lower()), np.full((20, 20, 3), 99, np.uint8))
        (tmp_path / name.lower()).rename(tmp_path / name)
    source = ImageSource(tmp_path)
    assert (source.live, source.fixed_size, source.frame_size, source.fps, source.length) == (
        False,
        False,
        None,
        None,
        6,
    )
    assert [frame.name for frame in drain(source)] == ["9.webp", "10.tiff", "a.jpg", "b9.PNG", "b010.bmp", "b10.png"]


def test_one_image_file_is_a_source_of_one_frame(tmp_path: Path) -> None:
    image = numbered(1)[0]
    cv2.imwrite(str(tmp_path / "one.PNG"), image)
    source = open_source(str(tmp_path / "one.PNG"))
    (frame,) = drain(source)
    assert frame.name == "one.PNG"
    assert np.array_equal(frame.image, image)


def test_images_loop(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), numbered(1)[0])
    with open_source(str(tmp_path), loop=True) as source:
        frames = [source.read() for _ in range(5)]
    assert [(frame.frame_id, frame.name) for frame in frames if frame] == [
        (0, "a.png"),
        (1, "b.png"),
        (2, "a.png"),
        (3, "b.png"),
        (4, "a.png"),
    ]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.98])
def test_a_truncated_image_is_bad_input_not_a_half_grey_picture(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"image{suffix}"
    rough = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(rough, (320, 320)))
    assert not unusable(read_image(path))
    image = read_image(cut(path, share))
    assert image.shape == (0, 0, 3)
    assert unusable(image)


def test_a_jpeg_cut_behind_its_thumbnail_is_found(tmp_path: Path) -> None:
    """A camera's JPEG holds a small complete JPEG in front: its end marker must not pass for the picture's."""
    image = numbered(1)[0]
    whole = cv2.imencode(".jpg", image)[1].tobytes()
    small = cv2.imencode(".jpg", image[:64, :64])[1].tobytes()
    segment = b"\xff\xe1" + (len(small) + 2).to_bytes(2, "big") + small
    path = tmp_path / "camera.jpg"
    path.write_bytes(whole[:2] + segment + whole[2:])
    assert read_image(path).shape == (240, 320, 3)
    assert read_image(cut(path, 0.8)).size == 0


def test_a_bad_file_does_not_end_the_run(tmp_path: Path) -> None:
    good = numbered(1)[0]
    cv2.imwrite(str(tmp_path / "1.png"), good)
    (tmp_path / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (tmp_path / "3.jpg").write_bytes(b"")
    (tmp_path / "4.tif").symlink_to(tmp_path / "nowhere.tif")
    damaged = bytearray(cv2.imencode(".png", good)[1].tobytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "5.png").write_bytes(damaged)
    cv2.imwrite(str(tmp_path / "6.png"), good)
    frames = drain(ImageSource(tmp_path))
    assert [bool(unusable(frame.image)) for frame in frames] == [False, True, True, True, True, False]
    assert [frame.frame_id for frame in frames] == list(range(6))


def test_pixels_arrive_as_stored_and_only_alpha_goes(tmp_path: Path) -> None:
    colour = numbered(1)[0]
    grey = colour[:, :, 0]
    alpha = np.dstack([colour, grey])
    deep = colour.astype(np.uint16) * 257
    for name, image in {"alpha": alpha, "deep": deep, "grey": grey, "plain": colour}.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    arrived = {frame.name: frame.image for frame in drain(ImageSource(tmp_path))}
    assert np.array_equal(arrived["alpha.png"], colour)
    assert arrived["alpha.png"].flags.c_contiguous
    assert np.array_equal(arrived["deep.png"], deep)
    assert np.array_equal(arrived["grey.png"], grey)
    assert [bool(unusable(image)) for image in arrived.values()] == [False, True, True, False]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_pictures_are_turned_upright_whatever_their_format(tmp_path: Path, suffix: str, orientation: int) -> None:
    """Of eight ways to store it, EXIF 2.32 (figure 8): what the tag says is undone, in every format alike."""
    upright = np.zeros((96, 64, 3), np.uint8)
    upright[:32, :32], upright[64:, :32] = (255, 0, 0), (0, 255, 0)  # RGB: a red and a green corner on the left
    undo: dict[int, Image] = {1: upright, 2: np.flip(upright, 1), 3: np.flip(upright, (0, 1)), 4: np.flip(upright, 0)}
    undo |= {5: np.swapaxes(upright, 0, 1), 6: np.rot90(upright), 8: np.rot90(upright, -1)}
    undo[7] = np.rot90(np.swapaxes(upright, 0, 1), 2)
    path = tmp_path / f"photo{suffix}"
    tags = PIL.Image.Exif()
    tags[0x0112] = orientation
    PIL.Image.fromarray(np.ascontiguousarray(undo[orientation])).save(path, exif=tags, quality=95)
    image = read_image(path)
    assert image.shape == upright.shape
    assert np.abs(image[:, :, ::-1].astype(int) - upright)[4:28, 4:28].max() < 40
    assert np.abs(image[:, :, ::-1].astype(int) - upright)[68:92, 4:28].max() < 40


def test_a_camera_s_pictures_are_not_turned(tmp_path: Path) -> None:
    """A stream says how it is mounted with --flip; a tag in its pictures says where the phone was held."""
    tags = PIL.Image.Exif()
    tags[0x0112] = 6
    path = tmp_path / "frame.jpg"
    PIL.Image.fromarray(numbered(1)[0]).save(path, exif=tags)
    assert decode_image(path.read_bytes(), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION).shape == (240, 320, 3)


def test_bytes_behind_the_end_of_a_picture_are_no_damage(tmp_path: Path) -> None:
    """Phones append a video or a depth map; the appended bytes may hold any marker."""
    image = numbered(1)[0]
    whole = cv2.imencode(".jpg", image)[1].tobytes()
    path = tmp_path / "motion.jpg"
    for behind in (b"\0\0\0\x18ftypmp42\xff\xda\xff\xd8" + os.urandom(5000), whole, bytes(100), b"\xff"):
        path.write_bytes(whole + behind)
        assert read_image(path).shape == image.shape
    path.write_bytes(whole[:-400] + b"\0" * 300)
    assert read_image(path).size == 0


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(SourceError, match=r"no image among its 1 entries; looked for .*\.png"):
        open_source(str(tmp_path))


# --- camera ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uri", ["98", "/dev/video98"])
def test_a_missing_camera_lists_those_present(uri: str) -> None:
    with pytest.raises(SourceError, match=r"camera /dev/video98: no such device; (present: /dev/video|there is no)"):
        open_source(uri)


def test_a_file_is_no_camera(tmp_path: Path) -> None:
    path = tmp_path / "video0"
    path.write_bytes(b"")
    with pytest.raises(SourceError, match="a file, not a device"):
        CameraSource(str(path))


def test_a_device_that_is_no_camera() -> None:
    with pytest.raises(SourceError, match="cannot be opened as a V4L2 camera"):
        CameraSource("/dev/null")


def test_permission_denied_names_the_group(tmp_path: Path) -> None:
    path = tmp_path / "video0"
    path.touch(mode=0o000)
    root = os.geteuid() == 0  # root may open anything: become somebody else for a moment
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(SourceError, match="add the user to group video"):
            CameraSource(str(path))
    finally:
        if root:
            os.seteuid(0)


def test_a_camera_that_fails_is_a_fault_and_stays_one(fake_camera: type[FakeCapture]) -> None:
    with CameraSource("/dev/null", SourceOptions(reconnect=False)) as source:
        assert source.live
        assert source.frame_size == (320, 240)
        frames, message = read_until_error(source)
        assert len(frames) == 5
        assert "stopped delivering" in message
        assert source.status.state == "failed"
        with pytest.raises(SourceError, match="stopped delivering"):
            source.read()
    assert fake_camera.released > 0


def test_the_camera_keeps_one_buffer(fake_camera: type[FakeCapture]) -> None:
    with CameraSource("/dev/null") as source:
        settings: dict[int, float] = vars(vars(source)["_connection"])["_capture"].settings
        assert settings[cv2.CAP_PROP_BUFFERSIZE] == 1


def test_a_silent_camera_is_released_only_after_its_read(fake_camera: type[FakeCapture]) -> None:
    fake_camera.silent = True
    close_while_reading(CameraSource("/dev/null"))
    assert fake_camera.released > 0


# --- synthetic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(128, 64), (640, 480), (1280, 720), (333, 250), (64 * 4, 1024)])
def test_frame_numbers_survive_size_grey_and_jpeg(size: tuple[int, int]) -> None:
    source = SyntheticSource(*size, realtime=False)
    for frame in (source.read() for _ in range(40)):
        assert frame is not None
        assert frame.image.shape == (size[1], size[0], 3)
        grey = cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY)
        half = cv2.resize(frame.image, (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA)
        jpeg = cv2.imdecode(cv2.imencode(".jpg", frame.image)[1], cv2.IMREAD_COLOR)
        assert jpeg is not None
        assert [read_frame_number(image) for image in (frame.image, grey, half, jpeg)] == [frame.frame_id] * 4


@pytest.mark.parametrize("size", [(128, 64), (192, 144), (160, 120), (200, 160), (128, 128), (144, 192), (320, 180)])
@pytest.mark.parametrize("kind", ["bgr", "nv12"])
def test_the_pattern_is_healthy_at_every_size(size: tuple[int, int], kind: str) -> None:
    """Neither its number's rows, which are alike, nor an object as bright as what is behind it looks like a fault."""
    with open_source(
        f"synthetic://?width={size[0]}&height={size[1]}&format={kind}&frames=80", realtime=False
    ) as source:
        health = CameraHealth(source.frame_size, source.fixed_size)
        found = [health.check(frame.image, frame.pixel_format) for frame in drain(source)]
    assert found == [{}] * 80


@pytest.mark.parametrize("number", [0, 1, 2**31, 2**32 - 1, 0xA5A5A5A5])
def test_all_32_bits_are_read(number: int) -> None:
    source = SyntheticSource(320, 240, realtime=False)
    vars(source)["_next_id"] = number
    frame = source.read()
    assert frame is not None
    assert read_frame_number(frame.image) == number


def test_the_pattern_moves_below_the_number() -> None:
    pictures = {image[16:].tobytes() for image in numbered(50)}
    assert len(pictures) == 50


def test_synthetic_is_never_faster_than_its_rate() -> None:
    with open_source("synthetic://?width=128&height=64&fps=50&frames=8") as source:
        started = time.monotonic_ns()
        frames = drain(source)
    assert len(frames) == 8
    for frame in frames:
        assert frame.captured_ns - started >= frame.frame_id * 1e9 / 50


def test_close_wakes_a_paced_pattern() -> None:
    close_while_reading(open_source("synthetic://?width=128&height=64&fps=0.01"))


def test_synthetic_loops_over_its_patterns() -> None:
    with open_source("synthetic://?width=128&height=64&frames=3", realtime=False, loop=True) as source:
        frames = [frame for _ in range(7) if (frame := source.read()) is not None]
        assert source.length is None
    assert numbers(frames) == [0, 1, 2, 0, 1, 2, 0]
    assert [frame.frame_id for frame in frames] == list(range(7))


def test_synthetic_defaults() -> None:
    source = open_source("synthetic://")
    assert (source.frame_size, source.fps, source.length, source.live) == ((640, 480), 30.0, None, True)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?width=0", "width must be from 128 to 8192"),
        ("?width=abc", "whole numbers"),
        ("?width=", "whole numbers"),
        ("?height=-3", "height must be"),
        ("?fps=0", "fps must be"),
        ("?fps=nan", "fps must be"),
        ("?fps=inf", "fps must be"),
        ("?frames=0", "frames must be at least 1"),
        ("?frames=1.5", "whole numbers"),
        ("?speed=3", "unknown parameter 'speed'; possible are width"),
        ("?fps=3&fps=4", "given twice"),
        ("pattern", "expected synthetic://"),
    ],
)
def test_bad_synthetic_parameters_are_wrong_usage(query: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_source("synthetic://" + query)


# --- what else the user may type, and what else may go wrong ---------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("no/such/file.mp4", "there is no such file or folder"),
        ("ftp://camera/stream", "this kind of address is not supported"),
        ("", "nothing was named"),
        ("-1", "there is no such file"),
        ("/dev/null", "neither a file nor a folder"),
        ("nul\0.png", "cannot be looked up"),
    ],
)
def test_anything_else_says_what_is_possible(uri: str, found: str) -> None:
    with pytest.raises(SourceError, match=found) as caught:
        open_source(uri)
    assert repr(uri) in str(caught.value)
    assert "cannot be looked up" in found or "/dev/video0), a video file" in str(caught.value)


def test_an_error_caused_by_closing_is_an_end() -> None:
    class Torn(BaseSource):
        def _produce(self, frame_id: int) -> Frame | None:
            self.close()
            raise SourceError("the device went away while it was being closed")

    source = Torn("torn")
    assert source.read() is None


def test_interface_alone_is_enough_for_a_source_of_ones_own() -> None:
    class Own(Source):
        def read(self) -> Frame | None:
            return None

        def close(self) -> None:
            self.closed = True

    with Own() as source:
        assert source.read() is None
    assert vars(source)["closed"]
