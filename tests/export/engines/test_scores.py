"""Engines that compute the scores themselves: which way the parser takes, on each release, and what is refused.

The function's way is built for real by TensorRT-RTX. The plugin's way needs TensorRT with its libraries and a GPU; here
its network, its registration and its header are made by framegate's own code over a stand-in for the builder
(fake_builder.py). tests/runtime/backends/tensorrt/test_plugin.py runs the plugin itself over the real bindings.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import fake_builder
import numpy as np
import onnx
import onnxruntime
import pytest
from repository import BUNDLES

from framegate.cuda_kernels.compile.compiler import CompilerError
from framegate.cuda_kernels.driver.open import CudaError, DeviceInfo
from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.export.bundle_half import add_half
from framegate.export.engines import aot as engine_aot
from framegate.export.engines import scores as engine_scores
from framegate.export.engines.build import EngineJob, build_engine, report_path
from framegate.export.engines.network import NetworkFacts, TensorFacts, check_network
from framegate.export.engines.options import BuildOptions
from framegate.export.engines.scores import check_scores, network_file, plugin_for_build
from framegate.export.graph.scores import with_scores
from framegate.runtime.backends.tensorrt import plugin as tensorrt_plugin
from framegate.runtime.backends.tensorrt.library import load_tensorrt
from framegate.runtime.backends.tensorrt.plugin import NAME, NAMESPACE
from framegate.runtime.backends.tensorrt.scores import SCORES, TEMPERATURE
from framegate.runtime.backends.tensorrt.store import AMPERE, StaleEngineError
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.cli.main import main
from framegate.runtime.errors import BackendError, BundleError, UsageError

MOBILENET = BUNDLES / "mobilenet-cifar10.bundle"
ORIN = DeviceInfo("Orin", 87, 16, 1 << 33, 1 << 22, True, (12, 6), 9)
VERSIONS = ("10.3.0", "10.7.0", "10.10.0", "10.13.3.9", "10.16.0.72", "11.4.0.106")
PLUGIN = (NAME, "1", NAMESPACE)


@pytest.fixture(scope="module")
def fake():
    return fake_builder


@pytest.fixture
def release(fake, monkeypatch):
    """Make a release; a GPU and a compiler are taken as given."""
    monkeypatch.setattr(engine_scores, "open_driver", fake.no_gpu)
    monkeypatch.setattr(engine_scores, "load_ptx", lambda *arguments: b"PTX %d" % arguments[1])
    monkeypatch.setattr(tensorrt_plugin, "Kernels", lambda gpu, source: (gpu, source))
    # A process registers a plugin once; a test is a process of its own.
    monkeypatch.setattr(tensorrt_plugin, "_creators", {})
    monkeypatch.setattr(tensorrt_plugin, "_registered", set())
    monkeypatch.setattr(engine_aot, "_defined", {})
    return fake.Release


@pytest.fixture
def job(make_bundle, tmp_path):
    bundle = Bundle.open(make_bundle())

    def make(release, scores="kernel", **changes) -> EngineJob:
        options = BuildOptions(scores=scores, **changes)
        return EngineJob(release.trt, bundle, "fp32", "Orin, sm_87", options, ORIN, tmp_path / "engines")

    return make


def build(job):
    return build_engine(job, lambda *_: None, threading.Event())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plugin_becomes_a_plugin_on_every_release(release, job, version):
    one = release(version)
    engine = build(job(one, "plugin"))
    assert engine.header["network"]["layers"]["PLUGIN_V3"] == 1
    assert [tensor["name"] for tensor in engine.header["network"]["inputs"]] == ["image", TEMPERATURE]
    assert [tensor["name"] for tensor in engine.header["network"]["outputs"]] == ["logits", *SCORES]
    assert engine.header["options"]["scores"] == "plugin"
    old = version in ("10.3.0", "10.7.0")
    assert engine.header["plugin"] == ("registered" if old else "ahead of time")
    assert one.during == [PLUGIN]
    assert one.registry.creators == {}  # only while it is wanted
    flag = one.networks[-1].flags >> 5 & 1
    assert flag == (not old)  # PREFER_AOT_PYTHON_PLUGINS, where it exists
    report = json.loads(report_path(engine.path).read_text())
    assert report["inspector"] == {"Layers": ["conv"]}  # the engine was opened while the plugin was there
    assert report["plugin"] == engine.header["plugin"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_function_stays_a_function_and_the_kernel_stays_outside(release, job, version):
    one = release(version)
    for scores in ("plugin", "function", "kernel", "plugin", "kernel", "function"):  # in one process, in any order
        header = build(job(one, scores)).header
        assert header["network"]["layers"].get("PLUGIN_V3", 0) == (scores == "plugin")
        assert ("TOPK" in header["network"]["layers"]) == (scores == "function")
        assert len(header["network"]["outputs"]) == (1 if scores == "kernel" else 5)
        assert (header["plugin"] != "") == (scores == "plugin")
        assert one.registry.creators == {}
        assert one.configs[-1].profiles[0]["image"] == ((1, 3, 32, 32), (1, 3, 32, 32), (16, 3, 32, 32))
        if scores != "kernel":
            assert one.configs[-1].profiles[0][TEMPERATURE] == ((1,), (1,), (1,))


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        ("10.3.0", "function"),
        ("10.6.0", "function"),
        ("10.7.0", "plugin"),
        ("10.13.3.9", "plugin"),
        ("10.15.1.29", "function"),
        ("11.4.0.106", "function"),
    ],
)
def test_a_file_with_both_goes_three_ways_and_the_layers_tell(release, job, version, taken):
    """Why nothing is left to the parser: here the plugin is registered and nobody wanted it."""
    one = release(version)
    gone = tensorrt_plugin.register_plugin(one.trt, "gpu")  # an engine with the plugin is open in this process
    # The namespace of a domain is looked at from 10.10 on; before, a plugin in no namespace would be found.
    one.registry.creators[NAME, "1", ""] = gone
    if taken == "function":
        assert "PLUGIN_V3" not in build(job(one, "function")).header["network"]["layers"]
        return
    with pytest.raises(BackendError, match=r"the parser made {'PLUGIN_V3': 1} of it, a plugin registered in this"):
        build(job(one, "function"))


def test_a_parser_that_takes_no_plugin_is_found_out(release, job, monkeypatch):
    """Should a release look for plugins elsewhere: the file holds no function that it could take silently."""
    one = release("10.13.3.9")
    monkeypatch.setattr(
        one.trt.module.OnnxParser, "choose", lambda self, node: "ordinary" if self and not node.domain else None
    )
    with pytest.raises(BackendError, match=r"operator SoftmaxEntropy \(node scores\): Plugin not found"):
        build(job(one, "plugin"))
    facts = NetworkFacts(
        (TensorFacts("image", (-1, 3, 32, 32), "FLOAT"), TensorFacts(TEMPERATURE, (1,), "FLOAT")),
        (TensorFacts("logits", (-1, 3), "FLOAT"),),
        {"SOFTMAX": 1},
        {},
    )
    spec = job(one).bundle.preprocess
    with pytest.raises(BackendError, match="were to become one PLUGIN_V3 layer, the parser made no plugin of them"):
        check_network(facts, Path("m.onnx"), spec, 3, "fp32", "plugin")
    with pytest.raises(BackendError, match=r"float32 scores .* expected besides the logits"):
        check_network(replace(facts, layers={"PLUGIN_V3": 1}), Path("m.onnx"), spec, 3, "fp32", "plugin")
    with pytest.raises(BackendError, match="besides the image no input expected"):
        check_network(facts, Path("m.onnx"), spec, 3, "fp32")


def test_the_way_is_an_option_and_another_one_rebuilds(release, job):
    one = release("10.16.0.72")
    build(job(one, "plugin"))
    with pytest.raises(StaleEngineError, match="built with other options"):
        job(one).cached()
    assert job(one, "plugin").cached().header["plugin"] == "ahead of time"
    with pytest.raises(UsageError, match="known are kernel, plugin, function"):
        BuildOptions(scores="magic")


def test_ptx_is_for_the_oldest_gpu_of_the_target(release):
    one = release("11.4.0.106")
    for target, ptx in (("Orin, sm_87", b"PTX 87"), (AMPERE, b"PTX 80")):
        with plugin_for_build(one.trt, "plugin", ORIN, target) as how:
            assert how == "ahead of time"
            (defined,) = engine_aot._defined.values()
            assert defined.ptx == ptx
        assert defined.ptx == b""


def refusing(error):
    def refuse(*arguments):
        raise error

    return refuse


def test_what_a_plugin_needs_and_is_not_there_ends_in_one_line(release, job, monkeypatch):
    one, old = release("11.4.0.106"), release("10.3.0")
    monkeypatch.setattr(engine_scores, "load_ptx", refusing(CompilerError("no nvcc on PATH")))
    with pytest.raises(BackendError, match="the kernel cannot be put into an engine: no nvcc on PATH"):
        build(job(one, "plugin"))
    monkeypatch.setattr(
        engine_scores, "open_driver", refusing(CudaError("CUDA_ERROR_OUT_OF_MEMORY", "out of memory", "opening"))
    )
    with pytest.raises(BackendError, match=r"the plugin cannot be run here: .*out of memory"):
        build(job(old, "plugin"))
    with pytest.raises(BackendError, match="this machine has no GPU"), plugin_for_build(old.trt, "plugin", None, "x"):
        raise AssertionError
    one.package.register = lambda identity: lambda function: function  # a registry that does not take it
    monkeypatch.setattr(engine_scores, "load_ptx", lambda *arguments: b"PTX")
    with pytest.raises(BackendError, match="did not register the plugin framegate::SoftmaxEntropy"):
        build(job(one, "plugin"))
    assert not list(job(one).folder.rglob("*.engine"))


def test_a_build_that_fails_leaves_no_plugin_behind(release, job, monkeypatch):
    for version in ("10.3.0", "11.4.0.106"):
        one = release(version)
        monkeypatch.setattr(one.trt.module.Builder, "build_serialized_network", lambda *arguments: None)
        with pytest.raises(BackendError, match="could not build"):
            build(job(one, "plugin"))
        assert one.registry.creators == {}


def test_what_was_timed_is_kept_for_the_next_build_and_a_foreign_cache_is_dropped(release, job):
    first = release("10.13.3.9")
    build(job(first))
    assert first.configs[-1].offered == [b""]
    (path,) = job(first).folder.glob("timing-*.cache")
    assert path.name == "timing-tensorrt-10.13.3.9-Orin-cuda12.6.cache"
    assert path.read_bytes() == b"+timed"
    build(job(first, level=1))
    assert first.configs[-1].offered == [b"+timed"]
    assert path.read_bytes() == b"+timed+timed"
    path.write_bytes(b"of another GPU")
    picky = release("10.13.3.9", accepts=lambda content: content == b"")
    build(job(picky))
    assert picky.configs[-1].offered == [b"of another GPU", b""]
    assert path.read_bytes() == b"+timed"
    other = release("10.16.0.72")  # another release has its own
    build(job(other))
    assert other.configs[-1].offered == [b""]
    assert len(list(job(first).folder.glob("timing-*.cache"))) == 2
    failing = release("10.13.3.9")
    failing.trt.module.Builder.build_serialized_network = lambda *arguments: None
    with pytest.raises(BackendError, match="could not build"):
        build(job(failing))
    assert path.read_bytes() == b"+timed"  # a build that failed has nothing to keep


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ('{"Layers": ["conv"]}', None),
        ("{not JSON", "in something that is no JSON"),
        (None, "cannot open the engine here: Error Code 1: Serialization"),
    ],
)
def test_the_inspectors_report_lies_beside_the_engine_and_never_costs_it(release, job, described, words):
    one = release("10.13.3.9", described)
    engine = build(job(one))
    report = json.loads(report_path(engine.path).read_text())
    assert report_path(engine.path).parent == engine.path.parent
    if words is None:
        assert report["inspector"] == json.loads(described)
        assert report["no_inspector_because"] == ""
    else:
        assert report["inspector"] is None
        assert words in report["no_inspector_because"]
    assert report["network"]["layers"] == engine.header["network"]["layers"]
    assert job(one).cached().plan == engine.plan


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_functions_scores_at_a_temperature_that_is_given_are_the_references(precision):
    model = Bundle.open(MOBILENET).model_path(precision)
    content = network_file(model, "function")
    onnx.checker.check_model(onnx.load_model_from_string(content), full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(4).normal(0, 1, (3, 3, 32, 32)).astype(np.float32)
    for temperature in (1.0, 0.4, 3.0):
        fed = {session.get_inputs()[0].name: image, TEMPERATURE: np.array([temperature], np.float32)}
        logits, probabilities, entropy, margin, energy = session.run(["logits", *SCORES], fed)
        truth = softmax_scores(logits, float(np.float32(temperature)))
        np.testing.assert_allclose(probabilities, truth.probabilities, atol=1e-6)
        for found, wanted in ((entropy, truth.entropy), (margin, truth.margin), (energy, truth.energy)):
            np.testing.assert_allclose(found[:, 0], wanted, atol=1e-5)


def test_a_file_for_the_plugin_holds_no_function_and_names_the_namespace():
    model = onnx.load_model_from_string(network_file(Bundle.open(MOBILENET).model_path("fp32"), "plugin"))
    assert list(model.functions) == []
    (node,) = (node for node in model.graph.node if node.domain == NAMESPACE)
    assert node.op_type == NAME
    assert {a.name: a.s for a in node.attribute} == {"plugin_namespace": b"framegate", "plugin_version": b"1"}


def test_networks_that_cannot_be_given_scores(tmp_path):
    model = Bundle.open(MOBILENET).model_path("fp32")
    path = tmp_path / "scored.onnx"
    onnx.save(with_scores(onnx.load(model), 1.0), path)
    with pytest.raises(BundleError, match=r"has tensors .*'entropy'.* of its own"):
        network_file(path, "plugin")
    path.write_bytes(b"garbage" * 9)
    with pytest.raises(BundleError, match="cannot be read"):
        network_file(path, "function")
    path.unlink()
    with pytest.raises(BackendError, match="cannot be read"):
        network_file(path, "kernel")


# From here on: TensorRT-RTX for real.


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    return load_tensorrt("tensorrt-rtx")


@pytest.mark.tensorrt
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_rtx_builds_the_function_into_the_engine(rtx, tmp_path, precision):
    path = Path(shutil.copytree(MOBILENET, tmp_path / MOBILENET.name))
    bundle = add_half(path) if precision == "fp16" else Bundle.open(path)
    job = EngineJob(rtx, bundle, precision, AMPERE, BuildOptions(scores="function"), None, tmp_path / "engines")
    engine = build(job)
    network = engine.header["network"]
    assert [(tensor["name"], tensor["shape"][1:]) for tensor in network["outputs"]] == [
        ("logits", [10]),
        ("pooled", [bundle.monitor.size]),
        ("probabilities", [10]),
        ("entropy", [1]),
        ("margin", [1]),
        ("energy", [1]),
    ]
    assert {tensor["type"] for tensor in network["outputs"]} == {"FLOAT"}  # whatever the network computes in
    assert network["inputs"][1] == {"name": TEMPERATURE, "shape": [1], "type": "FLOAT"}
    assert not any(kind.startswith("PLUGIN") for kind in network["layers"])
    assert engine.header["plugin"] == ""
    with pytest.raises(StaleEngineError, match="built with other options"):
        replace(job, options=BuildOptions()).cached()


@pytest.mark.tensorrt
def test_rtx_refuses_the_plugin_before_anything_is_built(rtx, tiny_bundle, tmp_path, monkeypatch, capsys):
    with pytest.raises(BackendError, match="takes none"):
        check_scores(rtx, "plugin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = ["engine", str(tiny_bundle), "--backend", "tensorrt-rtx", "--precision", "fp32"]
    assert main([*arguments, "--scores", "plugin"]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "scores by a plugin were asked for, tensorrt-rtx 1." in told
    assert "--scores function builds them into the engine" in told
    assert "Traceback" not in told
    assert not list(tmp_path.rglob("*.engine"))
    assert main([*arguments, "--scores", "function", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["scores"], row["plugin"], row["how"]) == ("function", "", "built")
    assert main([*arguments, "--json"]) == 0  # the default again: built anew, as the header says another way
    out, told = capsys.readouterr()
    assert json.loads(out)[0]["how"] == "built"
    assert "other options" in " ".join(told.split())


@pytest.mark.tensorrt
def test_without_the_package_onnx_the_option_says_what_to_do(rtx, tiny_bundle, tmp_path):
    code = (
        "import sys\n"
        "sys.modules['onnx'] = None\n"
        "from framegate.runtime.cli.main import main\n"
        f"sys.exit(main(['engine', {str(tiny_bundle)!r}, '--precision', 'fp32', '--scores', 'function']))\n"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "needs the package onnx: pip install onnx" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
