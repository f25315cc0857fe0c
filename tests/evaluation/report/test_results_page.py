"""Documents are filled from records, and the committed ones hold exactly what the committed records say."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from repository import ROOT

from framegate.evaluation.gate.tables import load_gate_records
from framegate.evaluation.report import results_page
from framegate.evaluation.report.results_page import fill, load_records, main
from framegate.runtime.errors import DataError

RECORDS = ROOT / "benchmarks" / "results" / "evaluation"


@pytest.fixture
def record(invented_record):
    found = invented_record()
    found["bundle"]["name"] = "shown"
    return found


def block(name, content="stale\n"):
    return f"<!-- begin {name} -->\n{content}<!-- end {name} -->"


def test_blocks_are_written_anew_and_the_rest_stays(record):
    document = f"Before.\n\n{block('models')}\n\nBetween {{1}} \\1.\n\n{block('research shown')}\nAfter.\n"
    filled = fill(document, [record])
    assert filled.startswith("Before.\n\n<!-- begin models -->\n")
    assert "Between {1} \\1." in filled
    assert filled.endswith("<!-- end research shown -->\nAfter.\n")
    assert "stale" not in filled
    assert "| shown | hybrid | cifar10 | 93.00 % [92.50, 93.50] |" in filled
    assert "| clean accuracy | 0.8549 | – | 0.9300 [0.9250, 0.9350] |" in filled
    assert fill(filled, [record]) == filled


@pytest.mark.parametrize("name", sorted(results_page._ALL))
def test_every_table_has_a_row_for_every_bundle(record, invented_record, name):
    other = invented_record(accuracy=0.8)
    other["bundle"]["name"] = "other"
    filled = fill(block(name), [record, other])
    assert re.search(r"^\| shown \|", filled, re.MULTILINE)
    assert re.search(r"^\| other \|", filled, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(results_page._ALL))
def test_what_was_not_measured_is_no_figure(name):
    bare = {"format": "framegate-evaluation-1", "bundle": {"name": "bare"}, "best": {"overall": "entropy"}}
    rows = [line for line in fill(block(name), [bare]).splitlines() if line.startswith("| bare")]
    assert not re.search(r"\d", "".join(rows).replace("95", ""))


def test_a_block_that_nobody_knows(record):
    with pytest.raises(
        DataError, match="block 'modls': expected 'research BUNDLE', 'engines BUNDLE' or one of models, selective"
    ):
        fill(block("modls"), [record])
    with pytest.raises(DataError, match="no record of bundle gone"):
        fill(block("research gone"), [record])
    record["bundle"]["data"] = "gtsrb"
    with pytest.raises(DataError, match="the research has no network of this architecture on these data"):
        fill(block("research shown"), [record])


def test_the_command_writes_the_documents(record, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(block("models"), encoding="utf-8")
    (tmp_path / "records").mkdir()
    assert main([str(tmp_path / "records"), str(page)]) == 2
    assert "no results records" in capsys.readouterr().err
    (tmp_path / "records" / "a.json").write_text("{")
    assert main([str(tmp_path / "records"), str(page)]) == 2
    assert "cannot be read" in capsys.readouterr().err
    (tmp_path / "records" / "a.json").write_text(json.dumps(record), encoding="utf-8")
    assert main([str(tmp_path / "records"), str(page)]) == 0
    assert "| shown |" in page.read_text(encoding="utf-8")
    assert main([str(tmp_path / "records"), str(tmp_path / "gone.md")]) == 2


@pytest.mark.parametrize("document", ["README.md", "evaluation/RESULTS.md"])
def test_the_committed_documents_hold_the_committed_figures(document):
    content = (ROOT / document).read_text(encoding="utf-8")
    assert "<!-- begin" in content
    gates = load_gate_records(results_page.gates_beside(RECORDS))
    assert fill(content, load_records(RECORDS), gates) == content


def test_the_committed_records_belong_to_the_shipped_bundles():
    shipped = {
        path.stem: hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
        for path in (ROOT / "models" / "bundles").glob("*.bundle")
    }
    evaluated = {r["bundle"]["name"]: r["bundle"]["manifest_sha256"] for r in load_records(RECORDS)}
    assert evaluated == shipped
    assert all(check["passed"] for record in load_records(RECORDS) for check in record["health"])


def test_the_committed_gate_records_belong_to_the_shipped_bundles():
    shipped = {
        path.stem: hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
        for path in (ROOT / "models" / "bundles").glob("*.bundle")
    }
    records = load_gate_records(results_page.gates_beside(RECORDS))
    assert {record["bundle"]: record["manifest_sha256"] for record in records} == shipped
    for record in records:
        assert all(check["passed"] for check in record["health"])
        assert all(each["kept"] for each in record["promise"].values())


def test_a_bundles_engines_stand_in_one_table(record):
    filled = fill(block("engines shown"), [record])
    assert re.search(r"^\| openvino/int8 \|", filled, re.MULTILINE)
