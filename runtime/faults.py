"""Faults on demand: corrupt the frames of a source on their way in, to show that no ACCEPT gets through."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from framegate.runtime.errors import UsageError
from framegate.runtime.pixel_format import to_bgr
from framegate.runtime.source import BaseSource, Source
from framegate.runtime.verdict import Frame, Image


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault on a range of frames.

    Attributes:
        kind: A key of `KINDS`, or "freeze".
        first: First frame_id affected.
        last: Last frame_id affected.
    """

    kind: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.first}" + (f"-{self.last}" if self.last != self.first else "")


def _black(image: Image) -> Image:
    return np.zeros_like(image)


def _half_size(image: Image) -> Image:
    if image.size == 0:  # an unreadable file from a folder: cv2.resize refuses it
        return image.copy()
    height, width = image.shape[:2]
    return cv2.resize(image, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)


def _grey16(image: Image) -> Image:
    grey = image if image.ndim == 2 else image.mean(axis=2)
    return grey.astype(np.uint16) * np.uint16(257)  # 255 becomes 65535


KINDS: dict[str, Callable[[Image], Image]] = {"black": _black, "size": _half_size, "grey16": _grey16}
"""Faults that need nothing but the frame itself: each returns a new array and leaves its argument as it is."""
_FREEZE = "freeze"


def fault_kinds() -> tuple[str, ...]:
    """The names of all faults, for messages and menus."""
    return tuple(sorted((*KINDS, _FREEZE)))


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Read ``black:10-15,freeze:20-25,size:30`` (ranges include both ends); empty text means no faults.

    Returns:
        The faults in the order of their frames.

    Raises:
        UsageError: An unknown kind, a bad range, overlapping ranges, or a freeze with nothing to repeat.
    """
    faults = []
    for part in text.split(",") if text.strip() else []:
        match = re.fullmatch(r"\s*(\w+)\s*:\s*([0-9]+)\s*(?:-\s*([0-9]+)\s*)?", part, re.ASCII)
        if match is None:
            raise UsageError(
                f"fault {part.strip()!r}: expected KIND:FRAME or KIND:FIRST-LAST, e.g. black:10-15; "
                f"kinds are {', '.join(fault_kinds())}"
            )
        kind, first, last = match.groups()
        faults.append(Fault(kind, int(first), int(last if last is not None else first)))
    return _checked(faults)


def _checked(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """The faults in order, if they make sense together."""
    ordered = tuple(sorted(faults, key=lambda fault: fault.first))
    kinds = f"kinds are {', '.join(fault_kinds())}"
    end = -1
    affected = 0
    for fault in ordered:
        if fault.kind not in fault_kinds():
            raise UsageError(f"fault {str(fault)!r}: unknown kind {fault.kind!r}; {kinds}")
        if fault.first < 0 or fault.last < fault.first:
            raise UsageError(f"fault {str(fault)!r}: the range must count upwards from 0 or later; {kinds}")
        if fault.first <= end:
            raise UsageError(f"fault {str(fault)!r} overlaps another one; a frame can have one fault; {kinds}")
        if fault.kind == _FREEZE and affected == fault.first:
            raise UsageError(
                f"fault {str(fault)!r}: there is no good frame before frame {fault.first} to repeat; "
                f"start it later; {kinds}"
            )
        end = fault.last
        affected += fault.last - fault.first + 1
    return ordered


class FaultInjector(BaseSource):
    """A source whose frames are corrupted on their way in; their ids and times of capture stay.

    Args:
        source: The real source, fresh: the ranges speak of its frame ids. It is closed along with the injector.
        faults: What to do to which frames, e.g. from `parse_faults`.

    A frozen frame repeats the pixels of the last frame without a fault, while its id and time of capture go on. Frame 0
    cannot be frozen, and neither can frames before which there was none without a fault (UsageError). Arrays of the
    source are never written to. The attributes are those of the source: after a "size" fault the frames contradict
    `frame_size`, as they would in reality.

    Raises:
        UsageError: The faults do not make sense together.
    """

    def __init__(self, source: Source, faults: Iterable[Fault]) -> None:
        self.faults = _checked(faults)
        self._source = source
        self._good: Image | None = None
        super().__init__(
            source.name,
            live=source.live,
            frame_size=source.frame_size,
            fixed_size=source.fixed_size,
            fps=source.fps,
            length=source.length,
            status=source.status,
        )
        # Copying every frame in case the next one freezes would cost time: only these are ever repeated.
        self._to_keep = {self._last_good(fault.first) for fault in self.faults if fault.kind == _FREEZE}

    def close(self) -> None:
        """Close this and the source, whose blocked `read` returns."""
        super().close()
        self._source.close()

    def _produce(self, frame_id: int) -> Frame | None:
        frame = self._source.read()
        if frame is None:
            return None
        frame = to_bgr(frame)
        fault = self._fault_of(frame.frame_id)
        if fault is None:
            if frame.frame_id in self._to_keep:
                self._good = frame.image.copy()
            return frame
        if fault.kind != _FREEZE:
            return replace(frame, image=KINDS[fault.kind](frame.image))
        if self._good is None:  # the source was not fresh: repeat from the first frame seen
            self._good = frame.image.copy()
        return replace(frame, image=self._good.copy())  # a copy each: whoever draws on it must not thaw the next

    def _fault_of(self, frame_id: int) -> Fault | None:
        return next((fault for fault in self.faults if fault.first <= frame_id <= fault.last), None)

    def _last_good(self, frame_id: int) -> int:
        """The last frame before `frame_id` that has no fault."""
        while (fault := self._fault_of(frame_id - 1)) is not None:
            frame_id = fault.first
        return frame_id - 1
