"""A soak: many messages through sender, transport and receiver; memory and files stay as they are, counters agree.

    python -m framegate.benchmarks.handover.soak --messages 1000000 --out benchmarks/results/handover-soak.json

The exit code is 1 if memory or files grow, if a counter disagrees with what was sent, or if a message was usable
that the sender rejected.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import progress_bar, to_stderr, to_stdout
from framegate.runtime.errors import UsageError
from framegate.runtime.handover import (
    Identity,
    Receiver,
    ReceiverConfig,
    Sender,
    open_incoming,
    open_outgoing,
    this_clock,
)
from framegate.runtime.handover.reading import MS
from framegate.runtime.handover.udp import UdpIncoming
from framegate.runtime.verdict import Prediction, Reason

_AHEAD = 32
"""Messages that the sender may be ahead of the receiver: what waits for longer is too old."""
_GROWTH_KIB = 4096
_PATIENCE_S = 10.0


def _rss_kib() -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def _files() -> int:
    return len(os.listdir("/proc/self/fd"))


def prediction(number: int) -> Prediction:
    """The verdict on frame ``number``; every third one is rejected."""
    now = time.monotonic_ns()
    reasons = (Reason.HIGH_SCORE,) if number % 3 == 0 else ()
    score = 0.9 if reasons else 0.1
    return Prediction(
        number, "frame", reasons, "b", 0.8, 0.1, 0.7, -3.0, score, 0.5, now, now, valid_until_ns=now + 500 * MS
    )


class Feeding:
    """Takes what comes and counts it."""

    def __init__(self, address: str, data_id: int) -> None:
        self.incoming = open_incoming(address)
        # Messages come as fast as they can be made, so there is no shortest period; a busy machine may pause.
        self.receiver = Receiver(
            ReceiverConfig(data_id, clock_domain=this_clock(), shortest_period_ns=0, transit_ns=5000 * MS)
        )
        self.usable = self.unsafe = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak-receiver", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._stopped.set()
        self._thread.join()
        self.incoming.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            received = self.incoming.receive(0.05)
            if received is None:
                continue
            self.receiver.feed(*received)
            reading = self.receiver.verdict()
            if reading.usable and reading.message is not None:
                self.usable += 1
                self.unsafe += reading.message.frame_id % 3 == 0


def soak(messages: int, transport: str = "udp") -> dict[str, Any]:
    """Send them and say what came of it.

    Args:
        messages: How many, at least 100.
        transport: ``udp`` or ``local``.

    Raises:
        UsageError: The number or the transport cannot be used.
    """
    if messages < 100 or transport not in ("udp", "local"):
        raise UsageError(f"soak of {messages} messages over {transport}: expected 100 or more over udp or local")
    feeding = Feeding("udp://127.0.0.1:0" if transport == "udp" else "local://soak", 7)
    port = feeding.incoming.port if isinstance(feeding.incoming, UdpIncoming) else 0
    outgoing = open_outgoing(f"udp://127.0.0.1:{port}" if transport == "udp" else "local://soak")
    sender = Sender([outgoing], [("frame", 7)], Identity(("a", "b"), b"bundle01", b"calib001"), heartbeat_s=None)
    begun, memory, files = time.monotonic(), 0, 0
    with progress_bar() as update:
        for number in range(messages):
            sender.send(prediction(number))
            _let_it_catch_up(sender, feeding)
            if number == messages // 10:
                memory, files = _rss_kib(), _files()
            if number % 1000 == 0:
                update("soak", number, messages)
    until = time.monotonic() + _PATIENCE_S
    while _arrived(feeding) < sender.sent and time.monotonic() < until:
        time.sleep(0.01)
    took = time.monotonic() - begun
    grown, more_files = _rss_kib() - memory, _files() - files
    sent = sender.sent
    counts = dict(feeding.receiver.counts())
    feeding.close()
    sender.close()
    faults = sum(count for name, count in counts.items() if name not in ("received", "good", "lost_messages", "missed"))
    agree = counts["received"] + counts["lost_messages"] == sent and counts["good"] + faults == counts["received"]
    return {
        "transport": transport,
        "messages": messages,
        "seconds": round(took, 1),
        "sent": sent,
        "unsent": outgoing.unsent,
        "counts": {name: count for name, count in counts.items() if count},
        "counters_agree": agree,
        "usable": feeding.usable,
        "unsafe": feeding.unsafe,
        "memory_growth_kib": grown,
        "files_growth": more_files,
    }


def _arrived(feeding: Feeding) -> int:
    return feeding.receiver.received + feeding.receiver.lost_messages


def _let_it_catch_up(sender: Sender, feeding: Feeding) -> None:
    """Wait while the receiver is far behind; not for ever, for what the system dropped is never received."""
    until = time.monotonic() + 1.0
    while sender.sent - _arrived(feeding) > _AHEAD and time.monotonic() < until:
        time.sleep(0.0005)


def passed(found: dict[str, Any]) -> bool:
    """Whether memory and files stayed as they were, the counters agree, and nothing was usable that must not be."""
    flat = found["memory_growth_kib"] <= _GROWTH_KIB and found["files_growth"] <= 0
    return bool(flat and found["counters_agree"] and not found["unsafe"] and found["usable"])


def main(words: list[str] | None = None) -> int:
    """Run the soak."""
    parser = argparse.ArgumentParser(description="Many messages through sender, transport and receiver.")
    parser.add_argument("--messages", type=int, default=1_000_000, help="how many (default: %(default)s)")
    parser.add_argument("--transport", choices=("udp", "local"), default="udp", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="the record (default: none)")
    arguments = parser.parse_args(words)
    found = soak(arguments.messages, arguments.transport)
    to_stdout(json.dumps(found))
    record = {"date": date.today().isoformat(), "machine": circumstances(), **found}
    if arguments.out is not None:
        try:
            arguments.out.write_text(json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8")
        except OSError as error:
            to_stderr(f"soak: {arguments.out} cannot be written ({error.strerror})")
            return 1
    return 0 if passed(found) else 1


if __name__ == "__main__":
    sys.exit(main())
