"""Gate records become tables; what was not measured stays no figure."""

from __future__ import annotations

import json

import pytest

from framegate.evaluation.gate.tables import FORMAT, TABLES, load_gate_records
from framegate.evaluation.report.table import markdown
from framegate.runtime.errors import DataError


def interval(value: float, n: int = 100) -> dict:
    return {"value": value, "low": value * 0.9, "high": value * 1.1, "n": n}


def rule(rate: float) -> dict:
    return {
        "coverage": interval(0.9), "false_accepts": int(rate * 100), "false_accept_rate": interval(rate),
        "selective_risk": interval(0.02),
    }  # fmt: skip


def judged(*rates: float) -> dict:
    return {"n": 200, "wrong": 100, **dict(zip(("entropy", "gate", "promised"), map(rule, rates), strict=True))}


def record(name: str) -> dict:
    figures = {"shift": 0.987, "two_sided(energy)": 0.876, "two_sided(activation_entropy:stem)": 0.567,
               "total_variation": 0.678, "two_sided(high_frequency_energy)": 0.789, "entropy": 0.1}  # fmt: skip
    promise = {"trials": 1000, "frames": 5000, "units": "frames", "key": "openvino/int8", "broken": interval(0.031),
               "allowed": 0.05, "kept": True, "refused": 3, "target_risk": 0.01, "mean_coverage": 0.812,
               "mean_risk": 0.0071}  # fmt: skip
    return {
        "format": FORMAT,
        "bundle": name,
        "clean": judged(0.3, 0.2, 0.1),
        "attacks": {"FGSM 8/255": judged(0.51, 0.012, 0.004), "APGD-DLR 8/255": judged(0.92, 0.034, 0.02)},
        "detection": {"FGSM 8/255": figures},
        "windows": {"FGSM 2/255": {"shift": {str(n): {"detected": 0.1 * n / 32} for n in (1, 4, 8, 16, 32)}}},
        "foreign": {"gtsrb": judged(0.2, 0.1, 0.05) | {"auroc": {"shift": 0.91, "two_sided(entropy)": 0.95}}},
        "corruptions": {
            "all": {"n": 400, "wrong": 90, **{r: {"false_accepts": 40} for r in ("entropy", "gate", "promised")}}
        },
        "transfer": {"fitted without PGD": {"FGSM 8/255": 0.99, "PGD-20 8/255": 0.93}},
        "adaptive": {r: {"false_accepts": interval(0.98)} for r in ("entropy", "gate", "promised")},
        "promise": {"learn-then-test": promise},
    }


FIGURES = {
    "gate": ("51.0 %", "1.2 %", "98.0 %"),
    "gate-attacks": ("92.0 %", "3.4 %", "| no |"),
    "gate-signals": ("0.987", "0.876", "0.567", "two_sided(high_frequency_energy)"),
    "gate-windows": ("10.0 %",),
    "gate-foreign": ("0.910", "0.950", "10.0 %"),
    "gate-transfer": ("0.990", "0.930"),
    "promise": ("3.1 %", "5,000 frames", "81.2 %", "0.71 %"),
}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_tables_hold_the_records_figures(name):
    written = markdown(TABLES[name]([record("one"), record("two")]))
    for figure in FIGURES[name]:
        assert figure in written, figure
    assert written.count("| one |") == written.count("| two |") > 0 or "**one**" in written


@pytest.mark.parametrize("name", sorted(TABLES))
def test_what_was_not_measured_is_no_figure(name):
    bare = {"format": FORMAT, "bundle": "bare", "attacks": {"FGSM 8/255": {}}, "promise": {"learn-then-test": {}},
            "foreign": {"gtsrb": {}}, "transfer": {"fitted without PGD": {}}, "corruptions": {"all": {"n": 5}},
            "windows": {"FGSM 2/255": {"shift": {}}}}  # fmt: skip
    rows = [line for line in markdown(TABLES[name]([bare])).splitlines() if "bare" in line]
    assert rows
    for row in rows:
        figures = [cell.strip() for cell in row.split("|")[4:-1]]
        assert not any(cell[:1].isdigit() for cell in figures if cell != "5")


def test_damaged_and_foreign_records_are_refused(tmp_path):
    assert load_gate_records(tmp_path / "gone") == []
    (tmp_path / "a.json").write_text(json.dumps(record("one")))
    assert [each["bundle"] for each in load_gate_records(tmp_path)] == ["one"]
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(DataError, match="no record of `framegate gate`"):
        load_gate_records(tmp_path)
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        load_gate_records(tmp_path)
