"""What a results record says: which scores matter, what to call things, and what has to be said beside a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framegate.evaluation.attacks.radius import epsilon_text
from framegate.evaluation.metrics.selective import GATE_COVERAGE
from framegate.evaluation.report.values import (
    Estimate,
    estimate,
    follow,
    number,
    records,
    text,
)

ENTROPY = "entropy"
CONTROL_FAMILY = "input"  # computed from the pixels alone: a score that uses the network must beat these
PURPOSES = (
    ("overall", "overall"),
    ("failure", "own errors"),
    ("corruption", "corrupted frames"),
    ("ood", "frames of other things"),
    ("attack", "attacks that do not adapt"),
)
_HEADLINE = "pgd-20-8/255"

PROMISE = (
    "A calibrated threshold keeps its promise for frames like the calibration frames (exchangeable with them). It "
    "promises nothing under attack, nor for scenes that the calibration frames do not represent."
)
BESIDE = (
    "Every figure for detecting an attack is for an attack that does not know of the score. The adaptive attack, which "
    "attacks the classifier and the score together, stands beside it; where none was run, the figure is only an upper "
    "limit."
)
PUBLISHED_ONLY = (
    "Per-batch figures are here only to reproduce the published protocol, in which every frame of an attacked batch is "
    "attacked and whole batches are kept or dropped. A camera delivers single frames."
)


def is_control(score: Mapping[str, Any]) -> bool:
    """Whether a score needs no network at all."""
    return text(score, "family") == CONTROL_FAMILY


def score_named(results: object, name: str) -> Mapping[str, Any]:
    """The record of one score, empty if there is none."""
    return next((score for score in records(results, "scores") if text(score, "name") == name), {})


def by_failure(results: object) -> list[Mapping[str, Any]]:
    """All scores, the best at finding the classifier's errors first, those not measured last."""
    return sorted(records(results, "scores"), key=lambda score: -(number(score, "failure", "auroc", "value") or 0.0))


def notable(results: object, limit: int = 6) -> list[str]:
    """Names of the scores worth a curve: entropy, the best ones, the best control, then the next best."""
    ranked = by_failure(results)
    names = [ENTROPY, text(results, "best", "overall"), text(results, "best", "failure")]
    names += [text(score, "name") for score in ranked if is_control(score)][:1]
    names += [text(results, "best", purpose) for purpose, _ in PURPOSES]
    names += [text(score, "name") for score in ranked]
    known = {text(score, "name") for score in ranked}
    return [name for name in dict.fromkeys(names) if name in known][:limit]


def shown(results: object, most: int = 16) -> list[Mapping[str, Any]]:
    """The scores worth a row on the page: the best ``most``, and all that the report mentions; best first."""
    ranked = by_failure(results)
    mentioned = {ENTROPY, *(text(results, "best", purpose) for purpose, _ in PURPOSES), *adaptive_by_score(results)}
    plain_controls = {
        text(score, "name") for score in ranked if is_control(score) and score.get("two_sided") is not True
    }
    wanted = mentioned | plain_controls
    return [score for place, score in enumerate(ranked) if place < most or text(score, "name") in wanted]


def adaptive_by_score(results: object) -> dict[str, Mapping[str, Any]]:
    """Score -> its row of the adaptive attack; a rule called ``X (two-sided)`` stands for the score two_sided(X)."""
    found = {}
    for row in records(results, "adaptive"):
        name = text(row, "score")
        signal = name.removesuffix(" (two-sided)")
        found[f"two_sided({signal})" if signal != name and " and " not in signal else name] = row
    return found


def attack_name(attack: Mapping[str, Any]) -> str:
    """The name of an attack for people: ``PGD-20 8/255``, ``PGD-100x5 8/255`` with five restarts."""
    name, steps = text(attack, "name") or text(attack, "key") or "attack", number(attack, "steps")
    if steps is not None and steps > 1 and f"{steps:g}" not in name:
        name += f"-{steps:g}"
    restarts = number(attack, "restarts")
    if restarts is not None and restarts > 1:
        name += f"x{restarts:g}"
    epsilon = number(attack, "epsilon")
    return name if epsilon is None else f"{name} {epsilon_text(epsilon)}"


def name_of(results: object, key: str) -> str:
    """The name of the attack with this key; the key itself where the record has no such attack or shares the name."""
    names = {text(attack, "key"): attack_name(attack) for attack in records(results, "attacks")}
    name = names.get(key, key)
    return name if list(names.values()).count(name) < 2 else key


def headline_attack(results: object) -> Mapping[str, Any]:
    """The record's main attack, else PGD-20 at 8/255, else the white box that leaves least right; empty if none."""
    attacks = [attack for attack in records(results, "attacks") if estimate(attack, "accuracy") is not None]
    for key in (text(results, "main_attack"), _HEADLINE):
        for attack in attacks:
            if key and text(attack, "key") == key:
                return attack
    white = [attack for attack in attacks if text(attack, "kind") == "white box"]
    return min(white, key=lambda attack: number(attack, "accuracy", "value") or 0.0, default={})


def wrong_frames(attack: Mapping[str, Any]) -> tuple[int, int] | None:
    """(wrong and accepted, wrong) frames of an attack; ``accepted_wrong`` is a share of all frames under attack."""
    accuracy, accepted = estimate(attack, "accuracy"), estimate(attack, "accepted_wrong")
    frames = number(attack, "n") or (accuracy.n if accuracy else None)
    if accuracy is None or accepted is None or not frames:
        return None
    wrong = round((1 - accuracy.value) * frames)
    return (min(round(accepted.value * frames), wrong), wrong) if wrong else None


def accepted_of_wrong(attack: Mapping[str, Any]) -> Estimate | None:
    """Share of the wrong frames under an attack that are accepted: as recorded, else from the two shares of all."""
    recorded, wrong = estimate(attack, "errors_accepted"), wrong_frames(attack)
    if recorded is not None or wrong is None:
        return recorded
    return Estimate(wrong[0] / wrong[1], n=wrong[1])


def target_row(score: object, target: float = GATE_COVERAGE) -> Mapping[str, Any]:
    """What a score's calibrated threshold for one target coverage does on the test frames; empty if not measured."""
    for row in records(score, "selective"):
        found = number(row, "target_coverage")
        if found is not None and abs(found - target) < 1e-6:
            return row
    return {}


def failed_checks(results: object) -> list[Mapping[str, Any]]:
    """The attack's own health checks that did not pass; a check without an outcome counts as failed."""
    return [check for check in records(results, "health") if follow(check, "passed") is not True]
