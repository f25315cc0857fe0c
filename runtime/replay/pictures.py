"""The full pictures of a black box, to be looked at, labelled or judged again."""

from __future__ import annotations

import base64
import json
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from framegate.runtime.errors import DataError
from framegate.runtime.mcap_messages import Contents
from framegate.runtime.verdict import Image

PICTURES = "/camera"


def read_jpegs(path: Path, wanted: Container[int] | None = None) -> Iterator[tuple[int, bytes]]:
    """Number and JPEG of the pictures in a file, in its order.

    Args:
        path: MCAP file of a black box.
        wanted: Frame numbers; None: all.

    Raises:
        DataError: The file cannot be read, or a picture is garbled.
    """
    for message in Contents(path).messages(lambda topic: topic == PICTURES):
        if wanted is not None and message.sequence not in wanted:
            continue
        try:
            yield message.sequence, base64.b64decode(json.loads(message.data)["data"])
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(f"{path}: the picture of frame {message.sequence} is garbled ({error})") from error


def decode(data: bytes, path: Path, frame_id: int) -> Image:
    """The pixels of a picture, (height, width, 3) uint8 BGR.

    Raises:
        DataError: It is no picture.
    """
    image = cast(Any, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    if image is None:
        raise DataError(f"{path}: the picture of frame {frame_id} cannot be decoded")
    return cast(Image, image)
