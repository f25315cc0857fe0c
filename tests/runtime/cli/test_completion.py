"""Completion of commands, options and names of bundles, asked for as a shell asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from framegate.runtime.cli import completion
from framegate.runtime.cli.main import main
from framegate.runtime.errors import UsageError

pytest.importorskip("argcomplete")


def asked(line: str, tmp_path) -> list[str]:
    """What is offered for a line that is being typed."""
    answers = tmp_path / "answers"
    environment = os.environ | {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SUPPRESS_SPACE": "1", "COMP_LINE": line,
        "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(answers),
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", "framegate"], env=environment, check=True, timeout=60)
    return [word.strip() for word in answers.read_text().split("\n")]


def test_commands_options_and_bundles_are_offered(tmp_path):
    assert {"run", "replay"} <= set(asked("framegate r", tmp_path))
    assert "train" in asked("framegate tr", tmp_path)  # a command of a room that is not loaded for this
    assert "--deadline-ms" in asked("framegate run 0 --dead", tmp_path)
    assert "hybrid-cifar10" in asked("framegate run 0 --bundle hybrid-c", tmp_path)


def test_the_command_is_the_first_finished_word():
    typed = completion._typed_command
    assert typed("framegate run 0 --b", "") == "run"
    assert typed("framegate tr", "") is None
    assert typed("framegate export 'half a name", "") == "export"
    assert typed("framegate run 0 --b", "13") is None


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_shells_code_is_printed_as_it_is(shell, capsys):
    """The console of people writes a line break as two characters; a shell would take the code for one comment."""
    from argcomplete.shell_integration import shellcode

    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out.rstrip("\n") == shellcode(["framegate"], shell=shell).rstrip("\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_after_it_evaluated_the_code():
    code = 'eval "$("$0" -m framegate completion bash)" && complete -p framegate'
    bash = ["bash", "--norc", "--noprofile", "-c", code, sys.executable]
    done = subprocess.run(bash, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "_python_argcomplete framegate" in done.stdout


def test_without_the_package_its_install_line_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    monkeypatch.setitem(sys.modules, "argcomplete.shell_integration", None)  # another test may have loaded it
    with pytest.raises(UsageError, match=r"pip install 'framegate\[completion\]'"):
        completion.run(None)
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    completion.answer_shell(lambda command: None)  # a shell that still asks gets no traceback
