"""What an open page costs the pipeline: ``python -m framegate.benchmarks.cost.page``.

One demo with its real parts (clip, pipeline, page, web server) runs at the clip's pace. In turns, in blocks of frames,
nobody looks, one viewer looks, or a browser does:

- "one viewer": a process that takes and confirms every picture over the WebSocket, as a browser on another machine.
  It does not decode them: that would be the other machine's work. Its own share of receiving is done here.
- "Chromium beside it", where one is installed: the page itself in a headless Chromium on this machine. It decodes and
  paints without a GPU, on the cores that the pipeline uses, so this says what the machine is asked for, not the page.

A frame's time is capture to the last of its verdicts. The record has the format of ``framegate bench``.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framegate.benchmarks.checkout import RESULTS
from framegate.benchmarks.cost.browser import find_chromium
from framegate.benchmarks.cost.page_viewers import PageInChromium, RemoteViewer
from framegate.benchmarks.latency.machine import Usage
from framegate.benchmarks.latency.record import head, write_record
from framegate.benchmarks.latency.series import ratio, summarise, verdict_counts
from framegate.camera_demo.live_demo import LiveDemo
from framegate.camera_demo.looped_clip import LoopedClip
from framegate.camera_demo.shipped import BUNDLE, CLIP, REGIONS
from framegate.camera_demo.web_server import listen
from framegate.runtime.cli.options import SWITCH_INTERVAL_S
from framegate.runtime.console import progress_bar, to_stdout
from framegate.runtime.errors import FramegateError, SinkError, UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.passwords import hide_passwords
from framegate.runtime.session import Session
from framegate.runtime.sources.base import Source
from framegate.runtime.sources.open import open_source

OUT = RESULTS / "page-latency.json"
WHAT = "capture to the last verdict of a frame in the running demo; nobody looks, or a page is open; blocks in turns"
NOBODY, VIEWER, CHROMIUM = "nobody looks", "one viewer", "Chromium beside it"
BARE = "nobody looks, no pictures kept"
_HOST, _DEADLINE_MS = "127.0.0.1", 150.0
BLOCK, SETTLE = 50, 10
_OPEN_S = 60.0
_STANDSTILL_S = 1.0


@dataclass
class Case:
    """Who looks, and what was measured meanwhile.

    Attributes:
        looking: Opens and closes the page; None: nobody looks.
        keeps: Whether pictures of the last two minutes are kept, as the demo does.
        verdict_ns: Of every counted frame.
        fed: Frames captured meanwhile.
        pictures: Pictures sent meanwhile.
        seconds: How long that took.
        machine_s: Processor time that the whole machine used meanwhile, in seconds.
        accepted: ACCEPT verdicts.
        reasons: Of the others.
        repeated: Turns that were measured again, see `Race.block`.
        usage: Of the demo's process.
    """

    looking: RemoteViewer | PageInChromium | None
    keeps: bool = True
    verdict_ns: list[int] = field(default_factory=list)
    fed: int = 0
    pictures: int = 0
    seconds: float = 0.0
    machine_s: float = 0.0
    accepted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    usage: Usage = field(default_factory=Usage)

    def add(self, results: list[FrameResult], usage: Usage) -> None:
        """Count the frames of a turn."""
        for result in results:
            self.verdict_ns.append(max(each.decided_ns - each.captured_ns for each in result.predictions))
            for prediction in result.predictions:
                self.accepted += prediction.accepted_when_decided
                self.reasons.update(reason.value for reason in prediction.decided_reasons)
        self.usage.wall_s += usage.wall_s
        self.usage.processor_s += usage.processor_s
        self.usage.resident_mib = max(self.usage.resident_mib, usage.resident_mib)


class Race:
    """A running demo whose cases take turns.

    Args:
        demo: Its pipeline runs.
    """

    def __init__(self, demo: LiveDemo) -> None:
        self._demo = demo
        self._results = demo.pipeline.results()

    def block(self, case: Case) -> None:
        """One turn of one case.

        Where no verdict comes for `_STANDSTILL_S`, a virtual machine was halted as a whole, say: the turn is counted as
        repeated and measured again.

        Raises:
            FramegateError: The source ended, or what should look did not open or leave the page.
        """
        while not self._turn(case):
            case.repeated += 1

    def _turn(self, case: Case) -> bool:
        viewers, stats = self._demo.viewers, self._demo.pipeline.stats
        self._demo.timeline.keeps = case.keeps
        if case.looking is not None:
            case.looking.turn()
            self._wait(lambda: viewers.pictures > 0)
        for _ in range(SETTLE):
            self._next()
        began, machine, pictures, captured = time.monotonic(), machine_seconds(), viewers.pictures, stats.captured
        usage, found, steady, last = Usage(), [], True, began
        with usage.measuring():
            for _ in range(BLOCK):
                found.append(self._next())
                steady &= time.monotonic() - last < _STANDSTILL_S
                last = time.monotonic()
        if steady:
            case.add(found, usage)
            case.seconds += time.monotonic() - began
            case.machine_s += machine_seconds() - machine
            case.pictures += viewers.pictures - pictures
            case.fed += stats.captured - captured
        if case.looking is not None:
            case.looking.turn()
            self._wait(lambda: len(viewers) == 0)
        return steady

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _OPEN_S
        while not condition():
            if time.monotonic() > deadline:
                raise FramegateError("what should look did not open or leave the page in time")
            self._next()

    def _next(self) -> FrameResult:
        result = next(self._results, None)
        if result is None:
            raise FramegateError("the source ended before enough frames were measured")
        self._demo.show(result)
        return result


def machine_seconds() -> float:
    """Processor time that the whole machine has used since it was started, in seconds (Linux; NaN elsewhere)."""
    try:
        fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return float("nan")
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


def series_of(cases: dict[str, Case]) -> dict[str, dict[str, Any]]:
    """What the record says about each."""
    found: dict[str, dict[str, Any]] = {}
    for name, case in cases.items():
        used = case.usage.to_json()
        row = summarise(case.verdict_ns, BLOCK) | {
            "fed": case.fed,
            "dropped": case.fed - len(case.verdict_ns),
            "pictures_per_second": case.pictures / case.seconds,
            "verdicts": verdict_counts(case.reasons, len(REGIONS) * len(case.verdict_ns), case.accepted),
            "usage": used,
            "turns_repeated": case.repeated,
            "others_percent_of_one_core": 100 * (case.machine_s - case.usage.processor_s) / case.seconds,
        }
        if name != NOBODY:
            row["reference"] = NOBODY
            row["to_reference"] = {
                key: ratio(case.verdict_ns, cases[NOBODY].verdict_ns, BLOCK, percent)
                for key, percent in (("p50", 50.0), ("p99", 99.0))
            }
        found[name] = row
    return found


def measure(turns: int, source: str | None, bundle: str) -> tuple[Session, dict[str, Case]]:
    """Run the demo and let the cases take turns.

    Raises:
        FramegateError: A part does not start, or the source ends.
    """

    def opened() -> Source:
        return LoopedClip(CLIP) if source is None else open_source(source, loop=True)

    session = Session.open(bundle)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar())
        demo = stack.enter_context(LiveDemo(opened, session, REGIONS, _DEADLINE_MS, _HOST, listen(_HOST, 0)))
        address = demo.start()
        cases = {
            BARE: Case(None, keeps=False),
            NOBODY: Case(None),
            VIEWER: Case(stack.enter_context(RemoteViewer(address))),
        }
        if find_chromium() is not None:
            cases[CHROMIUM] = Case(stack.enter_context(PageInChromium(address)))
        stack.enter_context(demo.pipeline)
        race = Race(demo)
        for turn in range(turns):
            for name in cases if turn % 2 else reversed(cases):
                race.block(cases[name])
            progress("page", turn + 1, turns)
    return session, cases


def main(words: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3000, help="counted in every case; default: 3000")
    parser.add_argument("--source", help="default: the shipped clip in a loop, as the demo plays it")
    parser.add_argument("--bundle", default=BUNDLE, help="default: the one of the demo")
    parser.add_argument("--note", default="", help="what else ran on the machine, for the record")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file")
    options = parser.parse_args(words)
    try:
        return _run(options, words if words is not None else sys.argv[1:])
    except FramegateError as error:
        print(f"bench_page: {error}", file=sys.stderr)
        return error.exit_code


def _run(options: argparse.Namespace, words: list[str]) -> int:
    if options.frames < 1:
        raise UsageError(f"--frames {options.frames}: expected at least 1")
    if not options.out.parent.is_dir():
        raise SinkError(f"{options.out}: the folder {options.out.parent} does not exist")
    session, cases = measure(-(-options.frames // BLOCK), options.source, options.bundle)
    name = hide_passwords(options.source or CLIP.name)
    command = shlex.join(map(hide_passwords, ["python", "-m", "framegate.benchmarks.cost.page", *words]))
    record = head(WHAT, command, session.bundle, name) | {
        "configuration": f"{session.scorer.backend.engine}, {session.precision}, {len(REGIONS)} regions",
        "series": series_of(cases),
        "left_out": {} if CHROMIUM in cases else {CHROMIUM: "no Chromium is installed"},
        "load": {"average_of_a_minute": os.getloadavg()[0], "note": options.note},
    }
    write_record(options.out, record)
    for name, row in record["series"].items():
        line = f"{name}: p50 {row['p50_ms']:.2f} p99 {row['p99_ms']:.2f} p99.9 {row['p99.9_ms']:.2f} max "
        line += f"{row['max_ms']:.2f} ms, {row['pictures_per_second']:.1f} pictures/s"
        line += f", {row['turns_repeated']} turns repeated, others {row['others_percent_of_one_core']:.0f} % of a core"
        if "to_reference" in row:
            part = row["to_reference"]["p50"]
            line += f"; p50 {part['ratio']:.3f} [{part['low']:.3f}, {part['high']:.3f}]"
        to_stdout(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
