"""`make test-fast` leaves slow tests out, but no room; what makes it fast is there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from parallel_run import COLLECTED_FOLDERS, FAST_CASES, LONGEST, TESTS, is_fast_run, listed_as_slow, without_case


def test_every_folder_still_runs_something(request: pytest.FixtureRequest) -> None:
    collected = request.config.stash[COLLECTED_FOLDERS]
    kept = {item.path.parent for item in request.session.items}
    assert sorted(str(folder) for folder in collected - kept) == []
    if whole(request):
        assert collected == {path.parent for path in TESTS.rglob("test_*.py")}


def whole(request: pytest.FixtureRequest) -> bool:
    """Whether all tests were asked for, and not some files."""
    return [Path(argument).resolve() for argument in request.config.args] == [TESTS]


def test_a_fast_run_holds_nothing_slow_and_few_cases_of_a_test(request: pytest.FixtureRequest) -> None:
    if not is_fast_run(request.config):
        pytest.skip("this is no fast run")
    items = request.session.items
    assert [item.nodeid for item in items if item.get_closest_marker("slow") is not None] == []
    assert listed_as_slow() & {without_case(item.nodeid) for item in items} == set()
    cases = Counter(without_case(item.nodeid) for item in items)
    assert [test for test, number in cases.items() if number > FAST_CASES] == []


def test_the_files_that_start_first_are_there() -> None:
    assert [name for name in LONGEST if not (TESTS / name).is_file()] == []


def test_the_list_of_slow_tests_is_not_stale(request: pytest.FixtureRequest) -> None:
    named = listed_as_slow()
    assert len(named) > 100
    gone = [test for test in named if not (TESTS.parent / test.partition("::")[0]).is_file()]
    assert len(gone) < 0.1 * len(named), "pytest --note-slow writes the list anew"
