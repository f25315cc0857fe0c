"""What is promised about objects, beside the promise about single frames: about tracks, and about a detector's boxes.

They stand in ``calibration.json``, each with the engine and threshold under which it was counted, and go when the
bundle is calibrated again. **Objects that the detector misses are in none of them.**
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from framegate.runtime.bundle.binomial import binomial_tail
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.errors import CalibrationError

ENTRY = "objects"
"""Of calibration.json: ``backend/precision`` -> list of promises."""
TRACKS, BOXES = "tracks", "boxes"


@dataclass(frozen=True)
class ObjectPromise:
    """One promise that was proved.

    Attributes:
        about: `TRACKS`: at most the target share of new tracks ever shows a wrong accepted label. `BOXES`: of the
            accepted boxes, one drawn from each image, at most the target share is wrong.
        target_risk: In (0, 1).
        confidence_level: Probability with which it is kept, in (0, 1).
        wrong: Tracks, or drawn boxes, that were wrong.
        counted: Tracks; images with an accepted box.
        bound: Upper bound of the share (Clopper and Pearson 1934), at most the target.
        threshold: Of the calibration in force.
        rule: Of tracks: the laxest rule that keeps it, M/N/K.
        giver: Of boxes: what found them; of a detector bundle its name and digest.
        labelled: Of boxes: labelled objects of all images; None for tracks.
        missed: Those that the detector did not find; no promise covers them.
        data: SHA-256 of the labels, or fingerprint of the split, that it was counted on.
    """

    about: str
    target_risk: float
    confidence_level: float
    wrong: int
    counted: int
    bound: float
    threshold: float
    rule: str = ""
    giver: str = ""
    labelled: int | None = None
    missed: int | None = None
    data: str = ""

    def __post_init__(self) -> None:
        """Check the values: the bound must follow from the counts.

        Raises:
            CalibrationError: They contradict each other.
        """
        if self.about not in (TRACKS, BOXES) or (self.about == TRACKS) != bool(self.rule):
            raise CalibrationError(
                f"a promise about {self.about!r} with the rule {self.rule!r}; expected tracks or boxes"
            )
        if not (0 < self.target_risk < 1 and 0 < self.confidence_level < 1 and 0 <= self.bound <= self.target_risk):
            raise CalibrationError(f"a promise about {self.about}: bound {self.bound}, target risk {self.target_risk}")
        tail = binomial_tail(self.wrong, self.counted, self.bound)
        if not tail <= (1 - self.confidence_level) * (1 + 1e-6):
            raise CalibrationError(
                f"a promise about {self.about}: the bound {self.bound} does not follow from {self.wrong} of "
                f"{self.counted}"
            )

    def describe(self) -> str:
        """The promise in one sentence, with what it leaves out."""
        target, sure = f"{self.target_risk:.2%}", f"with probability {self.confidence_level:.0%}"
        found = f"{self.wrong} of {self.counted} were, bound {self.bound:.2%}"
        if self.about == TRACKS:
            return (
                f"tracks under the rule {self.rule}: at most {target} are ever wrong, showing an accepted label that "
                f"is not theirs, {sure} ({found}); objects that a detector misses are NOT covered"
            )
        missed = ""
        if self.labelled:
            share = (self.missed or 0) / self.labelled
            missed = f"; it missed {self.missed} of {self.labelled} labelled objects ({share:.1%})"
        return (
            f"accepted boxes of {self.giver} on single images, without a rule of tracks: at most {target} are wrong "
            f"(overlap below one half, or another label), one box drawn from each image, {sure} "
            f"({found}){missed}; objects that it misses are NOT covered"
        )

    def to_json(self) -> dict[str, Any]:
        """A record of plain JSON values."""
        return asdict(self)


def read_object_promises(
    record: Mapping[str, Any], calibrations: Mapping[str, Calibration]
) -> dict[str, tuple[ObjectPromise, ...]]:
    """The promises of a calibration.json.

    Args:
        record: The file.
        calibrations: What else it holds.

    Raises:
        CalibrationError: One cannot be read, contradicts itself, or belongs to another threshold.
    """
    found = {}
    for key, entries in record.get(ENTRY, {}).items():
        try:
            promises = tuple(ObjectPromise(**each) for each in entries)
        except TypeError as error:
            raise CalibrationError(f"{key}: a promise about objects is not usable: {error}") from error
        calibration = calibrations.get(key)
        for each in promises:
            if calibration is None or not math.isclose(each.threshold, calibration.threshold, rel_tol=1e-9):
                raise CalibrationError(f"{key}: its promise about {each.about} was counted under another threshold")
        found[key] = promises
    return found


def with_promise(record: Mapping[str, Any], key: str, promise: ObjectPromise) -> dict[str, Any]:
    """A calibration.json with one more promise; one about the same (tracks, or the boxes of one giver) is replaced."""
    entries: dict[str, Sequence[Mapping[str, Any]]] = dict(record.get(ENTRY, {}))
    same = (promise.about, promise.giver)
    others = [each for each in entries.get(key, ()) if (each["about"], each.get("giver", "")) != same]
    return {**record, ENTRY: {**entries, key: [*others, promise.to_json()]}}
