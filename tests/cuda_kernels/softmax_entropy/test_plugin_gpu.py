"""The kernels of softmax_entropy/plugin.cu on a real GPU: as framegate loads them, and as PTX, which TensorRT loads.

Run by benchmarks/gpu/suite.py; skipped without a GPU. It needs no TensorRT.
"""

from __future__ import annotations

import numpy as np
import pytest

from framegate.cuda_kernels.compile.compiler import CompilerError
from framegate.cuda_kernels.compile.ptx import load_ptx
from framegate.cuda_kernels.driver.open import CudaError, open_driver
from framegate.cuda_kernels.kernels import Kernels
from framegate.cuda_kernels.softmax_entropy.plugin_launch import SOURCE, plan_plugin
from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores

pytestmark = pytest.mark.gpu

SHAPES = [
    pytest.param(1, 10, id="small-one-frame"),
    pytest.param(17, 120, id="small-most-classes-for-8-lanes"),
    pytest.param(8, 1000, id="small-imagenet"),
    pytest.param(3, 1017, id="small-least-for-a-block"),
    pytest.param(2, 65536, id="most-classes"),
]


@pytest.fixture(scope="module")
def gpu():
    try:
        driver = open_driver()
    except CudaError as error:
        pytest.skip(f"no GPU: {error}")
    with driver:
        yield driver


@pytest.fixture(scope="module", params=["machine code", "PTX"])
def launch(gpu, request):
    """Launch a plan: through the cubin of this GPU, or through PTX that the driver compiles."""
    if request.param == "machine code":
        kernels = Kernels(gpu, SOURCE)
        return lambda plan, grid, arguments, stream: kernels.call(
            plan.kernel, grid, (plan.threads, 1, 1), arguments, stream
        )
    try:
        ptx = load_ptx(SOURCE, gpu.info.architecture, gpu.info.driver_version)
    except CompilerError as error:
        pytest.skip(str(error))
    module = gpu.load_module(ptx + b"\0")

    def by_ptx(plan, grid, arguments, stream):
        gpu.launch(gpu.get_function(module, plan.kernel), grid, (plan.threads, 1, 1), arguments, stream)

    return by_ptx


@pytest.mark.parametrize(("rows", "classes"), SHAPES)
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_scores_are_those_of_the_reference(gpu, launch, rows, classes, temperature):
    logits = np.random.default_rng(classes).normal(0, 4, (rows, classes)).astype(np.float32)
    if rows > 2:
        logits[1, 0], logits[2, -1] = np.nan, -np.inf
    stream = gpu.create_stream()
    inputs = [logits, np.array([temperature], np.float32)]
    outputs = [np.full((rows, width), -7, np.float32) for width in (classes, 1, 1, 1)]
    pointers = [gpu.allocate(array.nbytes) for array in (*inputs, *outputs)]
    for pointer, array in zip(pointers, (*inputs, *outputs), strict=True):
        gpu.copy_to_device(pointer, array, stream)
    plan = plan_plugin(classes)
    launch(plan, (plan.blocks(rows), 1, 1), plan.arguments(pointers[:2], rows, pointers[2:]), stream)
    for pointer, array in zip(pointers[2:], outputs, strict=True):
        gpu.copy_to_host(array, pointer, stream)
    gpu.synchronize(stream)
    for pointer in pointers:
        gpu.free(pointer)
    gpu.destroy_stream(stream)
    truth = softmax_scores(logits, float(np.float32(temperature)))
    probabilities, entropy, margin, energy = outputs
    for found, wanted in (
        (probabilities, truth.probabilities),
        (entropy[:, 0], truth.entropy),
        (margin[:, 0], truth.margin),
    ):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5, equal_nan=True)
    np.testing.assert_allclose(energy[:, 0], truth.energy, rtol=1e-5, atol=1e-5, equal_nan=True)
