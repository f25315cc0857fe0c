"""The published per-batch protocols, run by the suite on a small network that really works."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from framegate.evaluation.frames.network import Network
from framegate.evaluation.suite.batchwise import BatchEntropy
from framegate.evaluation.suite.plan import PLANS
from framegate.evaluation.suite.published import BatchProtocols
from framegate.evaluation.suite.run import Frames, Suite
from framegate.evaluation.suite.store import Store
from framegate.models.pixels import to_pixels
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import DataError

PLAN = replace(PLANS["quick"], fgsm=64, pgd=40, pgd_steps=3, bootstrap=20, test=280)


@pytest.fixture(scope="module")
def new_suite(bundle_path, colours, quiet):
    """Makes a suite whose parts lie in a folder."""
    network = Network.from_bundle(Bundle.open(bundle_path))
    frames = Frames(colours(300, 20, "calibration"), colours(280, 21, "test"), 1, ())
    return lambda folder: Suite(network, frames, PLAN, 0, Store(folder, {"what": "test"}), quiet)


@pytest.fixture(scope="module")
def suite(new_suite, tmp_path_factory):
    """Parts that one test has measured are there for the next; it is only read."""
    return new_suite(tmp_path_factory.mktemp("published") / "parts")


def test_detection_per_frame_and_per_batch(suite):
    rows = BatchProtocols(suite).detection()
    # 64 frames make four batches of 16 and none of 128.
    assert [(row["attack"], row["unit"], row["decisions"]) for row in rows] == [
        ("fgsm-8/255", "frame", 128),
        ("fgsm-8/255", "batch 16", 8),
        ("fgsm-51/255", "frame", 128),
        ("fgsm-51/255", "batch 16", 8),
    ]
    for row in rows:
        assert row["layer"] == "stem.0"
        assert row["detection_accuracy"]["n"] == row["decisions"]
        assert row["detection_accuracy"]["low"] < row["detection_accuracy"]["value"]
        wrong = row["false_positive_rate"]["value"] + row["false_negative_rate"]["value"]
        assert row["detection_accuracy"]["value"] == pytest.approx(1 - wrong / 2)  # as many clean as attacked


def test_the_entropies_are_those_of_the_layer(suite):
    protocols = BatchProtocols(suite)
    protocols.detection()
    index = suite.chosen(64)
    _, _, activations = suite.network.observe(to_pixels(suite.frames.test.images[index]))
    histogram = BatchEntropy(16)
    histogram.feed(activations["stem.0"])
    kept = suite.store.record("batches-fgsm-8/255", lambda: pytest.fail("measured again"))
    np.testing.assert_allclose(kept["test clean batch 16"], histogram.finish(), rtol=1e-6)


def test_the_rule_that_drops_whole_batches(suite):
    rows = BatchProtocols(suite).selection()
    assert [(row["input"], row["batches"]) for row in rows] == [("clean", 3), ("fgsm-0.03", 1), ("pgd-3-0.03", 1)]
    clean = suite.clean()
    assert rows[0]["accuracy"]["value"] == pytest.approx(1 - clean.wrong.mean())
    for row in rows:
        assert set(row["flagged"]) == {"stem.0", "logits"}
        assert row["coverage"]["value"] in {0.0, 24 / 280, 128 / 280, 152 / 280, 256 / 280, 1.0}


def test_attacked_pixels_are_kept_for_the_rule_and_a_damaged_part_is_named(suite, new_suite, tmp_path):
    BatchProtocols(suite).selection()
    shutil.copytree(suite.store.folder, tmp_path / "parts")
    suite = new_suite(tmp_path / "parts")
    part = suite.store.folder / "pixels-fgsm-0.03.npy"
    assert np.load(part).shape == (64, 3, 32, 32)
    part.write_bytes(b"not an array")
    with pytest.raises(DataError, match=r"pixels-fgsm-0\.03\.npy: cannot be read .* delete it and evaluate again"):
        suite.linf_pixels(PLAN.fgsm_settings(0.03), 64)


def test_too_few_frames_give_no_row(new_suite, colours, tmp_path):
    suite = new_suite(tmp_path / "parts")
    suite.frames = Frames(colours(200, 20, "calibration"), suite.frames.test, 1, ())
    assert BatchProtocols(suite).selection() == []
