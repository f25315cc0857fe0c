"""What a network computes for a set of frames: the one record that every score and every metric reads.

Networks are slow and scores are many, so a set is pushed through the network once and kept as this record, on disk too.
"""

from __future__ import annotations

import os
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from framegate.runtime.errors import DataError

FORMAT = "framegate-observations-1"
NO_LABEL = -1
"""Label of a frame whose true class the network does not know: out of distribution."""


@dataclass(frozen=True, eq=False)  # eq=False: == on arrays has no single truth value
class Observations:
    """N frames. The arrays are read-only views; a network's NaN stays NaN.

    Attributes:
        name: What the set is called in reports.
        logits: (N, C) float32, C >= 2.
        labels: (N,) int64 in [0, C), or -1 where the frame shows none of the network's classes.
        features: (N, F) float32, input of the last linear layer; F may be 0 where it was not recorded.
        taps: ``LAYER:STATISTIC`` -> (N,) float64, one value per frame.
        controls: Statistic of the input that needs no network -> (N,) float64.
    """

    name: str
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    features: NDArray[np.float32]
    taps: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    controls: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that everything is about the same frames.

        Raises:
            DataError: A shape does not fit, or a label is out of range.
        """
        logits = _array(self.name, "logits", self.logits, np.float32, 2)
        frames, classes = logits.shape
        if classes < 2:
            raise DataError(f"{self.name}: logits have shape {logits.shape}; at least two classes are needed")
        if not np.issubdtype(np.asarray(self.labels).dtype, np.integer):
            raise DataError(f"{self.name}: labels are {np.asarray(self.labels).dtype}; whole numbers are needed")
        labels = _array(self.name, "labels", self.labels, np.int64, 1, frames)
        if frames and not (labels.min() >= NO_LABEL and labels.max() < classes):
            raise DataError(
                f"{self.name}: labels run from {labels.min()} to {labels.max()}; the network knows 0 to {classes - 1}, "
                f"and {NO_LABEL} stands for none of them"
            )
        object.__setattr__(self, "logits", logits)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "features", _array(self.name, "features", self.features, np.float32, 2, frames))
        for group in ("taps", "controls"):
            values = getattr(self, group)
            checked = {key: _array(self.name, key, value, np.float64, 1, frames) for key, value in values.items()}
            object.__setattr__(self, group, checked)

    def __len__(self) -> int:
        """N."""
        return len(self.logits)

    @property
    def finite(self) -> NDArray[np.bool_]:
        """(N,) True where every logit is finite; anything else from a network is a fault, as in the runtime."""
        return np.asarray(np.isfinite(self.logits).all(axis=1))

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) index of the largest logit, the lowest on a tie; -1 where a logit is not finite."""
        return np.where(self.finite, self.logits.argmax(axis=1), -1)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """(N,) the prediction is not the label. Always True without a label (no class can be right) or a prediction."""
        return np.asarray((self.labels == NO_LABEL) | (self.predicted != self.labels))

    def subset(self, index: NDArray[np.int64] | NDArray[np.bool_] | slice, name: str | None = None) -> Observations:
        """The chosen frames, in the order of ``index`` (positions, a mask, or a slice)."""
        return Observations(
            self.name if name is None else name,
            self.logits[index],
            self.labels[index],
            self.features[index],
            {key: value[index] for key, value in self.taps.items()},
            {key: value[index] for key, value in self.controls.items()},
        )

    def save(self, path: Path) -> None:
        """Write a .npz; the file appears complete or not at all.

        Raises:
            OSError: The folder cannot be written.
        """
        parts: dict[str, Any] = {
            "format": np.array(FORMAT),
            "name": np.array(self.name),
            "logits": self.logits,
            "labels": self.labels,
            "features": self.features,
        }
        for group, values in (("taps", self.taps), ("controls", self.controls)):
            parts[f"{group}_names"] = np.array(list(values), dtype=np.str_)
            parts[group] = np.stack(list(values.values())) if values else np.empty((0, len(self)))
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        try:
            with partial.open("wb") as file:
                np.savez(file, **parts)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def load(path: Path) -> Observations:
    """Read what `Observations.save` wrote.

    Raises:
        DataError: The file is missing, damaged or of another kind.
    """
    advice = "delete it and evaluate again"
    try:
        with np.load(path, allow_pickle=False) as archive:
            found = str(archive["format"]) if "format" in archive else "none"
            if found != FORMAT:
                raise DataError(f"{path}: format {found!r} found, this version reads {FORMAT!r}; {advice}")
            groups = [
                dict(zip(archive[f"{group}_names"].tolist(), archive[group], strict=True))
                for group in ("taps", "controls")
            ]
            return Observations(
                str(archive["name"]), archive["logits"], archive["labels"], archive["features"], groups[0], groups[1]
            )
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; evaluate first") from error
    except (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as observations ({error}); {advice}") from error


def concatenate(name: str, parts: Sequence[Observations]) -> Observations:
    """The frames of all parts, in order.

    Raises:
        DataError: No parts, or they come from different networks or watched different taps.
    """
    if not parts:
        raise DataError(f"{name}: nothing to join; give at least one set of observations")
    first = parts[0]
    for part in parts[1:]:
        for what, asked, found in (
            ("classes", first.logits.shape[1], part.logits.shape[1]),
            ("features", first.features.shape[1], part.features.shape[1]),
            ("taps", sorted(first.taps), sorted(part.taps)),
            ("controls", sorted(first.controls), sorted(part.controls)),
        ):
            if asked != found:
                raise DataError(
                    f"{name}: {first.name} has {what} {asked}, {part.name} has {found}; join like with like"
                )
    return Observations(
        name,
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.features for part in parts]),
        {key: np.concatenate([part.taps[key] for part in parts]) for key in first.taps},
        {key: np.concatenate([part.controls[key] for part in parts]) for key in first.controls},
    )


def _array(
    owner: str, what: str, values: ArrayLike, dtype: type, dimensions: int, frames: int | None = None
) -> NDArray[Any]:
    array: NDArray[Any] = np.ascontiguousarray(values, dtype=dtype).view()
    if array.ndim != dimensions or frames not in (None, len(array)):
        asked = f"{dimensions} dimensions" + ("" if frames is None else f" and {frames} frames")
        raise DataError(f"{owner}: {what} has shape {array.shape}; {asked} are needed")
    array.flags.writeable = False
    return array
