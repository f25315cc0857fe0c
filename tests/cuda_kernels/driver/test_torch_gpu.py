"""framegate and PyTorch in one process share the GPU's primary context. Run by benchmarks/gpu/suite.py (step tests)."""

from __future__ import annotations

import numpy as np
import pytest

from framegate.cuda_kernels.driver.open import CudaError, open_driver
from framegate.cuda_kernels.kernels import Kernels
from framegate.cuda_kernels.softmax_entropy.launch import plan_rows
from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores

pytestmark = pytest.mark.gpu


@pytest.fixture
def torch():
    module = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not module.cuda.is_available():
        pytest.skip("this PyTorch has no GPU")
    return module


@pytest.fixture(params=["bindings", "pycuda"])
def opened(request):
    """Opens the driver when called, so that a test decides who comes first."""
    drivers = []

    def open_it():
        try:
            drivers.append(open_driver(request.param))
        except CudaError as error:
            pytest.skip(f"no GPU through {request.param}: {error}")
        return drivers[-1]

    yield open_it
    for driver in drivers:
        driver.close()


@pytest.mark.parametrize("first", ["small-torch", "small-framegate"])
def test_both_compute_on_each_others_memory_whoever_came_first(torch, opened, first):
    if first == "small-framegate":
        gpu = opened()
        ours = torch.ones(8, device="cuda")
    else:
        ours = torch.ones(8, device="cuda")
        gpu = opened()
    logits = torch.randn(5, 10, device="cuda")
    entropy = torch.zeros(5, device="cuda")
    torch.cuda.synchronize()
    stream = gpu.create_stream()
    kernels = Kernels(gpu, "softmax_entropy")
    plan = plan_rows(logits.data_ptr(), "f32", 5, 10, {"entropy": entropy.data_ptr()})
    kernels.run(plan, stream)
    with gpu.capture(stream) as capture:
        kernels.run(plan, stream)
    entropy.zero_()
    torch.cuda.synchronize()
    gpu.launch_graph(capture.graph, stream)
    gpu.synchronize(stream)
    expected = softmax_scores(logits.cpu().numpy(), 1.0).entropy
    assert np.abs(entropy.cpu().numpy() - expected).max() <= 1e-5
    gpu.close()  # PyTorch still holds the context
    assert float((ours + 1).sum()) == 16.0
