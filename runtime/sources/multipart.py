"""Pictures out of the body of a multipart/x-mixed-replace answer, as soon as their last byte has come.

Servers differ in where they put the boundary (in front of a picture or behind it), in whether they state a length and
whether that is right, in line endings, and in whether the two dashes are part of the boundary that they announce. A
picture ends where it ends itself (JPEG says so), at its stated length or at the next boundary, whatever comes first: a
reader that waits for one of the others is a picture late.
"""

from __future__ import annotations

import re

from framegate.runtime.sources.jpeg import SIGNATURE, JpegEnd

_PREAMBLE = 64 * 1024
"""Bytes within which the first part must begin, and each part's headers end."""
LARGEST = 64 * 1024 * 1024
"""Bytes of a picture."""
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_LENGTH = re.compile(rb"(?im)^content-length[ \t]*:[ \t]*([0-9]{1,18})[ \t]*\r?$")
_HEADER = re.compile(rb"(?i)content-(?:type|length)[ \t]*:")
_HEAD, _LONGEST_NAME = 64, len(b"content-length:")


class MultipartParser:
    """Takes bytes as they come and gives pictures.

    Args:
        boundary: As the answer's header announces it, with or without the two dashes; may be empty.
    """

    def __init__(self, boundary: bytes) -> None:
        self._boundary = b"--" + boundary.removeprefix(b"--")
        self._buffer = bytearray()
        self._passed = 0
        self._pictures = 0
        self._inside = False
        self._start_part(None)

    def feed(self, data: bytes) -> None:
        """Add what has come."""
        self._buffer += data

    def next_picture(self) -> bytes | None:
        """The next whole picture, or what the server calls one; None: more bytes are needed.

        Raises:
            ValueError: This is no such stream; the text says what it does.
        """
        if not self._inside and not self._find_picture():
            return None
        end = self._find_end()
        if end < 0:
            if len(self._buffer) > LARGEST:
                raise ValueError(f"sends a picture of more than {LARGEST >> 20} MiB")
            return None
        picture = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._inside, self._passed = False, 0
        self._pictures += 1
        return picture

    def _start_part(self, length: int | None) -> None:
        self._length = length
        self._jpeg = JpegEnd()
        self._searched = 0

    def _find_picture(self) -> bool:
        """Take away what is in front of the next picture. False: it has not begun."""
        start = self._find_headers()
        if start < 0:
            return False
        if self._buffer.startswith(SIGNATURE, start):  # a picture without any headers
            self._enter(start, None)
            return True
        blank = _BLANK_LINE.search(self._buffer, start)
        if blank is None:
            if len(self._buffer) - start > _PREAMBLE:
                raise ValueError("sends something that is not motion JPEG")
            return False
        stated = _LENGTH.search(self._buffer, start, blank.end())
        length = None if stated is None else int(stated[1])
        if length is not None and length > LARGEST:
            raise ValueError(f"sends a picture of more than {LARGEST >> 20} MiB")
        self._enter(blank.end(), length)
        return True

    def _enter(self, start: int, length: int | None) -> None:
        del self._buffer[:start]
        self._inside = True
        self._start_part(length)

    def _find_headers(self) -> int:
        """Where the headers of the next part begin; -1: nowhere yet. What is in front of the boundary is dropped."""
        if not self._pictures and not self._passed and not self._buffer.startswith(self._boundary):
            head = bytes(self._buffer[:_HEAD]).lstrip(b"\r\n")
            if len(head) < _LONGEST_NAME:
                return -1
            if head.startswith(SIGNATURE) or _HEADER.match(head):  # a boundary behind each picture only
                return min(_HEAD, len(self._buffer)) - len(head)
        at = self._buffer.find(self._boundary)
        if at < 0:
            # The first part must come soon; behind a picture may be what its stated length left over.
            drop = max(0, len(self._buffer) - len(self._boundary))
            self._passed += drop
            del self._buffer[:drop]
            if self._passed > (LARGEST if self._pictures else _PREAMBLE):
                raise ValueError("sends something that is not motion JPEG")
            return -1
        del self._buffer[:at]
        line_end = self._buffer.find(b"\n", len(self._boundary))
        if line_end < 0:
            return -1 if len(self._buffer) <= _PREAMBLE else 0
        # The line end belongs to the blank line if there are no headers at all.
        return line_end + 1 if self._buffer.startswith(SIGNATURE, line_end + 1) else len(self._boundary)

    def _find_end(self) -> int:
        """The length of the picture that the buffer begins with; -1: it is not complete."""
        buffer, length = self._buffer, self._length
        is_jpeg = buffer.startswith(SIGNATURE)
        end = self._jpeg.find(buffer) if is_jpeg else -1
        if length is None:
            return self._before_boundary(end)
        if len(buffer) < length:
            return end
        if not is_jpeg:
            return length
        behind = bytes(buffer[length : length + len(self._boundary) + 4])
        if not behind:  # cut off, or longer than its length: the next byte tells
            return end
        # What follows is no boundary: the stated length is wrong.
        follows = self._boundary.startswith(behind.lstrip(b"\r\n")[: len(self._boundary)])
        return length if follows else self._before_boundary(end)

    def _before_boundary(self, end: int) -> int:
        """Where the picture ends if the next boundary may come before `end`."""
        border = self._buffer.find(b"\n" + self._boundary, self._searched)
        self._searched = max(0, len(self._buffer) - len(self._boundary) - 2)
        if border > 0 and self._buffer[border - 1] == ord("\r"):
            border -= 1
        return min((place for place in (end, border) if place >= 0), default=-1)
