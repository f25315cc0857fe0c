"""Memory of the C library, for work that follows gradients on the CPU."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Numbers of glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Let this process keep what PyTorch frees, for the next tensors.

    Every tensor of an attack is as large as the one before it, but glibc gives each back to the system and asks for
    cleared pages anew, which takes a good part of an attack's time. The process keeps as much memory as it needed at
    most, so this is for commands and not for a vehicle. Elsewhere than with glibc it does nothing.

    Returns:
        Whether it was done.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no glibc: musl has no mallopt, Windows no CDLL(None)
        return False
    return all(set_option(*option) for option in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20)))
