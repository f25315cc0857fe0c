"""The wheel is what the vehicle gets; an editable install hides what is missing from it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from repository import CLIPS, ROOT

from framegate.cuda_kernels.compile.sources import included_headers, kernel_sources

ROOMS = ("benchmarks", "camera_demo", "cuda_kernels", "evaluation", "export", "models", "runtime")
BUNDLE = "hybrid-cifar10"
CLIP = "framegate/camera_demo/clips/highway_1280x720_25fps.mp4"
NEEDLESS = ("benchmarks/results/", "docs/", "models/checkpoints/", "tests/helpers/", "tests/golden/")
"""What the tests need not copy, and no wheel may hold."""


HELP = """
import contextlib, io, json, sys
from framegate.__main__ import main
said = {}
for command in sys.argv[1:]:
    sys.argv[1:] = [*command.split(), "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main()
    said[command] = out.getvalue()
print(json.dumps(said))
"""


def fat_binaries() -> list[Path]:
    """What `make kernels` has left beside the sources, if it was run."""
    return sorted([*(ROOT / "cuda_kernels").glob("*/*.fatbin"), *(ROOT / "cuda_kernels").glob("*/*.fatbin.json")])


def tracked() -> list[str]:
    """The files that git knows or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [name for name in listed if name and os.path.lexists(ROOT / name)]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """Built from what git tracks, so that a stale build folder cannot lend it modules."""
    folder = tmp_path_factory.mktemp("sdist")
    source = folder / "source"
    for name in tracked():
        if not name.startswith(NEEDLESS):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    for binary in fat_binaries():  # git ignores them
        shutil.copy(binary, source / binary.relative_to(ROOT))
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """Built from the sdist: which is then known to be complete."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = next(path for path in folder.iterdir() if path.is_dir())
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", str(folder), str(source)], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def inside(wheel) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel, and the packages that it needs from this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True)
    # A path file adds folders, but not those that path files in them add: this checkout stays out.
    others = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "others.pth").write_text("\n".join(others) + "\n", encoding="utf-8")
    return folder


def call(environment: Path, folder: Path, *words: str) -> str:
    """Run the environment's Python in a folder; what it printed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(
        [str(environment / "bin" / "python"), *words],
        cwd=folder, env=kept, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_module_and_nothing_generic(inside):
    modules = {f"framegate/{name}" for name in tracked() if name.endswith(".py") and name.startswith(ROOMS)}
    modules |= {"framegate/__init__.py", "framegate/__main__.py"}
    assert len({name for name in modules if name.startswith("framegate/runtime/backends/tensorrt/")}) > 5
    assert {name for name in inside if name.endswith(".py")} == modules
    assert {name.split("/")[0] for name in inside if ".dist-info/" not in name} == {"framegate"}
    assert "framegate/py.typed" in inside
    assert [name for name in inside if name.removeprefix("framegate/").startswith(NEEDLESS)] == []


def test_the_wheel_holds_what_the_demo_needs(inside):
    page = {f"framegate/camera_demo/page/{path.name}" for path in (ROOT / "camera_demo" / "page").iterdir()}
    assert {path.suffix for path in map(Path, page)} == {".html", ".css", ".js"}
    assert page <= inside
    assert {CLIP, "framegate/camera_demo/clips/LICENSE"} <= inside
    folder = ROOT / "models" / "bundles" / f"{BUNDLE}.bundle"
    bundle = {f"framegate/models/bundles/{BUNDLE}.bundle/{path.name}" for path in folder.iterdir()}
    assert f"framegate/models/bundles/{BUNDLE}.bundle/manifest.json" in bundle
    assert {name for name in inside if name.startswith("framegate/models/bundles/")} == bundle


def test_the_wheel_holds_the_kernels_sources_and_their_fat_binaries_if_built(inside):
    inside = {name for name in inside if name.startswith("framegate/cuda_kernels/")}
    headers = {header for source in kernel_sources().values() for header in included_headers(source)}
    needed = {f"framegate/{path.relative_to(ROOT)}" for path in (*kernel_sources().values(), *headers)}
    assert len(needed) > len(kernel_sources())
    assert needed - inside == set()
    shipped = {f"framegate/{path.relative_to(ROOT)}" for path in fat_binaries()}
    assert shipped == {name for name in inside if ".fatbin" in name}


def test_the_wheel_is_as_small_as_the_documents_say(wheel):
    said = re.search(r"below (\d+) MB", (ROOT / "docs" / "install.md").read_text(encoding="utf-8"))
    assert said is not None
    assert wheel.stat().st_size < int(said[1]) * 1e6


def test_the_wheel_is_for_every_python_of_this_platform(wheel, inside):
    assert wheel.name.split("-")[2:4] == ["py3", "none"]
    assert wheel.stem.endswith(sysconfig.get_platform().replace("-", "_"))
    libraries = {name for name in inside if name.endswith((".so", ".pyd", ".dylib"))}
    compiled = {f"framegate/runtime/native/{name}" for name in ("_native.so", "_fast_path.abi3.so")}
    assert libraries <= compiled
    if shutil.which("cc") or shutil.which("gcc"):
        assert libraries == compiled


def test_the_sdist_holds_the_sources_of_the_compiled_part(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        links = [member.name for member in archive.getmembers() if member.issym() or member.islnk()]
    sources = {f"src/framegate/{name}" for name in tracked() if name.startswith("runtime/") and name.endswith(".c")}
    assert len(sources) == 8
    assert sources | {"src/framegate/runtime/native/native.h", "setup.py", "pyproject.toml", "LICENSE"} <= names
    assert links == []
    assert [name for name in names if name.startswith("tests/test_")] == []


def test_the_wheel_does_the_main_job_from_another_folder(environment, tmp_path):
    where = "import framegate, framegate.runtime.native as n; print(framegate.__file__, n.library()[1])"
    module = call(environment, tmp_path, "-c", "import framegate.runtime.native as n; print(n.fast_path_module())")
    file, compiled = call(environment, tmp_path, "-c", where).split(maxsplit=1)
    assert Path(file).is_relative_to(environment)
    if shutil.which("cc") or shutil.which("gcc"):
        assert compiled.strip() == "_native.so"
        assert "_fast_path" in module
    rows = json.loads(call(environment, tmp_path, "-m", "framegate", "bundles", "--json"))
    assert [(row["name"], row["place"], row["error"]) for row in rows] == [(BUNDLE, "package", None)]
    clip = call(environment, tmp_path, "-c", "from framegate.camera_demo.shipped import CLIP; print(CLIP)").strip()
    assert Path(clip).is_relative_to(environment)
    assert Path(clip).read_bytes() == (CLIPS / Path(clip).name).read_bytes()
    words = ["--roi", "car=795,385,160,130", "--roi", "sky=700,20,160,130", "--backend", "onnxruntime"]
    words += ["--precision", "fp32", "--as-fast-as-possible", "--jsonl", "verdicts.jsonl", "--json"]
    summary = json.loads(call(environment, tmp_path, "-m", "framegate", "run", clip, "--bundle", BUNDLE, *words))
    verdicts = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    accepted = [(row["stream"], row["verdict"]) for row in verdicts]
    assert sorted(set(accepted)) == [("car", "ACCEPT"), ("sky", "REJECT")]
    assert len(accepted) == 2 * summary["frames"] == 76


@pytest.mark.long  # tests/runtime/cli/test_help.py asks this installation; the wheel holds the same files
def test_every_command_of_the_wheel_explains_itself(environment, tmp_path):
    pytest.importorskip("torch")  # of the rooms that train and evaluate
    pytest.importorskip("onnx")
    commands = ("run", "bundles", "train", "export", "evaluate", "demo", "bench", "engine")
    # One process for all of them, because five import torch.
    said = json.loads(call(environment, tmp_path, "-c", HELP, "", *commands))
    for command in commands:
        assert f"\n    {command} " in said[""]
        assert f"usage: framegate {command}" in said[command]


@pytest.mark.long  # tests/test_public_names.py asks mypy about this installation; the wheel holds the same files
def test_mypy_knows_the_types_from_the_wheel(environment, tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    snippet = "from framegate import Session, open_source\nreveal_type(Session.open('x'))\nreveal_type(open_source)\n"
    (tmp_path / "snippet.py").write_text(snippet + "from framegate import Sesion\n")
    options = ["--strict", "--no-incremental", "--config-file=", "--python-executable"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(environment / "bin" / "python"), "snippet.py"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'snippet.py:2: note: Revealed type is "framegate.runtime.session.Session"' in done.stdout
    assert "-> framegate.runtime.sources.base.Source" in done.stdout
    assert 'snippet.py:4: error: Module "framegate" has no attribute "Sesion"' in done.stdout
    assert done.stdout.count("error") == 2, done.stdout  # that one, and the count of errors


@pytest.mark.skipif(shutil.which("pyright") is None, reason="pyright is not installed (npm install -g pyright)")
def test_pyright_knows_the_types_from_the_wheel(environment, tmp_path):
    (tmp_path / "snippet.py").write_text("from framegate import Session\nreveal_type(Session.open('x'))\n")
    done = subprocess.run(
        ["pyright", "--pythonpath", str(environment / "bin" / "python"), "snippet.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'Type of "Session.open(\'x\')" is "Session"' in done.stdout
    assert "0 errors" in done.stdout
