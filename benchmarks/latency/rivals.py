"""What a user would write instead: cv2, an engine, and softmax entropy in NumPy, in one plain loop.

Each rival is a function from a camera's frame to (index of the label, entropy in nats). The code is what the engines'
own guides show, with the settings that they recommend for latency; no rival is slowed down, and none is helped by what
framegate does to be fast. Nothing here looks at the camera's health, at thresholds, or at a frame's age.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cv2
import numpy as np

from framegate.runtime.backends.base import infer
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.backends.no_telemetry import no_telemetry
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.preprocess import PreprocessSpec
from framegate.runtime.verdict import Image

Answer = tuple[int, float]
Rival = Callable[[Image], Answer]
_INTERPOLATION = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}


@dataclass
class Rivals:
    """Those that can run here, and why the others cannot.

    Attributes:
        found: Name -> the rival.
        engines: Name -> library and version.
        left_out: Name -> the reason, one line.
    """

    found: dict[str, Rival] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def try_to_add(self, name: str, make: Callable[[], tuple[Rival, str]], frame: Image) -> None:
        """Make a rival and let it judge one frame; whatever fails is a reason to leave it out, not to stop."""
        try:
            rival, engine = make()
            rival(frame)
        except Exception as error:  # noqa: BLE001 - other people's libraries raise anything
            lines = str(error).strip().splitlines()
            self.left_out[name] = f"{type(error).__name__}: {lines[0] if lines else ''}"
            return
        self.found[name], self.engines[name] = rival, engine


def blob_of(spec: PreprocessSpec) -> Callable[[Image], np.ndarray]:
    """Resize, colour, normalise and transpose as the guides do it; gives (1, 3, H, W) float32."""
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    size, how = (spec.width, spec.height), _INTERPOLATION[spec.resize]

    def blob(frame: Image) -> np.ndarray:
        small = cv2.resize(frame, size, interpolation=how)
        if spec.colour == "rgb":
            small = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)
        return np.ascontiguousarray(((small.astype(np.float32) - mean) / std).transpose(2, 0, 1))[None]

    return blob


def softmax_entropy(logits: np.ndarray) -> Answer:
    """Label and softmax entropy in nats of (1, C) logits, the usual way."""
    shifted = logits[0] - logits[0].max()
    powers = np.exp(shifted)
    probabilities = powers / powers.sum()
    return int(probabilities.argmax()), float(-(probabilities * np.log(probabilities + 1e-12)).sum())


def onnxruntime_rival(bundle: Bundle, precision: str, threads: int | None) -> tuple[Rival, str]:
    """cv2, a session's run, NumPy."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(bundle.model_path(precision)), options, providers=["CPUExecutionProvider"])
    name, first, blob = session.get_inputs()[0].name, session.get_outputs()[0].name, blob_of(bundle.preprocess)

    def judge(frame: Image) -> Answer:
        return softmax_entropy(session.run([first], {name: blob(frame)})[0])

    return judge, f"onnxruntime {ort.__version__}"


def openvino_rival(bundle: Bundle, precision: str, threads: int | None) -> tuple[Rival, str]:
    """cv2, a compiled model's call with the hint for latency, NumPy.

    Left alone, OpenVINO computes float32 layers in bfloat16 where the processor can, with other labels on one frame in
    six of the shipped clip; here it computes what its name says.
    """
    # Imported without telemetry, whose thread and fork would be in everybody's times; a second core in a process, and
    # one that ends before the first, leaves a thread without its stack for signals (see there).
    from framegate.runtime.backends.openvino_cpu import core

    with no_telemetry():
        import openvino as ov

    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    blob, spec = blob_of(bundle.preprocess), bundle.preprocess
    model = core().read_model(bundle.model_path(precision))
    model.reshape([1, 3, spec.height, spec.width])
    compiled = core().compile_model(model, "CPU", config)

    def judge(frame: Image) -> Answer:
        return softmax_entropy(compiled(blob(frame))[0])

    return judge, f"openvino {ov.__version__.split('-')[0]}"


def opencv_rival(bundle: Bundle, precision: str, threads: int | None) -> tuple[Rival, str]:
    """OpenCV alone: its own dnn module and blobFromImage, then NumPy. It takes OpenCV's own number of threads."""
    del threads
    spec = bundle.preprocess
    if len(set(spec.std)) > 1:
        raise ValueError(f"blobFromImage has one scale for all channels, the bundle has {spec.std}")
    network = cv2.dnn.readNetFromONNX(str(bundle.model_path(precision)))
    scale, size, swap = 1 / spec.std[0], (spec.width, spec.height), spec.colour == "rgb"
    first = network.getUnconnectedOutLayersNames()[0]

    def judge(frame: Image) -> Answer:
        network.setInput(cv2.dnn.blobFromImage(frame, scale, size, spec.mean, swapRB=swap))
        return softmax_entropy(network.forward(first))

    return judge, f"opencv {cv2.__version__}"


def tensorrt_rival(bundle: Bundle, precision: str, flavour: str) -> tuple[Rival, str]:
    """cv2, a TensorRT engine in a CUDA graph with its copies, NumPy; no kernel of framegate's in it."""
    backend, spec = load_backend(flavour, bundle.model_path(precision), None), bundle.preprocess
    tensor, blob = np.zeros((1, 3, spec.height, spec.width), np.float32), blob_of(spec)
    backend.bind(tensor)

    def judge(frame: Image) -> Answer:
        np.copyto(tensor, blob(frame))
        return softmax_entropy(infer(backend))

    return judge, backend.engine


def cpu_rivals(rivals: Rivals, bundle: Bundle, threads: int | None, frame: Image) -> None:
    """Add those that run on every machine, in every precision of the bundle."""
    makers = {
        "cv2 + onnxruntime {} + NumPy": onnxruntime_rival,
        "cv2 + openvino {} + NumPy": openvino_rival,
        "cv2.dnn {} + NumPy": opencv_rival,
    }
    for name, maker in makers.items():
        for precision in sorted(bundle.models):
            if precision != "fp16":  # the processors' engines compute it in float32
                rivals.try_to_add(name.format(precision), partial(maker, bundle, precision, threads), frame)


def gpu_rivals(rivals: Rivals, bundle: Bundle, frame: Image) -> None:
    """Add bare TensorRT of every flavour that is installed and has a GPU."""
    from framegate.runtime.backends.tensorrt.library import installed_flavours

    for flavour in installed_flavours():
        for precision in sorted(bundle.models):
            rivals.try_to_add(
                f"cv2 + {flavour} {precision} + NumPy",
                partial(tensorrt_rival, bundle, precision, flavour),
                frame,
            )
