from __future__ import annotations

from framegate.runtime import console


def test_a_log_file_gets_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(console, "_LINE_INTERVAL_S", 0.0)
    with console.progress_bar() as progress:
        progress("counting", 3, 7)
    assert capsys.readouterr().err.split() == ["0", "s", "counting", "3/7"]


def test_a_log_file_is_not_flooded(capsys):
    with console.progress_bar() as progress:
        for k in range(100):
            progress("counting", k, 100)
    assert capsys.readouterr().err == ""
