"""``--rerun FILE.rrd``: pictures, regions, scores and reasons for the Rerun viewer (https://rerun.io)."""

from __future__ import annotations

import importlib.util
import math
import os
import tempfile
import threading
import time
from pathlib import Path

from framegate.runtime.errors import SinkError, UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.base import FLUSH_S
from framegate.runtime.sinks.picture import WIDTH, jpeg, shown
from framegate.runtime.sinks.record_file import RecordFile

_GREEN, _RED = (11, 160, 60), (220, 30, 45)
_PIPE_BYTES = 65536


class _Copier:
    """Stores what rerun writes: through a named pipe, because rerun with a file on a full disk never ends.

    rerun says of such a file only that a time limit passed, and then waits for ever at the end of the process. A pipe
    takes everything, and what cannot be stored is known here.

    Args:
        file: Where to.
    """

    def __init__(self, file: RecordFile) -> None:
        self._file = file
        self.failure: SinkError | None = None
        self._thread = threading.Thread(target=self._copy, name="framegate-rerun", daemon=True)

    def open(self, stream: object) -> None:
        """Let a recording stream write into the pipe."""
        with tempfile.TemporaryDirectory(prefix="framegate-") as folder:
            pipe = Path(folder) / "recording.rrd"
            os.mkfifo(pipe, 0o600)
            self._end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # would wait for the writer otherwise
            stream.save(pipe)  # type: ignore[attr-defined]  # rerun's types are not always installed
        os.set_blocking(self._end, True)
        self._thread.start()

    def _copy(self) -> None:
        while data := os.read(self._end, _PIPE_BYTES):
            if self.failure is None:
                try:
                    self._file.append(data, "what came before is kept")
                except SinkError as error:
                    self.failure = error
        os.close(self._end)

    def finish(self) -> None:
        """Wait until everything is stored; the stream was disconnected."""
        self._thread.join()


class RerunSink:
    """Writes a recording, at the time of capture: ``camera``, and of each region its score, threshold and verdict.

    rerun hands over what it has about five times a second. A file without an end, because the process was killed or the
    disk is full, opens all the same.

    Args:
        path: ``.rrd`` file to create; an existing one is replaced.
        rois: The pipeline's regions.

    Raises:
        UsageError: The package rerun-sdk is not installed.
        SinkError: The file cannot be created, or, by `write`, not written.
    """

    takes_silence = False
    takes_pictures = True
    flush_s = FLUSH_S

    def __init__(self, path: Path, rois: tuple[Roi, ...]) -> None:
        if importlib.util.find_spec("rerun") is None:
            raise UsageError(
                f"--rerun {path}: the package 'rerun-sdk' is not installed; pip install 'framegate[rerun]'"
            )
        import rerun

        self._rerun = rerun
        self.path = path
        self._rois = rois
        self._file = RecordFile(path, "recording")
        self._stream = rerun.RecordingStream("framegate")
        self._copier = _Copier(self._file)
        self._copier.open(self._stream)
        self._to_wall_s = time.time() - time.monotonic()
        self._said: dict[str, str] = {}

    def write(self, result: FrameResult) -> None:
        """Add one frame and its verdicts."""
        self.flush()
        rerun, stream = self._rerun, self._stream
        image = shown(result.image)
        scale = min(1.0, WIDTH / image.shape[1])
        stream.set_time("captured", timestamp=result.first.captured_ns / 1e9 + self._to_wall_s)
        stream.set_time("frame", sequence=result.first.frame_id)
        stream.log("camera", rerun.EncodedImage(contents=jpeg(image, WIDTH), media_type="image/jpeg"))
        boxes, labels, colours = [], [], []
        for prediction, roi in zip(result.predictions, result.rois(self._rois), strict=True):
            verdict = (
                f"USE {prediction.candidate} {prediction.confidence:.2f}"
                if prediction.accepted_when_decided
                else "DO NOT USE " + " ".join(reason.value for reason in prediction.decided_reasons)
            )
            box = roi.pixels(image.shape[1], image.shape[0])
            if box is not None:
                boxes.append([edge * scale for edge in box])
                labels.append(f"{roi.name}: {verdict}")
                colours.append(_GREEN if prediction.accepted_when_decided else _RED)
            for name, value in (
                ("score", prediction.score),
                ("threshold", prediction.threshold),
                *prediction.signals.items(),
            ):
                if math.isfinite(value):
                    stream.log(f"{roi.name}/{name}", rerun.Scalars(value))
            kind = "USE" if prediction.accepted_when_decided else verdict
            if self._said.get(roi.name) != kind:  # one line a change, not one a frame
                self._said[roi.name] = kind
                stream.log(
                    f"{roi.name}/verdict",
                    rerun.TextLog(verdict, level="INFO" if prediction.accepted_when_decided else "WARN"),
                )
        stream.log(
            "camera/regions",
            rerun.Boxes2D(array=boxes, array_format=rerun.Box2DFormat.XYWH, labels=labels, colors=colours),
        )

    def flush(self) -> None:
        """Find out whether everything so far could be stored."""
        if self._copier.failure is not None:
            raise self._copier.failure

    def close(self) -> None:
        """Finish the file; can be called twice."""
        if self._file.closed:
            return
        self._stream.disconnect()
        self._copier.finish()
        self._file.close()
        self.flush()
