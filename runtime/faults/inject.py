"""Faults on demand: corrupt the frames of a source on their way in, to show that no ACCEPT gets through."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from framegate.runtime.errors import SourceError, UsageError
from framegate.runtime.faults import camera as fault_camera
from framegate.runtime.faults import light as fault_light
from framegate.runtime.faults.plugins import FaultFunction, plugin_kinds
from framegate.runtime.pixel_format import to_bgr
from framegate.runtime.sources.base import BaseSource, Source
from framegate.runtime.verdict import Frame, Image

DEFAULT_SEVERITY = 3

KINDS: dict[str, Callable[[Image, int, int], Image]] = {
    "black": fault_light.black,
    "saturated": fault_light.saturated,
    "contrast": fault_light.contrast,
    "fog": fault_light.fog,
    "rain": fault_light.rain,
    "glare": fault_light.glare,
    "blur": fault_camera.blur,
    "covered": fault_camera.covered,
    "noise": fault_camera.noise,
    "compression": fault_camera.compression,
    "channel": fault_camera.channel,
    "half": fault_camera.half,
    "size": fault_camera.size,
    "grey16": fault_camera.grey16,
}
"""Faults that need nothing but the frame itself: (image, severity, frame_id) to a new array, the argument left as it
is."""
_FREEZE = "freeze"
_WITH_PAST: dict[str, Callable[[Image, int, int, Image], Image]] = {
    _FREEZE: lambda image, severity, frame_id, past: past.copy(),
    "stuck": fault_camera.stuck,
    "torn": fault_camera.torn,
}
PAST_KINDS = frozenset(_WITH_PAST)
"""Faults that also need the last frame without a fault."""
ONE_SEVERITY = frozenset(("black", "channel", _FREEZE, "grey16", "size"))
"""Kinds that are there or not; all others have a severity from 1 to 5."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault on a range of frames.

    Attributes:
        kind: One of `fault_kinds`.
        first: First frame_id affected.
        last: Last frame_id affected.
        severity: 1 (hardly visible) to 5 (as bad as it gets); without meaning for the kinds in `ONE_SEVERITY`.
    """

    kind: str
    first: int
    last: int
    severity: int = DEFAULT_SEVERITY

    def __str__(self) -> str:
        frames = f"{self.kind}:{self.first}" + (f"-{self.last}" if self.last != self.first else "")
        return frames + (f":{self.severity}" if self.severity != DEFAULT_SEVERITY else "")


def fault_kinds() -> tuple[str, ...]:
    """The names of all faults, for messages and menus; with those that other packages registered."""
    return tuple(sorted({*KINDS, *_WITH_PAST, *plugin_kinds()}))


def _is_known(kind: str) -> bool:
    # What other packages register costs a look at every installed package: only for a kind that is none of ours.
    return kind in KINDS or kind in _WITH_PAST or kind in plugin_kinds()


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Read ``black:10-15,blur:20-25:4,size:30``; ranges include both ends, an empty text means no faults.

    Each is KIND:FRAME or KIND:FIRST-LAST, and :SEVERITY from 1 to 5 if it should not be 3.

    Returns:
        The faults in the order of their frames.

    Raises:
        UsageError: An unknown kind, a bad range or severity, overlapping ranges, or a fault that repeats the last
            good frame where there is none.
    """
    faults = []
    for part in text.split(",") if text.strip() else []:
        match = re.fullmatch(r"\s*(\w+)\s*:\s*([0-9]+)\s*(?:-\s*([0-9]+)\s*)?(?::\s*([0-9]+)\s*)?", part, re.ASCII)
        if match is None:
            raise UsageError(
                f"fault {part.strip()!r}: expected KIND:FRAME or KIND:FIRST-LAST, and :SEVERITY from 1 to 5 if wanted, "
                f"e.g. black:10-15 or blur:10-15:4; kinds are {', '.join(fault_kinds())}"
            )
        kind, first, last, severity = match.groups()
        if severity is not None and kind in ONE_SEVERITY:
            raise UsageError(f"fault {part.strip()!r}: {kind} has no severity; write {kind}:FIRST-LAST")
        faults.append(
            Fault(kind, int(first), int(last if last is not None else first), int(severity or DEFAULT_SEVERITY))
        )
    return _checked(faults)


def _checked(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """The faults in order, if they make sense together."""
    ordered = tuple(sorted(faults, key=lambda fault: fault.first))

    def kinds() -> str:
        return f"kinds are {', '.join(fault_kinds())}"

    end = -1
    affected = 0
    for fault in ordered:
        if not _is_known(fault.kind):
            raise UsageError(f"fault {str(fault)!r}: unknown kind {fault.kind!r}; {kinds()}")
        if fault.first < 0 or fault.last < fault.first:
            raise UsageError(f"fault {str(fault)!r}: the range must count upwards from 0 or later; {kinds()}")
        if not 1 <= fault.severity <= 5:
            raise UsageError(f"fault {str(fault)!r}: severity {fault.severity}; expected 1 to 5")
        if fault.first <= end:
            raise UsageError(f"fault {str(fault)!r} overlaps another one; a frame can have one fault; {kinds()}")
        if fault.kind in _WITH_PAST and affected == fault.first:
            raise UsageError(
                f"fault {str(fault)!r}: there is no good frame before frame {fault.first} to repeat; "
                f"start it later; {kinds()}"
            )
        end = fault.last
        affected += fault.last - fault.first + 1
    return ordered


class FaultInjector(BaseSource):
    """A source whose frames are corrupted on their way in; their ids and times of capture stay.

    Args:
        source: The real source, fresh: the ranges speak of its frame ids. It is closed along with the injector.
        faults: What to do to which frames, e.g. from `parse_faults`.
        plugins: Functions of the kinds that come from other packages, from
            `framegate.runtime.faults.plugins.load_plugins`.

    A frozen frame repeats the pixels of the last frame without a fault, while its id and time of capture go on; stuck
    and torn ones use it, too. Frame 0 cannot have such a fault, and neither can frames before which there was none
    without a fault (UsageError). Arrays of the source are never written to. The attributes are those of the source:
    after a "size" fault the frames contradict `frame_size`, as they would in reality. An image that is no picture of
    8 bits, at least 2x2, passes as it is, except that it may be black, frozen, or of another size or format.

    Raises:
        UsageError: The faults do not make sense together, or one of another package is not in `plugins`.
    """

    def __init__(
        self, source: Source, faults: Iterable[Fault], plugins: Mapping[str, FaultFunction] | None = None
    ) -> None:
        self.faults = _checked(faults)
        self._plugins = dict(plugins or {})
        for fault in self.faults:
            if fault.kind not in KINDS and fault.kind not in _WITH_PAST and fault.kind not in self._plugins:
                raise UsageError(f"fault {str(fault)!r}: {fault.kind} comes from another package and was not loaded")
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
        self.hands_over = source.hands_over
        # Copying every frame in case the next one freezes would cost time: only these are ever repeated.
        self._to_keep = {self._last_good(fault.first) for fault in self.faults if fault.kind in _WITH_PAST}

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
        if fault.kind in _WITH_PAST and self._good is None:  # the source was not fresh: repeat the first frame seen
            self._good = frame.image.copy()
        return replace(frame, image=self._corrupt(frame, fault))

    def _corrupt(self, frame: Frame, fault: Fault) -> Image:
        if fault.kind not in self._plugins:
            return corrupt(frame.image, fault.kind, fault.severity, frame.frame_id, self._good)
        try:
            return self._plugins[fault.kind](frame.image, fault.severity)
        except Exception as error:
            raise SourceError(f"fault {str(fault)!r} failed on frame {frame.frame_id}: {error}") from error

    def _fault_of(self, frame_id: int) -> Fault | None:
        return next((fault for fault in self.faults if fault.first <= frame_id <= fault.last), None)

    def _last_good(self, frame_id: int) -> int:
        """The last frame before `frame_id` that has no fault."""
        while (fault := self._fault_of(frame_id - 1)) is not None:
            frame_id = fault.first
        return frame_id - 1


def corrupt(image: Image, kind: str, severity: int, frame_id: int, past: Image | None) -> Image:
    """One of the faults in `KINDS` and `PAST_KINDS` on one image.

    Args:
        image: The frame; not written to.
        kind: The fault.
        severity: 1 to 5.
        frame_id: Makes rain, noise and the like differ from frame to frame.
        past: The last image without a fault, for `PAST_KINDS`; not written to.

    Returns:
        A new array each time: whoever draws on it must not change the next.
    """
    if kind in _WITH_PAST:
        assert past is not None
        if kind != _FREEZE and not _is_picture(past):
            return past.copy()
        return _WITH_PAST[kind](image, severity, frame_id, past)
    if image.size == 0 or (kind not in ("black", "size", "grey16") and not _is_picture(image)):
        return image.copy()
    return KINDS[kind](image, severity, frame_id)


def _is_picture(image: Image) -> bool:
    shape = image.shape
    return (
        image.dtype == "uint8" and (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))) and min(shape[:2]) > 1
    )
