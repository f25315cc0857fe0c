"""Reports REJECT when frames or verdicts stop, from a thread that neither the camera nor the engine can block.

A source that hangs, an engine that never answers and a process that was stopped have one thing in common: the last
verdict that a consumer got may have been ACCEPT. Several times per deadline the watchdog looks when the last verdict
was published. If that was too long ago, it reports so, and again after every further deadline.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from framegate.runtime.verdict import Reason

WATCHDOG, HEARTBEAT = "framegate-watchdog", "framegate-heartbeat"
"""Names of the threads that speak while no verdict comes: this one, and that of a hand-over."""
LOOKS = 10
"""A deadline: so often the watchdog looks, so that silence is reported at most a tenth of a deadline later."""
Silence = Callable[[Reason, str, bool], None]
"""Takes the reason, a sentence for people, and whether it was the process itself that stood still."""


class Watchdog:
    """Reports silence; use `start` and `stop`. Its thread calls back into the pipeline and never waits for it.

    Args:
        limit_ns: Longest time between two verdicts that is no silence, in ns.
        last_ns: Monotonic time of the last verdict, or of the last report of silence.
        judging: (frame id, monotonic time since when) of the frame that is being judged; None if there is none.
        report: Told what is wrong.
    """

    def __init__(
        self,
        limit_ns: int,
        last_ns: Callable[[], int],
        judging: Callable[[], tuple[int, int] | None],
        report: Silence,
    ) -> None:
        self._limit_ns = limit_ns
        self._last_ns = last_ns
        self._judging = judging
        self._report = report
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=WATCHDOG, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End, without waiting for the thread."""
        self._stopped.set()

    def _watch(self) -> None:
        looked_ns = time.monotonic_ns()
        pause_ns = self._limit_ns // LOOKS
        while not self._stopped.wait(pause_ns / 1e9):
            now = time.monotonic_ns()
            away_ns, looked_ns = now - looked_ns - pause_ns, now
            if away_ns > self._limit_ns:
                # Stopped (SIGSTOP) or starved of processor time: no earlier verdict holds any more. Not seen here is a
                # machine that slept (suspend to RAM), because the monotonic clock of Linux stood still meanwhile.
                self._report(Reason.NO_FRAME, f"this process did not run for {away_ns / 1e6:.0f} ms", True)
                continue
            judging, silent_ns = self._judging(), now - self._last_ns()
            if silent_ns < self._limit_ns:
                continue
            # Half of the time passed while this frame was judged: what is late is the engine, not the camera.
            if judging is not None and 2 * (now - judging[1]) >= self._limit_ns:
                frame_id, since = judging
                self._report(Reason.LATE, f"frame {frame_id} has been judged for {(now - since) / 1e6:.0f} ms", False)
            else:
                self._report(Reason.NO_FRAME, f"no frame was judged for {silent_ns / 1e6:.0f} ms", False)
