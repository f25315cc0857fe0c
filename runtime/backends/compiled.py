"""Networks as OpenVINO compiled them, kept in the user's cache: opening one again takes a fifth of the time.

    $XDG_CACHE_HOME/framegate/openvino/<key>.blob

`FRAMEGATE_COMPILED` names another folder, or is ``off``. A file is ``MAGIC``, the SHA-256 of the rest, the rest. It is
used only if nobody else can have written it. The hash finds accidents; who can write the cache folder can forge it, so
a bundle whose signature is asked for is compiled anew each time. What comes out of the cache must give the bundle's
known answers like any other engine.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from framegate.cuda_kernels.compile.cache import default_cache, write_atomically

MAGIC = b"framegate-compiled-1\n"
VARIABLE = "FRAMEGATE_COMPILED"
_DIGEST = 32
_MOST_BYTES = 256 << 20
"""The folder is not let grow beyond this: what was not used for longest goes."""
_CPUINFO = Path("/proc/cpuinfo")


def compiled_folder() -> Path | None:
    """Where compiled networks are kept; None if they are not."""
    named = os.environ.get(VARIABLE, "")
    if named == "off":
        return None
    return Path(named) if named else default_cache().parent / "openvino"


def written_by_others(path: Path) -> str:
    """Why somebody else could have written a file or folder; empty if nobody could.

    Raises:
        OSError: There is nothing.
    """
    found = path.stat()
    if found.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to user {found.st_uid}"
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != os.getegid()):
        return f"others can write {path}; chmod go-w it"
    return ""


class CompiledNetworks:
    """The compiled forms of one network.

    Args:
        network: Digest of its files; empty: nothing is kept.
        engine: Name and whole version of what compiles it.
    """

    def __init__(self, network: str, engine: str) -> None:
        self._folder = compiled_folder() if network else None
        self._made_of = (network, engine, _processor() if network else "")

    @property
    def active(self) -> bool:
        """Whether anything is kept."""
        return self._folder is not None

    def path(self, shape: Sequence[int], config: Mapping[str, str]) -> Path | None:
        """Where the form for an input shape and a configuration lies; None where nothing is kept."""
        if self._folder is None:
            return None
        facts = json.dumps([*self._made_of, list(shape), sorted(config.items())])
        return self._folder / f"{hashlib.sha256(facts.encode()).hexdigest()[:40]}.blob"

    def read(self, path: Path) -> bytes | None:
        """What was kept there; None if nothing usable was."""
        try:
            if any(written_by_others(place) for place in (path, path.parent)):
                return None
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        start = len(MAGIC) + _DIGEST
        kept = content[start:]
        whole = content.startswith(MAGIC) and hashlib.sha256(kept).digest() == content[len(MAGIC) : start]
        return kept if whole and kept else None

    def keep(self, path: Path, compiled: bytes) -> None:
        """Keep a compiled form for the next time, or do nothing where that cannot be done."""

        def produce(temporary: Path) -> None:
            temporary.write_bytes(MAGIC + hashlib.sha256(compiled).digest() + compiled)

        with suppress(OSError):  # a full disk or a folder that cannot be written costs time, and no verdict
            write_atomically(path, produce)
            _make_room(path.parent)


def _make_room(folder: Path) -> None:
    """Remove what was not used for longest, until the folder is small enough."""
    files = []
    for path in folder.glob("*.blob"):
        with suppress(FileNotFoundError):  # another process makes room, too
            found = path.stat()
            files.append((found.st_mtime, found.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files)[:-1]:
        if total <= _MOST_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= size


def _processor() -> str:
    """The processor, and what it can: code is compiled for that."""
    try:
        lines = _CPUINFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    told = {line for line in lines if line.partition(":")[0].strip() in ("model name", "flags", "Features", "CPU part")}
    return "\n".join(sorted(told))
