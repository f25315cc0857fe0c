"""The documented way from recordings to a difference on a Ray cluster, one worker killed: the same bytes as without."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from framegate.evaluation.drives.index import IndexTask, find_files, plan
from framegate.evaluation.drives.merge import merge
from framegate.evaluation.drives.ray_workers import RayWorkers, connect
from framegate.evaluation.drives.work import run_units
from framegate.runtime.cli import main as cli
from framegate.runtime.errors import UsageError


def test_a_cluster_that_cannot_be_reached_is_one_sentence(drives, tmp_path, capsys):
    pytest.importorskip("ray")
    arguments = ["drives", "index", str(drives), "--out", str(tmp_path / "x.parquet"), "--ray"]
    assert cli.main([*arguments, "127.0.0.1:1"]) == 2
    assert "--ray 127.0.0.1:1: the cluster cannot be reached" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_ray_names_its_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'framegate\[ray\]'"):
        connect("auto")


class Slow(IndexTask):
    """Takes long enough to be killed in the middle."""

    def do(self, unit, part):
        time.sleep(0.5)
        super().do(unit, part)

    def __repr__(self):
        return repr(IndexTask())


@pytest.mark.long
def test_two_workers_of_which_one_is_killed_give_the_same_bytes(drives, table, tiny_bundle, tmp_path):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not know the tests
    try:
        units = plan(find_files([drives])).units
        task = Slow()
        hands = []

        def start():
            workers = RayWorkers(task, 2, "auto")
            give = workers.give

            def give_and_kill(number, unit, part):
                give(number, unit, part)
                if not hands:  # in the middle of its first file
                    hands.append(number)
                    threading.Timer(0.2, lambda: ray.kill(workers._actors[number])).start()

            workers.give = give_and_kill
            return workers

        outcome = run_units(task, units, tmp_path / "parts", start, lambda *_: None, "")
        assert outcome.retried >= 1
        assert not outcome.quarantined
        assert len(list((tmp_path / "parts").glob("part-*.parquet"))) == len(units)
        merge(outcome.parts, tmp_path / "drives.parquet", {})
        assert (tmp_path / "drives.parquet").read_bytes() == table.read_bytes()
        # The same command, and judging again, on the same cluster.
        again = tmp_path / "again.parquet"
        assert cli.main(["drives", "index", str(drives), "--out", str(again), "--ray", "auto", "--workers", "2"]) == 0
        assert again.read_bytes() == table.read_bytes()
        results = []
        for number, where in enumerate((["--workers", "1"], ["--workers", "2"], ["--ray", "auto", "--workers", "2"])):
            out = tmp_path / f"{number}.json"
            arguments = ["drives", "what-if", str(table), "--bundle", str(tiny_bundle), "--out", str(out)]
            assert cli.main([*arguments, *where]) == 0
            results.append(out.read_bytes())
        assert results[0] == results[1] == results[2]
    finally:
        ray.shutdown()
