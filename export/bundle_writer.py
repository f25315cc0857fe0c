"""Writes a bundle so that its name never stands for an incomplete one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from framegate.runtime.bundle.bundle import CALIBRATION, MANIFEST, Bundle, seal, write_bundle_json
from framegate.runtime.bundle.calibration import FORMAT as CALIBRATION_FORMAT
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.bundle.object_promises import ObjectPromise, with_promise
from framegate.runtime.errors import BundleError, UsageError
from framegate.runtime.preprocess import PreprocessSpec

SUFFIX = ".bundle"


def check_target(target: Path, force: bool) -> None:
    """Find out before the long work whether the bundle can be written.

    Raises:
        UsageError: The name does not end in ``.bundle``.
        BundleError: Something is there already and may not be replaced, or the folder cannot be written.
    """
    if target.suffix != SUFFIX or not target.stem:
        raise UsageError(f"out: {target} given, expected a name that ends in {SUFFIX}")
    if os.path.lexists(target):
        if not force:
            raise BundleError(f"bundle {target}: exists already; give --force to replace it, or another name")
        if not os.path.isfile(target / MANIFEST) or os.path.islink(target):
            raise BundleError(f"bundle {target}: something that is no bundle lies there; move it or give another name")
    parent = target.absolute().parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not (os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)):
        raise BundleError(f"bundle {target}: cannot write in {parent}; give another folder")


@contextmanager
def staged(target: Path, force: bool) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its name when the block ends well, and vanishes when it does not.

    Before it takes the name it is opened as a bundle, so every hash has been checked once.

    Raises:
        BundleError: See `check_target`, or what was written is not a complete bundle.
    """
    check_target(target, force)
    parent = target.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=parent))
    except OSError as error:
        raise BundleError(f"bundle {target}: cannot write in {parent} ({error.strerror})") from error
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp makes it private; a bundle is for every user of the machine
        Bundle.open(folder)
        _take_name(folder, target)
    except OSError as error:
        raise BundleError(f"bundle {target}: writing failed ({error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def edited(bundle: Path) -> Iterator[Path]:
    """A copy of a bundle that can be changed, and that replaces the bundle when the block ends well.

    Raises:
        BundleError: See `staged`.
    """
    with staged(bundle, force=True) as folder:
        shutil.copytree(bundle, folder, dirs_exist_ok=True)
        yield folder


def _take_name(folder: Path, target: Path) -> None:
    """Rename; a folder cannot be renamed onto another one, so an old bundle is moved away first."""
    if not target.exists():
        folder.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=folder.parent)) / target.name
    target.rename(aside)
    try:
        folder.rename(target)
    except OSError:
        aside.rename(target)
        raise
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)


def write_calibration(folder: Path, calibrations: Mapping[str, Calibration]) -> None:
    """Write ``calibration.json``; the manifest must be written afterwards, since it holds the hash (`seal`).

    Args:
        folder: The (temporary) bundle.
        calibrations: ``backend/precision`` -> calibration.
    """
    records = {key: calibrations[key].to_json() for key in sorted(calibrations)}
    write_bundle_json(folder, CALIBRATION, {"format": CALIBRATION_FORMAT, "records": records})


def replace_calibrations(folder: Path, calibrations: Mapping[str, Calibration]) -> None:
    """Write other calibrations into a complete (temporary) bundle, and their hash into its manifest."""
    write_calibration(folder, calibrations)
    update_manifest(folder)


def store_promise(bundle: Path, key: str, promise: ObjectPromise) -> None:
    """Write a promise about objects into a bundle.

    Args:
        bundle: Its folder.
        key: ``backend/precision``.
        promise: What was proved.

    Raises:
        BundleError: The bundle cannot be written.
    """
    with edited(bundle) as folder:
        record = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
        write_bundle_json(folder, CALIBRATION, with_promise(record, key, promise))
        update_manifest(folder)


def update_manifest(folder: Path, **changes: object) -> None:
    """Change entries of the manifest of a (temporary) bundle, and hash its files anew."""
    seal(folder, {**json.loads((folder / MANIFEST).read_text(encoding="utf-8")), **changes})


def write_manifest(
    folder: Path,
    *,
    name: str,
    labels: tuple[str, ...],
    preprocess: PreprocessSpec,
    models: Mapping[str, str],
    taps: Sequence[str],
    origin: Mapping[str, Any],
    parity: list[dict[str, Any]],
) -> None:
    """Write ``manifest.json`` over the files that lie in the folder.

    Args:
        folder: The (temporary) bundle; models and calibration are there already.
        name: Name of the model.
        labels: One per class, in the order of the logits.
        preprocess: How an image becomes the network's input.
        models: Precision -> file name.
        taps: Layers whose activations can be watched, from early to late.
        origin: Where weights and data come from, for people.
        parity: The rows of the parity table.
    """
    seal(
        folder,
        {
            "name": name,
            "labels": list(labels),
            "preprocess": asdict(preprocess),
            "models": dict(models),
            "outputs": ["logits"],
            "taps": list(taps),
            "origin": dict(origin),
            "parity": parity,
        },
    )
