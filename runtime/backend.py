"""What every inference engine looks like to the runtime, and how one is chosen.

A backend named by the user is used or fails; only ``auto`` may choose, and it says which one it chose.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import BackendError, UsageError
from framegate.runtime.verdict import BGR

if TYPE_CHECKING:
    from framegate.runtime.preprocess import PreprocessSpec
    from framegate.runtime.scores import FrameScores
    from framegate.runtime.verdict import Image

Tensor = npt.NDArray[np.float32]


class Backend(Protocol):
    """An engine with one loaded model, bound to one input array.

    Attributes:
        name: The backend's name, e.g. ``openvino``.
        engine: Library and version, e.g. ``openvino 2026.4.1``.
        classes: Number of logits per image.
        pooled: (N, F) float32 second output of a network with a monitor, of the last call; None without one, and
            before `bind`.
    """

    name: str
    engine: str
    classes: int
    pooled: Tensor | None

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


@runtime_checkable
class RecoverableBackend(Protocol):
    """A backend that may fail for good and can be started again.

    Attributes:
        fault: Why it computes nothing any more; empty while all is well.
    """

    fault: str

    def reinitialise(self) -> None:
        """Start again.

        Raises:
            BackendError: It did not work; the backend stays as it is.
        """


@runtime_checkable
class StartedBackend(Protocol):
    """A backend whose `Backend.infer` can be had in two steps, because a GPU computes by itself."""

    def start(self) -> None:
        """Start on the bound array.

        Raises:
            BackendError: The engine failed.
        """

    def finish(self) -> Tensor:
        """Wait for what was started: logits as from `Backend.infer`.

        Raises:
            BackendError: The engine failed.
        """


@runtime_checkable
class FrameBackend(Protocol):
    """A backend that can take the camera's pixels: preprocessing and scores are its own work."""

    def bind_frames(
        self,
        spec: PreprocessSpec,
        width: int,
        height: int,
        temperature: float,
        threshold: float,
        pixel_format: str = BGR,
    ) -> None:
        """Take (height, width, 3) uint8 BGR frames, or (height * 3/2, width) uint8 NV12 ones, from now on.

        Raises:
            BackendError: It cannot do what the bundle asks for.
        """

    def submit(self, frame: Image) -> None:
        """Start one frame.

        Raises:
            BackendError: The engine failed.
        """

    def result(self) -> FrameScores:
        """Wait for the submitted frame.

        Raises:
            BackendError: The engine failed.
        """


@dataclass(frozen=True)
class BackendEntry:
    """One line of the table of backends.

    Attributes:
        module: Module to import when the backend is chosen, not before.
        requires: Library that must be importable.
        default_precision: Its fastest precision on the shipped bundle (see benchmarks/results/cpu-latency.json), or
            fp32 where a bundle has no such file.
        gpu: Whether it needs a GPU and an engine built for it (``framegate engine``).
    """

    module: str
    requires: str
    default_precision: str
    gpu: bool = False


BACKENDS: dict[str, BackendEntry] = {
    "tensorrt": BackendEntry("framegate.runtime.backend_tensorrt", "tensorrt", "fp16", gpu=True),
    "tensorrt-rtx": BackendEntry("framegate.runtime.backend_tensorrt_rtx", "tensorrt_rtx", "fp16", gpu=True),
    "openvino": BackendEntry("framegate.runtime.backend_openvino", "openvino", "int8"),
    "onnxruntime": BackendEntry("framegate.runtime.backend_onnxruntime", "onnxruntime", "fp32"),
}
"""In the order in which ``auto`` tries them: fastest first."""


def default_precision(name: str, available: Collection[str]) -> str:
    """A backend's own precision if a bundle has it, else ``fp32``."""
    wanted = BACKENDS[name].default_precision
    return wanted if wanted in available else "fp32"


def choose_backend(name: str, ready: Callable[[str], bool] = lambda name: False) -> str:
    """Turn ``auto`` into the first installed backend; check a named one.

    Args:
        name: ``auto`` or a key of `BACKENDS`.
        ready: Says whether ``auto`` may take a backend that needs a GPU: its library alone is not enough.

    Raises:
        UsageError: The name is unknown.
        BackendError: The named backend's library, or with ``auto`` every backend's, is not installed.
    """
    if name == "auto":
        for candidate, entry in BACKENDS.items():
            if importlib.util.find_spec(entry.requires) is not None and (not entry.gpu or ready(candidate)):
                return candidate
        raise BackendError(f"no inference engine is installed; install one of: {', '.join(BACKENDS)}")
    if name not in BACKENDS:
        raise UsageError(f"backend {name!r} was asked for; known are auto, {', '.join(BACKENDS)}")
    if importlib.util.find_spec(BACKENDS[name].requires) is None:
        raise BackendError(
            f"backend {name!r} was asked for, but the package {BACKENDS[name].requires!r} is not installed; "
            f"{_install_line(name)}, or use --backend auto"
        )
    return name


def _install_line(name: str) -> str:
    if not BACKENDS[name].gpu:
        return f"pip install {BACKENDS[name].requires}"
    from framegate.runtime.tensorrt_library import install_line

    return install_line(name)


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
