"""The bundle vouches for itself: whatever is changed in it is refused, and what is loaded is what was hashed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from repository import BUNDLES
from repository import SHIPPED as EVERY

from framegate.runtime import Bundle, BundleError, Session
from framegate.runtime.bundle.bundle import MANIFEST, manifest_digest, seal
from framegate.runtime.bundle.onnx_file import holds_finite, read_onnx_facts
from framegate.runtime.bundle.signature import read_signature

SHIPPED = BUNDLES / "simplecnn-cifar10.bundle"


@pytest.fixture
def folder(tmp_path):
    """A shipped bundle that the test may damage."""
    return shutil.copytree(SHIPPED, tmp_path / "copy.bundle")


def edit(path, change, digest=False):
    """Edit a JSON file as somebody with a text editor would; with the digest, as somebody who knows of it."""
    record = json.loads(path.read_text())
    change(record)
    if digest:
        record["digest"] = manifest_digest(record)
    path.write_text(json.dumps(record))


def swap_labels(manifest):
    manifest["labels"][0], manifest["labels"][1] = manifest["labels"][1], manifest["labels"][0]


def other_mean(manifest):
    manifest["preprocess"]["mean"] = [100.0, 100.0, 100.0]


def other_taps(manifest):
    manifest["taps"] = manifest["taps"][1:]


def test_every_shipped_bundle_is_whole_and_consistent():
    digests = {Bundle.open(path).digest for path in EVERY}
    assert len(digests) == len(EVERY) >= 6


@pytest.mark.parametrize("change", [swap_labels, other_mean, other_taps])
@pytest.mark.parametrize("digest", [False, True])
def test_fault_the_manifest_is_edited(folder, change, digest):
    edit(folder / MANIFEST, change, digest)
    with pytest.raises(BundleError, match="belongs to other labels" if digest else "manifest.json was changed"):
        Bundle.open(folder)


def vouch_for(folder, name):
    """Let the manifest vouch for a file as it is, and for nothing else anew."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def calibration_of(folder, **values):
    """Edit every calibration record, and let the manifest vouch for it."""
    path = folder / "calibration.json"

    def change(record):
        for each in record["records"].values():
            each.update(values)

    edit(path, change)
    seal(folder, json.loads((folder / MANIFEST).read_text()))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"threshold": 1e9, "limits": []}, "rejects nothing"),
        ({"threshold": 2.31, "limits": []}, "rejects nothing"),  # above log(10), the largest entropy of ten classes
        ({"unit": 7}, "must be words"),
        ({"about": "vibes"}, "the promise is about 'vibes'"),
        ({"shares": 0}, "shares is 0"),
        ({"shares": 1000}, "does not follow from"),
        ({"units_bound": 1.5}, "expected a share"),
        ({"units_wrong": "few"}, "units_wrong is 'few'"),
        ({"risk_bound": 0.9}, "in this order"),
        ({"risk_bound": 0.0}, "in this order"),
        ({"coverage": 7}, "expected a share"),
        ({"coverage": -0.1}, "expected a share"),
        ({"coverage": math.nan}, "expected a share"),
        ({"selective_risk": 0.5}, "in this order"),
        ({"size": 0}, "expected a share"),
        ({"size": 30}, "does not follow from"),
        ({"confidence_level": 0.999999}, "does not follow from"),
        ({"target_risk": 0.5, "risk_bound": 0.0001, "selective_risk": 0.0001}, "does not follow from"),
        ({"threshold": math.nan}, "finite"),
        ({"temperature": 0}, "positive"),
        ({"score_quantiles": [math.nan]}, "not finite"),
        ({"engine": None}, "expected its name and version"),
    ],
)
def test_fault_the_calibration_is_edited(folder, values, said):
    calibration_of(folder, **values)
    with pytest.raises(BundleError, match=said):
        Bundle.open(folder)


def test_fault_the_model_is_replaced_between_open_and_load(folder):
    bundle = Bundle.open(folder)
    (folder / "model.fp32.onnx").write_bytes((BUNDLES / "mobilenet-cifar10.bundle" / "model.fp32.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx has SHA-256"):
        Session.open(bundle, "onnxruntime", "fp32")


def test_what_is_loaded_is_a_private_copy(folder):
    bundle = Bundle.open(folder)
    with bundle.loaded("fp16") as model:  # its weights lie in the float32 file
        assert model.parent != folder
        assert model.parent.stat().st_mode & 0o077 == 0
        names = {path.name for path in model.parent.iterdir()}
        assert names == {"model.fp16.onnx", "model.fp32.onnx"}
        assert all(hashlib.sha256((model.parent / n).read_bytes()).hexdigest() == bundle.hashes[n] for n in names)
    assert not model.parent.exists()


def test_fault_no_place_for_a_private_copy(folder, tmp_path, monkeypatch):
    bundle = Bundle.open(folder)

    def none_left(*_given):
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    for where, what in (("tempfile.mkdtemp", none_left), ("pathlib.Path.write_bytes", none_left)):
        with monkeypatch.context() as patch:
            patch.setattr(where, what)
            patch.setattr("tempfile.tempdir", str(tmp_path))
            with pytest.raises(BundleError, match="let TMPDIR name a folder with room"):
                Session.open(bundle, "onnxruntime", "fp32")
    assert not list(tmp_path.glob("framegate-*"))


def test_fault_external_weights_are_edited(folder):
    path = folder / "model.fp32.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx has SHA-256"):
        Bundle.open(folder)


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/passwd", "other.bin", ""])
def test_fault_external_weights_lie_outside_of_the_bundle(folder, location):
    (folder.parent / "outside.bin").write_bytes(bytes(64))
    (folder / "other.bin").write_bytes(bytes(64))
    model = onnx.load(folder / "model.fp16.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "model.fp16.onnx").write_bytes(model.SerializeToString())
    (folder / "calibration.json").unlink()
    (folder / "other.bin").rename(folder.parent / "elsewhere.bin")
    seal(folder, json.loads((folder / MANIFEST).read_text()))
    with pytest.raises(BundleError, match="which is no file of the bundle"), Bundle.open(folder).loaded("fp16"):
        pass


def test_fault_a_file_of_the_bundle_is_a_link_that_leads_out(folder):
    path = folder / "model.fp32.onnx"
    outside = path.rename(folder.parent / "outside.onnx")
    path.symlink_to(outside)
    with pytest.raises(BundleError, match="a link that leads out"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", [MANIFEST, "monitor.json", "signature.json"])
def test_fault_a_pipe_in_place_of_a_file_is_not_waited_for(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(BundleError, match="no regular file"):
        read_signature(folder) if name == "signature.json" else Bundle.open(folder)


def test_fault_links_in_a_circle_are_one_sentence(folder):
    (folder / "monitor.json").unlink()
    (folder / "monitor.json").symlink_to("monitor.json")
    with pytest.raises(BundleError, match=r"monitor\.json cannot be read"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", [MANIFEST, "calibration.json", "monitor.json"])
def test_fault_an_entry_that_is_there_twice(folder, name):
    """The digest is over one of them; another program may read the other one."""
    text = (folder / name).read_text()
    key = next(iter(json.loads(text)))
    (folder / name).write_text(text.replace("{", f'{{"{key}": "another", ', 1))
    if name != MANIFEST:
        vouch_for(folder, name)
    with pytest.raises(BundleError, match=f"{name} cannot be read \\('{key}' is in it twice"):
        Bundle.open(folder)


def test_fault_a_calibration_of_another_engine_under_the_name_of_this_one(folder):
    path = folder / "calibration.json"

    def change(record):
        records = record["records"]
        records["openvino/int8"] = records["onnxruntime/int8"]

    edit(path, change)
    seal(folder, json.loads((folder / MANIFEST).read_text()))
    with pytest.raises(BundleError, match=r"openvino/int8 was made on onnxruntime .*calibrate this bundle again"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("monitor.json", lambda record: record.update(limit=10**400)),
        ("certificates.json", lambda record: record["certificates"][0]["preprocess"].update(mean=[10**400] * 3)),
    ],
)
def test_a_number_that_is_too_large_is_said_of_the_file_that_holds_it(tmp_path, name, change):
    folder = shutil.copytree(BUNDLES / "hybrid-cifar10.bundle", tmp_path / "copy.bundle")
    edit(folder / name, change)
    seal(folder, json.loads((folder / MANIFEST).read_text()))
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    assert MANIFEST not in str(caught.value)


def test_a_preprocessing_that_this_version_does_not_know_names_the_bundle(folder):
    edit(folder / MANIFEST, lambda manifest: manifest["preprocess"].update(resize="cubic"), digest=True)
    with pytest.raises(
        BundleError, match=r"bundle .*copy\.bundle: preprocess resize is 'cubic'.*export the model again"
    ):
        Bundle.open(folder)


@pytest.mark.parametrize("name", ["../model.fp32.onnx", "/etc/passwd", "a/b", ".."])
def test_fault_the_manifest_names_a_file_elsewhere(folder, name):
    edit(folder / MANIFEST, lambda manifest: manifest["files"].update({name: "0" * 64}), digest=True)
    with pytest.raises(BundleError, match="must lie in the folder itself"):
        Bundle.open(folder)


def poison(path, value, name=None):
    """Put a number into a stored tensor of an ONNX file."""
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16))
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[0] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(model, path)
    return tensor.name


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_fault_a_weight_is_not_finite(make_bundle, backend, value):
    path = make_bundle(threshold=None)
    name = poison(path / "model.fp32.onnx", value)
    seal(path, json.loads((path / MANIFEST).read_text()))
    with pytest.raises(BundleError, match=f"holds NaN or infinities in '{name}'"):
        Session.open(path, backend, "fp32")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("origin", "x"),
        ("parity", 5),
        ("parity", [5]),
        ("labels", "abc"),
        ("labels", [1, 2, 3]),
        ("labels", None),
        ("files", []),
        ("models", {"fp32": 7}),
        ("name", ["x"]),
        ("preprocess", {"width": 10**400}),
        ("preprocess", {"width": "nan"}),
        ("preprocess", []),
        ("taps", 5),
        ("taps", [[]]),
    ],
)
def test_malformed_entries_are_one_sentence(folder, key, value):
    edit(folder / MANIFEST, lambda manifest: manifest.update({key: value}), digest=True)
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "\ud800", "", "null", "NaN"])
@pytest.mark.parametrize("name", [MANIFEST, "calibration.json", "monitor.json"])
def test_json_that_is_none_is_one_sentence(folder, name, text):
    (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    if name != MANIFEST:
        vouch_for(folder, name)
    with pytest.raises(BundleError):
        Bundle.open(folder)


NUMBERS = st.one_of(st.none(), st.booleans(), st.integers(-(10**400), 10**400), st.floats(), st.text(max_size=5))
JSON = st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(["temperature", "score", "threshold", "coverage", "size", "limits", "groups"]), value=JSON)
def test_whatever_stands_in_a_calibration_is_read_or_one_error(tiny_bundle, tmp_path_factory, key, value):
    folder = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("any") / "any.bundle")
    calibration_of(folder, **{key: value})
    with suppress(BundleError):
        Bundle.open(folder)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_onnx_file_is_read_or_one_error(data):
    content = bytearray((SHIPPED / "model.fp16.onnx").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    with suppress(BundleError):
        read_onnx_facts(bytes(content))


def test_numbers_in_every_form_of_a_tensor_are_seen():
    """raw_data, float_data, double_data, constants inside nodes, sub-graphs, and weights in another file."""
    bad = np.array([1.0, np.nan], np.float32)
    raw = numpy_helper.from_array(bad, "raw")
    packed = helper.make_tensor("packed", TensorProto.FLOAT, [2], [1.0, math.inf])
    double = helper.make_tensor("double", TensorProto.DOUBLE, [1], [-math.inf])
    half = numpy_helper.from_array(bad.astype(np.float16), "half")
    whole = numpy_helper.from_array(np.array([1, 2], np.int64), "whole")
    good = numpy_helper.from_array(np.ones(2, np.float32), "good")
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(bad, "inside"))
    branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [2])])
    node = helper.make_node("If", ["b"], ["y"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph([node], "g", [], [], [raw, packed, double, half, whole, good])
    facts = read_onnx_facts(helper.make_model(graph).SerializeToString())
    assert set(facts.not_finite) == {"raw", "packed", "double", "half", "inside"}


@pytest.mark.parametrize(("value", "finite"), [(1.0, True), (3.0e38, True), (math.nan, False), (-math.inf, False)])
def test_bfloat16_is_seen_too(value, finite):
    upper = (np.array([1.0, value], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    assert holds_finite(upper.tobytes(), TensorProto.BFLOAT16) is finite
