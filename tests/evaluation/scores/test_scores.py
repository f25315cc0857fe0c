"""Output and control scores, the protocol, and the registry."""

import math

import numpy as np
import pytest
import torch

from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.evaluation.frames.observations import Observations
from framegate.evaluation.metrics.metrics import failure_detection
from framegate.evaluation.scores.combined import fisher, two_sided
from framegate.evaluation.scores.input import (
    CONTROLS,
    control_score,
    control_statistics,
    high_frequency_energy,
    pixel_histogram_entropy,
    total_variation,
)
from framegate.evaluation.scores.output import calibrated_temperature, output_scores
from framegate.evaluation.scores.protocol import FAMILIES, Learned, Score
from framegate.evaluation.scores.registry import all_scores, fit_scores, score_frames, select
from framegate.export.calibration.temperature import fit_temperature
from framegate.runtime.errors import CalibrationError, UsageError
from framegate.runtime.scores import frame_scores


def made(n=600, seed=0, classes=5, features=12, sharpness=3.0, name="set"):
    """Features around class means, logits from a linear head, taps and controls that follow the certainty a little."""
    shared = np.random.default_rng(99)
    means, tilt = shared.normal(size=(classes, features)), shared.normal(size=features)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    x = (means[labels] + rng.normal(size=(n, features)) * 1.2).astype(np.float32)
    logits = sharpness * (x.astype(np.float64) @ means.T - 0.5 * (means**2).sum(1))
    taps = {
        f"{layer}:{statistic}": x @ tilt * scale + rng.normal(size=n)
        for layer, scale in (("stem.0", 0.1), ("blocks.2", 0.5))
        for statistic in ("mass_entropy", "high_frequency_ratio", "mean")
    }
    controls = {"total_variation": rng.gamma(2.0, size=n), "high_frequency_energy": rng.gamma(2.0, size=n)}
    return Observations(name, logits, labels, x, taps, controls)


@pytest.fixture(scope="module")
def calibration():
    return made(600, seed=1, name="calibration")


@pytest.fixture(scope="module")
def fitted(calibration):
    return fit_scores(all_scores(calibration), calibration)


# The outputs


def test_output_scores_are_the_products_own(calibration, fitted):
    frames = made(20, seed=7)
    temperature = fit_temperature(calibration.logits, calibration.labels)
    assert fitted["entropy"].parameters["temperature"] == pytest.approx(temperature, rel=1e-9)
    found = score_frames(fitted, frames)
    for row in range(20):
        product = frame_scores(frames.logits[row : row + 1], temperature)
        assert found["entropy"][row] == pytest.approx(product.entropy, rel=1e-9, abs=1e-12)
        assert found["max_probability"][row] == pytest.approx(1 - product.max_probability, rel=1e-9, abs=1e-12)
        assert found["margin"][row] == pytest.approx(1 - product.margin, rel=1e-9, abs=1e-12)
        assert found["energy"][row] == pytest.approx(product.energy, rel=1e-9)
        assert found["max_logit"][row] == -frames.logits[row].max()
    np.testing.assert_allclose(found["entropy_untempered"], softmax_scores(frames.logits).entropy, rtol=1e-12)


def test_every_output_score_is_higher_for_a_less_certain_frame(calibration):
    certain = np.array([[9, 0, 0, 0, 0], [6, 0, 0, 0, 0], [3, 1, 0, 0, 0], [1, 0.9, 0.8, 0.7, 0.6]])
    frames = Observations("four", certain, np.zeros(4, int), np.zeros((4, 12)))
    for score in output_scores():
        assert (np.diff(score.fit(calibration).score(frames)) > 0).all(), score.name


def test_gen_is_its_papers_formula(fitted):
    frames = made(5, seed=3)
    p = softmax_scores(frames.logits).probabilities
    expected = [sum((q * (1 - q)) ** 0.1 for q in row) for row in p]
    np.testing.assert_allclose(fitted["gen"].score(frames), expected, rtol=1e-9)
    many = np.random.default_rng(0).normal(size=(3, 150)).astype(np.float32)
    gen = next(score for score in output_scores() if score.name == "gen")
    found = gen.fit(Observations("many", many, np.zeros(3, int), np.zeros((3, 0)))).calibration_scores
    largest = np.sort(softmax_scores(many).probabilities, axis=1)[:, 50:]
    np.testing.assert_allclose(found, ((largest * (1 - largest)) ** 0.1).sum(1), rtol=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_gives_nan_in_every_output_score(calibration, fitted, bad):
    logits = np.array(made(3).logits)
    logits[1, 2] = bad
    frames = Observations("bad", logits, np.zeros(3, int), np.zeros((3, 12)))
    for score in output_scores():
        values = fitted[score.name].score(frames)
        assert np.isnan(values).tolist() == [False, True, False], score.name


def test_the_temperature_ignores_foreign_frames_and_needs_others():
    known = made(300)
    foreign = Observations("foreign", -np.array(known.logits), np.full(300, -1), known.features)
    logits, labels = np.concatenate([known.logits, foreign.logits]), np.concatenate([known.labels, foreign.labels])
    both = Observations("both", logits, labels, np.zeros((600, 0)))
    assert calibrated_temperature(both) == pytest.approx(fit_temperature(known.logits, known.labels), rel=1e-9)
    with pytest.raises(CalibrationError, match="no frame has a label"):
        calibrated_temperature(foreign)


# The inputs


def test_total_variation_by_hand():
    pixels = torch.tensor([[[[0.0, 1.0], [0.0, 0.5]]]])
    assert total_variation(pixels).item() == pytest.approx((1.0 + 0.5) / 2 + (0.0 + 0.5) / 2)
    assert total_variation(torch.full((2, 3, 4, 5), 0.3)).tolist() == [0, 0]
    assert total_variation(torch.rand(2, 3, 1, 1)).tolist() == [0, 0]


@pytest.mark.parametrize("shape", [(4, 3, 9, 7), (4, 1, 5, 6, 7)])
def test_high_frequency_energy_by_definition(shape):
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = pixels.numpy()
    expected = []
    for frame in x:
        total = 0.0
        for index in np.ndindex(frame.shape):
            window = tuple(slice(max(i - 1, 0), i + 2) for i in index[1:])
            total += (frame[index] - frame[(index[0], *window)].mean()) ** 2
        expected.append(total / frame.size)
    np.testing.assert_allclose(high_frequency_energy(pixels).numpy(), expected, rtol=1e-10)


def test_pixel_histogram_entropy_is_that_of_numpys_histogram():
    pixels = torch.rand((3, 3, 8, 8), generator=torch.Generator().manual_seed(1))
    for frame, found in zip(pixels.numpy(), pixel_histogram_entropy(pixels), strict=True):
        p = np.histogram(frame, bins=30, range=(0, 1))[0] / frame.size
        assert found == pytest.approx(-(p[p > 0] * np.log(p[p > 0])).sum(), rel=1e-6)


def test_noise_raises_every_control():
    generator = torch.Generator().manual_seed(2)
    smooth = torch.rand((6, 3, 1, 1), generator=generator).expand(6, 3, 16, 16) * 0.5 + 0.2
    noisy = smooth + 0.1 * torch.rand(smooth.shape, generator=generator)
    before, after = control_statistics(smooth), control_statistics(noisy)
    assert set(before) == set(CONTROLS)
    for name in CONTROLS:
        assert (after[name] > before[name]).all(), name
        assert after[name].dtype == np.float64


@pytest.mark.parametrize("name", ["total_variation", "high_frequency_energy"])
def test_controls_can_be_attacked(name):
    pixels = torch.rand((2, 3, 6, 6), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    assert torch.autograd.gradcheck(CONTROLS[name], pixels.requires_grad_(True))


@pytest.mark.parametrize("name", CONTROLS)
def test_pixels_of_another_kind_are_refused_and_nan_stays_nan(name):
    for pixels in (torch.zeros(2, 3, 4), torch.zeros((2, 3, 4, 4), dtype=torch.uint8), torch.zeros(2, 0, 4, 4)):
        with pytest.raises(UsageError, match="pixels: expected float"):
            CONTROLS[name](pixels)
    pixels = torch.rand(3, 3, 5, 5)
    pixels[1, 0, 2, 2] = torch.nan
    assert CONTROLS[name](pixels).isnan().tolist() == [False, True, False]


def test_a_control_that_was_not_recorded_is_named():
    with pytest.raises(UsageError, match="'contrast' was not recorded; found total_variation"):
        control_score("contrast").fit(made())


# The protocol


def test_names_are_unique_and_families_known(fitted, calibration):
    scores = all_scores(calibration)
    assert len(fitted) == len(scores)
    assert {score.family for score in scores} == set(FAMILIES)
    assert all(("two_sided(" in score.name) <= score.two_sided for score in scores)
    with pytest.raises(UsageError, match="family 'magic'"):
        Score("x", "magic", lambda calibration, members: Learned(lambda observations, known: np.zeros(1)))


def test_every_base_score_has_a_two_sided_form_and_every_tap_is_there(fitted, calibration):
    base = [name for name, score in fitted.items() if not score.two_sided and score.family != "combined"]
    assert all(f"two_sided({name})" in fitted for name in base)
    assert set(calibration.taps) | set(calibration.controls) <= set(base)
    assert {"entropy", "mahalanobis", "knn", "vim", "fdbd"} <= set(base)


def test_without_features_taps_and_controls_the_output_scores_remain():
    frames = made()
    bare = Observations("bare", frames.logits, frames.labels, np.zeros((len(frames), 0)))
    names = list(fit_scores(all_scores(bare), bare))
    assert "logistic/output" in names
    assert not any(name.startswith(("logistic/network", "logistic/all", "knn")) for name in names)


def test_scores_have_one_number_per_frame_and_know_the_errors(fitted, calibration):
    frames = made(500, seed=5)
    found = score_frames(fitted, frames)
    for name, values in found.items():
        assert values.shape == (500,)
        assert np.isfinite(values).all(), name
        assert fitted[name].calibration_scores.shape == (len(calibration),)
    for name in ("entropy", "max_probability", "margin", "gen", "logistic/output", "logistic/all"):
        assert failure_detection(found[name], frames.wrong, resamples=10).auroc.value > 0.7, name


def test_scores_do_not_depend_on_the_company_they_are_computed_in(fitted):
    frames = made(60, seed=6)
    whole = score_frames(fitted, frames)
    part = score_frames(fitted, frames.subset(slice(10, 30)))
    for name, values in whole.items():
        np.testing.assert_allclose(part[name], values[10:30], rtol=2e-4, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(fitted[name].score(frames), values, rtol=1e-9, atol=1e-9, err_msg=name)


def test_shared_members_are_fitted_and_computed_once(calibration):
    fits, computed = [], []

    def learn(observations, members):
        fits.append(1)

        def compute(frames, known):
            computed.append(frames.name)
            return frames.taps["stem.0:mean"]

        return Learned(compute)

    member = Score("member", "activation", learn)
    known = fit_scores([member, two_sided(member), fisher("f", [member])], calibration)
    assert (len(fits), computed) == (1, ["calibration"])
    score_frames(known, made(5, name="other"))
    assert computed == ["calibration", "other"]


def test_a_formula_of_the_wrong_shape_and_an_empty_split_are_refused(calibration):
    broken = Score("broken", "output", lambda frames, members: Learned(lambda o, known: np.zeros((len(o), 2))))
    with pytest.raises(UsageError, match="broken: its formula gives shape"):
        broken.fit(calibration)
    with pytest.raises(CalibrationError, match="calibration split is empty"):
        output_scores()[0].fit(calibration.subset(slice(0, 0)))


def test_scores_are_chosen_by_name(calibration):
    chosen = select(all_scores(calibration), ["knn", "entropy"])
    assert [score.name for score in chosen] == ["knn", "entropy"]
    with pytest.raises(UsageError, match="'softmax' is not known here; choose from entropy"):
        select(all_scores(calibration), ["softmax"])


def test_an_empty_set_has_no_scores(fitted):
    for name, values in score_frames(fitted, made(4).subset(slice(0, 0))).items():
        assert values.shape == (0,), name
