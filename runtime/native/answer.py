"""What an engine says, in one call of compiled code: is it a new answer, its scores, the monitor's shift.

It computes what `framegate.runtime.engine_check.NewAnswers`, `framegate.runtime.scores.frame_scores` and
`framegate.runtime.monitor.Monitor` compute (frame_scores.c). After an engine's call the caches hold its
weights, so each line of Python on the way costs several times what it costs in a loop.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from framegate.runtime.native import library

Row = npt.NDArray[np.float32]
_P, _I = ctypes.c_void_p, ctypes.c_int32
_STUCK = -1


class Head(NamedTuple):
    """The monitor's head, all float32 and C-contiguous; see `framegate.runtime.monitor.Monitor`."""

    scale: Row
    offset: Row
    limit: float
    hidden: Row
    hidden_bias: Row
    weights: Row
    bias: float


class _Answer(ctypes.Structure):
    """See frame_scores.c."""

    _fields_ = (
        *((name, _P) for name in ("logits", "last", "input", "shown", "pooled")),
        *((name, _P) for name in ("scale", "offset", "hidden", "hidden_bias", "weights", "spare")),
        ("step", ctypes.c_int64),
        ("bias", ctypes.c_double),
        ("limit", ctypes.c_float),
        *((name, _I) for name in ("classes", "samples", "size", "width", "known", "stuck")),
        ("found", ctypes.c_double * 6),
    )


class _Rows(ctypes.Structure):
    """See frame_scores.c."""

    _fields_ = (
        *((name, _P) for name in ("logits", "pooled", "scale", "offset", "hidden", "hidden_bias", "weights")),
        *((name, _P) for name in ("spare", "found")),
        ("bias", ctypes.c_double),
        ("limit", ctypes.c_float),
        *((name, _I) for name in ("classes", "size", "width")),
    )


Arrays = dict[str, npt.NDArray[Any]]


def _fill(structure: _Answer | _Rows, arrays: Arrays, pooled: Row | None, head: Head | None) -> Arrays:
    """Write addresses of arrays, and the monitor's numbers; whoever holds the structure must keep what comes back."""
    if pooled is not None and head is not None:
        structure.limit, structure.bias = head.limit, head.bias
        structure.size, structure.width = len(head.scale), len(head.weights)
        arrays |= {"pooled": pooled, "spare": np.zeros(len(head.scale), np.float32)}
        arrays |= {name: getattr(head, name) for name in ("scale", "offset", "hidden", "hidden_bias", "weights")}
    for name, array in arrays.items():
        setattr(structure, name, array.ctypes.data)
    return arrays


class BoundAnswer:
    """Arrays that an engine reads and writes again and again. Not thread-safe.

    Args:
        call: ``framegate_answer``.
        logits: (1, C), the engine's output.
        sample: (n,) view of the engine's input: what is compared of the question.
        pooled: (1, F), its second output; None without a monitor.
        head: The monitor's; None without.

    Attributes:
        logits: See above.
        pooled: See above.
        at: Address of what stays the same for every answer (frame_scores.c); it holds as long as this object lives.
        found: argmax, largest probability, entropy, margin, energy and shift, after a call; the first five only if it
            returned True, and the shift only with a monitor.
    """

    def __init__(
        self, call: ctypes._NamedFuncPointer, logits: Row, sample: Row, pooled: Row | None, head: Head | None
    ) -> None:
        self.logits, self.pooled = logits, pooled
        self._sample = sample
        self._last, self._shown = np.zeros(logits.size, np.float32), np.zeros(sample.size, np.float32)
        answer = _Answer(step=sample.strides[0] // 4, classes=logits.size, samples=sample.size)
        kept: Arrays = {"logits": logits, "last": self._last, "input": sample, "shown": self._shown}
        self._kept, self._answer = _fill(answer, kept, pooled, head), answer  # whose memory the addresses are
        self._call, self.at = call, ctypes.addressof(answer)
        self.found = answer.found

    def __call__(self, temperature: float) -> bool | None:
        """Look at the answer that the engine has just given.

        Args:
            temperature: Logits are divided by it.

        Returns:
            Whether all logits are finite; None if it is the answer to an earlier question.
        """
        said = self._call(self.at, temperature)
        return None if said == _STUCK else bool(said)

    @property
    def shown(self) -> bytes:
        """What was shown with the last answer."""
        return self._shown.tobytes()

    @property
    def answer(self) -> bytes:
        """The last answer; empty if the next is compared with none."""
        return self._last.tobytes() if self._answer.known else b""

    def remember(self, shown: bytes, answer: bytes, stuck: bool) -> None:
        """Compare the next answer with this one; see `framegate.runtime.engine_check.NewAnswers`."""
        self.forget()
        if len(shown) == self._shown.nbytes and len(answer) == self._last.nbytes:
            self._shown[:], self._last[:] = np.frombuffer(shown, np.float32), np.frombuffer(answer, np.float32)
            self._answer.known, self._answer.stuck = 1, stuck

    @property
    def stuck(self) -> bool:
        """The last answer was that to an earlier question."""
        return bool(self._answer.stuck)

    def forget(self) -> None:
        """Compare the next answer with none."""
        self._answer.known = 0


class BoundRows:
    """The rows of a batch that an engine writes again and again. Not thread-safe.

    Args:
        call: ``framegate_rows``.
        logits: (N, C), the engine's output.
        pooled: (N, F), its second output; None without a monitor.
        head: The monitor's; None without.

    Attributes:
        pooled: See above.
    """

    def __init__(self, call: ctypes._NamedFuncPointer, logits: Row, pooled: Row | None, head: Head | None) -> None:
        self.pooled = pooled
        self._found = np.full((len(logits), 6), np.nan)
        rows = _Rows(classes=logits.shape[1])
        kept = _fill(rows, {"logits": logits, "found": self._found}, pooled, head)
        self._kept, self._rows = kept, rows  # whose memory the addresses are
        self._call, self._at = call, ctypes.addressof(rows)

    def __call__(self, count: int, temperature: float) -> list[list[float]]:
        """Argmax (-1 if a logit is not finite), largest probability, entropy, margin, energy and shift of each row.

        Args:
            count: Rows that are looked at, the first ones.
            temperature: Logits are divided by it.
        """
        self._call(self._at, count, temperature)
        found: list[list[float]] = self._found[:count].tolist()
        return found


def _lie_as_read(logits: Row, pooled: Row | None, head: Head | None) -> bool:
    """Whether compiled code can read these arrays, and knows what the second one means."""
    for array in (logits, pooled):
        if array is not None and not (array.dtype == np.float32 and array.flags.c_contiguous):
            return False
    return head is None or (pooled is not None and pooled.shape == (len(logits), len(head.scale)))


def bound_rows(logits: Row, pooled: Row | None, head: Head | None) -> BoundRows | None:
    """What looks at these rows; None without the compiled code, and where they are none for it.

    Args:
        logits: See `BoundRows`; it must stay where it is, like the others.
        pooled: See `BoundRows`.
        head: See `BoundRows`.
    """
    code, _ = library()
    if code is None or logits.ndim != 2 or not _lie_as_read(logits, pooled, head):
        return None
    return BoundRows(code.framegate_rows, logits, pooled, head)


def bound_answer(logits: Row, sample: Row, pooled: Row | None, head: Head | None) -> BoundAnswer | None:
    """What looks at these arrays; None without the compiled code, and where they are none for it.

    Args:
        logits: See `BoundAnswer`; it must stay where it is, like the others.
        sample: See `BoundAnswer`.
        pooled: See `BoundAnswer`.
        head: See `BoundAnswer`.
    """
    code, _ = library()
    if code is None or sample.ndim != 1 or sample.dtype != np.float32 or sample.strides[0] % 4:
        return None
    if len(logits) != 1 or not _lie_as_read(logits, pooled, head):
        return None
    return BoundAnswer(code.framegate_answer, logits, sample, pooled, head)
