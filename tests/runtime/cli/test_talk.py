"""What every command has: -q and -v, JSON where it prints tables or figures; and colours that can be switched off."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from importlib import metadata

import pytest

from framegate.runtime import console
from framegate.runtime.cli.main import build_parser, main
from framegate.runtime.cli.summaries import SUMMARIES
from framegate.runtime.cli.talk import add_talk_options

NO_FIGURES = {
    "completion": "prints a script for the shell",
    "demo": "shows a page",
    "drives index": "writes a table (Parquet) and says where",
    "drives labels": "writes a table (Parquet) and says where",
    "drives mine": "writes frames and a CSV file and says where",
    "drives report": "writes a page and says where",
    "drives what-if": "writes a page and says where",
    "handover include": "prints the name of a folder",
    "handover listen": "prints what comes, for as long as it comes",
    "onnx": "writes a file and says where",
    "ros2": "publishes verdicts and prints no result",
    "sign": "writes a signature and says whose",
}
"""Commands whose result is no table of figures, and what it is instead."""


def leaves(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield name, parser
    for action in below:
        for word, command in action.choices.items():
            yield from leaves(command, f"{name} {word}".strip())


@pytest.fixture(scope="module")
def commands():
    found: dict[str, argparse.ArgumentParser] = {}
    for name in (*SUMMARIES, *metadata.entry_points(group="framegate.commands").names):
        found |= dict(leaves(build_parser(name)))
    return found


def test_every_command_can_be_quiet_and_verbose(commands):
    assert len(commands) > 20
    for name, parser in commands.items():
        known = parser._option_string_actions
        assert {"-q", "--quiet", "-v", "--verbose"} <= set(known), name
        assert known["-q"].default is argparse.SUPPRESS, name  # else it would take back `framegate -q COMMAND`


def test_every_command_that_prints_figures_prints_them_as_json_too(commands):
    without = {name for name, parser in commands.items() if "--json" not in parser._option_string_actions}
    assert without == set(NO_FIGURES)


def test_an_option_of_all_commands_is_added_once(commands):
    parser = next(iter(commands.values()))
    before = len(parser._actions)
    add_talk_options(parser)
    assert len(parser._actions) == before


@pytest.fixture
def usual():
    yield
    console.speak(quiet=False, verbose=False)


SOURCE = "synthetic://?frames=40&width=160&height=128"


@pytest.mark.parametrize("words", [["-q", "health"], ["health", "-q"], ["health"]], ids=" ".join)
def test_quiet_says_nothing_and_the_result_stays(words, tmp_path, capsys, usual):
    out = tmp_path / "camera.json"
    assert main([*words, SOURCE, "--out", str(out), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["frames"] == 40
    assert said.err == ""


def test_quiet_silences_what_goes_as_it_should_and_no_warning(capsys, usual):
    console.speak(quiet=True, verbose=False)
    console.note("engine")
    console.to_stderr("warning")
    with console.progress_bar() as progress:
        progress("work", 1, 2)
    assert capsys.readouterr().err == "warning\n"


def test_verbose_says_what_runs_and_where_an_error_comes_from(capsys, usual):
    address = "rtsp://user:secret@127.0.0.1:1/none"
    assert main(["-v", "info", "no-such-bundle"]) != 0
    said = capsys.readouterr().err
    assert re.search(r"^framegate \S+, Python 3", said, re.MULTILINE)
    assert "-v info no-such-bundle" in said
    assert "Traceback" in said
    assert said.rstrip().splitlines()[-1].startswith("framegate: ")
    assert main(["health", address, "--out", "/no/such/folder/x.json", "-v"]) != 0
    said = capsys.readouterr().err
    assert "secret" not in said
    assert main(["info", "no-such-bundle"]) != 0
    assert "Traceback" not in capsys.readouterr().err


def test_quiet_and_verbose_together_are_refused(capsys, usual):
    with pytest.raises(SystemExit) as stopped:
        main(["health", SOURCE, "--out", "x.json", "-q", "-v"])
    assert stopped.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)], ids=["usual", "NO_COLOR"])
def test_colours_can_be_switched_off(variables, coloured, monkeypatch, capsys):
    """https://no-color.org: any value but an empty one."""
    from rich.table import Table

    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color", **variables}.items():
        monkeypatch.setenv(name, value)
    console._consoles.cache_clear()
    try:
        table = Table("what")
        table.add_row("[red]text[/red]", style="red")
        console.OUT.print(table)
    finally:
        console._consoles.cache_clear()
    assert bool(re.search(r"\x1b\[3\d", capsys.readouterr().out)) is coloured
