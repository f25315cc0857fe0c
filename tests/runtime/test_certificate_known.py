"""The engine of a certificate is asked about known pictures: one that computes another network certifies nothing."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
from certified_bundles import certified_bundle
from repository import BUNDLES

from framegate.export.known_answers import write_known_answers
from framegate.runtime import Reason, Session, certificate, session
from framegate.runtime.backends import openvino_cpu
from framegate.runtime.bundle.bundle import MANIFEST, Bundle, seal
from framegate.runtime.errors import BackendError

BACKENDS = ["openvino", "onnxruntime"]


@pytest.fixture
def asked(make_bundle, coloured):
    """A tiny bundle with a certificate of its own network and known pictures."""
    folder = certified_bundle(make_bundle())
    spec = Bundle.open(folder).preprocess
    pictures = [coloured(each, width=32, height=32) for each in ((250, 10, 10), (10, 250, 10), (60, 90, 200))]
    write_known_answers(folder, {"fp32": "model.fp32.onnx"}, spec, pictures)
    seal(folder, json.loads((folder / MANIFEST).read_text()))
    return folder


def opened(folder, backend="onnxruntime"):
    return Session.open(folder, backend, "fp32", 1, certificate="patch:3", camera=False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "change",
    [
        lambda said: said * np.float32(1.05),
        lambda said: said[:, ::-1].copy(),
        lambda said: np.full_like(said, np.nan),
        lambda said: np.concatenate([said[:1], np.zeros_like(said[1:])]),  # half of a batch
    ],
)
def test_fault_an_engine_that_computes_another_network_is_not_opened(asked, backend, change, monkeypatch):
    monkeypatch.setattr(certificate, "infer", lambda engine, right=certificate.infer: change(right(engine)))
    with pytest.raises(
        BackendError, match=r"certificate patch:3: .* does not compute the network that was proved; try"
    ):
        opened(asked, backend)


def test_fault_an_engine_that_goes_wrong_in_a_stream_certifies_nothing_until_it_is_right(asked, coloured, monkeypatch):
    monkeypatch.setattr(session, "ASK_EVERY_S", 0.0)
    monkeypatch.setattr(session, "_ASK_AGAIN_S", 0.0)
    one, right = opened(asked), certificate.infer

    def judged(seed):
        return one.infer(coloured((250, 10, 10), seed=seed, width=32, height=32))

    assert judged(0).accepted
    judged(1)
    monkeypatch.setattr(certificate, "infer", lambda engine: right(engine) * np.float32(1.05))
    judged(2)  # asked after it
    found = judged(3)
    assert found.reasons == (Reason.BACKEND_FAULT,)
    assert "certificate patch:3: onnxruntime" in found.detail

    def failing(engine):
        raise RuntimeError("gone")

    monkeypatch.setattr(certificate, "infer", failing)
    judged(4)
    assert "failed on a known picture (RuntimeError: gone)" in judged(5).detail
    monkeypatch.setattr(certificate, "infer", right)
    judged(6)
    assert judged(7).accepted


def test_fault_an_engine_that_stops_at_a_known_picture_is_found_out_on_the_next_frame(asked, coloured):
    one = opened(asked)
    one.certifier.ask()
    engine = one.certifier._network.engine
    held = engine.finish()
    engine.finish = lambda: held
    image = Bundle.open(asked).known_answers.images[0] // 2 * 2  # nearly the picture that was asked, and so certified
    assert Reason.BACKEND_FAULT in one.infer(image).reasons


def test_one_for_another_stream_is_asked_too(asked, monkeypatch):
    one, right = opened(asked), certificate.infer
    assert one.another().certifier.wrong == ""
    monkeypatch.setattr(certificate, "infer", lambda engine: right(engine) + np.float32(1))
    with pytest.raises(BackendError, match="does not compute"):
        one.another()


def test_without_onnx_runtime_it_is_said_that_nothing_was_asked(asked, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    one = opened(asked, "openvino")
    assert "asked nothing known, for onnxruntime is not installed" in one.describe()
    assert "asked nothing known" not in Session.open(asked, "openvino", "fp32").describe()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "demand"), [("hybrid-cifar10", "patch:5"), ("hybrid-gtsrb", "linf:2/255")])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_engine_computes_the_shipped_networks(backend, name, demand, precision):
    bundle = Bundle.open(BUNDLES / f"{name}.bundle")
    one = certificate.Certifier(bundle, certificate.Demand.parse(demand), backend, 1, precision)
    assert one._known is not None
    assert one.wrong == ""


def test_fault_int8_views_with_sums_that_overflow_are_noticed(monkeypatch):
    """OpenVINO's own INT8 kernels, whatever the processor: right where it adds exactly, refused where it does not."""
    exact = openvino_cpu.adds_int8_exactly()
    monkeypatch.setattr(openvino_cpu, "adds_int8_exactly", lambda: True)
    bundle, demand = Bundle.open(BUNDLES / "hybrid-gtsrb.bundle"), certificate.Demand("patch", 5)
    if exact:
        assert certificate.Certifier(bundle, demand, "openvino", 1, "int8").wrong == ""
        return
    with pytest.raises(BackendError, match="does not compute the network that was proved"):
        certificate.Certifier(bundle, demand, "openvino", 1, "int8")
