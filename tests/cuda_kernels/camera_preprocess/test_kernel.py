"""camera_preprocess/kernel.cu itself, run by the host emulation, against reference.py."""

import ctypes
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from framegate.cuda_kernels.camera_preprocess import launch, reference
from framegate.cuda_kernels.camera_preprocess.launch import plan_preprocess
from framegate.cuda_kernels.camera_preprocess.reference import CameraFrame, Normalisation
from framegate.cuda_kernels.compile.build import build, find_source
from framegate.cuda_kernels.compile.compiler import Nvcc
from framegate.cuda_kernels.compile.resources import spilling

SOURCE = find_source("camera_preprocess")
FORMATS = ("nv12", "bgr")
MODES = ("bilinear", "area")
IMAGENET = Normalisation("rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
PIXEL_TOLERANCE = 2e-4
"""Pixel units: weights are rounded to float32 once, and at most a thousand pixels are added."""


@dataclass
class Buffers:
    """What the kernel is given; kept, since the parameters hold addresses only."""

    output: NDArray[np.float32]
    kept: tuple[Any, ...]
    parameters: launch.Parameters
    plan: launch.PreprocessPlan


def make_frame(
    emulate: ModuleType, pixel_format: str, width: int, height: int, *, seed: int = 0, offset: int = 0
) -> CameraFrame:
    """Noise, with planes ``offset`` bytes past a multiple of 256.

    A plane's buffer ends with its last byte, so that the address sanitizer sees a read beyond.
    """
    rng = np.random.default_rng(seed)
    planes = []
    for shape in reference.plane_shapes(pixel_format, width, height):
        plane = emulate.aligned(shape, np.uint8, offset=offset)
        plane[...] = rng.integers(0, 256, shape)
        planes.append(plane)
    return CameraFrame(pixel_format, width, height, tuple(planes))


def prepare(emulate: ModuleType, frame: CameraFrame, output: tuple[int, int], **options: Any) -> Buffers:
    plan = plan_preprocess(frame.pixel_format, (frame.width, frame.height), output, **options)
    assert plan.plane_bytes == tuple(plane.nbytes for plane in frame.planes)
    out = emulate.aligned(plan.output_shape, np.float32)
    out[...] = np.nan
    weights = emulate.aligned(len(plan.weights), np.int32)
    weights[:] = plan.weights
    parameters = plan.parameters(
        planes=[plane.ctypes.data for plane in frame.planes], output=out.ctypes.data, weights=weights.ctypes.data
    )
    return Buffers(out, (weights, frame), parameters, plan)


def run(emulate: ModuleType, buffers: Buffers, order: int = 0) -> None:
    plan = buffers.plan
    emulate.compile(SOURCE).launch(
        plan.kernel, grid=plan.grid, block=plan.block, arguments=(buffers.parameters,), order=order
    )


def check(emulate: ModuleType, frame: CameraFrame, output: tuple[int, int], order: int = 0, **options: Any) -> Buffers:
    """Run a frame through the kernel and compare all that comes out with the reference."""
    buffers = prepare(emulate, frame, output, **options)
    run(emulate, buffers, order)
    truth = reference.preprocess(frame, output, **options)
    std = np.array((options.get("normalisation") or Normalisation()).std)[:, None, None]
    difference = np.abs(buffers.output.astype(np.float64) - truth)
    assert (difference <= PIXEL_TOLERANCE / std).all(), f"largest difference {np.nanmax(difference)}"  # NaN fails
    return buffers


# (frame, output): why
SHAPES = [
    ((64, 48), (32, 24)),  # exactly half
    ((65, 47), (17, 13)),  # odd sides: the last chroma sample serves one pixel
    ((37, 29), (50, 61)),  # enlarged along both axes
    ((90, 21), (31, 40)),  # shrunk along one axis, enlarged along the other
    ((40, 30), (1, 1)),  # one output pixel from everything
    ((1, 1), (5, 3)),  # one source pixel
]


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("mode", MODES)
def test_shapes_against_the_reference(emulate: ModuleType, pixel_format: str, mode: str) -> None:
    for i, ((width, height), output) in enumerate(SHAPES):
        frame = make_frame(emulate, pixel_format, width, height, seed=i)
        check(emulate, frame, output, mode=mode, normalisation=IMAGENET, order=i)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("offset", [1, 2, 4])
def test_misaligned_planes(emulate: ModuleType, pixel_format: str, offset: int) -> None:
    for width, height, mode in ((38, 22, "area"), (35, 33, "bilinear")):
        frame = make_frame(emulate, pixel_format, width, height, offset=offset)
        check(emulate, frame, (16, 8), mode=mode)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("mode", MODES)
def test_colour_order_and_normalisation(emulate: ModuleType, pixel_format: str, mode: str) -> None:
    frame = make_frame(emulate, pixel_format, 51, 40)
    bgr = Normalisation("bgr", (1.0, 20.0, 40.0), (60.0, 1.0, 255.0))
    check(emulate, frame, (19, 33), mode=mode, normalisation=bgr)


def test_a_pixel_that_is_not_resized_is_converted_exactly(emulate: ModuleType) -> None:
    frame = make_frame(emulate, "nv12", 32, 32, seed=4)
    buffers = check(emulate, frame, (32, 32))
    assert (buffers.output == reference.to_bgr(frame)[..., ::-1].transpose(2, 0, 1)).all()


def test_more_source_columns_than_a_piece(emulate: ModuleType) -> None:
    # A piece of shared memory holds 256 columns; tiles begin at odd ones.
    frame = make_frame(emulate, "nv12", 1101, 9)
    for output in ((3, 2), (1, 1), (17, 9)):
        check(emulate, frame, output, mode="area")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_geometry(emulate: ModuleType, data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 50))
    frame = make_frame(emulate, data.draw(st.sampled_from(FORMATS)), width, height, seed=width)
    check(
        emulate,
        frame,
        (data.draw(st.integers(1, 40)), data.draw(st.integers(1, 20))),
        order=data.draw(st.integers(0, 3)),
        mode=data.draw(st.sampled_from(MODES)),
    )


@pytest.mark.long
def test_under_sanitizers(emulate: ModuleType) -> None:
    if emulate.SANITIZE:
        pytest.skip("this is the run under sanitizers")
    emulate.run_sanitized(__file__, "misaligned or more_source_columns or shapes")


def test_parameters_have_the_size_of_the_kernels(emulate: ModuleType) -> None:
    # The emulation compares sizes before it runs; here so that a mismatch has a name of its own.
    frame = make_frame(emulate, "bgr", 8, 8)
    buffers = prepare(emulate, frame, (4, 4))

    class Short(ctypes.Structure):
        _fields_ = launch.Parameters._fields_[:-1]

    with pytest.raises(TypeError, match="parameter 0"):
        emulate.compile(SOURCE).launch(
            buffers.plan.kernel, grid=buffers.plan.grid, block=buffers.plan.block, arguments=(Short(),)
        )
    run(emulate, buffers)


GOOD: dict[str, Any] = {"output": 4096, "weights": 4096, "planes": (4096, 8192)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"output": 0}, "output at a multiple of 4"),
        ({"output": 4098}, "output at a multiple of 4"),
        ({"weights": 4098}, "weights at a multiple of 4"),
        ({"planes": (4096,)}, "asked for 2 planes, found 1"),
        ({"planes": (4096, 0)}, "plane 1"),
    ],
)
def test_bad_addresses_are_refused_before_a_launch(change: dict[str, Any], said: str) -> None:
    plan = plan_preprocess("nv12", (64, 48), (8, 8))
    plan.parameters(**GOOD)
    with pytest.raises(ValueError, match=said):
        plan.parameters(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (("i420", (64, 48), (8, 8)), {}, "pixel format: asked for one of nv12, bgr"),
        (("nv12", (0, 48), (8, 8)), {}, "1..16384"),
        (("nv12", (64, 48), (8, 20000)), {}, "1..16384"),
        (("nv12", (64, 48), (8, 8)), {"mode": "cubic"}, "resize mode: asked for one of bilinear, area"),
        (("nv12", (64, 48), (8, 8)), {"normalisation": Normalisation(std=(1.0, 1.0, 1e-40))}, "float32 holds"),
        (("nv12", (64, 48), (8, 8)), {"normalisation": Normalisation(mean=(1e39, 0.0, 0.0))}, "float32 holds"),
    ],
)
def test_bad_plans_are_refused(arguments: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plan_preprocess(*arguments, **options)


def test_compiles_for_every_architecture_without_spills() -> None:
    if Nvcc.find() is None:
        pytest.skip("compiling for GPUs needs nvcc on PATH")
    (built,) = build([SOURCE])  # the cache is the one of `make kernels`
    names = [f"camera_preprocess_{f}_{m}" for f in FORMATS for m in ("bilinear", "filter")]
    known = {resource.architecture for resource in built.resources}
    assert {90, 120} <= known, "the nvcc at hand is too old for this project"
    for architecture in known:
        resources = [resource for resource in built.resources if resource.architecture == architecture]
        assert sorted({resource.kernel for resource in resources}) == sorted(names)
        assert spilling(resources) == []
        assert max(resource.registers for resource in resources) <= 80, "six blocks of 128 threads no longer fit"
