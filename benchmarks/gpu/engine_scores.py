"""The kernel behind the engine against the scores of an engine that computes them itself: a part of bench_engine.py.

Three engines of one model: the kernel as the next node of the graph, the same kernel inside the engine (a plugin), and
the engine's own layers (the model-local function). Each way's scores are held against the float64 reference on the
logits of the very same frame, because two builds may choose other kernels and give other logits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.export.engines.build import EngineJob, build_engine
from framegate.export.engines.options import THIS_GPU, BuildOptions, resolve_target
from framegate.runtime.backends.tensorrt.backend import TensorRtBackend
from framegate.runtime.backends.tensorrt.gpu import find_gpu
from framegate.runtime.backends.tensorrt.library import load_tensorrt
from framegate.runtime.backends.tensorrt.scores import FUNCTION, KERNEL, PLUGIN
from framegate.runtime.backends.tensorrt.store import StaleEngineError, StoredEngine, engine_folder
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import BackendError
from framegate.runtime.verdict import Image

TOLERANCE = 1e-5
"""Largest difference of probability, entropy (nats) and margin; of the energy relative to it where it is above 1."""

_SIDE = 256  # crops are brought to one size, which the graph is bound to
Timer = Callable[[Callable[[], object], int], dict[str, float]]


def compare_ways(
    bundle: Bundle, flavour: str, precision: str, images: list[Image], frames: int, timer: Timer
) -> dict[str, Any]:
    """Build, compare and time each way; the engine that was there before is there again afterwards.

    Args:
        bundle: With a calibration or without; then the temperature is 1.
        flavour: ``tensorrt``.
        precision: One of the bundle's.
        images: What is judged for the comparison.
        frames: How many submissions are timed.
        timer: Times a callable a number of times, in microseconds.

    Returns:
        Way -> what came of it; ``largest_difference`` of the scores to the reference, and of its rows to the kernel's.

    Raises:
        BackendError: An engine cannot be built, opened or run.
    """
    trt, info = load_tensorrt(flavour), find_gpu()
    calibration = bundle.calibration(flavour, precision) or bundle.calibration("onnxruntime", precision)
    temperature = calibration.temperature if calibration else 1.0
    target = resolve_target(trt, THIS_GPU, info)
    plain = EngineJob(trt, bundle, precision, target, BuildOptions(), info, engine_folder())
    path = plain.key.path(plain.folder)
    kept = path.read_bytes() if path.exists() else None
    result: dict[str, Any] = {"temperature": temperature}
    rows: dict[str, npt.NDArray[np.float64]] = {}
    try:
        for way in (KERNEL, FUNCTION, PLUGIN) if trt.takes_plugins() else (KERNEL, FUNCTION):
            job = EngineJob(trt, bundle, precision, target, BuildOptions(scores=way), info, engine_folder())
            started = time.monotonic()
            result[way] = {"plugin": _obtain(job).header["plugin"]}
            result[way]["build_seconds"] = round(time.monotonic() - started, 2)
            backend = TensorRtBackend(flavour, bundle.model_path(precision))
            try:
                rows[way], difference = _judge(backend, bundle, images, temperature, own=way != KERNEL)
                result[way]["largest_difference_to_reference"] = difference
                result[way]["largest_difference_to_kernel"] = float(np.abs(rows[way] - rows[KERNEL]).max())
                result[way]["captured"] = bool(backend.graph and backend.graph.captured)
                result[way]["frame_1280x720_to_scores_us"] = _time(backend, bundle, temperature, frames, timer)
            finally:
                backend.close()
    finally:
        if kept is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(kept)
    return result


def _obtain(job: EngineJob) -> StoredEngine:
    """The engine as it was just built for the other measurements, else a new one."""
    try:
        return job.cached()
    except StaleEngineError:
        return build_engine(job, lambda *_: None, threading.Event())


def agree(result: dict[str, Any]) -> bool:
    """Whether every way's scores are those of the reference."""
    ways = [result[way] for way in (KERNEL, FUNCTION, PLUGIN) if way in result]
    return len(ways) > 1 and all(way["largest_difference_to_reference"] <= TOLERANCE for way in ways)


def _judge(
    backend: TensorRtBackend, bundle: Bundle, images: list[Image], temperature: float, own: bool
) -> tuple[npt.NDArray[np.float64], float]:
    """(images, 4) scores, and their largest difference to the reference on the logits of the same frame."""
    backend.bind_frames(bundle.preprocess, _SIDE, _SIDE, temperature)
    if backend.graph is None or backend.own_scores != own:
        raise BackendError(f"{backend.name}: the engine that was just built is not the one that was opened")
    rows, differences = [], []
    for turn, image in enumerate(images):
        backend.start(cv2.resize(image, (_SIDE, _SIDE)))
        backend.finish()
        found = backend.scores
        assert found is not None
        row = np.array([found.max_probability, found.entropy, found.margin, found.energy], np.float64)
        logits = backend.graph.slots[turn % 2].logits[None].astype(np.float64)
        truth = softmax_scores(logits, float(np.float32(temperature)))
        wanted = np.concatenate([truth.max_probability, truth.entropy, truth.margin, truth.energy])
        scale = np.array([1, 1, 1, max(1.0, abs(float(wanted[3])))])
        rows.append(row)
        differences.append(np.abs(row - wanted) / scale)
    return np.array(rows), float(np.max(differences))  # NaN stays, and agrees with nothing


def _time(backend: TensorRtBackend, bundle: Bundle, temperature: float, frames: int, timer: Timer) -> dict[str, float]:
    backend.bind_frames(bundle.preprocess, 1280, 720, temperature)
    frame = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)

    def whole() -> None:
        backend.start(frame)
        backend.finish()

    return timer(whole, frames)
