"""The verdicts of a recording as columns, by compiled code (``verdicts.c``): no object of Python for any verdict."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.runtime.mcap_messages import Contents
from framegate.runtime.native import library

WORDS = ("stream", "reasons", "found", "candidate", "detected")
"""Columns of words, in the order of the C code."""
_ROW = np.dtype(
    [
        *((name, np.int64) for name in ("frame_id", "captured_ns", "decided_ns", "log_ns", "track")),
        *((name, np.float64) for name in ("engine_ms", "score", "threshold")),
        *((name, np.int32) for name in WORDS),
        ("box", np.int32, 4),
        *((name, np.int32) for name in ("scene", "boxed", "spare")),
    ]
)
NO_NUMBER = -(2**63)
"""Stands for an integer that is null."""
_COLLECTIONS = len(WORDS) + 3
_HARD = ("engine_ms", "score", "threshold")


@dataclass(frozen=True)
class Columns:
    """All verdicts of a file, in its order.

    Attributes:
        rows: (n,) records; a word is its number in `words`, -1 where there is none, an integer that is null is
            `NO_NUMBER`, a number that is null is NaN. ``scene`` is 1 for verdicts without evidence, ``boxed`` 1 for
            those with a box.
        words: Column -> its words, in the order in which they come first; reasons are separated by spaces.
        values: Name -> (n,) float64, NaN where it is missing.
        pictures: Numbers of the frames with a full picture.
        events: Messages about events.
    """

    rows: npt.NDArray[Any]
    words: dict[str, list[str]]
    values: dict[str, npt.NDArray[np.float64]]
    pictures: npt.NDArray[np.int64]
    events: list[bytes]


def read_columns(contents: Contents, topics: tuple[str, str, str], names: Sequence[str]) -> Columns | None:
    """Read a whole recording.

    Args:
        contents: The file; what it says about itself and where it breaks off is kept in it.
        topics: What the topics of verdicts begin with, the topic of pictures, that of events.
        names: Values that the verdicts of every recording have.

    Returns:
        None where the code is not compiled, or does not understand the file.

    Raises:
        DataError: The file cannot be read, or is no MCAP file.
    """
    code, _ = library()
    if code is None:
        return None
    wanted = (ctypes.c_char_p * 3)(*(each.encode() for each in topics))
    known = (ctypes.c_char_p * len(names))(*(each.encode() for each in names))
    state = code.framegate_verdicts_open(wanted, known, len(names))
    if not state:
        return None
    try:
        for data in contents.chunks():
            if code.framegate_verdicts_chunk(state, data, len(data)):
                return None
        return _columns(code, state)
    except ValueError:  # a text that JSON does not know
        return None
    finally:
        code.framegate_verdicts_close(state)


def _columns(code: ctypes.CDLL, state: int) -> Columns | None:
    """Copies of what the compiled code holds."""
    places = (ctypes.c_void_p * (4 + 2 * _COLLECTIONS))()
    counts = (ctypes.c_int64 * len(places))()
    code.framegate_verdicts_look(state, places, counts)

    def array(k: int, kind: npt.DTypeLike, count: int | None = None) -> npt.NDArray[Any]:
        return _copy(places[k], np.dtype(kind), counts[k] if count is None else count)

    def texts(k: int) -> list[bytes]:
        data = array(4 + 2 * k, np.uint8).tobytes()
        ends = array(5 + 2 * k, np.int64).tolist()
        return [data[first:last] for first, last in zip([0, *ends], ends, strict=False)]

    rows = array(0, _ROW)
    columns = [_copy(place, np.dtype(np.float64), len(rows)) for place in array(1, np.uint64).tolist()]
    words = {}
    for k, name in enumerate(WORDS):
        raw = texts(k)
        lists = name in ("reasons", "found")
        words[name] = [" ".join(json.loads(b"[" + each + b"]")) if lists else _text(each) for each in raw]
        if len(set(words[name])) != len(raw):  # one word, spelled in two ways
            return None
    names = [_text(each) for each in texts(len(WORDS))]
    hard = array(3, np.int64, 2 * counts[3]).reshape(-1, 2).tolist()
    for (row, value), text in zip(hard, texts(len(WORDS) + 2), strict=True):
        column = columns[value] if value >= 0 else rows[_HARD[-1 - value]]
        column[row] = float(text)
    return Columns(rows, words, dict(zip(names, columns, strict=True)), array(2, np.int64), texts(len(WORDS) + 1))


def _text(raw: bytes) -> str:
    """What stands between two quotes of JSON."""
    return str(json.loads(b'"' + raw + b'"'))


def _copy(place: int | None, kind: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    if not count or not place:
        return np.zeros(0, kind)
    held = (ctypes.c_char * (kind.itemsize * count)).from_address(place)
    found: npt.NDArray[Any] = np.frombuffer(memoryview(held), kind)
    return found.copy()
