"""The yardstick: what a careful user writes, and nothing of what makes framegate fast.

    cv2.resize, cv2.split, cv2.LUT into arrays that are kept, the engine's own call on an input bound once

It stays as it is. What makes framegate's preprocessing or its engines' calls faster must not come in here, or the ratio
to it would say nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np

from framegate.runtime.backends.base import Backend, infer
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.preprocess import INTERPOLATION, Preprocessor, PreprocessSpec, input_shape
from framegate.runtime.scores import Tensor
from framegate.runtime.verdict import Image

_READS = {"rgb": (2, 1, 0), "bgr": (0, 1, 2)}


class CarefulPreprocessing:
    """Crop to input tensor with OpenCV, without allocating: one resize, one split, one table look-up a channel.

    Args:
        spec: How pixels become input; colour, and no volume.
        tensor: (1, 3, H, W) float32 to be filled.
    """

    def __init__(self, spec: PreprocessSpec, tensor: Tensor) -> None:
        self._size, self._interpolation = (spec.width, spec.height), INTERPOLATION[spec.resize]
        self._small = np.zeros((spec.height, spec.width, 3), np.uint8)
        self._planes = [np.zeros((spec.height, spec.width), np.uint8) for _ in range(3)]
        levels = np.arange(256, dtype=np.float64)
        self._gathers = [
            (self._planes[plane], ((levels - mean) / std).astype(np.float32), target)
            for plane, mean, std, target in zip(_READS[spec.colour], spec.mean, spec.std, tensor[0], strict=True)
        ]

    def __call__(self, crop: Image) -> object:
        """Fill the tensor."""
        cv2.resize(crop, self._size, dst=self._small, interpolation=self._interpolation)
        cv2.split(self._small, self._planes)
        for plane, table, target in self._gathers:
            cv2.LUT(plane, table, dst=target)
        return None


def bare_batch(bundle: Bundle, backend: str, precision: str, threads: int | None, count: int) -> Callable[[], Any]:
    """The engine's own call on a batch: one request for all of it, on as many threads as the engine takes.

    Args:
        bundle: The model.
        backend: Name of the backend.
        precision: Which model.
        threads: Of the engine; None as the engine chooses.
        count: Images of the batch.

    Raises:
        BackendError: The engine does not take it.
    """
    tensor = np.zeros(input_shape(bundle.preprocess, count), np.float32)
    if backend != "openvino":
        engine = load_backend(backend, bundle.model_path(precision), threads)
        engine.bind(tensor)
        return partial(infer, engine)
    import openvino as ov

    core = ov.Core()
    model = core.read_model(bundle.model_path(precision))
    model.reshape(list(tensor.shape))
    config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = str(threads)
    request = core.compile_model(model, "CPU", config).create_infer_request()
    request.set_input_tensor(ov.Tensor(tensor, shared_memory=True))
    return request.infer  # type: ignore[no-any-return]


class BareLoop:
    """One frame after the other through `CarefulPreprocessing` and the engine's own call.

    Args:
        bundle: The model. Volumes and grey inputs are prepared by `framegate.runtime.preprocess`, which has nothing
            compiled for them.
        backend: Name of the backend.
        precision: Which model.
        threads: Of the engine; None as framegate chooses.
    """

    def __init__(self, bundle: Bundle, backend: str, precision: str, threads: int | None) -> None:
        spec = bundle.preprocess
        preprocessor = Preprocessor(spec)
        self.tensor = preprocessor.tensor
        self.prepare: Callable[[Image], object] = (
            CarefulPreprocessing(spec, self.tensor) if spec.colour in _READS and spec.depth == 1 else preprocessor
        )
        self._engine: Backend = load_backend(backend, bundle.model_path(precision), threads)
        self._engine.bind(self.tensor)
        # OpenVINO's documented call; framegate's backend calls what lies below it.
        request = getattr(self._engine, "_request", None) if backend == "openvino" else None
        self.compute: Callable[[], Any] = partial(infer, self._engine) if request is None else request.infer

    def __call__(self, image: Image) -> None:
        """Resize, normalise, compute."""
        self.prepare(image)
        self.compute()
