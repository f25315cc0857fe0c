"""Boxes that people drew, in COCO's format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from framegate.runtime.errors import DataError

OVERLAP = 0.5
"""Smallest intersection over union of a right box with the labelled one."""


@dataclass(frozen=True)
class LabelledBox:
    """A box that people drew.

    Attributes:
        box: x, y, width, height in pixels.
        category: Name of what is in it.
    """

    box: tuple[float, float, float, float]
    category: str


@dataclass(frozen=True)
class LabelledImage:
    """An image with all of its boxes; one without is known to show none.

    Attributes:
        file: Its name.
        boxes: All of them.
    """

    file: str
    boxes: tuple[LabelledBox, ...]


def read_coco(path: Path) -> tuple[LabelledImage, ...]:
    """The images of a file in COCO's format, with their boxes; crowds (``iscrowd``) are left out.

    Raises:
        DataError: It cannot be read, or something in it is missing.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        names = {int(each["id"]): str(each["name"]) for each in record["categories"]}
        boxes: dict[int, list[LabelledBox]] = {int(each["id"]): [] for each in record["images"]}
        for each in record["annotations"]:
            if each.get("iscrowd"):
                continue
            x, y, width, height = (float(edge) for edge in each["bbox"])
            boxes[int(each["image_id"])].append(LabelledBox((x, y, width, height), names[int(each["category_id"])]))
        images = tuple(
            LabelledImage(str(each["file_name"]), tuple(boxes[int(each["id"])])) for each in record["images"]
        )
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); give annotations in COCO's format") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {error!r} is missing or no such thing; give annotations in COCO's format") from error
    if not images:
        raise DataError(f"{path}: it lists no image")
    return images
