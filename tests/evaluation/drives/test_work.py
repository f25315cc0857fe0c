"""Many files, several workers: each file once, whoever dies."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from framegate import __version__
from framegate.evaluation.drives.processes import Processes
from framegate.evaluation.drives.work import TRIES, Answer, Unit, part_name, require_alike, run_units
from framegate.runtime.errors import DataError, SinkError, UsageError


@dataclass(frozen=True)
class Copy:
    """Writes what the file holds; some files kill, some are damaged."""

    log: str

    def prepare(self):
        return None

    def hello(self):
        return {"digest": "d"}

    def do(self, unit: Unit, part: Path):
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(f"{Path(unit.path).name}\n")
        content = Path(unit.path).read_text(encoding="utf-8")
        if content == "damaged":
            raise DataError(f"{unit.path}: it is damaged")
        if content == "kills" or (content == "kills once" and not Path(unit.path + ".died").exists()):
            Path(unit.path + ".died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if content == "full":
            raise SinkError(f"{part}: cannot be written (No space left on device)")
        if content == "fails":
            raise RuntimeError("an engine broke")
        part.write_text(content, encoding="utf-8")


@pytest.fixture
def files(tmp_path):
    units = []
    for number, content in enumerate(["a", "damaged", "b", "kills once", "c", "fails"]):
        path = tmp_path / f"{number}"
        path.write_text(content)
        units.append(Unit(str(path)))
    return units


def names(log):
    return log.read_text().split()


def done(outcome):
    return [part.read_text() for part in outcome.parts]


@pytest.mark.slow
def test_killed_workers_and_damaged_files_cost_themselves_alone(files, tmp_path):
    log, store = tmp_path / "log", tmp_path / "store"
    task = Copy(str(log))
    seen = []
    outcome = run_units(task, files, store, lambda: Processes(task, 2), lambda *steps: seen.append(steps), "copying")
    assert done(outcome) == ["a", "b", "kills once", "c"]  # in the order of the files, whoever did them
    why = {Path(path).name: text for path, text in outcome.quarantined.items()}
    assert set(why) == {"1", "5"}
    assert "damaged" in why["1"]
    assert "RuntimeError: an engine broke" in why["5"]
    ran = names(log)
    assert [ran.count(str(number)) for number in range(6)] == [1, 1, 1, 2, 1, TRIES]
    assert outcome.retried == 1 + TRIES - 1
    assert seen[-1] == ("copying", 6, 6)
    assert not list(store.glob(".*"))
    # Run again, only what is not there is tried, also by this process alone.
    log.write_text("")
    again = run_units(task, files[:-1], store, None, lambda *_: None, "")
    assert done(again) == done(outcome)
    assert names(log) == ["1"]
    assert (again.found, again.done) == (4, 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_fault_full_disk_ends_the_run_and_blames_no_file(tmp_path, workers):
    units = [Unit(str(tmp_path / str(number))) for number in range(5)]
    for number, unit in enumerate(units):
        Path(unit.path).write_text("a" * (20 - number) if number < 3 else "full")  # the largest is done first
    task, store = Copy(str(tmp_path / "log")), tmp_path / "store"
    hands = None if workers == 1 else lambda: Processes(task, workers)
    with pytest.raises(SinkError, match=r"No space left on device.*what was done before is kept"):
        run_units(task, units, store, hands, lambda *_: None, "")
    assert names(tmp_path / "log").count("3") == 1  # not tried again
    for unit in units[3:]:
        Path(unit.path).write_text("now there is room")
    again = run_units(task, units, store, None, lambda *_: None, "")
    assert not again.quarantined
    assert again.found >= 2  # another worker may have been in the middle of one
    assert again.found + again.done == 5


def test_fault_where_no_worker_can_be_had_no_folder_is_left(files, tmp_path):
    def nobody():
        raise UsageError("no cluster answers")

    task, store = Copy(str(tmp_path / "log")), tmp_path / "store"
    with pytest.raises(UsageError, match="no cluster answers"):
        run_units(task, files, store, nobody, lambda *_: None, "")
    assert not store.exists()
    run_units(task, files[:1], store, None, lambda *_: None, "")
    with pytest.raises(UsageError, match="no cluster answers"):
        run_units(task, files, store, nobody, lambda *_: None, "")
    assert len(list(store.iterdir())) == 1  # what was done is kept


def test_a_file_that_kills_every_worker_goes_to_quarantine(files, tmp_path):
    class Dying:
        count = 1

        def hello(self):
            return [{"framegate": __version__, "digest": "d"}]

        def free(self):
            return [0]

        def give(self, worker, unit, part):
            self.given = worker

        def wait(self):
            return [(self.given, Answer("the worker died (exit code -9)", died=True))]

        def close(self):
            pass

    outcome = run_units(Copy(str(tmp_path / "log")), files[:1], tmp_path / "s", Dying, lambda *_: None, "")
    assert "the worker died" in outcome.quarantined[files[0].path]
    assert (outcome.retried, outcome.done, outcome.parts) == (TRIES - 1, 1, [])


def test_a_changed_file_or_task_is_done_anew(tmp_path):
    assert len({part_name(unit, task) for unit in (Unit("a"), Unit("a", "2")) for task in (Copy("x"), Copy("y"))}) == 4


def test_a_part_that_is_not_seen_here_is_said(files, tmp_path):
    class Elsewhere:
        count = 1

        def hello(self):
            return [{"framegate": __version__, "digest": "d"}]

        def free(self):
            return [0]

        def give(self, worker, unit, part):
            self.given = worker

        def wait(self):
            return [(self.given, Answer())]

        def close(self):
            pass

    outcome = run_units(Copy(str(tmp_path / "log")), files[:1], tmp_path / "s", Elsewhere, lambda *_: None, "")
    assert "storage that all workers share" in outcome.quarantined[files[0].path]


def test_workers_of_another_version_or_bundle_are_refused():
    require_alike({"framegate": "1", "bundle": "a"}, {"framegate": "1", "bundle": "a", "host": "h"})
    with pytest.raises(UsageError, match="a worker on h has framegate 2, this command has 1"):
        require_alike({"framegate": "1"}, {"framegate": "2", "host": "h"})
    with pytest.raises(UsageError, match="has bundle nothing"):
        require_alike({"framegate": "1", "bundle": "a"}, {"framegate": "1"})
