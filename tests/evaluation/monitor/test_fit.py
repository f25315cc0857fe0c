"""The monitor from images to signals: views, fit, the extra output of the network, and the bundle that comes out."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from framegate.evaluation.command_monitor import add_monitor, layers_to_try, write_monitor
from framegate.evaluation.frames.network import Network
from framegate.evaluation.monitor import worth
from framegate.evaluation.monitor.fit import (
    HIDDEN,
    DifferentiableHead,
    Recipe,
    attacked_sets,
    fit_monitor,
    head_score,
    layer_means,
    separation,
)
from framegate.evaluation.monitor.views import harmless
from framegate.export.calibration.calibrate import Promise
from framegate.export.certificate import Wanted, certify
from framegate.export.data.splits import Splits
from framegate.export.graph.pooled import FEATURES, with_pooled, without_pooled
from framegate.export.int8.quantize import to_int8
from framegate.models.pixels import to_pixels
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.certificates import Demand
from framegate.runtime.errors import BundleError, CalibrationError, ExportRefusedError, UsageError
from framegate.runtime.monitor import POOLED, SHIFT
from framegate.runtime.session import Session
from framegate.runtime.verdict import Reason

RECIPE = Recipe(images=160, attacked=60, fgsm=(8,), pgd=(8,), pgd_steps=4, layers=1)


@pytest.fixture(scope="module")
def network(bundle_path) -> Network:
    return Network.from_bundle(Bundle.open(bundle_path))


@pytest.fixture(scope="module")
def sets(network, colours, quiet):
    return attacked_sets(network, colours(200, 31, "train"), 1, RECIPE, quiet)


@pytest.fixture(scope="module")
def monitor(sets, quiet):
    return fit_monitor(sets, RECIPE, "colours", quiet)


@pytest.fixture(scope="module")
def with_monitor(bundle_path, network, monitor, colours, quiet, tmp_path_factory):
    path = tmp_path_factory.mktemp("monitored") / "colours.bundle"
    shutil.copytree(bundle_path, path)
    splits = Splits(
        colours(200, 31, "train"), colours(500, 32, "calibration"), colours(10, 33, "test"), ("blue", "green", "red")
    )
    write_monitor(Bundle.open(path), monitor, network, splits, Promise(0.3, 0.9, limit_share=0.04), quiet)
    return path


def test_views_are_different_images_and_the_same_every_time(colours):
    images = colours(12, 30, "some").images
    once = harmless(images, 5)
    np.testing.assert_array_equal(once, harmless(images, 5))
    assert once.shape == images.shape
    distances = np.abs(once.astype(int) - images).mean(axis=(1, 2, 3))
    assert ((distances > 0.5) & (distances < 60)).all()
    assert (harmless(images, 6) != once).any()
    np.testing.assert_array_equal(harmless(images[:3], 5), once[:3])
    with pytest.raises(UsageError, match="uint8"):
        harmless(images.astype(np.float32), 0)


def test_slices_of_a_volume_do_not_mix():
    image = np.zeros((1, 4 * 16, 16, 3), np.uint8)
    image[:, 16:32] = 200
    changed = harmless(image, 1, depth=4)
    assert np.ptp(changed[0, :16]) == np.ptp(changed[0, 16:32]) == 0


def test_head_tells_attacks_from_clean_frames_that_it_was_not_fitted_on(network, monitor, colours):
    from framegate.evaluation.attacks.linf import fgsm

    fresh = colours(150, 34, "fresh")
    pixels, labels = to_pixels(fresh.images), torch.from_numpy(fresh.labels)
    attacked = fgsm(network, pixels, labels, 8 / 255).pixels
    clean = head_score(monitor, layer_means(network, pixels))
    views = head_score(monitor, layer_means(network, to_pixels(harmless(fresh.images, 3))))
    assert separation(clean, head_score(monitor, layer_means(network, attacked))) > 0.9
    assert separation(clean, views) < 0.75


def test_every_formula_of_the_head_gives_the_same(network, monitor, colours):
    means = layer_means(network, to_pixels(colours(20, 35, "some").images))
    pooled = np.concatenate([means[tap.name] for tap in monitor.taps], axis=1)
    expected = head_score(monitor, means)
    np.testing.assert_allclose([monitor(row)[SHIFT] for row in pooled], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        DifferentiableHead(monitor)(torch.from_numpy(pooled)).numpy(), expected, rtol=1e-5, atol=1e-5
    )


def test_layers_are_recorded_with_what_they_were_worth(monitor, network):
    path = monitor.fitted["choice_of_layers"]
    assert path[0]["layers"] == [FEATURES]
    assert len(path) <= 1 + RECIPE.layers
    assert set(path[0]["auroc"]) == set(monitor.fitted["attacks"]) == {"FGSM 8/255", "PGD-4 8/255"}
    assert {tap.name for tap in monitor.taps} <= {*network.taps, FEATURES}
    assert monitor.hidden.shape == (HIDDEN, monitor.size)


def test_a_dead_channel_does_not_make_a_frame_infinitely_strange(sets, quiet):
    dead = {name: {**means, FEATURES: means[FEATURES].copy()} for name, means in sets.items()}
    for means in dead.values():
        means[FEATURES][:, 0] = 0.0
    head = fit_monitor(dead, RECIPE, "colours", quiet)
    assert (head.spread > 0).all()


def test_fit_is_the_same_every_time(sets, monitor, quiet):
    again = fit_monitor(sets, RECIPE, "colours", quiet)
    np.testing.assert_allclose(again.hidden, monitor.hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wish", [{"images": 50}, {"attacked": 5}, {"attacked": 5_000}, {"layers": -1}])
def test_recipes_that_fit_nothing_are_refused(wish):
    with pytest.raises(UsageError, match="at least 100"):
        Recipe(**wish)


def test_too_few_training_images_are_refused(network, colours, quiet):
    with pytest.raises(UsageError, match="30 training images"):
        attacked_sets(network, colours(30, 1, "few"), 1, RECIPE, quiet)


def test_pooled_output_is_the_mean_of_the_activations(bundle_path, network, colours, tmp_path):
    bundle = Bundle.open(bundle_path)
    model = onnx.load(str(bundle.model_path("fp32")))
    names = [*bundle.taps, FEATURES]
    pooled, taps = with_pooled(model, names)
    pixels = to_pixels(colours(6, 36, "some").images)
    session = onnxruntime.InferenceSession(pooled.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        tensor = network.prepare(pixels).numpy()
    logits, rows = session.run(["logits", POOLED], {"image": tensor})
    means = layer_means(network, pixels)
    np.testing.assert_allclose(rows, np.concatenate([means[name] for name in names], axis=1), atol=1e-4)
    plain = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    # One output more may change how the engine fuses its nodes, and with it the last bit.
    np.testing.assert_allclose(logits, plain.run(None, {"image": tensor})[0], rtol=1e-5, atol=1e-5)
    assert [tap.name for tap in taps] == names
    assert without_pooled(pooled) == without_pooled(model)
    assert with_pooled(pooled, names)[0] == pooled  # a second time replaces the first


def test_int8_network_averages_what_its_next_layer_sees(bundle_path, network, colours, quiet):
    bundle = Bundle.open(bundle_path)
    images = colours(64, 37, "ranges").images
    quantised = to_int8(onnx.load(str(bundle.model_path("fp32"))), images, bundle.preprocess, [], quiet)
    pooled, _ = with_pooled(quantised, [*bundle.taps, FEATURES])
    made_by = {name: node for node in pooled.graph.node for name in node.output}
    sources = [
        made_by[n.input[0]].op_type for n in pooled.graph.node if n.op_type == "GlobalAveragePool" and POOLED in n.name
    ]
    assert "DequantizeLinear" in sources
    session = onnxruntime.InferenceSession(pooled.SerializeToString(), providers=["CPUExecutionProvider"])
    pixels = to_pixels(colours(8, 38, "some").images)
    rows = session.run([POOLED], {"image": network.prepare(pixels).numpy()})[0]
    means = layer_means(network, pixels)
    expected = np.concatenate([means[name] for name in (*bundle.taps, FEATURES)], axis=1)
    assert np.corrcoef(rows.ravel(), expected.ravel())[0, 1] > 0.98


def test_unknown_layers_are_named(bundle_path):
    model = onnx.load(str(Bundle.open(bundle_path).model_path("fp32")))
    with pytest.raises(UsageError, match=r"tap 'stem\.9': no such layer; there are stem\.0"):
        with_pooled(model, ["stem.9"])


def test_bundle_with_a_monitor_runs_and_stops_attacked_frames(with_monitor, colours):
    from framegate.evaluation.attacks.linf import fgsm
    from framegate.models.pixels import to_images

    bundle = Bundle.open(with_monitor)
    assert sorted(bundle.calibrations) == ["onnxruntime/fp32", "openvino/fp32"]
    fresh = colours(120, 39, "fresh")
    network = Network.from_bundle(bundle)
    attacked = to_images(fgsm(network, to_pixels(fresh.images), torch.from_numpy(fresh.labels), 8 / 255).pixels)
    for backend in ("openvino", "onnxruntime"):
        session = Session.open(bundle, backend, "fp32", camera=False)
        clean = [session.infer(image) for image in fresh.images]
        stopped = [session.infer(image) for image in attacked]
        assert set(clean[0].signals) == set(bundle.monitor.signals)
        shifted = [np.mean([Reason.ACTIVATION_SHIFT in p.reasons for p in some]) for some in (clean, stopped)]
        assert shifted[0] < 0.2
        assert shifted[1] > 0.6
        assert "shift is" in next(p.detail for p in stopped if Reason.ACTIVATION_SHIFT in p.reasons)


def test_a_network_without_the_output_does_not_open(with_monitor, bundle_path, tmp_path):
    broken = tmp_path / "colours.bundle"
    shutil.copytree(with_monitor, broken)
    shutil.copy(bundle_path / "model.fp32.onnx", broken / "model.fp32.onnx")
    with pytest.raises(BundleError, match="SHA-256"):
        Bundle.open(broken)
    from framegate.export.bundle_writer import update_manifest

    (broken / "calibration.json").unlink()
    update_manifest(broken)
    with pytest.raises(BundleError, match="its monitor reads"):
        Session.open(broken, "openvino", "fp32")


def test_a_refused_calibration_leaves_the_bundle_as_it_was(with_monitor, network, monitor, colours, quiet):
    before = {path.name: path.read_bytes() for path in with_monitor.iterdir()}
    splits = Splits(colours(200, 31, "t"), colours(60, 32, "c"), colours(10, 33, "e"), ("blue", "green", "red"))
    with pytest.raises(CalibrationError):
        write_monitor(Bundle.open(with_monitor), monitor, network, splits, Promise(0.001, 0.99), quiet)
    assert {path.name: path.read_bytes() for path in with_monitor.iterdir()} == before


def test_a_monitor_that_is_refused_leaves_the_bundle_as_it_was(bundle_path, colours, quiet, tmp_path, monkeypatch):
    """These images are noise, whose total variation tells every attacked one."""
    monkeypatch.setattr(worth, "FRAMES", 30)
    monkeypatch.setattr(worth, "QUERIES", 10)
    monkeypatch.setattr(worth, "STEPS", 3)
    path = tmp_path / "colours.bundle"
    shutil.copytree(bundle_path, path)
    before = {each.name: each.read_bytes() for each in path.iterdir()}
    splits = Splits(colours(120, 31, "t"), colours(300, 32, "c"), colours(10, 33, "e"), ("blue", "green", "red"))
    recipe = Recipe(images=100, attacked=20, fgsm=(8,), pgd=(8,), pgd_steps=2, layers=0)
    with pytest.raises(ExportRefusedError, match="monitor refused, the bundle is as it was: AUROC on 30 frames"):
        add_monitor(Bundle.open(path), splits, recipe, Promise(0.3, 0.9), quiet)
    assert {each.name: each.read_bytes() for each in path.iterdir()} == before


def test_layers_are_looked_for_where_a_bundle_names_none(bundle_path):
    bundle = Bundle.open(bundle_path)
    assert layers_to_try(bundle) == bundle.taps
    object.__setattr__(bundle, "taps", ())
    found = layers_to_try(bundle)
    layers = [node.name for node in onnx.load(bundle.model_path("fp32")).graph.node if node.op_type == "Conv"]
    assert 1 <= len(found) <= 6
    assert list(found) == [name for name in layers if name in found]
    assert Network.from_bundle(bundle, found).taps == found


def test_a_certificate_of_the_network_without_the_monitor_goes_and_is_named(
    bundle_path, network, monitor, colours, quiet, tmp_path, capsys
):
    """It was proved for another file; one that asks a network of its own stays."""
    path = tmp_path / "colours.bundle"
    shutil.copytree(bundle_path, path)
    wanted = Wanted(Demand("patch", 2), backends=("onnxruntime",), target_risk=0.9)
    certify(Bundle.open(path), colours(60, 34, "calibration"), wanted, quiet)
    assert len(Bundle.open(path).certificates) == 1
    splits = Splits(
        colours(200, 31, "train"), colours(500, 32, "calibration"), colours(10, 33, "test"), ("blue", "green", "red")
    )
    write_monitor(Bundle.open(path), monitor, network, splits, Promise(0.3, 0.9, limit_share=0.04), quiet)
    after = Bundle.open(path)
    assert after.monitor is not None
    assert not after.certificates
    assert not (path / "certificates.json").exists()
    assert "the certificate patch:2 was proved for the network without this monitor" in capsys.readouterr().err
