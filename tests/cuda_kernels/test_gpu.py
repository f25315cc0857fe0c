"""The real kernels on a real GPU against the reference. Run by benchmarks/gpu/suite.py; skipped without a GPU.

Every shape says why it is there. Those called small are also run under compute-sanitizer, which is slow.
"""

from __future__ import annotations

import numpy as np
import pytest

from framegate.cuda_kernels.camera_preprocess.launch import plan_preprocess
from framegate.cuda_kernels.camera_preprocess.reference import CameraFrame, plane_shapes, preprocess
from framegate.cuda_kernels.driver.open import CudaError, open_driver
from framegate.cuda_kernels.kernels import Kernels
from framegate.cuda_kernels.softmax_entropy.launch import (
    ELEMENT_SIZES,
    plan_dense,
    plan_rows,
    read_record,
)
from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores

pytestmark = pytest.mark.gpu

ROWS = [
    pytest.param(7, 1, id="small-one-class"),
    pytest.param(33, 10, id="small-cifar"),
    pytest.param(5, 120, id="small-most-classes-for-8-lanes"),
    pytest.param(5, 121, id="small-least-for-a-warp"),
    pytest.param(9, 1000, id="small-imagenet"),
    pytest.param(3, 1017, id="small-least-for-a-block"),
    pytest.param(2, 21843, id="imagenet21k-misaligned-rows"),
    pytest.param(2, 65536, id="most-classes"),
    pytest.param(70000, 19, id="more-rows-than-a-grid-dimension"),
]
DENSE = [
    pytest.param(1, 19, 16, 24, id="small-cityscapes"),
    pytest.param(2, 32, 5, 6, id="small-most-channels"),
    pytest.param(3, 2, 7, 9, id="small-odd-pixels"),
    pytest.param(2, 21, 256, 256, id="voc"),
]
SCORES = {"entropy": np.float32, "max_probability": np.float32, "margin": np.float32, "energy": np.float32}


@pytest.fixture(scope="module", params=["bindings", "pycuda"])
def gpu(request):
    try:
        driver = open_driver(request.param)
    except CudaError as error:
        pytest.skip(f"no GPU through {request.param}: {error}")
    with driver:
        yield driver


@pytest.fixture(scope="module")
def stream(gpu):
    return gpu.create_stream(priority=-1)


@pytest.fixture(scope="module")
def softmax(gpu):
    return Kernels(gpu, "softmax_entropy")


def to_stored(values, dtype):
    """Round to the kernel's type; bfloat16 as bits. Returns (stored, what the kernel reads as float64)."""
    if dtype == "bf16":
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        kept = (bits >> 16).astype(np.uint16)
        return kept, (kept.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    stored = np.ascontiguousarray(values, {"f16": np.float16, "f32": np.float32}[dtype])
    return stored, stored.astype(np.float64)


class Memory:
    """Device arrays that start poisoned, so that what a kernel doesn't write shows."""

    def __init__(self, gpu, stream):
        self.gpu, self.stream, self.pointers = gpu, stream, []

    def put(self, array):
        pointer = self.gpu.allocate(array.nbytes)
        self.gpu.copy_to_device(pointer, array, self.stream)
        self.gpu.synchronize(self.stream)
        self.pointers.append(pointer)
        return pointer

    def poisoned(self, shape, dtype):
        return self.put(np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize, 0xFF, np.uint8))

    def get(self, pointer, shape, dtype):
        array = np.empty(shape, dtype)
        self.gpu.copy_to_host(array, pointer, self.stream)
        self.gpu.synchronize(self.stream)
        return array


@pytest.fixture
def memory(gpu, stream):
    held = Memory(gpu, stream)
    yield held
    for pointer in held.pointers:
        gpu.free(pointer)


def assert_scores(found, expected):
    for name in SCORES:
        limit = 1e-5 * np.maximum(1.0, np.abs(getattr(expected, name)))
        difference = np.abs(found[name] - getattr(expected, name))
        assert (np.isnan(found[name]) == ~expected.finite).all(), name
        assert (difference <= limit)[expected.finite].all(), (name, np.nanmax(difference))


@pytest.mark.parametrize("dtype", sorted(ELEMENT_SIZES))
@pytest.mark.parametrize(("rows", "classes"), ROWS)
def test_rows(gpu, stream, softmax, memory, rows, classes, dtype):
    generator = np.random.default_rng()
    values = generator.standard_normal((rows, classes)).astype(np.float32) * 4
    if rows > 2 and classes > 1:
        values[1, 0], values[2, -1] = np.nan, -np.inf
    stored, exact = to_stored(values, dtype)
    kinds = SCORES | {"argmax": np.int32}
    outputs = {name: memory.poisoned(rows, kind) for name, kind in kinds.items()}
    softmax.run(plan_rows(memory.put(stored), dtype, rows, classes, outputs), stream)
    found = {name: memory.get(outputs[name], rows, kind) for name, kind in kinds.items()}
    expected = softmax_scores(exact)
    assert (found["argmax"] == expected.argmax).all()
    assert_scores(found, expected)


@pytest.mark.parametrize("dtype", sorted(ELEMENT_SIZES))
@pytest.mark.parametrize(("images", "channels", "height", "width"), DENSE)
def test_dense(gpu, stream, softmax, memory, images, channels, height, width, dtype):
    generator = np.random.default_rng()
    values = generator.standard_normal((images, channels, height, width)).astype(np.float32) * 4
    stored, exact = to_stored(values, dtype)
    pixels = height * width
    kind = np.float32 if dtype == "f32" else np.float16
    outputs = {
        "entropy": memory.poisoned(images * pixels, kind),
        "argmax": memory.poisoned(images * pixels, np.uint8),
    }
    softmax.run(plan_dense(memory.put(stored), dtype, images, channels, pixels, outputs), stream)
    expected = softmax_scores(np.moveaxis(exact, 1, -1).reshape(-1, channels))
    assert (memory.get(outputs["argmax"], images * pixels, np.uint8) == expected.argmax).all()
    entropy = memory.get(outputs["entropy"], images * pixels, kind).astype(np.float64)
    limit = 1e-5 + (0 if dtype == "f32" else 2.0**-10) * expected.entropy
    assert (np.abs(entropy - expected.entropy) <= limit).all()


def test_small_records_in_mapped_memory_follow_the_sequence_number(gpu, stream, softmax, memory):
    values = np.random.default_rng().standard_normal((1, 1000)).astype(np.float32)
    logits = memory.put(values)
    mapped = gpu.allocate_host(64)
    addresses = {"records": mapped.device_pointer, "sequence": mapped.device_pointer + 32}
    with gpu.capture(stream) as capture:
        softmax.run(plan_rows(logits, "f32", 1, 1000, addresses), stream)
    for frame in (1, 2, 3):
        mapped.array[32:36].view(np.uint32)[0] = frame
        gpu.launch_graph(capture.graph, stream)
        gpu.synchronize(stream)
        assert read_record(mapped.array[:32].data, frame + 1) is None
        record = read_record(mapped.array[:32].data, frame)
        expected = softmax_scores(values)
        assert record.argmax == expected.argmax[0]
        assert abs(record.entropy - expected.entropy[0]) <= 1e-5
    gpu.free_host(mapped)


@pytest.mark.parametrize("pixel_format", ["nv12", "bgr"])
@pytest.mark.parametrize("mode", ["bilinear", "area"])
@pytest.mark.parametrize(
    ("size", "output"),
    [pytest.param((64, 48), (32, 32), id="small"), pytest.param((1920, 1080), (224, 224), id="full-hd")],
)
def test_preprocess(gpu, stream, memory, pixel_format, mode, size, output):
    generator = np.random.default_rng()
    planes = tuple(generator.integers(0, 256, shape, np.uint8) for shape in plane_shapes(pixel_format, *size))
    plan = plan_preprocess(pixel_format, size, output, mode=mode)
    result = memory.poisoned(plan.output_shape, np.float32)
    parameters = plan.parameters(
        planes=[memory.put(plane) for plane in planes], output=result, weights=memory.put(plan.weights)
    )
    Kernels(gpu, "camera_preprocess").launch(plan.kernel, plan.grid, plan.block, parameters, stream)
    expected = preprocess(CameraFrame(pixel_format, *size, planes), output, mode=mode)
    assert np.max(np.abs(memory.get(result, plan.output_shape, np.float32) - expected)) <= 1e-2


def test_small_a_kernel_that_is_not_there_is_named(gpu, stream, softmax):
    plan = plan_rows(256, "f32", 1, 10, {"entropy": 256})
    with pytest.raises(CudaError) as caught:
        softmax.launch("no_such_kernel", plan.grid, plan.block, plan.parameters, stream)
    assert caught.value.name == "CUDA_ERROR_NOT_FOUND"
