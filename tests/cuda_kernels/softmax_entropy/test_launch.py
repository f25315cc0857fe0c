"""Launch plans of softmax_entropy/kernel.cu: wrong arguments are refused, and the kernel of every plan exists."""

from __future__ import annotations

import ctypes
import functools

import pytest

from framegate.cuda_kernels.softmax_entropy import launch

DTYPES = ("f16", "bf16", "f32")
INF, NAN = float("inf"), float("nan")


@pytest.fixture(scope="module")
def kernels(emulate):
    return emulate.compile("cuda_kernels/softmax_entropy/kernel.cu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "f64"}, "dtype: asked for one of f16, bf16, f32"),
        ({"classes": 0}, "classes: asked for 1 to 65536, found 0"),
        ({"classes": 65_537}, "classes: asked for 1 to 65536, found 65537"),
        ({"rows": 0}, "rows: asked for 1"),
        ({"logits": 0}, "logits: asked for an address aligned to 4 bytes, found 0x0"),
        ({"logits": 4098}, "logits: asked for an address aligned"),
        ({"row_stride": 9}, "row_stride: asked for at least C = 10"),
        ({"outputs": {}}, "at least one"),
        ({"outputs": {"entropy": 0}}, "entropy: asked for an address"),
        ({"outputs": {"entropy": 4097}}, "entropy: asked for an address aligned to 4"),
        ({"outputs": {"entrpoy": 4096}}, "found 'entrpoy'"),
        ({"outputs": {"records": 4096}}, "go together and alone"),
        ({"outputs": {"records": 4096 + 16, "sequence": 64}}, "records: asked for an address aligned to 32"),
        ({"outputs": {"records": 4096, "sequence": 64, "entropy": 64}}, "go together and alone"),
    ],
)
def test_rows_that_no_kernel_can_do_are_refused(changes, message):
    arguments = {"logits": 4096, "dtype": "f32", "rows": 1, "classes": 10, "outputs": {"entropy": 4096}}
    launch.plan_rows(**arguments)
    with pytest.raises(ValueError, match=message):
        launch.plan_rows(**(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "i8"}, "dtype"),
        ({"channels": 33}, "channels: asked for 1 to 32, found 33; more classes go as rows"),
        ({"channels": 0}, "channels"),
        ({"images": 65_536}, "images: asked for 1 to 65535"),
        ({"pixels": 0}, "pixels"),
        ({"logits": 2}, "logits"),
        ({"outputs": {}}, "at least one"),
        ({"outputs": {"records": 4096}}, "found 'records'"),
    ],
)
def test_images_that_no_kernel_can_do_are_refused(changes, message):
    arguments = {"logits": 4096, "dtype": "f32", "images": 1, "channels": 19, "pixels": 64, "outputs": {"argmax": 4096}}
    launch.plan_dense(**arguments)
    with pytest.raises(ValueError, match=message):
        launch.plan_dense(**(arguments | changes))


@pytest.mark.parametrize("temperature", [0.0, -1.0, NAN, INF, 1e-31, 1e31])
def test_bad_temperature_is_refused(temperature):
    for plan in (launch.plan_rows, launch.plan_dense):
        sizes = {"rows": 1, "classes": 10} if plan is launch.plan_rows else {"images": 1, "channels": 2, "pixels": 4}
        arguments = {"logits": 4096, "dtype": "f32", **sizes, "outputs": {"entropy": 4096}}
        plan(**arguments, temperature=0.5)
        with pytest.raises(ValueError, match="temperature: asked for"):
            plan(**arguments, temperature=temperature)


def test_every_planned_kernel_exists(kernels):
    planned = functools.partial(launch.plan_rows, 4096)
    for dtype in DTYPES:
        for classes in (10, 500, 5000):
            for names in (["entropy"], ["argmax"], ["probabilities"], ["records", "sequence"]):
                assert kernels.has(planned(dtype, 1, classes, dict.fromkeys(names, 4096)).kernel)
        for channels in range(1, 33):
            for names in (["entropy"], ["flags"]):
                for pixels in (2, 3):
                    outputs = dict.fromkeys(names, 4096)
                    assert kernels.has(launch.plan_dense(4096, dtype, 1, channels, pixels, outputs).kernel)


def test_structures_have_the_sizes_of_the_header():
    # The emulation compares them with the kernels' own at every launch; these are the documented numbers.
    assert ctypes.sizeof(launch.RowsParameters) == 112
    assert ctypes.sizeof(launch.DenseParameters) == 104
