"""Faults from outside the runtime: attacks on the shown model, which need torch.

A package registers them under the entry-point group ``framegate.faults``; each entry is a factory:

    def fgsm(bundle: Bundle, rois: Sequence[Roi]) -> Callable[[Image, int], Image]: ...

It is called once with the opened bundle and the regions that are classified, and the function it returns once per frame
with an (h, w, 3) uint8 BGR image, which it must not write to, and a severity from 1 to 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import metadata

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import FramegateError, UsageError
from framegate.runtime.roi import Roi
from framegate.runtime.verdict import Image

GROUP = "framegate.faults"
FaultFunction = Callable[[Image, int], Image]


def plugin_kinds() -> tuple[str, ...]:
    """Names of the faults that are registered; nothing is imported for that."""
    return tuple(sorted({entry.name for entry in metadata.entry_points(group=GROUP)}))


def load_plugins(kinds: Iterable[str], bundle: Bundle, rois: Sequence[Roi]) -> dict[str, FaultFunction]:
    """Build the registered ones among `kinds` for a bundle and its regions; others are left out.

    Raises:
        UsageError: A package that one needs is not installed.
        FramegateError: The factory refused the bundle.
    """
    entries = {entry.name: entry for entry in metadata.entry_points(group=GROUP)}
    functions: dict[str, FaultFunction] = {}
    for kind in sorted(set(kinds) & set(entries)):
        try:
            functions[kind] = entries[kind].load()(bundle, rois)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"fault {kind!r}: the package {error.name!r} is not installed; pip install 'framegate[train]'"
            ) from error
        except FramegateError:
            raise
        except Exception as error:
            raise FramegateError(f"fault {kind!r}: cannot be made for {bundle.name}: {error}") from error
    return functions
