"""The calibration record of a bundle: which threshold was set, on what, and what it promises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from framegate.runtime.bundle.binomial import binomial_tail
from framegate.runtime.bundle.class_risk import ClassRisk
from framegate.runtime.errors import CalibrationError

FORMAT = "framegate-calibration-4"
READ_FORMATS = ("framegate-calibration-2", "framegate-calibration-3", FORMAT)
"""Format 2 did not record what a unit is, how many shared the confidence, and how often the images had been asked;
formats 2 and 3 knew no promise about a single label."""
FRAMES, UNITS = "frames", "units"
"""What a promise is about: the accepted frames that are wrong, or the units with any wrong accept."""
FINGERPRINT = "fingerprint"
"""As `Calibration.division`: which images prove follows from the data, not from a seed to be tried."""
NO_PROMISE = "NOTHING IS PROMISED: the threshold was set on images that the network may have seen (--no-promise)"
UNPROVED = "NOTHING IS PROMISED: nothing was proved about the threshold (--no-promise)"
"""The same where somebody vouched for the images."""
IMAGE = "image"
"""The unit of data in which every image stands for itself."""
SCORES = ("entropy", "max_probability", "margin", "energy")
"""Scores of the output that this version can threshold; a bundle's own signals come on top.

All are turned so that higher is less trustworthy: entropy in nats, 1 - max_probability, 1 - margin, energy.
"""

BOX = "box_"
BOX_SCORES = tuple(BOX + name for name in SCORES)
"""Scores of a detector bundle's boxes (`framegate.runtime.regions.box_scores`)."""
UNUSABLE = "unusable_share"
"""Score of a dense bundle's region: the share of its pixels that are not usable (`framegate.runtime.dense.spec`)."""


def record_key(backend: str, precision: str) -> str:
    """The name under which a calibration is stored: thresholds hold for one backend and one precision."""
    return f"{backend}/{precision}"


@dataclass(frozen=True)
class Limit:
    """The range in which a signal, or its mean over a window of the stream, must lie.

    Attributes:
        signal: A score of the output, or a signal of the bundle.
        low: Accept iff low <= value <= high; None is no limit on this side.
        high: See ``low``.
        frames: 1 judges each frame; n > 1 judges the mean over the last n frames of a stream, which sees a small but
            lasting shift after at most n frames.
    """

    signal: str
    low: float | None = None
    high: float | None = None
    frames: int = 1

    def __post_init__(self) -> None:
        """Check the values that decide.

        Raises:
            CalibrationError: Neither side has a finite limit, or the window is not a whole positive number.
        """
        given = [side for side in (self.low, self.high) if side is not None]
        if not given or not all(math.isfinite(side) for side in given) or sorted(given) != given:
            raise CalibrationError(f"limits of {self.signal} are {self.low} and {self.high}; expected an ordered range")
        if not (isinstance(self.frames, int) and self.frames >= 1):
            raise CalibrationError(f"the window of {self.signal} is {self.frames} frames; expected 1 or more")

    @cached_property
    def range(self) -> str:
        """The range, for people."""
        low = "-inf" if self.low is None else f"{self.low:.4g}"
        return f"{low} to {'inf' if self.high is None else f'{self.high:.4g}'}"

    def words(self, value: float) -> str:
        """What is said of a value outside, for people."""
        return f"{self.signal} is {value:.4g}, calibrated {self.range}"

    def holds(self, value: float) -> bool:
        """Whether a value lies inside; NaN and infinities never do."""
        return (
            math.isfinite(value)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
        )


@dataclass(frozen=True)
class Calibration:
    """One threshold and its promise: selective risk <= target_risk with probability confidence_level.

    The probability is that of the whole run, before its outcome is known: with at least `confidence_level` it either
    refuses or keeps the target. Given that a threshold was issued, nothing is promised: a network that can only just
    not keep the target is mostly refused, and every threshold that it is issued is a wrong one.

    The promise holds for frames exchangeable with the calibration split. It does not hold under attack or for
    scenes the calibration data do not represent.

    Attributes:
        temperature: Logits are divided by it before the softmax, positive.
        score: Name of the score that is compared.
        threshold: Accept iff score <= threshold; in the score's unit (entropy: nats).
        target_risk: Largest share of errors among accepted frames, or of units with a wrong accept, in (0, 1).
        confidence_level: Probability with which the target is kept, in (0, 1).
        risk_bound: The binomial bound at the threshold as if it had been fixed beforehand, <= target_risk. It was not,
            so this is **no** confidence bound of the risk; `target_risk` is what was proved.
        coverage: Share of accepted frames on the tested calibration images, in (0, 1].
        selective_risk: Share of errors among them, in [0, 1]; with ``about`` units, the share of tested units with a
            wrong accept.
        size: Images tested; one of each unit where images come in units.
        fingerprint: SHA-256 of the split's images and labels.
        model_sha256: The model file whose outputs were calibrated.
        engine: Name and version of the engine that computed them.
        method: How the threshold was proved: ``learn-then-test`` or ``geifman-el-yaniv``.
        groups: Independent units of the split (tracks), None where every image is one.
        limits: Ranges that signals must keep; the promise, coverage and risk count only frames within all single-frame
            limits.
        score_quantiles: Quantiles 0, 1/n, ..., 1 of the score on the tested calibration images, ascending: what a
            stream's scores are compared with to find drift. Empty in old records.
        unit: What is independent of the others: ``image``, ``track``, ``patient``, ``drive``; empty if not recorded.
        about: `FRAMES`: a frame drawn at random from a unit drawn at random. `UNITS`: at most `target_risk` of the
            units contain a wrong accept.
        units_wrong: Of the ``size`` tested units, those with a wrong accept among **all** their frames; None where
            images are the units, or not recorded.
        units_bound: Upper bound of the share of new units with a wrong accept, with the same confidence by itself.
        shares: Promises (precisions, targets) among which 1 - confidence_level was divided; None if not recorded, then
            each had the whole.
        attempts: How many different questions these images had been asked, with this one; None if not recorded.
        division: ``fingerprint``: what proves follows from the data. Empty: from a seed that could be chosen.
        proved: False: set without a proof (``--no-promise``); nothing is promised.
        unseen: Who says that the network had not seen the images: ``training record``, ``user``; empty if nobody.
        group: Regular expression for LABEL/FILE that said which of a folder's images belong together; empty without.
        classes: Labels that were asked for by name. Each has its own threshold and target risk, at most `target_risk`;
            ``threshold`` is that of all other labels. ``coverage``, ``selective_risk`` and the promise count all
            labels, each by its own threshold; ``risk_bound`` is the largest of all bounds.
    """

    temperature: float
    score: str
    threshold: float
    target_risk: float
    confidence_level: float
    risk_bound: float
    coverage: float
    selective_risk: float
    size: int
    fingerprint: str
    model_sha256: str
    engine: str
    method: str = "learn-then-test"
    groups: int | None = None
    limits: tuple[Limit, ...] = ()
    score_quantiles: tuple[float, ...] = ()
    unit: str = ""
    about: str = FRAMES
    units_wrong: int | None = None
    units_bound: float | None = None
    shares: int | None = None
    attempts: int | None = None
    division: str = ""
    proved: bool = True
    unseen: str = ""
    group: str = ""
    classes: tuple[ClassRisk, ...] = ()

    def __post_init__(self) -> None:
        """Check the values that decide.

        Raises:
            CalibrationError: A value is outside its range.
        """
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise CalibrationError(f"calibrated temperature is {self.temperature}; expected a positive number")
        if not math.isfinite(self.threshold):
            raise CalibrationError(f"calibrated threshold is {self.threshold}; expected a finite number")
        if not (0 < self.target_risk < 1 and 0 < self.confidence_level < 1):
            raise CalibrationError("target_risk and confidence_level must lie between 0 and 1")
        if self.about not in (FRAMES, UNITS) or self.proved not in (True, False):
            raise CalibrationError(f"the promise is about {self.about!r}; expected {FRAMES} or {UNITS}")
        for name, least in (("shares", 1), ("attempts", 1), ("units_wrong", 0)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= least):
                raise CalibrationError(f"{name} is {value!r}; expected a whole number, {least} or more")
        if self.units_bound is not None and not 0 <= self.units_bound <= 1:
            raise CalibrationError(f"units_bound is {self.units_bound}; expected a share")
        if not all(isinstance(each, str) for each in (self.unit, self.division, self.unseen, self.group)):
            raise CalibrationError("unit, division, unseen and group of a calibration must be words")
        if len({each.class_id for each in self.classes}) < len(self.classes):
            raise CalibrationError("a label has two risks of its own in one calibration")
        ordered = all(a <= b for a, b in pairwise(self.score_quantiles))
        if not ordered or not all(map(math.isfinite, self.score_quantiles)):
            raise CalibrationError("score_quantiles of the calibration are not in ascending order, or not finite")
        if not isinstance(self.engine, str):
            raise CalibrationError(f"engine of a calibration is {self.engine!r:.60}; expected its name and version")

    def require_consistent(self, classes: int, key: str) -> None:
        """Refuse a record that contradicts itself: an edited one, say.

        The bound must follow from the counts: P(X <= errors) <= (1 - confidence_level) / shares at rate `risk_bound`,
        which is Clopper and Pearson's definition (1934). A threshold must reject something.

        Args:
            classes: Of the network.
            key: ``backend/precision``, for the message.

        Raises:
            CalibrationError: It does.
        """
        if self.proved and not (0 <= self.selective_risk <= self.risk_bound <= self.target_risk):
            raise CalibrationError(
                f"{key}: selective_risk {self.selective_risk}, risk_bound {self.risk_bound} and target_risk "
                f"{self.target_risk} must be in this order"
            )
        if not (0 < self.coverage <= 1 and isinstance(self.size, int) and self.size >= 1):
            raise CalibrationError(
                f"{key}: coverage is {self.coverage} of {self.size} images; expected a share of some"
            )
        self._require_selective(classes, key)
        if any(each.class_id >= classes or not each.target_risk <= self.target_risk for each in self.classes):
            raise CalibrationError(
                f"{key}: a label's own risk is above the target, or the label is none of the network's {classes}"
            )
        if not self.proved:
            return
        delta = (1 - self.confidence_level) / (self.shares or 1)
        for what, errors, trials, bound in self._proofs(classes):
            if not binomial_tail(errors, trials, bound) <= delta * (1 + 1e-6):
                counted = f"{errors} errors among {trials} accepted images{what}"
                raise CalibrationError(f"{key}: risk_bound {bound} does not follow from {counted}")

    def _proofs(self, classes: int) -> list[tuple[str, int, int, float]]:
        """What was proved each for itself: words, errors, accepted images, bound. Labels by name, then all others."""
        errors, trials = self.counts
        found = []
        for each in self.classes:
            errors, trials = errors - each.errors, trials - each.accepted
            found.append((f" read as {each.label!r}", each.errors, each.accepted, each.risk_bound))
        if len(self.classes) < classes:
            found.append((" of the other labels" if self.classes else "", errors, trials, self.risk_bound))
        return found

    def threshold_of(self, class_id: int) -> float:
        """The threshold of a frame that is read as this class; NaN, which no score passes, if the class is unknown.

        Args:
            class_id: Number of the most probable label, from 0. Where no label has a threshold of its own it does not
                matter.
        """
        if not self.classes:
            return self.threshold
        return self._by_class.get(class_id, self.threshold) if class_id >= 0 else math.nan

    def threshold_of_label(self, label: str) -> float:
        """`threshold_of`, by the label's name; empty: it is not known."""
        if not self.classes:
            return self.threshold
        return (
            next((each.threshold for each in self.classes if each.label == label), self.threshold)
            if label
            else math.nan
        )

    @cached_property
    def _by_class(self) -> dict[int, float]:
        return {each.class_id: each.threshold for each in self.classes}

    @property
    def counts(self) -> tuple[int, int]:
        """What was counted: errors and accepted images; or units with a wrong accept, and all tested units."""
        trials = self.size if self.about == UNITS else round(self.coverage * self.size)
        return round(self.selective_risk * trials), trials

    def _require_selective(self, classes: int, key: str) -> None:
        """Refuse a threshold that no score can exceed, or above every score of the calibration images."""
        known = {"entropy": math.log(classes), "max_probability": 1 - 1 / classes, "margin": 1.0, UNUSABLE: 1.0}
        known |= {BOX + "max_probability": 1.0, BOX + "margin": 1.0}
        highest = known.get(self.score)
        if self.score_quantiles:
            # Thresholds are scores of calibration images: none lies above the largest.
            highest = min(self.score_quantiles[-1], math.inf if highest is None else highest)
        for threshold in (self.threshold, *(each.threshold for each in self.classes)):
            if highest is not None and threshold > highest + 1e-9 * max(1.0, abs(highest)):
                raise CalibrationError(
                    f"{key}: the threshold is {threshold:g}, no {self.score} is above {highest:g}: it rejects nothing"
                )

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Calibration:
        """Read one record.

        Raises:
            CalibrationError: A field is missing, unknown or out of range.
        """
        try:
            limits = tuple(Limit(**each) for each in record.get("limits", ()))
            quantiles = tuple(float(each) for each in record.get("score_quantiles", ()))
            classes = tuple(ClassRisk(**each) for each in record.get("classes", ()))
            return cls(**{**record, "limits": limits, "score_quantiles": quantiles, "classes": classes})
        except (TypeError, ValueError, OverflowError) as error:
            raise CalibrationError(f"calibration record is not usable: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """A plain record, the inverse of `from_json`."""
        return asdict(self)

    @property
    def drawn(self) -> str:
        """What the promise is about, in words: how a frame, or a unit, is drawn."""
        if self.about == UNITS:
            return f"a random new {self.unit or 'unit'}"
        if self.groups is None:
            return f"a random {self._judged[0]}"
        return f"a random {self._judged[0]} of a random new {self.unit or 'track'}"

    @property
    def _judged(self) -> tuple[str, str]:
        """What one verdict is about: the word, and its plural."""
        if self.score in BOX_SCORES:
            return "box", "boxes"
        return ("region", "regions") if self.score == UNUSABLE else ("frame", "frames")

    @property
    def unproved(self) -> str:
        """What is said in place of a promise where nothing was proved; empty where something was."""
        if self.proved:
            return ""
        return UNPROVED if self.unseen else NO_PROMISE

    def short(self) -> str:
        """The promise in a few words, for tables."""
        if not self.proved:
            return "NOTHING IS PROMISED"
        about = f"of accepted {self._judged[1]} wrong"
        if self.about == UNITS:
            about = f"of new {self.unit or 'unit'}s with a wrong accept"
        drawn = "" if self.about == UNITS else f", {self.drawn}"
        return (
            f"at most {self.target_risk:.2%} {about}{self._of_classes()}{drawn}; {self.confidence_level:.0%} confidence"
        )

    def promise(self) -> str:
        """The promise in one sentence, with its limits."""
        if not self.proved:
            return self.unproved
        errors, trials = self.counts
        if self.about == UNITS:
            what = f"at most {self.target_risk:.2%} of new {self.unit or 'unit'}s contain a wrong accept"
            found = f"{errors} of {trials} did"
        else:
            many = f"{self._judged[1]} are wrong{self._of_classes()}"
            what = f"at most {self.target_risk:.2%} of accepted {many}, for {self.drawn}"
            found = f"{errors} of {trials} accepted were, coverage {self.coverage:.1%}"
        return (
            f"{what}; calibrations keep this with probability {self.confidence_level:.0%} or refuse ({found}; for "
            f"frames like the calibration data, not under attack{self._missed()})"
        )

    def _missed(self) -> str:
        return ", and not for objects that the detector misses" if self.score in BOX_SCORES else ""

    def explanation(self) -> list[str]:
        """The promise for people who want to repeat it in their own words: what it is about, and what it is not."""
        if not self.proved:
            return [self.unproved]
        errors, trials = self.counts
        level, target = f"{self.confidence_level:.0%}", f"{self.target_risk:.2%}"
        if self.about == UNITS:
            lines = [
                f"Before calibration: with probability at least {level}, either it refuses or at most {target} of new "
                f"{self.unit or 'unit'}s contain a wrong accept ({errors} of {trials} tested ones did).",
            ]
        else:
            lines = [
                f"Before calibration: with probability at least {level}, either it refuses or at most {target} of the "
                f"{self._judged[1]} that pass score and single-frame limits are wrong, for {self.drawn} ({errors} of "
                f"{trials} accepted ones were)."
            ]
            lines += [self._class_line(each) for each in self.classes]
            lines += self._units()
        if self.score in BOX_SCORES:
            lines.append(
                "A box is wrong if no labelled one overlaps it by one half, or its class is another. Objects "
                "that the detector misses are in no promise."
            )
        lines += [self._given(), self._beyond()]
        said = self.unseen or "nobody"
        lines.append(f"Who says that the network had not seen the calibration images: {said}.")
        return [*lines, self._run()]

    def _of_classes(self) -> str:
        """The promises about single labels, for a sentence about all of them."""
        return "".join(f", of those read as {each.label!r} at most {each.target_risk:.2%}" for each in self.classes)

    def _given(self) -> str:
        """What follows from a threshold being there: nothing."""
        return (
            f"This is about the way of calibrating: up to {100 * (1 - self.confidence_level):.3g}% of all calibrations "
            "made so may issue a threshold that breaks it, and nobody can say which. Given that a threshold was "
            "issued, it promises nothing more."
        )

    def _beyond(self) -> str:
        """What the rest of the verdict does to it."""
        others = "What the camera check, windows, drift or deadlines reject beyond that"
        if self.about == UNITS:
            whole = f"{others} was not calibrated; it takes wrong accepts away and adds none, so the promise stays."
        else:
            whole = (
                f"{others} was not calibrated: among the frames that are left, the share of errors can be larger. The "
                f"same probability covers what the whole verdict does to all frames: at most {self.target_risk:.2%} of "
                "them, drawn in the same way, are wrong and accepted."
            )
        return f"{whole} Not under attack, and not for scenes unlike the calibration data."

    def _class_line(self, each: ClassRisk) -> str:
        label, counted = repr(each.label), f"{each.errors} of {each.accepted}"
        return (
            f"Of the accepted frames that are read as {label} at most {each.target_risk:.2%} are wrong: the same "
            f"probability covers this, too ({counted} were; accepted if {self.score} <= {each.threshold:.4g}). "
            f"Frames that show {label} and are read as something else are not counted here."
        )

    def _units(self) -> list[str]:
        """How many units hold a wrong accept, where images come in units."""
        if self.groups is None:
            return []
        unit = self.unit or "track"
        if self.units_wrong is None or self.units_bound is None:
            return [f"How many {unit}s contain a wrong accept was not recorded: expect more than the share of frames."]
        return [
            f"It is not about whole {unit}s: {self.units_wrong} of {self.size} tested {unit}s "
            f"({self.units_wrong / self.size:.1%}) contain a wrong accept; of new ones at most {self.units_bound:.1%}, "
            f"with {self.confidence_level:.0%} confidence."
        ]

    def _run(self) -> str:
        """For which run it holds: one, and not the best of several."""
        if self.division != FINGERPRINT or self.attempts is None or self.shares is None:
            return (
                "It holds for one run whose data division, engine and target were fixed beforehand; how often it was "
                "tried was not recorded, and the engines of this bundle did not share the confidence."
            )
        shared = f"; {self.shares} promises share the confidence" if self.shares > 1 else ""
        asked = (
            "these images were asked nothing else before"
            if self.attempts == 1
            else f"this was question {self.attempts} to the same images, and a choice among the answers is not covered"
        )
        return f"It holds for one run fixed beforehand: {asked}{shared}."
