"""Real-time tuning of a running pipeline in one call: it removes what can delay a frame.

    with Pipeline(source, session) as pipeline, realtime(pipeline) as tuned:
        print(tuned)
        for prediction in pipeline: ...

Four things are done, each for itself: one that the system does not allow is reported and left out, the others are done.

1. The garbage collector is frozen and switched off; the hot loop makes no cycles.
2. Every worker gets a core of its own as far as they go round, from the last one down; the other threads of the
   process share the remaining cores (all of them if none remains).
3. Capture, workers, the threads of the engines, the consumers, the watchdog and the heartbeats of a hand-over run
   under SCHED_FIFO, capture first, so that no ordinary process delays them. The process's other threads (a web page, a
   log) stay ordinary.
4. ``spin_us`` of the pipeline, beside this call, replaces the waking of the worker by looking for the frame. It takes
   a core away from everybody else, so there must be more cores than pipelines.

All is undone at the end. Linux only; elsewhere only the first is done.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from framegate.runtime.errors import UsageError
from framegate.runtime.health.beside import NAME as CHECK
from framegate.runtime.native.processors import processors
from framegate.runtime.pipeline import Pipeline
from framegate.runtime.watchdog import HEARTBEAT, WATCHDOG

PRIORITY = 50
"""Of SCHED_FIFO, 1 to 98: above ordinary processes, with room for what the system's own threads need."""
WAITING = ("block", "spin")
"""How a worker may wait for the next frame: asleep, or looking for it."""
_LOOKED = 1.2  # periods of the camera, so that the worker is still awake when a frame comes a little late
_USUAL_FPS = 30.0
_HASTY = (CHECK, HEARTBEAT, WATCHDOG)
_T = TypeVar("_T")


@dataclass
class Tuning:
    """What the call achieved.

    Attributes:
        applied: What is in force, one phrase each.
        refused: What the system did not allow, with its reason and what would help.
    """

    applied: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "; ".join([*self.applied, *(f"NOT: {problem}" for problem in self.refused)])


def spin_us(waiting: str | None, fps: float | None, streams: int = 1) -> float:
    """How long a worker looks for the next frame before it sleeps, for `Pipeline`, in microseconds.

    Args:
        waiting: One of `WAITING`; None, without real-time tuning, sleeps.
        fps: Frames per second of the source; None if it does not say, and then 30.
        streams: Pipelines of this process.

    Raises:
        UsageError: Workers that look would leave no core to anybody else.
    """
    if waiting != "spin":
        return 0.0
    cores = processors()
    if streams >= cores:
        raise UsageError(
            f"--realtime spin takes a core for every stream and needs one more: {streams + 1} in all, this process may "
            f"use {cores}; take {'--realtime block' if streams == 1 else 'fewer --streams or --realtime block'}"
        )
    return _LOOKED * 1e6 / (fps or _USUAL_FPS)


@contextmanager
def realtime(
    *pipelines: Pipeline,
    cores: tuple[int, ...] | None = None,
    priority: int = PRIORITY,
    consumers: Iterable[threading.Thread] = (),
) -> Iterator[Tuning]:
    """Tune pipelines and the process around them until the end of the ``with`` block.

    Args:
        pipelines: Running ones (entered with ``with``).
        cores: To be used; None means all that the process may use.
        priority: Of SCHED_FIFO, 1 to 98; capture gets one more.
        consumers: Threads that take the verdicts; none means the calling one.

    Raises:
        UsageError: No pipeline runs, the priority is out of range, or a core is not one that this process may use.
    """
    workers = [pipeline.worker_id for pipeline in pipelines if pipeline.worker_id is not None]
    captures = [pipeline.capture_id for pipeline in pipelines if pipeline.capture_id is not None]
    if not pipelines or len(workers) != len(pipelines):
        raise UsageError("realtime tunes running pipelines: with Pipeline(...) as p, realtime(p): ...")
    if not 1 <= priority <= 98:
        raise UsageError(f"real-time priority is {priority}; expected 1 to 98")
    tuning = Tuning()
    with ExitStack() as stack:
        _hold_collector(stack)
        tuning.applied.append("garbage collector off")
        if hasattr(os, "sched_setaffinity"):
            allowed = tuple(sorted(os.sched_getaffinity(0)))
            not_allowed = sorted(set(cores or ()) - set(allowed))
            if not_allowed:
                raise UsageError(f"cores {not_allowed} cannot be used; this process may use {list(allowed)}")
            _pin(stack, tuning, workers, cores or allowed)
            consumer_ids = [thread.native_id for thread in consumers] or [threading.get_native_id()]
            wanted: dict[int | None, int] = dict.fromkeys((*workers, *consumer_ids), priority)
            wanted.update(dict.fromkeys(captures, priority + 1))
            _prioritise(stack, tuning, wanted, priority)
        else:
            tuning.refused.append("cores and SCHED_FIFO: only on Linux")
        yield tuning


def _hold_collector(stack: ExitStack) -> None:
    gc.collect()
    gc.freeze()  # undone by the pipeline's end or by this one's, whichever comes first; to do it twice does no harm
    if gc.isenabled():
        gc.disable()
        stack.callback(gc.enable)


def _tasks() -> list[int]:
    """Every thread of the process, by the operating system's number."""
    return [int(task.name) for task in Path("/proc/self/task").iterdir()]


def _pin(stack: ExitStack, tuning: Tuning, workers: list[int], cores: tuple[int, ...]) -> None:
    taken = {worker: cores[-1 - k % len(cores)] for k, worker in enumerate(workers)}
    rest = set(cores) - set(taken.values()) or set(cores)
    try:
        for task in _tasks():
            _change(stack, task, os.sched_getaffinity, os.sched_setaffinity, {taken[task]} if task in taken else rest)
    except OSError as error:
        tuning.refused.append(f"cores: {error.strerror}")
        return
    tuning.applied.append(f"workers on cores {sorted(set(taken.values()))}, the rest on {sorted(rest)}")


def _prioritise(stack: ExitStack, tuning: Tuning, wanted: dict[int | None, int], priority: int) -> None:
    # What is left are the engines' threads, and those that the workers wait for.
    # Heartbeats are among these: the worker may wait for the one that is just being sent.
    ordinary = {thread.native_id for thread in threading.enumerate() if thread.name not in _HASTY} - set(wanted)
    try:
        for task in _tasks():
            if task not in ordinary:
                fifo = (os.SCHED_FIFO, os.sched_param(wanted.get(task, priority)))
                _change(stack, task, _policy, _set_policy, fifo)
    except OSError as error:
        tuning.refused.append(
            f"SCHED_FIFO: {error.strerror}; run as root, with CAP_SYS_NICE, or allow it: ulimit -r {priority + 1}"
        )
        return
    tuning.applied.append(f"SCHED_FIFO {priority}, capture {priority + 1}")


def _policy(task: int) -> tuple[int, os.sched_param]:
    return os.sched_getscheduler(task), os.sched_getparam(task)


def _set_policy(task: int, wanted: tuple[int, os.sched_param]) -> None:
    os.sched_setscheduler(task, *wanted)


def _change(stack: ExitStack, task: int, get: Callable[[int], _T], put: Callable[[int, _T], None], wanted: _T) -> None:
    """Change a setting of a thread and remember to change it back; a thread that has ended is left alone."""
    try:
        before = get(task)
        put(task, wanted)
    except ProcessLookupError:
        return
    stack.callback(_put_back, put, task, before)


def _put_back(put: Callable[..., None], task: int, before: object) -> None:
    try:
        put(task, before)
    except ProcessLookupError:
        return
