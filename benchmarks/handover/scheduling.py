"""How a process is scheduled: as it is started, preferred, or in real time; for the benchmarks of the hand-over."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PRIORITY = 50
ORDINARY, REAL_TIME = "ordinary", "SCHED_FIFO"


def ordinary() -> None:
    """As a process is started: SCHED_OTHER, niceness 0."""


def preferred() -> None:
    """SCHED_OTHER, niceness -5."""
    os.nice(-5)


def real_time() -> None:
    """SCHED_FIFO."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))


SCHEDULING: dict[str, Callable[[], None]] = {ORDINARY: ordinary, "nice -5": preferred, REAL_TIME: real_time}


def allowed(name: str) -> bool:
    """Whether this user may have processes scheduled so."""
    done = subprocess.run([sys.executable, "-c", _TRY[name]], capture_output=True, check=False)
    return done.returncode == 0


_TRY = {
    ORDINARY: "",
    "nice -5": "import os; os.nice(-5)",
    REAL_TIME: f"import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param({PRIORITY}))",
}


@contextmanager
def this_process(name: str) -> Iterator[None]:
    """The calling thread, and the threads it starts meanwhile, are scheduled so."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    SCHEDULING[name]()
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)
