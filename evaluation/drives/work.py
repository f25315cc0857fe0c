"""Work on many files: each once, by several workers, of which any may die.

    units -> [done before?] -> a free worker -> part-KEY.parquet -> merged in the order of the units

A unit is one file. Its part is written beside its place and renamed, so that it is there whole or not at all, and once:
a part that is there is never made again, which is also how an interrupted run goes on. A unit that raises `DataError`
is put in quarantine: its file is damaged, and will be the next time. One that raises `SinkError` ends the run: there is
no room for any part, and no file is to blame. A unit whose worker died, or that failed in another way, is tried again,
`TRIES` times in all, on a new worker; then it goes to quarantine, too. What comes out does not depend on who did what,
nor in which order.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from framegate import __version__
from framegate.export.progress import Progress
from framegate.runtime.errors import DataError, SinkError, UsageError

TRIES = 3
HOST = "host"
"""What a worker says of itself that may differ: its machine."""


@dataclass(frozen=True)
class Unit:
    """One file to work on.

    Attributes:
        path: The file.
        about: What the task must know of it, as JSON; another text is another unit.
    """

    path: str
    about: str = ""


class Task(Protocol):
    """What is done to every unit. It travels to the workers, so it must be possible to pickle it."""

    def prepare(self) -> Any:
        """Open what all units need, once in each worker."""

    def hello(self) -> dict[str, str]:
        """What a worker must have in common with whoever asks, such as the bundle's digest. After `prepare`."""

    def do(self, unit: Unit, part: Path) -> None:
        """Write the part of one unit.

        Raises:
            DataError: The unit's file cannot be used, and never will be.
            SinkError: The part cannot be written.
        """


@dataclass
class Outcome:
    """What became of the units.

    Attributes:
        parts: Of the units that were done, in their order.
        quarantined: File -> why there is nothing of it.
        done: Units that were worked on in this run.
        found: Units whose part was there before.
        retried: Units that were given to a worker again.
    """

    parts: list[Path] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    done: int = 0
    found: int = 0
    retried: int = 0


@dataclass(frozen=True)
class Answer:
    """What a worker says about the unit that it was given.

    Attributes:
        error: Why it was not done; empty if it was.
        damaged: The file is the reason; another worker would say the same.
        full: The place of the parts is the reason; every other file would fail there, too.
        died: The worker is no more.
    """

    error: str = ""
    damaged: bool = False
    full: bool = False
    died: bool = False


class Hands(Protocol):
    """Workers, by number. `framegate.evaluation.drives.processes` and `.ray_workers` have some."""

    count: int

    def hello(self) -> list[dict[str, str]]:
        """What each worker says of itself, when all are ready."""

    def free(self) -> list[int]:
        """Workers that can be given a unit now: neither at work nor still starting in place of one that died."""

    def give(self, worker: int, unit: Unit, part: Path) -> None:
        """Give a free worker a unit."""

    def wait(self) -> list[tuple[int, Answer]]:
        """Wait for an answer, or for a worker that is free again; its list is empty then.

        Raises:
            FramegateError: No worker is left, and none can be started.
        """

    def close(self) -> None:
        """End the workers."""


def attempt(task: Task, unit: Unit, part: Path) -> Answer:
    """Do one unit, in a worker."""
    try:
        temporary = part.with_name(f".{part.name}.{os.getpid()}")
        try:
            task.do(unit, temporary)
            temporary.replace(part)
        finally:
            temporary.unlink(missing_ok=True)
    except DataError as error:
        return Answer(str(error), damaged=True)
    except SinkError as error:
        return Answer(str(error), full=True)
    except Exception as error:  # noqa: BLE001 - whatever it is, it costs this unit alone
        return Answer(f"{type(error).__name__}: {error}")
    return Answer()


def said_by(task: Task) -> dict[str, str]:
    """What a worker says of itself: framegate's version, and what the task adds."""
    return {"framegate": __version__, **task.hello()}


def part_name(unit: Unit, task: Task) -> str:
    """The name of a unit's part: another one for another file, another task or another version."""
    content = json.dumps([unit.path, unit.about, repr(task), __version__])
    return f"part-{hashlib.sha256(content.encode()).hexdigest()[:24]}.parquet"


def run_units(
    task: Task,
    units: Sequence[Unit],
    store: Path,
    hands: Callable[[], Hands] | None,
    progress: Progress,
    what: str,
) -> Outcome:
    """Do all units that are not done yet.

    Args:
        task: What is done.
        units: To what.
        store: Folder of the parts; where workers are on several machines, all must see it under this name.
        hands: Starts the workers; None: this process does it all.
        progress: Called during the work.
        what: Is done, for the progress.

    Raises:
        UsageError: A worker has another version of framegate, or another bundle.
        SinkError: The folder cannot be written, or has no room for a part; what was done stays there.
    """
    store = store.resolve()  # a worker of a cluster has another current folder
    try:
        store.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"{store}: cannot be created ({error.strerror}); choose another place") from error
    parts = {unit: store / part_name(unit, task) for unit in units}
    waiting = deque(unit for unit in units if not parts[unit].exists())
    outcome = Outcome(found=len(units) - len(waiting))
    progress(what, outcome.found, len(units))
    try:
        if waiting and hands is None:
            _alone(task, waiting, parts, outcome, lambda: progress(what, outcome.found + outcome.done, len(units)))
        elif waiting and hands is not None:
            _shared(task, waiting, parts, outcome, hands, lambda n: progress(what, outcome.found + n, len(units)))
    finally:
        with suppress(OSError):
            store.rmdir()  # no part came into it: no cluster answered, say
    outcome.parts = [parts[unit] for unit in units if unit.path not in outcome.quarantined]
    return outcome


def _alone(
    task: Task, waiting: deque[Unit], parts: dict[Unit, Path], outcome: Outcome, progress: Callable[[], None]
) -> None:
    task.prepare()
    for unit in waiting:
        answer = attempt(task, unit, parts[unit])
        _require_room(answer)
        if answer.error:
            outcome.quarantined[unit.path] = answer.error
        outcome.done += 1
        progress()


def _shared(
    task: Task,
    waiting: deque[Unit],
    parts: dict[Unit, Path],
    outcome: Outcome,
    start: Callable[[], Hands],
    progress: Callable[[int], None],
) -> None:
    task.prepare()
    mine = said_by(task)
    # The largest first: whoever is given the last one must not keep all others waiting. What comes out is the same.
    waiting = deque(sorted(waiting, key=_size, reverse=True))
    workers = start()
    try:
        for theirs in workers.hello():
            require_alike(mine, theirs)
        busy: dict[int, Unit] = {}
        tries: dict[Unit, int] = {}
        while waiting or busy:
            for number in workers.free():
                if not waiting:
                    break
                unit = waiting.popleft()
                tries[unit] = tries.get(unit, 0) + 1
                busy[number] = unit
                workers.give(number, unit, parts[unit])
            for number, answer in workers.wait():
                unit = busy.pop(number)
                _require_room(answer)
                if not answer.error and not parts[unit].exists():
                    answer = Answer(
                        f"a worker has written {parts[unit]}, which is not seen here: --out must be on storage that "
                        "all workers share"
                    )
                if answer.error and not answer.damaged and tries[unit] < TRIES:
                    outcome.retried += 1
                    waiting.append(unit)
                    continue
                if answer.error:
                    outcome.quarantined[unit.path] = answer.error
                outcome.done += 1
                progress(outcome.done)
    finally:
        workers.close()


def _require_room(answer: Answer) -> None:
    if answer.full:
        raise SinkError(f"{answer.error}; what was done before is kept, and used when the command is given again")


def _size(unit: Unit) -> int:
    try:
        return Path(unit.path).stat().st_size
    except OSError:
        return 0


def require_alike(mine: dict[str, str], theirs: dict[str, str]) -> None:
    """Refuse a worker that would compute something else.

    Raises:
        UsageError: It has another version or another bundle.
    """
    for name, value in mine.items():
        other = theirs.get(name, "nothing")
        if other != value:
            raise UsageError(
                f"a worker on {theirs.get(HOST, 'another machine')} has {name} {other}, this command has {value}; "
                "give all workers the same"
            )
