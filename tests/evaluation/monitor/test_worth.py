"""A monitor that sees less than the pixels' statistics is refused; the bundle stays as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from framegate.evaluation import command_monitor
from framegate.evaluation.attacks.problem import AttackResult
from framegate.evaluation.frames.network import Network
from framegate.evaluation.monitor import worth as worth_module
from framegate.evaluation.monitor.fit import Recipe, attacked_sets, fit_monitor
from framegate.evaluation.monitor.worth import Worth, worth_of
from framegate.export.calibration import calibrate as calibrate_module
from framegate.export.calibration.calibrate import Promise, calibrate, fingerprint
from framegate.export.calibration.decisions import Outputs
from framegate.export.data.splits import Splits
from framegate.models.labelled import LabelledImages
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import ExportRefusedError, UsageError

RECIPE = Recipe(images=120, attacked=40, fgsm=(8,), pgd=(8,), pgd_steps=3, layers=0)


@pytest.fixture(scope="module")
def network(bundle_path) -> Network:
    return Network.from_bundle(Bundle.open(bundle_path))


@pytest.fixture(scope="module")
def monitor(network, colours, quiet):
    return fit_monitor(attacked_sets(network, colours(140, 31, "train"), 1, RECIPE, quiet), RECIPE, "colours", quiet)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(worth_module, "STEPS", 4)
    monkeypatch.setattr(worth_module, "QUERIES", 20)
    monkeypatch.setattr(worth_module, "FRAMES", 30)
    monkeypatch.setattr(worth_module, "_RESAMPLES", 50)


def test_a_head_that_looks_the_wrong_way_is_refused_with_its_figures(network, monitor, colours, quiet, quick) -> None:
    found = worth_of(monitor, network, colours(60, 32, "calibration"), 1, 0, quiet)
    assert found.frames == 30
    assert list(found.monitor) == list(found.control) == ["APGD-DLR 8/255", "Square (20 queries) 8/255"]
    assert all(0 <= value <= 1 for value in (*found.monitor.values(), *found.control.values()))
    assert found.at_least <= found.lead
    turned = replace(monitor, weights=-monitor.weights, bias=-monitor.bias)
    opposite = worth_of(turned, network, colours(60, 32, "calibration"), 1, 0, quiet)
    for attack, value in found.monitor.items():
        assert opposite.monitor[attack] == pytest.approx(1 - value, abs=1e-6)
        assert opposite.control[attack] == found.control[attack]  # the pixels are the same
    worse = min(found, opposite, key=lambda each: each.lead)
    with pytest.raises(ExportRefusedError, match=r"monitor refused, .*APGD-DLR 8/255 0\.\d+ \(\w*") as refused:
        worse.require()
    assert worse.control_name in str(refused.value)


def test_only_frames_that_are_right_are_attacked(network, monitor, colours, quiet, quick, monkeypatch) -> None:
    images = colours(60, 32, "calibration")
    seen = []

    def recording(logits_of, pixels, labels, epsilon, **rest):
        seen.append((pixels, labels))
        logits = logits_of(pixels)
        return AttackResult("none", epsilon, pixels, logits, logits.argmax(1) != labels)

    monkeypatch.setattr(worth_module, "apgd", recording)
    monkeypatch.setattr(worth_module, "square", recording)
    found = worth_of(monitor, network, images, 1, 0, quiet)
    assert all(bool((network(pixels).argmax(1) == labels).all()) for pixels, labels in seen)
    assert set(found.monitor.values()) == {0.5}  # an attack that changes nothing is not seen
    with pytest.raises(ExportRefusedError):
        found.require()
    wrong = replace(images, labels=(images.labels + 1) % 3)
    with pytest.raises(UsageError, match=r"the network classifies \d+ rightly; 20 are needed"):
        worth_of(monitor, network, wrong, 1, 0, quiet)


@pytest.mark.parametrize(("at_least", "passes"), [(0.01, True), (0.0, False), (-0.2, False), (float("nan"), False)])
def test_the_lead_must_be_more_than_chance(at_least: float, passes: bool) -> None:
    worth = Worth(200, {"A": 0.9}, {"A": 0.6}, "total_variation", 0.3, at_least)
    if passes:
        worth.require()
    else:
        with pytest.raises(ExportRefusedError, match=r"A 0\.900 \(total_variation 0\.600\)"):
            worth.require()
    assert np.isfinite(worth.to_json()["lead"])


@pytest.mark.parametrize("tracks", [False, True], ids=["images", "tracks"])
def test_no_image_that_proves_fits_a_monitor_or_judges_whether_it_is_worth_its_place(
    bundle_path, quiet, monkeypatch, tracks
) -> None:
    """What the command fits with and judges with is caught, and what proves is asked of the calibration."""
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (900, 4, 4, 3), np.uint8)
    groups = np.arange(900) // 3 if tracks else None
    split = LabelledImages("calibration", images, rng.integers(0, 3, 900), groups)
    train = LabelledImages("train", images[:9] // 2, np.arange(9) % 3)
    looked: list[LabelledImages] = []

    class CaughtError(Exception):
        pass

    def fits(network, given, *rest):
        looked.append(given)
        return {}

    def judges(monitor, network, given, *rest):
        looked.append(given)
        raise CaughtError

    monkeypatch.setattr(command_monitor, "attacked_sets", fits)
    monkeypatch.setattr(command_monitor, "fit_monitor", lambda *rest: None)
    monkeypatch.setattr(command_monitor, "worth_of", judges)
    splits = Splits(train, split, split, ("blue", "green", "red"), "user")
    with pytest.raises(CaughtError):
        command_monitor.add_monitor(Bundle.open(bundle_path), splits, RECIPE, Promise(), quiet)

    proving: list[np.ndarray] = []
    divided = calibrate_module.split_units

    def caught(*arguments):
        proving.append(divided(*arguments)[1])
        return divided(*arguments)

    monkeypatch.setattr(calibrate_module, "split_units", caught)
    logits = np.eye(3, dtype=np.float32)[split.labels] * rng.random((900, 1)).astype(np.float32) * 9
    about = {"split_sha256": fingerprint(split), "model_sha256": "", "engine": "", "groups": groups}
    calibrate(Outputs(logits), split.labels, Promise(0.3), **about)

    proves = {images[k].tobytes() for k in proving[0]}
    assert len(looked) == 2
    assert len(looked[1]) > 100
    for given in looked:
        assert not proves & {image.tobytes() for image in given.images}
    if tracks:
        assert not set(groups[proving[0]]) & set(looked[1].groups)
