"""What README and docs tell a newcomer to type is typed here."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import foreign_onnx
import pytest
from repository import ROOT

from framegate.runtime.cli import main as command_line

DOCUMENTS = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
CAMERA = "/dev/video0"
A_CAMERA_THAT_ENDS = "synthetic://?frames=80&fps=90"


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(document: str, language: str = "bash") -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks(document, language) for line in block.splitlines()]
    return [line for line in lines if line]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as somebody does who activated the environment of these tests."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        shlex.split(command), cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def test_every_command_of_readme_and_command_line_page_is_tested_here():
    known = ("framegate ", "make demo", "make test")
    typed = [*commands("README.md"), *commands("docs/commands.md")]
    assert [c for c in typed if not c.startswith(known)] == []


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """A folder with what a newcomer has, a classifier, its labels, photographs and a clip; and what was typed there."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "labels.txt").write_text("\n".join(foreign_onnx.LABELS), encoding="utf-8")
    (folder / "mine.onnx").write_bytes(foreign_onnx.foreign_model(scaling="imagenet").SerializeToString())
    foreign_onnx.write_photographs(folder / "photos", 600)
    (folder / "drive.mp4").symlink_to(ROOT / "camera_demo" / "clips" / "highway_1280x720_25fps.mp4")
    return folder, {}


def type_once(newcomer, command):
    """Run a command in the newcomer's folder, or give what it printed when it was typed there before."""
    folder, typed = newcomer
    if command not in typed:
        typed[command] = run(command, folder)
    return typed[command]


@pytest.mark.slow
def test_the_readme_from_a_camera_and_a_network_to_verdicts(newcomer):
    # The camera is a test pattern here, because it has to end.
    typed = [c for c in commands("README.md") if c.startswith("framegate ")]
    assert [c.split()[1] for c in typed] == ["doctor", "run", "health", "export", "run"]
    for command in typed:
        assert type_once(newcomer, command.replace(CAMERA, A_CAMERA_THAT_ENDS)).stdout.strip()
    lines = (newcomer[0] / "verdicts.jsonl").read_text(encoding="utf-8").splitlines()
    assert 0 < len(lines) <= 80


def _documented() -> list[object]:
    """A benchmark takes as long as all others together; tests/runtime/cli/test_cli.py runs one of a small network."""
    found = [c for c in commands("docs/commands.md") if c.startswith("framegate ")]
    return [pytest.param(c, marks=pytest.mark.long) if c.startswith("framegate bench ") else c for c in found]


@pytest.mark.long  # its commands are those of the README above, and a report
def test_ten_minutes_from_a_clip_and_a_network_to_ones_own_program_and_report(newcomer):
    folder, _ = newcomer
    (program,) = blocks("docs/ten-minutes.md", "python")
    (folder / "drive.py").write_text(program, encoding="utf-8")
    typed = commands("docs/ten-minutes.md")
    assert [c.split()[1] for c in typed] == ["doctor", "run", "export", "info", "health", "run", "drive.py", "evaluate"]
    for command in typed:
        few = " --limit 20" if command.startswith("framegate evaluate") else ""
        done = type_once(newcomer, command + few)
        assert done.stdout.strip(), command
        if command.startswith("python"):
            assert re.search(r"^\d+ verdicts could be used$", done.stdout, re.MULTILINE)
            assert "captured" in done.stdout.splitlines()[-1]
    lines = (folder / "drive.jsonl").read_text(encoding="utf-8").splitlines()
    frames = {json.loads(line)["frame_id"] for line in lines} - {None}  # None: a loaded machine was silent for a while
    assert 0 < len(frames) <= 38
    report = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "What to do: " in report
    assert 'id="slider-data"' in report


@pytest.mark.slow
@pytest.mark.parametrize("command", _documented())
def test_the_commands_of_the_command_line_s_page(command):
    assert run(command, ROOT).stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["make demo", pytest.param("make demo-faults", marks=pytest.mark.long)])
def test_make_demo(command, tmp_path):
    # The environment is the one that runs the tests; -o takes its installation step as done.
    venv = Path(sys.executable).parents[1]
    done = run(f"{command} VENV={venv} -o {venv}/.runtime OUT={tmp_path / 'out'}", ROOT)
    assert "capture to verdict" in done.stdout
    assert list(tmp_path.rglob("verdicts.jsonl"))
    assert list(tmp_path.rglob("annotated.mp4"))
    assert command in (*commands("README.md"), *commands("docs/commands.md"))


def test_make_test_runs_pytest():
    # It cannot be run from inside itself; what it would do can be read.
    assert "make test" in commands("README.md")
    done = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "-m pytest" in done.stdout


def described() -> list[str]:
    """The commands that the documents describe and that need data, a GPU or a camera: in blocks of plain text."""
    found = [c for document in DOCUMENTS for c in commands(document, "text")]
    return sorted({c.removeprefix(".venv/bin/") for c in found if re.match(r"(\.venv/bin/)?(framegate|make) ", c)})


@pytest.mark.parametrize("command", [c for c in described() if c.startswith("framegate ")])
def test_what_the_documents_describe_is_understood_by_the_command_line(command):
    words = shlex.split(command.replace("...", "SOMETHING"))[1:]
    if words[0] in {entry.name for entry in metadata.entry_points(group="framegate.commands")}:
        pytest.importorskip("torch", reason="the commands of the other rooms need torch")
    parsed = command_line.build_parser(words[0]).parse_args(words)  # a wrong option ends the process
    assert callable(parsed.run)


@pytest.mark.parametrize("command", [c for c in described() if c.startswith("make ")])
def test_the_make_targets_that_the_documents_name_are_there(command):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    target = command.split()[1]
    assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), target


def test_the_python_snippet():
    snippets = blocks("README.md", "python")
    assert len(snippets) == 1
    done = subprocess.run(
        [sys.executable, "-c", snippets[0]], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "captured" in lines[-1]
    accepted = [line for line in lines if re.fullmatch(r"\d+ automobile \d\.\d\d", line)]
    assert len(accepted) > 10, done.stdout  # a reader shall see that something is accepted, and why not everything is


@pytest.mark.parametrize(
    "snippet", [pytest.param(s, id=f"{d}-{k}") for d in DOCUMENTS for k, s in enumerate(blocks(d, "python"))]
)
def test_the_names_in_the_documents_snippets_exist(snippet):
    imported = [node for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.ImportFrom)]
    assert imported
    for node in imported:
        module = importlib.import_module(node.module)
        for name in node.names:
            assert hasattr(module, name.name), f"{node.module}.{name.name}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 170
