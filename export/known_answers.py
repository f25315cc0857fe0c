"""Makes the known answers of a bundle: pictures, the float32 network's logits, and how far engines are from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from framegate.runtime.backends.base import infer
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.known_answers import FILE, KnownAnswers, summary
from framegate.runtime.errors import DataError
from framegate.runtime.health.check import unusable
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec
from framegate.runtime.scores import Tensor
from framegate.runtime.verdict import Image

_PICTURES = 4
_REFERENCE = ("onnxruntime", "fp32")
_MEASURED = ("onnxruntime", "openvino")
_FACTOR = 2.0
"""Other processors add in another order and round differently: an engine may be so many times as far off as here."""
_SHARE = 0.02
"""Of the range of the logits, which every engine may be off besides."""


def pictures(images: Iterable[Image], spec: PreprocessSpec, count: int = _PICTURES) -> npt.NDArray[np.uint8]:
    """The first usable images, brought to the network's input size, at most ``count`` of them.

    Returns:
        (K, depth * height, width, 3) uint8 BGR.

    Raises:
        DataError: There is no usable image.
    """
    preprocessor, found = Preprocessor(spec), []
    for image in images:
        if not unusable(image, spec.depth):
            preprocessor(image)
            found.append(preprocessor.small.copy())
        if len(found) == count:
            break
    if not found:
        raise DataError("known answers: none of the images is a picture that the network takes")
    return np.stack(found)


def _answers(backend: str, model: Path, spec: PreprocessSpec, images: npt.NDArray[np.uint8]) -> Tensor:
    engine, preprocessor = load_backend(backend, model, 1), Preprocessor(spec)
    engine.bind(preprocessor.tensor)
    found = []
    for image in images:
        preprocessor(image)
        found.append(summary(infer(engine)[0]).copy())
    return np.stack(found)


def write_known_answers(
    folder: Path, models: Mapping[str, str], spec: PreprocessSpec, images: Iterable[Image], count: int = _PICTURES
) -> None:
    """Write the known answers of a (temporary) bundle; its manifest must be sealed afterwards.

    A tolerance is twice the difference that was measured here, and 2 % of the range of the logits: less than any
    fault that changes decisions does, more than processors and releases of the engines differ.

    Args:
        folder: The bundle; its networks are there already.
        models: Precision -> file name; ``fp32`` must be among them.
        spec: How an image becomes the network's input.
        images: Pictures of what the network is for; the first few are stored in the bundle.
        count: How many, at most.

    Raises:
        DataError: None of the images can be used.
        BackendError: An engine cannot run a network.
    """
    shown = pictures(images, spec, count)
    reference = _answers(_REFERENCE[0], folder / models[_REFERENCE[1]], spec, shown)
    slack = _SHARE * float(np.ptp(reference))
    tolerances: dict[str, float] = {}
    for precision, file in sorted(models.items()):
        for backend in _MEASURED:
            found = _answers(backend, folder / file, spec, shown)
            tolerances[f"{backend}/{precision}"] = _FACTOR * float(np.abs(found - reference).max()) + slack
        tolerances[f"other/{precision}"] = max(tolerances[f"{backend}/{precision}"] for backend in _MEASURED)
    (folder / FILE).write_bytes(KnownAnswers(shown, reference, tolerances).to_bytes())
