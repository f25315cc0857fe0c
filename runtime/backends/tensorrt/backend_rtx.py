"""TensorRT-RTX, the flavour for desktop GPUs: the same backend over the other library."""

from __future__ import annotations

from pathlib import Path

from framegate.runtime.backends.tensorrt.backend import TensorRtBackend


def load(model: Path, threads: int | None) -> TensorRtBackend:
    """Entry point of the table in `framegate.runtime.backends.base`; ``threads`` means nothing on a GPU."""
    del threads
    return TensorRtBackend("tensorrt-rtx", model)
