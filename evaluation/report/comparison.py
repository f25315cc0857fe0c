"""The research's figures, the same re-measured, and this bundle's, side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from framegate.evaluation.report.findings import (
    ENTROPY,
    accepted_of_wrong,
    attack_name,
    name_of,
    score_named,
    target_row,
)
from framegate.evaluation.report.research_figures import DATA, REMEASURED, RESEARCH, ResearchFigure
from framegate.evaluation.report.table import Row, Table
from framegate.evaluation.report.values import (
    NOT_MEASURED,
    Cell,
    Estimate,
    count,
    decimal,
    estimate,
    number,
    records,
    text,
)

_EPSILON = 0.03  # the research's; 8/255 is the nearest radius that is commonly reported
_SLACK = 0.002
_PER_MILLE = ("failure/aurc", "failure/augrc")


@dataclass(frozen=True)
class ComparisonRow:
    """One quantity: as published, re-measured, and of this bundle.

    Attributes:
        quantity: For people.
        reported: As published, or None.
        remeasured: The research's own network, measured by us, or None.
        ours: This bundle, or None if not measured.
        setting: What exactly ours is, where it differs from the quantity's name.
        note: What was wrong with the published figure.
        source: Where it was published.
    """

    quantity: str
    reported: float | None
    remeasured: Estimate | None
    ours: Estimate | None
    setting: str
    note: str
    source: str


def comparison_rows(results: Mapping[str, Any]) -> list[ComparisonRow]:
    """Put the research's figures beside this record's.

    Args:
        results: A results record.

    Returns:
        One row per figure of the research's network of the same architecture, in its order; none where the research
        has no such network or used other data.
    """
    if text(results, "bundle", "data").lower() != DATA:
        return []
    architecture = re.split(r"[^a-z0-9]+", text(results, "bundle", "architecture").lower().strip())[0]
    return [_row(results, figure) for figure in RESEARCH.get(architecture, ())]


def comparison_table(results: Mapping[str, Any]) -> list[Table]:
    """The comparison as a table of the report."""
    rows = [
        Row(
            (
                row.quantity,
                _digits(row, Estimate(row.reported)) if row.reported is not None else Cell("not published"),
                _digits(row, row.remeasured),
                _digits(row, row.ours),
                row.setting,
                row.note,
            )
        )
        for row in comparison_rows(results)
    ]
    columns = (
        "",
        "published",
        "the research's network, re-measured",
        "this bundle",
        "ours is",
        "what was wrong, or found",
    )
    sources = ", ".join(dict.fromkeys(row.source for row in comparison_rows(results)))
    note = f"Published: {sources}. Re-measured: {REMEASURED}. {NOT_MEASURED}: not measured."
    return [Table("The research beside this bundle", columns, rows, note)] if rows else []


def _digits(row: ComparisonRow, found: Estimate | None) -> Cell:
    return decimal(found, 1 if "x1000" in row.quantity else 4 if row.quantity.startswith(("clean", "accuracy")) else 3)


def _row(results: Mapping[str, Any], figure: ResearchFigure) -> ComparisonRow:
    remeasured = None
    if figure.remeasured is not None:
        remeasured = Estimate(figure.remeasured, figure.low, figure.high, figure.n)
    ours, setting = _ours(results, figure.quantity)
    return ComparisonRow(figure.label, figure.reported, remeasured, ours, setting, figure.wrong, figure.source)


def _ours(results: Mapping[str, Any], quantity: str) -> tuple[Estimate | None, str]:
    kind, _, detail = quantity.partition("/")
    if quantity == "accuracy":
        return _stated(estimate(results, "clean", "accuracy"), "")
    if kind in ("ece", "ece_temperature"):
        return _stated(estimate(results, "clean", kind), "")
    if kind == "selective":
        return _stated(
            estimate(target_row(score_named(results, ENTROPY), float(detail)), "accuracy"), "softmax entropy"
        )
    if kind == "failure":
        found = estimate(score_named(results, ENTROPY), "failure", detail)
        return _stated(_thousandfold(found) if quantity in _PER_MILLE else found, "entropy, calibrated temperature")
    if kind in ("accuracy", "accepted", "auroc"):
        return _attacked(results, kind, detail)
    if kind == "adaptive":
        key = "evaded" if detail == "accepted" else detail
        row = next((row for row in records(results, "adaptive") if text(row, "score") == ENTROPY), {})
        return _stated(estimate(row, key), "adaptive PGD on entropy, which it lowers")
    if kind == "batch_rule":
        row = next((row for row in records(results, "batch_rule") if text(row, "input") == "clean"), {})
        coverage = number(row, "coverage")
        return _stated(estimate(row, "accuracy_accepted"), f"coverage {coverage:.3f}" if coverage is not None else "")
    return _detected(results, detail) if kind == "detection" else (None, "")


def _stated(found: Estimate | None, setting: str) -> tuple[Estimate | None, str]:
    frames = "" if found is None or not found.n else f"{count(found.n)} frames"
    return found, ", ".join(part for part in (setting, frames) if part) if found is not None else ""


def _thousandfold(found: Estimate | None) -> Estimate | None:
    if found is None:
        return None
    ends = [None if end is None else end * 1000 for end in (found.low, found.high)]
    return Estimate(found.value * 1000, ends[0], ends[1], found.n)


def _nearest(results: object, name: str) -> Mapping[str, Any]:
    """The white-box attack of this name whose radius is nearest to the research's, the longest of several."""
    close: list[tuple[float, float, int, Mapping[str, Any]]] = []
    for attack in records(results, "attacks"):
        radius = number(attack, "epsilon")
        same = text(attack, "name").lower().startswith(name) and text(attack, "kind") in ("white box", "")
        if same and radius is not None and abs(radius - _EPSILON) <= _SLACK:
            effort = (number(attack, "steps") or 1) * (number(attack, "restarts") or 1)
            close.append((abs(radius - _EPSILON), -effort, len(close), attack))
    return min(close)[3] if close else {}


def _attacked(results: object, kind: str, name: str) -> tuple[Estimate | None, str]:
    attack = _nearest(results, name)
    setting = attack_name(attack) if attack else ""
    if kind == "accuracy":
        return _stated(estimate(attack, "accuracy"), setting)
    if kind == "auroc":
        return _stated(estimate(score_named(results, ENTROPY), "attacks", text(attack, "key"), "auroc"), setting)
    return _stated(accepted_of_wrong(attack), setting)


def _detected(results: object, unit: str) -> tuple[Estimate | None, str]:
    """The published protocol's detection of FGSM, first layer of the record."""
    wanted = 0.2 if unit == "batch 16" else 8 / 255
    radii = {text(row, "key"): number(row, "epsilon") for row in records(results, "attacks")}
    for row in records(results, "batchwise"):
        key, found = text(row, "attack"), estimate(row, "detection_accuracy")
        radius = radii.get(key)
        if found is None or text(row, "unit") != unit or not key.lower().startswith("fgsm"):
            continue
        if radius is not None and abs(radius - wanted) <= _SLACK:
            decisions = f"{count(number(row, 'decisions'))} decisions"
            return found, f"{text(row, 'layer')}, {name_of(results, key)}, {decisions}"
    return None, ""
