"""Signals from inside the network: what chosen layers do on this frame, beside what they do on clean ones.

A bundle with a monitor has networks with a second output, ``pooled``: the spatial means of the activations of a few
layers (taps), computed in the graph, a few hundred numbers a frame. From them this module makes

``shift``  the log odds that the frame is attacked or damaged rather than clean, by a small head fitted beforehand on
  attacked training images (``framegate monitor``): pooled values standardised by clean frames and limited, one hidden
  layer, ReLU. It is trained to see attacks it was shown; the reports say how it does on others, and that an attack
  which aims at it gets past it.
``activation_entropy:TAP``  entropy in nats, in [0, log C], of |mean activation| / sum over the C channels of a tap:
  over how many channels the activity is spread ("Entropy-Based Non-Invasive Reliability Monitoring of Convolutional
  Neural Networks", 2025, arXiv:2508.21715, there of a histogram over a batch; here per frame and without bins).

Either may be limited by a calibration (`framegate.runtime.bundle.calibration.Limit`). A pooled value that is not finite
makes every signal NaN, which no limit lets pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import BundleError
from framegate.runtime.native import library
from framegate.runtime.native.answer import Head

FORMAT = "framegate-monitor-1"
FILE = "monitor.json"
POOLED = "pooled"
"""Name of the second output of a network with a monitor."""
SHIFT = "shift"
ENTROPY = "activation_entropy:"
"""Followed by the tap's name."""

Row = npt.NDArray[np.float32]


class Signals(Mapping[str, float]):
    """The signals of one frame by name. Entropies are computed when they are asked for: usually nobody limits them.

    Args:
        known: Those that are computed already.
        parts: Name, start and end in ``pooled`` of each of the others.
        pooled: The frame's own copy of (F,) float32 values.
    """

    __slots__ = ("_known", "_parts", "_pooled")

    def __init__(self, known: dict[str, float], parts: tuple[tuple[str, int, int], ...], pooled: bytes) -> None:
        self._known, self._parts, self._pooled = known, parts, pooled

    def beside(self, others: Mapping[str, float]) -> Signals:
        """These signals and other values in one mapping; where a name is in both, the other value counts."""
        return Signals({**self._known, **others}, self._parts, self._pooled)

    def __getitem__(self, name: str) -> float:
        if name not in self._known:
            for own, start, end in self._parts:
                if own == name:
                    self._known[name] = _entropy(np.frombuffer(self._pooled, np.float32)[start:end])
                    break
            else:
                raise KeyError(name)
        return self._known[name]

    def get(self, name: str, default: Any = None) -> Any:
        """As of any mapping; here because it is asked several times a frame."""
        known = self._known
        return known[name] if name in known else super().get(name, default)

    def __iter__(self) -> Iterator[str]:
        names = [name for name, _, _ in self._parts]
        return iter([*(name for name in self._known if name not in names), *names])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __bool__(self) -> bool:  # asked several times a frame
        return bool(self._known or self._parts)

    def __repr__(self) -> str:
        return repr(dict(self))


@dataclass(frozen=True)
class Tap:
    """One part of the pooled output.

    Attributes:
        name: The layer.
        channels: How many of the pooled values are its.
    """

    name: str
    channels: int


@dataclass(frozen=True, eq=False)
class Monitor:
    """The fitted head.

    Attributes:
        taps: Parts of the pooled output, in its order; F values in all.
        centre: (F,) means on clean frames.
        spread: (F,) standard deviations on clean frames, positive.
        limit: Standardised values are cut off at plus and minus this.
        hidden: (H, F) weights of the hidden layer.
        hidden_bias: (H,).
        weights: (H,) of the output.
        bias: Of the output.
        fitted: What it was fitted on and what it reached, for people.
    """

    taps: tuple[Tap, ...]
    centre: Row
    spread: Row
    limit: float
    hidden: Row
    hidden_bias: Row
    weights: Row
    bias: float
    fitted: Mapping[str, Any]
    _scale: Row = field(init=False, repr=False)
    _offset: Row = field(init=False, repr=False)
    _row: Row = field(init=False, repr=False)
    _ones: Row = field(init=False, repr=False)
    _parts: tuple[tuple[str, int, int], ...] = field(init=False, repr=False)
    _code: Callable[[int], float] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check that everything fits together.

        Raises:
            BundleError: It does not.
        """
        size, width = sum(tap.channels for tap in self.taps), len(self.weights)
        shapes = ((self.centre, (size,)), (self.spread, (size,)), (self.hidden, (width, size)))
        if any(array.shape != shape for array, shape in (*shapes, (self.hidden_bias, (width,)))) or not size:
            raise BundleError(f"{FILE}: its arrays do not fit {size} pooled values and {width} hidden units")
        numbers = (self.centre, self.spread, self.hidden, self.hidden_bias, self.weights, self.bias, self.limit)
        if not all(np.isfinite(each).all() for each in numbers) or not (self.spread > 0).all() or self.limit <= 0:
            raise BundleError(f"{FILE}: holds numbers that are not finite or not positive; export the bundle again")
        # Standardising is one multiplication and one addition.
        object.__setattr__(self, "_scale", (1.0 / self.spread).astype(np.float32))
        object.__setattr__(self, "_offset", (-self.centre / self.spread).astype(np.float32))
        object.__setattr__(self, "_row", np.empty(size, np.float32))
        object.__setattr__(self, "_ones", np.ones(size, np.float32))
        ends = np.cumsum([tap.channels for tap in self.taps]).tolist()
        parts = [(ENTROPY + tap.name, end - tap.channels, end) for tap, end in zip(self.taps, ends, strict=True)]
        object.__setattr__(self, "_parts", tuple(parts))
        object.__setattr__(self, "_code", self._compiled())

    @property
    def size(self) -> int:
        """F, the number of pooled values."""
        return len(self.centre)

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the signals."""
        return (SHIFT, *(name for name, _, _ in self._parts))

    def __call__(self, pooled: Row) -> Signals:
        """The signals of one frame.

        Args:
            pooled: (F,) float32, the network's second output; it may be overwritten afterwards.

        Returns:
            Name -> value, NaN if a pooled value is not finite. Not for two threads at once.
        """
        return self.signals_at(self._shift(pooled), pooled.astype(np.float32, copy=False).tobytes())

    def signals_at(self, shift: float, pooled: bytes) -> Signals:
        """The signals of one frame whose shift is known already.

        Args:
            shift: The head's output; NaN if a pooled value is not finite.
            pooled: (F,) float32, a copy of the network's second output.
        """
        if not math.isfinite(shift):
            return Signals(dict.fromkeys(self.signals, math.nan), (), pooled)
        return Signals({SHIFT: shift}, self._parts, pooled)

    @property
    def head(self) -> Head:
        """What compiled code computes the shift with."""
        arrays = (self._scale, self._offset, self.hidden, self.hidden_bias, self.weights)
        scale, offset, hidden, hidden_bias, weights = (np.ascontiguousarray(each, np.float32) for each in arrays)
        return Head(scale, offset, self.limit, hidden, hidden_bias, weights, self.bias)

    def _compiled(self) -> Callable[[int], float] | None:
        """`_shift` in compiled code, of the address of the pooled values; None where there is none."""
        code, _ = library()
        if code is None:
            return None
        head, row = self.head, np.empty_like(self._row)
        kept = [head.scale, head.offset, head.hidden, head.hidden_bias, head.weights, row]
        scale, offset, hidden, hidden_bias, weights, spare = (each.ctypes.data for each in kept)
        before = scale, offset, head.limit, hidden, hidden_bias
        after = weights, head.bias, len(head.scale), len(head.weights), spare

        def shift(pooled: int, _kept: list[Row] = kept) -> float:  # whose memory the addresses are
            found: float = code.framegate_shift(pooled, *before, *after)
            return found

        return shift

    def _shift(self, pooled: Row) -> float:
        """The head's output; NaN if a pooled value is not finite."""
        row = self._row
        if (
            self._code is not None
            and pooled.shape == row.shape
            and pooled.dtype == row.dtype
            and pooled.flags.c_contiguous
        ):
            return self._code(pooled.ctypes.data)
        # A NaN or an infinity stays one in a sum; an overflow of huge numbers fails in the right direction.
        with np.errstate(invalid="ignore"):
            total = float(pooled @ self._ones)
        if not math.isfinite(total):
            return math.nan
        np.multiply(pooled, self._scale, out=row)
        np.add(row, self._offset, out=row)
        np.minimum(row, self.limit, out=row)
        np.maximum(row, -self.limit, out=row)
        inner = self.hidden @ row
        inner += self.hidden_bias
        np.maximum(inner, 0.0, out=inner)
        return float(inner @ self.weights) + self.bias

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Monitor:
        """Read ``monitor.json``.

        Raises:
            BundleError: It is of another format, or damaged.
        """
        if record.get("format") != FORMAT:
            raise BundleError(f"{FILE} has format {record.get('format')!r}, this version reads {FORMAT!r}")
        try:
            arrays = {
                key: np.asarray(record[key], np.float32)
                for key in ("centre", "spread", "hidden", "hidden_bias", "weights")
            }
            taps = tuple(Tap(str(tap["name"]), int(tap["channels"])) for tap in record["taps"])
            return cls(
                taps=taps,
                limit=float(record["limit"]),
                bias=float(record["bias"]),
                fitted=dict(record["fitted"]),
                **arrays,
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"{FILE} is damaged ({error!r}); copy the bundle again") from error

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`; six digits are kept."""
        return {
            "format": FORMAT,
            "taps": [{"name": tap.name, "channels": tap.channels} for tap in self.taps],
            "fitted": dict(self.fitted),
            "limit": self.limit,
            "bias": self.bias,
            "weights": _plain(self.weights),
            "hidden_bias": _plain(self.hidden_bias),
            "centre": _plain(self.centre),
            "spread": _plain(self.spread),
            "hidden": [_plain(row) for row in self.hidden],
        }


def _entropy(values: Row) -> float:
    """Entropy of |v| / sum |v| as log S - sum |v| log |v| / S; NaN for nothing but zeros."""
    mass = np.abs(values).astype(np.float64)
    total = float(mass.sum())
    if not total > 0:
        return math.nan
    # Clean layers have many dead channels: 0 log 0 is 0.
    logs = np.log(mass, out=np.zeros_like(mass), where=mass > 0)
    return min(max(math.log(total) - float(mass @ logs) / total, 0.0), math.log(len(mass)))


def _plain(row: Row) -> list[float]:
    return [float(f"{value:.6g}") for value in row]
