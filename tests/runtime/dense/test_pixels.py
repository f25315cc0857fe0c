from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.runtime.bundle.calibration import SCORES, Calibration, Limit
from framegate.runtime.dense import dense_scores, judge_dense
from framegate.runtime.errors import RejectedFrame, UsageError
from framegate.runtime.policy.debounce import Debounce
from framegate.runtime.policy.stream import Policy, StreamPolicy
from framegate.runtime.roi import Roi
from framegate.runtime.verdict import Reason

CALIBRATION = Calibration(1.5, "entropy", 0.5, 0.05, 0.95, 0.04, 0.9, 0.01, 1000, "0", "0", "test")
SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 5), st.integers(1, 5))


def reference(logits, temperature):
    """The float64 truth, pixel by pixel, turned so that higher is less trustworthy."""
    classes, height, width = logits.shape
    rows = softmax_scores(logits.reshape(classes, -1).T, temperature)
    maps = {
        "entropy": rows.entropy,
        "max_probability": 1 - rows.max_probability,
        "margin": 1 - rows.margin,
        "energy": rows.energy,
    }
    return rows.argmax.reshape(height, width), {k: v.reshape(height, width) for k, v in maps.items()}


@given(
    logits=arrays.arrays(np.float32, SHAPES, elements=st.floats(-60, 60, width=32)),
    temperature=st.sampled_from([0.5, 1.0, 1.3, 4.0]),
)
@settings(deadline=None)
def test_agrees_with_the_float64_reference(logits, temperature):
    before = logits.copy()
    scores = dense_scores(logits, temperature, SCORES)
    labels, truth = reference(logits, temperature)
    np.testing.assert_array_equal(scores.labels, labels)
    for name in SCORES:
        assert scores.maps[name].dtype == np.float32
        scale = 1.0 + np.abs(truth[name])
        assert not np.any(~(np.abs(scores.maps[name] - truth[name]) <= 2e-5 * scale)), name
    np.testing.assert_array_equal(logits, before)


@given(logits=arrays.arrays(np.float32, SHAPES, elements=st.floats(width=32)), threshold=st.floats(-1, 3))
@settings(deadline=None)
def test_no_logits_make_a_pixel_usable_that_is_not_finite_or_above_the_threshold(logits, threshold):
    prediction = judge_dense(logits, replace(CALIBRATION, threshold=threshold), min_share=0.5)
    finite = np.isfinite(logits).all(axis=0)
    assert not prediction.mask[~finite].any()
    assert (prediction.candidates[~finite] == -1).all()
    assert np.isnan(prediction.score[~finite]).all()
    clear = finite & (np.abs(np.nan_to_num(prediction.score) - threshold) > 1e-4)
    with np.errstate(over="ignore"):
        truth = reference(np.where(finite, logits, 0), CALIBRATION.temperature)[1]["entropy"]
    np.testing.assert_array_equal(prediction.mask[clear], (truth <= threshold)[clear])
    assert prediction.share == prediction.mask.mean()
    assert prediction.accepted == (prediction.share >= 0.5)


def scene(usable: int, nan: int = 0, of: int = 100) -> np.ndarray:
    """10 x 10 pixels: so many certain of class 1, so many NaN in one class, the rest undecided."""
    logits = np.zeros((3, of), np.float32)
    logits[1, :usable] = 20
    logits[2, of - nan :] = np.nan
    return logits.reshape(3, 10, -1)


def test_the_share_decides_and_its_minimum_is_accepted():
    accepted = judge_dense(scene(90), CALIBRATION, min_share=0.9)
    assert accepted.accepted
    assert accepted.share == 0.9
    assert (accepted.labels[:9] == 1).all()
    assert (accepted.labels[9] == -1).all()
    rejected = judge_dense(scene(89), CALIBRATION, min_share=0.9)
    assert rejected.reasons == (Reason.HIGH_SCORE,)
    with pytest.raises(RejectedFrame, match=r"HIGH_SCORE \(89.0% of the region usable, 90.0% needed\)"):
        _ = rejected.labels


def test_not_finite_is_named_when_it_alone_rejects():
    assert judge_dense(scene(90, nan=10), CALIBRATION, min_share=0.9).accepted
    assert judge_dense(scene(89, nan=11), CALIBRATION, min_share=0.9).reasons == (Reason.NOT_FINITE,)
    assert judge_dense(scene(80, nan=10), CALIBRATION, min_share=0.9).reasons == (Reason.HIGH_SCORE,)


def test_only_the_region_counts():
    top = Roi.parse("top=0.0,0.0,1.0,0.5")
    bottom = Roi.parse("bottom=0,5,10,5")
    assert judge_dense(scene(50), CALIBRATION, top).share == 1.0
    prediction = judge_dense(scene(50), CALIBRATION, bottom)
    assert (prediction.share, prediction.reasons) == (0.0, (Reason.HIGH_SCORE,))
    assert prediction.mask.sum() == 50  # the mask speaks of all pixels


def test_not_calibrated_has_no_usable_pixel():
    prediction = judge_dense(scene(100), None)
    assert prediction.reasons == (Reason.NOT_CALIBRATED,)
    assert not prediction.mask.any()
    assert np.isnan(prediction.score).all()


def test_every_score_of_the_output_and_every_limit_on_one_can_be_calibrated():
    logits = scene(60)
    for name, threshold in (("max_probability", 0.1), ("margin", 0.1), ("energy", -10.0)):
        assert judge_dense(logits, replace(CALIBRATION, score=name, threshold=threshold)).share == 0.6
    # Too familiar is odd, too: a two-sided limit takes the certain pixels away.
    limited = replace(
        CALIBRATION, threshold=9.0, limits=(Limit("energy", low=-10.0), Limit("entropy", high=0.1, frames=4))
    )
    np.testing.assert_array_equal(judge_dense(logits, limited).mask, logits[1] == 0)


def test_a_streams_policy_takes_the_reasons():
    stream = StreamPolicy(Policy({Reason.HIGH_SCORE: Debounce(1, 1, 3)}), None)
    decided = []
    for number, usable in enumerate((100, 0, 100, 100, 100)):
        prediction = judge_dense(scene(usable), CALIBRATION)
        decided.append(
            tuple(
                stream.decide(
                    dict.fromkeys(prediction.reasons, ""), {"share": prediction.share}, 1 - prediction.share, number, 9
                )
            )
        )
    assert [not reasons for reasons in decided] == [True, False, False, False, True]


def test_half_precision_logits():
    assert judge_dense(scene(90).astype(np.float16), CALIBRATION, min_share=0.9).accepted


@pytest.mark.parametrize(
    ("logits", "options", "says"),
    [
        (np.zeros((1, 3, 4, 4), np.float32), {}, "(C, H, W)"),
        (np.zeros((3, 4, 4), np.int8), {}, "found int8 (3, 4, 4)"),
        (np.zeros((3, 0, 4), np.float32), {}, "(3, 0, 4)"),
        (None, {}, "found NoneType"),
        (scene(1), {"min_share": 0.0}, "(0, 1]"),
        (scene(1), {"min_share": math.nan}, "(0, 1]"),
        (scene(1), {"roi": Roi.parse("far=8,8,4,4")}, "'far' reaches outside the 10x10 logits"),
        (scene(1), {"calibration": replace(CALIBRATION, limits=(Limit("tap", high=1.0),))}, "no score tap"),
        (scene(1), {"calibration": replace(CALIBRATION, score="combined")}, "no score combined"),
    ],
)
def test_bad_input_is_refused_with_the_reason(logits, options, says):
    with pytest.raises(UsageError) as error:
        judge_dense(logits, **{"calibration": CALIBRATION, **options})
    assert says in str(error.value)


def test_a_temperature_that_is_none():
    with pytest.raises(UsageError, match="temperature"):
        dense_scores(scene(1), 0.0)
