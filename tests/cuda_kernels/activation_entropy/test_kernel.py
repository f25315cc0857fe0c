"""Activation entropy: the reference against NumPy and torch, then the kernel, run on the host, against it."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framegate.cuda_kernels.activation_entropy import launch
from framegate.cuda_kernels.activation_entropy.reference import activation_entropy

SOURCE = "cuda_kernels/activation_entropy/kernel.cu"
INF, NAN = np.inf, np.nan
DTYPES = ("f16", "bf16", "f32")
EDGES_30 = np.linspace(0.0, 6.0, 31, dtype=np.float32)


# The reference.


def test_reference_agrees_with_numpy_histogram_and_torch():
    torch = pytest.importorskip("torch")
    x = np.abs(np.random.default_rng(1).normal(size=(3, 4, 9, 7))) * 2
    edges = np.linspace(0.0, 20.0, 41)  # wide enough: numpy.histogram drops what is outside, and nothing is
    result = activation_entropy(x, edges)
    for i in range(3):
        counts, _ = np.histogram(x[i], edges)
        np.testing.assert_array_equal(result.counts[i, 1:-1], counts)
        p = torch.from_numpy(counts / counts.sum())
        assert result.histogram_entropy[i] == pytest.approx(float(torch.special.entr(p).sum()), abs=1e-12)
        q = torch.from_numpy(x[i] / x[i].sum())
        assert result.mass_entropy[i] == pytest.approx(float(torch.special.entr(q).sum()), abs=1e-12)


def test_reference_on_frames_whose_entropy_is_known():
    x = np.array([[1, 1, 1, 1], [0, 0, 0, 5], [2, -2, 0, 0], [0, 0, 0, 0]], np.float64)
    result = activation_entropy(x, [0.0, 1.0, 2.0])
    np.testing.assert_allclose(result.mass_entropy[:3], [np.log(4), 0, np.log(2)], atol=1e-15)
    assert np.isnan(result.mass_entropy[3])
    assert result.counts.tolist() == [[0, 0, 4, 0], [0, 3, 0, 1], [1, 2, 0, 1], [0, 4, 0, 0]]
    np.testing.assert_allclose(result.histogram_entropy[2], 1.5 * np.log(2), atol=1e-15)
    assert result.histogram_entropy[0] == 0.0


def test_reference_gives_nan_for_frames_that_are_not_finite_and_only_for_them():
    x = np.ones((4, 3))
    x[1, 0], x[2, 2] = NAN, -INF
    result = activation_entropy(x, [0.5])
    assert np.isnan(result.histogram_entropy).tolist() == [False, True, True, False]
    assert np.isnan(result.mass_entropy).tolist() == [False, True, True, False]
    assert result.non_finite.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("edges", [[], [1.0, 1.0], [2.0, 1.0], [NAN], [0.0, INF], [[0.0]]], ids=str)
def test_reference_refuses_bad_edges(edges):
    with pytest.raises(ValueError, match="edges: asked for at least one finite number, strictly ascending"):
        activation_entropy(np.ones((1, 2)), edges)


@pytest.mark.parametrize("shape", [(3,), (2, 0), (0,)], ids=str)
def test_reference_refuses_frames_without_elements(shape):
    with pytest.raises(ValueError, match="at least one element a frame"):
        activation_entropy(np.ones(shape), [0.0])


# The kernel.


@pytest.fixture(scope="module")
def kernels(emulate):
    return emulate.compile(SOURCE)


def encode(values, dtype):
    """Return raw storage and the values it holds; bfloat16 by truncation, which is as good as any here."""
    values = np.asarray(values, np.float32)
    if dtype == "bf16":
        raw = (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
        return raw, (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(over="ignore"):
        raw = values.astype({"f16": np.float16, "f32": np.float32}[dtype])
    return raw, raw.astype(np.float32)


class Tap:
    """Memory of one tap as the runtime would hold it: inputs, outputs, workspace; launched as often as wanted."""

    def __init__(self, emulate, kernels, raw, dtype, edges, offset=0):
        self.kernels, self.frames, self.elements = kernels, len(raw), raw[0].size
        self.data = emulate.aligned(raw.size, raw.dtype, offset * raw.dtype.itemsize)
        self.data[...] = raw.ravel()
        self.edges = emulate.aligned(len(edges), np.float32)
        self.edges[...] = edges
        layout = launch.workspace_bytes(dtype, self.frames, self.elements, len(edges))
        self.workspace = emulate.aligned(layout.total, np.uint8)
        self.workspace[4 * self.frames :] = 0xA5  # only the tickets may be relied on
        self.histogram, self.mass = emulate.aligned(self.frames, np.float32), emulate.aligned(self.frames, np.float32)
        self.counts = emulate.aligned((self.frames, len(edges) + 1), np.uint32)
        self.non_finite = emulate.aligned(self.frames, np.uint32)
        self.plan = launch.plan_activation_entropy(
            self.data.ctypes.data,
            dtype,
            self.frames,
            self.elements,
            self.edges.ctypes.data,
            len(edges),
            self.workspace.ctypes.data,
            self.histogram.ctypes.data,
            self.mass.ctypes.data,
            self.counts.ctypes.data,
            self.non_finite.ctypes.data,
        )

    def run(self, order=0):
        for out in (self.histogram, self.mass, self.counts, self.non_finite):
            out.view(np.uint8)[...] = 0xA5
        plan = self.plan
        self.kernels.launch(
            plan.kernel,
            grid=plan.grid,
            block=plan.block,
            arguments=(plan.parameters,),
            shared_bytes=plan.shared_bytes,
            order=order,
        )
        return self.histogram.tobytes() + self.mass.tobytes() + self.counts.tobytes() + self.non_finite.tobytes()


def check(emulate, kernels, values, dtype, edges=EDGES_30, offset=0, order=0):
    raw, exact = encode(values, dtype)
    tap = Tap(emulate, kernels, raw, dtype, edges, offset)
    tap.run(order)
    truth = activation_entropy(exact, edges)
    where = f"{dtype} {raw.shape} edges {len(edges)} offset {offset} order {order}"
    np.testing.assert_array_equal(tap.counts, truth.counts, err_msg=where)
    np.testing.assert_array_equal(tap.non_finite, truth.non_finite, err_msg=where)
    for name, found in (("histogram_entropy", tap.histogram), ("mass_entropy", tap.mass)):
        wanted = getattr(truth, name)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted), err_msg=f"{where}: {name}")
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5, err_msg=f"{where}: {name}")
    assert not (tap.histogram > np.float32(np.log(len(edges) + 1))).any()
    assert not ((tap.histogram < 0) | (tap.mass < 0) | (tap.mass > np.float32(np.log(exact[0].size)))).any()
    assert not tap.workspace[: 4 * len(raw)].any(), "the tickets are zero again"
    return tap


def relu(shape, scale=2.0, seed=3):
    return np.maximum(np.random.default_rng(seed).normal(size=shape), 0).astype(np.float32) * np.float32(scale)


# Each says why it is here.
SHAPES = {
    "one element": (1, 1, 1, 1),
    "less than a window": (3, 1, 1, 5),
    "one ragged block": (2, 3, 17, 19),
    "several blocks, odd rows": (2, 5, 59, 61),
    "a first convolution": (1, 16, 56, 56),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_shapes(emulate, kernels, shape, dtype):
    for offset in (0, 1):
        check(emulate, kernels, relu(shape), dtype, offset=offset)


def test_frames_spread_over_several_blocks(emulate, kernels):
    tap = check(emulate, kernels, relu((2, 16, 56, 56)), "f32", order=1)
    assert tap.plan.grid == (13, 2, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 31, 32, 33, 1024])
def test_number_of_edges(emulate, kernels, count):
    values = np.random.default_rng(5).normal(size=(2, 500))
    edges = np.unique(np.random.default_rng(count).normal(size=count).astype(np.float32))
    values[0, :count] = edges[: values.shape[1]][:count] if count <= 500 else values[0, :count]
    check(emulate, kernels, values, "f32", edges)  # elements that lie exactly on an edge belong above it


def test_elements_outside_the_edges_are_counted(emulate, kernels):
    tap = check(emulate, kernels, [[-5.0, -1e30, 0.5, 7.0, 1e30, 1.0]], "f32", np.array([0.0, 1.0], np.float32))
    assert tap.counts.tolist() == [[2, 1, 3]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_frames_without_a_distribution(emulate, kernels, dtype):
    values = relu((8, 3000))
    values[1, 0], values[2, 2999], values[3, 1500], values[4, 7:9] = NAN, INF, -INF, (NAN, INF)
    values[5] = 0.0
    values[6, :] = NAN
    tap = check(emulate, kernels, values, dtype, offset=1)
    assert np.isnan(tap.mass).tolist() == [False, True, True, True, True, True, True, False]
    for entropy in (tap.histogram, tap.mass):
        assert not (entropy[1:5] <= INF).any()


def test_mass_beyond_fp32_is_nan(emulate, kernels):
    # The documented limits: a sum above 2e36 or of subnormal terms has no fp32 answer, and no answer rejects.
    values = np.repeat(np.float32([[3e38], [1e-36], [1e-20], [1e34]]), 100, axis=1)
    tap = Tap(emulate, kernels, encode(values, "f32")[0], "f32", EDGES_30)
    tap.run()
    assert np.isnan(tap.mass).tolist() == [True, True, False, False]
    np.testing.assert_allclose(tap.mass[2:], np.log(100), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_replays_in_any_schedule_give_the_same_bits(emulate, kernels, dtype):
    # As a CUDA graph would: the same memory again and again, nothing reset in between, blocks finishing in any order.
    raw, _ = encode(relu((2, 8, 50, 61)), dtype)
    tap = Tap(emulate, kernels, raw, dtype, EDGES_30, offset=1)
    assert tap.plan.grid[0] > 1
    first = tap.run()
    for order in range(1, 8):
        assert tap.run(order) == first


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(DTYPES),
    frames=st.integers(1, 3),
    elements=st.one_of(st.integers(1, 100), st.integers(101, 12_000)),
    edge_count=st.integers(1, 70),
    scale=st.sampled_from([1e-3, 1.0, 50.0, 1e4]),
    sparse=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    offset=st.integers(0, 7),
    order=st.integers(0, 9),
)
def test_drawn_taps(emulate, kernels, dtype, frames, elements, edge_count, scale, sparse, seed, offset, order):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(frames, elements)) * scale
    if sparse:
        values = np.maximum(values, 0)
    if seed % 5 == 0:
        values[rng.integers(frames), rng.integers(elements)] = rng.choice([NAN, INF, -INF])
    edges = np.unique((rng.normal(size=edge_count) * scale).astype(np.float32))
    check(emulate, kernels, values, dtype, edges, offset, order)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "f64"}, "dtype"),
        ({"frames": 0}, "frames: asked for 1 to 65535, found 0"),
        ({"elements": 0}, "elements"),
        ({"elements": 2**31}, "elements"),
        ({"edge_count": 0}, "edges: asked for 1 to 1024"),
        ({"edge_count": 1025}, "edges: asked for 1 to 1024, found 1025"),
        ({"activations": 4097}, "activations: asked for an address aligned to 2"),
        ({"activations": 0}, "activations"),
        ({"edges": 2}, "edges: asked for an address"),
        ({"workspace": 0}, "workspace"),
        ({"counts": 2}, "counts: asked for 0 or"),
    ],
)
def test_taps_that_the_kernel_cannot_do_are_refused(changes, message):
    arguments = {"activations": 4096, "dtype": "f16", "frames": 1, "elements": 10, "edges": 64, "edge_count": 3}
    arguments |= {"workspace": 64, "histogram_entropy": 64, "mass_entropy": 64}
    launch.plan_activation_entropy(**arguments)
    with pytest.raises(ValueError, match=message):
        launch.plan_activation_entropy(**(arguments | changes))


def test_structure_has_the_size_of_the_header():
    assert ctypes.sizeof(launch.ActivationEntropyParameters) == 80


def test_all_shapes_are_clean_under_sanitizers(emulate):
    if emulate.SANITIZE:
        pytest.skip("already inside the sanitized process")
    emulate.run_sanitized(__file__, "test_shapes or edges or without_a_distribution or replays")
