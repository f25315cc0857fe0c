"""A file that ends at a whole record, whatever happens to the disk or to the process."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
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

    Two that write one file would leave neither recording, so a file that somebody still writes is refused.

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
            self._file = _standard_output() if path == STDOUT else _opened(path, replace)
            self._regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        except BlockingIOError:
            raise SinkError(f"{what} {path}: something else is writing it; give this one another name") from None
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
                count: int | None = self._file.write(rest)
                if count is None:  # a full pipe that somebody who shares it does not want to wait for
                    select.select((), (self._file,), ())
                else:
                    rest = rest[count:]  # a full disk takes a part first and fails then
        except OSError as error:
            if self._regular:
                with contextlib.suppress(OSError):
                    # Not `size`: what a shell redirects to may have begun before.
                    whole = os.fstat(self._file.fileno()).st_size - (len(record) - len(rest))
                    os.ftruncate(self._file.fileno(), whole)
                    self._file.seek(whole)
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


def hold(file: io.FileIO) -> None:
    """Let nobody else hold this file while it is open, or the process lives.

    Raises:
        BlockingIOError: Somebody does already.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system that has no such thing
        pass


def _opened(path: Path, replace: bool) -> io.FileIO:
    """The file, empty.

    Raises:
        BlockingIOError: Somebody else is writing it; then it stays as it is.
        OSError: It cannot be written.
    """
    # Cut off only when it is known that nobody writes it.
    file = io.FileIO(
        path, "wb" if replace else "xb", opener=lambda name, flags: os.open(name, flags & ~os.O_TRUNC, 0o666)
    )
    try:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            hold(file)
            file.truncate(0)
    except BaseException:
        file.close()
        raise
    return file


def _standard_output() -> io.FileIO:
    """The standard output as a file of its own, so that closing it leaves the process's alone.

    Raises:
        OSError: There is none.
    """
    sys.stdout.flush()
    return io.FileIO(os.dup(sys.stdout.fileno()), "wb")
