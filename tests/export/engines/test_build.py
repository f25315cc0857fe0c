"""Engines built for real by TensorRT-RTX, which needs no GPU for that, and everything that can be wrong with one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from repository import CLASSIFIERS

from framegate.export.bundle_half import add_half
from framegate.export.bundle_writer import update_manifest
from framegate.export.engines.build import EngineJob, build_engine, report_path
from framegate.export.engines.network import NetworkFacts, TensorFacts, check_network
from framegate.export.engines.options import BuildOptions, resolve_target
from framegate.runtime.backends.tensorrt.library import load_tensorrt
from framegate.runtime.backends.tensorrt.store import AMPERE, StaleEngineError
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.cli.main import main
from framegate.runtime.errors import BackendError, BundleError, ExportRefusedError, UsageError

pytestmark = pytest.mark.tensorrt

MOBILENET = next(path for path in CLASSIFIERS if path.stem == "mobilenet-cifar10")
MODELS = [
    (bundle, precision)
    for bundle in CLASSIFIERS
    for precision in sorted({"fp16", *json.loads((bundle / "manifest.json").read_text())["models"]})
]


@pytest.fixture(scope="module")
def trt():
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    return load_tensorrt("tensorrt-rtx")


@pytest.fixture
def job(trt, tmp_path, make_bundle):
    return EngineJob(trt, Bundle.open(make_bundle()), "fp32", AMPERE, BuildOptions(), None, tmp_path / "engines")


def silent(description: str, done: int, total: int) -> None:
    """Nobody looks."""


def build(job, progress=silent, stop=None):
    return build_engine(job, progress, stop or threading.Event())


@pytest.mark.parametrize(("bundle", "precision"), MODELS, ids=lambda part: getattr(part, "stem", part))
def test_every_shipped_model_builds_and_is_what_the_bundle_says(trt, tmp_path, bundle, precision):
    opened = Bundle.open(bundle)
    if precision not in opened.models:  # derived, in a copy
        opened = add_half(Path(shutil.copytree(bundle, tmp_path / bundle.name)))
    job = EngineJob(trt, opened, precision, AMPERE, BuildOptions(), None, tmp_path / "engines")
    engine = build(job)
    network = engine.header["network"]
    (image,), logits = network["inputs"], network["outputs"][0]
    spec = opened.preprocess
    assert image["type"] == logits["type"] == "FLOAT"
    assert image["shape"][0] == logits["shape"][0] == -1
    assert image["shape"][-2:] == [spec.height, spec.width]
    assert logits["shape"][1:] == [len(opened.labels)]
    assert ("QUANTIZE" in network["layers"]) == (precision == "int8")
    assert ("HALF" in network["types"]) == (precision == "fp16")
    # Weights are in the plan: in the files they take two bytes each (one in int8), and float16 shares the float32 ones.
    file = opened.model_path("fp32" if precision == "fp16" else precision)
    assert len(engine.plan) > 0.5 * file.stat().st_size
    report = json.loads(report_path(engine.path).read_text())
    assert report["network"] == json.loads(json.dumps(network))
    assert report["inspector"] is None
    assert "GPU" in report["no_inspector_because"]
    assert job.cached().plan == engine.plan


def test_a_missing_float16_network_is_derived_once_and_rejects_until_calibrated(
    trt, tiny_bundle, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = Path(shutil.copytree(MOBILENET, tmp_path / MOBILENET.name))
    (path / "model.fp16.onnx").unlink()
    models = {precision: file for precision, file in Bundle.open(MOBILENET).models.items() if precision != "fp16"}
    update_manifest(path, models=models)
    before = Bundle.open(path)
    arguments = ["engine", str(path), "--backend", "tensorrt-rtx", "--precision", "fp16", "--json"]
    assert main(arguments) == 0
    out, told = capsys.readouterr()
    (row,) = json.loads(out)
    assert row["how"] == "built"
    assert row["computes_in"]["HALF"] > row["computes_in"].get("FLOAT", 0) > 0  # sums and the last layer stay
    told = " ".join(told.split())
    assert "model.fp16.onnx was derived from the float32 network and added" in told
    assert "no calibration for tensorrt-rtx/fp16" in told
    after = Bundle.open(path)
    assert set(after.models) == {*before.models, "fp16"}
    assert {**before.hashes, "model.fp16.onnx": after.hashes["model.fp16.onnx"]} == after.hashes
    assert after.calibrations == before.calibrations
    assert main(arguments) == 0
    out, told = capsys.readouterr()
    assert json.loads(out)[0]["how"] == "cached"
    assert "derived" not in told


def test_a_float16_file_without_its_weights_or_with_others_is_refused(trt, tmp_path):
    bundle = add_half(Path(shutil.copytree(MOBILENET, tmp_path / MOBILENET.name)))
    job = EngineJob(trt, bundle, "fp16", AMPERE, BuildOptions(), None, tmp_path / "engines")
    weights = bundle.model_path("fp32")
    weights.rename(tmp_path / "elsewhere")
    with pytest.raises(BackendError, match=r"cannot parse .*model\.fp16\.onnx: "):
        build(job)
    other = replace(bundle, hashes={**bundle.hashes, weights.name: "0" * 64})
    with pytest.raises(BackendError, match="derived from other weights"):
        build(replace(job, bundle=other))


def spoiled(path: Path, content: bytes) -> Path:
    """The bundle with another float32 file, its hash right and nothing calibrated."""
    (path / "calibration.json").unlink()
    (path / "model.fp32.onnx").write_bytes(content)
    update_manifest(path)
    return path


def test_what_has_no_float16_form_stays_as_it_was(make_bundle, tmp_path):
    large = onnx.numpy_helper.from_array(np.full((3, 3, 1, 1), 1e6, np.float32), "large")
    nodes = [helper.make_node("Conv", ["image", "large"], ["x"]), *FLAT]
    nodes[1] = helper.make_node("GlobalAveragePool", ["x"], ["pooled"])
    beyond = spoiled(make_bundle(), model_of(nodes, [large]))
    with pytest.raises(ExportRefusedError, match="float16 ends at 65504"):
        add_half(beyond)
    garbage = spoiled(make_bundle(), b"not an ONNX file" * 10)
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx cannot be read"):
        add_half(garbage)
    for path in (beyond, garbage):
        assert set(Bundle.open(path).models) == {"fp32", "int8"}
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_board_without_onnx_is_told_what_to_do(trt, tiny_bundle, tmp_path):
    code = (
        "import sys\n"
        "sys.modules['onnx'] = None\n"
        "from framegate.runtime.cli.main import main\n"
        f"sys.exit(main(['engine', {str(tiny_bundle)!r}, '--precision', 'fp16']))\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "needs the package onnx" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_progress_is_told_phase_by_phase(job):
    seen = []
    build(job, lambda *update: seen.append(update))
    assert {text.split(":")[0] for text, _, _ in seen} == {"tiny fp32"}
    assert any("Building engine" in text for text, _, _ in seen)
    assert all(0 <= done <= total for _, done, total in seen)


def test_a_build_for_one_architecture_and_options_that_rtx_takes(job):
    job = replace(job, target="sm_86", options=BuildOptions(level=1, workspace_mib=64, max_batch=2))
    assert build(job).header["options"] == {
        "level": 1,
        "workspace_mib": 64,
        "max_batch": 2,
        "dla_core": None,
        "scores": "kernel",
    }
    with pytest.raises(StaleEngineError, match="built with other options"):
        replace(job, options=BuildOptions()).cached()


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from framegate.export.engines.build import EngineJob, build_engine
from framegate.export.engines.options import BuildOptions
from framegate.export.engines.progress import interrupt_event
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.backends.tensorrt.library import load_tensorrt
from framegate.runtime.backends.tensorrt.store import AMPERE
bundle, folder = Path(sys.argv[1]), Path(sys.argv[2])
job = EngineJob(load_tensorrt("tensorrt-rtx"), Bundle.open(bundle), "fp32", AMPERE, BuildOptions(), None, folder)
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with interrupt_event() as stop:
        build_engine(job, lambda *_: os.kill(os.getpid(), signal.SIGINT), stop)
except KeyboardInterrupt:
    print("interrupted", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_ctrl_c_ends_a_build_cleanly(trt, tmp_path, make_bundle):
    """In a process of its own: the signal goes to the whole process, with all the threads that other tests left."""
    folder = tmp_path / "engines"
    words = [sys.executable, "-c", INTERRUPTED, str(make_bundle()), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted True\n"), done.stderr
    assert not list(folder.rglob("*.engine"))


def with_model(job, content: bytes) -> EngineJob:
    (job.bundle.path / "model.fp32.onnx").write_bytes(content)
    return job


def model_of(nodes, initializers=(), size=32):
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, size, size])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(nodes, "odd", [image], [logits], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


FLAT = [
    helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
    helper.make_node("Flatten", ["pooled"], ["logits"], axis=1),
]


def test_a_damaged_onnx_file_is_named(job):
    with pytest.raises(BackendError, match=r"cannot parse .*model\.fp32\.onnx: "):
        build(with_model(job, b"not an ONNX file" * 10))
    content = (job.bundle.path / "model.fp32.onnx").read_bytes()
    with pytest.raises(BackendError, match=r"cannot parse .*model\.fp32\.onnx: "):
        build(with_model(job, content[: len(content) // 2]))


def test_an_unsupported_operator_is_named(job):
    nodes = [helper.make_node("Det", ["image"], ["x"], name="the-node"), *FLAT]
    with pytest.raises(BackendError, match=r"operator Det \(node the-node\)"):
        build(with_model(job, model_of(nodes)))


def softmax_entropy_function():
    """framegate::SoftmaxEntropy of standard operators: H = -sum p log p."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["p"], axis=-1),
        helper.make_node("LogSoftmax", ["x"], ["l"], axis=-1),
        helper.make_node("Mul", ["p", "l"], ["pl"]),
        helper.make_node("ReduceSum", ["pl", "axes"], ["negative"], keepdims=0),
        helper.make_node("Neg", ["negative"], ["h"]),
    ]
    axes = helper.make_node("Constant", [], ["axes"], value_ints=[-1])
    imports = [helper.make_opsetid("", 17)]
    return helper.make_function("framegate", "SoftmaxEntropy", ["x"], ["p", "h"], [axes, *nodes], imports)


def with_function(job, functions) -> EngineJob:
    call = helper.make_node("SoftmaxEntropy", ["logits"], ["probabilities", "entropy"], domain="framegate")
    values = {"image": ["N", 3, 32, 32], "logits": ["N", 3], "probabilities": ["N", 3], "entropy": ["N"]}
    image, *outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in values.items())
    graph = helper.make_graph([*FLAT, call], "scores", [image], outputs)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("framegate", 1)]
    model = helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=9)
    return with_model(job, model.SerializeToString())


def test_a_model_local_function_becomes_layers_and_no_plugin(job):
    network = build(with_function(job, [softmax_entropy_function()])).header["network"]
    assert [output["name"] for output in network["outputs"]] == ["logits", "probabilities", "entropy"]
    assert network["layers"]["SOFTMAX"] >= 1
    assert not any(kind.startswith("PLUGIN") for kind in network["layers"])


def test_a_custom_operator_without_its_function_is_named(job):
    with pytest.raises(BackendError, match="operator SoftmaxEntropy"):
        build(with_function(job, []))


def test_a_plugin_layer_is_never_taken_for_the_function(job):
    facts = NetworkFacts((), (), {"PLUGIN_V3": 1}, {})
    facts = replace(facts, inputs=(TensorFacts("image", (-1, 3, 32, 32), "FLOAT"),))
    facts = replace(facts, outputs=(TensorFacts("logits", (-1, 3), "FLOAT"),))
    with pytest.raises(BackendError, match=r"PLUGIN_V3.*a plugin registered in this process"):
        check_network(facts, Path("model.fp32.onnx"), job.bundle.preprocess, 3, "fp32")


def test_a_network_for_another_size_is_refused(job):
    with pytest.raises(BackendError, match=r"one float32 input \(N, 3, 32, 32\) expected"):
        build(with_model(job, model_of(FLAT, size=48)))


def test_a_model_filed_under_another_precision_is_refused(job):
    with pytest.raises(BackendError, match=r"filed as int8, .* none are quantised"):
        build(replace(job, precision="int8"))  # the test bundle's int8 file is a float32 model


DAMAGES = {
    "truncated": (lambda content: content[:-1], "is truncated"),
    "header cut": (lambda content: content[:100], "not a whole engine file"),
    "flipped": (lambda content: content[:-10] + bytes([content[-10] ^ 1]) + content[-9:], "is damaged"),
    "other file": (lambda content: b"\x7fELF" + content, "not a whole engine file"),
    "foreign": (lambda content: content.replace(b'"version": "1.7', b'"version": "1.6', 1), "was built for version"),
    "no header": (lambda content: content[:27] + b"}" + content[28:], "damaged header"),
    "empty": (lambda content: b"", "not a whole engine file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_engine_is_never_returned_and_built_again(job, damage):
    spoil, words = DAMAGES[damage]
    engine = build(job)
    engine.path.write_bytes(spoil(engine.path.read_bytes()))
    with pytest.raises(StaleEngineError, match=words):
        job.cached()
    assert build(job).plan == job.cached().plan


def test_a_changed_model_has_another_engine(job, trt):
    first = build(job)
    other = replace(job.key, model_sha256="0" * 64)
    assert other.path(job.folder) != first.path


@pytest.mark.parametrize("wanted", ["sm_87", "sm_90", "sm_110"])
def test_rtx_names_the_architectures_it_builds_for(trt, wanted):
    with pytest.raises(BackendError, match=f"target {wanted} was asked for, tensorrt-rtx .* sm_86"):
        resolve_target(trt, wanted, None)


def test_targets_that_make_no_sense(trt):
    with pytest.raises(UsageError, match="known are this-gpu"):
        resolve_target(trt, "hopper", None)
    with pytest.raises(BackendError, match="has no GPU"):
        resolve_target(trt, "this-gpu", None)
    assert resolve_target(trt, None, None) == AMPERE


def test_the_command_builds_once_and_says_what_is_missing(trt, tiny_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = ["engine", str(tiny_bundle), "--precision", "fp32", "--json"]
    assert main(arguments) == 0
    first, told = capsys.readouterr()
    assert json.loads(first)[0]["how"] == "built"
    assert "no calibration for tensorrt-rtx/fp32" in told.replace("\n", " ")
    assert main(arguments) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["how"] == "cached"
    Path(row["engine"]).write_bytes(Path(row["engine"]).read_bytes()[:-5])
    assert main(arguments) == 0
    again, told = capsys.readouterr()
    assert json.loads(again)[0]["how"] == "built"
    assert "truncated" in told


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--level", "7"], 2, "level is 7"),
        (["--workspace-mib", "0"], 2, "workspace is 0"),
        (["--max-batch", "0"], 2, "max batch is 0"),
        (["--dla", "-1"], 2, "DLA core is -1"),
        (["--precision", "fp8"], 1, "precision 'fp8' was asked for"),
        (["--target", "sm_90"], 1, "target sm_90"),
        (["--dla", "0", "--precision", "fp32"], 1, "DLA core 0 was asked for"),
    ],
)
def test_wrong_options_end_in_one_line(trt, tiny_bundle, tmp_path, monkeypatch, capsys, options, code, words):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["engine", str(tiny_bundle), "--backend", "tensorrt-rtx", *options]) == code
    told = capsys.readouterr().err
    assert words in told
    assert "Traceback" not in told


def test_a_cache_that_cannot_be_written_ends_in_one_line(trt, tiny_bundle, tmp_path, monkeypatch, capsys):
    (tmp_path / "framegate").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["engine", str(tiny_bundle), "--precision", "fp32"]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_command_needs_neither_torch_nor_onnx(trt, tiny_bundle, tmp_path):
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxscript', 'onnxruntime', 'openvino'): sys.modules[name] = None\n"
        "from framegate.runtime.cli.main import main\n"
        f"sys.exit(main(['engine', {str(tiny_bundle)!r}, '--precision', 'fp32', '--json']))\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["how"] == "built"


def test_the_test_models_are_valid_onnx():
    onnx.checker.check_model(onnx.load_from_string(model_of(FLAT)))
