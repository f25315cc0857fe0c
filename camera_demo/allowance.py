"""How much somebody may ask for in a time (a token bucket)."""

from __future__ import annotations

import time


class Allowance:
    """So much a second, and so much at once after a rest.

    Args:
        per_second: Grows by this.
        at_once: Never holds more than this, and begins with it.
    """

    def __init__(self, per_second: float, at_once: float) -> None:
        self._per_second = per_second
        self._at_once = at_once
        self._left = at_once
        self._filled_at = time.monotonic()

    def take(self, amount: float = 1.0) -> bool:
        """Take it and return True, or take nothing if there is less."""
        now = time.monotonic()
        self._left = min(self._at_once, self._left + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if amount > self._left:
            return False
        self._left -= amount
        return True
