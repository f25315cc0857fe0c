"""Regions of interest: which part of the frame is classified."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from framegate.runtime.console import plain
from framegate.runtime.errors import UsageError
from framegate.runtime.verdict import Image

FULL = "frame"
"""Name of the stream that classifies the whole frame."""
_ALL = 1.0 + 1e-9
"""The whole frame in fractions, and what a sum of two of them may be off."""


@dataclass(frozen=True, slots=True)
class Roi:
    """A named rectangle, in pixels or in fractions of the frame.

    Attributes:
        name: Name of the stream that this region forms.
        x: Left edge.
        y: Top edge.
        width: Width.
        height: Height.
        fractions: The four numbers are fractions of the frame's size in [0, 1] instead of pixels.

    Raises:
        UsageError: The numbers are no rectangle.
    """

    name: str
    x: float
    y: float
    width: float
    height: float
    fractions: bool

    def __post_init__(self) -> None:
        """Refuse what is no part of any frame: an edge before the frame's would be counted from its end."""
        numbers = (self.x, self.y, self.width, self.height)
        if not isinstance(self.name, str):
            raise UsageError(f"region {self.name!r}: expected a text as its name")
        if not all(isinstance(number, Real) for number in numbers):
            raise UsageError(f"region {self.name!r} {numbers}: expected four numbers: x, y, width, height")
        text = ",".join(f"{number:g}" for number in numbers)
        if not all(math.isfinite(number) for number in numbers):
            raise UsageError(f"region {self.name!r} ({text}): expected four finite numbers")
        if self.x < 0 or self.y < 0 or self.width <= 0 or self.height <= 0:
            raise UsageError(f"region {self.name!r} ({text}): x and y must be >= 0, width and height > 0")
        if self.fractions and (self.x + self.width > _ALL or self.y + self.height > _ALL):
            raise UsageError(
                f"region {self.name!r} ({text}): fractions of the frame must stay within 1.0 (x+w and y+h)"
            )

    @classmethod
    def whole(cls) -> Roi:
        """The whole frame."""
        return cls(FULL, 0.0, 0.0, 1.0, 1.0, fractions=True)

    @property
    def is_whole(self) -> bool:
        """Whether this is the whole frame, whatever its size."""
        return self.fractions and (self.x, self.y, self.width, self.height) == (0.0, 0.0, 1.0, 1.0)

    @classmethod
    def parse(cls, text: str, index: int = 0) -> Roi:
        """Read ``[NAME=]x,y,w,h``: whole numbers are pixels; with a decimal point in any of them, all are fractions.

        Args:
            text: What the user typed.
            index: Names the region ``roi<index>`` if the user gave no name.

        Raises:
            UsageError: Not four numbers, an empty or negative region, or a name that cannot be shown.
        """
        name, equals, numbers = text.rpartition("=")
        if equals and not name.strip():
            raise UsageError(f"region {text!r}: the name before '=' is empty")
        if plain(name) != name:
            raise UsageError(f"region {text!r}: its name holds characters that cannot be shown; leave them out")
        parts = [part.strip() for part in numbers.split(",")]
        try:
            values = [float(part) for part in parts]
        except ValueError:
            values = []
        if len(values) != 4 or not all(math.isfinite(value) for value in values):
            raise UsageError(f"region {text!r}: expected [NAME=]x,y,w,h in pixels or in fractions of the frame")
        x, y, width, height = values
        return cls(name.strip() or f"roi{index}", x, y, width, height, any("." in part for part in parts))

    def pixels(self, frame_width: int, frame_height: int) -> tuple[int, int, int, int] | None:
        """The rectangle (x, y, width, height) in pixels of a frame, or None if it does not fit into it."""
        if self.fractions:
            left, top = round(self.x * frame_width), round(self.y * frame_height)
            right = round((self.x + self.width) * frame_width)
            bottom = round((self.y + self.height) * frame_height)
        else:
            left, top, right, bottom = (round(v) for v in (self.x, self.y, self.x + self.width, self.y + self.height))
        if not (0 <= left < right <= frame_width and 0 <= top < bottom <= frame_height):
            return None
        return left, top, right - left, bottom - top

    def crop(self, image: Image) -> Image | None:
        """The region's pixels as a view, or None if it does not fit into the image."""
        if self.is_whole and min(image.shape[:2]) > 0:
            return image
        box = self.pixels(image.shape[1], image.shape[0])
        if box is None:
            return None
        x, y, width, height = box
        return image[y : y + height, x : x + width]


def parse_rois(texts: list[str]) -> tuple[Roi, ...]:
    """The regions of a command line; none given means the whole frame.

    Raises:
        UsageError: A region cannot be read, or two have the same name.
    """
    rois = tuple(Roi.parse(text, index) for index, text in enumerate(texts)) or (Roi.whole(),)
    require_own_names(rois)
    return rois


def require_own_names(rois: tuple[Roi, ...]) -> None:
    """Refuse regions of one name: their verdicts could not be told apart.

    Raises:
        UsageError: Two have the same name.
    """
    names = [roi.name for roi in rois]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"region name {name!r} is used twice; give each region its own: NAME=x,y,w,h")


def require_inside(rois: tuple[Roi, ...], frame_size: tuple[int, int]) -> None:
    """Check every region against the size (width, height) of a stream's frames.

    Raises:
        UsageError: A region reaches outside the frame.
    """
    width, height = frame_size
    for roi in rois:
        if roi.pixels(width, height) is None:
            raise UsageError(
                f"region {roi.name!r} ({roi.x:g},{roi.y:g},{roi.width:g},{roi.height:g}) reaches outside "
                f"the {width}x{height} frame"
            )
