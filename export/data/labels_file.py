"""The labels of a network from elsewhere: a text file with one name a line, in the order of the network's outputs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from framegate.runtime.errors import DataError


def read_labels(path: Path) -> tuple[str, ...]:
    """Read the labels.

    Args:
        path: UTF-8 text. Empty lines at the end do not count; anywhere else they would shift every later label.

    Raises:
        DataError: The file is missing, is no text, has an empty line in the middle, or names a label twice.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError as error:
        raise DataError(f"labels {path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"labels {path}: cannot be read as UTF-8 text ({error})") from error
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) < 2:
        raise DataError(f"labels {path}: {len(lines)} names; expected one a line, in the order of the outputs")
    if "" in lines:
        raise DataError(
            f"labels {path}: line {lines.index('') + 1} is empty; every line names one output, so remove it or name it"
        )
    twice = [name for name, count in Counter(lines).items() if count > 1]
    if twice:
        where = ", ".join(str(k + 1) for k, name in enumerate(lines) if name == twice[0])
        raise DataError(f"labels {path}: {twice[0]!r} stands in lines {where}; make the names different")
    return tuple(lines)


def check_count(path: Path, labels: tuple[str, ...], classes: int) -> None:
    """Check that every output has a name.

    Raises:
        DataError: It has not, or there are names without an output.
    """
    if len(labels) != classes:
        background = classes == len(labels) + 1
        hint = "; some networks count 'background' first, then put that name in the first line" if background else ""
        raise DataError(f"labels {path}: {len(labels)} names, but the network has {classes} outputs{hint}")
