"""Where a JPEG file ends: its segments are walked over, as in ITU-T T.81, annex B.

Phones and cameras append to a picture what they like (a video, a depth map, padding), and store whole pictures within
it (a thumbnail), so that neither the last nor the first end-of-image marker of a file need be the picture's.
"""

from __future__ import annotations

import re

SIGNATURE = b"\xff\xd8\xff"
_END, _SCAN = 0xD9, 0xDA
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))
"""Markers without a segment behind them: TEM, RST0 to RST7, SOI."""
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_MARKER_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Compressed data holds FF 00 for a byte FF, and restart markers."""


class JpegEnd:
    """Looks for the end of one picture, also while its bytes are still arriving: nothing is looked at twice."""

    def __init__(self) -> None:
        self._at = 2  # behind SOI
        self._in_scan = False

    def find(self, data: bytes | bytearray) -> int:
        """The length of the picture in bytes, its end marker included; -1 if that has not come yet.

        Args:
            data: What there is of it, from its first byte; the same and more at every call.
        """
        while True:
            marker = (_MARKER_IN_SCAN if self._in_scan else _MARKER).search(data, self._at)
            if marker is None:
                self._at = max(self._at, len(data) - 1)  # the last byte may be the first of a marker
                return -1
            self._at, self._in_scan = marker.start(), False
            code = data[self._at + 1]
            if code == _END:
                return self._at + 2
            if code in _ALONE:
                self._at += 2
                continue
            size = int.from_bytes(data[self._at + 2 : self._at + 4], "big")
            if len(data) < self._at + 4:
                return -1
            self._at += 2 + size
            self._in_scan = code == _SCAN
