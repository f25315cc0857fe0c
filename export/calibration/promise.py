"""What is asked of a calibration, and what is known about its images and its run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framegate.export.calibration.decisions import Outputs
from framegate.export.calibration.selective_risk import METHODS, check_promise
from framegate.runtime.bundle.calibration import FRAMES, SCORES, UNITS
from framegate.runtime.errors import UsageError
from framegate.runtime.monitor import SHIFT

AUTO = "auto"
"""As a promise's score: the one that the design images favour."""


@dataclass(frozen=True)
class Promise:
    """What a calibration shall promise.

    Attributes:
        target_risk: Largest share of errors among accepted frames, or of units with a wrong accept, in (0, 1).
        confidence_level: Probability with which the target is kept, in (0, 1).
        seed: Which training images serve INT8 ranges. Which images prove is no choice: it follows from the data.
        method: How the threshold is proved, see `framegate.export.calibration.selective_risk`.
        score: What is compared with the threshold; ``auto`` takes the one that the design images favour.
        limit_share: Share of clean frames that all limits together may reject, in [0, 0.5); 0 sets no limits.
        window: Also limit the mean of the monitor's ``shift`` over so many frames of a stream; 0 does not.
        larger_risks: Targets that would do, too, ascending and above `target_risk`: the smallest that can be proved is
            taken, and they share the confidence.
        about: `framegate.runtime.bundle.calibration.FRAMES` or ``UNITS``, see `Calibration.about`.
        proved: False: set the threshold without a proof, see `Calibration.proved`.
        class_risks: Labels with a target risk of their own, and that: largest share of errors among the accepted frames
            that are read as this label. None is above `target_risk`.
    """

    target_risk: float = 0.02
    confidence_level: float = 0.95
    seed: int = 0
    method: str = METHODS[0]
    score: str = AUTO
    limit_share: float = 0.01
    window: int = 0
    larger_risks: tuple[float, ...] = ()
    about: str = FRAMES
    proved: bool = True
    class_risks: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: A value is outside its range.
        """
        for target in self.targets:
            check_promise(target, self.confidence_level)
        if list(self.targets) != sorted(set(self.targets)):
            raise UsageError(f"target risk: {self.targets} given, expected different numbers in ascending order")
        if self.about not in (FRAMES, UNITS):
            raise UsageError(f"promise: {self.about!r} given, expected {FRAMES} or {UNITS}")
        if self.method not in METHODS:
            raise UsageError(f"method: {self.method!r} given, expected {' or '.join(METHODS)}")
        if self.score not in (AUTO, *SCORES, SHIFT):
            raise UsageError(f"score: {self.score!r} given, expected {', '.join((AUTO, *SCORES, SHIFT))}")
        if not 0 <= self.limit_share < 0.5:
            raise UsageError(f"limit share: {self.limit_share:g} given, expected a number from 0 to below 0.5")
        if self.seed < 0:
            raise UsageError(f"seed: {self.seed} given, expected 0 or more")
        if self.window != 0 and not 2 <= self.window <= 256:
            raise UsageError(f"window: {self.window} frames given, expected 2 to 256, or 0 for none")
        self._check_class_risks()

    def _check_class_risks(self) -> None:
        """Check the risks of single labels.

        Raises:
            UsageError: They make no sense beside each other or beside the rest.
        """
        names = [name for name, _ in self.class_risks]
        if len(set(names)) < len(names):
            raise UsageError(f"risk of single labels: {', '.join(sorted(names))} given, expected each label once")
        if names and (self.about == UNITS or not self.proved):
            what = "a promise about units" if self.about == UNITS else "no promise"
            raise UsageError(f"risk of single labels: asked for together with {what}; it is about accepted frames")
        for name, risk in self.class_risks:
            check_promise(risk, self.confidence_level)
            if risk > self.target_risk:
                raise UsageError(
                    f"risk of {name!r}: {risk:g} given, expected at most the target risk of all labels, "
                    f"{self.target_risk:g}"
                )

    @property
    def targets(self) -> tuple[float, ...]:
        """Every target that would do, ascending."""
        return (self.target_risk, *self.larger_risks)


@dataclass(frozen=True, eq=False)
class EngineOutputs:
    """What one engine says about the calibration split.

    Attributes:
        outputs: N images.
        model_sha256: The model file that computed them.
        engine: Name and version of the engine that ran it.
    """

    outputs: Outputs
    model_sha256: str = ""
    engine: str = ""


@dataclass(frozen=True)
class Circumstances:
    """What a calibration record says about its images and its run.

    Attributes:
        split_sha256: `fingerprint` of the split, which also divides it.
        groups: (N,) number of each image's unit (track); frames of a unit are alike and count as one: the proof takes
            one frame of each at random, so the promise is about a random frame of a new unit. None: each image is one.
        unit: What a unit is called.
        shares: Promises of this run among which 1 - confidence_level is divided, besides several targets.
        attempts: See `Calibration.attempts`.
        unseen: See `Calibration.unseen`.
        table: Whether a refusal computes what could be proved instead.
        labels: The network's, where single labels are asked for.
        group: See `Calibration.group`.
        sequence: (N,) position of each image in the order of capture; None: they lie in it.
    """

    split_sha256: str
    groups: npt.NDArray[np.int64] | None = None
    unit: str = ""
    shares: int = 1
    attempts: int = 1
    unseen: str = ""
    table: bool = True
    labels: tuple[str, ...] = ()
    group: str = ""
    sequence: npt.NDArray[np.int64] | None = None
