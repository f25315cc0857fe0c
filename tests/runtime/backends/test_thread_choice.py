"""Which number of threads is tried first costs or saves start-up; what is chosen must not depend on it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

ov = pytest.importorskip("openvino")
from framegate.runtime.backends import openvino_cpu, thread_choice  # noqa: E402
from framegate.runtime.bundle.bundle import Bundle  # noqa: E402
from framegate.runtime.preprocess import input_shape  # noqa: E402
from framegate.runtime.session import Session  # noqa: E402

ALL = None


@pytest.fixture
def opened(tiny_bundle, monkeypatch):
    """Opens a session on a network that takes one thread, and all threads, so many seconds; says what was compiled."""

    def open_on(many, alone_s, all_s):
        compiled, network = [], {}
        compile_for_real = openvino_cpu.OpenVinoBackend._compile

        def compile_on(self, tensor, threads, requests=1):
            compiled.append(threads)
            made = compile_for_real(self, tensor, threads, requests)
            network[id(made)] = made, threads
            return made

        def seconds(request):
            return min(all_s, alone_s) if compiled[-1] is ALL else alone_s

        monkeypatch.setenv("FRAMEGATE_COMPILED", "off")  # else the second test of a network knows how the first ended
        monkeypatch.setattr(thread_choice, "processors", lambda: 2)
        monkeypatch.setattr(openvino_cpu, "_MANY", many)
        monkeypatch.setattr(openvino_cpu.OpenVinoBackend, "_compile", compile_on)
        monkeypatch.setattr(openvino_cpu, "fastest_s", seconds)
        session = Session.open(tiny_bundle, "openvino")
        taken = network[id(session.scorer.backend._compiled)][1]
        monkeypatch.undo()
        return taken, compiled

    return open_on


@pytest.mark.parametrize(
    ("many", "alone_s", "all_s", "taken", "compiled"),
    [
        (0, 0.0090, 0.0060, ALL, [ALL]),  # large: one compilation
        (0, 0.0028, 0.0017, ALL, [ALL]),  # two threads are quick, one cannot be quick enough
        (0, 0.0020, 0.0012, 1, [ALL, 1]),
        (10**12, 0.0020, 0.0012, 1, [1]),  # small: one compilation
        (10**12, 0.0028, 0.0017, ALL, [1, ALL]),
    ],
)
def test_the_choice_is_the_same_whatever_is_tried_first(opened, many, alone_s, all_s, taken, compiled):
    assert opened(many, alone_s, all_s) == (taken, compiled)


def test_the_products_of_a_network_are_counted_by_hand():
    opset = pytest.importorskip("openvino.opset13")
    image = opset.parameter([1, 3, 8, 8], ov.Type.f32)
    filters = opset.constant(np.ones((4, 3, 3, 3), np.float32))
    found = opset.convolution(image, filters, [1, 1], [0, 0], [0, 0], [1, 1])
    flat = opset.reshape(found, opset.constant([1, 144]), False)
    logits = opset.matmul(flat, opset.constant(np.ones((144, 5), np.float32)), False, False)
    model = ov.Model([logits], [image])
    assert openvino_cpu._products(model) == 4 * 6 * 6 * 3 * 3 * 3 + 144 * 5


@pytest.mark.parametrize(("seconds", "threads"), [(0.0020, 1), (0.0030, 0)])  # 0: ONNX Runtime takes all processors
def test_onnx_runtime_takes_one_thread_for_small_networks_and_lets_idle_ones_sleep(
    tiny_bundle, monkeypatch, seconds, threads
):
    from framegate.runtime.backends import onnxruntime_cpu

    monkeypatch.setattr(onnxruntime_cpu, "fastest_s", lambda call: seconds)
    session = Session.open(tiny_bundle, "onnxruntime")
    options = session.scorer.backend._session.get_session_options()
    assert options.intra_op_num_threads == threads
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert session.infer(np.full((48, 64, 3), 90, np.uint8)).candidate_id >= 0
    fixed = Session.open(tiny_bundle, "onnxruntime", threads=2).scorer.backend._session
    assert fixed.get_session_options().intra_op_num_threads == 2


@pytest.mark.slow
def test_onnx_runtime_reads_weights_that_lie_in_another_file(tmp_path):
    from framegate.camera_demo.shipped import BUNDLE
    from framegate.runtime.backends import onnxruntime_cpu

    bundle = Bundle.open(BUNDLE)
    for name in (bundle.models["fp32"], bundle.models["fp16"]):
        shutil.copy(bundle.path / name, tmp_path)
    engine = onnxruntime_cpu.load("onnxruntime", tmp_path / bundle.models["fp16"], None, "")
    for file in tmp_path.iterdir():
        file.unlink()  # as a session does, which hands the engine a copy
    engine.bind(np.zeros(input_shape(bundle.preprocess, 1), np.float32))
    assert np.isfinite(engine.finish()).all()
