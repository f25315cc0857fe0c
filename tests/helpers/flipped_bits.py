"""Flips bits of a recording and reads it, under a limit of memory, in a process of its own.

    python flipped_bits.py FILE.mcap READER FIRST RANDOM

One bit of each of the first ``FIRST`` bytes, then ``RANDOM`` bits anywhere. Prints a line for each flip that made the
reader raise anything but a `FramegateError`, and a last one with how many were read and refused.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from framegate.runtime.errors import FramegateError

_MORE_BYTES = 2**28
"""A reader may take so much more than the process has when it begins."""


def replayed(path: Path) -> None:
    """As ``framegate replay``."""
    from framegate.runtime.replay.replay import read_recording, replay

    recording = read_recording(path)
    replay(path, recording, recording.calibration)


def indexed(path: Path) -> None:
    """As ``framegate drives index``."""
    from framegate.evaluation.drives.index import plan, read_file

    planned = plan([path])
    assert bool(planned.units) != bool(planned.broken)
    for unit in planned.units:
        read_file(unit)


def indexed_slowly(path: Path) -> None:
    """As ``framegate drives index`` where nothing is compiled."""
    from framegate.runtime.replay import columns

    columns.library = lambda: (None, "not now")  # type: ignore[assignment]
    indexed(path)


def boxes(path: Path) -> None:
    """As ``--objects FILE.mcap``."""
    from framegate.runtime.regions.recorded import RecordedRegions

    RecordedRegions(path)


def pictures(path: Path) -> None:
    """As labelling and judging again."""
    from framegate.runtime.replay.pictures import decode, read_jpegs

    for number, data in read_jpegs(path):
        decode(data, path, number)


READERS: dict[str, Callable[[Path], None]] = {
    each.__name__: each for each in (replayed, indexed, indexed_slowly, boxes, pictures)
}


def fuzz(path: Path, reader: str, first: int, more: int) -> tuple[list[str], str]:
    """Run it; the flips that were not survived, and the last line."""
    done = subprocess.run(
        [sys.executable, __file__, str(path), reader, str(first), str(more)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, last = done.stdout.splitlines()
    return lines, last


def main(path: Path, reader: str, first: int, more: int) -> None:
    """Flip and read."""
    read, data = READERS[reader], bytearray(path.read_bytes())
    read(path)  # loads everything
    with open("/proc/self/statm", encoding="ascii") as file:
        limit = int(file.read().split()[0]) * resource.getpagesize() + _MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    rng = random.Random(0)
    places = [(at, at * 5 % 8) for at in range(min(first, len(data)))]
    places += [(rng.randrange(len(data)), rng.randrange(8)) for _ in range(more)]
    whole = refused = 0
    with tempfile.TemporaryDirectory() as folder:
        flipped = Path(folder) / path.name
        for at, bit in places:
            data[at] ^= 1 << bit
            flipped.write_bytes(data)
            data[at] ^= 1 << bit
            try:
                read(flipped)
                whole += 1
            except FramegateError:
                refused += 1
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is found
                print(f"byte {at}, bit {bit}: {type(error).__name__}: {error}")
    print(f"{whole} read, {refused} refused")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
