"""``--record FILE.mcap``: pictures and verdicts for Foxglove and other readers of MCAP (https://mcap.dev)."""

from __future__ import annotations

import base64
import importlib.util
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from framegate.runtime.errors import SinkError, UsageError
from framegate.runtime.pipeline import FrameResult
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.picture import WIDTH, jpeg, shown

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


class McapSink:
    """Writes ``/camera`` (JPEG) and ``/verdict/REGION`` (the record of a prediction), at the time of capture.

    Args:
        path: File to create; an existing one is replaced.
        rois: The pipeline's regions.

    Raises:
        UsageError: The package mcap is not installed.
        SinkError: The file cannot be created, or, by `write`, not written.
    """

    takes_silence = False

    def __init__(self, path: Path, rois: tuple[Roi, ...]) -> None:
        if importlib.util.find_spec("mcap") is None:
            raise UsageError(f"--record {path}: the package 'mcap' is not installed; pip install 'framegate[mcap]'")
        from mcap.writer import Writer

        self._path = path
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise SinkError(f"recording {path}: cannot be written ({error.strerror})") from error
        self._writer = Writer(self._file)
        self._writer.start(library="framegate")
        image = self._writer.register_schema(
            "foxglove.CompressedImage", "jsonschema", json.dumps(_IMAGE_SCHEMA).encode()
        )
        verdict = self._writer.register_schema(
            "framegate.Prediction", "jsonschema", json.dumps(_VERDICT_SCHEMA).encode()
        )
        self._camera = self._writer.register_channel("/camera", "json", image)
        self._verdicts = {
            roi.name: self._writer.register_channel(f"/verdict/{roi.name}", "json", verdict) for roi in rois
        }
        self._to_wall_ns = time.time_ns() - time.monotonic_ns()

    def write(self, result: FrameResult) -> None:
        """Add one frame and its verdicts."""
        first = result.predictions[0]
        at = first.captured_ns + self._to_wall_ns
        picture = {
            "timestamp": {"sec": at // 10**9, "nsec": at % 10**9},
            "frame_id": str(first.frame_id),
            "data": base64.b64encode(jpeg(shown(result.image), WIDTH)).decode(),
            "format": "jpeg",
        }
        try:
            self._add(self._camera, at, picture, first.frame_id)
            for prediction in result.predictions:
                self._add(self._verdicts[prediction.stream], at, prediction.to_json(), prediction.frame_id)
        except OSError as error:
            raise SinkError(f"recording {self._path}: writing failed ({error.strerror}); is the disk full?") from error

    def _add(self, channel: int, at: int, record: Mapping[str, object], sequence: int) -> None:
        self._writer.add_message(channel, at, json.dumps(record, separators=(",", ":")).encode(), at, sequence)

    def close(self) -> None:
        """Write the index and close the file; can be called twice."""
        if self._file.closed:
            return
        try:
            finish: Callable[[], object] = self._writer.finish
            finish()
            self._file.close()
        except OSError as error:
            raise SinkError(f"recording {self._path}: closing failed ({error.strerror}); is the disk full?") from error
