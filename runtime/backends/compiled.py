"""Networks as OpenVINO compiled them, kept in the user's cache, so that the next start need not compile.

    $XDG_CACHE_HOME/framegate/openvino/<key>.blob

`FRAMEGATE_COMPILED` names another folder, or is ``off`` (or 0). A file is ``MAGIC``, the SHA-256 of its name and the
rest, the rest. It is used only if nobody else can have written it. The hash finds accidents; who can write the cache
folder can forge it, so a bundle whose signature is asked for is compiled anew each time. What comes out of the cache
must give the bundle's known answers like any other engine; of a network that has none, nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import stat
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from framegate.cuda_kernels.compile.cache import default_cache

MAGIC = b"framegate-compiled-2\n"
VARIABLE = "FRAMEGATE_COMPILED"
_DIGEST = 32
_MOST_BYTES = 256 << 20
"""The folder is not let grow beyond this: what was not used for longest goes."""
_LARGEST = 8
"""A form larger than this part of the folder is not kept: the sizes of a batch would push each other out."""
_OURS = re.compile(r"[0-9a-f]{40}\.blob(\..*\.part)?")
_UNFINISHED_S = 3600
"""Age of a file that is not finished after which whoever wrote it is gone."""
_CPUINFO = Path("/proc/cpuinfo")


def compiled_folder() -> Path | None:
    """Where compiled networks are kept; None if they are not."""
    named = os.environ.get(VARIABLE, "")
    if named in ("off", "0") or not hasattr(os, "geteuid"):  # whose a file is cannot be seen elsewhere
        return None
    try:
        return Path(named) if named else default_cache().parent / "openvino"
    except RuntimeError:  # a user without a home
        return None


def written_by_others(path: Path, found: os.stat_result, own_group: bool) -> str:
    """Why somebody else could have written a file or folder; empty if nobody could.

    Args:
        path: Is named.
        found: What is known of it.
        own_group: Whether this process's own group may write it.
    """
    if found.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to user {found.st_uid}"
    group = found.st_mode & stat.S_IWGRP and not (own_group and found.st_gid == os.getegid())
    return f"others can write {path}; chmod go-w it" if group or found.st_mode & stat.S_IWOTH else ""


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
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                folder = path.parent.stat()
                if written_by_others(path, found, False) or written_by_others(path.parent, folder, False):
                    return None
                content = file.read()
        except OSError:
            return None
        with suppress(OSError):  # a folder that can only be read serves as well
            os.utime(path)
        start = len(MAGIC) + _DIGEST
        kept = content[start:]
        whole = content.startswith(MAGIC) and _digest(path, kept) == content[len(MAGIC) : start]
        return kept if whole and kept else None

    def keep(self, path: Path, compiled: bytes) -> None:
        """Keep a compiled form for the next time, or do nothing where that cannot be done."""
        if len(compiled) > _MOST_BYTES // _LARGEST:
            return
        with suppress(OSError):  # a full disk or a folder that cannot be written costs time, and no verdict
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if written_by_others(path.parent, path.parent.stat(), False):
                return  # it would not be read, either
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".part")
            try:
                with open(handle, "wb") as file:
                    file.write(MAGIC + _digest(path, compiled) + compiled)
                os.replace(name, path)
            finally:
                Path(name).unlink(missing_ok=True)
            _make_room(path.parent)


def _digest(path: Path, compiled: bytes) -> bytes:
    """Of a form under its name: under another name it is another network's."""
    return hashlib.sha256(path.name.encode() + b"\0" + compiled).digest()


def _make_room(folder: Path) -> None:
    """Remove what was not used for longest, until the folder is small enough; and what was never finished."""
    files = []
    for path in folder.iterdir():
        if not _OURS.fullmatch(path.name):
            continue
        with suppress(FileNotFoundError):  # another process makes room, too
            found = path.stat()
            if path.suffix != ".part":
                files.append((found.st_mtime, found.st_size, path))
            elif found.st_mtime < time.time() - _UNFINISHED_S:
                path.unlink()
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= _MOST_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= size


@cache
def _processor() -> str:
    """The processor, and what it can: code is compiled for that."""
    try:
        lines = _CPUINFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    told = {line for line in lines if line.partition(":")[0].strip() in ("model name", "flags", "Features", "CPU part")}
    return "\n".join(sorted(told))
