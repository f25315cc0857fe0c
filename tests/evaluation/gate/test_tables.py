"""Gate records become tables; what was not measured stays no figure."""

from __future__ import annotations

from collections import Counter

import pytest
from report_fixture import without_figures

from framegate.evaluation.gate import tables, tables_signals
from framegate.evaluation.gate.names import FORMAT
from framegate.evaluation.report.table import markdown
from framegate.evaluation.report.values import NOT_MEASURED, Cell

TABLES = {
    "gate": tables.gate,
    "gate-attacks": tables.gate_attacks,
    "gate-foreign": tables.gate_foreign,
    "gate-signals": tables_signals.gate_signals,
    "gate-transfer": tables_signals.gate_transfer,
    "gate-windows": tables_signals.gate_windows,
    "promise": tables.promise,
}


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


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_tables_hold_the_records_figures(name):
    table = TABLES[name]([record("one"), record("two")])
    written = markdown(table)
    for figure in FIGURES[name]:
        assert figure in written, figure
    rows = Counter(row.cells[0] for row in table.rows)
    assert set(rows) == {"one", "two"}
    assert rows["one"] == rows["two"]


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_what_was_not_measured_is_no_figure(name):
    table = TABLES[name]([without_figures(record("bare"))])
    assert {row.cells[0] for row in table.rows} == {"bare"}
    figures = [cell for row in table.rows for cell in row.cells if isinstance(cell, Cell)]
    assert figures
    assert set(figures) == {Cell(NOT_MEASURED)}


def test_the_best_control_is_a_control():
    """A signal that uses the network is no control, however good it is."""
    strong = record("one")
    strong["detection"]["FGSM 8/255"] |= {"entropy": 0.999, "shift": 1.0}
    row = next(row for row in tables_signals.gate_signals([strong]).rows if row.cells[1] == "FGSM 8/255")
    assert row.cells[-2:] == (Cell("0.789"), "two_sided(high_frequency_energy)")


def test_a_split_of_tracks_is_never_called_so_many_tracks():
    """3,390 frames of 113 tracks are no 3,390 tracks: the unit of the promise is what was drawn."""
    grouped = record("hybrid")
    grouped["promise"]["learn-then-test"] |= {"frames": 3390, "units": "tracks", "population_units": 113}
    written = markdown(tables.promise([grouped]))
    assert "| 3,390 frames of 113 tracks |" in written
    assert "3,390 tracks" not in written
    old = {each: value for each, value in grouped["promise"]["learn-then-test"].items() if each != "population_units"}
    grouped["promise"]["geifman-el-yaniv"] = old  # a record that does not say how many tracks the same population has
    assert markdown(tables.promise([grouped])).count("| 3,390 frames of 113 tracks |") == 2
    old["population"] = 99  # another population
    assert "| 3,390 frames of tracks |" in markdown(tables.promise([grouped]))
