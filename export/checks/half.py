"""Does a network survive float16? Asked of its file before anybody builds an engine from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from framegate.export.data.outputs import Images
from framegate.runtime.errors import ExportRefusedError
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

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
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        first, second = (
            ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            for file in (float_file, half_file)
        )
    except Exception as error:  # onnxruntime's own classes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportRefusedError(f"float16: onnxruntime cannot run the network ({reason[:200]})") from error
    preprocess = Preprocessor(spec)
    name = first.get_inputs()[0].name
    expected, found = [], []
    for image in images[:IMAGES]:
        tensor = preprocess(image)
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
