"""The exceptions of framegate. Each message says what was asked, what was found and what to do.

FramegateError
|-- UsageError           a wrong argument or option                              (exit code 2)
|-- BundleError          the bundle is missing, damaged or of an unknown kind    (exit code 1)
|-- CalibrationError     no threshold keeps the promise, or the record is unusable
|-- BackendError         the engine cannot be loaded or failed on a frame
|-- SourceError          a camera, clip or folder cannot be opened or read
|-- SinkError            an output cannot be written
|-- DataError            training or calibration data are missing or damaged
|-- ExportRefusedError   the exported model's decisions differ too much from the trained one's
`-- RejectedFrame        the label of a rejected frame was asked for
    `-- ExpiredVerdict   the label of an accepted frame was asked for after the verdict's end
"""

from __future__ import annotations

from framegate.runtime.passwords import hide_in_text


class FramegateError(Exception):
    """Base of every error that framegate raises on purpose. The command line prints it as one line.

    Passwords of addresses in its message are hidden, also those that a library wrote into a text which it quotes.
    """

    exit_code = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(hide_in_text(each) if isinstance(each, str) else each for each in args))


class UsageError(FramegateError):
    """An argument or option has a value that cannot be used."""

    exit_code = 2


class BundleError(FramegateError):
    """A bundle is missing, incomplete, damaged (wrong hash) or of an unknown format."""


class CalibrationError(FramegateError):
    """Calibration refused, or a calibration record cannot be used."""


class BackendError(FramegateError):
    """An inference engine cannot be loaded, or it failed on a frame."""


class SourceError(FramegateError):
    """A frame source cannot be opened, or it ended in the middle of a frame."""


class SinkError(FramegateError):
    """An output cannot be created or written."""


class DataError(FramegateError):
    """Training or calibration data are missing or damaged."""


class ExportRefusedError(FramegateError):
    """An export was refused because its accuracy or decisions moved too far from the trained model's."""


class RejectedFrame(FramegateError):  # noqa: N818 - the name says what happened, in the public API since the start
    """The label of a rejected frame was asked for; it must not be used."""


class ExpiredVerdict(RejectedFrame):
    """The label of an accepted frame was asked for after the verdict's end; it says nothing about the present."""
