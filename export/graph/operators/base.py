"""What every operator looks like: attributes and inputs in, one tensor or several out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from framegate.runtime.errors import BundleError

Attributes = Mapping[str, Any]
"""Name -> value as `onnx.helper.get_attribute_value` gives it: texts are bytes."""
Inputs = Sequence[Tensor | None]
"""None for an optional input that is left out."""
Operator = Callable[[Attributes, Sequence[Any]], Any]
"""Gives a tensor, or a tuple of tensors if the operator has several outputs."""


def text(attributes: Attributes, name: str, default: str) -> str:
    """An attribute that is a text."""
    value = attributes.get(name, default)
    return value.decode() if isinstance(value, bytes) else str(value)


def given(inputs: Inputs, number: int) -> Tensor | None:
    """An optional input; None if it is left out."""
    return inputs[number] if len(inputs) > number else None


def numbers(tensor: Tensor) -> list[int]:
    """The values of a tensor of whole numbers: axes, shapes, sizes."""
    return [int(value) for value in tensor.reshape(-1).tolist()]


def unsupported(what: str) -> BundleError:
    """The error for a form of an operator that is not known here."""
    return BundleError(f"{what} has no differentiable form here")
