"""Outputs for a set of images, computed as they will be at run time: one image at a time, same preprocessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from framegate.export.calibration.decisions import Outputs
from framegate.export.progress import Progress
from framegate.runtime.backends.base import infer
from framegate.runtime.backends.choice import choose_backend, load_backend
from framegate.runtime.errors import BundleError
from framegate.runtime.monitor import POOLED, Monitor
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

Images = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
CPU_BACKENDS = ("openvino", "onnxruntime")
"""Backends that run on every machine, so an export calibrates and compares them at once."""
STEP = 250
"""Images between two calls of progress."""


def backend_outputs(
    backend: str,
    model: Path,
    spec: PreprocessSpec,
    image_sets: dict[str, Images],
    progress: Progress,
    monitor: Monitor | None = None,
) -> tuple[dict[str, Outputs], str]:
    """Run a backend over several sets of images.

    Args:
        backend: A named backend; it is used or fails.
        model: The ONNX file.
        spec: How an image becomes the network's input.
        image_sets: Name -> (N, h, w, 3) uint8 BGR.
        progress: Called now and then.
        monitor: The bundle's, if it has one.

    Returns:
        Name -> outputs, and the engine's name and version.

    Raises:
        BackendError: The backend cannot be loaded or failed.
        BundleError: The model lacks the output that the monitor reads.
    """
    engine = load_backend(choose_backend(backend), model)
    preprocess = Preprocessor(spec)
    # Bound once: the preprocessor writes every image into the same array, as it does at run time.
    engine.bind(preprocess.tensor)
    total = sum(len(images) for images in image_sets.values())
    done = 0
    if monitor is not None and engine.pooled is None:
        raise BundleError(f"{model}: {engine.engine} gives no {POOLED!r} output, which the monitor reads")
    outputs = {}
    for name, images in image_sets.items():
        logits = np.empty((len(images), engine.classes), np.float32)
        signals = {} if monitor is None else {signal: np.empty(len(images)) for signal in monitor.signals}
        outputs[name] = Outputs(logits, signals)
        for k, image in enumerate(images):
            preprocess(image)
            logits[k] = infer(engine)[0]
            if monitor is not None and engine.pooled is not None:
                for signal, value in monitor(engine.pooled[0]).items():
                    signals[signal][k] = value
            done += 1
            if done % STEP == 0 or done == total:
                progress(f"{engine.engine}, {model.stem.removeprefix('model.')}", done, total)
    return outputs, engine.engine
