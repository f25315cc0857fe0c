"""When was this frame captured? What a driver or a stream says about it, as far as that is plausible."""

from __future__ import annotations

import math
from collections import deque

_PLAUSIBLE_NS = 1_000_000_000
_DRIFT = 200e-6
"""How much slower than ours a camera's clock may run: 200 parts per million are several times what quartz clocks do."""

_REPEATED_MS = 1000.0
"""A stamp that lies back by no more was repeated, or came out of order; by more: the stream has begun again."""

WAITED_NS = 1_000_000
"""A frame that was handed over sooner had been there when it was asked for."""


class ArrivalClock:
    """Time of arrival of frames that bring no stamp.

    A frame that had to be waited for has just arrived. One that was there already came at some time since its place
    in the queue became free: it counts as that old, so that a reader which was held up does not take an old frame for a
    new one.

    Args:
        depth: Frames that the queue in front can hold.
    """

    def __init__(self, depth: int = 1) -> None:
        self._handed_over: deque[int] = deque(maxlen=depth)
        self._latest = -1

    def captured_ns(self, asked_ns: int, now_ns: int) -> int:
        """Time of capture in ns of `time.monotonic_ns`, at most `now_ns` and later than that of the frame before.

        Args:
            asked_ns: When the frame was asked for.
            now_ns: When it was handed over.
        """
        if not self._handed_over or now_ns - asked_ns >= WAITED_NS:
            self._handed_over.clear()
            captured = now_ns
        else:
            captured = self._handed_over[0]
        self._handed_over.append(now_ns)
        self._latest = max(captured, self._latest + 1)
        return self._latest


class DriverClock:
    """Time stamps of a V4L2 driver: its monotonic clock, if it is that.

    Most drivers stamp buffers with CLOCK_MONOTONIC; some use another clock, or write nothing. A stamp within the
    last second shows that the clocks are the same. From then on an old stamp is accepted, too: the frame *is* old.
    A stamp in the future, or one that does not advance, ends the belief until the next plausible one.

    Attributes:
        trusted: Whether the latest stamp was used.
    """

    def __init__(self) -> None:
        self.trusted = False
        self._last = -1

    def captured_ns(self, stamp_ms: float, now_ns: int) -> int:
        """Time of capture in ns of `time.monotonic_ns`.

        Args:
            stamp_ms: What the driver says, in ms (``cv2.CAP_PROP_POS_MSEC``).
            now_ns: `time.monotonic_ns()` when the driver handed the frame over; the answer if the stamp is no use.
        """
        stamp = round(stamp_ms * 1e6) if 0 < stamp_ms < 1e15 else -1
        advances = stamp > self._last
        recent = now_ns - stamp <= _PLAUSIBLE_NS
        self._last = stamp
        self.trusted = 0 < stamp <= now_ns and advances and (recent or self.trusted)
        return stamp if self.trusted else now_ns


class StreamClock:
    """Presentation times of a network stream: they say nothing about when, but all about how much later.

    The frame that came through fastest counts as captured when it arrived; any other frame is older by as much as it
    lagged behind that one. So a queue that builds up in the network or the decoder shows in the age of the frames,
    although every one of them is "new" here. The constant part of the delay (encoder, network) is not seen.

    The best frame so far is forgotten at 200 ppm, so that a camera whose clock is slower than ours does not seem to
    fall behind for ever.
    """

    def __init__(self) -> None:
        self._fastest: int | None = None
        self._seen_ns = 0
        self._last_pts = -math.inf
        self._lag_ns = 0
        self._unsaid: tuple[int, int] | None = None  # since when, and until when, frames have had no stamp of their own

    def captured_ns(self, pts_ms: float, now_ns: int) -> int:
        """Time of capture in ns of `time.monotonic_ns`, at most `now_ns`.

        Args:
            pts_ms: Presentation time in ms from any origin. A frame without one, or with that of a frame before, as
                careless cameras send now and then, lags as the one before it did; so a stream that never states one
                never lags. In a stream that starts again, with a much smaller one, the frame counts as captured now.
            now_ns: `time.monotonic_ns()` when the frame arrived.
        """
        # Where FFmpeg knows none, OpenCV says 0.
        if not 0 < abs(pts_ms) < 1e15 or 0 <= self._last_pts - pts_ms <= _REPEATED_MS:
            self._unsaid = (now_ns if self._unsaid is None else self._unsaid[0]), now_ns
            return now_ns - self._lag_ns
        unsaid_ns = 0 if self._unsaid is None else self._unsaid[1] - self._unsaid[0]
        transit, again = now_ns - round(pts_ms * 1e6), pts_ms < self._last_pts
        self._last_pts, self._unsaid = pts_ms, None
        if again:
            self._fastest = None
        elif unsaid_ns > _PLAUSIBLE_NS:  # the stamps stood still, so this one says nothing about those before
            self._fastest = transit - self._lag_ns
        elif self._fastest is not None:
            self._fastest += round((now_ns - self._seen_ns) * _DRIFT)
        self._seen_ns = now_ns
        if self._fastest is None or transit < self._fastest:
            self._fastest = transit
        self._lag_ns = transit - self._fastest
        return now_ns - self._lag_ns
