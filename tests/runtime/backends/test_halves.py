"""A large batch is computed in two halves side by side: the same answers, and nothing left running whatever fails."""

from __future__ import annotations

import numpy as np
import pytest

ov = pytest.importorskip("openvino")
from framegate.runtime.backends import openvino_cpu  # noqa: E402
from framegate.runtime.backends.base import ALL_ROWS, infer  # noqa: E402
from framegate.runtime.backends.choice import load_backend  # noqa: E402
from framegate.runtime.bundle.bundle import Bundle  # noqa: E402
from framegate.runtime.errors import BackendError  # noqa: E402
from framegate.runtime.preprocess import input_shape  # noqa: E402


def bound(bundle_path, rows, threads=2, too_much=None):
    """A backend on a batch of drawn numbers, and the batch."""
    bundle = Bundle.open(bundle_path)
    backend = load_backend("openvino", bundle.model_path("fp32"), threads)
    if too_much is not None:
        backend._too_much[0] = too_much
    tensor = np.random.default_rng(rows).normal(size=input_shape(bundle.preprocess, rows)).astype(np.float32)
    backend.bind(tensor)
    return backend, tensor


def one_by_one(bundle_path, tensor):
    backend, row = bound(bundle_path, 1, threads=1)
    found = []
    for each in tensor:
        row[0] = each
        found.append(infer(backend)[0].copy())
    return np.array(found)


@pytest.mark.parametrize(
    ("rows", "halved"), [(1, False), (2, False), (3, False), (4, True), (6, True), (7, False), (16, True)]
)
def test_every_row_has_its_own_answer(tiny_bundle, rows, halved):
    backend, tensor = bound(tiny_bundle, rows)
    assert (backend._halves is not None) == halved
    for _ in range(2):
        logits = infer(backend)
        np.testing.assert_allclose(logits, one_by_one(tiny_bundle, tensor), rtol=1e-4, atol=1e-4)
        tensor[:] = tensor[::-1].copy()
    assert infer(backend) is logits  # the same array: whoever looks at it is bound to it


def test_a_monitor_reads_the_rows_of_both_halves(tmp_path):
    pooled = ov.opset13
    image = pooled.parameter([-1, 3, 4, 4], ov.Type.f32, name="image")
    mean = pooled.reduce_mean(image, pooled.constant([2, 3], ov.Type.i64), False)
    logits = pooled.multiply(mean, pooled.constant(2.0, ov.Type.f32))
    first, second = pooled.result(logits), pooled.result(pooled.add(mean, pooled.constant(1.0, ov.Type.f32)))
    first.get_output_tensor(0).set_names({"logits"})
    second.get_output_tensor(0).set_names({openvino_cpu.POOLED})
    ov.save_model(ov.Model([first, second], [image]), tmp_path / "tiny.xml", compress_to_fp16=False)
    backend = openvino_cpu.OpenVinoBackend(tmp_path / "tiny.xml", 2)
    tensor = np.random.default_rng(0).normal(size=(4, 3, 4, 4)).astype(np.float32)
    backend.bind(tensor)
    assert backend._halves is not None
    logits = infer(backend)
    np.testing.assert_allclose(logits, 2 * tensor.mean((2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(backend.pooled, tensor.mean((2, 3)) + 1, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("threads", "there", "too_much", "halved"), [
    (None, 2, 1, True),  # one thread is known to take too long
    (None, 2, 10**9, False),
    (None, 1, 1, False),  # nobody could compute the other half
    (1, 2, 1, False),
])  # fmt: skip
def test_only_what_is_too_much_for_one_is_halved(tiny_bundle, monkeypatch, threads, there, too_much, halved):
    monkeypatch.setattr(openvino_cpu, "processors", lambda: there)
    backend, _ = bound(tiny_bundle, 8, threads, too_much)
    assert (backend._halves is not None) == halved


def test_the_first_half_is_computed_while_the_second_is_filled(tiny_bundle):
    backend, tensor = bound(tiny_bundle, 8)
    wanted, filled = tensor[::-1].copy(), []

    def fill(first, last):
        if first:  # the first half is there before the second is: nothing but its own rows is waited for
            backend._halves._requests[0].wait()
            first_half = backend._output[:4].copy()
            np.testing.assert_allclose(first_half, one_by_one(tiny_bundle, wanted[:4]), rtol=1e-4, atol=1e-4)
        tensor[first:last] = wanted[first:last]
        filled.append((first, last))

    backend.start_filled(fill)
    np.testing.assert_allclose(backend.finish(), one_by_one(tiny_bundle, wanted), rtol=1e-4, atol=1e-4)
    assert filled == [(0, 4), (4, 8)]


def test_a_batch_in_one_piece_is_filled_at_once(tiny_bundle):
    backend, _ = bound(tiny_bundle, 2)
    filled = []
    backend.start_filled(lambda first, last: filled.append((first, last)))
    assert filled == [(0, ALL_ROWS)]


def test_fault_filling_fails_and_the_next_frame_has_its_own_answers(tiny_bundle):
    backend, tensor = bound(tiny_bundle, 4)

    def fill(first, last):
        if first:
            raise ValueError("a crop that cannot be resized")

    with pytest.raises(ValueError, match="cannot be resized"):
        backend.start_filled(fill)
    assert not backend._halves._running
    tensor[:] = 1 - tensor
    np.testing.assert_allclose(infer(backend), one_by_one(tiny_bundle, tensor), rtol=1e-4, atol=1e-4)


def test_fault_a_batch_that_nobody_waited_for(tiny_bundle):
    backend, tensor = bound(tiny_bundle, 4)
    backend.start_filled(lambda first, last: None)

    def fill(first, last):
        tensor[first:last] = -tensor[first:last]

    backend.start_filled(fill)
    np.testing.assert_allclose(backend.finish(), one_by_one(tiny_bundle, tensor), rtol=1e-4, atol=1e-4)
    backend.start_filled(lambda first, last: None)
    tensor[:] = 1 - tensor
    found = infer(backend)  # as known pictures are asked: not the answer of what was started before
    np.testing.assert_allclose(found, one_by_one(tiny_bundle, tensor), rtol=1e-4, atol=1e-4)


def test_fault_a_batch_is_dropped_while_it_is_computed(tiny_bundle):
    for _ in range(20):
        backend, tensor = bound(tiny_bundle, 16)
        backend.start_filled(lambda first, last: None)
        del tensor, backend  # what the requests read and write must go after them


@pytest.mark.parametrize("broken", [0, 1])
def test_fault_one_half_fails_and_the_other_is_waited_for(tiny_bundle, broken):
    backend, tensor = bound(tiny_bundle, 4)
    waited = []

    class Request:
        def __init__(self, number, inner):
            self._number, self._inner = number, inner

        def start_async(self):
            self._inner.start_async()

        def wait(self):
            self._inner.wait()
            waited.append(self._number)
            if self._number == broken and len(waited) <= 2:
                raise RuntimeError("Exception from src/inference:\nout of memory")

    halves = backend._halves
    halves._requests = [Request(k, each) for k, each in enumerate(halves._requests)]
    with pytest.raises(BackendError, match="openvino failed: out of memory"):
        infer(backend)
    assert waited == [0, 1]
    assert not halves._running
    np.testing.assert_allclose(infer(backend), one_by_one(tiny_bundle, tensor), rtol=1e-4, atol=1e-4)


def test_streams_that_share_the_network_do_not_share_their_halves(tiny_bundle):
    backend, tensor = bound(tiny_bundle, 4)
    other = backend.share()
    with pytest.raises(BackendError, match="bind an input first"):
        other.finish()
    second = 1 - tensor
    other.bind(second)
    assert other._compiled is backend._compiled
    for one, given in ((backend, tensor), (other, second), (backend, tensor)):
        np.testing.assert_allclose(infer(one), one_by_one(tiny_bundle, given), rtol=1e-4, atol=1e-4)
