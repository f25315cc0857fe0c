from __future__ import annotations

import json
import shutil

import pytest

from framegate.runtime.bundle.bundle import Bundle, seal
from framegate.runtime.errors import BundleError


def test_a_good_bundle_opens(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)
    assert bundle.labels == ("blue", "green", "red")
    assert bundle.calibration("openvino", "int8").threshold == 0.5
    assert bundle.calibration("openvino", "fp16") is None
    assert bundle.model_path("fp32").is_file()


def test_missing_precision_names_what_there_is(tiny_bundle):
    with pytest.raises(BundleError, match="'fp16' was asked for, it has fp32, int8"):
        Bundle.open(tiny_bundle).model_path("fp16")


def test_no_folder(tmp_path):
    with pytest.raises(BundleError, match="found nothing"):
        Bundle.open(tmp_path / "nowhere.bundle")
    (tmp_path / "file.bundle").write_text("x")
    with pytest.raises(BundleError, match="found a file"):
        Bundle.open(tmp_path / "file.bundle")


def test_a_folder_that_is_no_bundle_is_not_called_a_damaged_one(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(BundleError, match=r"images: this folder is no bundle .*framegate bundles lists"):
        Bundle.open(tmp_path / "images")


@pytest.mark.parametrize("name", ["manifest.json", "calibration.json", "model.int8.onnx"])
def test_missing_file(make_bundle, name):
    folder = make_bundle()
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        Bundle.open(folder)


def test_one_changed_byte_in_the_model(make_bundle):
    folder = make_bundle()
    data = bytearray((folder / "model.int8.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.int8.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"model.int8.onnx has SHA-256 .* changed or damaged"):
        Bundle.open(folder)


def test_a_raised_threshold_is_tampering(make_bundle):
    folder = make_bundle()
    path = folder / "calibration.json"
    path.write_text(path.read_text().replace('"threshold": 0.5', '"threshold": 9.5'))
    with pytest.raises(BundleError, match=r"calibration\.json has SHA-256"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format="framegate-bundle-99"), "this version reads"),
        (lambda m: m.pop("labels"), "lacks or garbles 'labels'"),
        (lambda m: m.update(labels=[]), "labels are missing or not unique"),
        (lambda m: m.update(labels=["a", "a", "b"]), "not unique"),
        (lambda m: m["models"].update(fp16="model.fp16.onnx"), "has no hash"),
        (lambda m: m["files"].update({"../outside": "0"}), "must lie in the folder itself"),
        (lambda m: m["preprocess"].update(resize="lanczos"), "resize is 'lanczos'"),
        (lambda m: m["preprocess"].update(std=[0, 1, 1]), "std positive"),
        (lambda m: m["preprocess"].update(mean=[float("nan"), 1, 1]), "must be finite"),
        (lambda m: m["preprocess"].pop("width"), "not usable"),
    ],
)
def test_unusable_manifest(make_bundle, change, message):
    with pytest.raises(BundleError, match=message):
        Bundle.open(make_bundle(change=change))


def test_garbage_manifest(make_bundle):
    folder = make_bundle()
    (folder / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        Bundle.open(folder)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(BundleError, match="not a JSON object"):
        Bundle.open(folder)


def test_calibration_of_another_model_is_refused(make_bundle, tmp_path):
    # Somebody retrained and copied the old calibration: hashes in the manifest are right, the threshold is not.
    folder = make_bundle(kind="masked")
    shutil.copy(make_bundle() / "calibration.json", folder / "calibration.json")
    seal(folder, json.loads((folder / "manifest.json").read_text()))
    with pytest.raises(BundleError, match="belongs to another model file"):
        Bundle.open(folder)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf")])
def test_a_threshold_that_is_no_number_is_refused(make_bundle, threshold):
    with pytest.raises(BundleError, match="expected a finite number"):
        Bundle.open(make_bundle(threshold=threshold))
