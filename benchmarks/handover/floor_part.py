"""Bare UDP over loopback in Python for floor.py, the same as floor.c; it imports nothing that is slow to import.

floor_part.py receive COUNT            prints its port, then one line "SENT ARRIVED" in ns for each datagram
floor_part.py send PORT COUNT PAUSE_US
"""

from __future__ import annotations

import socket
import sys
import time

BYTES = 144
"""As many as a message of the hand-over has."""


def receive(count: int) -> None:
    """The receiving process in Python: its port, then one line for each datagram."""
    here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here.bind(("127.0.0.1", 0))
    here.settimeout(None)
    sys.stdout.write(f"{here.getsockname()[1]}\n")
    sys.stdout.flush()
    times = []
    for _ in range(count):
        data = here.recv(2048)
        times.append((data, time.monotonic_ns()))
    for data, arrived in times:
        sys.stdout.write(f"{int.from_bytes(data[:8], sys.byteorder)} {arrived}\n")


def send(port: int, count: int, pause_us: int) -> None:
    """The sending process in Python."""
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    where, rest = ("127.0.0.1", port), bytes(BYTES - 8)
    for _ in range(count):
        time.sleep(pause_us / 1e6)
        out.sendto(time.monotonic_ns().to_bytes(8, sys.byteorder) + rest, where)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(int(sys.argv[2]))
    else:
        send(*(int(word) for word in sys.argv[2:5]))
