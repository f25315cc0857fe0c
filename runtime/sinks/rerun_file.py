"""``--rerun FILE.rrd``: pictures, regions, scores and reasons for the Rerun viewer (https://rerun.io)."""

from __future__ import annotations

import importlib.util
import math
import time
from pathlib import Path

from framegate.runtime.errors import SinkError, UsageError
from framegate.runtime.pipeline import FrameResult
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.picture import WIDTH, jpeg, shown

_GREEN, _RED = (11, 160, 60), (220, 30, 45)


class RerunSink:
    """Writes a recording, at the time of capture: ``camera``, and of each region its score, threshold and verdict.

    Args:
        path: ``.rrd`` file to create; an existing one is replaced.
        rois: The pipeline's regions.

    Raises:
        UsageError: The package rerun-sdk is not installed.
        SinkError: The file cannot be created.
    """

    takes_silence = False

    def __init__(self, path: Path, rois: tuple[Roi, ...]) -> None:
        if importlib.util.find_spec("rerun") is None:
            raise UsageError(
                f"--rerun {path}: the package 'rerun-sdk' is not installed; pip install 'framegate[rerun]'"
            )
        import rerun

        self._rerun = rerun
        self._rois = rois
        try:
            path.open("ab").close()  # rerun would say so from a thread of its own, later
        except OSError as error:
            raise SinkError(f"recording {path}: cannot be written ({error.strerror})") from error
        self._stream = rerun.RecordingStream("framegate")
        self._stream.save(path)
        self._to_wall_s = time.time() - time.monotonic()
        self._said: dict[str, str] = {}

    def write(self, result: FrameResult) -> None:
        """Add one frame and its verdicts."""
        rerun, stream = self._rerun, self._stream
        image = shown(result.image)
        scale = min(1.0, WIDTH / image.shape[1])
        stream.set_time("captured", timestamp=result.predictions[0].captured_ns / 1e9 + self._to_wall_s)
        stream.set_time("frame", sequence=result.predictions[0].frame_id)
        stream.log("camera", rerun.EncodedImage(contents=jpeg(image, WIDTH), media_type="image/jpeg"))
        boxes, labels, colours = [], [], []
        for prediction, roi in zip(result.predictions, self._rois, strict=True):
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

    def close(self) -> None:
        """Finish the file; can be called twice."""
        self._stream.disconnect()
