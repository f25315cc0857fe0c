"""Tables under attack and corruption: health checks, outcomes, adaptive attack, layers, batches."""

from __future__ import annotations

from framegate.evaluation.attacks.radius import levels_text
from framegate.evaluation.report.findings import accepted_of_wrong, attack_name, name_of
from framegate.evaluation.report.score_words import named
from framegate.evaluation.report.table import Row, Table, of_columns
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
    plain,
    radius,
    records,
    share,
    text,
)


def health(results: object) -> list[Table]:
    """The attack's own health checks, one PASS or FAIL line each."""
    rows = []
    for check in records(results, "health"):
        passed = follow(check, "passed") is True
        rows.append(
            Row(
                ("PASS" if passed else "FAIL", text(check, "name"), text(check, "detail")), "pass" if passed else "fail"
            )
        )
    note = "An attack that fails its own checks is too weak to say anything about the network."
    return [Table("Health checks of the attacks", ("", "check", "found"), rows, note)] if rows else []


def attacks(results: object) -> list[Table]:
    """What every attack leaves right and what the entropy gate lets through; and the attacks' settings."""
    rows, settings = [], []
    for attack in records(results, "attacks"):
        cells = (
            name_of(results, text(attack, "key")) or attack_name(attack),
            text(attack, "kind"),
            percent(estimate(attack, "accuracy")),
            percent(estimate(attack, "accepted_wrong")),
            percent(accepted_of_wrong(attack)),
            Cell(count(number(attack, "n"))),
        )
        rows.append(Row(cells))
        random_start = follow(attack, "random_start")
        settings.append(
            Row(
                (
                    cells[0],
                    text(attack, "key"),
                    radius(number(attack, "epsilon")),
                    Cell(count(number(attack, "steps"))),
                    Cell(count(number(attack, "restarts"))),
                    _step(number(attack, "step_size")),
                    "" if random_start is None else ("yes" if random_start else "no"),
                    text(attack, "loss"),
                )
            )
        )
    if not rows:
        return []
    columns = ("attack", "kind", "accuracy", "wrong and accepted, of all", "accepted, of the wrong", "frames")
    note = "L-infinity on pixels in [0, 1], on the logits. Accepted: at the entropy threshold for 95 % clean coverage."
    detail = ("attack", "key", "epsilon", "steps", "restarts", "step size", "random start", "loss")
    return [
        of_columns("Attacks on the classifier", columns, rows, note),
        of_columns("Settings of the attacks", detail, settings, folded=True),
    ]


def adaptive(results: object) -> list[Table]:
    """The attack on classifier and score together."""
    rows = []
    for row in records(results, "adaptive"):
        weightings = mapping(row, "weightings")
        cells = (
            named(text(row, "score")),
            radius(number(row, "epsilon")),
            Cell(count(number(row, "steps"))),
            percent(estimate(row, "plain_pgd_accepted")),
            percent(estimate(row, "evaded")),
            percent(estimate(row, "misclassified")),
            decimal(estimate(row, "auroc")),
            plain(number(row, "threshold")),
            Cell(count(number(row, "n"))),
            percent(estimate(row, "blind")),
            ", ".join(f"{key}: {(number(weightings, key) or 0) * 100:.0f} %" for key in weightings),
        )
        rows.append(Row(cells))
    columns = (
        "score",
        "epsilon",
        "steps",
        "plain PGD: wrong and accepted",
        "adaptive: wrong and accepted",
        "adaptive: wrong",
        "adaptive: AUROC, clean against attacked",
        "threshold",
        "frames",
        "score gradients that were zero",
        "which weighting won",
    )
    note = (
        "Each frame is attacked with several weightings of classifier and score, and the best for the attacker counts. "
        "Accepted: at the score's threshold for 95 % clean coverage. Where many of the score's gradients were zero, a "
        "better attack may exist."
    )
    return [of_columns("Adaptive attack", columns, rows, note)] if rows else []


def epsilon(results: object) -> list[Table]:
    """Accuracy and false accepts by radius."""
    rows = [
        Row(
            (
                text(row, "attack").upper(),
                radius(number(row, "epsilon")),
                percent(accuracy),
                percent(estimate(row, "false_accept_rate")),
                Cell(count(accuracy.n if accuracy else None)),
            )
        )
        for row in records(results, "epsilon_curve")
        for accuracy in [estimate(row, "accuracy")]
    ]
    columns = ("attack", "epsilon", "accuracy", "wrong and accepted, of all", "frames")
    return [of_columns("By radius", columns, rows, folded=True)] if rows else []


def layerwise(results: object) -> list[Table]:
    """Clean and attacked medians of each activation statistic, and its AUROC per frame."""
    found = records(results, "layerwise")
    keys = list(dict.fromkeys(key for row in found for name in ("attacked", "auroc") for key in mapping(row, name)))
    rows = [
        Row(
            (
                text(row, "tap"),
                *(plain(number(row, "clean", quantile)) for quantile in ("p5", "p50", "p95")),
                *(
                    cell
                    for key in keys
                    for cell in (plain(number(row, "attacked", key, "p50")), decimal(estimate(row, "auroc", key)))
                ),
            )
        )
        for row in found
    ]
    columns = ["layer:statistic", "clean 5 %", "clean median", "clean 95 %"]
    for key in keys:
        columns += [f"median, {name_of(results, key)}", f"AUROC, {name_of(results, key)}"]
    note = (
        "Entropies in nats, per frame. AUROC: the plain value is higher on attacked frames; far below 0.5 it is lower."
    )
    return [of_columns("By layer", columns, rows, note, folded=True)] if rows else []


def batchwise(results: object) -> list[Table]:
    """The published per-batch protocol beside single frames, and the rule that drops whole batches."""
    rows = [
        Row(
            (
                text(row, "protocol"),
                text(row, "layer"),
                name_of(results, text(row, "attack")),
                text(row, "unit"),
                decimal(estimate(row, "auroc")),
                percent(estimate(row, "detection_accuracy")),
                Cell(count(number(row, "decisions"))),
            )
        )
        for row in records(results, "batchwise")
    ]
    columns = ("protocol", "layer", "attack", "one decision per", "AUROC", "detection accuracy", "decisions")
    tables = [of_columns("Per batch against per frame", columns, rows)] if rows else []
    rule = [
        Row(
            (
                name_of(results, text(row, "input")),
                percent(estimate(row, "coverage")),
                percent(estimate(row, "accuracy_accepted")),
                percent(estimate(row, "accuracy")),
                Cell(count(number(row, "batches"))),
            )
        )
        for row in records(results, "batch_rule")
    ]
    headings = ("frames", "coverage", "accuracy of what is kept", "accuracy without the rule", "batches")
    note = "The research's own rule: a batch is kept or dropped whole by its entropies (mean + 2 standard deviations)."
    if rule:
        tables.append(of_columns("Dropping whole batches", headings, rule, note))
    return tables


def corruptions(results: object) -> list[Table]:
    """Accuracy, coverage and false accepts of every corruption and severity."""
    found = records(results, "corruptions")
    rows = [
        Row(
            (
                text(row, "name").replace("_", " "),
                Cell(count(number(row, "severity"))),
                percent(estimate(row, "accuracy")),
                percent(estimate(row, "coverage")),
                percent(estimate(row, "false_accept_rate")),
                Cell(count(number(row, "n"))),
            )
        )
        for row in found
    ]
    columns = ("corruption", "severity", "accuracy", "coverage", "wrong and accepted, of all", "frames")
    tables = []
    means = []
    for severity in sorted({number(row, "severity") or 0.0 for row in found}):
        group = [row for row in found if number(row, "severity") == severity]
        cells = [
            _mean([value for row in group if (value := number(row, key, "value")) is not None])
            for key in ("accuracy", "coverage", "false_accept_rate")
        ]
        if group:
            means.append(Row((f"{severity:g}", *cells, Cell(count(len(group))))))
    if means:
        headings = ("severity", "accuracy", "coverage", "wrong and accepted, of all", "corruptions")
        note = "Unweighted means over the corruptions. Accepted: at the entropy threshold for 95 % clean coverage."
        tables.append(of_columns("By severity", headings, means, note))
        tables.append(of_columns("By corruption", columns, rows, folded=True))
    return tables


def _mean(values: list[float]) -> Cell:
    return share(sum(values) / len(values) if values else None)


def _step(step: float | None) -> Cell:
    return Cell(NOT_MEASURED if step is None else levels_text(step))
