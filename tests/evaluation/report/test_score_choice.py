"""Which score is called the best, on figures made up for the purpose."""

from __future__ import annotations

import numpy as np
import pytest

from framegate.evaluation.report.score_choice import choose_best, compared, of_the_best, share_let_through
from framegate.evaluation.report.values import Estimate


def row(name, augrc=0.03, clean=0.05, corrupted=0.1, foreign=(0.5, 0.3), auroc=(0.8, 0.9), attacked=0.5, coverage=0.95):
    return {
        "name": name,
        "failure": {"augrc": {"value": augrc}},
        "selective": [
            {"target_coverage": 0.9, "false_accept_rate": {"value": 0.99}},
            {"target_coverage": 0.95, "false_accept_rate": {"value": clean}, "coverage": {"value": coverage}},
        ],
        "corruptions": {"far": {"value": corrupted}},
        "ood": {
            str(k): {"auroc": {"value": a}, "accepted": {"value": f}}
            for k, (a, f) in enumerate(zip(auroc, foreign, strict=True))
        },
        "attacks": {"pgd": {"auroc": {"value": attacked}}},
    }


def test_what_is_let_through_without_a_warning():
    assert share_let_through(row("a")) == pytest.approx((0.05 + 0.1 + 0.4) / 3)
    without = row("a")
    without["ood"] = {}
    assert share_let_through(without) == pytest.approx((0.05 + 0.1) / 2)
    assert share_let_through({"selective": [], "ood": {}}) is None


def test_all_kinds_of_noise_count_as_one_set():
    many = row("a")
    many["ood"] = {
        name: {"auroc": {"value": 0.5}, "accepted": {"value": accepted}}
        for name, accepted in (("signs", 0.8), ("noise-a", 0.0), ("noise-b", 0.2), ("noise-c", 0.1))
    }
    assert share_let_through(many) == pytest.approx((0.05 + 0.1 + (0.8 + 0.1) / 2) / 3)


def test_every_purpose_has_its_own_best():
    rows = [
        row("plain"),
        row("errors", augrc=0.01),
        row("corrupted", corrupted=0.05, foreign=(0.9, 0.9)),
        row("foreign", auroc=(0.99, 0.99)),
        row("attacked", attacked=0.99, clean=0.2),
        row("gate", foreign=(0.1, 0.1)),
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
