"""The reference is checked against torch, mpmath at 50 digits, and what must always hold."""

import dataclasses
import warnings

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from framegate.cuda_kernels.softmax_entropy.reference import SoftmaxScores, entropy, softmax, softmax_scores

pytestmark = pytest.mark.filterwarnings("error")  # a RuntimeWarning in any test below is a failure

INF, NAN = np.inf, np.nan
FLOAT_SCORES = ("max_probability", "entropy", "margin", "energy")

# Unequal pairs such as 0 and 1e-300 are in here on purpose; 700 apart is where exp(d) leaves the normal numbers.
LOGITS = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.floats(-800.0, 800.0),
)
TEMPERATURES = st.floats(0.05, 50.0)

# (N, C): each shape says why it is here.
SHAPES = {
    "one camera frame of a ten-class model": (1, 10),
    "two classes, the least that has a rival": (4, 2),
    "more classes than one SIMD register, and an odd number": (3, 37),
    "ImageNet head, long enough for pairwise summation": (2, 1000),
    "many rows, few classes: NumPy may loop the other way round": (257, 3),
}
SHAPED = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())

# Rows on which formulas in common use lose digits or give NaN.
HARD_ROWS = {
    "all equal": [3.0, 3.0, 3.0],
    "peak of 100: naive p log p meets p = 0 in fp32": [100.0, 0.0, 0.0, 0.0],
    "peak of 200, seen as NaN in a published library": [200.0, 0.0, 0.0],
    "large offset: an unshifted first moment cancels": [1e4, 1e4 + 0.25, 1e4 - 1.5],
    "all far below zero: exp without a shift gives Z = 0": [-5000.0, -5001.0, -5002.5],
    "runner-up within 1e-9: 1 - exp(d2) cancels": [1.0, 1.0 - 1e-9, 0.0],
    "subnormal probabilities": [0.0, -740.0, -744.0],
    "probabilities below float64": [0.0, -750.0, -1e5],
}


def random_logits(shape, scale=5.0):
    return np.random.default_rng(20).normal(size=shape) * scale


def exact_scores(row, temperature):
    """Return probabilities, entropy, margin and energy from the definitions, at 50 digits, with no shift at all."""
    with mpmath.workdps(50):
        t = mpmath.mpf(float(temperature))
        weights = [mpmath.exp(mpmath.mpf(float(value)) / t) for value in row]
        total = mpmath.fsum(weights)
        p = [w / total for w in weights]
        # A naive -sum p log p at 50 digits has ample reserve; p is never 0 because mpmath's exponents don't run out.
        h = -mpmath.fsum(q * mpmath.log(q) for q in p)
        first, second = sorted(p, reverse=True)[:2]
        return np.array([float(q) for q in p]), float(h), float(first - second), float(-t * mpmath.log(total))


def assert_matches_exact(row, temperature):
    scores = softmax_scores([row], temperature)
    p, h, margin, energy = exact_scores(row, temperature)
    np.testing.assert_allclose(scores.probabilities[0], p, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(scores.max_probability[0], p.max(), rtol=1e-13)
    np.testing.assert_allclose(scores.entropy[0], h, rtol=0, atol=1e-12)
    # Relative: a margin that cancelled would still be within 1e-12 absolute.
    np.testing.assert_allclose(scores.margin[0], margin, rtol=1e-12)
    np.testing.assert_allclose(scores.energy[0], energy, rtol=1e-13, atol=1e-13)


def assert_no_score_can_pass(scores, row):
    """Deny side first: nothing in this row may pass a comparison with any threshold."""
    assert not scores.finite[row]
    assert scores.argmax[row] == -1
    assert np.isnan(scores.probabilities[row]).all()
    for name in FLOAT_SCORES:
        score = getattr(scores, name)[row]
        assert np.isnan(score), name
        assert not score <= INF, name


# Against other people's numbers.


@SHAPED
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.7])
def test_agrees_with_torch_special_entr_and_softmax(shape, temperature):
    torch = pytest.importorskip("torch")
    x = random_logits(shape)
    scores = softmax_scores(x, temperature)
    scaled = torch.from_numpy(x) / temperature
    p = torch.softmax(scaled, dim=1)
    top2 = p.topk(2, dim=1).values
    np.testing.assert_allclose(scores.probabilities, p.numpy(), rtol=1e-12, atol=0)
    np.testing.assert_allclose(scores.entropy, torch.special.entr(p).sum(dim=1).numpy(), rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores.margin, (top2[:, 0] - top2[:, 1]).numpy(), rtol=0, atol=1e-14)
    np.testing.assert_allclose(scores.energy, (-temperature * torch.logsumexp(scaled, dim=1)).numpy(), rtol=1e-13)
    np.testing.assert_array_equal(scores.argmax, p.argmax(dim=1).numpy())


@pytest.mark.parametrize("row", HARD_ROWS.values(), ids=HARD_ROWS.keys())
@pytest.mark.parametrize("temperature", [1.0, 0.3, 7.0])
def test_hard_rows_agree_with_mpmath(row, temperature):
    assert_matches_exact(row, temperature)


@settings(max_examples=60, deadline=None)
@given(row=st.lists(st.floats(-800.0, 800.0, allow_subnormal=False), min_size=2, max_size=30), temperature=TEMPERATURES)
def test_drawn_rows_agree_with_mpmath(row, temperature):
    scores = softmax_scores([row], temperature)
    p, h, margin, energy = exact_scores(row, temperature)
    # d carries one rounding of (x - m) / T, so p carries |d| of them: 1e-16 times 32,000 at the most.
    np.testing.assert_allclose(scores.probabilities[0], p, rtol=1e-11, atol=1e-300)
    np.testing.assert_allclose(scores.entropy[0], h, rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores.margin[0], margin, rtol=0, atol=1e-14)
    np.testing.assert_allclose(scores.energy[0], energy, rtol=1e-13, atol=1e-11)


def test_thousand_class_row_agrees_with_mpmath():
    # The longest sum in use: this is where an accumulated rounding error would show.
    assert_matches_exact(random_logits((1, 1000))[0], 1.0)


def test_entropy_of_two_even_classes_is_log_two_and_energy_follows_liu():
    scores = softmax_scores([[2.0, 2.0]], temperature=0.5)
    assert scores.entropy[0] == pytest.approx(0.6931471805599453, abs=1e-15)
    assert scores.energy[0] == pytest.approx(-(2.0 + 0.5 * 0.6931471805599453), abs=1e-15)


# What must hold for every row.


@settings(max_examples=100, deadline=None)
@given(x=LOGITS, temperature=TEMPERATURES)
def test_every_score_stays_in_its_range(x, temperature):
    scores = softmax_scores(x, temperature)
    classes = x.shape[1]
    assert scores.finite.all()
    assert ((scores.probabilities >= 0.0) & (scores.probabilities <= 1.0)).all()
    np.testing.assert_allclose(scores.probabilities.sum(axis=1), 1.0, rtol=0, atol=1e-14)
    assert ((scores.entropy >= 0.0) & (scores.entropy <= np.log(classes))).all()
    assert ((scores.margin >= 0.0) & (scores.margin <= 1.0)).all()
    assert ((scores.max_probability >= 1.0 / classes) & (scores.max_probability <= 1.0)).all()
    np.testing.assert_array_equal(scores.max_probability, scores.probabilities.max(axis=1))
    np.testing.assert_array_equal(scores.argmax, x.argmax(axis=1))
    assert np.isfinite(scores.energy).all()


def test_entropy_of_nearly_equal_logits_never_exceeds_log_c():
    # The upper bound itself; unclamped, hundreds of these land one or two ulp beyond the promised range.
    for classes in range(2, 40):
        for exponent in range(20, 54):
            x = np.zeros((1, classes))
            x[0, 0] = 2.0**-exponent
            h = entropy(x)[0]
            assert h <= np.log(classes), (classes, exponent)
            assert h == pytest.approx(np.log(classes), abs=1e-12), (classes, exponent)


@settings(max_examples=100, deadline=None)
@given(x=LOGITS, shift=st.floats(-1000.0, 1000.0), temperature=TEMPERATURES)
def test_shift_moves_only_the_energy(x, shift, temperature):
    # On a grid of 1/8 the shift adds no rounding of its own, so the scores must be the same to the last bit.
    x, shift = np.round(x * 8) / 8, np.round(shift * 8) / 8
    plain, shifted = softmax_scores(x, temperature), softmax_scores(x + shift, temperature)
    for name in ("probabilities", "argmax", "max_probability", "entropy", "margin"):
        np.testing.assert_array_equal(getattr(shifted, name), getattr(plain, name), err_msg=name)
    np.testing.assert_allclose(shifted.energy, plain.energy - shift, rtol=0, atol=1e-11)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), x=LOGITS)
def test_permuting_classes_permutes_probabilities_and_nothing_else(data, x):
    order = data.draw(st.permutations(range(x.shape[1])))
    plain, permuted = softmax_scores(x), softmax_scores(x[:, order])
    np.testing.assert_allclose(permuted.probabilities, plain.probabilities[:, order], rtol=1e-14)
    for name in FLOAT_SCORES:
        np.testing.assert_allclose(getattr(permuted, name), getattr(plain, name), rtol=1e-13, atol=1e-14, err_msg=name)


@SHAPED
def test_temperature_to_infinity_gives_log_c(shape):
    h = entropy(random_logits(shape), temperature=1e9)
    np.testing.assert_allclose(h, np.log(shape[1]), rtol=0, atol=1e-12)


@SHAPED
def test_temperature_to_zero_gives_certainty(shape):
    x = random_logits(shape)
    scores = softmax_scores(x, temperature=1e-9)
    np.testing.assert_array_equal(scores.entropy, 0.0)
    np.testing.assert_array_equal(scores.margin, 1.0)
    np.testing.assert_allclose(scores.energy, -x.max(axis=1), rtol=1e-15)


def test_higher_temperature_means_higher_entropy():
    h = [entropy([[3.0, 1.0, 0.0]], temperature)[0] for temperature in (0.25, 0.5, 1.0, 2.0, 4.0)]
    assert (np.diff(h) > 0.01).all()


@SHAPED
def test_a_row_alone_scores_as_in_its_batch_to_the_last_bit(shape):
    # Calibration runs in batches, the vehicle frame by frame; a threshold must mean the same in both.
    x = random_logits(shape)
    batch = softmax_scores(x)
    for row in range(shape[0]):
        alone = softmax_scores(x[row : row + 1])
        for field in dataclasses.fields(SoftmaxScores):
            np.testing.assert_array_equal(getattr(alone, field.name)[0], getattr(batch, field.name)[row])


def test_memory_layout_does_not_move_the_last_bit():
    # 64 rows of 1000: a column-major array summed as it lies differs in most of them.
    x = random_logits((64, 1000))
    for layout in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
        for name in ("probabilities", *FLOAT_SCORES):
            np.testing.assert_array_equal(getattr(softmax_scores(layout), name), getattr(softmax_scores(x), name))


# Ties, masks and lone classes.


def test_tie_goes_to_the_lowest_index_with_margin_zero():
    scores = softmax_scores([[0.0, 5.0, 5.0], [7.0, 7.0, 7.0]])
    assert scores.argmax.tolist() == [1, 0]
    assert scores.margin.tolist() == [0.0, 0.0]
    assert not np.signbit(scores.margin).any()


def test_logits_one_ulp_apart_are_not_a_tie():
    scores = softmax_scores([[1.0, np.nextafter(1.0, 2.0)]])
    assert scores.argmax[0] == 1
    assert scores.margin[0] == pytest.approx(np.finfo(np.float64).eps / 2, rel=1e-12)


def test_one_class_is_certain():
    scores = softmax_scores([[-3.5], [0.0], [1e308]], temperature=2.0)
    assert scores.probabilities.tolist() == [[1.0], [1.0], [1.0]]
    assert scores.argmax.tolist() == [0, 0, 0]
    assert scores.max_probability.tolist() == [1.0, 1.0, 1.0]
    assert scores.entropy.tolist() == [0.0, 0.0, 0.0]
    assert scores.margin.tolist() == [1.0, 1.0, 1.0]
    assert scores.energy.tolist() == [3.5, 0.0, -1e308]
    assert not np.signbit(scores.energy[1])


def test_minus_infinity_masks_a_class_as_if_it_were_not_there():
    masked = softmax_scores([[-INF, 2.0, -INF, 1.0, -0.5]], temperature=1.5)
    without = softmax_scores([[2.0, 1.0, -0.5]], temperature=1.5)
    assert masked.finite[0]
    assert masked.argmax[0] == 1
    assert masked.probabilities[0, [0, 2]].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(masked.probabilities[0, [1, 3, 4]], without.probabilities[0], rtol=1e-15)
    for name in FLOAT_SCORES:
        np.testing.assert_allclose(getattr(masked, name), getattr(without, name), rtol=1e-14, err_msg=name)


def test_a_lone_unmasked_class_has_no_rival():
    scores = softmax_scores([[-INF, -4.0, -INF]])
    assert scores.finite[0]
    assert scores.probabilities.tolist() == [[0.0, 1.0, 0.0]]
    assert (scores.argmax[0], scores.entropy[0], scores.margin[0], scores.energy[0]) == (1, 0.0, 1.0, 4.0)


# Rows that have no distribution.


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("others", [0.0, -INF, 1e308], ids=["zeros", "masks", "huge"])
def test_nan_or_plus_infinity_anywhere_spoils_the_row(position, bad, others):
    row = np.full(3, others)
    row[position] = bad
    assert_no_score_can_pass(softmax_scores(row[None, :]), 0)


@pytest.mark.parametrize("pair", [[NAN, INF], [INF, INF], [INF, -INF], [NAN, -INF], [-INF, -INF]], ids=str)
def test_pairs_of_special_values_spoil_the_row(pair):
    assert_no_score_can_pass(softmax_scores([pair]), 0)
    assert_no_score_can_pass(softmax_scores([pair[::-1]]), 0)


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_fully_masked_row_is_not_finite(classes):
    assert_no_score_can_pass(softmax_scores(np.full((1, classes), -INF)), 0)


def test_bad_rows_leave_their_neighbours_alone():
    good = random_logits((3, 4))
    x = np.stack([good[0], [NAN, 0, 0, 0], good[1], [0, INF, 0, 0], [-INF] * 4, good[2]])
    scores, alone = softmax_scores(x), softmax_scores(good)
    assert scores.finite.tolist() == [True, False, True, False, False, True]
    for row in (1, 3, 4):
        assert_no_score_can_pass(scores, row)
    for field in dataclasses.fields(SoftmaxScores):
        np.testing.assert_array_equal(getattr(scores, field.name)[[0, 2, 5]], getattr(alone, field.name))


@pytest.mark.parametrize("bits", [np.uint32(0x7FA00000), np.uint64(0x7FF4000000000000)], ids=["float32", "float64"])
def test_signalling_nan_is_flagged_without_a_warning(bits):
    # Bit rot in a buffer makes these; casting one to float64 raises the invalid flag.
    x = np.zeros((1, 9), dtype=bits.dtype)
    x[0, 4] = bits
    assert_no_score_can_pass(softmax_scores(x.view(np.dtype(f"f{bits.itemsize}"))), 0)


# Huge numbers.


@pytest.mark.parametrize("temperature", [1.0, 0.1, 1e-300])
def test_differences_beyond_float64_are_certainty_not_nan(temperature):
    scores = softmax_scores([[1e308, -1e308, 0.0]], temperature)
    assert scores.finite[0]
    assert scores.probabilities.tolist() == [[1.0, 0.0, 0.0]]
    assert (scores.argmax[0], scores.entropy[0], scores.margin[0], scores.energy[0]) == (0, 0.0, 1.0, -1e308)


@pytest.mark.parametrize("huge", [1e308, -1e308])
def test_equal_huge_logits_stay_even_when_temperature_would_overflow_them(huge):
    # huge / 0.1 is infinite: only max first, then / T, gets this right.
    scores = softmax_scores([[huge, huge]], temperature=0.1)
    assert scores.probabilities.tolist() == [[0.5, 0.5]]
    assert scores.entropy[0] == pytest.approx(np.log(2.0), abs=1e-15)
    assert (scores.margin[0], scores.energy[0]) == (0.0, -huge)


@pytest.mark.skipif(np.finfo(np.longdouble).max == np.finfo(np.float64).max, reason="long double is float64 here")
def test_long_double_beyond_float64_is_flagged_without_a_warning():
    assert_no_score_can_pass(softmax_scores(np.array([[np.finfo(np.longdouble).max, 0.0]])), 0)


def test_energy_beyond_float64_is_minus_infinity():
    # So documented: isfinite(score), which the policy asks too, then rejects it.
    scores = softmax_scores([[1.7e308] * 3], temperature=1.7e308)
    assert scores.energy[0] == -INF
    assert scores.entropy[0] == pytest.approx(np.log(3.0), abs=1e-15)


def test_float16_extremes_are_computed_in_float64():
    # 65504 - (-65504) is infinite in float16, and two logits of 65504 gave NaN in every draw of the naive formula.
    x = np.array([[65504, 65504, -65504], [65504, 65472, -65504]], dtype=np.float16)
    scores = softmax_scores(x)
    assert scores.entropy[0] == pytest.approx(np.log(2.0), abs=1e-12)
    assert scores.entropy[1] == pytest.approx(exact_scores([0.0, -32.0], 1.0)[1], abs=1e-15)
    assert scores.energy[0] == pytest.approx(-65504 - np.log(2.0), abs=1e-10)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, np.int8, np.int64])
def test_any_real_type_is_computed_in_float64(dtype):
    x = np.array([[1, -2, 4], [0, 0, 3]], dtype=dtype)
    scores, truth = softmax_scores(x), softmax_scores(x.astype(np.float64))
    for field in dataclasses.fields(SoftmaxScores):
        np.testing.assert_array_equal(getattr(scores, field.name), getattr(truth, field.name))


def test_no_floating_point_flag_escapes_even_if_the_caller_traps_all():
    # An application may run under seterr(all="raise"): underflow, silent by default, must not stop a frame either.
    rows = [*HARD_ROWS.values(), [1e308, -1e308], [NAN, 1.0], [INF, -INF], [-INF, -INF], [-INF, 0.0], [65504.0] * 2]
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        for row in rows:
            for temperature in (1e-308, 0.1, 1.0, 1e308):
                scores = softmax_scores([row], temperature)
                assert np.isfinite(scores.entropy[0]) == scores.finite[0]


# The shape of the answer, and refusals.


@pytest.mark.parametrize(("rows", "classes"), [(0, 5), (0, 1), (1, 1), (3, 7)])
def test_result_has_the_documented_shapes_and_types(rows, classes):
    # (0, C): a pipeline that skipped every frame still asks; it gets empty arrays, not an error.
    scores = softmax_scores(np.zeros((rows, classes), dtype=np.float32))
    assert (scores.probabilities.shape, scores.probabilities.dtype) == ((rows, classes), np.float64)
    assert (scores.argmax.shape, scores.argmax.dtype) == ((rows,), np.int64)
    assert (scores.finite.shape, scores.finite.dtype) == ((rows,), np.bool_)
    for name in FLOAT_SCORES:
        score = getattr(scores, name)
        assert (score.shape, score.dtype) == ((rows,), np.float64), name


def test_input_is_not_modified():
    for x in (random_logits((3, 5)), np.array([[NAN, 1.0], [2.0, -INF]])):
        before = x.copy()
        softmax_scores(x, temperature=2.0)
        np.testing.assert_array_equal(x, before)


def test_read_only_input_is_accepted():
    # Buffers mapped from a device or a file often are.
    x = random_logits((2, 3))
    x.flags.writeable = False
    assert softmax_scores(x).finite.all()


def test_softmax_and_entropy_are_the_same_core():
    x = random_logits((4, 6))
    scores = softmax_scores(x, temperature=2.5)
    np.testing.assert_array_equal(softmax(x, 2.5), scores.probabilities)
    np.testing.assert_array_equal(entropy(x, 2.5), scores.entropy)


def test_scores_are_frozen():
    scores = softmax_scores([[1.0, 2.0]])
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.entropy = np.zeros(1)


@pytest.mark.parametrize("shape", [(), (10,), (1, 10, 1), (0,), (3, 0), (0, 0)], ids=str)
def test_wrong_shape_is_refused_with_asked_and_found(shape):
    with pytest.raises(ValueError, match=r"asked for shape \(N, C\) with C >= 1, found ") as caught:
        softmax_scores(np.zeros(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("function", [softmax_scores, softmax, entropy])
@pytest.mark.parametrize("temperature", [0.0, -0.0, -1.0, NAN, INF, -INF])
def test_bad_temperature_is_refused_with_asked_and_found(function, temperature):
    with pytest.raises(ValueError, match=r"temperature: asked for a finite number > 0, found ") as caught:
        function([[1.0, 2.0]], temperature)
    assert str(temperature) in str(caught.value)
