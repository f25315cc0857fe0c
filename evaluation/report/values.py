"""Reading a results record that may lack anything, and writing its figures for people.

A results record is the JSON that `framegate evaluate` writes. A measured figure is stored as
``{"value": float, "low": float, "high": float, "n": int}``; a limited run leaves figures out or sets them to null.
Nothing here raises on a missing or malformed entry: it is simply not measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from framegate.evaluation.attacks.radius import epsilon_text
from framegate.runtime.errors import DataError

FORMAT = "framegate-evaluation-1"
NOT_MEASURED = "–"


@dataclass(frozen=True)
class Estimate:
    """A measured figure.

    Attributes:
        value: Finite.
        low: Lower end of its 95 % interval, or None.
        high: Upper end of its 95 % interval, or None.
        n: What it rests on (frames, or decisions), or None.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None

    def spread(self) -> tuple[float, float]:
        """Distances (down, up) from the value to the ends of the interval, never negative; 0 where there is none."""
        down = 0.0 if self.low is None else max(0.0, self.value - self.low)
        up = 0.0 if self.high is None else max(0.0, self.high - self.value)
        return down, up


class Cell(NamedTuple):
    """One figure in a table: the number and, apart, its interval."""

    text: str
    interval: str = ""


def check_format(results: object) -> None:
    """Refuse a record of another kind.

    Raises:
        DataError: Not a mapping, or its ``format`` is another one. A record without a format is read.
    """
    if not isinstance(results, Mapping):
        raise DataError(
            f"results: expected a JSON object, found {type(results).__name__}; run `framegate evaluate` again"
        )
    found = results.get("format")
    if found is not None and found != FORMAT:
        raise DataError(
            f"results: format {found!r} found, this version reads {FORMAT!r}; run `framegate evaluate` again"
        )


def follow(record: object, *keys: str) -> Any:
    """The entry under nested keys, or None if any of them is missing."""
    for key in keys:
        if not isinstance(record, Mapping):
            return None
        record = record.get(key)
    return record


def mapping(record: object, *keys: str) -> Mapping[str, Any]:
    """The nested mapping, empty if it is missing or of another kind."""
    found = follow(record, *keys)
    return found if isinstance(found, Mapping) else {}


def records(record: object, *keys: str) -> list[Mapping[str, Any]]:
    """The nested list of mappings without anything else it may hold; empty if missing."""
    found = follow(record, *keys)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, Sequence) else []


def text(record: object, *keys: str) -> str:
    """The nested entry as text, empty if it is missing, not finite or no single value."""
    found = follow(record, *keys)
    if isinstance(found, float) and not math.isfinite(found):
        return ""
    return "" if found is None or isinstance(found, Mapping | list) else str(found)


def number(record: object, *keys: str) -> float | None:
    """The nested finite number, or None."""
    found = follow(record, *keys)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return float(found)


def estimate(record: object, *keys: str) -> Estimate | None:
    """The nested figure, stored with its interval or as a bare number; None if it was not measured."""
    found = follow(record, *keys)
    if not isinstance(found, Mapping):
        bare = number(found) if found is not None else None
        return None if bare is None else Estimate(bare)
    value, n = number(found, "value"), number(found, "n")
    if value is None:
        return None
    return Estimate(value, number(found, "low"), number(found, "high"), None if n is None else int(n))


def array(record: object, *keys: str) -> NDArray[np.float64] | None:
    """The nested list (of lists) of finite numbers as an array; None if it is missing, empty, ragged or not numeric."""
    found = follow(record, *keys)
    if not isinstance(found, Sequence) or isinstance(found, str):
        return None
    try:
        values = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return values if values.size and np.isfinite(values).all() else None


def confusion(record: object, *keys: str) -> NDArray[np.float64] | None:
    """The nested (classes, classes) matrix of counts, rows the true class; None if unusable."""
    found = array(record, *keys)
    usable = found is not None and found.ndim == 2 and found.shape[0] == found.shape[1] and found.sum() > 0
    return found if usable else None


def flat(record: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a free record as (dotted name, text), in its own order."""
    if isinstance(record, Mapping):
        for key, value in record.items():
            yield from flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(record, float):
        if math.isfinite(record):
            yield prefix, f"{record:g}"
    elif record is not None:
        yield prefix, str(record)


def count(value: float | None) -> str:
    """10000 -> ``10,000``."""
    return NOT_MEASURED if value is None else f"{round(value):,}"


def percent(found: Estimate | None) -> Cell:
    """A share as percent with its interval; two decimals from 5,000 frames on."""
    if found is None:
        return Cell(NOT_MEASURED)
    digits = 2 if (found.n or 0) >= 5000 else 1
    return _cell(found, 100.0, digits, " %")


def share(value: float | None, digits: int = 1) -> Cell:
    """A share as percent without its interval, for tables that hold many."""
    return Cell(NOT_MEASURED if value is None else f"{value * 100:.{digits}f} %")


def decimal(found: Estimate | None, digits: int = 3, scale: float = 1.0) -> Cell:
    """A figure, times ``scale``, with its interval."""
    return Cell(NOT_MEASURED) if found is None else _cell(found, scale, digits, "")


def plain(value: float | None, digits: int = 4) -> Cell:
    """A bare number of at most ``digits`` significant digits."""
    return Cell(NOT_MEASURED if value is None else f"{value:.{digits}g}")


def radius(epsilon: float | None) -> Cell:
    """The radius of an attack, as `epsilon_text` names it."""
    return Cell(NOT_MEASURED if epsilon is None else epsilon_text(epsilon))


def _cell(found: Estimate, scale: float, digits: int, unit: str) -> Cell:
    interval = ""
    if found.low is not None and found.high is not None:
        interval = f"[{found.low * scale:.{digits}f}, {found.high * scale:.{digits}f}]"
    return Cell(f"{found.value * scale:.{digits}f}{unit}", interval)
