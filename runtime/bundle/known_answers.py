"""Questions whose answers are known: does this engine, on this processor, still compute what was exported?

A bundle holds a few pictures and the logits that its float32 network gave for them when it was exported, and how far an
engine and precision may be from these. They are asked when a session is opened and again while a stream runs. Wrong
weights in memory, a processor whose instructions overflow, a library that computes in another precision: all are seen
by what they do, whatever their cause.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import BundleError
from framegate.runtime.scores import Tensor

FILE = "known_answers.npz"
_OTHERS = "other"
"""Tolerance of engines that were not at hand at export, for each precision: ``other/int8``."""


def summary(logits: Tensor) -> Tensor:
    """(C,) what is compared of the logits for one picture: themselves, or the means of a dense network's maps."""
    return logits if logits.ndim == 1 else logits.reshape(len(logits), -1).mean(axis=1)


@dataclass(frozen=True)
class KnownAnswers:
    """Pictures, the logits that belong to them, and how far an engine may be off.

    Attributes:
        images: (K, depth * height, width, 3) uint8 BGR, of the network's own input size.
        logits: (K, classes) float32, of the float32 network.
        tolerances: ``backend/precision`` -> largest difference of a logit.
    """

    images: npt.NDArray[np.uint8]
    logits: Tensor
    tolerances: dict[str, float]

    def tolerance(self, backend: str, precision: str) -> float | None:
        """Largest difference of a logit for this engine; None if the precision was not known at export."""
        known = self.tolerances
        return known.get(f"{backend}/{precision}", known.get(f"{_OTHERS}/{precision}"))

    def wrong(self, number: int, logits: Tensor, tolerance: float) -> str:
        """What is wrong with the logits for a picture, or an empty text; NaN is wrong."""
        difference = np.abs(logits - self.logits[number]).max()
        if difference <= tolerance:
            return ""
        return (
            f"its logits for a known picture are off by {difference:.3g}, expected at most {tolerance:.3g}; "
            "it does not compute what was exported"
        )

    def to_bytes(self) -> bytes:
        """As a file of the bundle; the same content gives the same bytes."""
        stream = io.BytesIO()
        names, values = list(self.tolerances), list(self.tolerances.values())
        np.savez_compressed(
            stream, images=self.images, logits=self.logits, names=np.array(names), values=np.array(values, np.float64)
        )
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, shape: tuple[int, int, int], classes: int) -> KnownAnswers:
        """Read a bundle's file.

        Args:
            content: Of `FILE`.
            shape: (depth * height, width, 3) that the bundle's network takes.
            classes: Number of its labels.

        Raises:
            BundleError: It cannot be read, or does not belong to such a network.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                images, logits = stored["images"], stored["logits"]
                names, values = stored["names"].tolist(), list(map(float, stored["values"]))
        except Exception as error:  # a zip of arrays can be damaged in many ways
            raise BundleError(f"{FILE} cannot be read ({type(error).__name__}: {error})") from error
        if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
            raise BundleError(f"{FILE}: pictures are {images.dtype} {images.shape}, expected uint8 (K, {shape})")
        if logits.dtype != np.float32 or logits.shape != (len(images), classes) or not np.isfinite(logits).all():
            raise BundleError(f"{FILE}: logits are {logits.dtype} {logits.shape}, expected ({len(images)}, {classes})")
        if len(names) != len(values) or not all(0 < value < np.inf for value in values):
            raise BundleError(f"{FILE}: tolerances are {values}, expected a positive number for each engine")
        return cls(images, logits, dict(zip(map(str, names), values, strict=True)))
