"""Whose clock a time was read from."""

from __future__ import annotations

import hashlib
import time
from functools import cache
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TIME_NAMESPACE = Path("/proc/self/ns/time")


@cache
def this_clock() -> int:
    """The clock domain of this process's monotonic clock: 64 bits, the same for all processes that read the same clock.

    It is a hash of the boot's id and the time namespace (containers may have one of their own). 0 where the system does
    not say, which equals no other clock.
    """
    try:
        boot = _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return 0
    if not boot:  # hidden from a container: on every such machine alike, and their clocks are not
        return 0
    try:
        namespace = str(_TIME_NAMESPACE.readlink())
    except OSError:  # a kernel without time namespaces has one clock
        namespace = ""
    return int.from_bytes(hashlib.sha256(f"framegate/{boot}/{namespace}".encode()).digest()[:8], "big")


def new_epoch() -> int:
    """The epoch of a sender that starts now: the wall clock in nanoseconds, which is larger at every start."""
    return max(time.time_ns(), 1)
