"""The floor of the hand-over: a bare datagram between two processes, by how the two are scheduled.

    python -m framegate.benchmarks.handover.floor --busy 2 --out benchmarks/results/handover-floor.json

What stands between "decided" and "the receiver has it" is, before any code of framegate, a system call, the waking of
the other process and a system call. This measures that alone, in C and in Python, as ordinary processes, with a higher
niceness, and in real time (SCHED_FIFO), while ordinary work keeps the cores busy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from framegate.benchmarks.handover.scheduling import SCHEDULING, allowed
from framegate.benchmarks.handover.speed import compiled, compiler, summary
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import to_stderr, to_stdout

_ROUNDS = 5
_MODULE = "framegate.benchmarks.handover.floor"


def ways(program: list[str], name: str, count: int, pause_us: int) -> list[float]:
    """Milliseconds from before sendto in one process until after recv in another one."""
    apart = SCHEDULING[name]
    with subprocess.Popen(
        [*program, "receive", str(count)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=apart,
    ) as other:
        assert other.stdout is not None
        port = other.stdout.readline().strip()
        sending = [*program, "send", port, str(count), str(pause_us)]
        subprocess.run(sending, check=True, preexec_fn=apart)
        return [(int(b) - int(a)) / 1e6 for a, b in (line.split() for line in other.stdout)]


def wakes(program: list[str], name: str, count: int, pause_us: int) -> list[float]:
    """Milliseconds from the time at which a sleep should end until it did."""
    command = [*program, "wake", str(count), str(pause_us)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=SCHEDULING[name],
    )
    return [(int(b) - int(a)) / 1e6 for a, b in (line.split() for line in done.stdout.splitlines())]


def measure(count: int, pause_us: int) -> dict[str, dict[str, Any]]:
    """Everything, in turns: name of the way -> name of the scheduling -> milliseconds."""
    python = [sys.executable, "-S", str(Path(__file__).with_name("floor_part.py"))]
    with tempfile.TemporaryDirectory() as folder:
        c = [str(compiled("floor.c", Path(folder)))] if compiler() else None
        names = [name for name in SCHEDULING if allowed(name)]
        programs = ({"C to C": c} if c else {}) | {"Python to Python": python}
        times: dict[str, dict[str, list[float]]] = {
            way: {name: [] for name in names} for way in [*programs, *(["a sleep ends"] if c else [])]
        }
        for turn in range(_ROUNDS):
            for name in names:
                for way, program in programs.items():
                    times[way][name] += ways(program, name, count // _ROUNDS, pause_us)
                if c:
                    times["a sleep ends"][name] += wakes(c, name, count // _ROUNDS, pause_us)
            to_stderr(f"floor: round {turn + 1} of {_ROUNDS}")
    return {way: {name: summary(each) for name, each in found.items()} for way, found in times.items()}


def main(words: list[str] | None = None) -> int:
    """Measure everything and print or write the record."""
    parser = argparse.ArgumentParser(description="What a bare datagram takes between two processes.")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the record there (default: print it)")
    parser.add_argument("--count", type=int, default=2000, help="datagrams of each kind (default: %(default)s)")
    parser.add_argument("--pause-us", type=int, default=4000, help="between two (default: %(default)s)")
    parser.add_argument("--busy", type=int, default=0, help="processes that keep a core busy (default: %(default)s)")
    arguments = parser.parse_args(words)
    load = round(os.getloadavg()[0], 1)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(arguments.busy)]
    try:
        found = measure(arguments.count, arguments.pause_us)
    finally:
        for each in busy:
            each.kill()
            each.wait()
    record = {
        "command": f"python -m {_MODULE} --count {arguments.count} --busy {arguments.busy}",
        "date": date.today().isoformat(),
        "machine": circumstances(),
        "busy": arguments.busy,
        "load": load,
        "ms": found,
    }
    text = json.dumps(record, indent=2) + "\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    else:
        for line in text.splitlines():
            to_stdout(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
