"""Workers that are processes of this machine. One that is killed costs its unit, which another one does again."""

from __future__ import annotations

import contextlib
import multiprocessing
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from framegate.evaluation.drives.work import Answer, Task, Unit, attempt, said_by
from framegate.runtime.errors import FramegateError


@dataclass
class _Worker:
    process: SpawnProcess
    channel: Connection
    busy: bool = False


class Processes:
    """Workers as processes, started anew (spawn): engines do not survive a fork.

    Args:
        task: What they do.
        count: How many.
    """

    def __init__(self, task: Task, count: int) -> None:
        self.count = count
        self._task = task
        self._workers = [self._start() for _ in range(count)]

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        process = context.Process(target=_work, args=(self._task, theirs), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, mine)

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [each.process.pid or 0 for each in self._workers]

    def hello(self) -> list[dict[str, str]]:
        """See `framegate.evaluation.drives.work.Hands`.

        Raises:
            FramegateError: A worker could not start.
        """
        return [_hello(each) for each in self._workers]

    def free(self) -> list[int]:
        """See `framegate.evaluation.drives.work.Hands`."""
        return [number for number, each in enumerate(self._workers) if not each.busy]

    def give(self, worker: int, unit: Unit, part: Path) -> None:
        """See `framegate.evaluation.drives.work.Hands`."""
        each = self._workers[worker]
        each.busy = True
        with contextlib.suppress(OSError):  # it died while it was free; `wait` says so
            each.channel.send((unit, part))

    def wait(self) -> list[tuple[int, Answer]]:
        """See `framegate.evaluation.drives.work.Hands`."""
        numbers = {each.channel: number for number, each in enumerate(self._workers) if each.busy}
        found = []
        for channel in wait(list(numbers)):
            assert isinstance(channel, Connection)
            number = numbers[channel]
            try:
                answer = channel.recv()
            except (EOFError, OSError):
                answer = self._replace(number)
            self._workers[number].busy = False
            found.append((number, answer))
        return found

    def _replace(self, number: int) -> Answer:
        """Start another worker in place of one that died."""
        dead = self._workers[number]
        dead.process.join()
        answer = Answer(f"the worker died (exit code {dead.process.exitcode})", died=True)
        dead.channel.close()
        self._workers[number] = self._start()
        _hello(self._workers[number])
        return answer

    def close(self) -> None:
        """See `framegate.evaluation.drives.work.Hands`."""
        for each in self._workers:
            each.channel.close()
        for each in self._workers:
            each.process.join(2.0 if not each.busy else 0.0)
            if each.process.is_alive():
                each.process.terminate()
                each.process.join()


def _hello(worker: _Worker) -> dict[str, str]:
    try:
        said = worker.channel.recv()
    except (EOFError, OSError):
        worker.process.join()
        raise FramegateError(f"a worker could not start (exit code {worker.process.exitcode})") from None
    if isinstance(said, str):
        raise FramegateError(f"a worker could not start: {said}")
    return dict(said)


def _work(task: Task, channel: Connection) -> None:
    """What a worker's process does until its channel is closed."""
    try:
        task.prepare()
        channel.send(said_by(task))
    except Exception as error:  # noqa: BLE001 - whoever started the worker says it
        channel.send(f"{type(error).__name__}: {error}")
        return
    while True:
        try:
            unit, part = channel.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        channel.send(attempt(task, unit, part))
