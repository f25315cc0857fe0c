"""What must be known of an ONNX file before an engine is given it: its numbers are finite, its weights lie beside it.

The vehicle has no onnx package, and engines do not look: OpenVINO computes with a NaN among its weights and clips it
away behind the next layer. So the file's own fields are walked here, in protobuf's wire format
(https://protobuf.dev/programming-guides/encoding/), with the field numbers of onnx.proto
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). Nothing else of the network is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from framegate.runtime.errors import BundleError

# Field numbers: message -> field of sub-messages -> message.
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _FUNCTION, _SPARSE = range(7)
_CHILDREN: dict[int, dict[int, int]] = {
    _MODEL: {7: _GRAPH, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _FUNCTION: {7: _NODE},
    _SPARSE: {1: _TENSOR},
}
_DATA_TYPE, _FLOAT_DATA, _NAME, _RAW_DATA, _DOUBLE_DATA, _EXTERNAL = 2, 4, 8, 9, 10, 13
_KEY, _VALUE = 1, 2
_FLOAT, _FLOAT16, _DOUBLE, _BFLOAT16 = 1, 10, 11, 16
_DEEPEST = 64


@dataclass(frozen=True)
class ExternalData:
    """Where a tensor's numbers lie outside of the ONNX file.

    Attributes:
        name: The tensor.
        data_type: Of its numbers, as in ONNX.
        location: Path beside the ONNX file.
        offset: First byte.
        length: Bytes; None: to the end.
    """

    name: str
    data_type: int
    location: str
    offset: int
    length: int | None


@dataclass
class OnnxFacts:
    """What was found in a file.

    Attributes:
        not_finite: Names of stored tensors that hold NaN or an infinity.
        external: Tensors whose numbers lie in other files.
    """

    not_finite: list[str] = field(default_factory=list)
    external: list[ExternalData] = field(default_factory=list)


def read_onnx_facts(content: bytes) -> OnnxFacts:
    """Walk an ONNX file.

    Raises:
        BundleError: It is no protobuf message of this kind.
    """
    facts = OnnxFacts()
    try:
        _walk(memoryview(content), _MODEL, facts, 0)
    except (ValueError, IndexError, RecursionError, UnicodeDecodeError) as error:
        raise BundleError(f"it is damaged, or no ONNX file ({error})") from error
    return facts


def holds_finite(content: bytes | memoryview, data_type: int) -> bool:
    """Whether raw numbers of an ONNX type are all finite; other types than floating-point ones always are.

    Raises:
        ValueError: The bytes are no whole number of elements.
    """
    if data_type == _BFLOAT16:  # the upper half of a float32: an exponent of ones is NaN or an infinity
        return not bool(np.any((np.frombuffer(content, np.uint16) & 0x7F80) == 0x7F80))
    kinds = {_FLOAT: np.float32, _FLOAT16: np.float16, _DOUBLE: np.float64}
    return data_type not in kinds or bool(np.isfinite(np.frombuffer(content, kinds[data_type])).all())


def _walk(content: memoryview, message: int, facts: OnnxFacts, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("its graphs are nested too deeply")
    if message == _TENSOR:
        _read_tensor(content, facts)
        return
    children = _CHILDREN[message]
    for number, value in _fields(content):
        if number in children and isinstance(value, memoryview):
            _walk(value, children[number], facts, depth + 1)


def _read_tensor(content: memoryview, facts: OnnxFacts) -> None:
    data_type, name, finite = 0, "", True
    raw: list[memoryview] = []
    places: dict[str, str] = {}
    for number, value in _fields(content):
        if number == _DATA_TYPE and isinstance(value, int):
            data_type = value
        elif number == _NAME and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif number == _RAW_DATA and isinstance(value, memoryview):
            raw.append(value)
        elif number == _FLOAT_DATA:
            finite &= holds_finite(_as_bytes(value, 4), _FLOAT)
        elif number == _DOUBLE_DATA:
            finite &= holds_finite(_as_bytes(value, 8), _DOUBLE)
        elif number == _EXTERNAL and isinstance(value, memoryview):
            entry = {key: bytes(text).decode() for key, text in _fields(value) if isinstance(text, memoryview)}
            places[entry.get(_KEY, "")] = entry.get(_VALUE, "")
    if not (finite and all(holds_finite(each, data_type) for each in raw)):
        facts.not_finite.append(name or "without a name")
    if places:
        length = int(places["length"]) if "length" in places else None
        place = ExternalData(name, data_type, places.get("location", ""), int(places.get("offset", "0")), length)
        facts.external.append(place)


def _as_bytes(value: int | memoryview, width: int) -> bytes | memoryview:
    """A packed field's bytes, or those of a single number of fixed width."""
    return value.to_bytes(width, "little") if isinstance(value, int) else value


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field of a message: whole numbers, or the bytes of everything else."""
    at, end = 0, len(content)
    while at < end:
        key, at = _varint(content, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(content, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(content, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} is unknown")
        if at + size > end:
            raise ValueError("it breaks off")
        piece = content[at : at + size]
        at += size
        yield number, piece if kind == 2 else int.from_bytes(piece, "little")


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")
