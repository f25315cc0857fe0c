"""The fast path: the way of an ordinary frame in two compiled calls (fast_path.c) around the engine's.

`framegate.runtime.frame_judge.FrameJudge.judge` reads downwards and does everything step by step. Most frames of a
camera need none of the choices on that way: one region, of the same size as the last one, in memory without gaps, an
engine on the CPU that writes the same array again, a camera check that compiled code does on another core. For those
this module does the same steps, in the same order, without the Python between them, which runs cold behind an engine's
call. What is decided from what they say is the business of the same code as ever.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from framegate.runtime.native import fast_path_module
from framegate.runtime.native.answer import BoundAnswer
from framegate.runtime.native.preprocess import Resize
from framegate.runtime.verdict import BGR, Frame, Image

_P, _I, _L = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
_D = ctypes.c_double
_ROWS, _COLUMNS, _LOOKED = 14, 8, 3
"""How many bytes of a frame are remembered: of the region in so many rows and columns, and of each looked-at row."""
_SHIFT = "shift"
UNCHANGED, ANSWERED, FINITE, GOOD, WITHIN = 1, 2, 4, 8, 16
"""What `FastPath.look` can say: the frame is what it was when begun; the answer is a new one; all of it is finite; the
camera check has nothing against it; the numbers keep their limits. One that is missing says nothing: look."""
ORDINARY = UNCHANGED | ANSWERED | FINITE | GOOD | WITHIN
_NUMBERS = {"max_probability": 1, "entropy": 2, "margin": 3, "energy": 4, _SHIFT: 5}
"""Scores and signals that compiled code computes, and their places in `BoundAnswer.found`."""


class Counting(NamedTuple):
    """What compiled code needs to count the rows of a stream's frames on another core.

    Attributes:
        beside: Address of the thread's state.
        job: Address of what it counts.
        row_bytes: From one row that is looked at to the next.
        still: A block must have changed by more than so many levels since every frame before.
        keep: Keeps what the thread may read, until it is given something else or the thread has ended.
        memory: Whose addresses these are: another one needs a new binding.
    """

    beside: int
    job: int
    row_bytes: int
    still: float
    keep: Callable[[object], None]
    memory: object


class Range(Protocol):
    """The range of a score or signal: `framegate.runtime.bundle.calibration.Limit`, of a single frame."""

    @property
    def signal(self) -> str:
        """Its name."""

    @property
    def low(self) -> float | None:
        """None: it may be as small as it likes."""

    @property
    def high(self) -> float | None:
        """None: it may be as large as it likes."""


class Check(Protocol):
    """The camera check of a stream, as far as this module asks it: `framegate.runtime.health.check.CameraHealth`."""

    def counting(self, image: Image) -> Counting | None:
        """What counts frames like this one; None where that is not done on another core, or not yet."""

    def announce(self, image: Image, memory: object) -> tuple[int, int, int] | None:
        """Say that a frame's rows are about to be counted; None: that is not for this memory, ask the long way.

        Returns:
            Address for the rows in grey, the frame's slot among the last frames, the slot of the frame before.
        """


class _Bound(ctypes.Structure):
    """See fast_path.c."""

    _fields_ = (("low", _D), ("high", _D), ("number", _I), ("unused", _I))


class _Region(ctypes.Structure):
    """See preprocess.h."""

    _fields_ = (
        ("pixels", _P),
        ("row_bytes", _L),
        *((name, _I) for name in ("width", "height", "safe", "same", "half", "wide")),
    )


class _SharedResize(ctypes.Structure):
    """See preprocess.h."""

    _fields_ = (
        ("plan", _P),
        ("region", _Region),
        *((name, _I) for name in ("rows", "taken", "made", "unused")),
    )


class _FastPath(ctypes.Structure):
    """See fast_path.c."""

    _fields_ = (
        *((name, _P) for name in ("beside", "job", "plan", "answer", "found", "pooled", "bounds", "shown", "places")),
        *((name, _L) for name in ("pooled_bytes", "samples", "rows", "columns", "looked_bytes", "region")),
        ("still", _D),
        *((name, _I) for name in ("width", "height", "bounded", "unused")),
        ("pixels", _P),
        ("resize", _SharedResize),
    )


def _bounds_of(limits: Sequence[Range], monitored: bool) -> tuple[ctypes.Array[_Bound], int]:
    """Limits as fast_path.c compares them, and how many; -1 where one is about a number that it does not know."""
    known = {name for name in _NUMBERS if monitored or name != _SHIFT}
    if any(each.signal not in known for each in limits):
        return (_Bound * 0)(), -1
    bounds = (_Bound * len(limits))()
    for bound, limit in zip(bounds, limits, strict=True):
        bound.low = -math.inf if limit.low is None else limit.low
        bound.high = math.inf if limit.high is None else limit.high
        bound.number = _NUMBERS[limit.signal]
    return bounds, len(limits)


def _places(
    image: Image, box: tuple[int, int, int, int], size: tuple[int, int], looked_bytes: int
) -> npt.NDArray[np.int64]:
    """Which bytes of a frame are remembered: such as the resize and the camera check read anyway.

    Args:
        image: The frame, C-contiguous.
        box: (x, y, width, height) of the region.
        size: (width, height) that it is resized to.
        looked_bytes: From one row that the check looks at to the next.
    """
    x, y, width, height = box
    row_bytes = image.strides[0]

    def taps(count: int, target: int, length: int) -> npt.NDArray[np.int64]:  # of some of the resized pixels
        resized = np.arange(count) * target // count
        at = np.floor((resized + 0.5) * length / target - 0.5).astype(np.int64)
        return np.clip(at, 0, length - 1)

    def channels(rows: int, columns: int) -> npt.NDArray[np.int64]:  # in turn, in every row and every column
        return np.add.outer(np.arange(rows), np.arange(columns)) % 3

    rows, columns = y + taps(_ROWS, size[1], height), x + taps(_COLUMNS, size[0], width)
    shown = rows[:, None] * row_bytes + columns[None, :] * 3 + channels(_ROWS, _COLUMNS)
    rows = np.arange(0, image.shape[0] * row_bytes, looked_bytes)
    # A prime from row to row, so that they do not lie in columns.
    columns = np.arange(_LOOKED)[None, :] * (image.shape[1] // _LOOKED) + np.arange(len(rows))[:, None] * 37
    looked = rows[:, None] + columns % image.shape[1] * 3 + channels(len(rows), _LOOKED)
    return np.concatenate([shown.ravel(), looked.ravel()])


class Looked(NamedTuple):
    """What was seen when an engine had answered. `FastPath.look` gives a tuple with these names, made in C.

    Attributes:
        said: Bits: `UNCHANGED`, `ANSWERED`, `FINITE`, `GOOD`, `WITHIN`.
        argmax: Number of the largest logit, the lowest on a tie; -1 if the answer is not finite. The rest, as far as
            ``shift``, is to be read only if it is.
        max_probability: See `framegate.runtime.scores.FrameScores`, like the next three.
        entropy: In nats.
        margin: Best minus second-best probability.
        energy: -T logsumexp(x / T).
        shift: The monitor's; to be read only with one.
        pooled: What the monitor read, float32; empty without one.
        beyond: Number of the first limit that is not kept; -1 if none is known to be.
    """

    said: int
    argmax: int
    max_probability: float
    entropy: float
    margin: float
    energy: float
    shift: float
    pooled: bytes
    beyond: int


class FastPath:
    """The fast path for frames of one stream that are like ``image``. Not thread-safe.

    Args:
        code: From `framegate.runtime.native.fast_path_module`.
        image: A frame of the stream: (height, width, 3) uint8, C-contiguous.
        box: (x, y, width, height) of the region in pixels.
        check: The stream's camera check.
        counting: What it counts with.
        resize: What makes the engine's input.
        answer: What looks at the engine's output.
        limits: Of the scores and the shift of single frames.

    Attributes:
        answer: See above.
        check: See above.
        said: The bits of the last `look` since `begin`; 0 before it.
    """

    def __init__(
        self,
        code: ModuleType,
        image: Image,
        box: tuple[int, int, int, int],
        check: Check,
        counting: Counting,
        resize: Resize,
        answer: BoundAnswer,
        limits: Sequence[Range],
    ) -> None:
        bounds, bounded = _bounds_of(limits, answer.pooled is not None)
        x, y, width, height = box
        places = _places(image, box, resize.size, counting.row_bytes)
        self._shown = np.zeros(places.size, np.uint8)
        fast = _FastPath(
            beside=counting.beside,
            job=counting.job,
            plan=resize.at,
            answer=answer.at,
            found=ctypes.addressof(answer.found),
            pooled=None if answer.pooled is None else answer.pooled.ctypes.data,
            pooled_bytes=0 if answer.pooled is None else answer.pooled.nbytes,
            bounds=ctypes.addressof(bounds),
            shown=self._shown.ctypes.data,
            places=places.ctypes.data,
            samples=self._shown.size,
            rows=image.shape[0],
            columns=image.shape[1],
            looked_bytes=counting.row_bytes,
            region=y * image.strides[0] + x * image.strides[1],
            still=counting.still,
            width=width,
            height=height,
            bounded=bounded,
        )
        self.check, self.answer, self._memory = check, answer, counting.memory
        self._kept = fast, resize, bounds, places  # whose memory the addresses are
        counting.keep((fast, resize))
        self._code, self._at = code, ctypes.addressof(fast)
        self.said = 0

    def begin(self, frame: Frame) -> bool:
        """Remember some of the frame, begin its camera check, fill the engine's input.

        False, and nothing done, if the frame is not like the one of the constructor.
        """
        image, code = frame.image, self._code
        if type(image) is not np.ndarray or frame.pixel_format != BGR or not code.fits(self._at, image):
            return False
        slots = self.check.announce(image, self._memory)
        if slots is None:
            return False
        self.said = 0
        grey, current, previous = slots
        code.begin(self._at, grey, current, previous)
        return True

    def look(self, temperature: float) -> Looked:
        """Look at the engine's answer. The camera check has ended then.

        Args:
            temperature: Logits are divided by it.
        """
        found: Looked = self._code.end(self._at, temperature)
        self.said = found.said
        return found

    @property
    def unchanged(self) -> bool:
        """Whether what was remembered of the frame is still so, which must still be there."""
        return bool(self.said & UNCHANGED) if self.said else bool(self._code.unchanged(self._at))


def fast_path_for(
    image: Image,
    box: tuple[int, int, int, int],
    check: Check,
    resize: Resize | None,
    answer: BoundAnswer | None,
    limits: Sequence[Range],
) -> FastPath | None:
    """The fast path for frames like this one, see `FastPath`; None where there is none, or not yet."""
    code = fast_path_module()
    if code is None or resize is None or answer is None:
        return None
    if type(image) is not np.ndarray or not (image.flags.c_contiguous and resize.takes(image)):
        return None
    x, y, width, height = box  # compiled code reads wherever it is told to
    if not (0 <= x < x + width <= image.shape[1] and 0 <= y < y + height <= image.shape[0]):
        return None
    counting = check.counting(image)
    if counting is None:
        return None
    return FastPath(code, image, box, check, counting, resize, answer, limits)
