"""The wheel is what the vehicle gets; an editable install hides what is missing from it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from repository import ROOT

from framegate.cuda_kernels.compile.sources import included_headers, kernel_sources


def fat_binaries() -> list[Path]:
    """What `make kernels` has left beside the sources, if it was run."""
    return sorted([*(ROOT / "cuda_kernels").glob("*/*.fatbin"), *(ROOT / "cuda_kernels").glob("*/*.fatbin.json")])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    target = tmp_path_factory.mktemp("wheel")
    # Built from what git tracks, so that a stale build folder cannot lend it modules.
    source = target / "source"
    source.mkdir()
    names = (
        subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        .stdout.decode()
        .split("\0")
    )
    for name in names:
        kept = (".py", ".toml", ".typed", ".cu", ".cuh", ".c", ".h", ".html", ".css", ".js", "LICENSE", "README.md")
        if name.endswith(kept) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    for binary in fat_binaries():  # git ignores them
        (source / binary.relative_to(ROOT)).write_bytes(binary.read_bytes())
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(target),
            str(source),
        ],
        check=True,
    )
    return next(target.glob("*.whl"))


def test_the_wheel_holds_every_module_and_nothing_generic(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for room in ("cuda_kernels", "runtime", "models", "export", "evaluation", "camera_demo"):
        expected = {f"framegate/{room}/{path.name}" for path in (ROOT / room).glob("*.py")}
        assert expected - inside == set()
        assert f"framegate/{room}/py.typed" in inside
    page = {f"framegate/camera_demo/page/{path.name}" for path in (ROOT / "camera_demo" / "page").iterdir()}
    assert page <= inside
    top = {name.split("/")[0] for name in inside}
    assert {name for name in top if not name.endswith(".dist-info")} == {"framegate"}
    assert "framegate/__init__.py" not in inside  # a namespace package: other parts may be installed separately


def test_the_wheel_holds_the_kernels_sources_and_their_fat_binaries_if_built(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("framegate/cuda_kernels/")}
    headers = {header for source in kernel_sources().values() for header in included_headers(source)}
    needed = {f"framegate/{path.relative_to(ROOT)}" for path in (*kernel_sources().values(), *headers)}
    assert len(needed) > len(kernel_sources())
    assert needed - inside == set()
    shipped = {f"framegate/{path.relative_to(ROOT)}" for path in fat_binaries()}
    assert shipped == {name for name in inside if ".fatbin" in name}


def test_the_wheel_runs_from_another_folder(wheel, tmp_path, tiny_bundle):
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)],
        check=True,
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, 'site'); import framegate.runtime as r; print(r.__file__);"
            "from framegate.runtime.cli.main import main; raise SystemExit(main(['info', sys.argv[1]]))",
            str(tiny_bundle),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site")) or done.stdout.startswith("site/")
    assert "tiny: 3 labels" in done.stdout
