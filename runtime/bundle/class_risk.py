"""What is promised about one label of a bundle beside the promise about all of them.

A speed limit read wrongly costs more than one read late. For a label that was asked for (``framegate calibrate --risk
stop=0.001``) the event is conditional on what driving logic sees: **of the accepted frames that are read as this label,
at most `target_risk` show something else.** Frames that show the label and are read as another count with the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from framegate.runtime.errors import CalibrationError


@dataclass(frozen=True)
class ClassRisk:
    """The threshold of one label, and what it was proved on.

    Attributes:
        label: Its name.
        class_id: Its number in the bundle, from 0.
        target_risk: Largest share of errors among the accepted frames that are read as this label, in (0, 1).
        threshold: Of these frames, accept iff score <= threshold; in the score's unit.
        accepted: Tested frames that are read as this label and accepted; one of each unit where images come in units.
        errors: Of these, the wrong ones.
        risk_bound: See `framegate.runtime.bundle.calibration.Calibration.risk_bound`; at most `target_risk`.
    """

    label: str
    class_id: int
    target_risk: float
    threshold: float
    accepted: int
    errors: int
    risk_bound: float

    def __post_init__(self) -> None:
        """Check the values that decide.

        Raises:
            CalibrationError: A value is outside its range.
        """
        whole = (self.class_id, self.accepted, self.errors)
        if not (isinstance(self.label, str) and self.label and all(type(each) is int for each in whole)):
            raise CalibrationError(f"risk of label {self.label!r}: number {self.class_id!r} and counts must be whole")
        if not (self.class_id >= 0 and 0 <= self.errors <= self.accepted and self.accepted >= 1):
            raise CalibrationError(f"risk of label {self.label!r}: {self.errors} errors of {self.accepted} accepted")
        if not math.isfinite(self.threshold):
            raise CalibrationError(f"risk of label {self.label!r}: the threshold is {self.threshold}")
        if not self.errors / self.accepted <= self.risk_bound <= self.target_risk < 1:
            raise CalibrationError(
                f"risk of label {self.label!r}: {self.errors} errors of {self.accepted}, risk_bound {self.risk_bound} "
                f"and target_risk {self.target_risk} must be in this order"
            )
