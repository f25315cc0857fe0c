"""Which score is called the best, on figures made up for the purpose."""

from __future__ import annotations

import numpy as np
import pytest

from framegate.evaluation.report.score_choice import (
    advise,
    beats_a_coin,
    choose_best,
    compared,
    let_through,
    of_the_best,
)
from framegate.evaluation.report.summary import summary
from framegate.evaluation.report.values import Estimate


def sure(value, half=0.01):
    """A figure with a narrow interval."""
    return {"value": value, "low": value - half, "high": value + half, "n": 5000}


def row(
    name,
    augrc=0.03,
    clean=0.05,
    corrupted=0.1,
    foreign=(0.5, 0.3),
    auroc=(0.8, 0.9),
    attacked=0.7,
    coverage=0.95,
    own=0.9,
    half=0.01,
):
    return {
        "name": name,
        "family": "output",
        "failure": {"augrc": {"value": augrc}, "auroc": sure(own, half)},
        "selective": [
            {"target_coverage": 0.9, "false_accept_rate": {"value": 0.99}},
            {"target_coverage": 0.95, "false_accept_rate": sure(clean), "coverage": {"value": coverage}},
        ],
        "corruptions": {"far": sure(corrupted)},
        "ood": {
            str(k): {"auroc": sure(a), "accepted": sure(f)} for k, (a, f) in enumerate(zip(auroc, foreign, strict=True))
        },
        "attacks": {"pgd": {"auroc": sure(attacked)}},
    }


def test_what_is_let_through_without_a_warning():
    assert let_through(row("a")).value == pytest.approx((0.05 + 0.1 + 0.4) / 3)
    without = row("a")
    without["ood"] = {}
    found = let_through(without)
    assert found.value == pytest.approx((0.05 + 0.1) / 2)
    assert found.high - found.value == pytest.approx(0.01 / 2**0.5)  # the mean of two figures is known better than each
    assert let_through({"selective": [], "ood": {}}) is None


def test_made_up_noise_does_not_count():
    noisy = row("a")
    noisy["ood"] = {
        name: {"auroc": sure(0.5), "accepted": sure(accepted)}
        for name, accepted in (("signs", 0.8), ("noise-a", 0.0), ("noise-b", 0.2), ("noise-c", 0.1))
    }
    assert let_through(noisy).value == pytest.approx((0.05 + 0.1 + 0.8) / 3)
    noisy["ood"] = {"noise-a": noisy["ood"]["noise-a"]}
    assert let_through(noisy).value == pytest.approx((0.05 + 0.1) / 2)
    assert choose_best([noisy], "pgd")["ood"] is None


def test_no_score_without_the_network_is_chosen_and_none_that_does_not_beat_a_coin():
    """What a report on SimpleCNN recommended: AUROC 0.338 at the network's own errors, and a control."""
    rows = [
        row("entropy", own=0.85),
        row("two_sided(stem.0:high_frequency_ratio)", own=0.338, clean=0.0, corrupted=0.0, foreign=(0.0, 0.0), augrc=0),
        row("barely", own=0.52, half=0.03, clean=0.0, corrupted=0.0, foreign=(0.0, 0.0), augrc=0),
        {**row("control", own=0.9, clean=0.0, corrupted=0.0, foreign=(0.0, 0.0), augrc=0), "family": "input"},
    ]
    best = choose_best(rows, "pgd")
    assert (best["overall"], best["failure"], best["corruption"]) == ("entropy", "entropy", "entropy")
    assert advise(results(rows)).answer == "keep"
    assert not beats_a_coin(Estimate(0.9))  # without an interval nothing is proved


def results(rows, errors=200):
    return {"clean": {"accuracy": {"value": 1 - errors / 1000, "n": 1000}}, "scores": rows}


def test_entropy_stays_unless_another_score_deserves_its_place():
    entropy = row("entropy")
    assert advise(results([entropy, row("energy", foreign=(0.49, 0.29))])).answer == "keep"  # not clearly less
    much = advise(results([entropy, row("energy", foreign=(0.1, 0.1))]))
    assert (much.answer, much.score) == ("switch", "energy")
    worse = row("energy", foreign=(0.1, 0.1), own=0.8)  # catches foreign frames, misses the network's errors
    assert advise(results([entropy, worse])).answer == "keep"
    other = advise(results([entropy, row("knn", foreign=(0.1, 0.1))]))  # the runtime cannot threshold it
    assert (other.answer, other.score, other.promising) == ("keep", "entropy", "knn")


def test_the_others_are_compared_with_the_score_that_the_bundle_gates_on():
    """A bundle that gates on max_probability was told to keep entropy."""
    rows = [row("entropy", foreign=(0.7, 0.7)), row("max_probability"), row("energy", foreign=(0.1, 0.1))]
    bundle = {"score": "max_probability"}
    kept = results(rows[:2]) | {"bundle": bundle}
    assert (advise(kept).answer, advise(kept).score, advise(kept).present) == ("keep", *["max_probability"] * 2)
    assert summary(kept)[0].startswith(
        "What to do: keep gating on largest probability [max_probability], the bundle's own score."
    )
    switch = summary(results(rows) | {"bundle": bundle})[0]
    assert "calibrate with energy of the logits [energy] in place of largest probability [max_prob" in switch
    assert "through without a warning; largest probability [max_probability] 1" in switch
    other = results(rows[:1]) | {"bundle": {"score": "attacked"}}  # a signal of the bundle's monitor
    assert summary(other)[0].startswith(
        "What to do: keep gating on entropy (the bundle's own score, attacked, was not measured here)."
    )
    assert summary(results(rows[:1]))[0].startswith("What to do: keep gating on entropy. Of")  # an old record


def test_where_nothing_can_be_said_the_answer_is_to_collect_more():
    assert advise({}) is None
    assert advise(results([row("entropy")], errors=9)).answer == "collect"
    assert advise(results([row("entropy", own=0.55, half=0.2)])).answer == "collect"
    assert advise(results([row("entropy", own=0.4, half=0.05)])).answer == "none"
    unmeasured = row("entropy")
    unmeasured["failure"] = {}
    assert advise(results([unmeasured])).answer == "collect"


def test_every_purpose_has_its_own_best():
    rows = [
        row("plain"),
        row("errors", augrc=0.01),
        row("corrupted", corrupted=0.05, foreign=(0.9, 0.9)),
        row("foreign", auroc=(0.99, 0.99)),
        row("attacked", attacked=0.99, clean=0.2),
        row("gate", foreign=(0.1, 0.1), auroc=(0.7, 0.9)),
    ]
    best = choose_best(rows, "pgd")
    assert {k: best[k] for k in ("failure", "corruption", "ood", "attack", "overall")} == {
        "failure": "errors",
        "corruption": "corrupted",
        "ood": "foreign",
        "attack": "attacked",
        "overall": "gate",
    }


def test_a_score_that_loses_its_coverage_is_no_gate():
    rows = [row("plain"), row("rejects a lot", clean=0.0, corrupted=0.0, foreign=(0.0, 0.0), coverage=0.86)]
    best = choose_best(rows, "pgd")
    assert (best["overall"], best["corruption"]) == ("plain", "plain")
    rows[1] = row("rejects a lot", clean=0.0, corrupted=0.0, foreign=(0.0, 0.0), coverage=0.94)
    assert choose_best(rows, "pgd")["overall"] == "rejects a lot"


def test_what_was_not_measured_has_no_best():
    rows = [{"name": "a", "failure": {"augrc": {"value": None}}, "selective": [], "ood": {}, "attacks": {}}]
    best = choose_best(rows, "pgd")
    assert {best[k] for k in ("failure", "corruption", "ood", "attack", "overall")} == {None}


def test_the_interval_of_the_best_of_many_holds_although_it_was_chosen_on_the_same_frames():
    """Forty scores that are equally good: the best of them looks better than it is."""
    rng = np.random.default_rng(1)
    nominal = corrected = 0
    for _ in range(400):
        best = float(rng.normal(0.8, 0.01, 40).max())
        plain = Estimate(best, best - 1.96 * 0.01, best + 1.96 * 0.01, 1000)
        wide = of_the_best(plain, 40)
        nominal += plain.low <= 0.8 <= plain.high
        corrected += wide.low <= 0.8 <= wide.high
    assert nominal < 0.6 * 400
    assert corrected >= 0.95 * 400
    assert of_the_best(plain, 1) == plain
    assert of_the_best(None, 40) is None
    assert of_the_best(Estimate(0.99, 0.9, 1.0), 40).high == 1.0


def test_only_scores_that_may_be_chosen_count():
    rows = [row("a"), row("b", coverage=0.5), {"name": "c", "failure": {}, "selective": [], "ood": {}, "attacks": {}}]
    assert [compared(rows, purpose, "pgd") for purpose in ("failure", "attack", "corruption")] == [2, 2, 1]
