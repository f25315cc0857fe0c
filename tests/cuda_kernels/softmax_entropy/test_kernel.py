"""softmax_entropy/kernel.cu, run on the host, against reference.py: every shape and alignment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framegate.cuda_kernels.softmax_entropy import launch
from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores

SOURCE = "cuda_kernels/softmax_entropy/kernel.cu"
INF, NAN = np.inf, np.nan
DTYPES = ("f16", "bf16", "f32")
SCORES = {"entropy": "f4", "max_probability": "f4", "margin": "f4", "energy": "f4", "argmax": "i4"}
PIXEL_SCORES = {**SCORES, "argmax": "u1", "flags": "u1"}
# A probability of 16 bits is off by half a unit in its last place; the sums behind it are fp32.
PROBABILITY_TOLERANCE = {"f16": (2**-11, 1e-7), "bf16": (2**-8, 1e-7), "f32": (3e-6, 1e-9)}


@pytest.fixture(scope="module")
def kernels(emulate):
    return emulate.compile(SOURCE)


def encode(values, dtype):
    """Return raw storage and the exact values it holds."""
    values = np.asarray(values, np.float32)
    with np.errstate(over="ignore"):
        if dtype == "f16":
            raw = values.astype(np.float16)
            return raw.view(np.uint16), raw.astype(np.float64)
    if dtype == "f32":
        return values.view(np.uint32), values.astype(np.float64)
    bits = values.view(np.uint32)
    rounded = ((bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
    raw = np.where(np.isnan(values), np.uint16(0x7FC0), rounded)
    return raw, decode_bf16(raw)


def decode_bf16(raw):
    return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)


def decode(raw, dtype):
    if dtype == "bf16":
        return decode_bf16(raw)
    return raw.view({"f16": np.float16, "f32": np.float32}[dtype]).astype(np.float64)


def run_rows(emulate, kernels, raw, dtype, names, temperature=1.0, offset=0, gap=0, order=0):
    """Lay rows out `offset` elements past 256 bytes with `gap` elements between, launch, return outputs and plan."""
    rows, classes = raw.shape
    stride = classes + gap
    flat = emulate.aligned(rows * stride - gap, raw.dtype, offset * raw.dtype.itemsize)
    for row in range(rows):
        flat[row * stride : row * stride + classes] = raw[row]
        # Between the rows lies what would spoil every score.
        flat[row * stride + classes : (row + 1) * stride] = encode(NAN, dtype)[0]
    out = {}
    for name in names:
        shape, kind = (raw.shape, raw.dtype) if name == "probabilities" else (rows, np.dtype(SCORES[name]))
        out[name] = emulate.aligned(shape, kind)
        out[name].view(np.uint8)[...] = 0xA5
    addresses = {name: array.ctypes.data for name, array in out.items()}
    plan = launch.plan_rows(flat.ctypes.data, dtype, rows, classes, addresses, temperature, stride)
    kernels.launch(plan.kernel, grid=plan.grid, block=plan.block, arguments=(plan.parameters,), order=order)
    return out, plan


def check_scores(out, values, temperature, where):
    """Compare flat scores with the reference on the same values; `values` is (N, C) float64."""
    truth = softmax_scores(values, float(np.float32(temperature)))
    good = truth.finite
    if "argmax" in out:
        bad = 255 if out["argmax"].dtype == np.uint8 else -1
        np.testing.assert_array_equal(out["argmax"], np.where(good, truth.argmax, bad), err_msg=where)
    bounds = {"entropy": 1e-5, "max_probability": 2e-6, "margin": 2e-6}
    for name, bound in bounds.items():
        if name in out:
            found, wanted = out[name].astype(np.float64), getattr(truth, name)
            np.testing.assert_array_equal(np.isnan(found), ~good, err_msg=f"{where}: {name}")
            np.testing.assert_allclose(found[good], wanted[good], rtol=0, atol=bound, err_msg=f"{where}: {name}")
    if "entropy" in out:
        assert (out["entropy"][good] >= 0).all(), where
        assert (out["entropy"][good] <= np.float32(np.log(values.shape[1]))).all(), where
    if "energy" in out:
        scale = np.abs(values[good].max(axis=1, initial=-INF)) + temperature * np.log(values.shape[1])
        assert np.isnan(out["energy"][~good]).all(), where
        assert not (np.abs(out["energy"][good] - truth.energy[good]) > 3e-7 * scale + 1e-6).any(), where
    return good


def wanted_flags(out, good, limits):
    with np.errstate(invalid="ignore"):
        bits = np.where(good, 0, launch.PixelFlags.INVALID)
        bits |= np.where(out["entropy"] <= np.float32(limits.entropy_at_most), 0, 4)
        bits |= np.where(out["max_probability"] >= np.float32(limits.max_probability_at_least), 0, 8)
        bits |= np.where(out["margin"] >= np.float32(limits.margin_at_least), 0, 16)
        energy_ok = np.isfinite(out["energy"]) & (out["energy"] <= np.float32(limits.energy_at_most))
        bits |= np.where(energy_ok, 0, 32)
    return np.where(bits == 0, launch.PixelFlags.USABLE, bits)


def check_probabilities(raw, dtype, values, temperature, where):
    truth = softmax_scores(values, float(np.float32(temperature)))
    found = decode(raw, dtype)
    rtol, atol = PROBABILITY_TOLERANCE[dtype]
    if dtype == "f16":
        atol = 2**-25 + 1e-7  # below 2^-14 a half has an absolute unit
    np.testing.assert_array_equal(np.isnan(found).all(axis=1), ~truth.finite, err_msg=where)
    good = truth.finite
    np.testing.assert_allclose(found[good], truth.probabilities[good], rtol=rtol, atol=atol, err_msg=where)


def check_rows(emulate, kernels, values, dtype, temperature=1.0, **layout):
    """All four outputs of one matrix, each by its own kernel."""
    raw, exact = encode(values, dtype)
    where = f"{dtype} {raw.shape} {layout} T={temperature}"
    for names in (("entropy",), tuple(SCORES), (*SCORES, "probabilities")):
        out, plan = run_rows(emulate, kernels, raw, dtype, names, temperature, **layout)
        check_scores(out, exact, temperature, f"{plan.kernel} {where}")
        if "probabilities" in out:
            check_probabilities(out["probabilities"], dtype, exact, temperature, where)
    return plan


def normal(rows, classes, scale=5.0, seed=4):
    return np.random.default_rng(seed).normal(size=(rows, classes)).astype(np.float32) * np.float32(scale)


# (rows, classes): each says why it is here.
SHAPES = {
    "one camera frame, ten classes": (1, 10),
    "one class": (3, 1),
    "more rows than a block of threads has": (130, 16),
    "most classes a thread computes": (3, 32),
    "least for eight lanes": (3, 33),
    "rows that leave the last block partly empty": (17, 3),
    "largest for eight lanes": (2, 120),
    "smallest for a warp, or for sixteen lanes": (5, 121),
    "largest for sixteen lanes": (9, 504),
    "smallest for a warp": (3, 505),
    "ImageNet": (3, 1000),
    "largest for a warp": (2, 1016),
    "smallest for a block": (2, 1017),
    "a block whose last round is ragged": (1, 5003),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_shapes(emulate, kernels, shape, dtype):
    check_rows(emulate, kernels, normal(*shape), dtype, 1.5, order=1)


@pytest.mark.parametrize(("dtype", "classes"), [("f16", 65_536), ("f32", 65_536), ("bf16", 40_001)])
def test_largest_rows(emulate, kernels, dtype, classes):
    values = normal(1, classes, scale=2.0)
    values[0, classes - 2 :] = values.max() + 1  # a tie at the far end
    assert "_block_" in check_rows(emulate, kernels, values, dtype, offset=1).kernel


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [1, 7, 8, 9, 120, 504, 1016, 1030])
def test_every_alignment(emulate, kernels, dtype, classes):
    # With a gap of 1 the rows of one launch start at different places in their windows as well.
    raw, exact = encode(normal(3, classes), dtype)
    for offset in range(16 // raw.dtype.itemsize):
        out, plan = run_rows(emulate, kernels, raw, dtype, (*SCORES, "probabilities"), offset=offset, gap=1)
        check_scores(out, exact, 1.0, f"{plan.kernel} offset {offset}")
        check_probabilities(out["probabilities"], dtype, exact, 1.0, f"{plan.kernel} offset {offset}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [5, 121, 1017])
def test_special_values_at_every_kind_of_place(emulate, kernels, dtype, classes):
    places = sorted({0, 1, 3, classes // 2, classes - 2, classes - 1})
    rows = []
    for place in places:
        for special in (NAN, INF, -INF, -NAN):
            for fill in (None, -INF):
                row = normal(1, classes, seed=place)[0] if fill is None else np.full(classes, fill, np.float32)
                row[place] = special
                rows.append(row)
    mixed = normal(1, classes)[0]
    mixed[0], mixed[-1] = NAN, INF
    rows += [mixed, np.full(classes, -INF), np.full(classes, INF), np.full(classes, NAN), np.zeros(classes)]
    lone = np.full(classes, -INF)
    lone[classes - 1] = -4.0
    check_rows(emulate, kernels, np.stack([*rows, lone]), dtype, offset=1)


@pytest.mark.parametrize("classes", [3, 200, 2000])
def test_hard_numbers(emulate, kernels, classes):
    big = float(np.finfo(np.float32).max)
    rows = [(100.0, 0.0, 0.0), (200.0, 0.0, 0.0), (1e4, 1e4 + 0.25, 1e4 - 1.5), (-5000.0, -5001.0, -5002.5)]
    rows += [(65504.0, 65504.0, -65504.0), (big, -big, 0.0), (big, big, big), (-big, -big, -big), (1e10, 1e10, 0.0)]
    values = np.stack([np.resize(np.float32(row), classes) for row in rows])
    for temperature in (0.01, 1.0, 100.0):
        check_rows(emulate, kernels, values, "f32", temperature)


def test_ties_go_to_the_lowest_index_across_lanes_and_warps(emulate, kernels):
    for classes in (9, 120, 1000, 4000):
        for first, second in ((0, classes - 1), (classes // 2, classes // 2 + 1), (classes // 3, classes - 2)):
            values = normal(1, classes)
            values[0, [first, second]] = 30.0
            out, _ = run_rows(emulate, kernels, encode(values, "f16")[0], "f16", tuple(SCORES), offset=3)
            assert (out["argmax"][0], out["margin"][0]) == (first, 0.0)
            assert not np.signbit(out["margin"][0])


@st.composite
def _cases(draw):
    dtype = draw(st.sampled_from(DTYPES))
    rows, classes = draw(st.integers(1, 5)), draw(st.one_of(st.integers(1, 40), st.integers(41, 1300)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.normal(size=(rows, classes)) * draw(st.sampled_from([0.0, 1e-3, 1.0, 8.0, 300.0, 2e4]))
    values += draw(st.sampled_from([0.0, 1e3, -1e4]))
    share = draw(st.sampled_from([0.0, 0.0, 0.02, 0.5]))
    special = rng.choice(draw(st.sampled_from([[-INF], [NAN], [INF], [NAN, INF, -INF]])), size=values.shape)
    values = np.where(rng.random(values.shape) < share, special, values)
    temperature = draw(st.floats(0.0625, 20.0, width=32))
    layout = {"offset": draw(st.integers(0, 7)), "gap": draw(st.integers(0, 9)), "order": draw(st.integers(0, 9))}
    return values, dtype, temperature, layout


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=_cases())
def test_drawn_rows(emulate, kernels, case):
    values, dtype, temperature, layout = case
    check_rows(emulate, kernels, values, dtype, temperature, **layout)


@pytest.mark.parametrize("classes", [10, 1000, 3000])
def test_schedule_does_not_move_a_bit(emulate, kernels, classes):
    raw, _ = encode(normal(9, classes), "f16")
    names = (*SCORES, "probabilities")
    first, _ = run_rows(emulate, kernels, raw, "f16", names)
    for order in (1, 2, 3):
        again, _ = run_rows(emulate, kernels, raw, "f16", names, order=order)
        for name in names:
            assert again[name].tobytes() == first[name].tobytes(), (name, order)


@pytest.mark.parametrize("classes", [10, 1000, 3000])
def test_bad_rows_leave_their_neighbours_alone_to_the_last_bit(emulate, kernels, classes):
    values = normal(6, classes)
    clean, _ = run_rows(emulate, kernels, encode(values, "f32")[0], "f32", tuple(SCORES))
    values[[1, 4], [0, classes - 1]] = NAN, INF
    dirty, _ = run_rows(emulate, kernels, encode(values, "f32")[0], "f32", tuple(SCORES))
    for name in SCORES:
        assert dirty[name][[0, 2, 3, 5]].tobytes() == clean[name][[0, 2, 3, 5]].tobytes()
    assert (dirty["argmax"][[1, 4]] == -1).all()


def test_an_impossible_temperature_that_reaches_the_kernel_gives_no_scores(emulate, kernels):
    for temperature in (0.0, -1.0, INF, NAN, -INF, 1e-45):
        for classes in (4, 500, 2000):
            logits, entropy = normal(2, classes), emulate.aligned(2, np.float32)
            argmax = emulate.aligned(2, np.int32)
            outputs = {"entropy": entropy.ctypes.data, "argmax": argmax.ctypes.data}
            plan = launch.plan_rows(logits.ctypes.data, "f32", 2, classes, outputs)
            plan.parameters.temperature = temperature
            with np.errstate(divide="ignore", over="ignore"):
                plan.parameters.inverse_temperature = np.float32(1) / np.float32(temperature)
            kernels.launch(plan.kernel, grid=plan.grid, block=plan.block, arguments=(plan.parameters,))
            assert np.isnan(entropy).all(), temperature
            assert (argmax == -1).all(), temperature


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [7, 100, 1000, 1500])
def test_rows_that_the_quick_way_cannot_compute_are_computed_again(emulate, kernels, classes, dtype):
    """Masks, logits at the padding's value, offsets beyond the fused product, among ordinary rows."""
    values = normal(9, classes)
    values[1, : classes // 2] = -INF
    values[2] = -65504.0
    values[3] = -65504.0 + 32 * np.arange(classes)
    values[4, 1:] = -INF
    values[5] *= np.float32(3000)
    if dtype != "f16":
        values[6] += np.float32(3e8)
        values[7] = np.float32(-1.0002556e30 if dtype == "bf16" else -1e30)
        values[8] = np.float32(-3e38)
    raw, exact = encode(values, dtype)
    for temperature in (1.0, 0.01, 2000.0, 1e23):  # with the last the padding's fused product is small, too
        out, plan = run_rows(emulate, kernels, raw, dtype, ("entropy",), temperature, offset=1)
        check_scores(out, exact, temperature, plan.kernel)


# Records.


def run_records(emulate, kernels, values, sequence, memory, temperature=1.0):
    raw, exact = encode(values, "f16")
    number = np.full(1, sequence, np.uint32)
    addresses = {"records": memory.ctypes.data, "sequence": number.ctypes.data}
    rows, classes = raw.shape
    plan = launch.plan_rows(raw.ctypes.data, "f16", rows, classes, addresses, temperature)
    kernels.launch(plan.kernel, grid=plan.grid, block=plan.block, arguments=(plan.parameters,))
    return exact


@pytest.mark.parametrize("classes", [10, 1000, 2000])
def test_record_says_what_the_scores_say(emulate, kernels, classes):
    memory = emulate.aligned((3, 32), np.uint8)
    values = normal(3, classes)
    values[1, 4] = NAN
    exact = run_records(emulate, kernels, values, 77, memory, 1.5)
    truth = softmax_scores(exact, 1.5)
    for row in range(3):
        assert launch.read_record(memory[row].tobytes(), 78) is None
        record = launch.read_record(memory[row].tobytes(), 77)
        assert record is not None
        assert record.argmax == truth.argmax[row]
        for name in ("entropy", "max_probability", "margin", "energy"):
            np.testing.assert_allclose(getattr(record, name), getattr(truth, name)[row], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(("dtype", "classes"), [("f32", 3), ("f32", 1000), ("f16", 999), ("f32", 1500)])
def test_a_record_brings_its_logits_along(emulate, kernels, dtype, classes):
    raw, _ = encode(normal(2, classes), dtype)
    copied = emulate.aligned(raw.shape, raw.dtype)
    copied[...] = 7
    memory, number = emulate.aligned((2, 32), np.uint8), np.full(1, 9, np.uint32)
    addresses = {"records": memory.ctypes.data, "sequence": number.ctypes.data, "copy": copied.ctypes.data}
    stored = emulate.aligned(raw.shape, raw.dtype)
    stored[...] = raw
    plan = launch.plan_rows(stored.ctypes.data, dtype, 2, classes, addresses)
    kernels.launch(plan.kernel, grid=plan.grid, block=plan.block, arguments=(plan.parameters,))
    np.testing.assert_array_equal(copied, raw)
    assert launch.read_record(memory[1].tobytes(), 9) is not None


def test_one_half_of_a_record_is_no_record(emulate, kernels):
    """The two halves arrive in any order: a new one beside an old one must not be taken for a whole."""
    memory = emulate.aligned((1, 32), np.uint8)
    run_records(emulate, kernels, normal(1, 10, seed=1), 5, memory)
    old = memory[0].tobytes()
    run_records(emulate, kernels, normal(1, 10, seed=2), 6, memory)
    new = memory[0].tobytes()
    assert launch.read_record(new, 6) is not None
    for torn in (new[:16] + old[16:], old[:16] + new[16:]):
        assert launch.read_record(torn, 5) is None
        assert launch.read_record(torn, 6) is None


def test_torn_and_empty_records_are_no_records(emulate, kernels):
    memory = emulate.aligned((1, 32), np.uint8)
    for sequence in (0, 1):
        assert launch.read_record(bytes(32), sequence) is None
    run_records(emulate, kernels, normal(1, 10), 5, memory)
    whole = memory[0].tobytes()
    assert launch.read_record(whole, 5) is not None
    for bit in range(8 * 28):  # all but the padding
        torn = bytearray(whole)
        torn[bit // 8] ^= 1 << bit % 8
        assert launch.read_record(torn, 5) is None, bit


# Dense.


def run_dense(emulate, kernels, raw, dtype, names, temperature=1.0, limits=None, offset=0, order=0):
    images, channels, pixels = raw.shape
    flat = emulate.aligned(raw.size, raw.dtype, offset * raw.dtype.itemsize)
    flat[...] = raw.ravel()
    labels = set(names) <= {"entropy", "argmax"}
    out = {}
    for name in names:
        kind = np.dtype(PIXEL_SCORES.get(name, raw.dtype))
        if name == "entropy" and labels and dtype != "f32":
            kind = np.dtype(np.float16)
        out[name] = emulate.aligned(raw.shape if name == "probabilities" else (images, pixels), kind)
        out[name].view(np.uint8)[...] = 0xA5
    addresses = {name: array.ctypes.data for name, array in out.items()}
    plan = launch.plan_dense(flat.ctypes.data, dtype, images, channels, pixels, addresses, temperature, limits)
    kernels.launch(plan.kernel, grid=plan.grid, block=plan.block, arguments=(plan.parameters,), order=order)
    return out, plan


def check_dense(emulate, kernels, values, dtype, temperature=1.0, limits=None, **layout):
    raw, exact = encode(values, dtype)
    rows = np.moveaxis(exact, 1, 2).reshape(-1, raw.shape[1])
    names = (*PIXEL_SCORES, "probabilities")
    out, plan = run_dense(emulate, kernels, raw, dtype, names, temperature, limits, **layout)
    found = np.moveaxis(out["probabilities"], 1, 2).reshape(rows.shape)
    check_probabilities(np.ascontiguousarray(found), dtype, rows, temperature, plan.kernel)
    flat = {name: out[name].ravel() for name in PIXEL_SCORES}
    good = check_scores(flat, rows, temperature, plan.kernel)
    np.testing.assert_array_equal(flat["flags"], wanted_flags(flat, good, limits or launch.Limits()), plan.kernel)
    fast, fast_plan = run_dense(emulate, kernels, raw, dtype, ("entropy", "argmax"), temperature, **layout)
    np.testing.assert_array_equal(fast["argmax"], out["argmax"])
    found, exact_entropy = fast["entropy"].astype(np.float64), out["entropy"].astype(np.float64)
    half = 0 if dtype == "f32" else 2**-10
    np.testing.assert_allclose(found, exact_entropy, rtol=half, atol=1e-5, err_msg=fast_plan.kernel)
    return plan.kernel, fast_plan.kernel


def dense_values(images, channels, pixels, seed=9):
    values = np.random.default_rng(seed).normal(size=(images, channels, pixels)).astype(np.float32) * 4
    values[0, -1, 0], values[-1, 0, -1], values[0, :, pixels // 2] = NAN, INF, -INF
    values[0, :, pixels // 3] = 1.0
    return values


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 4, 5, 12, 13, 19, 24, 32])
def test_dense_channels(emulate, kernels, dtype, channels):
    names = check_dense(
        emulate, kernels, dense_values(2, channels, 300), dtype, 0.7, launch.Limits(1.2, 0.3, 0.1, -1.0), order=1
    )
    bound = next(b for b in launch.DENSE_BOUNDS if b >= channels)
    assert names == tuple(f"softmax_entropy_dense_{dtype}_c{bound}_{kind}" for kind in ("scores", "labels"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("pixels", "offset"), [(301, 0), (1, 0), (300, 1), (2, 1)])
def test_dense_without_alignment(emulate, kernels, dtype, pixels, offset):
    names = check_dense(emulate, kernels, dense_values(3, 19, pixels), dtype, offset=offset)
    assert all("_unaligned_" in name for name in names)


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_a_channel_that_is_not_there_is_no_pixel_s_label(emulate, kernels, dtype):
    """All logits lie below the padding, and so near to it, by this temperature, that it could weigh something."""
    for channels in (1, 2, 19):
        check_dense(emulate, kernels, np.full((1, channels, 8), -3e38, np.float32), dtype, 1e23)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 32), st.integers(1, 70)),
    seed=st.integers(0, 2**32 - 1),
    temperature=st.floats(0.0625, 20.0, width=32),
    limits=st.builds(
        launch.Limits,
        st.sampled_from([INF, 1.0, 0.0, NAN]),
        st.sampled_from([-INF, 0.5, NAN]),
        st.sampled_from([-INF, 0.1]),
        st.sampled_from([INF, -2.0]),
    ),
    offset=st.integers(0, 3),
    order=st.integers(0, 5),
)
def test_drawn_dense(emulate, kernels, dtype, shape, seed, temperature, limits, offset, order):
    values = dense_values(*shape, seed=seed)
    check_dense(emulate, kernels, values, dtype, temperature, limits, offset=offset, order=order)


def test_no_limit_makes_a_pixel_without_a_distribution_usable(emulate, kernels):
    values = np.array([[[NAN, 1, -INF], [INF, 1, -INF]]], np.float32)
    values[0, 0, 1] = INF
    for limit in (INF, NAN):
        limits = launch.Limits(limit, -limit, -limit, limit)
        out, _ = run_dense(emulate, kernels, encode(values, "f32")[0], "f32", ("flags",), limits=limits)
        assert (out["flags"] == 62).all()  # INVALID, and every comparison failed


@pytest.mark.long
def test_all_layouts_are_clean_under_sanitizers(emulate):
    if emulate.SANITIZE:
        pytest.skip("already inside the sanitized process")
    expression = "alignment or test_shapes or special_values or hard_numbers or schedule or record or dense_channels"
    emulate.run_sanitized(__file__, expression)
