"""What of a training split trained nothing, and how a checkpoint's notes say so.

It is known again by a fingerprint: another copy of a data set (more tracks, other pixels) is divided otherwise, and
what is held out there may have trained here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from framegate.models.labelled import LabelledImages, fingerprint
from framegate.models.training.settings import LARGEST_HELD_OUT
from framegate.runtime.errors import DataError


@dataclass(frozen=True)
class HeldOut:
    """What of a training split trained nothing in a network (`hold_out`).

    Attributes:
        share: Of the split's units.
        sha256: `fingerprint` of it: another copy of the data may be divided otherwise.
    """

    share: float
    sha256: str


def hold_out(images: LabelledImages, share: float, seed: int = 0) -> tuple[LabelledImages, LabelledImages]:
    """Divide a training split into what trains and what training may watch: early stopping, printed accuracy.

    Whole units, the same share of every label's, always the same ones; a label with a single unit only trains. What is
    watched is in random order, so that its first images are of all labels.

    Args:
        images: The training split.
        share: In (0, 1), of the units.
        seed: Of the choice.

    Raises:
        DataError: No label has two units.
    """
    units = np.arange(len(images)) if images.groups is None else images.groups
    rng = np.random.default_rng([seed, len(images)])
    watched = np.zeros(len(images), bool)
    for label in np.unique(images.labels):
        known = np.unique(units[(images.labels == label) & ~np.isin(units, units[watched])])
        count = min(max(1, round(len(known) * share)), len(known) - 1)
        watched |= np.isin(units, rng.permutation(known)[: max(count, 0)])
    if not watched.any():
        raise DataError(f"images {images.name}: no label has two units of which one could be held out; give more")
    held = rng.permutation(np.flatnonzero(watched)).astype(np.int64)
    rest = np.flatnonzero(~watched).astype(np.int64)
    return images.subset(rest, images.name), images.subset(held, f"{images.name}, held out")


def require_same_copy(what: str, notes: Mapping[str, Any], name: str, title: str, images: LabelledImages) -> None:
    """Refuse a network that another copy of a data set has trained: it may have seen what calibrates in this one.

    Args:
        what: What to name in the error, e.g. ``--start FILE``.
        notes: Of its checkpoint, or what its bundle says about its training.
        name: Of the data set.
        title: Of the data set, for people.
        images: The whole training split of this copy.

    Raises:
        DataError: It is another copy.
    """
    apart = watched(notes) if notes.get("data") == name else None
    if apart is not None and fingerprint(hold_out(images, apart.share)[1]) != apart.sha256:
        raise DataError(
            f"{what}: it was trained on another copy of {title}, which is divided otherwise, so it may have seen what "
            "calibrates here; give one that this copy has trained"
        )


def watched(notes: Mapping[str, Any]) -> HeldOut | None:
    """What of its training split a training set apart, as a checkpoint's notes say; None if they do not.

    It may have chosen the weights; whoever finds it again among other images knows that they are those of the training.

    Args:
        notes: Of a checkpoint.
    """
    settings, sha256 = notes.get("settings"), notes.get("held_out_sha256")
    share = settings.get("held_out") if isinstance(settings, dict) else None
    # What no training holds out is no record of one; taken at its word, it would let training images prove.
    if not (isinstance(share, float) and 0 < share <= LARGEST_HELD_OUT and isinstance(sha256, str) and sha256):
        return None
    return HeldOut(share, sha256)


def held_out(notes: Mapping[str, Any]) -> HeldOut | None:
    """What trained nothing in a checkpoint, nor chose its weights, as its notes say; None if they do not.

    Training against attacks, if it has no interval bounds, stops early by what it holds out, and keeps the weights that
    were best on it. What a teacher had seen is not known, so a network that had one has none. One that began with
    another's weights has what neither run trained on, if both held out the same.

    Args:
        notes: Of a checkpoint.
    """
    found = watched(notes)
    settings = notes["settings"] if found else {}
    chosen_by_it = settings.get("adversarial") != "none" and not settings.get("interval_bounds")
    if found is None or notes.get("teacher") or chosen_by_it:
        return None
    return found if not notes.get("start") or notes.get("start_held_out") == found.sha256 else None
