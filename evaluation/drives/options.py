"""Options that the commands on drives share: who does the work."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from framegate.evaluation.drives.work import Hands, Outcome, Task
from framegate.runtime.console import note, to_stderr
from framegate.runtime.errors import UsageError

_SHOWN = 10


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """``--workers`` and ``--ray``."""
    parser.add_argument(
        "--workers", type=int, metavar="N", help="so many work side by side (default: as many as processors)"
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="let a Ray cluster do the work: HOST:PORT, auto (of this machine), or local (started for this command); "
        "files must lie where all its machines see them (default: processes of this machine)",
    )


def hands_of(arguments: argparse.Namespace, task: Task, units: int) -> Callable[[], Hands] | None:
    """What starts the workers; None if this process does the work.

    Raises:
        UsageError: ``--workers`` is no number of workers.
    """
    workers = arguments.workers
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: expected 1 or more")
    if arguments.ray is not None:
        from framegate.evaluation.drives.ray_workers import RayWorkers

        return lambda: RayWorkers(task, workers, arguments.ray)
    count = min(workers or os.cpu_count() or 1, max(units, 1))
    if count == 1:
        return None
    from framegate.evaluation.drives.processes import Processes

    return lambda: Processes(task, count)


def say_outcome(outcome: Outcome, broken: Mapping[str, str]) -> None:
    """Tell people about files that cost something."""
    if outcome.found:
        note(f"framegate: {outcome.found} files were done in an earlier run")
    if outcome.retried:
        to_stderr(f"framegate: {outcome.retried} times a file was given to a worker again")
    for number, (path, why) in enumerate(sorted(broken.items())):
        if number == _SHOWN:
            to_stderr(f"framegate: ... and {len(broken) - _SHOWN} more files; the table's footer names all")
            break
        to_stderr(f"framegate: {why if why.startswith(path) else f'{path}: {why}'}")


def store_of(out: Path) -> Path:
    """The folder of the parts of a table that is being made."""
    return out.with_name(f"{out.name}.parts")
