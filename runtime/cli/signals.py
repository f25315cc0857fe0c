"""SIGTERM and SIGHUP end a command as Ctrl-C does: recordings are finished, the summary is printed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class EndedBySignal(KeyboardInterrupt):
    """Raised by the first signal wherever the main thread is, as Ctrl-C raises KeyboardInterrupt.

    Attributes:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(why_ended(number))
        self.number = number


class _State:
    """What the handler knows; there is one per process, as there is one handler."""

    received: int | None = None
    stop: Callable[[], object] | None = None
    stopping: threading.Thread | None = None


def why_ended(number: int) -> str:
    """Why a command ended, for people."""
    return "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


def exit_code(number: int) -> int:
    """Of a process that a signal has ended: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + number


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within, the first signal raises `EndedBySignal` in the main thread, and later ones do nothing.

    So an impatient second Ctrl-C leaves no broken file. Signals that were ignored before (nohup) stay ignored. Without
    effect outside the main thread, where Python takes no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    _State.received = _State.stop = _State.stopping = None
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _handle)
    try:
        yield
    finally:
        # After a signal the process is about to end, and nothing more shall interrupt that; only what is really ignored
        # stays so while the interpreter ends.
        for number, handler in before.items():
            signal.signal(number, (handler or signal.SIG_DFL) if _State.received is None else signal.SIG_IGN)


@contextlib.contextmanager
def stopped_by_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Within, the first signal calls ``stop`` in a thread of its own and raises nothing: no result gets lost.

    Args:
        stop: Makes the main thread's work end by itself.
    """
    _State.stop = stop
    try:
        yield
    finally:
        _State.stop = None
        if _State.stopping is not None:
            _State.stopping.join()


def received() -> int | None:
    """The signal that ends this command, None if there is none."""
    return _State.received


def let_it_end() -> None:
    """Within `ended_by_signals`: from now on no signal interrupts what ends in seconds anyway."""
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is _handle:
                signal.signal(number, _ignore)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Not SIG_IGN, which processes that are started now would inherit."""


def _handle(number: int, frame: FrameType | None) -> None:
    _State.received = number
    let_it_end()
    if _State.stop is None:
        raise EndedBySignal(number)
    _State.stopping = threading.Thread(target=_State.stop, name="framegate-stop", daemon=True)
    _State.stopping.start()
