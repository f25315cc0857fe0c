"""The calibration record of a bundle: which threshold was set, on what, and what it promises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from framegate.runtime.errors import CalibrationError

FORMAT = "framegate-calibration-1"
SCORES = ("entropy",)
"""Scores that this version can threshold."""


def record_key(backend: str, precision: str) -> str:
    """The name under which a calibration is stored: thresholds hold for one backend and one precision."""
    return f"{backend}/{precision}"


@dataclass(frozen=True)
class Calibration:
    """One threshold and its promise: selective risk <= target_risk with probability confidence_level.

    The promise holds for frames exchangeable with the calibration split. It does not hold under attack or for
    scenes the calibration data do not represent.

    Attributes:
        temperature: Logits are divided by it before the softmax, positive.
        score: Name of the score that is compared.
        threshold: Accept iff score <= threshold; in the score's unit (entropy: nats).
        target_risk: Largest share of errors among accepted frames, in (0, 1).
        confidence_level: Probability with which the target is kept, in (0, 1).
        risk_bound: The upper bound that the calibration proved, <= target_risk.
        coverage: Share of accepted frames on the calibration split, in (0, 1].
        selective_risk: Share of errors among them, in [0, 1].
        size: Images in the calibration split.
        fingerprint: SHA-256 of the split's images and labels.
        model_sha256: The model file whose outputs were calibrated.
        engine: Name and version of the engine that computed them.
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

    def __post_init__(self) -> None:
        """Check the values that decide.

        Raises:
            CalibrationError: A value is outside its range.
        """
        if self.score not in SCORES:
            raise CalibrationError(f"calibrated score is {self.score!r}; this version knows {', '.join(SCORES)}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise CalibrationError(f"calibrated temperature is {self.temperature}; expected a positive number")
        if not math.isfinite(self.threshold):
            raise CalibrationError(f"calibrated threshold is {self.threshold}; expected a finite number")
        if not (0 < self.target_risk < 1 and 0 < self.confidence_level < 1):
            raise CalibrationError("target_risk and confidence_level must lie between 0 and 1")

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Calibration:
        """Read one record.

        Raises:
            CalibrationError: A field is missing, unknown or out of range.
        """
        try:
            return cls(**record)
        except TypeError as error:
            raise CalibrationError(f"calibration record is not usable: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """A plain record, the inverse of `from_json`."""
        return asdict(self)

    def promise(self) -> str:
        """The promise in one sentence, with its limits."""
        return (
            f"at most {self.target_risk:.2%} of accepted frames wrong, with probability {self.confidence_level:.0%} "
            f"(bound {self.risk_bound:.2%} on {self.size} calibration images, coverage {self.coverage:.1%}; "
            "for frames like the calibration data, not under attack)"
        )
