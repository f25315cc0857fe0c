"""Which engine a session runs on: the one that was named, or the fastest that can run here."""

from __future__ import annotations

from framegate.runtime.backend import BACKENDS, Backend, choose_backend, default_precision, load_backend
from framegate.runtime.bundle import Bundle
from framegate.runtime.console import tell
from framegate.runtime.errors import BackendError


def open_engine(bundle: Bundle, backend: str, precision: str | None, threads: int | None) -> tuple[Backend, str, str]:
    """Load a bundle's network into an engine.

    Args:
        bundle: Opened.
        backend: A name, which is used or fails, or ``auto``.
        precision: None takes the backend's fastest.
        threads: CPU threads of the engine; None leaves it to the engine.

    Returns:
        The engine, the backend's name, and the precision.

    Raises:
        BundleError: The bundle lacks the precision.
        BackendError: The engine is not installed or refuses the model.
        UsageError: The backend's name is unknown.
    """
    name = choose_backend(backend, lambda candidate: _engine_is_there(bundle, candidate, precision))
    chosen = precision or default_precision(name, bundle.models)
    model = bundle.model_path(chosen)
    try:
        return load_backend(name, model, threads), name, chosen
    except BackendError as error:
        if backend != "auto" or not BACKENDS[name].gpu:
            raise
        # auto may choose; an engine that is there but cannot run here is a reason to choose again.
        tell(f"framegate: not on {name}: {error}")
    name = choose_backend("auto")
    chosen = precision or default_precision(name, bundle.models)
    return load_backend(name, bundle.model_path(chosen), threads), name, chosen


def _engine_is_there(bundle: Bundle, name: str, precision: str | None) -> bool:
    """Whether ``auto`` may try a GPU backend: an engine was built for the bundle here, and it is calibrated."""
    chosen = precision or default_precision(name, bundle.models)
    if chosen not in bundle.models or bundle.calibration(name, chosen) is None:
        return False
    from framegate.runtime.tensorrt_store import stored_engines  # only where TensorRT is installed

    return bool(stored_engines(bundle.hashes[bundle.models[chosen]], name))
