"""Tables of the scores: their ranking, what a threshold gains, and which score detects which attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from framegate.evaluation.report.findings import (
    adaptive_by_score,
    by_failure,
    headline_attack,
    is_control,
    name_of,
    shown,
    target_row,
)
from framegate.evaluation.report.score_words import named
from framegate.evaluation.report.table import Row, Table, of_columns
from framegate.evaluation.report.values import (
    Cell,
    count,
    decimal,
    estimate,
    follow,
    mapping,
    number,
    percent,
    plain,
    records,
    text,
)


def ranking(results: object) -> list[Table]:
    """Every score at finding the classifier's own errors on clean frames."""
    rows = []
    best = text(results, "best", "failure")
    for score in by_failure(results):
        failure = mapping(score, "failure")
        sided = follow(score, "two_sided")
        cells = (
            _name(score),
            _family(score),
            "" if sided is None else ("both sides" if sided else "above"),
            decimal(estimate(failure, "auroc")),
            percent(estimate(failure, "fpr95")),
            percent(estimate(failure, "accepts95")),
            *(decimal(estimate(failure, key), 1, 1000.0) for key in ("aurc", "eaurc", "augrc")),
            Cell(count(_frames(failure))),
        )
        rows.append(Row(cells, "best" if text(score, "name") == best else _mark(score)))
    columns = (
        "score",
        "family",
        "rejects",
        "AUROC",
        "FPR95: right frames lost when 95 % of the wrong are caught",
        "wrong frames accepted when 95 % of the right are",
        "AURC x1000",
        "E-AURC x1000",
        "AUGRC x1000",
        "frames",
    )
    note = (
        "Clean test frames; a wrong prediction is what is to be found. Sorted by AUROC (higher is better; for all "
        "other columns lower is). Controls use the pixels only: a score must beat them to be worth its place."
    )
    return _split(results, "Ranking of the scores", columns, rows, note)


def selective(results: object) -> list[Table]:
    """Accuracy and false accepts of every score at its calibrated thresholds."""
    scores = [score for score in by_failure(results) if records(score, "selective")]
    targets = {number(row, "target_coverage") for score in scores for row in records(score, "selective")}
    columns = sorted((target for target in targets if target is not None), reverse=True)
    tables = []
    for title, key in (
        ("Accuracy of the accepted frames", "accuracy"),
        ("False accepts: wrong and accepted, of all frames", "false_accept_rate"),
        ("Coverage that the thresholds really have on the test frames", "coverage"),
    ):
        rows = [
            Row((_name(score), *(percent(estimate(target_row(score, t), key)) for t in columns)), _mark(score))
            for score in scores
        ]
        headings = ("score", *(f"at {target * 100:g} % coverage" for target in columns))
        note = "The threshold for each coverage is set on the calibration frames and judged on the test frames."
        if key == "coverage":
            tables.append(of_columns(title, headings, rows, note, folded=True))
        else:
            tables += _split(results, title, headings, rows, note)
    rows = [
        Row((_name(score), *(plain(number(target_row(score, t), "threshold")) for t in columns)), _mark(score))
        for score in scores
    ]
    tables.append(of_columns("Thresholds (in the score's own unit; entropy in nats)", headings, rows, folded=True))
    return [table for table in tables if len(table.columns) > 1]


def detection(results: object) -> list[Table]:
    """One table per attack: each score against it, with the adaptive attack on the same score beside it."""
    first = text(headline_attack(results), "key")
    scores = records(results, "scores")
    keys = sorted(dict.fromkeys(key for score in scores for key in mapping(score, "attacks")), key=lambda k: k != first)
    return [table for key in keys for table in _detection(results, key, scores, key != first)]


def _detection(
    results: object,
    key: str,
    scores: list[Mapping[str, Any]],
    folded: bool,
) -> list[Table]:
    adaptive = adaptive_by_score(results)
    found = [(score, mapping(score, "attacks", key)) for score in scores]
    found = [(score, figures) for score, figures in found if figures]
    found.sort(key=lambda item: -(number(item[1], "auroc", "value") or 0.0))
    rows = []
    for score, figures in found:
        against = adaptive.get(text(score, "name"), {})
        cells = (
            _name(score),
            _family(score),
            decimal(estimate(figures, "auroc")),
            percent(estimate(figures, "fpr95")),
            percent(estimate(figures, "far")),
            Cell(count(_frames(figures))),
            decimal(estimate(against, "auroc")) if estimate(against, "auroc") else "not run",
            percent(estimate(against, "evaded")) if estimate(against, "evaded") else "not run",
        )
        rows.append(Row(cells, _mark(score)))
    columns = (
        "score",
        "family",
        "AUROC, clean against attacked",
        "FPR95: clean frames lost when 95 % of the attacked are caught",
        "wrong and accepted, of all",
        "frames",
        "adaptive attack on this score: AUROC",
        "adaptive: wrong and accepted",
    )
    note = (
        "Accepted: at the score's own threshold for 95 % clean coverage. The last two columns are the ones to trust; "
        "two-sided scores are attacked as the rule 'inside the central 95 % of the calibration frames'."
    )
    title = f"Against {name_of(results, key)}"
    return [Table(title, columns, rows, note, folded)] if folded else _split(results, title, columns, rows, note)


def ood(results: object) -> list[Table]:
    """What the entropy gate accepts of frames that show none of the classes, and each score's AUROC for them."""
    rows = [
        Row((text(row, "name"), percent(estimate(row, "accepted")), Cell(count(number(row, "n")))))
        for row in records(results, "ood")
    ]
    note = "At the entropy threshold for 95 % clean coverage. All of them are false accepts."
    tables = [Table("Accepted by the entropy gate", ("frames of", "accepted", "frames"), rows, note)] if rows else []
    scores = [score for score in by_failure(results) if mapping(score, "ood")]
    sets = list(dict.fromkeys(key for score in scores for key in mapping(score, "ood")))
    if sets:
        for title, key in (("AUROC, clean against these frames", "auroc"), ("FPR95", "fpr95")):
            show = decimal if key == "auroc" else percent
            lines = [
                Row(
                    (_name(score), _family(score), *(show(estimate(score, "ood", name, key)) for name in sets)),
                    _mark(score),
                )
                for score in scores
            ]
            note = "" if key == "auroc" else "Share of clean frames lost when 95 % of these frames are caught."
            if key == "auroc":
                tables += _split(results, title, ("score", "family", *sets), lines, note)
            else:
                tables.append(of_columns(title, ("score", "family", *sets), lines, note, folded=True))
    return tables


def corrupted(results: object) -> list[Table]:
    """Each score on corrupted frames."""
    rows = [
        Row(
            (
                _name(score),
                _family(score),
                decimal(estimate(score, "corruptions", "auroc")),
                percent(estimate(score, "corruptions", "far")),
            ),
            _mark(score),
        )
        for score in by_failure(results)
        if mapping(score, "corruptions")
    ]
    columns = ("score", "family", "AUROC", "wrong and accepted, of all")
    note = "Over all corrupted frames, at the score's own threshold for 95 % clean coverage."
    return [of_columns("The scores on corrupted frames", columns, rows, note, folded=True)] if rows else []


def _split(results: object, title: str, columns: Sequence[str], rows: Sequence[Row], note: str) -> list[Table]:
    """The scores that the report mentions, in a table of their own; all others in a folded one behind it."""
    names = {_name(score) for score in shown(results)}
    first = [row for row in rows if row.cells[0] in names]
    rest = [row for row in rows if row.cells[0] not in names]
    tables = [of_columns(title, columns, first, note)] if first else []
    return tables + ([of_columns(f"{title}: the other {len(rest)} scores", columns, rest, folded=True)] if rest else [])


def _name(score: Mapping[str, Any]) -> str:
    return named(text(score, "name")) or "?"


def _family(score: Mapping[str, Any]) -> str:
    return f"{text(score, 'family')} (control)" if is_control(score) else text(score, "family")


def _mark(score: Mapping[str, Any]) -> str:
    return "control" if is_control(score) else ""


def _frames(figures: Mapping[str, Any]) -> int | None:
    return max((found.n for key in figures if (found := estimate(figures, key)) and found.n), default=None)
