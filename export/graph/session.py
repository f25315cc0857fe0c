"""Running a graph during an export, on ONNX Runtime and a CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

Tensor = npt.NDArray[np.float32]


def quiet_options() -> ort.SessionOptions:
    """Options that keep the library's warnings off the terminal; its errors are exceptions."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return options


def cpu_session(model: onnx.ModelProto | Path) -> ort.InferenceSession:
    """A session for a graph, or for a file whose weights may lie in another one beside it."""
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(source, quiet_options(), providers=["CPUExecutionProvider"])


def input_tensors(images: npt.NDArray[np.uint8], spec: PreprocessSpec) -> list[Tensor]:
    """Images (N, h, w, 3) uint8 BGR as a network's inputs, (1, ...) float32 each."""
    preprocess = Preprocessor(spec)
    return [preprocess(image).copy() for image in images]
