"""Compiled kernels on disk, keyed by everything that went into them.

The key is a hash of the source, the headers it includes, the options and the compiler's version, so a changed source is
never served stale and a branch switch costs nothing. Files appear whole or not at all: they are written under another
name and renamed, because two processes may compile at once and any of them may be killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from framegate.cuda_kernels.compile.compiler import OPTIONS
from framegate.cuda_kernels.compile.resources import Resources
from framegate.cuda_kernels.compile.sources import included_headers, kernel_name


def default_cache() -> Path:
    """Return ``$XDG_CACHE_HOME/framegate/kernels``; XDG_CACHE_HOME is ``~/.cache`` where it is not set."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    folder = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return folder / "framegate" / "kernels"


def source_hash(source: Path) -> str:
    """Hash a source with every header of ours that it includes."""
    digest = hashlib.sha256()
    for path in (source, *included_headers(source)):
        # Without its place a header could change places with another and keep the hash.
        place = os.path.relpath(path.resolve(), source.parent.resolve())
        content = path.read_bytes()
        digest.update(f"{Path(place).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def entry_folder(source: Path, compiler: str, cache: Path) -> Path:
    """Return the folder of one source as compiled by one compiler."""
    digest = hashlib.sha256("\0".join((source_hash(source), compiler, *OPTIONS)).encode()).hexdigest()
    return cache / f"{kernel_name(source)}-{digest[:24]}"


def write_atomically(path: Path, produce: Callable[[Path], None]) -> None:
    """Let ``produce`` write a file under a temporary name, then give it its own in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        produce(Path(name))
        # mkstemp makes private files; a fat binary that goes into a wheel must be readable by everyone.
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def write_report(path: Path, resources: list[Resources]) -> None:
    """Store what a compilation costs beside its image."""
    write_json(path, [asdict(kernel) for kernel in resources])


def write_json(path: Path, content: Any) -> None:
    """Write JSON, whole or not at all."""

    def produce(temporary: Path) -> None:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    write_atomically(path, produce)


def read_report(path: Path) -> list[Resources]:
    """Read what `write_report` stored."""
    return [Resources(**kernel) for kernel in json.loads(path.read_text(encoding="utf-8"))]
