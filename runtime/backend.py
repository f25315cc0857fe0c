"""What every inference engine looks like to the runtime, and how one is chosen.

A backend named by the user is used or fails; only ``auto`` may choose, and it says which one it chose.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import BackendError, UsageError

Tensor = npt.NDArray[np.float32]


class Backend(Protocol):
    """An engine with one loaded model, bound to one input array.

    Attributes:
        name: The backend's name, e.g. ``openvino``.
        engine: Library and version, e.g. ``openvino 2026.4.1``.
        classes: Number of logits per image.
    """

    name: str
    engine: str
    classes: int

    def bind(self, tensor: Tensor) -> None:
        """Use this C-contiguous float32 array as input of every later call, without copying if possible.

        Its shape is (N, channels, height, width), or (N, 1, depth, height, width) for volumes.

        Raises:
            BackendError: The model does not take this shape.
        """

    def infer(self) -> Tensor:
        """Run the model on the bound array: logits (N, classes) float32, valid until the next call.

        Raises:
            BackendError: The engine failed.
        """


@dataclass(frozen=True)
class BackendEntry:
    """One line of the table of backends.

    Attributes:
        module: Module to import when the backend is chosen, not before.
        requires: Library that must be importable.
        default_precision: Its fastest precision on the shipped bundle (see benchmarks/results/cpu-latency.json).
    """

    module: str
    requires: str
    default_precision: str


BACKENDS: dict[str, BackendEntry] = {
    "openvino": BackendEntry("framegate.runtime.backend_openvino", "openvino", "int8"),
    "onnxruntime": BackendEntry("framegate.runtime.backend_onnxruntime", "onnxruntime", "fp32"),
}
"""In the order in which ``auto`` tries them: fastest first."""


def choose_backend(name: str) -> str:
    """Turn ``auto`` into the first installed backend; check a named one.

    Raises:
        UsageError: The name is unknown.
        BackendError: The named backend's library, or with ``auto`` every backend's, is not installed.
    """
    if name == "auto":
        for candidate, entry in BACKENDS.items():
            if importlib.util.find_spec(entry.requires) is not None:
                return candidate
        raise BackendError(f"no inference engine is installed; install one of: {', '.join(BACKENDS)}")
    if name not in BACKENDS:
        raise UsageError(f"backend {name!r} was asked for; known are auto, {', '.join(BACKENDS)}")
    if importlib.util.find_spec(BACKENDS[name].requires) is None:
        raise BackendError(
            f"backend {name!r} was asked for, but the package {BACKENDS[name].requires!r} is not installed; "
            f"pip install {BACKENDS[name].requires}, or use --backend auto"
        )
    return name


def load_backend(name: str, model: Path, threads: int | None = None) -> Backend:
    """Load a model into a backend that `choose_backend` has checked.

    Args:
        name: A key of `BACKENDS`.
        model: The ONNX file.
        threads: CPU threads for one inference; None leaves it to the engine.

    Raises:
        BackendError: The library cannot be imported or refuses the model.
    """
    try:
        module = importlib.import_module(BACKENDS[name].module)
    except ImportError as error:
        raise BackendError(f"backend {name!r}: its library cannot be imported ({error})") from error
    backend: Backend = module.load(model, threads)
    return backend
