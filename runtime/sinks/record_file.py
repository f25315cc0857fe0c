"""A file that ends at a whole record, whatever happens to the disk or to the process."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
from pathlib import Path

from framegate.runtime.errors import SinkError

STDOUT = Path("-")
"""As a file to write: the standard output."""


class RecordFile:
    """Appends records without a buffer of its own: an `append` that has returned survives the end of the process.

    An append that fails is taken back, so that a full disk leaves no half record (a pipe cannot take anything back). A
    process that is killed in the middle of an append leaves at most that one record cut off.

    Args:
        path: File or named pipe. `STDOUT` is the standard output.
        what: What is written, for messages, e.g. ``verdicts``.
        replace: Whether an existing file is replaced; otherwise it stays, and there is an error.

    Attributes:
        path: As given.
        size: Bytes of whole records so far.

    Raises:
        SinkError: It cannot be created.
    """

    def __init__(self, path: Path, what: str, *, replace: bool = True) -> None:
        self.path = path
        self.size = 0
        self._what = what
        try:
            self._file = _standard_output() if path == STDOUT else path.open("wb" if replace else "xb", buffering=0)
            self._regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        except OSError as error:
            raise SinkError(f"{what} {path}: cannot be written ({error.strerror})") from error

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._file.closed

    def append(self, record: bytes, kept: str) -> None:
        """Write a record, all of it or nothing.

        Args:
            record: Its bytes.
            kept: What of the recording stays readable if this fails, for the message.

        Raises:
            SinkError: It cannot be written.
        """
        rest = memoryview(record)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]  # a full disk takes a part first and fails then
        except OSError as error:
            if self._regular:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file.fileno(), self.size)
                    self._file.seek(self.size)
            raise SinkError(f"{self._what} {self.path}: writing failed ({error.strerror}); {kept}") from error
        self.size += len(record)

    def overwrite(self, offset: int, data: bytes) -> None:
        """Replace bytes that were written, in a single call.

        Raises:
            SinkError: They cannot be written.
        """
        try:
            os.pwrite(self._file.fileno(), data, offset)
        except OSError as error:
            raise SinkError(f"{self._what} {self.path}: writing failed ({error.strerror})") from error

    def close(self) -> None:
        """Close the file; can be called twice.

        Raises:
            SinkError: The file system says only now that something could not be stored.
        """
        try:
            self._file.close()
        except OSError as error:
            raise SinkError(f"{self._what} {self.path}: closing failed ({error.strerror})") from error


def _standard_output() -> io.FileIO:
    """The standard output as a file of its own, so that closing it leaves the process's alone.

    Raises:
        OSError: There is none.
    """
    sys.stdout.flush()
    return io.FileIO(os.dup(sys.stdout.fileno()), "wb")
