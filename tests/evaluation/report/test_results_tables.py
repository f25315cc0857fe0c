"""Tables over the records of several bundles: a row for each, and no figure that was not measured."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from report_fixture import without_figures
from repository import CLASSIFIERS, ROOT

from framegate.evaluation.gate import names as gate_names
from framegate.evaluation.measured import manifest_sha256
from framegate.evaluation.report import results_tables
from framegate.evaluation.report.files import load_records
from framegate.evaluation.report.table import markdown
from framegate.evaluation.report.values import FORMAT, NOT_MEASURED, Cell
from framegate.runtime.errors import DataError

RESULTS = ROOT / "benchmarks" / "results"
OVER_BUNDLES = ("models", "selective", "best", "false_accepts", "adaptive", "batches", "foreign")


@pytest.fixture
def record(invented_record):
    found = invented_record()
    found["bundle"]["name"] = "shown"
    return found


def figures(table):
    return [cell for row in table.rows for cell in row.cells if isinstance(cell, Cell) and cell.text != NOT_MEASURED]


@pytest.mark.parametrize("name", OVER_BUNDLES)
def test_every_bundle_has_its_rows_and_figures(record, invented_record, name):
    other = invented_record(accuracy=0.8)
    other["bundle"]["name"] = "other"
    table = getattr(results_tables, name)([record, other])
    rows = Counter(row.cells[0] for row in table.rows)
    assert set(rows) == {"shown", "other"}
    assert rows["shown"] == rows["other"]
    assert figures(table)


@pytest.mark.parametrize("name", OVER_BUNDLES)
def test_what_was_not_measured_is_no_figure(record, name):
    table = getattr(results_tables, name)([without_figures(record)])
    assert [row.cells[0] for row in table.rows if row.cells[0] == "shown"]
    assert figures(table) == []


def test_a_bundle_without_figures_has_none_beside_the_research(record):
    full, empty = (results_tables.research(each) for each in (record, without_figures(record)))
    column = full.columns.index("this bundle")
    assert empty.columns == full.columns
    assert all(row.cells[column].text != NOT_MEASURED for row in full.rows)
    assert {row.cells[column] for row in empty.rows} == {Cell(NOT_MEASURED)}


def test_engines_without_figures_have_none(record):
    assert figures(results_tables.engines(record))
    table = results_tables.engines(without_figures(record))
    assert table.rows
    assert figures(table) == []


def test_the_committed_records_belong_to_the_shipped_bundles():
    shipped = {path.stem: manifest_sha256(path) for path in CLASSIFIERS}
    evaluated = load_records(RESULTS / "evaluation", FORMAT, "framegate evaluate")
    assert {each["bundle"]["name"]: each["bundle"]["manifest_sha256"] for each in evaluated} == shipped
    assert all(each["health"] for each in evaluated)
    assert all(check["passed"] is True for each in evaluated for check in each["health"])
    judged = load_records(RESULTS / "gate", gate_names.FORMAT, "framegate gate")
    assert {each["bundle"]: each["manifest_sha256"] for each in judged} == shipped
    for each in judged:
        assert each["health"]
        assert all(check["passed"] is True for check in each["health"])
        assert each["promise"]
        assert all(promise["kept"] is True for promise in each["promise"].values())


def test_figures_are_those_of_the_record(record):
    assert "| shown | hybrid | cifar10 | 93.00 % [92.50, 93.50] |" in markdown(results_tables.models([record]))
    assert "| clean accuracy | 0.8549 | – | 0.9300 [0.9250, 0.9350] |" in markdown(results_tables.research(record))
    assert "\n| openvino/int8 | " in markdown(results_tables.engines(record))


def test_the_research_has_nothing_on_other_data(record):
    record["bundle"]["data"] = "gtsrb"
    with pytest.raises(DataError, match="the research has no network of this architecture on these data"):
        results_tables.research(record)


def test_damaged_and_foreign_records_are_refused(tmp_path):
    def load():
        return load_records(tmp_path, FORMAT, "framegate evaluate")

    with pytest.raises(DataError, match="no records"):
        load()
    (tmp_path / "b.json").write_text(json.dumps({"format": FORMAT, "is": 2}))
    (tmp_path / "a.json").write_text(json.dumps({"format": FORMAT, "is": 1}))
    assert [each["is"] for each in load()] == [1, 2]
    for content, said in (
        ("{", "cannot be read"),
        ("{}", "expected a record of the format"),
        ("[]", "expected a record"),
    ):
        (tmp_path / "c.json").write_text(content)
        with pytest.raises(DataError, match=rf"c\.json.*{said}.*framegate evaluate"):
            load()
    (tmp_path / "c.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(DataError, match="cannot be read"):
        load()
