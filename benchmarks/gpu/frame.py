"""The whole way of a camera frame on a GPU without TensorRT: ``python -m framegate.benchmarks.gpu.frame``.

`FrameGraph`, preprocessing and scores are those of the runtime. In the engine's place stands a copy on the device: its
logits are the first values of the preprocessed image. So what framegate adds to an engine is measured, and checked
from pixels to scores, also on a GPU that TensorRT does not know.

1. Numbers: images through the graph against the float64 references of preprocessing and scores.
2. Times: frame in memory -> record read, in microseconds, with the CUDA graph and kernel by kernel, for a 1280 x 720
   BGR frame and a 1920 x 1080 NV12 one.
3. A fault: a child process reads an address that does not exist, and says whether the GPU can be used again in the same
   process after the context was released, and after it was reset.

The record is written after each part. On a machine without a GPU it says "no device: nothing measured", writes no file,
and ends with exit code 0.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.benchmarks.checkout import RESULTS
from framegate.benchmarks.gpu.device import circumstances_of, open_gpu, percentiles
from framegate.cuda_kernels.camera_preprocess.reference import CameraFrame, Normalisation, preprocess
from framegate.cuda_kernels.compile.cache import write_json
from framegate.cuda_kernels.driver.library import DriverLibrary
from framegate.cuda_kernels.driver.open import CudaError, Driver, open_driver
from framegate.cuda_kernels.kernels import Kernels
from framegate.cuda_kernels.softmax_entropy.launch import plan_rows
from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.runtime.backends.tensorrt.feed import frame_feed, plan_frame
from framegate.runtime.backends.tensorrt.graph import FrameGraph
from framegate.runtime.backends.tensorrt.scores import KernelRecord
from framegate.runtime.circumstances import circumstances
from framegate.runtime.errors import BackendError
from framegate.runtime.preprocess import PreprocessSpec
from framegate.runtime.verdict import BGR, NV12

OUT = RESULTS / "gpu-frame.json"
NO_DEVICE = "no device: nothing measured"
CLASSES = 1000
SPEC = PreprocessSpec(224, 224, "bilinear", "stretch", "rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
FRAMES = {"bgr 1280x720": (BGR, 1280, 720), "nv12 1920x1080": (NV12, 1920, 1080)}
TEMPERATURE = 1.3
LOGIT_TOLERANCE = 1e-3  # of a normalised pixel: preprocessing in fp32 against float64
SCORE_TOLERANCE = 1e-5
WARM_UP = 100


class CopyEngine:
    """Stands where TensorRT's engine stands: one copy on the device from input to logits."""

    def __init__(self, gpu: Driver, values: int) -> None:
        self._gpu = gpu
        self.network_input, self.logits = gpu.allocate(4 * values), gpu.allocate(4 * CLASSES)

    def enqueue(self, stream: int) -> None:
        """Give the stream one inference."""
        self._gpu.copy_on_device(self.logits, self.network_input, 4 * CLASSES, stream)

    def why_not_capturable(self, stream: int) -> str:
        """Nothing is against it."""
        del stream
        return ""


class FramePath:
    """The graph of frames of one format and size."""

    def __init__(
        self, gpu: Driver, spec: PreprocessSpec, pixel_format: str, width: int, height: int, capture: bool
    ) -> None:
        self._pixels = width * height * 3 // (2 if pixel_format == NV12 else 1)
        stream = gpu.create_stream(-5)
        engine = CopyEngine(gpu, 3 * spec.width * spec.height)
        plan = plan_frame(spec, width, height, pixel_format)
        self._graph = FrameGraph(
            gpu,
            engine,  # type: ignore[arg-type]  # what FrameGraph asks of an engine, and no more
            stream,
            input_bytes=self._pixels,
            slots=2,
            feed=frame_feed(gpu, stream, plan, self._pixels, engine.network_input),
            logits=engine.logits,
            scores=KernelRecord(gpu, engine.logits, CLASSES, TEMPERATURE),
            capture=capture,
        )
        self._turn = 0

    @property
    def captured(self) -> bool:
        """Whether a frame is one graph launch."""
        return self._graph.captured

    def judge(self, frame: npt.NDArray[np.uint8]) -> tuple[Any, npt.NDArray[np.float32]]:
        """Bring a frame to its record and its logits.

        Raises:
            CudaError: The GPU failed.
            BackendError: There is no whole record.
        """
        slot = self._graph.slots[self._turn]
        self._turn = 1 - self._turn
        np.copyto(slot.input.array, frame.reshape(-1))
        self._graph.submit(slot)
        return self._graph.wait(slot), slot.logits


def check_numbers(gpu: Driver, images: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """Bring images through the graph and compare logits and scores with the references.

    Args:
        gpu: The open GPU.
        images: (N, height, width, 3) uint8, BGR.
    """
    height, width = images.shape[1:3]
    spec = PreprocessSpec(32, 32, SPEC.resize, SPEC.fit, SPEC.colour, SPEC.mean, SPEC.std)
    path = FramePath(gpu, spec, BGR, width, height, capture=True)
    logits_off = scores_off = 0.0
    same_class = 0
    mean, std = (tuple(map(float, three)) for three in (spec.mean, spec.std))
    normalisation = Normalisation("rgb", (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
    for image in images:
        record, logits = path.judge(image)
        wanted = preprocess(
            CameraFrame("bgr", width, height, (image,)), (32, 32), mode=spec.resize, normalisation=normalisation
        )
        truth = softmax_scores(logits[None], float(np.float32(TEMPERATURE)))
        found = np.array([record.entropy, record.max_probability, record.margin])
        exact = np.array([truth.entropy[0], truth.max_probability[0], truth.margin[0]])
        # np.maximum keeps a NaN, where max() would lose it.
        logits_off = float(np.maximum(logits_off, np.abs(logits - wanted.reshape(-1)[:CLASSES]).max()))
        scores_off = float(np.maximum(scores_off, np.abs(found - exact).max()))
        same_class += int(record.argmax == truth.argmax[0])
    return {
        "images": len(images),
        "captured": path.captured,
        "logits_off_by": logits_off,
        "scores_off_by": scores_off,
        "same_class": same_class,
        "right": logits_off <= LOGIT_TOLERANCE and scores_off <= SCORE_TOLERANCE and same_class == len(images),
    }


def time_frames(gpu: Driver, name: str, frames: int, capture: bool) -> dict[str, Any]:
    """Time one kind of frame in a closed loop, on the host's clock."""
    pixel_format, width, height = FRAMES[name]
    path = FramePath(gpu, SPEC, pixel_format, width, height, capture)
    shape = (height * 3 // 2, width) if pixel_format == NV12 else (height, width, 3)
    frame = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
    times = []
    for turn in range(WARM_UP + frames):
        began = time.perf_counter_ns()
        path.judge(frame)
        if turn >= WARM_UP:
            times.append((time.perf_counter_ns() - began) / 1000)
    return {"frames": frames, "captured": path.captured, "frame_to_record_us": percentiles(times)}


def provoke_fault() -> int:
    """Read an address that does not exist; print as JSON what became of the process's GPU. Runs in a child."""
    found: dict[str, Any] = {}
    first = open_driver()
    try:
        stream = first.create_stream()
        kernels = Kernels(first, "softmax_entropy")
        plan = plan_rows(0xDEAD0000, "f32", 1, CLASSES, {"entropy": first.allocate(256)})

        def fault() -> None:
            kernels.run(plan, stream)
            first.synchronize(stream)

        found["fault"] = _outcome(fault)
        found["next_call"] = _outcome(lambda: first.allocate(256))
        found["release"] = _outcome(first.close)
        found["opened_again"] = _outcome(_use_gpu)
        found["reset"] = _outcome(
            lambda: DriverLibrary().call("resetting the context", "cuDevicePrimaryCtxReset_v2", 0)
        )
        found["opened_after_reset"] = _outcome(_use_gpu)
    finally:
        print(json.dumps(found))
    return 0


def _use_gpu() -> None:
    with open_driver() as gpu:
        memory = gpu.allocate(1024)
        gpu.copy_to_device(memory, np.zeros(1024, np.uint8), gpu.create_stream())


def _outcome(work: Callable[[], object]) -> str:
    try:
        work()
    except CudaError as error:
        return error.name
    return "ok"


def fault_in_a_child(seconds: float = 60) -> dict[str, Any]:
    """Run `provoke_fault` where it harms nothing."""
    command = [sys.executable, "-m", "framegate.benchmarks.gpu.frame", "--provoke-fault"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"the child was not done after {seconds:g} s"}
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        return {"failed": f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"}


def measure(gpu: Driver, images: npt.NDArray[np.uint8], frames: int, out: Path) -> dict[str, Any]:
    """Do all parts; one that fails is recorded and the others still run."""
    report: dict[str, Any] = {"machine": circumstances() | circumstances_of(gpu)}
    parts: dict[str, Callable[[], Any]] = {"numbers": lambda: check_numbers(gpu, images)}
    for name in FRAMES:
        parts[name] = partial(time_frames, gpu, name, frames, capture=True)
        parts[f"{name}, kernel by kernel"] = partial(time_frames, gpu, name, frames // 5, capture=False)
    for name, part in parts.items():
        try:
            report[name] = part()
        except (CudaError, BackendError) as error:
            report[name] = {"failed": str(error)}
        print(f"{name}: {json.dumps(report[name])}", flush=True)
        write_json(out, report)
    return report


def main(arguments: list[str] | None = None) -> int:
    """Measure. Exit code 1 if a number is wrong or a part failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="result file (default benchmarks/results/gpu-frame.json)")
    parser.add_argument("--frames", type=int, default=10_000, help="frames of each measurement (default 10000)")
    parser.add_argument(
        "--images", type=Path, help=".npy of (N, height, width, 3) BGR images (default: 100 random ones)"
    )
    parser.add_argument("--provoke-fault", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.provoke_fault:
        return provoke_fault()
    try:
        gpu = open_gpu()
    except CudaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if gpu is None:
        print(NO_DEVICE)
        return 0
    images = (
        np.load(options.images)
        if options.images
        else np.random.default_rng(7).integers(0, 256, (100, 64, 64, 3), np.uint8)
    )
    with gpu:
        report = measure(gpu, images, options.frames, options.out)
    report["fault in a child process"] = fault_in_a_child()
    write_json(options.out, report)
    print(f"written: {options.out}")
    failed = [name for name, part in report.items() if "failed" in part]
    return 0 if report["numbers"].get("right") and not failed else 1


if __name__ == "__main__":
    raise SystemExit(main())
