"""The CUDA sources: which file a kernel's name stands for, and which headers that file includes.

Each kernel has a folder of its own. ``kernel.cu`` has the name of its folder (``softmax_entropy``); any other source
has the name of its folder and its own (``softmax_entropy/plugin.cu`` is ``softmax_entropy_plugin``). No other module
knows where the sources lie.
"""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1]
"""The folder that holds one folder for each kernel, and the headers that several kernels share."""

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.MULTILINE)


def kernel_name(source: Path) -> str:
    """Return the name of a source: that of its folder for ``kernel.cu``, else FOLDER_FILE."""
    return source.parent.name if source.stem == "kernel" else f"{source.parent.name}_{source.stem}"


def kernel_sources(folder: Path = FOLDER) -> dict[str, Path]:
    """Return name -> source of every kernel in a folder that is laid out as `FOLDER` is, in the order of the files."""
    return {kernel_name(source): source for source in sorted(folder.glob("*/*.cu"))}


def include_folders(source: Path) -> tuple[Path, Path]:
    """Return where the headers of a source are: in its own folder, or as ``KERNEL/HEADER`` in the folder above."""
    return source.parent, source.parent.parent


def included_headers(source: Path) -> list[Path]:
    """Return every header of ours that a source includes, directly or through another header, sorted.

    Headers in angle brackets belong to the compiler. One in quotation marks that does not exist is left to the compiler
    too: it may stand behind an #ifdef.
    """
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        file = waiting.pop()
        for name in _INCLUDE.findall(file.read_text(encoding="utf-8")):
            places = (folder / name for folder in (file.parent, *include_folders(source)))
            header = next((place.resolve() for place in places if place.is_file()), None)
            if header is not None and header not in found:
                found.add(header)
                waiting.append(header)
    return sorted(found)
