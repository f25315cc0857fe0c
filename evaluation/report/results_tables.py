"""Tables over the records of several bundles, for README and docs (`framegate.benchmarks.tables` writes them there)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from framegate.evaluation.report.comparison import comparison_table
from framegate.evaluation.report.findings import (
    ENTROPY,
    PURPOSES,
    accepted_of_wrong,
    by_failure,
    headline_attack,
    is_control,
    name_of,
    score_named,
    target_row,
)
from framegate.evaluation.report.score_choice import compared, foreign_auroc, let_through, of_the_best
from framegate.evaluation.report.score_words import in_words, named
from framegate.evaluation.report.table import Row, Table, of_columns
from framegate.evaluation.report.values import (
    Cell,
    Estimate,
    count,
    decimal,
    estimate,
    number,
    percent,
    records,
    share,
    text,
)
from framegate.runtime.errors import DataError

Record = Mapping[str, Any]
_COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7)
_ENGINE = "openvino/int8"
"""The embedded default on machines without a GPU."""


def _name(record: Record) -> str:
    return text(record, "bundle", "name")


def models(found: Sequence[Record]) -> Table:
    """What each bundle is, how often it is right, and what its own threshold does."""
    rows = []
    for record in found:
        engine = next((row for row in records(record, "clean", "backends") if text(row, "key") == _ENGINE), {})
        rows.append(
            Row(
                (
                    _name(record),
                    text(record, "bundle", "architecture"),
                    text(record, "bundle", "data"),
                    percent(estimate(record, "clean", "accuracy")),
                    decimal(estimate(record, "clean", "ece")),
                    decimal(estimate(record, "clean", "ece_temperature")),
                    percent(estimate(engine, "coverage")),
                    percent(estimate(engine, "selective_risk")),
                )
            )
        )
    columns = (
        "bundle",
        "architecture",
        "data",
        "test accuracy",
        "ECE",
        "ECE after temperature",
        f"coverage, {_ENGINE}",
        "errors / accepted",
    )
    note = "The last two: at the threshold that the bundle ships with, on test frames. Intervals are 95 %."
    return of_columns("The shipped bundles on their clean test sets", columns, rows, note)


def engines(record: Record) -> Table:
    """What happens to the verdicts of a bundle on the way from the trained network to an engine."""
    rows = []
    compared = None
    for each in records(record, "clean", "backends"):
        compared = number(each, "compared") or compared
        rows.append(
            Row(
                (
                    text(each, "key"),
                    percent(estimate(each, "accuracy")),
                    share(number(each, "same_label")),
                    share(number(each, "same_verdict")),
                    percent(estimate(each, "coverage")),
                    percent(estimate(each, "selective_risk")),
                )
            )
        )
    return Table(
        f"{_name(record)}: from the trained network to the engines",
        ("engine / precision", "test accuracy", "same label", "same verdict", "coverage", "errors / accepted"),
        rows,
        f"Same label and verdict: as the trained network in PyTorch, on {count(compared)} test images, each with its "
        "own calibration.",
    )


def research(record: Record) -> Table:
    """The research's figures beside one bundle's.

    Raises:
        DataError: The research has nothing of this architecture on these data.
    """
    tables = comparison_table(record)
    if not tables:
        raise DataError(f"{_name(record)}: the research has no network of this architecture on these data")
    return tables[0]


def selective(found: Sequence[Record]) -> Table:
    """Accuracy of what is accepted when the entropy threshold for a coverage comes from the calibration split."""
    rows = []
    for record in found:
        score = score_named(record, ENTROPY)
        cells = [
            percent(estimate(record, "clean", "accuracy") if c == 1 else estimate(target_row(score, c), "accuracy"))
            for c in _COVERAGES
        ]
        rows.append(Row((_name(record), *cells)))
    columns = ("bundle", *("all frames" if c == 1 else f"at {c * 100:g} % coverage" for c in _COVERAGES))
    note = "Softmax entropy per frame; thresholds from the calibration split, accuracy of the accepted test frames."
    return of_columns("Accuracy of the accepted frames", columns, rows, note)


def best(found: Sequence[Record]) -> Table:
    """For each bundle and purpose the best score, with entropy and the best control without a network beside it."""
    rows = []
    for record in found:
        control = next((score for score in by_failure(record) if is_control(score)), {})
        for purpose, label in PURPOSES:
            name = text(record, "best", purpose)
            if name:
                among = compared(records(record, "scores"), purpose, text(record, "main_attack"))
                own = _figure(record, purpose, score_named(record, name), among)
                others = (_figure(record, purpose, each) for each in (score_named(record, ENTROPY), control))
                rows.append(Row((_name(record), label, f"{named(name)} (of {among})", own, *others)))
    columns = ("bundle", "purpose", "best score", "its figure", "entropy", "best control without a network")
    note = (
        "Overall: what is let through without a warning at 95 % clean coverage, the mean of wrong and accepted clean "
        "frames, wrong and accepted corrupted frames, and accepted foreign frames (made-up noise left out); lower is "
        "better; scores that find the network's own errors clearly worse than entropy are left out. Own errors: AUROC "
        "for finding the network's errors on clean frames (the choice goes by AUGRC). Corrupted frames: wrong and "
        "accepted, of all corrupted frames; lower is better. Frames of other things: mean AUROC over the foreign "
        "sets without noise. Attacks that do not adapt: AUROC against PGD-20 at 8/255, see the adaptive attack. "
        "Chosen and reported on the same test frames: the interval of the best is widened until those of all scores it "
        "was chosen from hold at once (union bound); figures without an interval are optimistic. Never chosen: a "
        "control, and a score that does not beat a coin at its task with that interval."
    )
    return of_columns("The best score to gate on", columns, rows, note)


def _bare(figure: Estimate | None) -> Cell:
    """A share without its interval."""
    return share(None if figure is None else figure.value)


def _figure(record: Record, purpose: str, score: Mapping[str, Any], among: int = 1) -> Cell:
    """A score's figure for a purpose; ``among``: how many scores it was chosen from."""
    if purpose == "overall":
        return _bare(let_through(score) if score else None)
    if purpose == "corruption":
        return share(number(score, "corruptions", "far", "value"))
    if purpose == "attack":
        return decimal(of_the_best(estimate(score, "attacks", text(record, "main_attack"), "auroc"), among))
    if purpose == "ood":
        return decimal(of_the_best(foreign_auroc(score), among) if score else None)
    return decimal(of_the_best(estimate(score, "failure", "auroc"), among))


def false_accepts(found: Sequence[Record]) -> Table:
    """Wrong and accepted, of all frames, at the entropy threshold for 95 % clean coverage."""
    rows = []
    for record in found:
        clean = estimate(target_row(score_named(record, ENTROPY)), "false_accept_rate")
        attacks = [
            next((a for a in records(record, "attacks") if text(a, "key") == key), {})
            for key in ("fgsm-8/255", text(record, "main_attack"))
        ]
        adaptive = next((row for row in records(record, "adaptive") if text(row, "score") == ENTROPY), {})
        rows.append(
            Row(
                (
                    _name(record),
                    percent(clean),
                    *(percent(estimate(attack, "accuracy")) for attack in attacks),
                    *(percent(estimate(attack, "false_accept_rate")) for attack in attacks),
                    percent(accepted_of_wrong(headline_attack(record))),
                    percent(estimate(adaptive, "evaded")),
                )
            )
        )
    columns = (
        "bundle",
        "clean: wrong and accepted",
        "accuracy, FGSM 8/255",
        "accuracy, PGD-20 8/255",
        "FGSM: wrong and accepted",
        "PGD: wrong and accepted",
        "of PGD's wrong frames accepted",
        "adaptive attack: wrong and accepted",
    )
    return of_columns("What the entropy gate lets through, at 95 % clean coverage", columns, rows)


def adaptive(found: Sequence[Record]) -> Table:
    """Each acceptance rule against plain PGD and against the attack that knows it."""
    rows = [
        Row(
            (
                _name(record),
                in_words(text(row, "score")),
                percent(estimate(row, "plain_pgd_accepted")),
                percent(estimate(row, "evaded")),
                decimal(estimate(row, "auroc")),
                Cell(count(number(row, "n"))),
            )
        )
        for record in found
        for row in records(record, "adaptive")
    ]
    columns = ("bundle", "rule", "plain PGD: wrong and accepted", "adaptive: wrong and accepted", "AUROC", "frames")
    note = "Every rule accepts 95 % of the clean calibration frames. AUROC: clean against adaptively attacked frames."
    return of_columns("Rules against an attacker who knows them (8/255)", columns, rows, note)


def batches(found: Sequence[Record]) -> Table:
    """The published per-batch detection beside the same statistic per frame."""
    rows = [
        Row(
            (
                _name(record),
                name_of(record, text(row, "attack")),
                text(row, "unit"),
                percent(estimate(row, "detection_accuracy")),
                decimal(estimate(row, "auroc")),
                Cell(count(number(row, "decisions"))),
            )
        )
        for record in found
        for row in records(record, "batchwise")
    ]
    columns = ("bundle", "attack", "one decision per", "right decisions", "AUROC", "decisions")
    note = "Entropy of the first convolution's activations, 30 bins, as published: for comparison only."
    return of_columns("Per batch, as published, and per frame", columns, rows, note)


def foreign(found: Sequence[Record]) -> Table:
    """Frames of other things: entropy's AUROC and how many it accepts."""
    rows = []
    for record in found:
        for row in records(record, "ood"):
            name = text(row, "name")
            scores = [s for s in records(record, "scores") if estimate(s, "ood", name, "auroc") is not None]
            top = max(scores, key=lambda s: number(s, "ood", name, "auroc", "value") or 0.0, default={})
            rows.append(
                Row(
                    (
                        _name(record),
                        name,
                        decimal(estimate(score_named(record, ENTROPY), "ood", name, "auroc")),
                        percent(estimate(row, "accepted")),
                        in_words(text(top, "name")),
                        decimal(estimate(top, "ood", name, "auroc")),
                        Cell(count(number(row, "n"))),
                    )
                )
            )
    columns = ("bundle", "foreign frames", "AUROC, entropy", "accepted by entropy", "best score", "its AUROC", "frames")
    return of_columns("Frames of other things, at the entropy threshold for 95 % clean coverage", columns, rows)
