"""Build, compare and time TensorRT engines: ``python -m framegate.benchmarks.gpu.engine`` on a machine with a GPU.

For each installed flavour (TensorRT, TensorRT-RTX), bundle and precision:

1. The engine is built for this GPU. What TensorRT-RTX says to a GPU that its list does not have (Hopper) is recorded:
   first with ComputeCapability.CURRENT, then with an engine for Ampere and newer.
2. Verdicts are compared with onnxruntime's on 1,000 crops of the shipped clip, both judged by onnxruntime's threshold,
   with preprocessing on the CPU and on the GPU.
3. Closed-loop times in microseconds, with the CUDA graph and without: the bare engine (its own graph, and an event),
   the backend (tensor in, logits out), and the whole way of a camera frame. The ratio is backend to bare, p50.
4. With TensorRT, on the first bundle in fp16, the kernel behind the engine against scores inside it
   (engine_scores.py): they must be within 1e-5 of the reference on the same logits.

On a machine without a GPU it says "no device: nothing measured", writes no file, and ends with exit code 0.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from framegate.benchmarks.checkout import CLIPS, RESULTS, classifiers
from framegate.benchmarks.gpu.device import circumstances_of, open_gpu, percentiles
from framegate.benchmarks.gpu.engine_scores import agree, compare_ways
from framegate.cuda_kernels.compile.cache import write_json
from framegate.cuda_kernels.driver.open import CudaError, open_driver
from framegate.runtime.backends.base import infer
from framegate.runtime.backends.tensorrt.backend import TensorRtBackend
from framegate.runtime.backends.tensorrt.engine import OpenedEngine
from framegate.runtime.backends.tensorrt.gpu import find_gpu
from framegate.runtime.backends.tensorrt.library import installed_flavours, load_tensorrt
from framegate.runtime.backends.tensorrt.store import AMPERE, engine_folder, find_engine
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.circumstances import circumstances
from framegate.runtime.errors import FramegateError
from framegate.runtime.session import Session
from framegate.runtime.verdict import Image

OUT = RESULTS / "gpu-engines.json"
CLIP = CLIPS / "highway_1280x720_25fps.mp4"
NO_DEVICE = "no device: nothing measured"
_WARM_UP = 50


def crops(count: int, clip: Path = CLIP) -> list[Image]:
    """``count`` different regions of the clip's frames, 48 to 400 pixels wide; the same ones at every call."""
    capture = cv2.VideoCapture(str(clip))
    frames = []
    while True:
        whole, frame = capture.read()
        if not whole:
            break
        frames.append(frame)
    capture.release()
    if not frames:
        raise SystemExit(f"{clip} cannot be read: the comparison needs its frames")
    rng = np.random.default_rng(2026)
    return list(_crops(frames, count, rng))


def _crops(frames: list[Image], count: int, rng: np.random.Generator) -> Iterator[Image]:
    for k in range(count):
        frame = frames[k % len(frames)]
        width, height = (int(side) for side in rng.integers(48, 400, 2))
        x, y = int(rng.integers(0, frame.shape[1] - width)), int(rng.integers(0, frame.shape[0] - height))
        yield np.ascontiguousarray(frame[y : y + height, x : x + width])


def build(flavour: str, bundle: Bundle, precision: str) -> dict[str, Any]:
    """Build for this GPU; on TensorRT-RTX also for Ampere and newer. Returns target -> what came of it."""
    from framegate.export.engines.build import EngineJob, build_engine
    from framegate.export.engines.options import THIS_GPU, BuildOptions, resolve_target

    trt, info = load_tensorrt(flavour), find_gpu()
    outcome: dict[str, Any] = {}
    for wanted in (THIS_GPU, AMPERE) if trt.rtx else (THIS_GPU,):
        started = time.monotonic()
        try:
            job = EngineJob(
                trt, bundle, precision, resolve_target(trt, wanted, info), BuildOptions(), info, engine_folder()
            )
            engine = build_engine(job, lambda *_: None, threading.Event())
            outcome[wanted] = {"seconds": round(time.monotonic() - started, 2), "plan_bytes": len(engine.plan)}
        except FramegateError as error:
            outcome[wanted] = {"refused": str(error)}
    return outcome


def compare(bundle: Bundle, flavour: str, precision: str, images: list[Image], gpu_preprocess: bool) -> dict[str, Any]:
    """Count how often a GPU engine and onnxruntime decide alike; crops are brought to one size for the GPU's way."""
    calibration = bundle.calibration("onnxruntime", precision) or bundle.calibration("onnxruntime", "fp32")
    backend = TensorRtBackend(flavour, bundle.model_path(precision))
    try:
        ours = Session(bundle, backend, precision, calibration, camera=False, gpu_preprocess=gpu_preprocess)
        other = Session.open(bundle, "onnxruntime", precision, camera=False)
        theirs = Session(bundle, other.scorer.backend, precision, calibration, camera=False)
        labels = verdicts = accepted = 0
        largest = 0.0
        for image in images:
            same_size = cv2.resize(image, (256, 256)) if gpu_preprocess else image
            a, b = ours.infer(same_size), theirs.infer(same_size)
            labels += a.candidate == b.candidate
            verdicts += a.accepted == b.accepted
            accepted += b.accepted
            # max() would lose a NaN.
            largest = max(largest, abs(a.entropy - b.entropy)) if a.entropy == a.entropy else float("inf")
    finally:
        backend.close()
    total = len(images)
    return {
        "images": total,
        "accepted_by_onnxruntime": accepted,
        "same_label": labels / total,
        "same_verdict": verdicts / total,
        "largest_entropy_difference_nats": largest,
    }


def microseconds(work: Callable[[], object], count: int) -> dict[str, float]:
    """Time something in a closed loop on the host's clock."""
    times = []
    for turn in range(_WARM_UP + count):
        started = time.perf_counter_ns()
        work()
        if turn >= _WARM_UP:
            times.append((time.perf_counter_ns() - started) / 1000)
    return percentiles(times)


def bare_engine(bundle: Bundle, flavour: str, precision: str, count: int, graph: bool) -> dict[str, float]:
    """Time the engine alone: one graph (or one enqueue), one event."""
    trt = load_tensorrt(flavour)
    with open_driver() as gpu:
        model = bundle.model_path(precision)
        engine = OpenedEngine(trt, find_engine(model, flavour, trt.version, gpu.info, engine_folder()), gpu)
        spec = bundle.preprocess
        shape = (1, 3, spec.height, spec.width)
        stream, event = gpu.create_stream(), gpu.create_event()
        for name, sides in engine.shape_for(shape).items():
            engine.place(name, gpu.allocate(engine.output_bytes(name, sides)))
        engine.place(engine.input, gpu.allocate(4 * int(np.prod(shape))))
        engine.enqueue(stream)
        gpu.synchronize(stream)
        captured = 0
        if graph:
            with gpu.capture(stream) as capture:
                engine.enqueue(stream)
            captured = capture.graph

        def once() -> None:
            if captured:
                gpu.launch_graph(captured, stream)
            else:
                engine.enqueue(stream)
            gpu.record_event(event, stream)
            gpu.wait_event(event)

        try:
            return microseconds(once, count)
        finally:
            engine.close()


def latency(bundle: Bundle, flavour: str, precision: str, count: int, graph: bool) -> dict[str, Any]:
    """Time the three ways with the graph or without."""
    os.environ["FRAMEGATE_CUDA_GRAPH"] = "1" if graph else "0"
    result: dict[str, Any] = {"bare_engine_us": bare_engine(bundle, flavour, precision, count, graph)}
    backend = TensorRtBackend(flavour, bundle.model_path(precision))
    try:
        spec = bundle.preprocess
        backend.bind(np.zeros((1, 3, spec.height, spec.width), np.float32))
        result["captured"] = bool(backend.graph and backend.graph.captured)
        result["tensor_to_logits_us"] = microseconds(partial(infer, backend), count)
        frame = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
        backend.bind_frames(spec, 1280, 720, 1.0)

        def whole() -> None:
            backend.start(frame)
            backend.finish()

        result["frame_1280x720_to_scores_us"] = microseconds(whole, count)
    finally:
        backend.close()
    bare = result["bare_engine_us"]["p50"]
    result["tensor_over_bare"] = round(result["tensor_to_logits_us"]["p50"] / bare, 3)
    return result


def measure(
    bundle: Bundle, flavour: str, precision: str, images: list[Image], count: int, ways: bool = False
) -> dict[str, Any]:
    """Everything about one engine, with `ways` also of those that score themselves; what fails is recorded in place."""
    trt, info = load_tensorrt(flavour), find_gpu()
    record: dict[str, Any] = {
        "bundle": bundle.name,
        "flavour": trt.engine,
        "listed": not trt.rtx or (info is not None and info.architecture in trt.compute_capabilities()),
        "precision": precision,
        "build": build(flavour, bundle, precision),
    }
    parts: dict[str, Callable[[], Any]] = {
        "parity": lambda: compare(bundle, flavour, precision, images, False),
        "parity_gpu_preprocess": lambda: compare(bundle, flavour, precision, images, True),
        "with_graph": lambda: latency(bundle, flavour, precision, count, True),
        "without_graph": lambda: latency(bundle, flavour, precision, count, False),
    }
    if ways and not trt.rtx:
        parts["scores"] = lambda: compare_ways(bundle, flavour, precision, images, count, microseconds)
    for name, part in parts.items():
        try:
            record[name] = part()
        except (FramegateError, CudaError) as error:
            record[name] = {"failed": str(error)}
        print(f"{bundle.name} {flavour} {precision} {name}: {json.dumps(record[name])}", flush=True)
    return record


def main(arguments: list[str] | None = None) -> int:
    """Measure. Exit code 1 if something failed that should work, or fewer than 99 % of the verdicts agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", action="append", type=Path, help="default: every shipped one")
    parser.add_argument("--images", type=int, default=1000, help="how many verdicts are compared; default: 1000")
    parser.add_argument("--crops", type=Path, help=".npy of (N, height, width, 3) BGR images (default: of the clip)")
    parser.add_argument("--frames", type=int, default=10_000, help="how many are timed; default: 10000")
    parser.add_argument("--seconds", type=float, default=200, help="no new engine is begun after this; default: 200")
    parser.add_argument("--out", type=Path, default=OUT, help="results file")
    options = parser.parse_args(arguments)
    gpu = open_gpu()
    if gpu is None:
        print(NO_DEVICE)
        return 0
    machine = circumstances() | circumstances_of(gpu)
    gpu.close()
    flavours = installed_flavours()
    if not flavours:
        print("neither TensorRT nor TensorRT-RTX is installed: nothing measured; framegate doctor says how to get one")
        return 0
    images = crops(options.images) if options.crops is None else list(np.load(options.crops))[: options.images]
    halves = Path(tempfile.mkdtemp(prefix="framegate-bundles-"))
    try:
        return _measure_all(options, flavours, images, machine, halves)
    finally:
        shutil.rmtree(halves, ignore_errors=True)


def _measure_all(
    options: argparse.Namespace, flavours: list[str], images: list[Image], machine: dict[str, Any], halves: Path
) -> int:
    bundles = options.bundle or classifiers()
    records: list[dict[str, Any]] = []
    left_out: list[str] = []
    began = time.monotonic()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    work = _work(_with_half(bundles, halves), flavours)
    for bundle, flavour, precision in work:
        if time.monotonic() - began > options.seconds:
            left_out.append(f"{bundle.name} {flavour} {precision}")
            continue
        # Two more builds: once is enough, in the precision that TensorRT runs unless told otherwise.
        ways = bundle.name == work[0][0].name and precision == ("fp16" if "fp16" in bundle.models else "fp32")
        records.append(measure(bundle, flavour, precision, images, options.frames, ways))
        # After each: what was measured stays if the time runs out, or the GPU falls over.
        _write(options.out, machine, records, left_out)
    if left_out:
        _write(options.out, machine, records, left_out)
        print(f"left out for time: {', '.join(left_out)}")
    return 0 if all(_good(record) for record in records) else 1


def _write(path: Path, machine: dict[str, Any], records: list[dict[str, Any]], left_out: list[str]) -> None:
    content = {"circumstances": machine, "engines": records, "left_out_for_time": left_out}
    write_json(path, content)


def _with_half(paths: list[Path], folder: Path) -> list[Path]:
    """Copies of the bundles that have the float16 network: it is what TensorRT runs unless told otherwise."""
    from framegate.export.bundle_half import add_half

    copies = []
    for path in paths:
        copy = folder / path.name
        shutil.copytree(path, copy)
        try:
            add_half(copy)
        except FramegateError as error:
            print(f"{path.name} without fp16: {error}")
        copies.append(copy)
    return copies


def _work(paths: list[Path], flavours: list[str]) -> list[tuple[Bundle, str, str]]:
    """What to measure: colour images only, the frames of the clip are nothing else."""
    bundles = [Bundle.open(path) for path in paths]
    colour = [bundle for bundle in bundles if bundle.preprocess.depth == 1 and bundle.preprocess.colour != "grey"]
    return [(bundle, flavour, p) for bundle in colour for flavour in flavours for p in sorted(bundle.models)]


def _good(record: dict[str, Any]) -> bool:
    if not record["listed"]:  # TensorRT-RTX on a GPU outside its list is an experiment: recorded, not a failure
        return True
    works = all("failed" not in record[part] for part in ("parity", "with_graph", "without_graph"))
    scores = record.get("scores")
    return works and bool(record["parity"]["same_verdict"] >= 0.99) and (scores is None or agree(scores))


if __name__ == "__main__":
    sys.exit(main())
