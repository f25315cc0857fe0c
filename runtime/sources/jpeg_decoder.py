"""JPEG decoded by libjpeg-turbo itself, which says where it had to guess.

A bit error inside the compressed data of a JPEG leaves a picture of smears. The format has no checksum, but mostly the
decoder runs out of data, or has some left over, and warns of it. OpenCV decodes with the same code, to the same pixels,
and passes no warning on. So the package simplejpeg is used where it is installed (`pip install 'framegate[jpeg]'`).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NamedTuple

from framegate.runtime.verdict import Image

_LEFT_OVER = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
_HARMLESS = 16
"""Bytes before the end that belong to nothing: many cameras pad their pictures by some, and all of the picture is
there. Those of damaged ones, of which data was lost or read as other codes, are tens to hundreds."""


class Decoded(NamedTuple):
    """What the decoder made of a JPEG.

    Attributes:
        image: (h, w, 3) uint8 BGR, not turned; None if it cannot say, and another one has to.
        damaged: Some of the pixels are guessed.
    """

    image: Image | None
    damaged: bool


def decode_jpeg(data: bytes) -> Decoded:
    """Decode a JPEG and say whether it is damaged.

    Args:
        data: The whole file.
    """
    package = _package()
    if package is None:
        return Decoded(None, False)
    try:
        return Decoded(package.decode_jpeg(data, "BGR"), False)
    except ValueError as error:
        said = str(error)
    left_over = _LEFT_OVER.match(said)
    if left_over is None or int(left_over[1]) > _HARMLESS:
        # Other errors are about forms of JPEG that it does not know, such as four colours.
        return Decoded(None, said.startswith("Corrupt JPEG data"))
    try:
        return Decoded(package.decode_jpeg(data, "BGR", strict=False), False)
    except ValueError:
        return Decoded(None, True)


@cache
def _package() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg
