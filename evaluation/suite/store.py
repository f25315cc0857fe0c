"""Keeps every finished part of an evaluation on disk, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.evaluation.frames.observations import Observations
from framegate.evaluation.frames.observations import load as load_observations
from framegate.evaluation.report.files import read_json, write_json
from framegate.runtime.errors import DataError, UsageError

IDENTITY = "identity.json"
_ADVICE = "give another --out, or --restart to begin anew"
_DELETE = "delete it and evaluate again"


class Store:
    """A folder of finished parts that all belong to one bundle, data set and plan.

    Args:
        folder: Where the parts lie; it is made.
        identity: What decides whether old parts may be used again.
        restart: Delete what is there first.

    Raises:
        UsageError: The folder holds parts of another evaluation.
        DataError: The folder cannot be written, or its record is damaged.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], restart: bool = False) -> None:
        self.folder = folder
        record = json.loads(json.dumps(identity))
        try:
            if restart and (folder / IDENTITY).is_file():
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
            known = folder / IDENTITY
            if not known.exists():
                if any(folder.iterdir()):
                    raise UsageError(f"out: {folder} holds files of something else; {_ADVICE}")
                write_json(known, record)
        except OSError as error:
            raise DataError(f"out: {folder} cannot be written ({error.strerror}); give another --out") from error
        found = read_json(folder / IDENTITY, _DELETE)
        changed = [key for key in {**record, **found} if record.get(key) != found.get(key)]
        if changed:
            key = changed[0]
            raise UsageError(
                f"out: {folder} holds an evaluation with {key} {_short(found.get(key))}, now {_short(record.get(key))} "
                f"is asked for; {_ADVICE}"
            )

    def holds(self, name: str) -> bool:
        """Whether a part of this name is there from an earlier run."""
        return any((self.folder / f"{_file(name)}{ending}").exists() for ending in (".npz", ".npy", ".json"))

    def observations(self, name: str, make: Callable[[], Observations]) -> Observations:
        """A set of observations, made now or read from an earlier run."""
        path = self.folder / f"{_file(name)}.npz"
        if not path.exists():
            make().save(path)
        return load_observations(path)

    def array(self, name: str, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """An array, made now or read from an earlier run.

        Raises:
            DataError: It is damaged.
        """
        path = self.folder / f"{_file(name)}.npy"
        if not path.exists():
            partial = path.with_name(f".{path.name}.{os.getpid()}.partial.npy")
            try:
                np.save(partial, make(), allow_pickle=False)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        try:
            return np.asarray(np.load(path, allow_pickle=False), np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: cannot be read ({error}); {_DELETE}") from error

    def record(self, name: str, make: Callable[[], Any]) -> Any:
        """A JSON record, made now or read from an earlier run."""
        path = self.folder / f"{_file(name)}.json"
        if not path.exists():
            write_json(path, make())
        return read_json(path, _DELETE)


def _file(name: str) -> str:
    """A name that any file system takes; of two names with other signs each has its own."""
    radius = name.replace("/", "_")  # of an attack, 8/255
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", radius)
    return plain if plain == radius else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
