"""The report's sections with their tables, and ``tables.md``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from framegate.evaluation.report import tables_attacks as report_tables_attacks
from framegate.evaluation.report import tables_scores as report_tables_scores
from framegate.evaluation.report.comparison import comparison_rows, comparison_table
from framegate.evaluation.report.files import write_text
from framegate.evaluation.report.findings import BESIDE, PROMISE, PUBLISHED_ONLY, failed_checks
from framegate.evaluation.report.score_words import named
from framegate.evaluation.report.summary import summary
from framegate.evaluation.report.table import Row, Section, Table, markdown, of_columns
from framegate.evaluation.report.values import (
    NOT_MEASURED,
    Cell,
    check_format,
    confusion,
    count,
    decimal,
    estimate,
    flat,
    follow,
    mapping,
    number,
    percent,
    plain,
    records,
    share,
    text,
)

__all__ = ["comparison_rows", "sections", "title", "write_tables"]

_CONFUSIONS = 8
_NO_RESEARCH = "The research has no network of this kind on these data."
BANNER = "A health check of the attacks failed. The attack figures below must not be trusted."


def title(results: object) -> str:
    """The report's heading."""
    return f"Evaluation of {text(results, 'bundle', 'name') or 'a bundle without a name'}"


def sections(results: Mapping[str, Any]) -> list[Section]:
    """Every section in reading order, those without data included (with no tables).

    Args:
        results: A results record; any of it may be missing.
    """
    built: list[tuple[str, str, str, tuple[Callable[[Mapping[str, Any]], list[Table]], ...]]] = [
        ("clean", "Clean frames", PROMISE, (_clean, _backends, _top_confusions)),
        ("scores", "Which score knows when the network is wrong", _rules(results), (report_tables_scores.ranking,)),
        ("selective", "What rejecting buys on clean frames", PROMISE, (report_tables_scores.selective,)),
        ("attacks", "Under attack", "", (report_tables_attacks.health, report_tables_attacks.attacks)),
        ("adaptive", "An attacker who knows of the score", "", (report_tables_attacks.adaptive,)),
        ("detection", "Telling attacked frames from clean ones", BESIDE, (report_tables_scores.detection,)),
        ("epsilon", "Strength of the attack", "", (report_tables_attacks.epsilon,)),
        ("layerwise", "Inside the network", BESIDE, (report_tables_attacks.layerwise,)),
        ("batchwise", "Per batch, as published", PUBLISHED_ONLY, (report_tables_attacks.batchwise,)),
        ("corruptions", "Corrupted frames", "", (report_tables_attacks.corruptions, report_tables_scores.corrupted)),
        ("ood", "Frames of other things", "", (report_tables_scores.ood,)),
        ("research", "Beside the research", "", (comparison_table,)),
        ("protocol", "How this was measured", "", (_protocol,)),
    ]
    made = []
    for key, heading, about, builders in built:
        tables = [table for build in builders for table in build(results) if table.rows]
        made.append(Section(key, heading, about, tuple(tables), *([_NO_RESEARCH] if key == "research" else [])))
    return made


def _rules(results: object) -> str:
    """By which rules the best scores were chosen."""
    why = text(results, "best", "why").rstrip(".")
    return f"How the best score is chosen. {why[:1].upper()}{why[1:]}." if why else ""


def write_tables(results: Mapping[str, Any], path: str | Path) -> None:
    """Write every table as Markdown, whole or not at all.

    Args:
        results: A results record; what is missing from it is left out.
        path: Target file.

    Raises:
        DataError: The record is of another kind.
        SinkError: The file cannot be written.
    """
    check_format(results)
    lines = [f"# {title(results)}", ""]
    if failed_checks(results):
        lines += [f"> **{BANNER}**", ""]
    lines += [
        *(f"- {sentence}" for sentence in summary(results)),
        "",
        f"Intervals are 95 %. {NOT_MEASURED} means not measured.",
        "",
    ]
    for section in sections(results):
        lines += [f"## {section.title}", ""]
        lines += [section.about, ""] if section.about and section.tables else []
        lines += [markdown(table) for table in section.tables] or [section.missing, ""]
    write_text(path, "\n".join(lines).rstrip() + "\n")


def _clean(results: object) -> list[Table]:
    accuracy = estimate(results, "clean", "accuracy")
    figures = (
        ("accuracy", percent(accuracy)),
        ("expected calibration error (ECE)", decimal(estimate(results, "clean", "ece"))),
        ("ECE after the temperature", decimal(estimate(results, "clean", "ece_temperature"))),
        ("temperature, from the calibration frames", plain(number(results, "clean", "temperature"))),
    )
    rows = [Row((name, cell)) for name, cell in figures if cell.text != NOT_MEASURED]
    frames = f" ({count(accuracy.n)} test frames)" if accuracy and accuracy.n else ""
    return [Table(f"Clean frames{frames}", ("", "figure"), rows)] if rows else []


def _backends(results: object) -> list[Table]:
    rows = [
        Row(
            (
                text(row, "key"),
                *(
                    percent(estimate(row, key))
                    for key in ("accuracy", "coverage", "selective_risk", "false_accept_rate")
                ),
                Cell(count(found.n if (found := estimate(row, "accuracy")) else None)),
            )
        )
        for row in records(results, "clean", "backends")
    ]
    columns = ("engine/precision", "accuracy", "coverage", "errors / accepted", "wrong and accepted, of all", "frames")
    note = "Each at its own calibrated threshold, as the bundle runs in the vehicle."
    return [of_columns("At the bundle's own thresholds", columns, rows, note)] if rows else []


def _top_confusions(results: object) -> list[Table]:
    matrix = confusion(results, "clean", "confusion")
    if matrix is None:
        return []
    found = follow(results, "bundle", "labels")
    labels = [str(label) for label in found] if isinstance(found, list | tuple) and len(found) == len(matrix) else []
    names = labels or [str(k) for k in range(len(matrix))]
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
    rows = []
    for true, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        frames, total = float(wrong[true, predicted]), float(matrix[true].sum())
        if frames > 0:
            rows.append(Row((names[true], names[predicted], Cell(count(frames)), share(frames / total))))
    columns = ("true class", "taken for", "frames", "of the true class")
    return [Table("Most frequent errors", columns, rows, folded=True)] if rows else []


def _protocol(results: object) -> list[Table]:
    facts = [
        ("bundle", text(results, "bundle", "name")),
        ("manifest (SHA-256)", text(results, "bundle", "manifest_sha256")),
        ("architecture", text(results, "bundle", "architecture")),
        ("model", " ".join((text(results, "bundle", "model_file"), text(results, "bundle", "precision"))).strip()),
        ("data", text(results, "bundle", "data")),
        *((f"{name} frames", count(number(results, "sizes", name))) for name in mapping(results, "sizes")),
        ("scores that could not be fitted", ", ".join(map(named, mapping(results, "scores_left_out")))),
        ("suite", text(results, "suite")),
        ("limit", text(results, "limit")),
        ("seed", text(results, "seed")),
        ("started", text(results, "started")),
        ("duration", _duration(number(results, "seconds"))),
        *((f"machine: {name}", value) for name, value in flat(mapping(results, "machine"))),
    ]
    rows = [Row((name, value)) for name, value in facts if value]
    training = [Row((name, value)) for name, value in flat(mapping(results, "bundle", "training"))]
    return [
        Table("Circumstances", ("", ""), rows),
        Table("How the network was trained", ("", ""), training, folded=True),
    ]


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds / 60:.1f} minutes"
