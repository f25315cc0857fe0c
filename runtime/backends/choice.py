"""Which engine a session runs on: the one that was named, or the fastest that can run here."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from framegate.runtime.backends.base import Backend
from framegate.runtime.backends.int8 import adds_int8_exactly
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import BackendError, UsageError


def choose_engine(bundle: Bundle, backend: str, precision: str | None) -> str:
    """The backend that runs a bundle's network.

    Args:
        bundle: Opened.
        backend: A name, or ``auto``: the fastest that is installed, a GPU if an engine was built for the bundle.
        precision: None takes the backend's fastest.

    Raises:
        UsageError: The backend's name is unknown.
        BackendError: Its library is not installed.
    """
    return choose_backend(backend, lambda candidate: _engine_is_there(bundle, candidate, precision))


def open_engine(bundle: Bundle, name: str, precision: str | None, threads: int | None) -> tuple[Backend, str]:
    """Load a bundle's network into an engine.

    Args:
        bundle: Opened.
        name: Of the backend.
        precision: None takes the backend's fastest.
        threads: CPU threads of the engine; None leaves it to the engine.

    Returns:
        The engine and the precision.

    Raises:
        BundleError: The bundle lacks the precision.
        BackendError: The engine is not installed or refuses the model.
    """
    chosen = precision or default_precision(name, bundle.models)
    return _load(bundle, name, chosen, threads), chosen


def _load(bundle: Bundle, name: str, precision: str, threads: int | None) -> Backend:
    if BACKENDS[name].gpu:  # it loads an engine, which names the hash of the network that it was built from
        return load_backend(name, bundle.model_path(precision), threads, bundle.hashes[bundle.models[precision]])
    answers = bundle.known_answers
    # What comes out of a cache must be asked something.
    may_keep = answers is not None and answers.tolerance(name, precision) is not None
    with bundle.loaded(precision) as model:
        return load_backend(name, model, threads, bundle.network_digest(model) if may_keep else "")


def _engine_is_there(bundle: Bundle, name: str, precision: str | None) -> bool:
    """Whether ``auto`` may try a GPU backend: an engine was built for the bundle here, and it is calibrated."""
    chosen = precision or default_precision(name, bundle.models)
    if chosen not in bundle.models or bundle.calibration(name, chosen) is None:
        return False
    from framegate.runtime.backends.tensorrt.store import stored_engines  # only where TensorRT is installed

    return bool(stored_engines(bundle.hashes[bundle.models[chosen]], name))


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
    "tensorrt": BackendEntry("framegate.runtime.backends.tensorrt.backend", "tensorrt", "fp16", gpu=True),
    "tensorrt-rtx": BackendEntry("framegate.runtime.backends.tensorrt.backend", "tensorrt_rtx", "fp16", gpu=True),
    "openvino": BackendEntry("framegate.runtime.backends.openvino_cpu", "openvino", "int8"),
    "onnxruntime": BackendEntry("framegate.runtime.backends.onnxruntime_cpu", "onnxruntime", "fp32"),
}
"""In the order in which ``auto`` tries them: fastest first."""


def default_precision(name: str, available: Collection[str]) -> str:
    """A backend's own precision if a bundle has it, else ``fp32``.

    ``fp32``, too, where a processor would have to compute INT8 in detours (`adds_int8_exactly`), which is no faster.
    """
    wanted = BACKENDS[name].default_precision
    if wanted == "int8" and not adds_int8_exactly():
        return "fp32"
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
    from framegate.runtime.backends.tensorrt.library import install_line

    return install_line(name)


def load_backend(name: str, model: Path, threads: int | None = None, network: str = "") -> Backend:
    """Load a model into a backend that `choose_backend` has checked.

    Args:
        name: A key of `BACKENDS`.
        model: The ONNX file.
        threads: CPU threads for one inference; None leaves it to the engine.
        network: For a GPU the SHA-256 of the file as it was when the bundle was opened. For a CPU
            `Bundle.network_digest`: what the engine makes of the network may be kept for the next time.

    Raises:
        BackendError: The library cannot be imported or refuses the model.
    """
    try:
        module = importlib.import_module(BACKENDS[name].module)
    except ImportError as error:
        raise BackendError(f"backend {name!r}: its library cannot be imported ({error})") from error
    backend: Backend = module.load(name, model, threads, network)
    return backend
