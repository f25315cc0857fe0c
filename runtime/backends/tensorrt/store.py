"""Engines on disk: built on the target, kept outside the bundle, and opened only if every hash fits.

    $XDG_CACHE_HOME/framegate/engines/<model hash>/<model file>-<flavour>-<version>-<target>.engine
                                                                                           .layers.json

A file is ``MAGIC``, the header's length (8 bytes, little endian), the header (JSON), the plan. The header repeats the
key and names the plan's size and SHA-256, so a stale, foreign, truncated or damaged file is told apart from a good one
before TensorRT sees a byte of it. The hashes find accidents; who can write the cache folder can forge them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from framegate.cuda_kernels.compile.cache import default_cache, write_atomically
from framegate.cuda_kernels.driver.open import DeviceInfo
from framegate.runtime.backends.compiled import written_by_others
from framegate.runtime.bundle.bundle import sha256_file
from framegate.runtime.errors import BackendError

__all__ = ["AMPERE", "EngineKey", "StoredEngine", "engine_folder", "find_engine", "read_engine", "targets_for"]

MAGIC = b"framegate-engine-1\n"
AMPERE = "ampere-and-newer"
"""Target of an engine that runs on compute capability 8.0 and newer."""


class StaleEngineError(BackendError):
    """An engine file cannot be used: it must be built again."""


@dataclass(frozen=True)
class EngineKey:
    """What an engine was built from and for.

    Attributes:
        model_sha256: Of the ONNX file.
        model: The ONNX file's name, which names the precision: ``model.fp16.onnx``.
        flavour: ``tensorrt`` or ``tensorrt-rtx``.
        version: TensorRT's version, in full: plans of other versions are foreign.
        target: A GPU (`device_target`), a compute capability (``sm_89``), or `AMPERE`.
    """

    model_sha256: str
    model: str
    flavour: str
    version: str
    target: str

    @classmethod
    def of(cls, model: Path, flavour: str, version: str, target: str) -> EngineKey:
        """The key of an ONNX file's engine."""
        return cls(sha256_file(model), model.name, flavour, version, target)

    def path(self, folder: Path) -> Path:
        """Where the engine lies."""
        stem = self.model.removesuffix(".onnx")
        name = "-".join(_slug(part) for part in (stem, self.flavour, self.version, self.target))
        return folder / self.model_sha256[:16] / f"{name}.engine"


@dataclass(frozen=True)
class StoredEngine:
    """An engine as read from disk.

    Attributes:
        path: Its file.
        header: Everything written beside the plan: the key, ``options`` of the build (also who computes the scores),
            ``network``, and ``plugin``: what an opener of the engine must know of one.
        plan: What TensorRT deserialises.
    """

    path: Path
    header: Mapping[str, Any]
    plan: bytes


def engine_folder() -> Path:
    """The cache's folder, beside that of the compiled kernels."""
    return default_cache().parent / "engines"


def device_target(info: DeviceInfo) -> str:
    """The target of an engine whose kernels were timed and chosen on this GPU.

    The name is not enough: every board of the Orin family calls its GPU Orin.
    """
    return f"{info.name}, sm_{info.architecture}, {info.multiprocessors} multiprocessors"


def targets_for(info: DeviceInfo) -> list[str]:
    """Targets of engines that this GPU can run, the best first."""
    targets = [device_target(info), f"sm_{info.architecture}"]
    return [*targets, AMPERE] if info.architecture >= 80 else targets


def write_engine(key: EngineKey, folder: Path, plan: bytes, facts: Mapping[str, Any]) -> Path:
    """Store a plan, whole or not at all.

    Args:
        key: What it was built from and for.
        folder: The cache's folder.
        plan: TensorRT's serialised engine.
        facts: More for the header; must be JSON.

    Raises:
        BackendError: The cache cannot be written.
    """
    header = {**facts, "key": asdict(key), "plan_sha256": hashlib.sha256(plan).hexdigest(), "plan_bytes": len(plan)}
    text = json.dumps(header, indent=1).encode()
    path = key.path(folder)

    def produce(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for part in (MAGIC, len(text).to_bytes(8, "little"), text, plan):
                file.write(part)

    with cache_errors(folder):
        write_atomically(path, produce)
    return path


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Turn what goes wrong with the cache's folder into one line.

    Raises:
        BackendError: Something inside the block could not be written.
    """
    try:
        yield
    except OSError as error:
        raise BackendError(
            f"the engine cache {folder} cannot be written ({error}); make room, or set XDG_CACHE_HOME to a folder "
            "that this user may write"
        ) from error


def read_engine(key: EngineKey, folder: Path) -> StoredEngine:
    """Read an engine and check it against its key.

    Raises:
        StaleEngineError: There is none, or it is truncated, damaged, or belongs to something else.
    """
    path = key.path(folder)
    try:
        for place in (path, path.parent, folder):
            _require_own(place)
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise StaleEngineError(f"no engine at {path}") from error
    except OSError as error:
        raise StaleEngineError(f"engine {path} cannot be read ({error})") from error
    start = len(MAGIC) + 8
    length = int.from_bytes(content[len(MAGIC) : start], "little")
    if not content.startswith(MAGIC) or len(content) < start + length:
        raise StaleEngineError(f"engine {path} is not a whole engine file of this framegate")
    try:
        header = json.loads(content[start : start + length])
        found, size, digest = header["key"], header["plan_bytes"], header["plan_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise StaleEngineError(f"engine {path} has a damaged header ({error})") from error
    for field, wanted in asdict(key).items():
        if found.get(field) != wanted:
            raise StaleEngineError(f"engine {path} was built for {field} {found.get(field)!r}, not for {wanted!r}")
    plan = content[start + length :]
    if len(plan) != size:
        raise StaleEngineError(f"engine {path} is truncated: {len(plan)} of {size} bytes")
    if hashlib.sha256(plan).hexdigest() != digest:
        raise StaleEngineError(f"engine {path} is damaged: its SHA-256 is not the one in its header")
    return StoredEngine(path, header, plan)


def _require_own(path: Path) -> None:
    """Refuse what somebody else could have put there: an engine is code that runs on the GPU.

    Raises:
        StaleEngineError: It belongs to another user (and not to root), or another user can write it.
        OSError: There is nothing.
    """
    why = written_by_others(path, path.stat(), True)
    if why:
        raise StaleEngineError(f"engine cache: {why}, and build the engine again as this user")


def find_engine(
    model: Path, flavour: str, version: str, info: DeviceInfo, folder: Path, network: str = ""
) -> StoredEngine:
    """Return the best usable engine of a model for a GPU.

    Args:
        model: The ONNX file.
        flavour: ``tensorrt`` or ``tensorrt-rtx``.
        version: TensorRT's.
        info: The GPU.
        folder: The cache's folder.
        network: SHA-256 that the file had when its bundle was opened; empty: as it is now.

    Raises:
        BackendError: There is none; the message says why each candidate was passed over, and what to do.
    """
    reasons = []
    digest = network or sha256_file(model)
    for target in targets_for(info):
        try:
            return read_engine(EngineKey(digest, model.name, flavour, version, target), folder)
        except StaleEngineError as error:
            reasons.append(str(error))
    others = sorted(path.name for path in (folder / digest[:16]).glob("*.engine"))
    raise BackendError(
        f"no usable {flavour} {version} engine of {model} for {device_target(info)}; build it on this machine: "
        f"framegate engine {model.parent} --backend {flavour}: "
        + "; ".join([*reasons, f"engines of this model that are there: {', '.join(others) or 'none'}"])
    )


def stored_engines(model_sha256: str, flavour: str) -> list[Path]:
    """Files of a flavour's engines of a model, whether they can be used or not."""
    folder = engine_folder() / model_sha256[:16]
    return sorted(path for path in folder.glob("*.engine") if f"-{_slug(flavour)}-" in path.name)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "_", text).strip("_")
