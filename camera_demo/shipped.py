"""What `framegate demo` shows when it is given nothing: the clip, the bundle and the regions of the repository."""

from __future__ import annotations

from pathlib import Path

from framegate.runtime.errors import UsageError
from framegate.runtime.roi import Roi

CLIP = "camera_demo/clips/highway_1280x720_25fps.mp4"
BUNDLE = "models/bundles/hybrid-cifar10.bundle"
REGIONS = (
    Roi("black-car", 795, 385, 160, 130, fractions=False),
    Roi("white-car", 1000, 370, 270, 160, fractions=False),
    Roi("sky", 700, 20, 160, 130, fractions=False),
    Roi("road", 560, 500, 160, 130, fractions=False),
)
"""Two cars, and two things that the network was not trained to name."""


def _folders() -> tuple[Path, ...]:
    """Where the repository may be: around this module in an editable installation, or where the user stands."""
    return (Path(__file__).resolve().parents[1], Path.cwd())


def shipped(name: str, what: str, remedy: str) -> Path:
    """The path of a file or folder of the repository.

    Args:
        name: Its path in the repository.
        what: What it is, for the message.
        remedy: What the user can give instead.

    Raises:
        UsageError: There is no repository around this installation or the current folder.
    """
    for folder in _folders():
        if (folder / name).exists():
            return folder / name
    raise UsageError(
        f"demo: {what} is part of the repository, not of an installed package ({name} is neither beside this "
        f"installation nor in the current folder); change into a clone of the repository, or give {remedy}"
    )
