"""Boxes that were written down: read from JSON lines, from a pipe as they come, or from an MCAP file.

One line, or one message, a frame, in the order of the frames:

    {"frame": 12, "boxes": [{"box": [x, y, width, height], "label": "car", "score": 0.81, "track": 3}]}

``box`` is in pixels of the frame; label, score and track may be missing. A line without ``frame`` is a note, for
example where the boxes come from; ``frames`` in it says how many frames the clip has. **A frame without a line is one
of which nobody knows where its objects are**: it is rejected with NO_REGIONS. A frame without objects has a line with
an empty list.
"""

from __future__ import annotations

import json
import math
import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from framegate.runtime.errors import DataError
from framegate.runtime.mcap_messages import Contents
from framegate.runtime.regions.base import Box, Found
from framegate.runtime.verdict import Frame, Reason

_MCAP = ".mcap"
_TOPIC = "/boxes"
_MOST_BOXES = 10_000
_HELD_FRAMES = 256
_LONGEST_LINE = 4_000_000


def parse_line(text: str, where: str) -> tuple[int | None, tuple[Box, ...], Mapping[str, Any]]:
    """One line: its frame (None for a note), its boxes, and the record itself.

    Args:
        text: JSON.
        where: File and line, for messages.

    Raises:
        DataError: It is none.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not a JSON object ({error}); expected one line a frame") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: a JSON {type(record).__name__}, expected an object, one a frame")
    if "frame" not in record:
        return None, (), record
    number, boxes = record["frame"], record.get("boxes")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise DataError(f"{where}: frame is {number!r}, expected a whole number, 0 or more")
    if not isinstance(boxes, list):
        raise DataError(f"{where}: boxes of frame {number} are missing; a frame without objects has an empty list")
    if len(boxes) > _MOST_BOXES:
        raise DataError(f"{where}: {len(boxes)} boxes on frame {number}, expected at most {_MOST_BOXES}")
    return number, tuple(_box(each, where) for each in boxes), record


def _box(record: Any, where: str) -> Box:
    try:
        x, y, width, height = (math.nan if each is None else float(each) for each in record["box"])
        label, score, track = record.get("label"), record.get("score"), record.get("track")
        return Box(
            x, y, width, height, "" if label is None else str(label),
            math.nan if score is None else float(score), None if track is None else int(track),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{where}: {str(record)[:80]!r} is no box; expected {{'box': [x, y, width, height], ...}}"
        ) from error


class RecordedRegions:
    """Boxes that were recorded beside a clip. See `framegate.runtime.regions.base.RegionGiver`.

    Args:
        path: ``.mcap``, or a file of JSON lines.
        loop: The clip starts again when it ends: frame ``n + frames`` has the boxes of frame ``n``.

    Attributes:
        name: The file's.
        notes: What its notes say, e.g. the origin of the boxes.

    Raises:
        DataError: The file cannot be read, two lines are of one frame, or it is not said how many frames a clip has
            that starts again.
        UsageError: The package mcap is not installed.
    """

    def __init__(self, path: str | Path, *, loop: bool = False) -> None:
        file = Path(path)
        self.name = file.name
        self.notes: dict[str, Any] = {}
        self._boxes: dict[int, tuple[Box, ...]] = {}
        for where, text in _lines(file):
            number, boxes, record = parse_line(text, where)
            if number is None:
                self.notes.update(record)
            elif number in self._boxes:
                raise DataError(f"{where}: frame {number} has a line already; write all of its boxes into one")
            else:
                self._boxes[number] = boxes
        if not self._boxes:
            raise DataError(f"{file}: it holds no frame; expected one line a frame: {{'frame': 0, 'boxes': [...]}}")
        given, last = self.notes.get("frames"), max(self._boxes)
        self._frames: int = given if isinstance(given, int) and given > last else last + 1
        if (
            loop and self._frames != given
        ):  # else its last frames, if they have no line, would get the boxes of the first
            raise DataError(
                f"{file}: how many frames the clip has is not said, and it starts again when it ends: add the line "
                f'{{"frames": N}}, N being {last + 1} or more'
            )
        self._loop = loop

    def find(self, frame: Frame) -> Found:
        """See `RegionGiver.find`."""
        number = frame.frame_id % self._frames if self._loop else frame.frame_id
        boxes = self._boxes.get(number)
        if boxes is None:
            return Found((), {Reason.NO_REGIONS: f"{self.name} has no line for frame {number}"})
        return Found(boxes)

    def close(self) -> None:
        """Nothing is held open."""


class StreamedRegions:
    """Boxes that come with the frames, through a pipe, from whoever finds them. See `RegionGiver`.

    A second line for a frame is a mistake, as it is in a file: a writer of a line for each object would lose all but
    one of them. Nothing more is read from there on, and frames are rejected with NO_REGIONS.

    Args:
        path: A named pipe; its writer writes one line a frame.
        wait_ms: A frame whose boxes have not come within this time is rejected with NO_REGIONS, in milliseconds.

    Raises:
        DataError: There is no such pipe.
    """

    def __init__(self, path: str | Path, wait_ms: float = 50.0) -> None:
        self.name = str(path)
        self._wait_s = wait_ms / 1e3
        self._changed = threading.Condition()
        self._boxes: dict[int, tuple[Box, ...]] = {}
        self._newest = self._given = -1
        self._ended = self._closed = False
        self._problem = ""
        try:
            # Not blocking: whoever writes may start later.
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise DataError(f"{path}: cannot be opened ({error.strerror}); make it with mkfifo") from error
        self._thread = threading.Thread(target=self._read, name="framegate-boxes", daemon=True)
        self._thread.start()

    def find(self, frame: Frame) -> Found:
        """See `RegionGiver.find`: waits until the boxes are there, or cannot be in time any more."""
        end = time.monotonic() + self._wait_s
        with self._changed:
            while frame.frame_id not in self._boxes:
                rest = end - time.monotonic()
                if self._newest > frame.frame_id or rest <= 0 or self._ended:
                    break
                self._changed.wait(rest)
            boxes = self._boxes.pop(frame.frame_id, None)
            for number in [each for each in self._boxes if each <= frame.frame_id]:
                del self._boxes[number]  # of frames that were dropped
            if boxes is not None:
                self._given = frame.frame_id
                return Found(boxes)
            why = self._problem or (f"its writer has left; frame {frame.frame_id}" if self._ended else "")
        why = why or f"no boxes for frame {frame.frame_id} came within {self._wait_s * 1e3:.0f} ms"
        return Found((), {Reason.NO_REGIONS: f"{self.name}: {why}"})

    def close(self) -> None:
        """See `RegionGiver.close`."""
        with self._changed:
            self._closed = self._ended = True
            self._changed.notify_all()
        self._thread.join(1.0)

    def _read(self) -> None:
        waiting, came = b"", False
        try:
            while not self._closed:
                try:
                    data = os.read(self._file, 1 << 16)
                except BlockingIOError:
                    data, came = b"", True
                    time.sleep(0.001)
                    continue
                if not data:  # no writer: not yet, or not any more
                    if came and not waiting and self._newest >= 0:
                        break
                    time.sleep(0.002)
                    continue
                came = True
                *lines, waiting = (waiting + data).split(b"\n")
                if len(waiting) > _LONGEST_LINE:
                    raise DataError("a line without an end")
                for line in lines:
                    self._take(line)
        except Exception as error:  # noqa: BLE001 - said with every frame from here on
            self._problem = str(error)
        finally:
            os.close(self._file)
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        number, boxes, _ = parse_line(line.decode("utf-8", "replace"), "boxes")
        if number is None:
            return
        with self._changed:
            if number in self._boxes or number == self._given:
                self._boxes.pop(number, None)  # which of the two holds all of its objects?
                raise DataError(f"frame {number} has had a line already; write all of its boxes into one")
            self._boxes[number] = boxes
            self._newest = max(self._newest, number)
            while len(self._boxes) > _HELD_FRAMES:  # nobody asks for them
                del self._boxes[next(iter(self._boxes))]
            self._changed.notify_all()


def open_recorded(path: str | Path, *, loop: bool = False, wait_ms: float = 50.0) -> RecordedRegions | StreamedRegions:
    """Boxes from a file, or from a named pipe.

    Raises:
        DataError: It cannot be read.
        UsageError: The package mcap is not installed.
    """
    try:
        pipe = stat.S_ISFIFO(Path(path).stat().st_mode)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a file of JSON lines or MCAP") from error
    return StreamedRegions(path, wait_ms) if pipe else RecordedRegions(path, loop=loop)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Place and text of every record of a file."""
    if path.suffix.lower() == _MCAP:
        yield from _messages(path)
        return
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", line
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a file of JSON lines or MCAP") from error


def _messages(path: Path) -> Iterator[tuple[str, str]]:
    """The JSON messages of an MCAP file."""
    contents = Contents(path)
    try:
        for message in contents.messages(lambda topic: topic == _TOPIC):
            yield f"{path}, {_TOPIC} {message.sequence}", message.data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as MCAP ({error!r}); expected JSON messages on {_TOPIC}") from error
    if contents.broken_off:
        raise DataError(f"{path}: it breaks off, or is damaged ({contents.broken_off}); record the boxes again")
