"""Tables over the gate records of several bundles (`framegate gate`), for RESULTS.md and the README."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framegate.evaluation.gate import tables_signals as signals
from framegate.evaluation.gate.tables_signals import SHOWN, auroc_cell, share_cell
from framegate.evaluation.report.table import Row, Table
from framegate.evaluation.report.values import NOT_MEASURED, Cell, estimate, follow, number, percent, text
from framegate.runtime.errors import DataError
from framegate.runtime.monitor import SHIFT

FORMAT = "framegate-gate-1"
Record = Mapping[str, Any]


def load_gate_records(folder: Path) -> list[dict[str, Any]]:
    """All gate records of a folder, by file name; none if there is no such folder.

    Raises:
        DataError: One is damaged or of another kind.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(f"{path}: cannot be read ({error}); run `framegate gate` again") from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise DataError(f"{path}: no record of `framegate gate`, or of another version; run it again")
        found.append(record)
    return found


def gate(found: Sequence[Record]) -> Table:
    """What each rule lets through, the attack that aims at it beside it."""
    rows = []
    for record in found:
        for rule, words in (
            ("entropy", "entropy alone"),
            ("gate", "the whole gate"),
            ("promised", "the gate as calibrated"),
        ):
            cells: list[str | Cell] = [text(record, "bundle"), words]
            cells.append(percent(estimate(record, "clean", rule, "coverage")))
            cells.append(percent(estimate(record, "clean", rule, "selective_risk")))
            cells += [_rate(record, attack, rule) for attack in SHOWN[:2]]
            cells.append(percent(estimate(record, "adaptive", rule, "false_accepts")))
            rows.append(Row(tuple(cells), "best" if rule == "gate" else ""))
    return Table(
        "What the gate lets through, frame by frame",
        (
            "bundle",
            "rule",
            "clean frames accepted",
            "errors among them",
            "FGSM 8/255: wrong and accepted",
            "PGD-20 8/255: wrong and accepted",
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
        for attack in follow(record, "attacks") or {}:
            fitted = attack.startswith(("FGSM", "PGD-20 ")) and "margin" not in attack
            rows.append(
                Row(
                    (
                        text(record, "bundle"),
                        attack,
                        "family" if fitted else "no",
                        Cell(_count(record, "attacks", attack, "wrong")),
                        _rate(record, attack, "entropy"),
                        _rate(record, attack, "gate"),
                    )
                )
            )
    return Table(
        "Wrong and accepted under attack, at 95 % clean coverage",
        ("bundle", "attack", "fitted on it", "wrong frames", "entropy alone", "the whole gate"),
        rows,
        "Fitted on its family: FGSM at 2, 4, 8/255 and PGD-10 at 4, 8/255, on training images.",
        folded=True,
    )


def gate_foreign(found: Sequence[Record]) -> Table:
    """Frames of other things, and damaged ones."""
    rows = []
    for record in found:
        for name, each in (follow(record, "foreign") or {}).items():
            figures = follow(each, "auroc") or {}
            rows.append(
                Row(
                    (
                        text(record, "bundle"),
                        name,
                        Cell(_count(each, "n")),
                        percent(estimate(each, "entropy", "coverage")),
                        percent(estimate(each, "gate", "coverage")),
                        percent(estimate(each, "promised", "coverage")),
                        auroc_cell(figures.get("entropy") or figures.get("two_sided(entropy)")),
                        auroc_cell(figures.get(SHIFT)),
                    )
                )
            )
        everything = follow(record, "corruptions", "all")
        if everything:
            shares = [_of(everything, rule) for rule in ("entropy", "gate", "promised")]
            rows.append(
                Row(
                    (
                        text(record, "bundle"),
                        "all corruptions, wrong and accepted",
                        Cell(_count(everything, "n")),
                        *shares,
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
            "entropy alone",
            "the whole gate",
            "as calibrated",
            "AUROC entropy, two-sided",
            "AUROC monitor",
        ),
        rows,
        "None of these frames shows one of the network's labels, so each accepted one is a false accept.",
        folded=True,
    )


def promise(found: Sequence[Record]) -> Table:
    """A thousand calibrations of each bundle."""
    rows = []
    for record in found:
        for method, each in (follow(record, "promise") or {}).items():
            broken = estimate(each, "broken")
            rows.append(
                Row(
                    (
                        text(record, "bundle"),
                        text(each, "key"),
                        method,
                        f"{_count(each, 'frames')} {text(each, 'units')}" if follow(each, "frames") else NOT_MEASURED,
                        share_cell(follow(each, "target_risk"), 0),
                        Cell(_count(each, "trials")),
                        percent(broken),
                        share_cell(follow(each, "allowed"), 0),
                        Cell(_count(each, "refused")),
                        share_cell(follow(each, "mean_coverage")),
                        share_cell(follow(each, "mean_risk"), 2),
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


TABLES = {
    "gate": gate,
    "gate-attacks": gate_attacks,
    "gate-signals": signals.gate_signals,
    "gate-windows": signals.gate_windows,
    "gate-foreign": gate_foreign,
    "gate-transfer": signals.gate_transfer,
    "promise": promise,
}
"""Name of a block -> its table."""


def _rate(record: Record, attack: str, rule: str) -> Cell:
    return percent(estimate(record, "attacks", attack, rule, "false_accept_rate"))


def _of(each: Record, rule: str) -> Cell:
    accepted, total = number(each, rule, "false_accepts"), number(each, "n")
    return Cell(NOT_MEASURED) if accepted is None or not total else Cell(f"{accepted / total * 100:.1f} %")


def _count(record: Record, *keys: str) -> str:
    value = number(record, *keys)
    return NOT_MEASURED if value is None else f"{value:,.0f}"
