"""``--record FILE.mcap``: pictures and verdicts for Foxglove and other readers of MCAP (https://mcap.dev).

``framegate replay`` decides the drive again from the same file.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, cast

from framegate.runtime.errors import UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.replay.recording import METADATA, Recording, evidence
from framegate.runtime.roi import FULL, Roi
from framegate.runtime.sinks.base import FLUSH_S
from framegate.runtime.sinks.picture import WIDTH, jpeg, shown
from framegate.runtime.sinks.record_file import RecordFile
from framegate.runtime.sinks.shade import mask_picture
from framegate.runtime.stats import OBJECTS
from framegate.runtime.verdict import Prediction

CAMERA = "/camera"
"""Topic of the pictures."""
_TIME = {"type": "object", "properties": {"sec": {"type": "integer"}, "nsec": {"type": "integer"}}}
_IMAGE_SCHEMA = {  # https://docs.foxglove.dev/docs/sdk/schemas/compressed-image
    "title": "foxglove.CompressedImage",
    "type": "object",
    "properties": {
        "timestamp": _TIME,
        "frame_id": {"type": "string"},
        "data": {"type": "string", "contentEncoding": "base64"},
        "format": {"type": "string"},
    },
}
_VERDICT_SCHEMA = {"title": "framegate.Prediction", "type": "object"}


class _Waiting:
    """What the MCAP writer writes into: bytes that wait until they form whole chunks, and the position in the file."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._taken = 0

    def write(self, data: bytes) -> int:
        self._bytes += data
        return len(data)

    def flush(self) -> None:
        """Called by the writer; the bytes go on waiting."""

    def tell(self) -> int:
        return self._taken + len(self._bytes)

    @property
    def waiting(self) -> int:
        """Bytes that were not taken yet."""
        return len(self._bytes)

    def take(self) -> bytes:
        """What waits, which then waits no longer."""
        data = bytes(self._bytes)
        self._bytes.clear()
        self._taken += len(data)
        return data


def require_mcap(asked: str) -> None:
    """Refuse what cannot be written here.

    Args:
        asked: Option and value, for the message.

    Raises:
        UsageError: The package mcap is not installed.
    """
    if importlib.util.find_spec("mcap") is None:
        raise UsageError(f"{asked}: the package 'mcap' is not installed; pip install 'framegate[mcap]'")


class McapSink:
    """Writes ``/camera`` (JPEG) and ``/verdict/REGION`` (the record of a prediction), at the time of capture.

    Of a dense bundle ``/usable/REGION``, too: a PNG of the region in the network's own pixels, 255 where one is usable.

    A verdict holds what it was decided by (`framegate.runtime.replay.recording.evidence`), and the metadata record
    ``framegate.recording`` the bundle's digest, calibration and policy. A report of silence has no picture.

    Every flush ends a chunk, and a chunk reaches the file whole. A file without an end, because the process was killed
    or the disk is full, has all messages up to the last flush; readers that go through it from the start open it
    (``NonSeekingReader``, Foxglove), and ``mcap recover`` gives it an index again.

    Args:
        path: File to create.
        rois: The pipeline's regions; empty where objects are judged, which are ``/verdict/objects``.
        recording: Under which bundle, calibration and policy the verdicts are given; None: it cannot be replayed.
        pictures: Whether the frames are stored, too.
        about: More metadata records: name -> its texts.
        chunk_bytes: Messages are compressed so many bytes at a time, also between flushes.
        replace: Whether an existing file is; otherwise it stays, and there is an error.

    Raises:
        UsageError: The package mcap is not installed.
        SinkError: The file cannot be created, or, by `write` and `flush`, not written.
    """

    takes_silence = True
    flush_s = FLUSH_S

    def __init__(
        self,
        path: Path,
        rois: tuple[Roi, ...],
        recording: Recording | None = None,
        *,
        pictures: bool = True,
        about: Mapping[str, dict[str, str]] | None = None,
        chunk_bytes: int = 2**20,
        replace: bool = True,
    ) -> None:
        require_mcap(f"--record {path}")
        from mcap.writer import Writer

        self.path = path
        self._file = RecordFile(path, "recording", replace=replace)
        self._waiting = _Waiting()
        self.takes_pictures = pictures
        self._frames = self._stored = 0
        self._broken = False
        self._writer = Writer(cast(IO[bytes], self._waiting), chunk_size=chunk_bytes)
        self._writer.start(library="framegate")
        if recording is not None:
            self._writer.add_metadata(METADATA, recording.to_metadata())
        for name, texts in (about or {}).items():
            self._writer.add_metadata(name, texts)
        self._image_schema = image = self._writer.register_schema(
            "foxglove.CompressedImage", "jsonschema", json.dumps(_IMAGE_SCHEMA).encode()
        )
        verdict = self._writer.register_schema(
            "framegate.Prediction", "jsonschema", json.dumps(_VERDICT_SCHEMA).encode()
        )
        self._topics = {CAMERA: self._writer.register_channel(CAMERA, "json", image)}
        names = [roi.name for roi in rois] or [FULL, OBJECTS]
        self._verdicts = {name: self._writer.register_channel(f"/verdict/{name}", "json", verdict) for name in names}
        self._to_wall_ns = time.time_ns() - time.monotonic_ns()

    @property
    def size(self) -> int:
        """Bytes of the file, with those that wait for a flush, without those of the chunk that is being filled."""
        return self._waiting.tell()

    @property
    def waiting(self) -> int:
        """Bytes that wait for a flush, without those of the chunk that is being filled."""
        return self._waiting.waiting

    def write(self, result: FrameResult) -> None:
        """Add one frame and its verdicts."""
        if self.takes_pictures and result.has_frame:
            self.add_picture(result.first, jpeg(shown(result.image), WIDTH))
        self.add_verdicts(result)

    def add_picture(self, first: Prediction, data: bytes, topic: str = CAMERA, kind: str = "jpeg") -> None:
        """Add a picture.

        Args:
            first: A verdict on its frame, for number and time.
            data: The picture as a file of that kind.
            topic: Under which name.
            kind: ``jpeg`` or ``png``.
        """
        at = first.captured_ns + self._to_wall_ns
        picture = {
            "timestamp": {"sec": at // 10**9, "nsec": at % 10**9},
            "frame_id": str(first.frame_id),
            "data": base64.b64encode(data).decode(),
            "format": kind,
        }
        if topic not in self._topics:
            self._topics[topic] = self._writer.register_channel(topic, "json", self._image_schema)
        self._add(self._topics[topic], at, picture, max(first.frame_id, 0))

    def add_record(self, topic: str, first: Prediction, record: Mapping[str, object]) -> None:
        """Add plain JSON values that belong to a frame.

        Args:
            topic: Under which name.
            first: A verdict on the frame, for number and time.
            record: The values.
        """
        if topic not in self._topics:
            self._topics[topic] = self._writer.register_channel(topic, "json", 0)
        self._add(self._topics[topic], first.captured_ns + self._to_wall_ns, record, max(first.frame_id, 0))

    def add_verdicts(self, result: FrameResult) -> None:
        """Add the verdicts on a frame, without its picture."""
        first = result.first
        at = first.captured_ns + self._to_wall_ns
        sequence = max(first.frame_id, 0)
        if result.scene is not None:
            self._add(self._verdicts[FULL], at, result.to_scene_json(), sequence)
        for prediction in result.predictions:
            # Objects come and go; one topic holds them all, and each message the name of its track.
            channel = self._verdicts[prediction.stream if prediction.found is None else OBJECTS]
            self._add(channel, at, {**prediction.to_json(), "evidence": evidence(prediction)}, sequence)
            if prediction.dense is not None and self.takes_pictures:
                self.add_picture(first, mask_picture(prediction.dense), f"/usable/{prediction.stream}", "png")
        self._frames += 1

    def _add(self, channel: int, at: int, record: Mapping[str, object], sequence: int) -> None:
        self._writer.add_message(channel, at, json.dumps(record, separators=(",", ":")).encode(), at, sequence)

    def flush(self) -> None:
        """End the chunk and write it."""
        flush: Callable[[], object] = self._writer.flush
        flush()
        self._store()

    def close(self) -> None:
        """Write the index and close the file; can be called twice. After an error the file stays without an index."""
        if self._file.closed:
            return
        try:
            if not self._broken:
                finish: Callable[[], object] = self._writer.finish
                finish()
                self._store()
        finally:
            self._file.close()

    def _store(self) -> None:
        self._broken = True  # unless the next line returns: an index would name chunks that are not there
        self._file.append(self._waiting.take(), f"its first {self._stored} frames are kept")
        self._broken = False
        self._stored = self._frames
