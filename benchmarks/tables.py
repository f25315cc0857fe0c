"""The tables of README and docs, from the committed records: ``python -m framegate.benchmarks.tables [DOCUMENT...]``.

A document says where a table goes. Everything between the two marks is written anew; no figure there is typed by hand:

    <!-- begin models -->
    <!-- end -->

`BLOCKS` says for every name which records are read and what is made of them. Where a name needs a bundle it follows:
``<!-- begin engines hybrid-cifar10 -->``. ``--check`` writes nothing and says which blocks are stale.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from framegate.benchmarks import (
    camera_tables,
    certificate_tables,
    fault_tables,
    gpu_tables,
    network_tables,
    speed_tables,
)
from framegate.benchmarks.checkout import RESULTS, ROOT
from framegate.benchmarks.latency import pareto_plot
from framegate.benchmarks.latency.compare import read_record
from framegate.evaluation import tracks as track_figures
from framegate.evaluation.gate import names as gate_names
from framegate.evaluation.gate import tables as gate_tables
from framegate.evaluation.gate import tables_signals as signal_tables
from framegate.evaluation.report import results_tables, values
from framegate.evaluation.report.files import load_records, read_json, write_text
from framegate.evaluation.report.table import Table, markdown
from framegate.runtime.errors import DataError, FramegateError, UsageError

_DAMAGED = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, StopIteration)
"""What a record that lacks something, or holds something else in its place, makes a table raise."""
_MARK = re.compile(r"<!-- (?:begin (?P<name>[^\n]+?)|(?P<end>end)) -->")
"""A whole line of a document."""


@dataclass(frozen=True)
class Source:
    """A record, or a folder of records of several bundles.

    Attributes:
        path: Below ``benchmarks/results``.
        read: What reads it.
    """

    path: str
    read: Callable[[Path], Any]


@dataclass(frozen=True)
class Block:
    """What stands in a block.

    Attributes:
        sources: The records it is made from.
        write: Takes what each source holds, in that order, and gives a table or Markdown.
        of_a_bundle: The name of a bundle follows; ``write`` takes the one record of that bundle.
    """

    sources: tuple[Source, ...]
    write: Callable[..., Table | str]
    of_a_bundle: bool = False


def _evaluations(folder: Path) -> list[dict[str, Any]]:
    return load_records(folder, values.FORMAT, "framegate evaluate")


def _gates(folder: Path) -> list[dict[str, Any]]:
    return load_records(folder, gate_names.FORMAT, "framegate gate")


_LATENCY, _RIVALS, _SCENARIOS, _STREAMS, _PAGE = (
    Source(f"{name}.json", read_record)
    for name in ("cpu-latency", "latency-rivals", "latency-scenarios", "latency-streams", "page-latency")
)
_FAULTS = Source("fail-closed.json", partial(read_json, advice="make faults"))
_CAMERA = Source(
    "camera-rival.json", partial(read_json, advice="python -m framegate.benchmarks.cost.camera_rival, see docs")
)
_NETWORKS = Source(
    "foreign-networks.json", partial(read_json, advice="python -m framegate.benchmarks.cost.foreign_networks, see docs")
)
_HANDOVER = Source("handover-faults.json", partial(read_json, advice="make faults"))
_HANDOVER_ELSEWHERE = tuple(
    Source(f"handover-faults-{name}.json", partial(read_json, advice="benchmarks.handover.campaign, see docs"))
    for name in ("zenoh", "ros2")
)
_FAULTS_TIME = Source("fail-closed-time.json", partial(read_json, advice="make bench"))
_HANDOVER_SPEED = Source("handover-speed.json", partial(read_json, advice="benchmarks.handover.speed, see docs"))
_HANDOVER_FLOOR = Source("handover-floor.json", partial(read_json, advice="benchmarks.handover.floor, see docs"))
_GATE_COST = Source("gate-cost.json", lambda path: read_json(path, "make bench") if path.is_file() else None)
_PARETO = Source("pareto.json", lambda path: read_json(path, "benchmarks.latency.pareto") if path.is_file() else None)
_DEMO = Source("demo.json", partial(read_json, advice="make results"))
_DEMO_OBJECTS = Source("demo-objects.json", partial(read_json, advice="make results"))
_KERNEL_MODEL = Source("kernel-model.json", partial(read_json, advice="make kernel-model"))
_KERNELS, _GPU_LATENCY = (
    Source(name, lambda path: read_json(path, "make gpu") if path.is_file() else None)
    for name in ("kernels.json", "gpu-latency.json")
)
_EVALUATION = Source("evaluation", _evaluations)
_NOT_SHIPPED = Source("evaluation-not-shipped", _evaluations)
_GATE = Source("gate", _gates)
_ATTACKS = Source(
    "attacks",
    lambda path: load_records(path, gate_names.ATTACKS_FORMAT, "framegate attacks") if path.is_dir() else [],
)
_CERTIFICATES = Source(
    "certificates",
    partial(load_records, kind=certificate_tables.FORMAT, command="python -m framegate.benchmarks.certificates"),
)

BLOCKS: dict[str, Block] = {
    "demo": Block((_DEMO,), speed_tables.demo),
    "speed-line": Block((_LATENCY,), speed_tables.speed_line),
    "targets": Block((_LATENCY, _SCENARIOS, _STREAMS, _RIVALS, _PAGE, _GATE_COST), speed_tables.targets),
    "latency": Block((_LATENCY,), speed_tables.latency),
    "stages": Block((_LATENCY,), speed_tables.stages),
    "floors": Block((_GATE_COST,), speed_tables.floors),
    "streams": Block((_STREAMS,), speed_tables.streams),
    "scenarios": Block((_SCENARIOS,), speed_tables.scenarios),
    "rivals": Block((_RIVALS,), speed_tables.rivals),
    "page": Block((_PAGE,), speed_tables.page),
    "fail-closed": Block((_FAULTS,), fault_tables.fail_closed),
    "camera-rival": Block((_CAMERA,), camera_tables.camera_rival),
    "foreign-networks": Block((_NETWORKS,), network_tables.foreign_networks),
    "handover-faults": Block((_HANDOVER,), fault_tables.handover_faults),
    "handover-faults-elsewhere": Block((_HANDOVER, *_HANDOVER_ELSEWHERE), fault_tables.handover_faults_elsewhere),
    "handover-speed": Block((_HANDOVER_SPEED,), fault_tables.handover_speed),
    "handover-floor": Block((_HANDOVER_FLOOR,), fault_tables.handover_floor),
    "fail-closed-time": Block((_FAULTS_TIME,), fault_tables.fail_closed_time),
    "models": Block((_EVALUATION,), results_tables.models),
    "engines": Block((_EVALUATION,), results_tables.engines, of_a_bundle=True),
    "research": Block((_EVALUATION,), results_tables.research, of_a_bundle=True),
    "research-not-shipped": Block((_NOT_SHIPPED,), results_tables.research, of_a_bundle=True),
    "selective": Block((_EVALUATION,), results_tables.selective),
    "best": Block((_EVALUATION,), results_tables.best),
    "false-accepts": Block((_EVALUATION,), results_tables.false_accepts),
    "adaptive": Block((_EVALUATION,), results_tables.adaptive),
    "batches": Block((_EVALUATION,), results_tables.batches),
    "foreign": Block((_EVALUATION,), results_tables.foreign),
    "gate": Block((_GATE,), gate_tables.gate),
    "gate-attacks": Block((_GATE,), gate_tables.gate_attacks),
    "gate-signals": Block((_GATE,), signal_tables.gate_signals),
    "gate-windows": Block((_GATE,), signal_tables.gate_windows),
    "gate-foreign": Block((_GATE,), gate_tables.gate_foreign),
    "gate-transfer": Block((_GATE,), signal_tables.gate_transfer),
    "promise": Block((_GATE,), gate_tables.promise),
    "attacks": Block((_ATTACKS,), certificate_tables.attacks),
    "attacks-short": Block((_ATTACKS,), certificate_tables.attacks_short),
    "certificates": Block((_CERTIFICATES,), certificate_tables.certificates),
    "tracks": Block((Source("tracks", track_figures.read_tracks),), track_figures.table),
    "kernel-model": Block((_KERNEL_MODEL, _KERNELS, _GPU_LATENCY), gpu_tables.kernel_model),
    "pareto": Block((_PARETO,), pareto_plot.table),
    "demo-objects": Block((_DEMO_OBJECTS,), speed_tables.demo),
}
"""Name of a block -> its records and its table."""


class Writer:
    """Fills the blocks of documents.

    Args:
        results: The folder of the records; each is read once, when a block first needs it.
    """

    def __init__(self, results: Path = RESULTS) -> None:
        self._results = results
        self._read: dict[Source, Any] = {}

    def fill(self, document: str) -> str:
        """The document with every block written anew.

        Raises:
            DataError: A mark has no counterpart, a block has an unknown name, or its record is missing, damaged, or
                lacks what the table shows.
        """
        return "".join(
            f"{part.begin}\n{self.block(part.name)}\n{part.end}" if part.name else part.text
            for part in _parts(document)
        )

    def stale(self, document: str) -> list[str]:
        """Names of the blocks whose content differs from what `fill` would write; raises what it raises."""
        blocks = [part for part in _parts(document) if part.name]
        return [part.name for part in blocks if part.text != f"\n{self.block(part.name)}\n"]

    def block(self, name: str) -> str:
        """The content of one block as Markdown that ends with a line break; raises what `fill` raises."""
        kind, _, bundle = name.partition(" ")
        block = BLOCKS.get(kind)
        if block is None:
            raise DataError(f"block {name!r}: expected one of {', '.join(BLOCKS)}")
        if block.of_a_bundle != bool(bundle):
            raise DataError(
                f"block {name!r}: expected {kind!r} {'and the name of a bundle' if not bundle else 'alone'}"
            )
        found = [self._records(source) for source in block.sources]
        if bundle:
            found = [_of_bundle(name, bundle, records) for records in found]
        try:
            written = block.write(*found)
        except _DAMAGED as error:
            files = ", ".join(str(self._results / source.path) for source in block.sources)
            raise DataError(f"block {name!r}: {files} lacks {error!r} for this table; measure it again") from error
        return markdown(written) if isinstance(written, Table) else f"{written}\n"

    def _records(self, source: Source) -> Any:
        if source not in self._read:
            self._read[source] = source.read(self._results / source.path)
        return self._read[source]


def _of_bundle(name: str, bundle: str, records: Sequence[Any]) -> Any:
    for record in records:
        if values.text(record, "bundle", "name") == bundle:
            return record
    raise DataError(f"block {name!r}: no record of the bundle {bundle}")


@dataclass(frozen=True)
class _Part:
    """A stretch of a document: a block with its marks, or the text between two blocks.

    Attributes:
        text: What stands there, without the marks.
        name: Of the block; empty between blocks.
        begin: The line of the first mark.
        end: The line of the second.
    """

    text: str
    name: str = ""
    begin: str = ""
    end: str = ""


def _parts(document: str) -> Iterator[_Part]:
    """All parts in order.

    Raises:
        DataError: A mark has no counterpart.
    """
    name, begin = "", ""
    lines: list[str] = []
    for number, line in enumerate(document.splitlines(keepends=True), 1):
        mark = _MARK.fullmatch(line.rstrip())
        if mark is None:
            lines.append(line)
            continue
        if mark["end"] and not name:
            raise DataError(f"line {number}: '<!-- end -->' without a '<!-- begin NAME -->' before it")
        if name and not mark["end"]:
            raise DataError(f"line {number}: block {mark['name']!r} begins before the '<!-- end -->' of {name!r}")
        yield _Part("".join(lines), name, begin, line if name else "")
        name, begin, lines = mark["name"] or "", line, []
    if name:
        raise DataError(f"block {name!r} has no '<!-- end -->'")
    yield _Part("".join(lines))


def documents() -> list[Path]:
    """The Markdown files in the root folder of the checkout, in docs/ and in evaluation/ that have a block.

    Raises:
        UsageError: There is none, as where framegate is installed without its checkout.
    """
    found = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "evaluation").glob("*.md")])
    with_blocks = [path for path in found if any(_MARK.fullmatch(line) for line in _text(path).splitlines())]
    if not with_blocks:
        raise UsageError(f"no document with a block in {ROOT} and its docs; run this in a checkout, or name documents")
    return with_blocks


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read ({error})") from error


def main(words: Sequence[str] | None = None) -> int:
    """Fill the documents, or say which blocks are stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, nargs="*", help="Markdown files (default: all that have blocks)")
    parser.add_argument("--check", action="store_true", help="write nothing; the exit code is 1 if a block is stale")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records (default: %(default)s)")
    arguments = parser.parse_args(words)
    writer = Writer(arguments.results)
    stale = []
    try:
        for path in arguments.documents or documents():
            names = _update(path, writer, arguments.check)
            stale += [f"{path}: {name}" for name in names]
    except FramegateError as error:
        print(f"tables: {error}", file=sys.stderr)
        return error.exit_code
    for block in stale:
        print(block, "is stale" if arguments.check else "was written anew")
    return 1 if stale and arguments.check else 0


def _update(path: Path, writer: Writer, check: bool) -> list[str]:
    """Fill a document, or only look, and return the names of the blocks that were stale."""
    try:
        content = _text(path)
        stale = writer.stale(content)
        filled = writer.fill(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if stale and not check:
        write_text(path, filled)
    return stale


if __name__ == "__main__":
    sys.exit(main())
