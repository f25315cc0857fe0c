"""Every table of README and docs is made from a committed record, and is the one that the record gives today."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
from report_fixture import record as invented
from repository import ROOT

from framegate.benchmarks import speed_tables, tables
from framegate.benchmarks.tables import BLOCKS, Writer, documents, main
from framegate.runtime.errors import DataError

RESULTS = ROOT / "benchmarks" / "results"


def block(name, content="stale\n"):
    return f"<!-- begin {name} -->\n{content}<!-- end -->\n"


@pytest.fixture
def results(tmp_path):
    """A folder of records with two invented evaluations."""
    folder = tmp_path / "results"
    (folder / "evaluation").mkdir(parents=True)
    for name in ("shown", "other"):
        found = invented()
        found["bundle"]["name"] = name
        (folder / "evaluation" / f"{name}.json").write_text(json.dumps(found))
    return folder


def test_no_committed_block_is_stale(capsys):
    assert main(["--check"]) == 0, capsys.readouterr()


def test_every_block_stands_in_a_document():
    """A table that nobody shows is one that nobody looks at."""
    used = {}
    for path in documents():
        for name in re.findall(r"^<!-- begin (.+) -->$", path.read_text(encoding="utf-8"), re.MULTILINE):
            used.setdefault(name.partition(" ")[0], []).append(path.relative_to(ROOT).as_posix())
    assert set(used) == set(BLOCKS)
    assert {"README.md"} <= {path for name in ("demo", "models", "speed-line") for path in used[name]}


def test_a_changed_figure_is_seen_and_written(tmp_path, capsys):
    """The check is not blind: one digit of a committed document or of a committed record is enough."""
    results = tmp_path / "results"
    shutil.copytree(RESULTS, results)
    page = tmp_path / "page.md"
    page.write_text("A\n\n" + block("latency") + "\nB {1} \\1\n\n" + block("demo") + "C\n", encoding="utf-8")
    words = [str(page), "--results", str(results)]
    assert main(["--check", *words]) == 1
    assert capsys.readouterr().out.splitlines() == [f"{page}: latency is stale", f"{page}: demo is stale"]
    assert "stale" in page.read_text(encoding="utf-8")
    assert main(words) == 0
    filled = page.read_text(encoding="utf-8")
    assert filled.startswith("A\n\n<!-- begin latency -->\n\n**One frame after the other.**")
    assert "\n\n<!-- end -->\n\nB {1} \\1\n\n<!-- begin demo -->\n\n| region |" in filled
    assert filled.endswith("\n\n<!-- end -->\nC\n")
    capsys.readouterr()
    assert main(["--check", *words]) == main(words) == 0
    assert capsys.readouterr().out == ""
    record = json.loads((results / "demo.json").read_text())
    record["streams"]["sky"]["accepted"] += 1
    (results / "demo.json").write_text(json.dumps(record))
    assert main(["--check", *words]) == 1
    assert capsys.readouterr().out == f"{page}: demo is stale\n"
    row = json.loads((RESULTS / "cpu-latency.json").read_text())["configurations"]["openvino/int8"]
    figure = f"| {row['capture_to_verdict']['p50_ms']:.2f} ("
    assert figure in filled
    page.write_text(filled.replace(figure, "| 1234.00 (", 1), encoding="utf-8")
    assert Writer(RESULTS).stale(page.read_text(encoding="utf-8")) == ["latency"]


def test_a_block_of_one_bundle(results):
    filled = Writer(results).fill(block("engines other") + block("models"))
    assert "**other: from the trained network to the engines**" in filled
    assert filled.index("| other |") < filled.index("| shown |")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (block("modls"), "block 'modls': expected one of demo, speed-line, "),
        (block("engines"), "block 'engines': expected 'engines' and the name of a bundle"),
        (block("models shown"), "block 'models shown': expected 'models' alone"),
        (block("engines gone"), "block 'engines gone': no record of the bundle gone"),
        (block("gate"), "gate: no records .* `framegate gate` writes them"),
        (block("latency"), "cpu-latency.json: cannot be read"),
        (block("demo"), "demo.json: cannot be read .*make results"),
        ("a\n<!-- end -->\n", "line 2: '<!-- end -->' without"),
        ("a\n<!-- begin models -->\n", "block 'models' has no '<!-- end -->'"),
        ("<!-- begin models -->\n" + block("models"), "line 2: block 'models' begins before"),
    ],
)
def test_what_cannot_be_filled_is_one_line_and_changes_nothing(results, tmp_path, capsys, document, said):
    page = tmp_path / "page.md"
    page.write_text(document, encoding="utf-8")
    assert main([str(page), "--results", str(results)]) == 1
    error = capsys.readouterr().err
    assert re.match(rf"tables: {re.escape(str(page))}: .*{said}", error), error
    assert len(error.splitlines()) == 1
    assert page.read_text(encoding="utf-8") == document


def test_a_record_that_lacks_what_the_table_shows(tmp_path):
    (tmp_path / "demo.json").write_text('{"streams": {"sky": {"evaluated": 1}}}')
    with pytest.raises(DataError, match=r"block 'demo': .*demo\.json lacks KeyError\('accepted_labels'\)"):
        Writer(tmp_path).block("demo")
    for damaged in ("[]", "3", '{"streams": []}'):
        (tmp_path / "demo.json").write_text(damaged)
        with pytest.raises(DataError, match="measure it again"):
            Writer(tmp_path).block("demo")


def test_marks_that_are_only_spoken_of_are_no_blocks(results):
    document = "Write `<!-- begin models -->`.\n\n    <!-- begin models -->\n    <!-- end -->\n"
    assert Writer(results).fill(document) == document


def test_a_document_that_is_not_there(tmp_path, capsys):
    assert main([str(tmp_path / "gone.md")]) == 1
    assert "gone.md: cannot be read" in capsys.readouterr().err


def test_without_a_checkout_a_document_must_be_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    assert main(["--check"]) == 2
    assert "no document with a block" in capsys.readouterr().err


def test_the_sentence_on_speed_holds_the_records_figures():
    record = json.loads((RESULTS / "cpu-latency.json").read_text())
    row = record["configurations"][record["default"]]
    said = speed_tables.speed_line(record)
    for figure in ("p50_ms", "p99_ms"):
        for part in ("capture_to_verdict", "resize_normalise_infer"):
            assert f" {row[part][figure]:.2f} ms" in said.replace("\n", " ")
    assert record["default"] in said
    assert record["machine"]["date"] in said


def test_documents_are_checked_without_pytorch():
    """Whoever changes a document needs the runtime's packages only."""
    script = "import sys; sys.modules |= dict.fromkeys(('torch', 'matplotlib', 'jinja2')); " + (
        "from framegate.benchmarks.tables import main; sys.exit(main(['--check']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_other_module_writes_documents():
    """One writer: nobody else in the packages knows how a block is marked."""
    rooms = ("runtime", "export", "models", "evaluation", "camera_demo", "cuda_kernels", "benchmarks")
    sources = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    assert [path for path in sources if "<!-- begin" in path.read_text(encoding="utf-8")] == [
        ROOT / "benchmarks" / "tables.py"
    ]
