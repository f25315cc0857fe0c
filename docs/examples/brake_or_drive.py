"""A control loop that drives while it may and brakes in every other case. docs/consumer.md says what it owes.

python docs/examples/brake_or_drive.py 47800 0x101 [KEY-FILE]
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from framegate.runtime import FramegateError
from framegate.runtime.handover import (
    Reading,
    Receiver,
    ReceiverConfig,
    open_incoming,
    read_data_id,
    read_key,
    this_clock,
)

CYCLE_S = 0.01
"""100 Hz: the loop must run at least ten times a second."""


def drive(class_id: int) -> None:
    """Your actuators."""
    print(f"DRIVE class {class_id}", flush=True)


def brake(reading: Reading) -> None:
    """Your actuators."""
    print(f"BRAKE: {reading.describe()}", flush=True)


def main(port: str, data_id: str, key_file: str = "") -> None:
    """Run until SIGTERM or Ctrl-C."""
    key = read_key(Path(key_file)) if key_file else b""
    receiver = Receiver(ReceiverConfig(read_data_id(data_id), clock_domain=this_clock(), key=key))
    incoming = open_incoming(f"udp://127.0.0.1:{port}")
    running = [True]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: running.clear())
    last = None
    while running:
        for data, arrival_ns in incoming.waiting():  # all that waits, every cycle
            receiver.feed(data, arrival_ns)
        reading = receiver.verdict()  # and only then ask
        now = (reading.why, reading.class_id if reading.usable else None)
        if now != last:
            drive(reading.class_id) if reading.usable else brake(reading)
            last = now
        time.sleep(CYCLE_S)
    incoming.close()


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(f"usage: {sys.argv[0]} PORT DATA-ID [KEY-FILE]")
    try:
        main(*sys.argv[1:])
    except FramegateError as error:  # what was asked, what was found, what to do
        sys.exit(f"{sys.argv[0]}: {error}")
