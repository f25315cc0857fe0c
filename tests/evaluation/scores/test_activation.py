"""Statistics of activations: against the float64 reference, by brute force, and their gradients."""

import math

import numpy as np
import pytest
import torch
from activation_entropy_reference import activation_entropy
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.evaluation.frames.observations import Observations
from framegate.evaluation.scores.activation import (
    FREE_OF_BINS,
    ON_MAPS,
    channel_entropy,
    fit_edges,
    high_frequency_ratio,
    histogram_entropy,
    mass_entropy,
    mean_activation,
    spatial_entropy,
    tap_score,
    tap_statistics,
    zero_fraction,
)
from framegate.runtime.errors import CalibrationError, UsageError

STATISTICS = {**FREE_OF_BINS, **ON_MAPS}


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def entropy_of(weights):
    p = np.asarray(weights, float)
    p = p[p > 0] / p.sum()
    return -(p * np.log(p)).sum()


# The reference


def test_reference_agrees_with_numpy_histogram_and_torch():
    x = np.abs(np.random.default_rng(1).normal(size=(3, 4, 9, 7))) * 2
    edges = np.linspace(0.0, 20.0, 41)  # wide enough: numpy.histogram drops what is outside, and nothing is
    result = activation_entropy(x, edges)
    for i in range(3):
        counts, _ = np.histogram(x[i], edges)
        np.testing.assert_array_equal(result.counts[i, 1:-1], counts)
        p = torch.from_numpy(counts / counts.sum())
        assert result.histogram_entropy[i] == pytest.approx(float(torch.special.entr(p).sum()), abs=1e-12)
        q = torch.from_numpy(x[i] / x[i].sum())
        assert result.mass_entropy[i] == pytest.approx(float(torch.special.entr(q).sum()), abs=1e-12)


def test_reference_on_frames_whose_entropy_is_known():
    x = np.array([[1, 1, 1, 1], [0, 0, 0, 5], [2, -2, 0, 0], [0, 0, 0, 0]], np.float64)
    result = activation_entropy(x, [0.0, 1.0, 2.0])
    np.testing.assert_allclose(result.mass_entropy[:3], [np.log(4), 0, np.log(2)], atol=1e-15)
    assert np.isnan(result.mass_entropy[3])
    assert result.counts.tolist() == [[0, 0, 4, 0], [0, 3, 0, 1], [1, 2, 0, 1], [0, 4, 0, 0]]
    np.testing.assert_allclose(result.histogram_entropy[2], 1.5 * np.log(2), atol=1e-15)
    assert result.histogram_entropy[0] == 0.0


def test_reference_gives_nan_for_frames_that_are_not_finite_and_only_for_them():
    x = np.ones((4, 3))
    x[1, 0], x[2, 2] = np.nan, -np.inf
    result = activation_entropy(x, [0.5])
    assert np.isnan(result.histogram_entropy).tolist() == [False, True, True, False]
    assert np.isnan(result.mass_entropy).tolist() == [False, True, True, False]
    assert result.non_finite.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("edges", [[], [1.0, 1.0], [2.0, 1.0], [np.nan], [0.0, np.inf], [[0.0]]], ids=str)
def test_reference_refuses_bad_edges(edges):
    with pytest.raises(ValueError, match="edges: asked for at least one finite number, strictly ascending"):
        activation_entropy(np.ones((1, 2)), edges)


@pytest.mark.parametrize("shape", [(3,), (2, 0), (0,)], ids=str)
def test_reference_refuses_frames_without_elements(shape):
    with pytest.raises(ValueError, match="at least one element a frame"):
        activation_entropy(np.ones(shape), [0.0])


# The scores against the reference


@pytest.mark.parametrize("shape", [(5, 4, 6, 7), (3, 2, 4, 5, 3), (6, 40), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("edges", [[0.0], [-0.5, 0.1, 0.11, 2.0], np.linspace(0, 2, 31)[1:]])
def test_both_entropies_are_those_of_the_reference(shape, dtype, edges):
    activations = drawn(*shape, dtype=dtype)
    truth = activation_entropy(activations.numpy(), edges)
    np.testing.assert_allclose(histogram_entropy(activations, edges).numpy(), truth.histogram_entropy, atol=1e-12)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(mass_entropy(activations).numpy(), truth.mass_entropy, atol=tolerance)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([-1.0, 0.0, 0.1, 0.1 + 1e-8, 0.3, 1.0, 5.0, math.nan, math.inf]), min_size=1, max_size=12),
    st.lists(st.sampled_from([-1.0, 0.0, 0.1, 0.3, 0.30000001, 1.0, 4.0]), min_size=1, max_size=5, unique=True),
)
def test_a_value_on_an_edge_belongs_where_the_reference_puts_it(values, edges):
    """0.1 and 0.3 are edges that float32 can't hold: rounding them would move a neighbour to the other side."""
    for dtype in (np.float32, np.float64):
        frames = np.array([values], dtype)
        truth = activation_entropy(frames, sorted(edges)).histogram_entropy
        np.testing.assert_allclose(histogram_entropy(torch.from_numpy(frames), sorted(edges)), truth, atol=1e-12)


def test_half_precision_activations_are_taken_as_they_are():
    activations = drawn(4, 3, 5, 5).to(torch.float16)
    truth = activation_entropy(activations.numpy(), [0.2, 0.7])
    np.testing.assert_allclose(histogram_entropy(activations, [0.2, 0.7]), truth.histogram_entropy, atol=1e-12)
    found = tap_statistics("layer", activations, [0.2, 0.7])
    np.testing.assert_allclose(found["layer:mass_entropy"], truth.mass_entropy, atol=1e-5)


def test_with_edges_above_zero_the_papers_relu_changes_nothing():
    activations = drawn(5, 4, 6, 6)
    edges = fit_edges([activations])
    torch.testing.assert_close(histogram_entropy(activations, edges), histogram_entropy(activations.relu(), edges))


# By definition


def test_forms_over_space_and_channels_by_definition():
    activations = drawn(3, 4, 5, 6, dtype=torch.float64)
    a = np.abs(activations.numpy())
    spatial = [np.mean([entropy_of(channel.ravel()) for channel in frame]) for frame in a]
    np.testing.assert_allclose(spatial_entropy(activations), spatial, rtol=1e-12)
    channel = [entropy_of(frame.mean(axis=(1, 2))) for frame in a]
    np.testing.assert_allclose(channel_entropy(activations), channel, rtol=1e-12)
    np.testing.assert_allclose(channel_entropy(activations[:, :, 0, 0]), [entropy_of(f[:, 0, 0]) for f in a])
    x = activations.numpy()
    np.testing.assert_allclose(mean_activation(activations), np.maximum(x, 0).mean(axis=(1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(zero_fraction(activations), (x <= 0).mean(axis=(1, 2, 3)), rtol=1e-12)


def test_log_s_form_is_the_same():
    """The issue's form, log S - sum(a log a) / S, for activations of any scale."""
    a = drawn(4, 30, dtype=torch.float64).abs() * 1000
    total = a.sum(1)
    torch.testing.assert_close(mass_entropy(a), total.log() - (a * a.log()).sum(1) / total)


def test_known_entropies():
    assert mass_entropy(torch.ones(1, 64)).item() == pytest.approx(math.log(64))
    one = torch.zeros(1, 4, 3, 3)
    one[0, 1, 2, 2] = 7.0
    assert mass_entropy(one).item() == spatial_entropy(one).item() == channel_entropy(one).item() == 0.0
    assert histogram_entropy(one, [1.0]).item() == pytest.approx(entropy_of([35, 1]))


def test_high_frequencies_are_told_from_low_ones():
    row = torch.arange(16.0)
    smooth = (1 + torch.cos(row / 16 * math.pi)).expand(1, 2, 16, 16)
    checks = ((row[:, None] + row) % 2).expand(1, 2, 16, 16)
    assert high_frequency_ratio(smooth).item() < 0.01 < 0.2 < high_frequency_ratio(checks).item()
    assert high_frequency_ratio(torch.full((1, 2, 5, 5), 3.0)).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", STATISTICS)
def test_a_scale_changes_no_entropy_and_overflows_nothing(name):
    activations = drawn(3, 4, 6, 6)
    expected = STATISTICS[name](activations)
    for scale in (1e-30, 1e30):
        found = STATISTICS[name](activations * scale)
        torch.testing.assert_close(found / (scale if name == "mean" else 1), expected, rtol=1e-4, atol=1e-5)


def test_dead_channels_are_left_out_and_dead_frames_have_no_entropy():
    alive = drawn(2, 3, 4, 4)
    with_dead = torch.cat([alive, torch.zeros(2, 2, 4, 4)], dim=1)
    torch.testing.assert_close(spatial_entropy(with_dead), spatial_entropy(alive))
    with_dead[1] = 0
    for name in ("mass_entropy", "channel_entropy", "spatial_entropy", "high_frequency_ratio"):
        assert STATISTICS[name](with_dead).isnan().tolist() == [False, True], name
    assert zero_fraction(with_dead)[1] == 1
    assert mean_activation(with_dead)[1] == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [*STATISTICS, "histogram_entropy"])
def test_what_is_not_finite_is_nan_and_stays_in_its_frame(name, bad):
    activations = drawn(3, 4, 5, 5)
    activations[1, 2, 3, 3] = bad
    found = tap_statistics("a.b", activations, [0.5, 1.0])[f"a.b:{name}"]
    assert np.isnan(found).tolist() == [False, True, False]


# Gradients: the adaptive attack needs them


@pytest.mark.parametrize("name", sorted(set(STATISTICS) - {"zero_fraction"}))
@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 2, 3, 3, 3)])
def test_gradients_are_right(name, shape):
    activations = drawn(*shape, dtype=torch.float64).requires_grad_(True)
    assert torch.autograd.gradcheck(STATISTICS[name], activations)


@pytest.mark.parametrize("name", sorted(set(STATISTICS) - {"zero_fraction"}))
def test_gradients_are_finite_where_a_relu_left_zeros(name):
    inputs = drawn(2, 3, 4, 4)
    inputs[:, 1] = -1.0  # a dead channel
    inputs.requires_grad_(True)
    STATISTICS[name](inputs.relu()).sum().backward()
    assert torch.isfinite(inputs.grad).all()
    assert (inputs.grad != 0).any()


def test_counting_statistics_have_no_gradient():
    activations = drawn(2, 3, 4, 4).requires_grad_(True)
    assert not zero_fraction(activations).requires_grad
    assert not histogram_entropy(activations, [0.5]).requires_grad


# Edges and taps


def test_edges_reach_to_the_quantile_of_the_positive_activations():
    batches = [drawn(40, 8, 6, 6, seed=k) for k in range(3)]
    edges = fit_edges(batches, bins=30)
    positive = torch.cat([b.flatten() for b in batches])
    assert edges.shape == (30,)
    assert edges[0] > 0
    assert edges[-1].item() == pytest.approx(float(np.quantile(positive[positive > 0].numpy(), 0.999)), rel=1e-6)
    torch.testing.assert_close(edges.diff(), torch.full((29,), edges[0].item(), dtype=torch.float64))


def test_edges_of_large_maps_come_from_a_part_spread_over_the_map():
    large = drawn(3, 16, 64, 64)
    large[:, :, :, ::2] *= 5.0  # every second column is brighter; a stride would see one kind only
    whole = float(np.quantile(large[large > 0].numpy(), 0.999))
    assert fit_edges([large])[-1].item() == pytest.approx(whole, rel=0.1)


@pytest.mark.parametrize("batches", [[], [-torch.ones(2, 3, 4, 4)], [torch.full((2, 3), torch.nan)]])
def test_edges_need_a_positive_activation(batches):
    with pytest.raises(CalibrationError, match="no calibration activation is positive"):
        fit_edges(batches)


def test_impossible_arguments_are_refused():
    with pytest.raises(UsageError, match="at least 2"):
        fit_edges([drawn(2, 3)], bins=1)
    for edges in ([], [1.0, 1.0], [2.0, 1.0], [math.nan], [[1.0]]):
        with pytest.raises(UsageError, match="strictly ascending"):
            histogram_entropy(drawn(2, 3), edges)
    for activations in (torch.zeros(4), torch.zeros((2, 3), dtype=torch.int64), torch.zeros(2, 0)):
        with pytest.raises(UsageError, match="activations: expected float"):
            mass_entropy(activations)
    with pytest.raises(UsageError, match="N, C, h, w"):
        spatial_entropy(drawn(2, 3))


def test_a_tap_gets_every_statistic_that_its_shape_allows():
    found = tap_statistics("blocks.0", drawn(3, 4, 5, 5), [0.5])
    assert set(found) == {f"blocks.0:{name}" for name in [*STATISTICS, "histogram_entropy"]}
    assert all(values.dtype == np.float64 and values.shape == (3,) for values in found.values())
    assert set(tap_statistics("fc", drawn(3, 4))) == {f"fc:{name}" for name in FREE_OF_BINS}


def test_a_tap_that_was_not_recorded_is_named():
    frames = Observations("set", np.zeros((2, 3)), np.zeros(2, int), np.zeros((2, 0)), {"a:mean": np.zeros(2)})
    with pytest.raises(UsageError, match="tap 'b:mean' was not recorded; found a:mean"):
        tap_score("b:mean").fit(frames)
