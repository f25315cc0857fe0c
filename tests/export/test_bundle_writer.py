"""A bundle's name never stands for an incomplete bundle, and nothing is replaced unasked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from framegate.export.bundle_writer import (
    check_target,
    edited,
    replace_calibrations,
    staged,
    to_change,
    write_calibration,
    write_manifest,
)
from framegate.models.registry import architecture
from framegate.runtime.bundle.bundle import Bundle, sha256_file
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.errors import BundleError, UsageError

PREPROCESS = architecture("hybrid").preprocess


def _fill(folder: Path, name: str = "first") -> None:
    (folder / "model.fp32.onnx").write_bytes(name.encode())
    record = Calibration(
        1.5, "entropy", 0.3, 0.02, 0.95, 0.019, 0.7, 0.01, 2500, "f", sha256_file(folder / "model.fp32.onnx"), "e 1"
    )
    write_calibration(folder, {"openvino/fp32": record})
    write_manifest(
        folder,
        name=name,
        labels=("a", "b"),
        preprocess=PREPROCESS,
        models={"fp32": "model.fp32.onnx"},
        taps=("first", "second"),
        origin={"weights": "a test"},
        parity=[],
    )


def _write(target: Path, name: str = "first", force: bool = False) -> None:
    with staged(target, force) as folder:
        _fill(folder, name)


def test_written_bundle_opens_with_everything_in_it(tmp_path: Path) -> None:
    target = tmp_path / "new" / "m.bundle"
    _write(target)
    bundle = Bundle.open(target)
    assert (bundle.name, bundle.labels, bundle.preprocess) == ("first", ("a", "b"), PREPROCESS)
    assert bundle.taps == ("first", "second")
    calibration = bundle.calibration("openvino", "fp32")
    assert calibration is not None
    assert calibration.threshold == 0.3
    assert set(bundle.hashes) == {"model.fp32.onnx", "calibration.json"}
    assert [path.name for path in target.parent.iterdir()] == ["m.bundle"]
    assert target.stat().st_mode & 0o055 == 0o055


@pytest.mark.parametrize("victim", ["model.fp32.onnx", "calibration.json"])
def test_tampering_is_noticed(tmp_path: Path, victim: str) -> None:
    target = tmp_path / "m.bundle"
    _write(target)
    content = bytearray((target / victim).read_bytes())
    content[-3] ^= 1
    (target / victim).write_bytes(content)
    with pytest.raises(BundleError, match=victim):
        Bundle.open(target)


def test_an_existing_bundle_is_replaced_only_on_request(tmp_path: Path) -> None:
    target = tmp_path / "m.bundle"
    _write(target)
    with pytest.raises(BundleError, match="--force"):
        _write(target, "second")
    assert Bundle.open(target).name == "first"
    _write(target, "second", force=True)
    assert Bundle.open(target).name == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["m.bundle"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_bundle_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "m.bundle"
    _write(target)

    def fail() -> None:
        with staged(target, force=True) as folder:
            _fill(folder, "second")
            raise error

    with pytest.raises(error):
        fail()
    assert Bundle.open(target).name == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["m.bundle"]


def test_an_incomplete_bundle_never_gets_the_name(tmp_path: Path) -> None:
    target = tmp_path / "m.bundle"

    def forget_the_model() -> None:
        with staged(target, force=False) as folder:
            _fill(folder)
            (folder / "model.fp32.onnx").unlink()

    with pytest.raises(BundleError, match="missing"):
        forget_the_model()
    assert list(tmp_path.iterdir()) == []


def test_a_rename_that_fails_brings_the_old_bundle_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "m.bundle"
    _write(target)
    rename = Path.rename
    calls = []

    def fail_once(self: Path, to: Path) -> Path:
        calls.append(to)
        if len(calls) == 2:  # the old bundle has stepped aside, the new one is about to take its name
            raise OSError("disk gone")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(BundleError, match="disk gone"):
        _write(target, "second", force=True)
    assert Bundle.open(target).name == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["m.bundle"]


def test_what_is_no_bundle_is_never_removed(tmp_path: Path) -> None:
    folder, file, link = tmp_path / "photos.bundle", tmp_path / "file.bundle", tmp_path / "link.bundle"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"x")
    file.write_bytes(b"x")
    _write(tmp_path / "real.bundle")
    os.symlink(tmp_path / "real.bundle", link)
    for target in (folder, file, link):
        with pytest.raises(BundleError, match="no bundle"):
            _write(target, force=True)
    assert (folder / "holiday.jpg").exists()
    assert file.exists()
    assert link.is_symlink()


def test_bad_targets_are_found_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.bundle"):
        check_target(tmp_path / "model", force=False)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BundleError, match="cannot write in"):
        check_target(tmp_path / "file" / "m.bundle", force=False)


def test_fault_a_signal_between_the_two_renames_loses_no_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "m.bundle"
    _write(target)
    rename, calls = Path.rename, []

    def interrupted(self: Path, to: Path) -> Path:
        calls.append(to)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _write(target, "second", force=True)
    assert Bundle.open(target).name == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["m.bundle"]


def test_what_another_command_wrote_meanwhile_is_not_taken_back(tmp_path: Path) -> None:
    """A slow command has read thresholds that are withdrawn while it computes."""
    target = tmp_path / "m.bundle"
    _write(target)
    opened = Bundle.open(target)

    def slow() -> None:
        with edited(opened) as folder:
            with edited(Bundle.open(target)) as quick:
                replace_calibrations(quick, {})
            replace_calibrations(folder, opened.calibrations)

    with pytest.raises(BundleError, match="another command has changed it meanwhile"):
        slow()
    assert not Bundle.open(target).calibrations
    with pytest.raises(BundleError, match="another command"), edited(opened):  # known before the work
        pytest.fail("the block was entered")
    with edited(Bundle.open(target)) as folder:
        replace_calibrations(folder, opened.calibrations)
    assert Bundle.open(target).calibrations
    assert [path.name for path in tmp_path.iterdir()] == ["m.bundle"]


def test_what_cannot_be_changed_is_known_before_the_work(tmp_path: Path) -> None:
    target = tmp_path / "m.bundle"
    _write(target)
    assert to_change(target) == target
    (tmp_path / "link.bundle").symlink_to(target)
    with pytest.raises(BundleError, match="something that is no bundle lies there"):
        to_change(tmp_path / "link.bundle")
    target.rename(tmp_path / "plain")
    with pytest.raises(UsageError, match="ends in"):
        to_change(tmp_path / "plain")
    (tmp_path / "plain").rename(target)
    (target / "notes").mkdir()
    with pytest.raises(BundleError, match="it holds a folder, notes"):
        to_change(target)


@pytest.mark.parametrize("name", ["certificates.json", "notes.txt"])
def test_fault_a_file_that_nothing_has_checked_is_never_vouched_for(tmp_path: Path, name: str) -> None:
    target = tmp_path / "m.bundle"
    _write(target)
    opened = Bundle.open(target)
    (target / name).write_text("{}")
    for change in (lambda: to_change(target), lambda: edited(opened).__enter__()):
        with pytest.raises(
            BundleError, match=f"it holds {name}, which its manifest.json does not name; move that file"
        ):
            change()
    assert (target / name).read_text() == "{}"
    assert Bundle.open(target).digest == opened.digest


def test_fault_a_file_that_is_another_one_while_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "m.bundle"
    _write(target)
    copy = shutil.copytree

    def swapped(source: Path, folder: Path, **options: Any) -> None:
        copy(source, folder, **options)
        (folder / "model.fp32.onnx").write_bytes(b"another network")

    monkeypatch.setattr(shutil, "copytree", swapped)
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx has SHA-256"), edited(Bundle.open(target)):
        pytest.fail("the block was entered")
    assert [path.name for path in tmp_path.iterdir()] == ["m.bundle"]
