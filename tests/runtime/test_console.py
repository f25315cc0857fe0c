from __future__ import annotations

import itertools

from framegate.runtime import console


def test_a_log_file_gets_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(console, "_LINE_INTERVAL_S", 0.0)
    with console.progress_bar() as progress:
        progress("counting", 3, 7)
    assert capsys.readouterr().err.split() == ["0", "s", "counting", "3/7"]


def test_the_first_line_of_a_log_comes_soon_and_the_gaps_grow(monkeypatch):
    told, now = [], [0.0]
    monkeypatch.setattr(console, "to_stderr", lambda line: told.append(int(now[0])))
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    update = console._progress_lines()
    while now[0] < 150:
        now[0] += 1
        update("work", int(now[0]), 1000)
    assert told[0] <= 5
    gaps = [later - earlier for earlier, later in itertools.pairwise(told)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == 30


def test_a_log_file_is_not_flooded(capsys):
    with console.progress_bar() as progress:
        for k in range(100):
            progress("counting", k, 100)
    assert capsys.readouterr().err == ""


def test_a_log_line_says_how_long_the_rest_takes(monkeypatch) -> None:
    """From the pace since the present total is counted: nothing else says how quickly that went which is done."""
    told, now = [], [100.0]
    monkeypatch.setattr(console, "_LINE_INTERVAL_S", 10.0)
    monkeypatch.setattr(console, "to_stderr", told.append)
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    update = console._progress_lines()
    calls = (
        (20, 500, 1000),  # an earlier run has done half
        (20, 510, 1000),
        (20, 5, 50),  # in between, something else
        (20, 10, 50),
        (20, 510, 1000),
        (20, 520, 1000),
        (20, 1000, 1000),
    )
    for seconds, done, total in calls:
        now[0] += seconds
        update("work", done, total)
    assert told == [
        "    20 s  work  500/1000",
        "    40 s  work  510/1000, about 980 s left",
        "    60 s  work  5/50",
        "    80 s  work  10/50, about 160 s left",
        "   100 s  work  510/1000",
        "   120 s  work  520/1000, about 960 s left",
        "   140 s  work  1000/1000",
    ]


def test_too_little_work_tells_nothing(monkeypatch) -> None:
    told, now = [], [100.0]
    monkeypatch.setattr(console, "_LINE_INTERVAL_S", 10.0)
    monkeypatch.setattr(console, "to_stderr", told.append)
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    update = console._progress_lines()
    for seconds, done in ((0.5, 0), (20, 1), (20, 20)):
        now[0] += seconds
        update("work", done, 100)
    assert told == ["    20 s  work  1/100", "    40 s  work  20/100, about 160 s left"]
