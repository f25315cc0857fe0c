"""How much of a recording can be read, by readers that did not write it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest


def frames_in(path: Path) -> int:
    """Pictures that can be read from a video, MCAP or Rerun file, finished or not."""
    ending = path.suffix
    if ending == ".mcap":
        return sum(topic == "/camera" for topic, _ in mcap_messages(path))
    if ending == ".rrd":
        return _rerun_rows(path, "/camera")
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


def mcap_messages(path: Path) -> list[tuple[str, bytes]]:
    """Topic and data of every message up to where the file breaks off."""
    reader = pytest.importorskip("mcap.reader")
    exceptions = pytest.importorskip("mcap.exceptions")
    found = []
    with path.open("rb") as file, contextlib.suppress(exceptions.EndOfFile):
        for _, channel, message in reader.NonSeekingReader(file).iter_messages(log_time_order=False):
            found.append((channel.topic, message.data))
    return found


def _rerun_rows(path: Path, entity: str) -> int:
    chunk = pytest.importorskip("rerun.chunk")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a file without an end
        chunks = chunk.RrdReader(path).stream().to_chunks()
        return sum(each.num_rows for each in chunks if str(each.entity_path) == entity and not each.is_static)


def verdict_lines(path: Path) -> list[dict[str, object]]:
    """The whole lines of a file of verdicts; fails if any but the last one is not whole."""
    lines = path.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1]]  # behind the last line feed is nothing, or a line that was cut off


@contextlib.contextmanager
def small_disk(folder: Path, size_kib: int) -> Iterator[Path]:
    """A file system of its own that is soon full.

    Args:
        folder: Where to mount it; created.
        size_kib: Its size.
    """
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a small disk can be mounted by root only")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave no space on the disk of a folder."""
    with (folder / "rest").open("wb", buffering=0) as rest, contextlib.suppress(OSError):
        while rest.write(bytes(4096)):
            pass
