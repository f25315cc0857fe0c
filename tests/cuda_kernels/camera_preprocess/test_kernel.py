"""camera_preprocess/kernel.cu itself, run by the host emulation, against reference.py."""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from framegate.cuda_kernels.camera_preprocess import launch as preprocess_launch
from framegate.cuda_kernels.camera_preprocess import reference as preprocess_reference
from framegate.cuda_kernels.camera_preprocess.launch import RECORD_WORDS, plan_preprocess, totals_of_record
from framegate.cuda_kernels.camera_preprocess.reference import CameraFrame, FrameTotals, Normalisation, YuvMatrix
from framegate.cuda_kernels.compile.build import build
from framegate.cuda_kernels.compile.compiler import Nvcc
from framegate.cuda_kernels.compile.resources import spilling

SOURCE = Path(preprocess_launch.__file__).with_name("kernel.cu")
FORMATS = ("nv12", "yuyv", "bgr")
IMAGENET = Normalisation("rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), (114.0, 110.0, 7.0))
# Pixel units. float32: weights are rounded once, a hundred taps are added. float16: half a unit in the last place.
PIXEL_TOLERANCE = 2e-4
HALF_UNIT = 2.0**-11


@dataclass
class Buffers:
    """What the kernel is given; kept, since the parameters hold addresses only."""

    output: NDArray[Any]
    record: NDArray[np.uint64]
    workspace: NDArray[np.uint8]
    kept: tuple[Any, ...]
    parameters: preprocess_launch.Parameters
    plan: preprocess_launch.PreprocessPlan


def make_frame(
    emulate: ModuleType, pixel_format: str, width: int, height: int, *, seed: int = 0, padding: int = 0, offset: int = 0
) -> CameraFrame:
    """Noise, with rows ``padding`` bytes apart and planes ``offset`` bytes past a multiple of 256.

    A plane's buffer ends with its last row's last byte, so that the address sanitizer sees a read beyond.
    """
    rng = np.random.default_rng(seed)
    planes = []
    for shape in preprocess_reference.plane_shapes(pixel_format, width, height):
        row = int(np.prod(shape[1:]))
        pitch = row + padding
        memory = emulate.aligned((shape[0] - 1) * pitch + row, np.uint8, offset=offset)
        memory[:] = rng.integers(0, 256, memory.size)
        inner = (3, 1) if pixel_format == "bgr" else {"nv12": (2, 1), "yuyv": (4, 1)}[pixel_format]
        strides = (pitch, 1) if len(shape) == 2 else (pitch, *inner)
        plane = np.lib.stride_tricks.as_strided(memory, shape, strides)
        planes.append(plane)
    return CameraFrame(pixel_format, width, height, tuple(planes))


def prepare(emulate: ModuleType, frame: CameraFrame, output: tuple[int, int], **options: Any) -> Buffers:
    plan = plan_preprocess(frame.pixel_format, (frame.width, frame.height), output, **options)
    out = emulate.aligned(plan.output_shape, plan.output_dtype)
    out[...] = np.nan
    taps = emulate.aligned(len(plan.taps), np.int32)
    taps[:] = plan.taps
    workspace = emulate.aligned(max(plan.workspace_bytes, 8), np.uint8)
    workspace[: plan.workspace_bytes - 8] = 0xA5  # only the ticket must be zero
    record = emulate.aligned(RECORD_WORDS, np.uint64)
    sequence = emulate.aligned(1, np.uint64)
    sequence[0] = (7 << 40) + 3
    parameters = plan.parameters(
        planes=[plane.ctypes.data for plane in frame.planes],
        pitches=[plane.strides[0] for plane in frame.planes],
        output=out.ctypes.data,
        taps=taps.ctypes.data,
        workspace=workspace.ctypes.data,
        record=record.ctypes.data,
        sequence=sequence.ctypes.data,
    )
    return Buffers(out, record, workspace, (taps, sequence, frame), parameters, plan)


def run(emulate: ModuleType, buffers: Buffers, order: int = 0) -> None:
    plan = buffers.plan
    emulate.compile(SOURCE).launch(
        plan.kernel, grid=plan.grid, block=plan.block, arguments=(buffers.parameters,), order=order
    )


def check(emulate: ModuleType, frame: CameraFrame, output: tuple[int, int], order: int = 0, **options: Any) -> Buffers:
    """Run a frame through the kernel and compare all that comes out with the reference."""
    dtype = options.get("dtype", "float32")
    levels = {key: options[key] for key in ("saturated_level", "dark_level") if key in options}
    buffers = prepare(emulate, frame, output, **options)
    run(emulate, buffers, order)
    truth_options = {
        key: options[key] for key in ("region", "mode", "fit", "normalisation", "matrix") if key in options
    }
    truth = preprocess_reference.preprocess(frame, output, **truth_options)
    std = np.array((options.get("normalisation") or Normalisation()).std)[:, None, None]
    allowed = PIXEL_TOLERANCE / std + (HALF_UNIT * np.abs(truth) if dtype == "float16" else 0.0)
    difference = np.abs(buffers.output.astype(np.float64) - truth)
    assert (difference <= allowed).all(), f"largest difference {np.nanmax(difference)}"  # NaN fails
    if options.get("statistics", True):
        assert totals_of_record(buffers.record) == preprocess_reference.frame_totals(frame, **levels)
        assert buffers.record[8] == (7 << 40) + 3
        assert not buffers.workspace[-8:].any(), "the ticket is not back at 0"
    else:
        assert not buffers.record.any()
    return buffers


# (frame, output, region): why
SHAPES = [
    ((64, 48), (32, 24), None),  # exactly half
    ((65, 47), (17, 13), None),  # odd sides: the last chroma sample serves one pixel
    ((37, 29), (50, 61), None),  # enlarged along both axes
    ((90, 21), (31, 40), None),  # shrunk along one axis, enlarged along the other
    ((66, 50), (9, 9), (1, 1, 33, 31)),  # a region that starts at odd pixels and touches no border
    ((67, 51), (20, 10), (34, 20, 33, 31)),  # a region that ends in the last corner of an odd frame
    ((40, 30), (1, 1), None),  # one output pixel from everything
    ((1, 1), (5, 3), None),  # one source pixel
    ((23, 19), (18, 9), (22, 18, 1, 1)),  # a region of the last pixel alone
]


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("mode", ["bilinear", "antialias", "area"])
def test_shapes_against_the_reference(emulate: ModuleType, pixel_format: str, mode: str) -> None:
    for i, ((width, height), output, region) in enumerate(SHAPES):
        frame = make_frame(emulate, pixel_format, width, height, seed=i)
        for fit in ("stretch", "letterbox"):
            check(emulate, frame, output, region=region, mode=mode, fit=fit, normalisation=IMAGENET, order=i)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize(("padding", "offset"), [(0, 1), (1, 0), (2, 0), (3, 2), (32, 4)])
def test_misaligned_planes_and_pitches(emulate: ModuleType, pixel_format: str, padding: int, offset: int) -> None:
    # 38 + 2: words may be loaded, but not the last of a row.
    for width, height, mode in ((38, 22, "antialias"), (35, 33, "bilinear")):
        frame = make_frame(emulate, pixel_format, width, height, padding=padding, offset=offset)
        check(emulate, frame, (16, 8), mode=mode, fit="letterbox")


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("mode", ["bilinear", "antialias", "area"])
def test_float16_colour_order_and_no_statistics(emulate: ModuleType, pixel_format: str, mode: str) -> None:
    frame = make_frame(emulate, pixel_format, 51, 40)
    bgr = Normalisation("bgr", (1.0, 20.0, 40.0), (60.0, 1.0, 255.0), (0.0, 255.0, 30.0))
    check(emulate, frame, (19, 33), mode=mode, fit="letterbox", dtype="float16", normalisation=bgr, statistics=False)
    check(emulate, frame, (19, 33), mode=mode, normalisation=bgr, saturated_level=200, dark_level=40)


@pytest.mark.parametrize("pixel_format", ["nv12", "yuyv"])
@pytest.mark.parametrize("standard", ["bt601", "bt709"])
@pytest.mark.parametrize("full_range", [False, True])
def test_colour_matrices(emulate: ModuleType, pixel_format: str, standard: str, full_range: bool) -> None:
    frame = make_frame(emulate, pixel_format, 32, 32, seed=4)
    # Source size is output size: what comes out is the converted pixel itself, and must be it exactly.
    buffers = check(emulate, frame, (32, 32), matrix=YuvMatrix.of(standard, full_range))
    truth = preprocess_reference.to_bgr(frame, YuvMatrix.of(standard, full_range))[..., ::-1].transpose(2, 0, 1)
    assert (buffers.output == truth).all()


def test_more_source_columns_than_a_piece(emulate: ModuleType) -> None:
    # A piece of shared memory holds 256 columns; the region starts at an odd one.
    frame = make_frame(emulate, "nv12", 1100, 9)
    for mode in ("antialias", "area"):
        check(emulate, frame, (3, 2), mode=mode, region=(255, 0, 801, 9), statistics=False)
        check(emulate, frame, (1, 1), mode=mode, statistics=False)


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_statistics_over_many_blocks_do_not_depend_on_their_order(emulate: ModuleType, pixel_format: str) -> None:
    frame = make_frame(emulate, pixel_format, 523, 70)  # 2 x 5 blocks, the last of them nearly empty
    truth = preprocess_reference.frame_totals(frame)
    buffers = prepare(emulate, frame, (4, 4))
    for order in range(4):  # the same workspace again and again, as in a CUDA graph
        buffers.record[:] = 0
        run(emulate, buffers, order)
        assert totals_of_record(buffers.record) == truth


@pytest.mark.parametrize("value", [0, 255])
def test_extreme_frames_overflow_nothing(emulate: ModuleType, value: int) -> None:
    # A checkerboard has the largest Laplacian and the largest detail that pixels can have.
    frame = make_frame(emulate, "nv12", 600, 40)
    frame.planes[0][...] = np.where(np.indices((40, 600)).sum(axis=0) % 2, 255 - value, value)
    check(emulate, frame, (8, 8))
    frame.planes[0][...] = value
    frame.planes[1][...] = value
    buffers = check(emulate, frame, (8, 8))
    assert totals_of_record(buffers.record).high_frequency == 0


def test_record_is_complete_before_its_sequence_number(emulate: ModuleType) -> None:
    frame = make_frame(emulate, "yuyv", 40, 40)
    truth = preprocess_reference.frame_totals(frame)
    buffers = prepare(emulate, frame, (8, 8))
    seen: list[int] = []
    module = emulate.compile(SOURCE)
    module.on_system_fence(lambda: seen.append(int(buffers.record[8])))
    plan = buffers.plan
    module.launch(plan.kernel, grid=plan.grid, block=plan.block, arguments=(buffers.parameters,))
    module.on_system_fence(None)
    assert seen == [0] * 8, "eight words are fenced before the number is written"
    assert totals_of_record(buffers.record) == truth
    assert buffers.record[8] == (7 << 40) + 3


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_geometry(emulate: ModuleType, data: st.DataObject) -> None:
    pixel_format = data.draw(st.sampled_from(FORMATS))
    width, height = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 50))
    frame = make_frame(emulate, pixel_format, width, height, padding=data.draw(st.integers(0, 5)), seed=width)
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    region = (x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y)))
    check(
        emulate,
        frame,
        (data.draw(st.integers(1, 40)), data.draw(st.integers(1, 20))),
        order=data.draw(st.integers(0, 3)),
        region=region,
        mode=data.draw(st.sampled_from(("bilinear", "antialias", "area"))),
        fit=data.draw(st.sampled_from(("stretch", "letterbox"))),
        dtype=data.draw(st.sampled_from(("float32", "float16"))),
        statistics=data.draw(st.booleans()),
    )


def test_under_sanitizers(emulate: ModuleType) -> None:
    if emulate.SANITIZE:
        pytest.skip("this is the run under sanitizers")
    emulate.run_sanitized(__file__, "misaligned or more_source_columns")


def test_parameters_have_the_size_of_the_kernels(emulate: ModuleType) -> None:
    # The emulation compares sizes before it runs; here so that a mismatch has a name of its own.
    frame = make_frame(emulate, "bgr", 8, 8)
    buffers = prepare(emulate, frame, (4, 4))

    class Short(ctypes.Structure):
        _fields_ = preprocess_launch.Parameters._fields_[:-1]

    with pytest.raises(TypeError, match="parameter 0"):
        emulate.compile(SOURCE).launch(
            buffers.plan.kernel, grid=buffers.plan.grid, block=buffers.plan.block, arguments=(Short(),)
        )
    run(emulate, buffers)


GOOD: dict[str, Any] = {"output": 4096, "taps": 4096, "workspace": 4096, "record": 4096}
GOOD |= {"planes": (4096, 8192), "pitches": (64, 64)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"output": 0}, "output at a multiple of 2"),
        ({"output": 4097}, "output at a multiple of 2"),
        ({"taps": 4098}, "taps at a multiple of 4"),
        ({"workspace": 4100}, "workspace at a multiple of 8"),
        ({"record": 0}, "record at a multiple of 8"),
        ({"sequence": 4}, "sequence number at a multiple of 8"),
        ({"planes": (4096,)}, "asked for 2 planes"),
        ({"planes": (4096, 0)}, "plane 1"),
        ({"pitches": (64, 63)}, "pitch of at least 64 bytes, found 63"),
    ],
)
def test_bad_addresses_are_refused_before_a_launch(change: dict[str, Any], said: str) -> None:
    plan = plan_preprocess("nv12", (64, 48), (8, 8), dtype="float16")
    plan.parameters(**GOOD)
    with pytest.raises(ValueError, match=said):
        plan.parameters(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (("i420", (64, 48), (8, 8)), {}, "pixel format"),
        (("nv12", (0, 48), (8, 8)), {}, "1..16384"),
        (("nv12", (64, 48), (8, 20000)), {}, "1..16384"),
        (("nv12", (64, 48), (8, 8)), {"region": (60, 0, 8, 8)}, "inside the 64x48 frame"),
        (("nv12", (64, 48), (8, 8)), {"mode": "cubic"}, "resize mode"),
        (("nv12", (64, 48), (8, 8)), {"fit": "crop"}, "fit"),
        (("nv12", (64, 48), (8, 8)), {"dtype": "int8"}, "output type"),
        (("nv12", (64, 48), (8, 8)), {"matrix": YuvMatrix(16, 1 << 24, 0, 0, 0, 0)}, "below 2"),
        (
            ("nv12", (64, 48), (8, 8)),
            {"dtype": "float16", "normalisation": Normalisation("rgb", std=(1.0, 1.0, 0.003))},
            "float16 holds",
        ),
    ],
)
def test_bad_plans_are_refused(arguments: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan_preprocess(*arguments, **options)


def test_record_words_become_totals() -> None:
    words = np.array([1, 2, 3, (1 << 64) - 4, 5, 6, 7, (1 << 64) - 8, 9], np.uint64)
    assert totals_of_record(words) == FrameTotals(1, 2, 3, -4, 5, 6, 7, (1 << 64) - 8)
    with pytest.raises(ValueError, match="asked for 9 uint64"):
        totals_of_record(words[:8])


def test_compiles_for_every_architecture_without_spills() -> None:
    if Nvcc.find() is None:
        pytest.skip("compiling for GPUs needs nvcc on PATH")
    (built,) = build([SOURCE])  # the cache is the one of `make kernels`
    names = [f"preprocess_{f}_{m}_{t}" for f in FORMATS for m in ("bilinear", "filter") for t in ("f32", "f16")]
    known = {resource.architecture for resource in built.resources}
    assert {90, 120} <= known, "the nvcc at hand is too old for this project"
    for architecture in known:
        resources = [resource for resource in built.resources if resource.architecture == architecture]
        assert sorted({resource.kernel for resource in resources}) == sorted(names)
        assert spilling(resources) == []
        assert max(resource.registers for resource in resources) <= 80, "six blocks of 128 threads no longer fit"
