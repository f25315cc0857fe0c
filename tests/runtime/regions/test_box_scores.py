"""The scores of detected boxes against the formulas written out for logits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.runtime.bundle.calibration import BOX_SCORES
from framegate.runtime.regions.box_scores import box_scores


def test_a_sigmoid_head_is_as_many_questions_as_it_has_classes():
    logits = np.random.default_rng(0).normal(-2, 2, (50, 5))
    found = box_scores((1 / (1 + np.exp(-logits))).astype(np.float32), exclusive=False)
    assert tuple(found) == BOX_SCORES
    for k, row in enumerate(logits.tolist()):
        p = [1 / (1 + math.exp(-x)) for x in row]
        answers = [-q * math.log(q) - (1 - q) * math.log(1 - q) for q in p]
        first, second = sorted(p, reverse=True)[:2]
        assert found["box_entropy"][k] == pytest.approx(sum(answers), abs=1e-4)
        assert found["box_max_probability"][k] == pytest.approx(1 - first, abs=1e-6)
        assert found["box_margin"][k] == pytest.approx(1 - (first - second), abs=1e-6)
        joint = -sum(math.log1p(math.exp(x)) for x in row)
        assert found["box_energy"][k] == pytest.approx(joint, rel=1e-3)


def test_an_exclusive_head_has_one_more_class_which_is_nothing():
    logits = np.random.default_rng(1).normal(0, 2, (50, 5))
    reference = softmax_scores(logits)
    found = box_scores(reference.probabilities[:, :-1].astype(np.float32), exclusive=True)
    assert found["box_entropy"] == pytest.approx(reference.entropy, abs=1e-4)
    some = reference.argmax < 4  # the label of a box is never "nothing"
    assert 5 < some.sum() < 50
    assert found["box_margin"][some] == pytest.approx(1 - reference.margin[some], abs=1e-6)
    relative = softmax_scores(logits - logits[:, -1:]).energy
    assert found["box_energy"] == pytest.approx(relative, rel=1e-3)


def test_scores_at_the_edge_are_finite_and_what_is_no_probability_has_none():
    rows = np.array([[1, 0], [0, 0], [np.nan, 0.5], [0.5, 1.5], [-0.1, 0.2]], np.float32)
    for exclusive in (True, False):
        found = box_scores(rows, exclusive)
        for values in found.values():
            assert np.isfinite(values[:2]).all()
            assert np.isnan(values[2:]).all()
        assert all(found[name][0] < found[name][1] for name in BOX_SCORES if name != "box_entropy")
    assert box_scores(np.array([[0.25]], np.float32), exclusive=False)["box_margin"][0] == pytest.approx(0.75)
