"""``--black-box DIR``: the last hours of a drive in a bounded folder, with full pictures where something happened.

    every verdict                           -> /verdict/REGION   all of them
    one frame a second, 320 pixels across   -> /preview
    one frame in ten seconds, in full size  -> /event (``sample``), /camera
    event (`framegate.runtime.sinks.events`)-> /event, and the pictures around it in full size -> /camera

The folder is a ring of MCAP files, ``DRIVE.CAMERA.000017.mcap``. Each is a whole recording (`McapSink`): it can be
replayed by itself, and a killed process loses of the newest one what came after the last flush. The oldest file goes
when the next would not fit. Which one that is does not depend on the clock on the wall, as far as this drive goes: its
files go in the order of their numbers, and after those of all other drives. So one process at a time records a camera
in a folder: each of two would remove what the other one writes.
"""

from __future__ import annotations

import contextlib
import io
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from framegate.runtime.console import to_stderr
from framegate.runtime.errors import SinkError, UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.replay.recording import DRIVE_METADATA, EVENT, PREVIEW, Recording
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.events import SAMPLE, Events
from framegate.runtime.sinks.mcap_file import CAMERA, McapSink, require_mcap
from framegate.runtime.sinks.picture import jpeg, shown
from framegate.runtime.sinks.record_file import hold
from framegate.runtime.verdict import Image

NO_PICTURES, REGIONS, WHOLE = "none", "regions", "full"
PICTURES = (NO_PICTURES, REGIONS, WHOLE)
SMALLEST_KEEP = 4 * 2**20
"""Bytes that a black box needs at least."""
BEFORE, AFTER = 5, 5
"""Frames around an event whose pictures are kept, too."""
PREVIEW_S = 1.0
PREVIEW_WIDTH = 320
SAMPLE_S = 10.0
FULL_PER_S = 2.0
"""Full pictures per second on average, so that a stream that stays near its threshold does not push history out."""
FULL_BURST = 100
FULL_QUALITY = 95
"""Of JPEG, from 1 to 100: a network that judges the picture again sees nearly what the camera gave."""
RETRY_S = 10.0
"""After a disk was full, a new file is tried so often."""
_SEGMENTS = 16
_LARGEST_SEGMENT = 64 * 2**20
_SMALLEST_SEGMENT = 2**18
_FLUSH_BYTES = 4 * 2**20
_CHUNK_BYTES = 2**16
_INDEX_BYTES = 2**18
"""What the index of a file, and the chunk that is being filled, take at most beyond what is known of its size."""
_WORD = re.compile(r"[^A-Za-z0-9_-]+")
_NAME = re.compile(r"(?P<drive>[A-Za-z0-9_-]+)\.(?P<camera>[A-Za-z0-9_-]+)\.(?P<number>[0-9]{6,})\.mcap")


def file_word(text: str) -> str:
    """A name as a part of a file's name: letters, digits, ``_`` and ``-``."""
    return _WORD.sub("-", text).strip("-") or "camera"


def drive_name() -> str:
    """A name for a drive that begins now: its time in UTC."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


@dataclass(frozen=True)
class _Kept:
    """A file that is part of the ring."""

    path: Path
    drive: str
    number: int


class BlackBoxSink:
    """Writes the ring of one camera.

    Args:
        folder: Created if it is not there. Files of earlier drives of this camera count as part of the ring. A drive
            whose name is there goes on, behind its last file.
        keep_bytes: The ring is at most so large.
        rois: The pipeline's regions; empty where objects are judged.
        recording: Under which bundle, calibration and policy the verdicts are given.
        drive: What the drive is called.
        camera: What the camera is called.
        pictures: ``none``; ``regions``: black outside the regions and objects that are judged; ``full``.
        report: Takes one sentence about a disk that is full or has room again.

    Raises:
        UsageError: The package mcap is not installed, or a value is out of range.
        SinkError: The folder or its first file cannot be created, or the camera is being recorded there already.
    """

    takes_silence = True
    flush_s = 1.0

    def __init__(
        self,
        folder: Path,
        keep_bytes: int,
        rois: tuple[Roi, ...],
        recording: Recording,
        *,
        drive: str,
        camera: str,
        version: str,
        pictures: str = WHOLE,
        report: Callable[[str], None] = to_stderr,
    ) -> None:
        if keep_bytes < SMALLEST_KEEP:
            raise UsageError(
                f"--keep: {keep_bytes} bytes for camera {camera}; expected {SMALLEST_KEEP >> 20}MB or more"
            )
        if pictures == REGIONS and any(roi.is_whole for roi in rois):
            raise UsageError("--pictures regions: the region is the whole frame; give --roi, or --pictures none")
        self.path = folder
        self.takes_pictures = pictures != NO_PICTURES
        self._keep, self._rois, self._recording, self._report = keep_bytes, rois, recording, report
        self._regions_only = pictures == REGIONS
        self._segment_bytes = min(max(keep_bytes // _SEGMENTS, _SMALLEST_SEGMENT), _LARGEST_SEGMENT)
        self._drive, self._camera = file_word(drive), file_word(camera)
        self._about = {
            "drive": drive,
            "drive_id": f"{time.time_ns():x}",
            "camera": camera,
            "pictures": pictures,
            "framegate": version,
        }
        self._events = Events()
        self._before: deque[FrameResult] = deque(maxlen=BEFORE)
        self._after = 0
        self._number = 0
        self._preview_ns: int | None = None
        self._sample_ns: int | None = None
        self._allowed, self._allowed_ns = float(FULL_BURST), 0
        self._retry_at = 0.0
        self._lost = self._pending = 0
        require_mcap(f"--black-box {folder}")  # before a folder is made that stays empty
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"black box {folder}: cannot be created ({error.strerror})") from error
        self._held = self._hold()
        try:
            self._segment: McapSink | None = self._next()
        except BaseException:
            self._held.close()
            raise

    def write(self, result: FrameResult) -> None:
        """Add a frame's verdicts, and its picture where one is due. A full disk is reported, once, and tried again."""
        if self._segment is None and not self._try_again():
            self._lost += 1
            return
        assert self._segment is not None
        self._pending += 1
        try:
            self._add(self._segment, result)
            if self._segment.size >= self._segment_bytes:
                self._make_room(self._segment.size + _INDEX_BYTES)
                self._segment.close()
                self._pending = 0
                self._number += 1
                self._segment = self._next()
            elif self._segment.waiting > _FLUSH_BYTES:
                self.flush()
        except SinkError as error:
            self._give_up(error)

    def flush(self) -> None:
        """Make what was taken readable, see `framegate.runtime.sinks.base.Sink.flush`."""
        if self._segment is not None:
            try:
                if self._segment.size > self._segment_bytes:
                    self._make_room(self._segment.size + _INDEX_BYTES)
                self._segment.flush()
                self._pending = 0
            except SinkError as error:
                self._give_up(error)

    def close(self) -> None:
        """Finish the newest file; can be called twice."""
        try:
            if self._segment is not None:
                self._segment.close()
        finally:
            self._held.close()
        if self._segment is None and self._lost:
            lost, self._lost = self._lost, 0
            raise SinkError(f"black box {self.path}: its disk was full; {lost} frames were not recorded")

    def _add(self, segment: McapSink, result: FrameResult) -> None:
        kinds = self._events.of(result)
        segment.add_verdicts(result)
        first, captured_ns = result.first, result.first.captured_ns
        pictured = self.takes_pictures and result.has_frame
        sample = pictured and (self._sample_ns is None or not 0 <= captured_ns - self._sample_ns < SAMPLE_S * 1e9)
        said = (*kinds, SAMPLE) if sample else kinds
        if said:
            number = first.frame_id if result.has_frame else None  # of silence the time alone says which one it is
            segment.add_record(EVENT, first, {"frame_id": number, "captured_ns": captured_ns, "kinds": said})
        if not pictured:
            return
        if sample:
            self._sample_ns = captured_ns
        if self._preview_ns is None or not 0 <= captured_ns - self._preview_ns < PREVIEW_S * 1e9:
            self._preview_ns = captured_ns
            segment.add_picture(result.first, jpeg(self._visible(result), PREVIEW_WIDTH), PREVIEW)
        if kinds:
            self._after = AFTER + 1
        if self._after:
            self._after -= 1
            for each in (*self._before, result):
                self._add_full(segment, each)
            self._before.clear()
        elif sample:
            self._add_full(segment, result)
        else:
            self._before.append(result)

    def _add_full(self, segment: McapSink, result: FrameResult) -> None:
        """The picture in full size, if the allowance is not used up."""
        captured_ns = result.first.captured_ns
        passed_s = max(captured_ns - self._allowed_ns, 0) / 1e9
        self._allowed = min(self._allowed + passed_s * FULL_PER_S, float(FULL_BURST))
        self._allowed_ns = captured_ns
        if self._allowed < 1.0:
            return
        self._allowed -= 1.0
        image = self._visible(result)
        data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, FULL_QUALITY))[1].tobytes()
        segment.add_picture(result.first, data, CAMERA)

    def _visible(self, result: FrameResult) -> Image:
        """What may be stored of a frame."""
        image = shown(result.image)
        if not self._regions_only:
            return image
        masked = np.zeros_like(image)
        for roi in result.rois(self._rois):
            box = roi.pixels(image.shape[1], image.shape[0])
            if box is not None:
                x, y, width, height = box
                masked[y : y + height, x : x + width] = image[y : y + height, x : x + width]
        return masked

    def _hold(self) -> io.FileIO:
        """Have this camera's ring for oneself, until the file is closed or the process ends.

        Raises:
            SinkError: Somebody else has it.
        """
        path = self.path / f".{self._camera}.lock"
        try:
            file = io.FileIO(path, "ab")
            hold(file)
        except BlockingIOError:
            raise SinkError(
                f"black box {self.path}: camera {self._camera} is being recorded there already; give another folder, "
                "or the camera another name (--camera)"
            ) from None
        except OSError as error:
            raise SinkError(f"black box {path}: cannot be written ({error.strerror})") from error
        return file

    def _name(self, number: int) -> Path:
        return self.path / f"{self._drive}.{self._camera}.{number:06d}.mcap"

    def _files(self) -> list[_Kept]:
        """The files of this camera that are there, of all drives."""
        found = []
        for path in self.path.glob("*.mcap"):
            name = _NAME.fullmatch(path.name)
            if name and name["camera"] == self._camera:
                found.append(_Kept(path, name["drive"], int(name["number"])))
        return found

    def _next(self) -> McapSink:
        """The next file of the ring, after the oldest were removed.

        Its number is above all that are there: the same drive goes on after a restart, and whoever fetches files may
        have removed the oldest, so that a number below would be free, but the one after it not.
        """
        own = [each.number for each in self._files() if each.drive == self._drive]
        self._number = max(self._number, max(own, default=-1) + 1)
        self._make_room(self._segment_bytes + _INDEX_BYTES)
        about = {DRIVE_METADATA: {**self._about, "segment": str(self._number)}}
        segment = McapSink(
            self._name(self._number),
            self._rois,
            self._recording,
            pictures=False,
            about=about,
            chunk_bytes=_CHUNK_BYTES,
            replace=False,
        )
        try:
            segment.flush()  # what it says about itself outlives the process, and a full disk shows at once
        except SinkError:
            with contextlib.suppress(SinkError, OSError):
                segment.close()
                segment.path.unlink()  # nothing is in it, and a disk that stays full would get one every `RETRY_S`
            raise
        return segment

    def _make_room(self, needed: int) -> None:
        """Remove the oldest files until the newest fits.

        Args:
            needed: Bytes of the newest file. Large pictures can make it outgrow what was reserved for it.
        """
        newest: dict[str, int] = {}
        files: list[tuple[_Kept, int]] = []
        for each in self._files():
            if each.drive == self._drive and each.number == self._number:
                continue
            try:
                status = each.path.stat()
            except OSError:
                continue
            files.append((each, status.st_size))
            newest[each.drive] = max(newest.get(each.drive, 0), status.st_mtime_ns)
        # Within a drive the numbers say what is older, and this drive is the newest. Times say only in which order the
        # other drives go: a clock that was set back can confuse those, but not cost what is being recorded.
        files.sort(
            key=lambda file: (file[0].drive == self._drive, newest[file[0].drive], file[0].drive, file[0].number)
        )
        total = sum(size for _, size in files)
        for each, size in files:
            if total + needed <= self._keep:
                return
            try:
                each.path.unlink(missing_ok=True)  # somebody may have fetched it meanwhile
            except OSError as error:
                raise SinkError(f"black box {each.path}: cannot be removed ({error.strerror})") from error
            total -= size

    def _give_up(self, error: SinkError) -> None:
        """Leave the file as it is, and try a new one later."""
        if not self._retry_at:
            self._report(f"framegate: black box: {error}; judging goes on, and a new file is tried every {RETRY_S:g} s")
        segment, self._segment = self._segment, None
        if segment is not None:
            with contextlib.suppress(SinkError):  # the same disk
                segment.close()
        self._number += 1
        self._lost, self._pending = self._lost + self._pending, 0
        self._retry_at = time.monotonic() + RETRY_S

    def _try_again(self) -> bool:
        if time.monotonic() < self._retry_at:
            return False
        try:
            self._segment = self._next()
        except SinkError as error:
            self._give_up(error)
            return False
        self._report(f"framegate: black box {self.path}: records again; {self._lost} frames were not recorded")
        self._retry_at, self._lost = 0.0, 0
        return True
