"""The protocol of scores: what is fitted on the calibration split, and what is then computed for any frame.

A score is one number per frame; higher always means less trustworthy, and NaN stays NaN, so that ``isfinite(score) and
score <= threshold`` never accepts it. Scores may be made of other scores (their members): typicality and combinations.
Passing one ``known`` dictionary through many calls computes every shared member once.

A threshold taken from the calibration split is only right for new frames if the calibration frames' own scores are
those of frames that the score was not fitted with: a nearest neighbour would otherwise find itself. Every fitted score
therefore carries ``calibration_scores``, each computed as if that frame had been left out where that matters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from framegate.evaluation.frames.observations import Observations
from framegate.runtime.errors import CalibrationError, UsageError

Floats = NDArray[np.float64]
Compute = Callable[[Observations, Sequence[Floats]], Floats]
"""(frames, scores of the members on these frames) -> (N,)."""

FAMILIES = ("output", "input", "feature", "activation", "combined")


class Learned(NamedTuple):
    """What fitting found out.

    Attributes:
        compute: The score of any frames.
        calibration_scores: (N,) of the calibration frames, each left out of the fit; None where leaving one out
            changes nothing worth mentioning, so that ``compute`` may be used.
        parameters: Fitted numbers worth reporting.
    """

    compute: Compute
    calibration_scores: Floats | None = None
    parameters: Mapping[str, float] = {}


@dataclass(frozen=True, eq=False)
class FittedScore:
    """A score that is ready for use.

    Attributes:
        name: Unique within a report.
        family: One of `FAMILIES`.
        two_sided: Frames on either side of the calibration distribution get high scores.
        calibration_scores: (N,) scores of the calibration frames, for thresholds.
        compute: The formula.
        members: Fitted scores that it is made of.
        parameters: Fitted numbers worth reporting.
    """

    name: str
    family: str
    two_sided: bool
    calibration_scores: Floats
    compute: Compute
    members: tuple[FittedScore, ...] = ()
    parameters: Mapping[str, float] = field(default_factory=dict)

    def score(self, observations: Observations, known: dict[str, Floats] | None = None) -> Floats:
        """(N,) float64 scores.

        Args:
            observations: Frames of the same network.
            known: Scores of these very frames by name; those found are used, those computed are added.
        """
        known = {} if known is None else known
        if self.name not in known:
            members = [member.score(observations, known) for member in self.members]
            known[self.name] = _checked(self.name, self.compute(observations, members), len(observations))
        return known[self.name]


@dataclass(frozen=True, eq=False)
class Score:
    """A score that can be fitted.

    Attributes:
        name: Unique within a report.
        family: One of `FAMILIES`.
        learn: Called with the calibration frames and the fitted members.
        two_sided: Frames on either side of the calibration distribution get high scores.
        members: Scores that it is made of.
    """

    name: str
    family: str
    learn: Callable[[Observations, Sequence[FittedScore]], Learned]
    two_sided: bool = False
    members: tuple[Score, ...] = ()

    def __post_init__(self) -> None:
        """Check the family.

        Raises:
            UsageError: It is not one of `FAMILIES`.
        """
        if self.family not in FAMILIES:
            raise UsageError(f"score {self.name}: family {self.family!r} given; expected one of {', '.join(FAMILIES)}")

    def fit(self, calibration: Observations, known: dict[str, FittedScore] | None = None) -> FittedScore:
        """Fit on the calibration split.

        Args:
            calibration: Clean frames with labels that the network was not trained with.
            known: Scores fitted on this very split by name; those found are used, those fitted are added.

        Raises:
            CalibrationError: The split does not hold what the score needs.
        """
        known = {} if known is None else known
        if self.name not in known:
            if len(calibration) == 0:
                raise CalibrationError(f"score {self.name}: the calibration split is empty; give a few thousand frames")
            members = tuple(member.fit(calibration, known) for member in self.members)
            learned = self.learn(calibration, members)
            values = learned.calibration_scores
            if values is None:
                values = learned.compute(calibration, [member.calibration_scores for member in members])
            values = _checked(self.name, values, len(calibration))
            known[self.name] = FittedScore(
                self.name, self.family, self.two_sided, values, learned.compute, members, dict(learned.parameters)
            )
        return known[self.name]


def recorded(name: str, family: str, kind: str, read: Callable[[Observations], Mapping[str, Floats]]) -> Score:
    """A statistic as it was recorded with each frame.

    Args:
        name: Of the statistic and of the score.
        family: Of the score.
        kind: What such statistics are called, for messages.
        read: Observations -> all recorded statistics of this kind.
    """

    def compute(observations: Observations, _: Sequence[Floats]) -> Floats:
        found = read(observations)
        if name not in found:
            raise UsageError(f"{observations.name}: {kind} {name!r} was not recorded; found {', '.join(found)}")
        return found[name]

    return Score(name, family, lambda calibration, members: Learned(compute))


def _checked(name: str, values: Floats, frames: int) -> Floats:
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (frames,):
        raise UsageError(f"score {name}: its formula gives shape {values.shape} for {frames} frames")
    return values
