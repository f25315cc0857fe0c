"""Workers on a Ray cluster (https://docs.ray.io): an actor each, that holds what its task opened, such as an engine.

Plain actors are enough: the units are files, what comes back are a few words, and the rows go from a worker straight to
storage that all machines share. Ray Data would bring pandas and a second plan of execution for the same.
"""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

from framegate.evaluation.drives.work import HOST, Answer, Task, Unit, attempt, require_alike, said_by
from framegate.runtime.errors import FramegateError, UsageError

START_S = 300.0
"""How long a cluster may take to start the workers."""
RESTARTS = 20
"""So many may die while they start in place of others."""


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
        if _asks_for_token(address):
            raise UsageError(
                f"--ray {address}: the cluster cannot be joined ({why}); if it asks for Ray's token, set "
                "RAY_AUTH_MODE=token here, too, and have the cluster's token in ~/.ray/auth_token (ray get-auth-token)"
            ) from error
        raise UsageError(
            f"--ray {address}: the cluster cannot be reached ({why}); is `ray start` done there?"
        ) from error
    return ray


def _asks_for_token(address: str) -> bool:
    """Whether a missing token can be the reason: something answers, and no token is given to a named address.

    Since Ray 2.59 ``ray start --head`` asks for the token as soon as one was ever made on its machine, which
    ``--ray local`` does; who joins by an address gives it only where RAY_AUTH_MODE says so.
    """
    return ":" in address and os.environ.get("RAY_AUTH_MODE") != "token"


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
        return {**said_by(self._task), HOST: socket.gethostname()}

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
        self._starting: dict[Any, int] = {}
        self._free = set(range(self.count))
        self._said: dict[str, str] = {}
        self._restarts = 0

    def hello(self) -> list[dict[str, str]]:
        """See `framegate.evaluation.drives.work.Hands`.

        Raises:
            FramegateError: A worker could not start.
        """
        try:
            found = list(self._ray.get([each.hello.remote() for each in self._actors], timeout=START_S))
        except Exception as error:  # ray raises whatever its parts raise
            raise FramegateError(f"the workers on the cluster could not start ({_short(error)})") from error
        self._said = {name: value for name, value in found[0].items() if name != HOST}
        return found

    def free(self) -> list[int]:
        """See `framegate.evaluation.drives.work.Hands`."""
        return sorted(self._free)

    def give(self, worker: int, unit: Unit, part: Path) -> None:
        """See `framegate.evaluation.drives.work.Hands`."""
        self._free.discard(worker)
        self._running[self._actors[worker].do.remote(unit, str(part))] = worker

    def wait(self) -> list[tuple[int, Answer]]:
        """See `framegate.evaluation.drives.work.Hands`.

        A worker whose machine is gone waits for another one that has room; the others go on meanwhile.

        Raises:
            FramegateError: No worker is left, and none starts within `START_S`.
            UsageError: One that was started has another version or bundle.
        """
        timeout = None if self._running else START_S
        ready, _ = self._ray.wait([*self._running, *self._starting], num_returns=1, timeout=timeout)
        if not ready:
            raise FramegateError(
                f"the cluster has no worker left, and none could be started within {START_S:g} s; what was done is "
                "kept, and the same command goes on there"
            )
        found = []
        for each in ready:
            if each in self._starting:
                self._started(each)
                continue
            number = self._running.pop(each)
            try:
                answer = self._ray.get(each)
                self._free.add(number)
            except Exception as error:  # noqa: BLE001 - the actor died, or its machine did
                answer = Answer(f"the worker died ({_short(error)})", died=True)
                self._replace(number)
            found.append((number, answer))
        return found

    def _replace(self, number: int) -> None:
        """Start another worker in place of one that died."""
        self._actors[number] = self._class.remote(self._task)
        self._starting[self._actors[number].hello.remote()] = number

    def _started(self, answer: Any) -> None:
        """Take a worker that was started in place of another, if it is alike."""
        number = self._starting.pop(answer)
        try:
            said = self._ray.get(answer)
        except Exception as error:  # it died while it started
            self._restarts += 1
            if self._restarts > RESTARTS:
                raise FramegateError(f"the workers on the cluster die while they start ({_short(error)})") from error
            self._replace(number)
            return
        require_alike(self._said, said)
        self._free.add(number)

    def close(self) -> None:
        """See `framegate.evaluation.drives.work.Hands`."""
        for each in self._actors:
            self._ray.kill(each)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
