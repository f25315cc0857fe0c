"""Checks that a network keeps its logits in float16, before an engine is built from its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from framegate.export.data.outputs import Images
from framegate.export.foreign_errors import first_line
from framegate.export.graph.session import cpu_session, input_tensors
from framegate.runtime.errors import ExportRefusedError
from framegate.runtime.preprocess import PreprocessSpec

IMAGES = 64
LARGEST_CHANGE = 0.05
"""Root mean square change of the logits, as a share of their standard deviation."""


def check_half(float_file: Path, half_file: Path, spec: PreprocessSpec, images: Images) -> None:
    """Compare the float16 file with the float32 file.

    ONNX Runtime on a CPU rounds every tensor that the file declares as float16 to float16 and adds in float32, as
    the matrix units of a GPU do.

    Args:
        float_file: The float32 network.
        half_file: The float16 network; it may share weights with the other.
        spec: How an image becomes the network's input.
        images: (N, h, w, 3) uint8 BGR; the first are used.

    Raises:
        ExportRefusedError: An output is not finite, or the logits move too far.
    """
    try:
        first, second = cpu_session(float_file), cpu_session(half_file)
    except Exception as error:  # onnxruntime's own classes
        raise ExportRefusedError(f"float16: onnxruntime cannot run the network ({first_line(error)})") from error
    name = first.get_inputs()[0].name
    expected, found = [], []
    for tensor in input_tensors(images[:IMAGES], spec):
        expected.append(first.run(None, {name: tensor})[0][0])
        found.append(second.run(None, {name: tensor})[0][0])
    if not np.isfinite(found).all():
        raise ExportRefusedError("float16: an output is NaN or infinite, an activation passes 65504; use fp32 or int8")
    spread = float(np.std(expected)) or 1.0
    change = float(np.sqrt(np.mean(np.square(np.subtract(found, expected, dtype=np.float64))))) / spread
    if not change <= LARGEST_CHANGE:
        raise ExportRefusedError(
            f"float16: the logits move by {change:.1%} of their spread, at most {LARGEST_CHANGE:.0%} may be; use fp32"
        )
