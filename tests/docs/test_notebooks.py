"""The notebooks run from top to bottom, as Jupyter would run them, and are stored without results."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def run(path: Path) -> dict[str, Any]:
    """Execute the code of a notebook in one namespace; an error names its cell."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells(path, "code"), 1):
        code = compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        exec(code, names)
    return names


def test_there_are_three_notebooks_and_a_page_names_each():
    assert len(NOTEBOOKS) == 3
    page = (ROOT / "docs" / "ten-minutes.md").read_text("utf-8")
    assert [path.name for path in NOTEBOOKS if f"notebooks/{path.name}" not in page] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_results(path):
    found = json.loads(path.read_text("utf-8"))
    assert found["nbformat"] == 4
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(path, "code"))
    assert len({cell["id"] for cell in found["cells"]}) == len(found["cells"])
    assert path.stat().st_size < 20_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, monkeypatch, capsys):
    import matplotlib.pyplot as plt

    monkeypatch.chdir(ROOT)
    plt.switch_backend("Agg")
    try:
        names = run(path)
    finally:
        plt.close("all")
    said = capsys.readouterr().out
    assert "nan" not in said.lower()
    if path.stem == "gate_a_classifier":
        assert names["verdicts"]["white car"].label == "automobile"
        assert not names["verdicts"]["black picture"].accepted
    elif path.stem == "what_entropy_sees":
        assert "entropy alone would accept it" in said  # as the text says
    else:
        assert "BLACK" in said
        assert "FROZEN" in said
