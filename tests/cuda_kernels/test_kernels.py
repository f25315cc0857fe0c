"""A source's kernels: looked up once each, launched as planned; a wrong plan never becomes a launch."""

from __future__ import annotations

import pytest

from framegate.cuda_kernels import kernels as kernels_module
from framegate.cuda_kernels.compile.compiler import CompilerError
from framegate.cuda_kernels.driver.base import DeviceInfo
from framegate.cuda_kernels.kernels import Kernels
from framegate.cuda_kernels.softmax_entropy.launch import plan_rows


class Recorder:
    info = DeviceInfo("recorder", 87, 8, 1 << 30, 1 << 22, True, (12, 6), 9)

    def __init__(self):
        self.calls = []

    def load_module(self, image):
        self.calls.append(("load", image))
        return 7

    def get_function(self, module, name):
        self.calls.append(("get", module, name))
        return 8

    def launch(self, function, grid, block, arguments, stream):
        self.calls.append(("launch", function, grid, block, len(arguments), stream))


@pytest.fixture
def recorder(monkeypatch):
    def image(source, architecture, driver_version, folder):
        return f"{source} {architecture} {driver_version}".encode()

    monkeypatch.setattr(kernels_module, "load_image", image)
    return Recorder()


def test_a_kernel_is_looked_up_once_and_launched_as_planned(recorder):
    kernels = Kernels(recorder, "softmax_entropy")
    plan = plan_rows(256, "f16", 1, 1000, {"entropy": 512})
    kernels.run(plan, stream=3)
    kernels.run(plan, stream=3)
    launch = ("launch", 8, plan.grid, plan.block, 1, 3)
    assert recorder.calls == [("load", b"softmax_entropy 87 (12, 6)"), ("get", 7, plan.kernel), launch, launch]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dtype": "f64"}, "dtype"),
        ({"classes": 65537}, "classes"),
        ({"rows": 0}, "rows"),
        ({"logits": 0}, "logits"),
        ({"logits": 257}, "logits"),
        ({"outputs": {"entropy": 3}}, "entropy"),
        ({"outputs": {}}, "outputs"),
    ],
)
def test_bad_input_is_refused_before_any_launch(recorder, change, words):
    kernels = Kernels(recorder, "softmax_entropy")
    good = {"logits": 256, "dtype": "f16", "rows": 1, "classes": 10, "outputs": {"entropy": 512}}
    with pytest.raises(ValueError, match=words):
        kernels.run(plan_rows(**{**good, **change}), stream=3)
    assert [call[0] for call in recorder.calls] == ["load"]


def test_without_machine_code_the_reasons_come_through(monkeypatch):
    def none(*_):
        raise CompilerError("no machine code")

    monkeypatch.setattr(kernels_module, "load_image", none)
    with pytest.raises(CompilerError, match="no machine code"):
        Kernels(Recorder(), "softmax_entropy")
