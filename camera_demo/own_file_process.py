"""The process that judges somebody's file: run as ``python -m framegate.camera_demo.own_file_process``.

It reads its settings (`framegate.camera_demo.own_file.Judge` and the file's path) as JSON from standard input, and
writes messages of the page to standard output, each behind its length of 4 bytes: one a frame, and at the end what was
judged, or one sentence about why not. The verdicts are those of `framegate run` on the same file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from framegate.camera_demo.own_file import CLIP_S, JUDGE_S, MOST_FRAMES, MOST_PIXELS, record
from framegate.camera_demo.picture import message
from framegate.camera_demo.timeline import note_of
from framegate.runtime.cli.objects import objects_of
from framegate.runtime.console import plain
from framegate.runtime.errors import FramegateError, SourceError
from framegate.runtime.pipeline import Pipeline
from framegate.runtime.session import Session
from framegate.runtime.sources.base import Source
from framegate.runtime.sources.images import ImageSource
from framegate.runtime.sources.opencv import IMAGE_SUFFIXES
from framegate.runtime.sources.video import VideoFileSource

NICE = 5
_CPU_S = 120
_MOST_BYTES = 2 * 2**30
"""Of memory beyond what the process holds when it opens the file: room for several pictures of the largest size."""
_WIDTH = 640
_FPS = 25.0


def limit() -> None:
    """From now on no file is written, no core is dumped, and processor time and memory end."""
    held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    for what, most in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, _CPU_S),
        (resource.RLIMIT_AS, held + _MOST_BYTES),
    ):
        resource.setrlimit(what, (most, most))


def open_file(path: Path) -> Source:
    """The file as a source that is read as fast as it is judged.

    Raises:
        SourceError: It cannot be decoded, or is too large.
    """
    source: Source = ImageSource(path) if path.suffix in IMAGE_SUFFIXES else VideoFileSource(path, realtime=False)
    width, height = source.frame_size or (0, 0)
    if width * height > MOST_PIXELS:
        source.close()
        raise SourceError(f"its pictures have {width} x {height} pixels, more than {MOST_PIXELS / 1e6:.0f} million")
    return source


def judge(settings: dict[str, Any], say: Callable[[bytes], None]) -> None:
    """Judge one file.

    Args:
        settings: See the module.
        say: Takes a message.

    Raises:
        FramegateError: It cannot be judged.
    """
    session = Session.open(settings["bundle"], settings["backend"], settings["precision"], 1, trust=settings["trust"])
    limit()  # before a byte of the file is looked at; opening an engine may write to a temporary folder
    with contextlib.closing(open_file(Path(settings["file"]))) as source:
        is_clip = source.fixed_size
        fps = source.fps or _FPS
        wanted = {name: settings[name] for name in ("objects", "track_rule")}
        mapped = None if settings["label_map"] is None else Path(settings["label_map"])
        if not is_clip and wanted["objects"] is not None:
            wanted["track_rule"] = "none"  # of one picture nothing is followed
        options = argparse.Namespace(**wanted, label_map=mapped, max_objects=None, roi=[], trust=settings["trust"])
        objects = objects_of(options, session.bundle.labels) if wanted["objects"] is not None else None
        pipeline = Pipeline(source, session, lossless=True, keep_frames=True, objects=objects)
        rois = session.regions if objects is None else ()
        say(record(clip=is_clip, fps=fps, length=source.length if is_clip else 1, labels=_labels(session)))
        most, until, judged = min(MOST_FRAMES, round(CLIP_S * fps)), time.monotonic() + JUDGE_S, 0
        why = ""
        with pipeline:
            for result in pipeline.results():
                if not result.has_frame:
                    continue
                if not is_clip and (result.image is None or not result.image.size):
                    raise SourceError(
                        "this picture cannot be decoded: it is damaged, or has more than "
                        f"{MOST_PIXELS / 1e6:.0f} million pixels; save it again as JPEG or PNG"
                    )
                ms = round(1e3 * result.first.frame_id / fps)
                made = message(result, rois, across=_WIDTH, more={"moment": True, "note": note_of(result, ms)})
                say(struct.pack(">I", len(made)) + made)
                judged += 1
                if judged >= most or time.monotonic() > until:
                    why = f"the first {judged / fps:.1f} s of it were judged" if judged != source.length else ""
                    break
        say(record(judged=judged, cut=why))


def _labels(session: Session) -> list[str]:
    return [plain(label) for label in session.bundle.labels[:20]]


def main() -> int:
    """Judge the file that standard input names."""
    settings = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    with contextlib.suppress(OSError):
        os.nice(NICE)

    def say(text: bytes) -> None:
        answers.write(text)
        answers.flush()

    try:
        judge(settings, say)
    except BrokenPipeError:  # nobody waits any more
        return 0
    except FramegateError as error:
        # The file's name is this demo's, and means nothing to whoever gave it.
        said = plain(str(error))
        for named in ("video ", "images ", ""):
            said = said.replace(named + settings["file"], "this file")
        say(record(refused=said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
