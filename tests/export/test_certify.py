"""``framegate certify`` from data to verdicts: thresholds that hold under attack, and everything that is refused."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from repository import ROOT

from framegate.export import certificate
from framegate.export.branch import branch_graph, trained_all
from framegate.export.bundle_writer import update_manifest
from framegate.export.calibration import attempts
from framegate.export.certificate import Wanted, certify, check_wanted
from framegate.export.commands import certify as command
from framegate.export.data.labelled import TRAINING_RECORD, TrainedOn
from framegate.export.graph.graph import stored
from framegate.export.graph.plain_chain import plain_chain
from framegate.models.checkpoint import load_checkpoint, save_checkpoint
from framegate.models.held_out import HeldOut
from framegate.models.labelled import LabelledImages
from framegate.models.pixels import PixelInput, to_pixels
from framegate.models.plain_cnn import PlainCNN
from framegate.models.registry import architecture, build
from framegate.models.training.interval_bounds import interval_loss
from framegate.models.training.settings import TrainSettings
from framegate.runtime import Reason, Session
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.certificates import Demand
from framegate.runtime.errors import CalibrationError, DataError, UsageError

LABELS = ("blue", "green", "red")
BACKENDS = ("onnxruntime",)
torch.set_num_threads(1)
EXPORTED = lru_cache(branch_graph)
"""PyTorch's exporter takes seconds; a checkpoint is exported once."""


@pytest.fixture(autouse=True)
def exported_once(monkeypatch):
    monkeypatch.setattr(certificate, "branch_graph", EXPORTED)


def colours(count: int, seed: int, groups: np.ndarray | None = None) -> LabelledImages:
    """Images that are clear, some that are less so, and a few of those show another label than theirs."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.int64)
    pixels = rng.normal(110, 12, (count, 32, 32, 3))
    weak = rng.random(count) < 0.3
    pixels[np.arange(count), :, :, labels] += np.where(weak, 12.0, 70.0)[:, None, None]
    labels[weak & (rng.random(count) < 0.13)] += 1
    return LabelledImages("colours", np.clip(pixels, 0, 255).astype(np.uint8), labels % 3, groups)


@pytest.fixture(scope="module")
def branch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small plain network that knows the three colours, trained with interval bounds for a few steps."""
    torch.manual_seed(2)
    model, prepare = PlainCNN(3, width=4), PixelInput(architecture("plaincnn").preprocess)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    settings = TrainSettings(interval_bounds=3 / 255)
    for step in range(60):
        split = colours(24, 100 + step)
        batch = to_pixels(split.images), torch.from_numpy(split.labels)
        loss, _ = interval_loss(model.train(), prepare, *batch, step / 50, settings)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    path = tmp_path_factory.mktemp("branch") / "branch.pt"
    save_checkpoint(path, model, {"name": "plaincnn", "classes": 3, "width": 4}, LABELS, {})
    return path


@pytest.fixture
def bundle(make_bundle) -> Bundle:
    return Bundle.open(make_bundle(threshold=1.09))


def test_a_patch_certificate_end_to_end(bundle, quiet):
    record = certify(bundle, colours(300, 1), Wanted(Demand("patch", 3), backends=BACKENDS), quiet)
    found = record.thresholds["onnxruntime/fp32"]
    assert found.units == 300
    assert found.risk_bound <= 0.02
    assert 0.3 < found.coverage < 1
    session = Session.open(bundle.path, "onnxruntime", "fp32", camera=False, certificate="patch:3")
    test, rng = colours(150, 2), np.random.default_rng(0)
    wrong = accepted = refused = 0
    for image, label in zip(test.images, test.labels, strict=True):
        attacked = image.copy()
        row, column = rng.integers(0, 30, 2)
        attacked[row : row + 3, column : column + 3] = 255 * (np.arange(3) == (label + 1) % 3)
        prediction = session.infer(attacked)
        accepted += prediction.accepted
        wrong += prediction.accepted and prediction.label != LABELS[label]
        refused += prediction.reasons == (Reason.NOT_CERTIFIED,)
    assert accepted > 30
    assert refused > 0
    assert wrong / len(test) <= 0.06  # the bound, and three deviations of 150 frames


def test_an_linf_certificate_end_to_end(bundle, branch, quiet):
    record = certify(bundle, colours(300, 1), Wanted(Demand("linf", 2), (branch,), backends=BACKENDS, cases=8), quiet)
    assert re.fullmatch(r"certificate-linf-[0-9a-f]{8}\.onnx", record.network)
    assert record.thresholds["onnxruntime/fp32"].tau >= 0
    session = Session.open(bundle.path, "onnxruntime", "fp32", camera=False, certificate="linf:2/255")
    test = colours(100, 3)
    found = [session.infer(image) for image in test.images]
    accepted = [prediction for prediction in found if prediction.accepted]
    assert len(accepted) > 20
    assert all(prediction.certificate.margin >= prediction.certificate.tau for prediction in accepted)
    # A region that is resized: one level of the two is the resize's own.
    large = np.repeat(np.repeat(test.images[0], 2, 0), 2, 1)
    assert session.infer(large).reasons == (Reason.NOT_CERTIFIED,)
    less = Session.open(bundle.path, "onnxruntime", "fp32", camera=False, certificate="linf:1/255")
    assert sum(less.infer(np.repeat(np.repeat(image, 2, 0), 2, 1)).accepted for image in test.images[:30]) > 3


def test_an_linf_threshold_counts_what_an_attacker_can_make_of_the_frames(bundle, branch, quiet, monkeypatch):
    """Not what the clean frames show, which is less; by the first bounds, which are higher, where others are none."""
    split = colours(300, 1)
    split.labels[::30] = (split.labels[::30] + 1) % 3  # clear pictures of something else
    wanted = Wanted(Demand("linf", 2), (branch,), backends=BACKENDS, target_risk=0.03, cases=0)

    def certified(cases=0):
        wanted_now = replace(wanted, cases=cases)
        return certify(Bundle.open(bundle.path), split, wanted_now, quiet).thresholds["onnxruntime/fp32"]

    with monkeypatch.context() as patched:
        patched.setattr(certificate.Reach, "margins", lambda _self, images, labels: np.full(len(images), np.nan))
        quick = certified()
    found = certified()
    with monkeypatch.context() as patched:
        for name in ("quick", "margins"):
            patched.setattr(certificate.Reach, name, lambda self, images, labels: _clean(branch, images, labels))
        clean = certified()
    assert found.units == quick.units == clean.units
    assert found.events == quick.events
    assert 0 < clean.tau < found.tau < quick.tau
    assert clean.tau < certified(cases=20).tau < found.tau
    assert clean.coverage >= found.coverage >= quick.coverage


def _clean(branch, images, labels):
    """The largest margin of a wrong label on the frames as they are."""
    model, _ = load_checkpoint(branch)
    with torch.inference_mode():
        logits = model.eval()(PixelInput(architecture("plaincnn").preprocess)(to_pixels(images))).numpy()
    true = logits[np.arange(len(labels)), labels]
    logits[np.arange(len(labels)), labels] = -np.inf
    return logits.max(1).astype(np.float64) - true


def test_a_branch_lies_in_the_bundle_once_for_all_budgets(bundle, branch, quiet):
    split = colours(160, 1)
    for levels in (1, 2):
        wanted = Wanted(Demand("linf", levels), (branch,), backends=BACKENDS, target_risk=0.05, cases=0)
        certify(Bundle.open(bundle.path), split, wanted, quiet)
    found = Bundle.open(bundle.path).certificates
    assert [each.budget for each in found] == [1, 2]
    assert len({each.network for each in found}) == len(list(bundle.path.glob("certificate-*.onnx"))) == 1
    one, two = (each.thresholds["onnxruntime/fp32"].tau for each in found)
    assert one <= two


@pytest.mark.parametrize(
    "path", sorted((ROOT / "models/checkpoints/branches").glob("*.xz")), ids=lambda path: path.name
)
def test_a_shipped_branch_is_the_one_that_its_bundle_asks(path, tmp_path):
    """So a proof for another budget, or with closer bounds, needs no training."""
    bundle = Bundle.open(ROOT / "models" / "bundles" / f"{path.name.removesuffix('.pt.xz')}.bundle")
    (asked,) = {each.network for each in bundle.certificates if each.kind == "linf"}
    (tmp_path / "branch.onnx").write_bytes(stored(branch_graph((path,), bundle.labels)[0]))
    for mine, shipped in zip(plain_chain(tmp_path / "branch.onnx"), plain_chain(bundle.path / asked), strict=True):
        for name, value in shipped.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[name], value)


def test_two_certificates_lie_in_one_bundle_and_one_of_the_same_kind_is_replaced(bundle, branch, quiet):
    split = colours(160, 1)
    certify(bundle, split, Wanted(Demand("linf", 1), (branch,), backends=BACKENDS, target_risk=0.05, cases=0), quiet)
    for side in (8, 9):
        wanted = Wanted(Demand("patch", 3), backends=BACKENDS, target_risk=0.05, side=side)
        certify(Bundle.open(bundle.path), split, wanted, quiet)
    found = Bundle.open(bundle.path).certificates
    assert [(each.kind, each.budget) for each in found] == [("linf", 1), ("patch", 3)]
    assert found[1].masks.side == 9


def test_a_certificate_of_another_precision_stays_only_if_it_promises_the_same(bundle, quiet):
    split = colours(160, 1)

    def certified(precision, target):
        wanted = Wanted(Demand("patch", 3), backends=("openvino",), precision=precision, target_risk=target)
        certify(Bundle.open(bundle.path), split, wanted, quiet)
        found = Bundle.open(bundle.path).certificates
        return sorted((each.precision, each.thresholds[f"openvino/{each.precision}"].target_risk) for each in found)

    assert certified("int8", 0.05) == [("int8", 0.05)]
    assert certified("fp32", 0.05) == [("fp32", 0.05), ("int8", 0.05)]
    assert certified("fp32", 0.02) == [("fp32", 0.02)]  # else an INT8 session would go on with the weaker promise
    assert certified("int8", 0.02) == [("fp32", 0.02), ("int8", 0.02)]


@pytest.mark.parametrize(
    ("patch", "given", "side", "stride", "views"),
    [
        (5, {}, 11, 7, 16),
        (3, {}, 10, 8, 16),
        (5, {"side": 8}, 8, 4, 49),
        (3, {"stride": 4}, 6, 4, 64),
        (5, {"side": 10, "stride": 3}, 10, 3, 81),
        (30, {}, 30, 1, 9),
    ],
)
def test_masks_just_cover_unless_asked_for_more(patch, given, side, stride, views):
    spec = architecture("resnet20").preprocess
    grid = certificate._masks(colours(1, 1), spec, Wanted(Demand("patch", patch), **given))
    assert (grid.side, grid.stride, grid.views) == (side, stride, views)


def test_masks_of_a_long_input_fit_its_short_side():
    spec = replace(architecture("resnet20").preprocess, width=128)
    grid = certificate._masks(colours(1, 1), spec, Wanted(Demand("patch", 3)))
    assert grid.side <= 32
    assert len(grid.rows) < len(grid.columns)


def test_a_branch_against_patches_is_quantised_by_training_images(bundle, branch, quiet):
    split, wanted = colours(300, 1), Wanted(Demand("patch", 3), (branch,), "int8", BACKENDS)
    with pytest.raises(UsageError, match="needs training images"):
        certify(bundle, split, wanted, quiet)
    record = certify(bundle, split, wanted, quiet, ranges=colours(100, 4).images)
    assert record.precision == "int8"
    assert set(record.thresholds) == {f"{backend}/int8" for backend in BACKENDS}
    operators = {node.op_type for node in onnx.load(bundle.path / record.network).graph.node}
    assert "QuantizeLinear" in operators
    session = Session.open(bundle.path, "onnxruntime", "int8", camera=False, certificate="patch:3")
    accepted = [image for image in colours(100, 2).images if session.infer(image).accepted]
    assert len(accepted) > 10


def test_branches_answer_together(bundle, branch, tmp_path, quiet):
    torch.manual_seed(5)
    another = tmp_path / "another.pt"
    save_checkpoint(another, PlainCNN(3, width=4), {"name": "plaincnn", "classes": 3, "width": 4}, LABELS, {})
    record = certify(bundle, colours(300, 1), Wanted(Demand("patch", 3), (branch, another), backends=BACKENDS), quiet)
    images = np.random.default_rng(3).normal(0, 1, (4, 3, 32, 32)).astype(np.float32)

    def logits(model: onnx.ModelProto) -> np.ndarray:
        return ort.InferenceSession(model.SerializeToString()).run(None, {"image": images})[0]

    alone = [logits(EXPORTED((path,), LABELS)[0]) for path in (branch, another)]
    together = logits(onnx.load(bundle.path / record.network))
    assert not np.allclose(alone[0], alone[1], atol=0.1)
    np.testing.assert_allclose(together, np.mean(alone, 0), rtol=1e-4, atol=1e-4)


def test_branches_with_the_same_weights_answer_as_one_in_int8_too(bundle, branch, tmp_path, quiet):
    model, about = load_checkpoint(branch)
    same = tmp_path / "same.pt"
    save_checkpoint(same, model, about["architecture"], LABELS, {})
    wanted = Wanted(Demand("patch", 3), (branch, same), "int8", BACKENDS)
    record = certify(bundle, colours(300, 1), wanted, quiet, ranges=colours(100, 4).images)
    nodes = onnx.load(bundle.path / record.network).graph.node
    assert len({node.name for node in nodes}) == len(nodes)
    assert nodes[-1].op_type == "Mean"  # of float32 logits: what is averaged is not rounded once more
    session = Session.open(bundle.path, "onnxruntime", "int8", camera=False, certificate="patch:3")
    assert sum(session.infer(image).accepted for image in colours(100, 2).images) > 10


def test_a_branch_in_another_precision_is_refused(bundle, branch, quiet):
    wanted = Wanted(Demand("patch", 3), (branch,), "fp16", BACKENDS)
    with pytest.raises(UsageError, match="fp32 or int8"):
        certify(bundle, colours(300, 1), wanted, quiet, ranges=colours(100, 4).images)


def test_the_branch_of_an_linf_certificate_stays_in_float32(bundle, branch, quiet):
    record = certify(bundle, colours(300, 1), Wanted(Demand("linf", 1), (branch,), "int8", BACKENDS, cases=0), quiet)
    assert record.precision == "fp32"


@pytest.mark.parametrize("masks", [{"side": 9}, {"stride": 3}])
def test_masks_of_a_certificate_that_has_none_are_refused(bundle, branch, masks):
    with pytest.raises(UsageError, match="it has no masks; leave --mask-side and --mask-stride out"):
        check_wanted(bundle, Wanted(Demand("linf", 1), (branch,), **masks))


def test_tracks_count_as_one(bundle, quiet):
    groups = np.repeat(np.arange(160), 2).astype(np.int64)
    split = colours(320, 1, groups)
    frames = certify(bundle, split, Wanted(Demand("patch", 3), backends=BACKENDS), quiet)
    assert frames.thresholds["onnxruntime/fp32"].units == 160
    bundle = Bundle.open(bundle.path)
    tracks = certify(bundle, split, Wanted(Demand("patch", 3), backends=BACKENDS, unit="track"), quiet)
    assert tracks.thresholds["onnxruntime/fp32"].units == 160
    assert tracks.thresholds["onnxruntime/fp32"].tau >= frames.thresholds["onnxruntime/fp32"].tau
    assert tracks.thresholds["onnxruntime/fp32"].tracks_certified >= tracks.thresholds["onnxruntime/fp32"].coverage
    assert frames.thresholds["onnxruntime/fp32"].tracks_certified is None
    assert "captured tracks" in tracks.promise("onnxruntime/fp32")


def test_what_cannot_be_certified_is_refused_and_leaves_the_bundle_as_it_was(bundle, branch, tmp_path, quiet):
    split, digest = colours(100, 1), bundle.digest
    cases = [
        (Wanted(Demand("patch", 3), backends=BACKENDS), CalibrationError, "at least 149 units"),
        (
            Wanted(Demand("patch", 32), backends=BACKENDS),
            UsageError,
            "a patch of 32 pixels of regions of .* cannot be certified",
        ),
        (Wanted(Demand("patch", 5), backends=BACKENDS, side=4), UsageError, "uncovered"),
        (Wanted(Demand("patch", 5), backends=BACKENDS, side=0), UsageError, "at least 1"),
        (Wanted(Demand("patch", 5), backends=BACKENDS, stride=0), UsageError, "at least 1"),
        (Wanted(Demand("patch", 5), backends=BACKENDS, stride=-3), UsageError, "at least 1"),
        (Wanted(Demand("patch", 5), backends=BACKENDS, side=6, stride=3), UsageError, "uncovered"),
        (Wanted(Demand("linf", 2), backends=BACKENDS), UsageError, "needs --branch"),
        (Wanted(Demand("linf", 2), (branch,), backends=BACKENDS, cases=-1), UsageError, "cases -1: expected 0 or more"),
        (Wanted(Demand("linf", 2), (branch,), backends=BACKENDS), CalibrationError, "at least 149 units"),
    ]
    other = tmp_path / "other.pt"
    save_checkpoint(other, build("plaincnn", 2, {}), {"name": "plaincnn", "classes": 2}, ("a", "b"), {})
    cases.append((Wanted(Demand("linf", 2), (other,), backends=BACKENDS), DataError, "2 labels of its own"))
    attention = tmp_path / "attention.pt"
    save_checkpoint(attention, build("simplecnn", 3, {}), {"name": "simplecnn", "classes": 3}, LABELS, {})
    cases.append(
        (
            Wanted(Demand("linf", 2), (attention,), backends=BACKENDS),
            UsageError,
            r"attention\.pt: .*plain chain of Conv",
        )
    )
    volumes = tmp_path / "volumes.pt"
    save_checkpoint(volumes, build("hybrid3d", 3, {}), {"name": "hybrid3d", "classes": 3}, LABELS, {})
    larger = tmp_path / "larger.pt"
    save_checkpoint(larger, build("hybrid", 3, {}), {"name": "hybrid", "classes": 3}, LABELS, {})
    cases += [
        (Wanted(Demand("linf", 2), (branch, other), backends=BACKENDS), UsageError, "give one"),
        (Wanted(Demand("patch", 3), (branch, branch), backends=BACKENDS), UsageError, "given twice"),
        (Wanted(Demand("patch", 3), backends=BACKENDS, images=0), UsageError, "images 0"),
        (Wanted(Demand("patch", 3), (branch, other), backends=BACKENDS), DataError, "2 labels of its own"),
        (Wanted(Demand("patch", 3), (branch, larger), backends=BACKENDS), DataError, "another input"),
        (Wanted(Demand("patch", 3), (volumes,), backends=BACKENDS), DataError, "volumes"),
        (Wanted(Demand("patch", 3), (branch, tmp_path / "gone.pt"), backends=BACKENDS), DataError, "gone.pt"),
    ]
    for wanted, error, says in cases:
        with pytest.raises(error, match=says):
            certify(bundle, split, wanted, quiet)
        assert Bundle.open(bundle.path).digest == digest


def test_the_command_says_what_is_promised(bundle, branch, monkeypatch, capsys):
    monkeypatch.setattr(command, "load_calibration", lambda *given: (colours(200, 1), "user"))
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    line = ["certify", str(bundle.path), "--data", "x", "--budget", "linf:1/255", "--branch", str(branch)]
    arguments = parser.parse_args([*line, "--backend", "onnxruntime", "--target-risk", "0.05", "--cases", "8"])
    assert arguments.run(arguments) == 0
    text = capsys.readouterr().out.replace("\n", " ")
    assert "of all captured frames can be made wrong and accepted by any change of at most 1 of 255 levels" in text
    assert "certified" in text


HELD_OUT, PART = "5" * 64, "1" * 64
NOTES = {
    "data": "colours",
    "settings": {"adversarial": "none", "held_out": 0.5},
    "held_out_sha256": HELD_OUT,
    "start": "",
    "teacher": "",
}


def _held_out_data(monkeypatch, bundle: Bundle) -> None:
    """A data set that trained bundle and branches: 200 frames calibrate, 200 of 400 training frames were held out."""
    update_manifest(bundle.path, origin={"training": {"data": "colours"}})

    def with_held_out(calibration, place, labels, spec, share):
        assert share == 0.5
        held = colours(200, 5)
        return LabelledImages(
            "both", np.concatenate([calibration.images, held.images]), np.append(calibration.labels, held.labels)
        )

    def load_calibration(place, *given):
        assert place.trained_on.data == "colours"
        if any(each.sha256 not in (HELD_OUT, PART) for each in place.trained_on.apart):
            raise DataError("another copy")
        return colours(200, 1), TRAINING_RECORD

    monkeypatch.setattr(command, "with_held_out", with_held_out)
    monkeypatch.setattr(command, "load_calibration", load_calibration)


@pytest.mark.parametrize(
    ("changed", "units"),
    [
        ({}, 400),
        ({"start": "earlier.pt"}, 200),
        ({"start": "earlier.pt", "start_held_out": HELD_OUT}, 400),
        ({"start": "earlier.pt", "start_held_out": "1" * 64}, 200),
        ({"start": "earlier.pt", "start_held_out": 0.5}, 200),
        ({"held_out_sha256": ""}, 200),
        ({"held_out_sha256": None}, 200),
        ({"held_out_sha256": 7}, 200),
        ({"teacher": "larger.pt"}, 200),
        ({"settings": {"adversarial": "n-fgsm", "held_out": 0.5}}, 200),
        ({"settings": {"adversarial": "none"}}, 200),
        ({"settings": {}}, 200),
        ({"settings": {"adversarial": "none", "held_out": 2.0}}, 200),
        ({"settings": {"adversarial": "none", "held_out": float("nan")}}, 200),
        ({"settings": {"adversarial": "none", "held_out": "half"}}, 200),
        ({"settings": ["held_out", 0.5]}, 200),
    ],
    ids=[
        "held out",
        "begun from another",
        "begun from one that held out the same",
        "begun from one that held out others",
        "begun from one that only gives a share",
        "nothing known of the images",
        "no images",
        "a number of images",
        "taught",
        "stopped by them",
        "share not known",
        "nothing known",
        "too much",
        "not a number",
        "a text",
        "a list",
    ],
)
def test_what_a_branch_never_saw_proves_unless_it_was_chosen_by_it(
    bundle, branch, tmp_path, monkeypatch, capsys, changed, units
):
    _held_out_data(monkeypatch, bundle)
    model, record = load_checkpoint(branch)
    notes = {**NOTES, **changed}
    path = tmp_path / "noted.pt"
    save_checkpoint(path, model, record["architecture"], LABELS, notes)
    monkeypatch.setattr(certificate, "branch_graph", lambda given, labels: EXPORTED((branch,), labels))
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    line = ["certify", str(bundle.path), "--data", "x", "--budget", "linf:1/255", "--branch", str(path)]
    arguments = parser.parse_args([*line, "--backend", "onnxruntime", "--target-risk", "0.05", "--cases", "0"])
    assert arguments.run(arguments) == 0
    found = Bundle.open(bundle.path).certificates[0].thresholds["onnxruntime/fp32"]
    assert found.units == units
    assert f"of {units} frames" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("changed", "units"),
    [
        ({}, 400),
        ({"settings": {"adversarial": "none", "held_out": 0.1}, "held_out_sha256": PART}, 200),
        ({"settings": {"adversarial": "none"}}, 200),
        ({"teacher": "larger.pt"}, 200),
    ],
    ids=["the same", "less", "nothing", "taught"],
)
def test_what_proves_was_seen_by_no_branch(bundle, branch, tmp_path, monkeypatch, changed, units):
    _held_out_data(monkeypatch, bundle)
    model, record = load_checkpoint(branch)
    paths = tmp_path / "first.pt", tmp_path / "second.pt"
    for path, notes in zip(paths, (NOTES, {**NOTES, **changed}), strict=True):
        save_checkpoint(path, model, record["architecture"], LABELS, notes)
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    line = ["certify", str(bundle.path), "--data", "x", "--budget", "patch:3", "--target-risk", "0.05"]
    line += ["--branch", str(paths[0]), "--branch", str(paths[1]), "--backend", "onnxruntime"]
    arguments = parser.parse_args(line)
    assert arguments.run(arguments) == 0
    assert Bundle.open(bundle.path).certificates[0].thresholds["onnxruntime/fp32"].units == units


@pytest.mark.parametrize(
    "changed", [{}, {"teacher": "larger.pt"}, {"settings": {"adversarial": "pgd", "held_out": 0.5}}]
)
def test_a_branch_trained_on_another_copy_is_refused_whether_what_it_held_out_proves_or_not(
    bundle, branch, tmp_path, monkeypatch, changed
):
    """The other copy is divided otherwise: the branch may have seen what calibrates here."""
    _held_out_data(monkeypatch, bundle)
    model, record = load_checkpoint(branch)
    paths = tmp_path / "first.pt", tmp_path / "second.pt"
    for path, notes in zip(paths, (NOTES, {**NOTES, **changed, "held_out_sha256": "7" * 64}), strict=True):
        save_checkpoint(path, model, record["architecture"], LABELS, notes)
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    line = ["certify", str(bundle.path), "--data", "x", "--budget", "patch:3", "--branch", str(paths[0])]
    arguments = parser.parse_args([*line, "--branch", str(paths[1])])
    digest = Bundle.open(bundle.path).digest
    with pytest.raises(DataError, match="another copy"):
        arguments.run(arguments)
    assert Bundle.open(bundle.path).digest == digest


def test_another_data_set_trained_one_of_the_branches(branch, tmp_path):
    model, record = load_checkpoint(branch)
    paths = tmp_path / "first.pt", tmp_path / "second.pt"
    for path, data in zip(paths, ("gtsrb", "cifar10"), strict=True):
        save_checkpoint(path, model, record["architecture"], LABELS, {"data": data})
    of_signs = SimpleNamespace(origin={"training": {"data": "gtsrb"}}, calibrations={})
    assert trained_all(of_signs, paths[:1]).data == trained_all(of_signs, ()).data == "gtsrb"
    assert trained_all(of_signs, paths).data == ""


def test_the_copy_that_counts_is_that_of_the_networks_that_are_asked(branch, tmp_path):
    """Branches are asked; coverage is counted on what the bundle's own network never saw, either."""
    model, record = load_checkpoint(branch)
    path = tmp_path / "noted.pt"
    save_checkpoint(path, model, record["architecture"], LABELS, {**NOTES, "data": "gtsrb"})
    earlier = {"onnxruntime/fp32": SimpleNamespace(fingerprint="f" * 64, unseen=TRAINING_RECORD)}
    of_signs = SimpleNamespace(
        origin={"training": {**NOTES, "data": "gtsrb", "held_out_sha256": PART}}, calibrations=earlier
    )
    both = frozenset({HeldOut(0.5, HELD_OUT), HeldOut(0.5, PART)})
    assert trained_all(of_signs, (path,)) == TrainedOn("gtsrb", both, frozenset({"f" * 64}))
    assert trained_all(of_signs, ()) == TrainedOn("gtsrb", frozenset({HeldOut(0.5, PART)}), frozenset({"f" * 64}))


def test_how_often_the_same_images_were_asked_is_recorded(bundle, quiet, tmp_path, monkeypatch):
    """The best of several networks, masks or targets is no proof; the same question again is none more."""
    monkeypatch.setattr(attempts, "attempts_file", lambda place: tmp_path / place)
    split = colours(300, 1)
    asked = [
        (Wanted(Demand("patch", 3), backends=BACKENDS), 1),
        (Wanted(Demand("patch", 3), backends=BACKENDS), 1),
        (Wanted(Demand("patch", 3), backends=BACKENDS, target_risk=0.05), 2),
        (Wanted(Demand("patch", 3), backends=BACKENDS, side=12), 3),
        (Wanted(Demand("patch", 3), backends=BACKENDS), 3),  # asked before: no fourth question
        (Wanted(Demand("patch", 2), backends=BACKENDS), 1),
    ]
    for wanted, count in asked:
        record = certify(Bundle.open(bundle.path), split, wanted, quiet)
        assert record.thresholds["onnxruntime/fp32"].attempts == count
        said = record.promise("onnxruntime/fp32")
        assert ("a choice among the answers is not covered" in said) == (count > 1)
    found = {
        each.budget: each.thresholds["onnxruntime/fp32"].attempts for each in Bundle.open(bundle.path).certificates
    }
    assert found == {3: 3, 2: 1}


def test_coverage_of_nothing_is_refused(bundle, branch, quiet):
    wanted = Wanted(Demand("linf", 1), (branch,), backends=BACKENDS, target_risk=0.96, images=1)
    digest = bundle.digest
    grey = LabelledImages("grey", np.full((4, 32, 32, 3), 110, np.uint8), np.zeros(4, np.int64))
    with pytest.raises(CalibrationError, match="cannot be counted"):
        certify(bundle, grey, wanted, quiet, unseen_by_all=0)
    assert Bundle.open(bundle.path).digest == digest


def test_what_proves_sets_no_int8_ranges(bundle, branch, tmp_path, monkeypatch):
    _held_out_data(monkeypatch, bundle)
    model, record = load_checkpoint(branch)
    path, asked = tmp_path / "noted.pt", []
    save_checkpoint(path, model, record["architecture"], LABELS, NOTES)

    def load_training(place, labels, spec, progress, held_out):
        asked.append(held_out)
        return colours(100, 7)

    monkeypatch.setattr(command, "load_training", load_training)
    parser = argparse.ArgumentParser()
    command.register(parser.add_subparsers())
    line = ["certify", str(bundle.path), "--data", "x", "--budget", "patch:3", "--branch", str(path)]
    arguments = parser.parse_args([*line, "--precision", "int8", "--backend", "onnxruntime", "--target-risk", "0.05"])
    assert arguments.run(arguments) == 0
    assert asked == [0.5]
    assert Bundle.open(bundle.path).certificates[0].thresholds["onnxruntime/int8"].units == 400


def test_coverage_is_that_of_frames_which_no_network_saw(bundle, branch, quiet):
    split = colours(300, 1)
    nothing = np.full((200, 32, 32, 3), 110, np.uint8)  # grey frames, of which none can be certified
    both = LabelledImages("both", np.concatenate([split.images, nothing]), np.append(split.labels, [0] * 200))
    wanted = Wanted(Demand("linf", 1), (branch,), backends=BACKENDS, target_risk=0.05, cases=0)
    all_of_them = certify(bundle, both, wanted, quiet).thresholds["onnxruntime/fp32"]
    own = certify(Bundle.open(bundle.path), both, wanted, quiet, 300).thresholds["onnxruntime/fp32"]
    assert (own.tau, own.units) == (all_of_them.tau, 500)
    assert own.coverage == pytest.approx(all_of_them.coverage * 500 / 300)
