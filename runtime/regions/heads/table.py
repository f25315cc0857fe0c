"""All heads, and which one outputs belong to."""

from __future__ import annotations

from framegate.runtime.errors import BundleError, UsageError
from framegate.runtime.regions.heads.base import Head, Shapes
from framegate.runtime.regions.heads.fastestdet import FASTESTDET
from framegate.runtime.regions.heads.nanodet import NANODET
from framegate.runtime.regions.heads.sets import DETR, SSD
from framegate.runtime.regions.heads.yolo import YOLOV5, YOLOV8, YOLOX

HEADS = {head.name: head for head in (YOLOV5, YOLOV8, YOLOX, NANODET, FASTESTDET, SSD, DETR)}
"""Name -> head."""


def head_named(name: str) -> Head:
    """A head by its name.

    Raises:
        BundleError: This version does not know it.
    """
    if name not in HEADS:
        raise BundleError(f"detector head {name!r}: this version knows {', '.join(HEADS)}")
    return HEADS[name]


def choose_head(shapes: Shapes, classes: int, width: int, height: int, wanted: str | None = None) -> Head:
    """The head that outputs of these shapes belong to.

    Args:
        shapes: Of the outputs.
        classes: Labels of the detector.
        width: Of its input, in pixels.
        height: Of its input.
        wanted: The one that was asked for, which has to fit; None takes the only one that does.

    Raises:
        UsageError: None fits, or not the one that was asked for; the message holds the shapes.
    """
    found = [head for head in HEADS.values() if head.fits(shapes, classes, width, height)]
    if wanted is not None:
        if any(head.name == wanted for head in found):
            return HEADS[wanted]
    elif len(found) == 1:
        return found[0]
    outputs = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    asked = f"--head {wanted}" if wanted is not None else "detector head"
    known = "; ".join(f"{head.name}: {head.about}" for head in HEADS.values())
    raise UsageError(
        f"{asked}: the network gives {outputs} for {classes} labels and an input of {width}x{height}, which "
        f"{'fit ' + ' and '.join(head.name for head in found) if found else 'fits none'}; known are {known}. "
        "Compare the number of labels, or give the boxes as JSON lines (docs/objects.md)"
    )
