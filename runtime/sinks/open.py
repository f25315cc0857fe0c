"""Open the files that a command was asked to write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from framegate.runtime.errors import UsageError
from framegate.runtime.replay.recording import Recording
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.base import Sink
from framegate.runtime.sinks.encoders import CODECS
from framegate.runtime.sinks.jsonl import JsonLinesSink
from framegate.runtime.sinks.mcap_file import McapSink
from framegate.runtime.sinks.record_file import STDOUT
from framegate.runtime.sinks.rerun_file import RerunSink
from framegate.runtime.sinks.video import OverlayVideoSink

_MCAP = ".mcap"


def require_formats(records: Sequence[Path]) -> None:
    """Refuse a file whose ending says no format.

    Raises:
        UsageError: It is none of ``.mp4``, ``.mkv``, ``.avi`` and ``.mcap``.
    """
    known = (*CODECS, _MCAP)
    for path in records:
        if path.suffix.lower() not in known:
            raise UsageError(
                f"--record {path}: the ending decides the format; use {', '.join(known[:-1])} or {known[-1]}"
            )


def open_sinks(
    records: Sequence[Path],
    rerun: Path | None,
    jsonl: Path | None,
    rois: tuple[Roi, ...],
    fps: float | None,
    beat_s: float | None = None,
    recording: Recording | None = None,
    pictures: bool = True,
) -> list[Sink]:
    """The files to be written; if one of them cannot be, those before it are closed again.

    Args:
        records: Annotated videos (``.mp4``, ``.mkv``, ``.avi``) and ``.mcap`` files.
        rerun: ``.rrd``.
        jsonl: Verdicts as JSON lines.
        rois: The pipeline's regions.
        fps: Of the source, None if it has none.
        beat_s: Longest time between two JSON lines on the standard output, in seconds; None: no heartbeat.
        recording: What an ``.mcap`` file says about itself.
        pictures: Whether an ``.mcap`` file holds the frames, too.

    Raises:
        UsageError: The package for it is missing, or the ending says no format.
        SinkError: A file cannot be written.
    """
    require_formats(records)
    sinks: list[Sink] = []
    try:
        for path in records:
            if path.suffix.lower() == _MCAP:
                sinks.append(McapSink(path, rois, recording, pictures=pictures))
            else:
                sinks.append(OverlayVideoSink(path, rois, fps))
        if rerun is not None:
            sinks.append(RerunSink(rerun, rois))
        if jsonl is not None:
            sinks.append(JsonLinesSink(jsonl, beat_s if jsonl == STDOUT else None))
    except BaseException:
        for sink in sinks:
            sink.close()
        raise
    return sinks
