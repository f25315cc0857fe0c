"""Faults of other packages: found by their entry points, built for the bundle, and clear when something is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.cli import main as cli
from framegate.runtime.errors import FramegateError, SourceError, UsageError
from framegate.runtime.faults.inject import FaultInjector, fault_kinds, parse_faults
from framegate.runtime.faults.plugins import GROUP, load_plugins
from framegate.runtime.sources.synthetic import SyntheticSource
from framegate.runtime.verdict import Image

MODULE = """
import numpy as np

def darken(bundle, rois):
    factor = 1.0 / len(bundle.labels)
    return lambda image, severity: (image * factor / severity).astype(np.uint8)

def refuses(bundle, rois):
    raise ValueError("no gradient")

def breaks(bundle, rois):
    def fault(image, severity):
        raise RuntimeError("out of memory")
    return fault
"""


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A really installed distribution with faults: a folder on sys.path with its metadata."""
    (tmp_path / "someones_faults.py").write_text(MODULE)
    (tmp_path / "someones_torch_faults.py").write_text("import a_torch_that_is_missing")
    info = tmp_path / "someones_faults-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: someones-faults\nVersion: 1.0\n")
    names = ("darken", "refuses", "breaks")
    lines = [f"{name} = someones_faults:{name}" for name in names] + ["pgd_like = someones_torch_faults:pgd"]
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def source() -> SyntheticSource:
    return SyntheticSource(320, 240, frames=6, realtime=False)


def images(text: str, plugins: dict[str, Callable[[Image, int], Image]]) -> list[Any]:
    with FaultInjector(source(), parse_faults(text), plugins) as injector:
        return [frame.image for frame in iter(injector.read, None)]


@pytest.mark.usefixtures("registered")
def test_a_registered_fault_is_known_built_for_the_bundle_and_injected(tiny_bundle: Path) -> None:
    assert {"darken", "pgd_like"} <= set(fault_kinds())
    plugins = load_plugins(["darken", "black"], Bundle.open(tiny_bundle), ())
    assert set(plugins) == {"darken"}
    clean, faulty = images("", {}), images("darken:2-3:2", plugins)
    assert np.array_equal(faulty[1], clean[1])
    for k in (2, 3):
        assert np.array_equal(faulty[k], (clean[k] * (1 / 3) / 2).astype(np.uint8))


@pytest.mark.usefixtures("registered")
def test_a_missing_package_is_named(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="'pgd_like': the package 'a_torch_that_is_missing' is not installed"):
        load_plugins(["pgd_like"], Bundle.open(tiny_bundle), ())
    arguments = ["run", "synthetic://?frames=4", "--bundle", str(tiny_bundle), "--backend", "onnxruntime"]
    assert cli.main([*arguments, "--as-fast-as-possible", "--inject", "pgd_like:2"]) == 2
    assert "pip install 'framegate[train]'" in capsys.readouterr().err


@pytest.mark.usefixtures("registered")
def test_a_factory_that_refuses_says_why(tiny_bundle: Path) -> None:
    with pytest.raises(FramegateError, match="'refuses': cannot be made for tiny: no gradient"):
        load_plugins(["refuses"], Bundle.open(tiny_bundle), ())


@pytest.mark.usefixtures("registered")
def test_a_fault_that_fails_ends_the_stream_with_a_clear_error(tiny_bundle: Path) -> None:
    plugins = load_plugins(["breaks"], Bundle.open(tiny_bundle), ())
    with pytest.raises(SourceError, match="fault 'breaks:2' failed on frame 2: out of memory"):
        images("breaks:2", plugins)


@pytest.mark.usefixtures("registered")
def test_a_registered_fault_that_was_not_loaded_is_refused() -> None:
    with pytest.raises(UsageError, match="darken comes from another package and was not loaded"):
        FaultInjector(source(), parse_faults("darken:2"))


def test_without_such_packages_only_the_built_in_faults_are_known(tiny_bundle: Path) -> None:
    assert load_plugins(["black", "darken"], Bundle.open(tiny_bundle), ()) == {}
    assert "darken" not in fault_kinds()
