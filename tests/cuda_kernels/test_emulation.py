"""The emulation itself: it must compute what a GPU computes and refuse what a GPU leaves undefined."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest

SOURCE = "tests/helpers/emulation/probe.cu"


@pytest.fixture(scope="module")
def probe(emulate):
    return emulate.compile(SOURCE)


@pytest.mark.parametrize("order", [0, 1, 7])
@pytest.mark.parametrize("threads", [1, 31, 32, 33, 256, 1024])
def test_barrier_makes_shared_memory_safe_in_every_order(probe, order, threads):
    x = np.arange(3 * threads, dtype=np.int32)
    out = np.zeros_like(x)
    arguments = (x, out, np.int32(1))
    probe.launch(
        "probe_reverse", grid=(3,), block=(threads,), arguments=arguments, shared_bytes=4 * threads, order=order
    )
    np.testing.assert_array_equal(out.reshape(3, -1), x.reshape(3, -1)[:, ::-1])


def test_forgotten_barrier_is_seen(probe):
    x, out = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    probe.launch("probe_reverse", grid=(1,), block=(64,), arguments=(x, out, np.int32(0)), shared_bytes=256)
    assert not np.array_equal(out, x[::-1])


def test_indices_in_three_dimensions(probe):
    out = np.zeros(2 * 3 * 2 * 4 * 3 * 2, np.int32)
    probe.launch("probe_index", grid=(2, 3, 2), block=(4, 3, 2), arguments=(out,))
    block, z, y, x = np.indices((12, 2, 3, 4))
    np.testing.assert_array_equal(out, (x + 100 * y + 10000 * z + 1000000 * (block + 1)).ravel())


@pytest.mark.parametrize("order", [0, 1, 3])
def test_warp_functions(probe, order):
    out = np.zeros((64, 8), np.int32)
    probe.launch("probe_shuffles", grid=(1,), block=(64,), arguments=(out,), order=order)
    lane = np.arange(64) % 32
    np.testing.assert_array_equal(out[:, 0], lane ^ 5)
    np.testing.assert_array_equal(out[:, 1], np.where(lane < 29, lane + 3, lane))
    np.testing.assert_array_equal(out[:, 2], np.where(lane % 8 >= 3, lane - 3, lane))
    np.testing.assert_array_equal(out[:, 3], lane // 8 * 8 + 2)
    assert (out[:, 4].view(np.uint32) == sum(1 << i for i in range(0, 32, 3))).all()
    assert (out[:, 5] == 1).all()
    np.testing.assert_array_equal(out[:, 6], lane ^ 1)
    assert (out[:, 7] == 32).all()


def test_disjoint_masks_after_a_branch(probe):
    out = np.zeros(32, np.int32)
    probe.launch("probe_half_warp", grid=(1,), block=(32,), arguments=(out,))
    i = np.arange(32)
    np.testing.assert_array_equal(out, np.where(i < 16, i ^ 1, i ^ 2))


def test_undefined_behaviour_is_refused(probe, emulate):
    out = np.zeros(64, np.int32)
    cases = [
        ("probe_divergent_barrier", (), "31 wait at __syncthreads"),
        ("probe_divergent_shuffle", (out,), "31 in a warp function"),
        ("probe_foreign_lane", (out,), "reads a lane that its mask does not name"),
    ]
    for kernel, arguments, message in cases:
        with pytest.raises(emulate.EmulationError, match=message):
            probe.launch(kernel, grid=(1,), block=(32,), arguments=arguments)
    # A failed launch leaves nothing behind.
    probe.launch("probe_half_warp", grid=(1,), block=(32,), arguments=(out,))


@pytest.mark.parametrize("offset", [0, 4, 8, 12])
def test_misaligned_vector_load_is_refused(probe, emulate, offset):
    x, out = emulate.aligned(8, np.float32), np.zeros(1, np.float32)
    x[:] = 1.0
    pointer = emulate.Pointer(x.ctypes.data + offset)
    if offset == 0:
        probe.launch("probe_wide_load", grid=(1,), block=(1,), arguments=(pointer, out))
        assert out[0] == 4.0
    elif emulate.SANITIZE:
        pytest.skip("the real sanitizer ends the process instead")
    else:
        with pytest.raises(emulate.EmulationError, match="misaligned access"):
            probe.launch("probe_wide_load", grid=(1,), block=(1,), arguments=(pointer, out))


def test_atomics(probe):
    total, wide, ored = np.zeros(1, np.uint32), np.zeros(1, np.uint64), np.zeros(1, np.uint32)
    largest = np.full(1, -5, np.int32)
    probe.launch("probe_atomics", grid=(3,), block=(100,), arguments=(total, largest, wide, ored), order=5)
    assert (total[0], largest[0], wide[0], ored[0]) == (299 * 300 // 2, 299, 300 << 32, 0xFFFFFFFF)


def test_half_conversions_agree_with_numpy_and_torch(probe):
    rng = np.random.default_rng(3)
    bits = rng.integers(0, 2**32, 20000, dtype=np.uint32)
    # All halves, their neighbours in float32 and the midpoints between them: where rounding to even decides.
    halves = np.arange(2**16, dtype=np.uint16)[::7].view(np.float16).astype(np.float32).view(np.uint32)
    x = np.concatenate([bits, *(halves + np.uint32(k) for k in (0, 1, 0xFFF, 0x1000, 0x1001, 0x8000, 0x7FFF))])
    x = x.view(np.float32)
    half, bfloat = np.zeros(len(x), np.uint16), np.zeros(len(x), np.uint16)
    probe.launch("probe_halves", grid=(1,), block=(32,), arguments=(x, half, bfloat, np.int32(len(x))))
    nan = np.isnan(x)
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(half[~nan], x.astype(np.float16).view(np.uint16)[~nan])
    assert (half[nan] == 0x7FFF).all()
    assert (bfloat[nan] == 0x7FFF).all()
    torch = pytest.importorskip("torch")
    expected = torch.from_numpy(x).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(bfloat[~nan], expected[~nan])


def test_every_half_and_bfloat_pattern_becomes_the_right_float(probe):
    x = np.arange(2**16, dtype=np.uint16)
    half, bfloat = np.zeros(2**16, np.float32), np.zeros(2**16, np.float32)
    probe.launch("probe_floats", grid=(2**8,), block=(2**8,), arguments=(x, half, bfloat))
    np.testing.assert_array_equal(half, x.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(bfloat, (x.astype(np.uint32) << 16).view(np.float32))


def test_conversions_to_integers_round_and_saturate(probe):
    x = np.array([0.5, 1.5, -0.5, -1.5, 2.7, -2.7, 3e9, -3e9, np.inf, -np.inf, np.nan], np.float32)
    out = np.zeros((len(x), 5), np.int32)
    probe.launch("probe_conversions", grid=(1,), block=(len(x),), arguments=(x, out))
    low, high = -(2**31), 2**31 - 1
    wide = np.nan_to_num(x.astype(np.float64), nan=0.0)
    for column, function in enumerate((np.rint, np.trunc, np.floor, np.ceil)):
        np.testing.assert_array_equal(out[:, column], np.clip(function(wide), low, high))
    np.testing.assert_array_equal(out[:, 4].view(np.uint32), np.clip(np.rint(wide), 0, 2**32 - 1))


def test_fence_hook_sees_what_the_host_sees(probe):
    record, seen = np.zeros(2, np.int32), []
    probe.on_system_fence(lambda: seen.append(record.tolist()))
    try:
        probe.launch("probe_fence", grid=(1,), block=(1,), arguments=(record,))
    finally:
        probe.on_system_fence(None)
    assert seen == [[0, 7]]
    assert record.tolist() == [1, 7]


def test_wrong_launches_are_refused(probe, emulate):
    out = np.zeros(1, np.int32)
    for grid, block, shared, message in [
        ((1,), (1025,), 0, "1 to 1024 threads"),
        ((0,), (32,), 0, "grid"),
        ((1, 65536), (32,), 0, "grid"),
        ((1,), (32,), 49153, "48 KiB"),
    ]:
        with pytest.raises(emulate.EmulationError, match=message):
            probe.launch("probe_index", grid=grid, block=block, arguments=(out,), shared_bytes=shared)
    with pytest.raises(emulate.EmulationError, match="gave it 0 bytes"):
        probe.launch("probe_reverse", grid=(1,), block=(1,), arguments=(out, out, np.int32(1)))
    with pytest.raises(TypeError, match="3 parameters, found 1"):
        probe.launch("probe_reverse", grid=(1,), block=(1,), arguments=(out,))
    with pytest.raises(TypeError, match="parameter 2: 4 bytes, found 8 bytes"):
        probe.launch("probe_reverse", grid=(1,), block=(1,), arguments=(out, out, np.int64(1)))
    with pytest.raises(TypeError, match="found int"):
        probe.launch("probe_reverse", grid=(1,), block=(1,), arguments=(out, out, 1))
    with pytest.raises(emulate.EmulationError, match="no kernel"):
        probe.launch("probe_absent", grid=(1,), block=(1,), arguments=())


def test_aligned_arrays_start_where_asked(emulate):
    for dtype in (np.float16, np.float32, np.uint8):
        for offset in (0, 2, 4, 6, 12, 14, 128):
            if offset % np.dtype(dtype).itemsize == 0:
                assert emulate.aligned((3, 5), dtype, offset).ctypes.data % 256 == offset


def test_compile_errors_carry_the_compilers_words(emulate, tmp_path):
    broken = tmp_path / "broken.cu"
    broken.write_text('#include "cuda_emulation.h"\nextern "C" __global__ void k(int* x) { *x = nonsense; }\n')
    with pytest.raises(emulate.EmulationError, match="nonsense"):
        emulate.compile(broken)
    broken.write_text('#include "cuda_emulation.h"\n')
    with pytest.raises(emulate.EmulationError, match="has no kernel"):
        emulate.compile(broken)


# Sanitizers: first that they see, then that they have nothing to say.

OVERRUN = """
    import sys
    sys.path.append("tests/helpers")
    import emulate
    import numpy as np
    probe = emulate.compile("tests/helpers/emulation/probe.cu")
    x, out = emulate.aligned(8, np.float32), np.zeros(64, np.float32)
    probe.launch({launch})
    print("survived")
"""
LAUNCHES = {
    "global": ('"probe_out_of_bounds", grid=(1,), block=(1,), arguments=(x, out, np.int32(8))', "heap-buffer-overflow"),
    "shared": (
        '"probe_shared_overrun", grid=(1,), block=(32,), arguments=(out, np.int32(8)), shared_bytes=32',
        "heap-buffer-overflow",
    ),
    "alignment": (
        '"probe_wide_load", grid=(1,), block=(1,), arguments=(emulate.Pointer(x.ctypes.data + 4), out)',
        "misaligned address",
    ),
    "nothing": ('"probe_out_of_bounds", grid=(1,), block=(1,), arguments=(x, out, np.int32(7))', None),
}


@pytest.mark.long  # as the tests that rely on it are
@pytest.mark.parametrize(("launch", "report"), LAUNCHES.values(), ids=LAUNCHES.keys())
def test_sanitizers_see_what_they_are_for(emulate, launch, report):
    if emulate.SANITIZE:
        pytest.skip("already inside the sanitized process")
    script = textwrap.dedent(OVERRUN).format(launch=launch)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=emulate.sanitized_environment(),
        cwd=emulate.REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if report is None:
        assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr
    else:
        assert done.returncode != 0
        assert report in done.stderr


@pytest.mark.long
def test_barriers_shuffles_and_atomics_are_clean_under_sanitizers(emulate):
    if emulate.SANITIZE:
        pytest.skip("already inside the sanitized process")
    emulate.run_sanitized(__file__, "barrier or warp_functions or masks or refused or atomics or integers or hook")
