"""The five commands of docs/drives.md on one machine, and on a Ray cluster of two of which one worker is killed.

``python -m framegate.benchmarks.drives.chain --drives DIR --work DIR``; ``DIR`` is what
`framegate.benchmarks.drives.make` wrote, whose truth stands for the people who label. All results must be the same to
the byte. Each command is a process of its own, as a newcomer starts it; the cluster's two nodes run on this machine,
with a processor each, and are real ones otherwise (``ray start``).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import multiprocessing
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from framegate.benchmarks.drives.truth import truth_of
from framegate.evaluation.report.files import write_json
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import to_stdout

FORMAT = "framegate-drives-chain-1"
RESULTS = ("drives.parquet", "to-label/frames.csv", "labelled.parquet", "my.bundle/calibration.json", "difference.html")
_CALLS = 100
_STORE_BYTES = 100_000_000


def commands(risk: float, budget: int, more: Sequence[str], where: Sequence[str]) -> dict[str, list[str]]:
    """Name -> arguments of each of the five, as the documentation has them."""
    calibrate = ["calibrate", "my.bundle", "--from", "labelled.parquet", "--target-risk", str(risk), *more]
    judge = ["drives", "what-if", "labelled.parquet", "--bundle", "my.bundle", "--out", "difference.html", *where]
    return {
        "index": ["drives", "index", "drives", "--out", "drives.parquet", *where],
        "mine": ["drives", "mine", "drives.parquet", "--random", "--budget", str(budget), "--out", "to-label"],
        "labels": ["drives", "labels", "drives.parquet", "to-label/frames.csv", "--out", "labelled.parquet"],
        "calibrate": calibrate,
        "what-if": judge,
    }


def label(folder: Path, truth: dict[tuple[str, str, int], tuple[str, bool]]) -> int:
    """Fill in what people would; returns the number of labels."""
    path = folder / "to-label" / "frames.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = truth[row["drive"], row["region"], int(row["frame_id"])][0]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


class Killer:
    """Kills one worker as soon as the first part of a command's result is there: in the middle of the work.

    Args:
        store: Where the parts appear.
        workers: Gives the process numbers of the workers.
    """

    def __init__(self, store: Path, workers: Any) -> None:
        self.killed = 0
        self._store, self._workers = store, workers
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.002):
            if any(self._store.glob("part-*")):
                for pid in self._workers()[:1]:
                    os.kill(pid, signal.SIGKILL)
                    self.killed = pid
                return

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()
        self._thread.join()


def run(
    place: Path, drives: Path, bundle: Path, five: dict[str, list[str]], workers: Any = None
) -> tuple[dict[str, float], dict[str, str], list[str]]:
    """Run the five commands in a new folder.

    Args:
        place: The folder.
        drives: With the recordings.
        bundle: That drove; a copy is calibrated.
        five: From `commands`.
        workers: Gives the workers' process numbers: one is killed in each command that has any. None kills nobody.

    Returns:
        Seconds of each command, SHA-256 of each result, and what the commands said about workers that died.

    Raises:
        RuntimeError: A command failed, or no worker could be killed.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    (place / "drives").symlink_to(drives.resolve())
    shutil.copytree(bundle, place / "my.bundle")
    truth = truth_of(drives)
    seconds, said = {}, []
    for name, arguments in five.items():
        out = arguments[arguments.index("--out") + 1] if "--out" in arguments else ""
        killer = Killer(place / f"{out}.parts", workers) if workers is not None and "--ray" in arguments else None
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "framegate", *arguments], cwd=place, capture_output=True, text=True, check=False
        )
        seconds[name] = round(time.perf_counter() - begun, 2)
        if killer is not None:
            killer.end()
        if done.returncode:
            raise RuntimeError(f"framegate {' '.join(arguments)}: returned {done.returncode}: {done.stderr[-2000:]}")
        if killer is not None:
            again = [line for line in done.stderr.splitlines() if "was given to a worker again" in line]
            if not killer.killed or not again:
                raise RuntimeError(
                    f"framegate {' '.join(arguments)}: no worker was killed in the middle: {done.stderr}"
                )
            said += [f"{name}: {line}" for line in again]
        if name == "mine":
            label(place, truth)
    return seconds, {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in RESULTS}, said


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, Any]]:
    """Two nodes with one processor each; gives the address, and a function for the process numbers of the workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    # A token of its own: without one whoever reaches the port can run anything.
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    before = {name: os.environ.get(name) for name in (*own, "RAY_AUTH_TOKEN")}
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ.update(own)
    ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus", "1"]
    common = ["--object-store-memory", str(_STORE_BYTES), "--disable-usage-stats"]
    address = f"127.0.0.1:{port}"
    nodes = []
    try:
        with (folder / "ray.log").open("w") as log:
            head = ["--head", "--port", str(port), "--include-dashboard", "false", "--temp-dir", str(folder)]
            for arguments in (head, ["--address", address]):
                nodes.append(
                    subprocess.Popen([*ray, *arguments, *common], stdout=log, stderr=log, start_new_session=True)
                )
                _wait_for(port)
        _wait_for_both([ray[0], "status", "--address", address])
        yield address, lambda: _workers([each.pid for each in nodes])
    finally:
        for each in reversed(nodes):
            each.terminate()  # which ends all processes of the node
        for each in nodes:
            try:
                each.wait(30.0)
            except subprocess.TimeoutExpired:
                os.killpg(each.pid, signal.SIGKILL)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _wait_for(port: int) -> None:
    end = time.monotonic() + 60.0
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError("the cluster did not start within a minute")


def _wait_for_both(status: Sequence[str]) -> None:
    """Wait until the cluster says that it has both processors."""
    end = time.monotonic() + 120.0
    while time.monotonic() < end:
        said = subprocess.run(status, capture_output=True, text=True, check=False).stdout
        if "/2.0 CPU" in said:
            return
        time.sleep(1.0)
    raise RuntimeError("the second node did not join within two minutes")


def _workers(roots: Sequence[int]) -> list[int]:
    """Processes below some others that are workers of framegate, as Ray calls them."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status = (path / "stat").read_text()
            names[int(path.name)] = (path / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(path.name)] = int(status.rpartition(")")[2].split()[1])
    found = []
    for pid, name in names.items():
        if not name.startswith(b"ray::_Worker"):
            continue
        above = pid
        while above in parents and above not in roots:
            above = parents[above]
        if above in roots:
            found.append(pid)
    return sorted(found)


def measure_ray(address: str) -> dict[str, float]:
    """What plain tasks and actors of the cluster cost, in seconds, to a process of their own."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_measure_ray, args=(address, answers))
    process.start()
    try:
        return dict(answers.get(timeout=120.0))
    finally:
        process.join()


def _measure_ray(address: str, answers: Any) -> None:
    import ray

    begun = time.perf_counter()
    ray.init(address, log_to_driver=False)
    joined = time.perf_counter() - begun

    def same(k: int) -> int:
        return k

    task: Any = ray.remote(same)

    class Actor:
        def call(self, k: int) -> int:
            return k

    found = {"join": round(joined, 3)}
    try:
        begun = time.perf_counter()
        ray.get(task.remote(0))
        found["first_task"] = round(time.perf_counter() - begun, 3)
        begun = time.perf_counter()
        for k in range(_CALLS):
            ray.get(task.remote(k))
        found["task"] = round((time.perf_counter() - begun) / _CALLS, 5)
        begun = time.perf_counter()
        actor: Any = ray.remote(Actor).options(num_cpus=1).remote()
        ray.get(actor.call.remote(0))
        found["start_of_an_actor"] = round(time.perf_counter() - begun, 3)
        begun = time.perf_counter()
        for k in range(_CALLS):
            ray.get(actor.call.remote(k))
        found["call_of_an_actor"] = round((time.perf_counter() - begun) / _CALLS, 5)
    finally:
        answers.put(found)
        ray.shutdown()


def compare(drives: Path, bundle: Path, work: Path, risk: float, budget: int, more: Sequence[str]) -> dict[str, Any]:
    """The five commands both ways.

    Raises:
        RuntimeError: A command failed, or the results differ.
    """
    alone, mine, _ = run(work / "alone", drives, bundle, commands(risk, budget, more, ["--workers", "2"]))
    temporary = Path(f"/tmp/framegate-ray-{os.getpid()}")  # sockets below it have names of at most 107 characters
    begun = time.perf_counter()
    try:
        with cluster(temporary) as (address, workers):
            started = time.perf_counter() - begun
            where = ["--workers", "2", "--ray", address]
            shared, theirs, said = run(work / "cluster", drives, bundle, commands(risk, budget, more, where), workers)
            plain = measure_ray(address)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if mine != theirs:
        raise RuntimeError(f"the results differ: {[name for name in RESULTS if mine[name] != theirs[name]]}")
    return {
        "seconds_on_one_machine": alone,
        "seconds_on_the_cluster_with_one_worker_killed": shared,
        "killed": said,
        "seconds_of_starting_the_cluster": round(started, 2),
        "seconds_of_ray": plain,
        "sha256": mine,
        "same_bytes": True,
    }


def write_record(out: Path, drives: Path, found: dict[str, Any]) -> None:
    """Write what `compare` found."""
    record = {"format": FORMAT, "recordings": len(list(drives.rglob("*.mcap"))), **found}
    write_json(out, {**record, "load": [round(each, 1) for each in os.getloadavg()], "machine": circumstances()})


def main() -> None:
    """Run both, and add the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drives", required=True, type=Path)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--bundle", type=Path, default=Path("models/bundles/hybrid-cifar10.bundle"))
    parser.add_argument("--target-risk", type=float, default=0.05)
    parser.add_argument("--budget", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/drives-chain.json"))
    parser.add_argument("calibrate", nargs="*", help="more options of calibrate, behind --")
    arguments = parser.parse_args()
    found = compare(
        arguments.drives, arguments.bundle, arguments.work, arguments.target_risk, arguments.budget, arguments.calibrate
    )
    write_record(arguments.out, arguments.drives, found)
    to_stdout(f"the same bytes both ways: {arguments.out}")


if __name__ == "__main__":
    main()
