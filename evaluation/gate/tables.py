"""Tables over the gate records of several bundles (`framegate gate`): what passes, and whether the promise holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from framegate.evaluation.gate.names import MAIN_ATTACKS, RULES
from framegate.evaluation.report.table import Row, Table
from framegate.evaluation.report.values import (
    NOT_MEASURED,
    Cell,
    count,
    decimal,
    estimate,
    follow,
    mapping,
    number,
    percent,
    share,
    text,
)
from framegate.runtime.monitor import SHIFT

Record = Mapping[str, Any]


def gate(found: Sequence[Record]) -> Table:
    """What each rule lets through, the attack that aims at it beside it."""
    rows = [
        Row(
            (
                text(record, "bundle"),
                words,
                percent(estimate(record, "clean", rule, "coverage")),
                percent(estimate(record, "clean", rule, "selective_risk")),
                *(_false_accepts(record, attack, rule) for attack in MAIN_ATTACKS),
                percent(estimate(record, "adaptive", rule, "false_accepts")),
            ),
            "best" if rule == "gate" else "",
        )
        for record in found
        for rule, words in RULES.items()
    ]
    return Table(
        "What the gate lets through, frame by frame",
        (
            "bundle",
            "rule",
            "clean frames accepted",
            "errors among them",
            *(f"{attack}: wrong and accepted" for attack in MAIN_ATTACKS),
            "attack that aims at the rule",
        ),
        rows,
        "Entropy alone and the whole gate (score, low energy, monitor) are set to accept 95 % of the calibration "
        "frames; as calibrated: with the threshold that keeps the bundle's promise. Wrong and accepted: of the frames "
        "that the attack made wrong. Last column: the adaptive attack, which aims at network and rule together, of all "
        "attacked frames. Network in float32.",
    )


def gate_attacks(found: Sequence[Record]) -> Table:
    """Attacks that the monitor was fitted on, and those that it was not."""
    rows = []
    for record in found:
        for attack in mapping(record, "attacks"):
            fitted = attack.startswith(("FGSM", "PGD-20 ")) and "margin" not in attack
            rows.append(
                Row(
                    (
                        text(record, "bundle"),
                        attack,
                        "family" if fitted else "no",
                        Cell(count(number(record, "attacks", attack, "wrong"))),
                        _false_accepts(record, attack, "entropy"),
                        _false_accepts(record, attack, "gate"),
                    )
                )
            )
    return Table(
        "Wrong and accepted under attack, at 95 % clean coverage",
        ("bundle", "attack", "fitted on it", "wrong frames", RULES["entropy"], RULES["gate"]),
        rows,
        "Fitted on its family: FGSM at 2, 4, 8/255 and PGD-10 at 4, 8/255, on training images.",
        folded=True,
    )


def gate_foreign(found: Sequence[Record]) -> Table:
    """Frames of other things, and damaged ones."""
    rows = []
    for record in found:
        for name, each in mapping(record, "foreign").items():
            entropy = estimate(each, "auroc", "entropy") or estimate(each, "auroc", "two_sided(entropy)")
            rows.append(
                Row(
                    (
                        text(record, "bundle"),
                        name,
                        Cell(count(number(each, "n"))),
                        *(percent(estimate(each, rule, "coverage")) for rule in RULES),
                        decimal(entropy),
                        decimal(estimate(each, "auroc", SHIFT)),
                    )
                )
            )
        corrupted = mapping(record, "corruptions", "all")
        if corrupted:
            rows.append(
                Row(
                    (
                        text(record, "bundle"),
                        "all corruptions, wrong and accepted",
                        Cell(count(number(corrupted, "n"))),
                        *(_share_of_all(corrupted, rule) for rule in RULES),
                        Cell(NOT_MEASURED),
                        Cell(NOT_MEASURED),
                    )
                )
            )
    return Table(
        "Frames of other things that are accepted",
        (
            "bundle",
            "frames",
            "n",
            RULES["entropy"],
            RULES["gate"],
            "as calibrated",
            "AUROC entropy, two-sided",
            "AUROC monitor",
        ),
        rows,
        "None of these frames shows one of the network's labels, so each accepted one is a false accept.",
        folded=True,
    )


def promise(found: Sequence[Record]) -> Table:
    """Many calibrations of each bundle."""
    rows = []
    for record in found:
        for method, each in mapping(record, "promise").items():
            frames = number(each, "frames")
            rows.append(
                Row(
                    (
                        text(record, "bundle"),
                        text(each, "key"),
                        method,
                        NOT_MEASURED if frames is None else _split(record, each, frames),
                        share(number(each, "target_risk"), 0),
                        Cell(count(number(each, "trials"))),
                        percent(estimate(each, "broken")),
                        share(number(each, "allowed"), 0),
                        Cell(count(number(each, "refused"))),
                        share(number(each, "mean_coverage")),
                        share(number(each, "mean_risk"), 2),
                    ),
                    "pass" if follow(each, "kept") is True else "fail",
                )
            )
    return Table(
        "Is the promise kept? Many calibrations on frames drawn from a known population",
        (
            "bundle",
            "engine",
            "method",
            "calibration split",
            "target risk",
            "calibrations",
            "promise broken",
            "allowed",
            "refused",
            "mean coverage",
            "mean true risk",
        ),
        rows,
        "Population: the bundle's calibration and test frames together (for tracks, the calibration tracks).",
    )


def _split(record: Record, each: Record, frames: float) -> str:
    """How large the calibration splits were, and what was drawn; how much is in an old row's neighbour."""
    units = text(each, "units")
    if units == "frames":
        return f"{count(frames)} frames"
    alike = [other for other in mapping(record, "promise").values() if _population(other) == _population(each)]
    known = next((found for row in (each, *alike) if (found := number(row, "population_units")) is not None), None)
    drawn = units if known is None else f"{count(known)} {units}"
    return f"{count(frames)} frames of {drawn}"


def _population(each: Record) -> tuple[float | None, str]:
    """What was drawn from: how many frames, and in which units."""
    return number(each, "population"), text(each, "units")


def _false_accepts(record: Record, attack: str, rule: str) -> Cell:
    return percent(estimate(record, "attacks", attack, rule, "false_accept_rate"))


def _share_of_all(each: Record, rule: str) -> Cell:
    accepted, total = number(each, rule, "false_accepts"), number(each, "n")
    return share(None if accepted is None or not total else accepted / total)
