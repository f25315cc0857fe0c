"""Help that leaves nothing open: a sentence for every command, and for every option its meaning, unit and default."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from framegate.runtime.cli.main import build_parser
from framegate.runtime.cli.summaries import SUMMARIES

UNITS = {
    # counts
    "N", "FRAMES", "EPOCHS",
    # time
    "FPS", "MS", "SECONDS",
    # space
    "PIXELS",
    # ratios, all within 0 to 1
    "SHARE", "PROBABILITY", "DISTANCE",
    # others
    "MIB", "CORE", "PORT", "RATE", "SCORE", "WEIGHT", "TEMPERATURE",
}  # fmt: skip
"""What stands behind an option that takes a number."""


def _commands() -> dict[str, argparse.ArgumentParser]:
    """Every command of this installation, the ones that need torch too."""
    found: dict[str, argparse.ArgumentParser] = {}
    for name in (*SUMMARIES, *metadata.entry_points(group="framegate.commands").names):
        group = next(a for a in build_parser(name)._actions if isinstance(a, argparse._SubParsersAction))
        found |= dict(_leaves(name, group.choices[name]))
    return found


def _leaves(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A command, or the commands below it: ``drives index``."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield name, parser
    for action in below:
        for word, each in action.choices.items():
            yield from _leaves(f"{name} {word}", each)


COMMANDS = _commands()


def _options() -> Iterator[tuple[str, argparse.ArgumentParser, argparse.Action]]:
    for name, parser in COMMANDS.items():
        for action in parser._actions:
            if not isinstance(action, argparse._HelpAction):
                yield f"{name} {'/'.join(action.option_strings) or action.dest}", parser, action


def _problems(parser: argparse.ArgumentParser, action: argparse.Action) -> list[str]:
    """What a reader of the help would have to guess."""
    if not action.help:
        return ["no help text"]
    text = parser._get_formatter()._expand_help(action)
    found = []
    takes_value = action.nargs != 0
    if action.option_strings and takes_value and not action.required:
        stated = re.search(r"\(default: (.+)\)$", text)
        if stated is None:
            found.append("does not end in (default: ...)")
        elif action.default not in (None, [], ""):
            default = f"{action.default:g}" if isinstance(action.default, float) else str(action.default)
            if not stated[1].startswith(default):
                found.append(f"default {default}, the help says {stated[1]}")
    number = action.type in (int, float) or (isinstance(action.default, int | float) and takes_value)
    if number and action.option_strings and action.metavar not in UNITS:
        found.append(f"no unit: {action.metavar!r}")
    return found


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_says_what_it_means_in_which_unit_and_its_default(command: str) -> None:
    parser = COMMANDS[command]
    options = [(name, action) for name, owner, action in _options() if owner is parser]
    problems = {name: found for name, action in options if (found := _problems(parser, action))}
    assert problems == {}
    assert parser.format_help()


def test_the_check_finds_what_is_missing() -> None:
    parser = argparse.ArgumentParser()
    bad = [
        parser.add_argument("--silent", action="store_true"),
        parser.add_argument("--open", help="a file"),
        parser.add_argument("--wrong", default="a", help="a word (default: b)"),
        parser.add_argument("--bare", type=float, help="a number (default: none)"),
    ]
    assert [len(_problems(parser, action)) for action in bad] == [1, 1, 1, 1]


def _help(*code: str) -> str:
    lines = ["import sys", "from framegate.runtime.cli.main import main", *code]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False, env={"COLUMNS": "200"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _sentences(shown: str) -> dict[str, str]:
    return dict(re.findall(r"^    (\w+)\s+(\S.+)$", shown, re.MULTILINE))  # a long name stands on a line of its own


def test_help_has_a_sentence_for_every_command_and_loads_none_of_them() -> None:
    shown = _help(
        "try: main(['--help'])",
        "except SystemExit: pass",
        "print('loaded:', [name for name in ('torch', 'onnx', 'starlette', 'numpy', 'cv2') if name in sys.modules])",
    )
    assert shown.splitlines()[-1] == "loaded: []"
    sentences = _sentences(shown)
    assert set(sentences) == {name.partition(" ")[0] for name in COMMANDS}
    assert all(len(sentence.split()) >= 5 for sentence in sentences.values())
    assert "--help" not in " ".join(sentences.values())


def test_a_command_from_elsewhere_needs_no_sentence(tmp_path: Path) -> None:
    """One package with a sentence (and a percent sign in it), one without, one whose module lies in no package."""
    (tmp_path / "told").mkdir()
    (tmp_path / "told" / "__init__.py").touch()
    (tmp_path / "told" / "summaries.py").write_text("SUMMARIES = {'told': 'do 100% of it'}\n")
    (tmp_path / "untold").mkdir()
    (tmp_path / "untold" / "__init__.py").touch()
    info = tmp_path / "elsewhere-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    commands = ("told = told.command:register", "untold = untold.command:register", "alone = alone:register")
    (info / "entry_points.txt").write_text("\n".join(["[framegate.commands]", *commands]) + "\n")
    shown = _help(f"sys.path.insert(0, {str(tmp_path)!r})", "try: main(['--help'])", "except SystemExit: pass")
    sentences = _sentences(shown)
    assert sentences["told"] == "do 100% of it"
    assert sentences["untold"] == "see framegate untold --help"
    assert sentences["alone"] == "see framegate alone --help"
