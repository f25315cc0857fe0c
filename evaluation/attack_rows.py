"""What must hold between the rows of an attack table, where an attack without checks of its own shows that it fails.

Without PyTorch, so that the documents' tables can ask, too. PGD has more checks: `framegate.evaluation.attacks.health`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

Row = Mapping[str, Any]
_TOLERANCE = 0.01
"""Share of the frames by which a stronger attack may look weaker by chance; one frame is always allowed."""


class RowCheck(NamedTuple):
    """One check: what was checked, whether it passed, and the numbers in plain words."""

    name: str
    passed: bool
    detail: str


def row_checks(rows: Sequence[Row]) -> list[RowCheck]:
    """Larger attacks are never weaker and do harm, many steps beat one, the attack on the gate beats the others.

    Args:
        rows: As `framegate.evaluation.attack_table.attack_table` gives them; without the one under no attack nothing is
            checked.
    """
    by_name = {str(row["attack"]): row for row in rows}
    if "none" not in by_name:
        return []
    none = by_name["none"]
    whole = {name: row for name, row in by_name.items() if row["aims_at"] == "classifier" and row["n"] == none["n"]}
    families: dict[str, list[str]] = {}
    for name in whole:
        family = "rotation" if name.startswith("rotation") else name.rpartition(" ")[0]
        families.setdefault(family, []).append(name)
    found = []
    for family, names in families.items():
        if family != "FGSM":  # one step of a larger size may well do less harm
            found.append(_growing(family, none, [whole[name] for name in names]))
        if family != "rotation":  # tries a few places without a gradient, which a network may rightly not mind
            found.append(_harmful(family, none, [whole[name] for name in names]))
    for name, row in by_name.items():
        size = name.rpartition(" ")[2]
        if name in whole and name.startswith(("APGD", "PGD-")) and f"FGSM {size}" in whole:
            passed = _wrong(row) >= _wrong(whole[f"FGSM {size}"]) - _allowed(none)
            detail = f"wrong: {_wrong(row)} of {row['n']}, one step {_wrong(whole[f'FGSM {size}'])}"
            found.append(RowCheck(f"{name}: as strong as FGSM", passed, detail))
        if name.startswith("adaptive"):
            found.append(_not_behind(row, whole, "wrong_and_accepted"))
        elif row["aims_at"] == "classifier" and name not in whole:
            found.append(_not_behind(row, whole, "wrong"))
    return found


def failed_checks(record: Mapping[str, Any]) -> list[str]:
    """Names of the health checks that failed: those of a record, and of its rows, which older ones do not have."""
    failed = [check["name"] for check in record["health"] if not check["passed"]]
    return list(dict.fromkeys((*failed, *(check.name for check in row_checks(record["rows"]) if not check.passed))))


def _wrong(row: Row) -> int:
    return round(float(row["wrong"]["value"]) * int(row["n"]))


def _allowed(none: Row) -> int:
    return max(1, int(_TOLERANCE * none["n"]))


def _growing(family: str, none: Row, rows: Sequence[Row]) -> RowCheck:
    counts = [_wrong(none), *map(_wrong, rows)]
    passed = all(after >= before - _allowed(none) for before, after in pairwise(counts))
    detail = f"of {none['n']} frames wrong without it and by size: {', '.join(map(str, counts))}"
    return RowCheck(f"{family}: larger never weaker", passed, detail)


def _harmful(family: str, none: Row, rows: Sequence[Row]) -> RowCheck:
    least, most = _wrong(none), max(map(_wrong, rows))
    detail = f"of {none['n']} frames {least} are wrong without it, {most} with it"
    return RowCheck(f"{family}: does harm", most > least or least == none["n"], detail)


def _not_behind(row: Row, others: Mapping[str, Row], share: str) -> RowCheck:
    """An attack on few frames is not, by its interval, weaker than attacks of the same size on all of them."""
    name = str(row["attack"])
    size = name.rpartition(" ")[2]
    best = max((each[share]["low"] for other, each in others.items() if other.endswith(f" {size}")), default=0.0)
    detail = f"{share}: at most {row[share]['high']:.1%}, others of {size} at least {best:.1%}"
    return RowCheck(f"{name}: not behind others", row[share]["high"] >= best, detail)
