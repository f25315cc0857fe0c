"""Workers on a Ray cluster (https://docs.ray.io): an actor each, that holds what its task opened, such as an engine.

Plain actors are enough: the units are files, what comes back are a few words, and the rows go from a worker straight to
storage that all machines share. Ray Data would bring pandas and a second plan of execution for the same.
"""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

from framegate.evaluation.drives.work import Answer, Task, Unit, attempt, said_by
from framegate.runtime.errors import FramegateError, UsageError

START_S = 300.0
"""How long a cluster may take to start the workers."""


def connect(address: str) -> Any:
    """Join a cluster.

    Args:
        address: ``HOST:PORT``, ``auto`` for the one that runs on this machine, ``local`` to start one for this command.

    Raises:
        UsageError: Ray is not installed, or nothing answers there.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            f"--ray {address}: the package 'ray' is not installed; pip install 'framegate[ray]'"
        ) from error
    if ray.is_initialized():
        return ray
    if address != "local":
        _require_answer(address)
    try:
        ray.init(
            address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False if address == "local" else None,
        )
    except Exception as error:  # ray raises whatever its parts raise
        why = " ".join(str(error).split())[:200]
        raise UsageError(
            f"--ray {address}: the cluster cannot be reached ({why}); is `ray start` done there?"
        ) from error
    return ray


def _require_answer(address: str) -> None:
    """Find out within seconds whether anything listens: Ray itself tries for minutes.

    Raises:
        UsageError: Nothing does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # auto
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--ray {address}: the cluster cannot be reached ({error}); start it with `ray start --head`, or leave "
            "--ray out"
        ) from error


class _Worker:
    """What runs in an actor."""

    def __init__(self, task: Task) -> None:
        self._task = task
        task.prepare()

    def hello(self) -> dict[str, str]:
        """What this worker says of itself."""
        return {**said_by(self._task), "host": socket.gethostname()}

    def do(self, unit: Unit, part: str) -> Answer:
        """Do one unit."""
        return attempt(self._task, unit, Path(part))


class RayWorkers:
    """Workers as actors.

    Args:
        task: What they do.
        count: How many; None takes one for each processor of the cluster.
        address: Of the cluster.

    Raises:
        UsageError: It cannot be reached, or has fewer processors than workers.
    """

    def __init__(self, task: Task, count: int | None, address: str) -> None:
        self._ray = connect(address)
        cpus = int(self._ray.cluster_resources().get("CPU", 0))
        self.count = count or cpus
        if not 1 <= self.count <= cpus:
            raise UsageError(f"--workers {self.count}: the cluster at {address} has {cpus} processors")
        self._class = self._ray.remote(_Worker).options(num_cpus=1, max_restarts=0)
        self._task = task
        self._actors = [self._class.remote(task) for _ in range(self.count)]
        self._running: dict[Any, int] = {}

    def hello(self) -> list[dict[str, str]]:
        """See `framegate.evaluation.drives.work.Hands`.

        Raises:
            FramegateError: A worker could not start.
        """
        try:
            return list(self._ray.get([each.hello.remote() for each in self._actors], timeout=START_S))
        except Exception as error:  # ray raises whatever its parts raise
            raise FramegateError(f"the workers on the cluster could not start ({_short(error)})") from error

    def give(self, worker: int, unit: Unit, part: Path) -> None:
        """See `framegate.evaluation.drives.work.Hands`."""
        self._running[self._actors[worker].do.remote(unit, str(part))] = worker

    def wait(self) -> list[tuple[int, Answer]]:
        """See `framegate.evaluation.drives.work.Hands`."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1)
        found = []
        for each in ready:
            number = self._running.pop(each)
            try:
                answer = self._ray.get(each)
            except Exception as error:  # noqa: BLE001 - the actor died, or its machine did
                answer = Answer(f"the worker died ({_short(error)})", died=True)
                self._actors[number] = self._class.remote(self._task)
            found.append((number, answer))
        return found

    def close(self) -> None:
        """See `framegate.evaluation.drives.work.Hands`."""
        for each in self._actors:
            self._ray.kill(each)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
