"""The kernel as the last node of a camera's CUDA graph, and the preprocessing as its first.

The question is what a node adds to a graph that runs anyway. So two graphs that differ by that node only are launched
in turn, many times, and their whole times are compared: launch, run and the host's notice of it.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np

from framegate.benchmarks.gpu.device import Stopwatch, percentiles
from framegate.cuda_kernels.camera_preprocess.launch import plan_preprocess
from framegate.cuda_kernels.camera_preprocess.reference import CameraFrame, preprocess
from framegate.cuda_kernels.driver.open import Driver
from framegate.cuda_kernels.kernels import Kernels
from framegate.cuda_kernels.softmax_entropy.launch import plan_rows, read_record
from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores

CLASSES = 1000
STAND_IN_NODES = 20
FRAME = (1920, 1080)
SIDE = 224
TIMEOUT_NS = 1_000_000_000


def bench_graph_node(gpu: Driver, kernels: Kernels, frames: int) -> dict[str, Any]:
    """Compare a graph with and without the [1, 1000] record kernel, and time until the host reads the record.

    The rest of the graph stands for a network: a chain of small kernels that depend on each other.
    """
    stream = gpu.create_stream(priority=-1)
    generator = np.random.default_rng(4)
    logits_host = (3 * generator.standard_normal((1, CLASSES))).astype(np.float32)
    logits, batch, scores = gpu.allocate(4 * CLASSES), gpu.allocate(4 * 64 * CLASSES), gpu.allocate(4 * 64)
    gpu.copy_to_device(logits, logits_host, stream)
    gpu.copy_to_device(batch, (3 * generator.standard_normal((64, CLASSES))).astype(np.float32), stream)
    mapped = gpu.allocate_host(64)
    sequence = mapped.array[32:36].view(np.uint32)
    stand_in = plan_rows(batch, "f32", 64, CLASSES, {"entropy": scores})
    addresses = {"records": mapped.device_pointer, "sequence": mapped.device_pointer + 32}
    node = plan_rows(logits, "f32", 1, CLASSES, addresses)

    def graph(*plans: Any) -> int:
        with gpu.capture(stream) as capture:
            for plan in plans:
                kernels.run(plan, stream)
        return capture.graph

    without = graph(*[stand_in] * STAND_IN_NODES)
    with_node = graph(*[stand_in] * STAND_IN_NODES, node)
    alone = graph(node)
    turns: dict[str, list[float]] = {"without": [], "with": [], "closed_loop": []}
    expected = softmax_scores(logits_host)
    problem = ""
    for frame in range(1, frames + 101):
        sequence[0] = frame
        times = {}
        for name, one in (("without", without), ("with", with_node)):
            begin = time.perf_counter_ns()
            gpu.launch_graph(one, stream)
            gpu.synchronize(stream)
            times[name] = (time.perf_counter_ns() - begin) / 1000
        mapped.array[:32] = 0
        begin = time.perf_counter_ns()
        gpu.launch_graph(alone, stream)
        record = None
        while record is None and time.perf_counter_ns() - begin < TIMEOUT_NS:
            record = read_record(mapped.array[:32].data, frame)
        times["closed_loop"] = (time.perf_counter_ns() - begin) / 1000
        gpu.synchronize(stream)
        if (
            record is None
            or record.argmax != expected.argmax[0]
            or not abs(record.entropy - expected.entropy[0]) <= 1e-5
        ):
            problem = f"frame {frame}: {record}, expected entropy {expected.entropy[0]}, argmax {expected.argmax[0]}"
            break
        if frame > 100:  # the first hundred warm up
            for name, value in times.items():
                turns[name].append(value)
    for one in (without, with_node, alone):
        gpu.destroy_graph(one)
    if problem:
        return {"wrong": problem}
    added = np.asarray(turns["with"]) - np.asarray(turns["without"])
    return {
        "frames": frames,
        "stand_in_nodes": STAND_IN_NODES,
        "graph_without_us": percentiles(turns["without"]),
        "graph_with_us": percentiles(turns["with"]),
        "added_us": {"of_medians": round(float(np.median(turns["with"]) - np.median(turns["without"])), 3)}
        | {"pairwise": percentiles(added)},
        "launch_to_record_us": percentiles(turns["closed_loop"]),
        "target": "<= 2 us added",
    }


def bench_preprocess(gpu: Driver, kernels: Kernels, watch: Stopwatch, repeats: int) -> list[dict[str, Any]]:
    """Check and time the 1080p NV12 camera frame -> 224 x 224 float32, as the first node of a graph."""
    (width, height), side = FRAME, SIDE
    generator = np.random.default_rng(5)
    luma = generator.integers(0, 256, (height, width), np.uint8)
    chroma = generator.integers(0, 256, (height // 2, width // 2, 2), np.uint8)
    results = []
    for mode, target in (("bilinear", "<= 5 us on an H200"), ("area", "")):
        plan = plan_preprocess("nv12", (width, height), (side, side), mode=mode)
        poison = np.full(plan.output_shape, np.nan, np.float32)
        held = [gpu.allocate(array.nbytes) for array in (luma, chroma, plan.weights, poison)]
        for pointer, array in zip(held, (luma, chroma, plan.weights, poison), strict=True):
            gpu.copy_to_device(pointer, array, watch.stream)
        y, uv, weights, output = held
        parameters = plan.parameters(planes=(y, uv), output=output, weights=weights)
        call = partial(kernels.launch, plan.kernel, plan.grid, plan.block, parameters)
        call(watch.stream)
        found = np.empty(plan.output_shape, np.float32)
        gpu.copy_to_host(found, output, watch.stream)
        gpu.synchronize(watch.stream)
        expected = preprocess(CameraFrame("nv12", width, height, (luma, chroma)), (side, side), mode=mode)
        largest = float(np.max(np.abs(found.astype(np.float64) - expected)))
        result: dict[str, Any] = {"case": f"nv12 {width}x{height} -> {side} {mode}"}
        if not largest <= 1e-2:  # of 255; written so that NaN fails
            result["wrong"] = f"off by up to {largest} of 255"
        else:
            result |= {"us": percentiles(watch.microseconds([call] * 8, repeats)), "largest_difference": largest}
        results.append(result | ({"target": target} if target else {}))
        for pointer in held:
            gpu.free(pointer)
    return results
