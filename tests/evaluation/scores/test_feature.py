"""Feature scores against scikit-learn, pytorch-ood and refits that really leave a frame out."""

import json
import math

import make_pytorch_ood_scores
import numpy as np
import pytest
from drawn_digest import digest
from repository import ROOT

from framegate.evaluation.frames.observations import Observations
from framegate.evaluation.metrics.metrics import detection
from framegate.evaluation.metrics.selective import accepts, threshold_at
from framegate.evaluation.scores.covariance import ClassGaussians, ledoit_wolf
from framegate.evaluation.scores.feature import (
    LinearHead,
    fdbd,
    feature_scores,
    knn,
    mahalanobis,
    recover_head,
    vim,
)
from framegate.evaluation.scores.registry import fit_scores
from framegate.runtime.errors import CalibrationError

GOLDEN = ROOT / "tests" / "golden"
NAMES = [score.name for score in feature_scores()]


def made(n=300, seed=0, classes=4, features=16, rank=None, offset=0.0):
    """Features around class means with very different spread along the axes, and logits of a fixed linear head."""
    shared = np.random.default_rng(50)
    means, weight = shared.normal(size=(2, classes, features))
    mixing = shared.normal(size=(features, features))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    noise = rng.normal(size=(n, features)) * np.geomspace(2.0, 0.02, features)
    if rank is not None:
        noise[:, rank:] = 0
        means = means * 0
    x = ((means[labels] + noise) @ mixing + offset).astype(np.float32)
    logits = x.astype(np.float64) @ weight.T + np.arange(classes)
    return Observations("calibration", logits, labels, x)


def head_of(classes=4, features=16):
    return LinearHead(
        np.random.default_rng(50).normal(size=(2, classes, features))[1], np.arange(classes, dtype=np.float64)
    )


# Others' implementations


@pytest.mark.parametrize(("n", "features"), [(30, 40), (500, 12), (5, 3)])
def test_shrinkage_is_scikit_learns(n, features):
    from sklearn.covariance import ledoit_wolf as sklearn_ledoit_wolf

    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, features)) @ rng.normal(size=(features, features))
    x -= x.mean(0)
    expected, shrinkage = sklearn_ledoit_wolf(x, assume_centered=True)
    found = ledoit_wolf(x)
    np.testing.assert_allclose(found[0], expected, rtol=1e-8, atol=1e-10)
    assert found[1] == pytest.approx(shrinkage, rel=1e-9)


@pytest.fixture(scope="module")
def golden():
    record, arrays = json.loads((GOLDEN / "pytorch_ood_scores.json").read_text()), make_pytorch_ood_scores.drawn()
    assert digest(arrays.values()) == record["sha256"], "NumPy draws differently"
    weight, bias = arrays["weight"].astype(np.float64), arrays["bias"].astype(np.float64)
    sets = [
        Observations("set", arrays[key].astype(np.float64) @ weight.T + bias, labels, arrays[key])
        for key, labels in (("fitted", arrays["labels"]), ("scored", np.full(make_pytorch_ood_scores.SCORED, -1)))
    ]
    return record["scores"], *sets, LinearHead(weight, bias), make_pytorch_ood_scores.NEIGHBOURS


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("name", ["vim", "fdbd", "knn"])
def test_scores_are_pytorch_oods(golden, name, given):
    """With the last layer given, and with the last layer recovered from features and logits."""
    scores, calibration, frames, head, neighbours = golden
    score = {"vim": vim(head if given else None), "fdbd": fdbd(head if given else None), "knn": knn(neighbours)}[name]
    np.testing.assert_allclose(score.fit(calibration).score(frames), scores[name], rtol=2e-4)


def test_knn_is_scikit_learns_and_takes_a_thousandth_of_the_frames():
    from sklearn.neighbors import NearestNeighbors

    calibration, frames = made(1500), made(40, seed=1)
    fitted = knn().fit(calibration)
    assert fitted.parameters["neighbours"] == 2
    unit = [x.features / np.linalg.norm(x.features, axis=1, keepdims=True) for x in (calibration, frames)]
    expected = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(unit[0]).kneighbors(unit[1])[0][:, 1]
    np.testing.assert_allclose(fitted.score(frames), expected, atol=2e-3, rtol=1e-3)


def test_mahalanobis_by_definition():
    from sklearn.covariance import ledoit_wolf as sklearn_ledoit_wolf

    calibration, frames = made(300), made(30, seed=1)
    fitted = mahalanobis().fit(calibration)
    x, y = calibration.features.astype(np.float64), calibration.labels
    means = np.stack([x[y == c].mean(0) for c in range(4)])
    precision = np.linalg.inv(sklearn_ledoit_wolf(x - means[y], assume_centered=True)[0])
    expected = [min((f - m) @ precision @ (f - m) for m in means) for f in frames.features.astype(np.float64)]
    np.testing.assert_allclose(fitted.score(frames), expected, rtol=1e-5)
    assert 0 < fitted.parameters["shrinkage"] < 1


# Leaving a frame out


def test_a_left_out_distance_is_that_of_a_fit_without_the_frame():
    calibration = made(60, features=8)
    x, y = calibration.features.astype(np.float64), calibration.labels
    whole = ClassGaussians.fit(x, y)
    found = whole.left_out_distance(x, y)
    for k in range(0, 60, 7):
        rest = np.arange(60) != k
        means = np.stack([x[rest & (y == c)].mean(0) for c in range(4)])
        centred = (x - means[y])[rest]
        # Shrinkage, its target and the divisor are those of the whole; only the frame's own part is missing.
        sample = centred.T @ centred / 60
        target = (
            ledoit_wolf(x - whole.means[y])[0]
            - (1 - whole.shrinkage) * (x - whole.means[y]).T @ (x - whole.means[y]) / 60
        )
        precision = np.linalg.inv((1 - whole.shrinkage) * sample + target)
        expected = min((x[k] - m) @ precision @ (x[k] - m) for m in means)
        assert found[k] == pytest.approx(expected, rel=1e-5)


def test_knn_does_not_find_itself():
    calibration = made(200)
    fitted = knn(1).fit(calibration)
    assert fitted.score(calibration).max() < 2e-3
    rest = np.arange(200) != 17
    alone = knn(1).fit(calibration.subset(rest)).score(calibration.subset(slice(17, 18)))
    assert fitted.calibration_scores[17] == pytest.approx(alone[0], rel=1e-3, abs=1e-3)


def _coverage(score, n=500, features=100):
    calibration, frames = made(n, features=features), made(3000, seed=1, features=features)
    fitted = score.fit(calibration)
    honest = accepts(fitted.score(frames), threshold_at(fitted.calibration_scores, 0.9)).mean()
    naive = accepts(fitted.score(frames), threshold_at(fitted.score(calibration), 0.9)).mean()
    return honest, naive


@pytest.mark.parametrize("score", feature_scores(), ids=NAMES)
def test_a_threshold_from_the_calibration_scores_keeps_its_coverage_on_new_frames(score):
    """500 frames of 100 features: frames that were fitted with would look far too typical."""
    honest, naive = _coverage(score)
    assert honest == pytest.approx(0.9, abs=0.04)
    if score.name in ("mahalanobis", "vim"):
        assert naive < honest - 0.03


# The last layer


def test_the_last_layer_is_recovered():
    calibration, head = made(300), head_of()
    found = recover_head(calibration)
    np.testing.assert_allclose(found.weight, head.weight, atol=1e-3)
    np.testing.assert_allclose(found.bias, head.bias, atol=1e-2)


def test_dead_features_get_no_weight():
    alive = made(300)
    dead = np.concatenate([alive.features, np.zeros((300, 3), np.float32)], axis=1)
    found = recover_head(Observations("set", alive.logits, alive.labels, dead))
    np.testing.assert_allclose(found.weight[:, :16], head_of().weight, atol=1e-3)
    np.testing.assert_allclose(found.weight[:, 16:], 0, atol=1e-9)


@pytest.mark.parametrize("score", [vim(), fdbd()], ids=["vim", "fdbd"])
def test_features_of_another_layer_are_refused_unless_the_head_is_given(score):
    right = made(300)
    wrong = Observations("set", right.logits, right.labels, np.abs(right.features))
    with pytest.raises(CalibrationError, match="is not a linear map of the features"):
        score.fit(wrong)
    assert np.isfinite(vim(head_of()).fit(wrong).calibration_scores).all()


# Frames that cannot be judged


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", NAMES)
def test_features_that_are_not_finite_give_nan_and_spoil_no_fit(name, bad):
    clean = made(300)
    features = np.array(clean.features)
    features[5, 3] = bad
    spoiled = Observations("set", clean.logits, clean.labels, features)
    score = next(score for score in feature_scores() if score.name == name)
    fitted = score.fit(spoiled)
    assert np.isnan(fitted.calibration_scores).sum() == 1
    assert np.isnan(fitted.calibration_scores[5])
    without = score.fit(clean.subset(np.arange(300) != 5))
    frames = made(10, seed=4)
    np.testing.assert_allclose(fitted.score(frames), without.score(frames), rtol=1e-9)
    assert np.isnan(fitted.score(spoiled.subset(slice(4, 7)))).tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["vim", "fdbd"])
def test_logits_that_are_not_finite_give_nan(name):
    calibration = made(300)
    logits = np.array(calibration.logits[:3])
    logits[1, 0] = math.nan
    frames = Observations("set", logits, np.zeros(3, int), calibration.features[:3])
    score = next(score for score in feature_scores() if score.name == name)
    assert np.isnan(score.fit(calibration).score(frames)).tolist() == [False, True, False]


def test_a_frame_without_direction_has_no_neighbours():
    calibration = made(100)
    frames = Observations("set", np.zeros((1, 4)), np.zeros(1, int), np.zeros((1, 16)))
    assert np.isnan(knn().fit(calibration).score(frames)).all()


def test_foreign_calibration_frames_are_not_taken_for_a_class():
    known = made(300)
    labels = np.array(known.labels)
    labels[:20] = -1
    mixed = Observations("set", known.logits, labels, known.features)
    fitted, without = mahalanobis().fit(mixed), mahalanobis().fit(known.subset(slice(20, None)))
    np.testing.assert_allclose(
        fitted.calibration_scores,
        np.concatenate([without.score(known.subset(slice(0, 20))), without.calibration_scores]),
    )


def test_a_class_seen_once_has_no_mean_without_its_frame():
    known = made(300)
    labels = np.where(np.arange(300) == 7, 3, known.labels % 3)
    fitted = mahalanobis().fit(Observations("set", known.logits, labels, known.features))
    assert np.isfinite(fitted.calibration_scores).all()
    assert fitted.calibration_scores[7] > 0 == pytest.approx(fitted.score(known.subset(slice(7, 8)))[0], abs=1e-6)


def test_too_little_to_fit_is_said():
    few = made(300)
    with pytest.raises(CalibrationError, match="0 usable frames"):
        mahalanobis().fit(Observations("set", few.logits, np.full(300, -1), few.features))
    with pytest.raises(CalibrationError, match="of 0 features"):
        fit_scores([knn()], Observations("set", few.logits, few.labels, np.zeros((300, 0))))
    with pytest.raises(CalibrationError, match="300 neighbours asked for, 300 usable"):
        knn(300).fit(few)
    with pytest.raises(CalibrationError, match="the same for all frames of a class"):
        mahalanobis().fit(Observations("set", few.logits, few.labels, np.ones((300, 16))))


@pytest.mark.parametrize("name", ["mahalanobis", "knn", "vim"])
def test_far_frames_score_higher(name):
    calibration, near = made(400), made(400, seed=1)
    rng = np.random.default_rng(9)
    direction = rng.normal(size=(400, 16)).astype(np.float32)
    far_features = calibration.features.mean(0) + 3 * direction
    head = head_of()
    far = Observations("far", far_features @ head.weight.T + head.bias, np.full(400, -1), far_features)
    fitted = next(score for score in feature_scores() if score.name == name).fit(calibration)
    assert detection(fitted.score(near), fitted.score(far), resamples=10).auroc.value > 0.75


def test_fdbd_is_the_distance_to_the_boundaries_over_that_from_the_mean():
    calibration, head = made(400), head_of()
    frame = calibration.subset(slice(0, 1))
    x, logits = frame.features[0].astype(np.float64), frame.logits[0].astype(np.float64)
    best = logits.argmax()
    distances = []
    for other in set(range(4)) - {best}:
        normal = head.weight[best] - head.weight[other]
        step = (logits[best] - logits[other]) / np.linalg.norm(normal)
        moved = x - step * normal / np.linalg.norm(normal)
        tied = head.weight @ moved + head.bias
        assert tied[best] == pytest.approx(tied[other], abs=1e-4)  # it lies on the boundary
        distances.append(step)
    mean = calibration.features.mean(0, dtype=np.float64)
    expected = -np.mean(distances) / np.linalg.norm(x - mean)
    assert fdbd(head).fit(calibration).score(frame)[0] == pytest.approx(expected, rel=1e-6)
