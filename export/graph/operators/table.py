"""All operators by name."""

from __future__ import annotations

from framegate.export.graph.operators.arithmetic import ARITHMETIC
from framegate.export.graph.operators.base import Operator
from framegate.export.graph.operators.layers import LAYERS
from framegate.export.graph.operators.resize import RESIZE
from framegate.export.graph.operators.shapes import SHAPES

OPERATORS: dict[str, Operator] = {**ARITHMETIC, **LAYERS, **SHAPES, **RESIZE}
"""Name of the ONNX operator -> what it computes."""
