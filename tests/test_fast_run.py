"""`make test-fast` leaves slow tests out, but no room."""

from __future__ import annotations

from pathlib import Path

import pytest
from parallel_run import COLLECTED_FOLDERS
from repository import ROOT

TESTS = ROOT / "tests"


def test_every_folder_still_runs_something(request: pytest.FixtureRequest) -> None:
    collected = request.config.stash[COLLECTED_FOLDERS]
    kept = {item.path.parent for item in request.session.items}
    assert sorted(str(folder) for folder in collected - kept) == []
    if [Path(argument).resolve() for argument in request.config.args] == [TESTS]:
        assert collected == {path.parent for path in TESTS.rglob("test_*.py")}
