"""All operators by name."""

from __future__ import annotations

from framegate.evaluation.frames.operators.arithmetic import ARITHMETIC
from framegate.evaluation.frames.operators.base import Operator
from framegate.evaluation.frames.operators.layers import LAYERS
from framegate.evaluation.frames.operators.resize import RESIZE
from framegate.evaluation.frames.operators.shapes import SHAPES

OPERATORS: dict[str, Operator] = {**ARITHMETIC, **LAYERS, **SHAPES, **RESIZE}
"""Name of the ONNX operator -> what it computes."""
