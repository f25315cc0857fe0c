"""Outputs for a set of images, computed as they will be at run time: one image at a time, same preprocessing."""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import numpy.typing as npt

from framegate.export.calibration.decisions import Outputs
from framegate.export.progress import Progress
from framegate.runtime.backends.base import infer
from framegate.runtime.backends.choice import BACKENDS, choose_backend, load_backend
from framegate.runtime.errors import BundleError
from framegate.runtime.monitor import POOLED, Monitor
from framegate.runtime.native.processors import processors
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

Images = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
CPU_BACKENDS = ("openvino", "onnxruntime")
"""Backends that run on every machine, so an export calibrates and compares them at once."""
STEP = 250
"""Images between two calls of progress."""
_FEW = 64
"""Images from which on several are computed at once."""
_MOST_WORKERS = 8
_POLL_S = 0.2
_NOTHING: Logits = np.empty(0, np.float32)


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
    name = choose_backend(backend)
    jobs = [(part, k) for part, images in image_sets.items() for k in range(len(images))]
    workers = 1 if BACKENDS[name].gpu or len(jobs) < _FEW else max(1, min(processors(), _MOST_WORKERS))
    # An engine for each worker, on one thread: several images at once use processors better than one image on all.
    engines = [load_backend(name, model, 1 if workers > 1 else None) for _ in range(workers)]
    first = engines[0]
    rows: dict[str, list[Logits]] = {part: [_NOTHING] * len(images) for part, images in image_sets.items()}
    pooled: dict[str, list[Logits]] = {part: list(parts) for part, parts in rows.items()}
    done = [0] * workers

    def work(number: int) -> None:
        engine, preprocess = engines[number], Preprocessor(spec)
        # Bound once: the preprocessor writes every image into the same array, as it does at run time.
        engine.bind(preprocess.tensor)
        if monitor is not None and engine.pooled is None:
            raise BundleError(f"{model}: {engine.engine} gives no {POOLED!r} output, which the monitor reads")
        for part, k in jobs[number::workers]:
            if stop.is_set():
                return
            preprocess(image_sets[part][k])
            rows[part][k] = infer(engine)[0].copy()
            if monitor is not None and engine.pooled is not None:
                pooled[part][k] = engine.pooled[0].copy()
            done[number] += 1

    stop = threading.Event()
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work, number) for number in range(workers)]
        try:
            while wait(futures, _POLL_S, FIRST_EXCEPTION).not_done:
                if any(future.done() and future.exception() for future in futures):
                    break
                progress(f"{first.engine}, {model.stem.removeprefix('model.')}", sum(done), len(jobs))
        finally:
            stop.set()
    for future in futures:
        future.result()
    progress(f"{first.engine}, {model.stem.removeprefix('model.')}", len(jobs), len(jobs))
    classes = first.classes
    outputs = {}
    for part, found in rows.items():
        logits = np.stack(found) if found else np.empty((0, classes), np.float32)
        signals = {} if monitor is None else _signals(monitor, pooled[part])
        outputs[part] = Outputs(logits, signals)
    return outputs, first.engine


def _signals(monitor: Monitor, pooled: list[Logits]) -> dict[str, npt.NDArray[np.float64]]:
    """Signal -> (N,)."""
    values = {signal: np.empty(len(pooled)) for signal in monitor.signals}
    for k, row in enumerate(pooled):
        for signal, value in monitor(row).items():
            values[signal][k] = value
    return values
