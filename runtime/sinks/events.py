"""Which frames of a drive are worth a full picture: those on which something changed, or nearly did."""

from __future__ import annotations

from collections.abc import Mapping

from framegate.runtime.frame_result import FrameResult
from framegate.runtime.verdict import Prediction, Reason

NEAR = 0.1
"""A score is near its threshold if it is at most this share of the threshold away from it."""
CHANGED, NEAR_THRESHOLD, DRIFT, FAULT, DISAGREEMENT = "changed", "near_threshold", "drift", "fault", "disagreement"
KINDS = (CHANGED, NEAR_THRESHOLD, DRIFT, FAULT, DISAGREEMENT)
SAMPLE = "sample"
"""No event: a frame whose picture is kept because its time had come, whatever it shows. What is to be promised for the
whole drive is calibrated on these."""
_BEGINNINGS: Mapping[Reason, str] = {
    Reason.DRIFT: DRIFT,
    Reason.NO_AGREEMENT: DISAGREEMENT,
    **dict.fromkeys(
        (
            Reason.BAD_INPUT,
            Reason.WRONG_SIZE,
            Reason.BLACK,
            Reason.SATURATED,
            Reason.COLOUR_LOST,
            Reason.TORN,
            Reason.FROZEN,
            Reason.STALE_FRAME,
            Reason.NOT_FINITE,
            Reason.BACKEND_FAULT,
            Reason.NO_REGIONS,
            Reason.NO_FRAME,
        ),
        FAULT,
    ),
}
"""Reason -> the event that it is when it begins. While it lasts there is nothing new to see."""


def near_threshold(score: float, threshold: float, near: float = NEAR) -> bool:
    """Whether a score lies at its threshold, on either side; never for NaN.

    Args:
        score: Of the frame.
        threshold: In force.
        near: Share of the threshold.
    """
    return abs(score - threshold) <= near * abs(threshold)


class Events:
    """Finds the events of one camera, frame by frame."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[str | None, frozenset[Reason]]] = {}

    def of(self, result: FrameResult) -> tuple[str, ...]:
        """The kinds of events on a frame, in the order of `KINDS`; usually none."""
        found: set[str] = set()
        present = {}
        for each in result.verdicts:
            used, reasons = present[each.stream] = _state(each)
            before = self._last.get(each.stream)
            if before is not None and before[0] != used:
                found.add(CHANGED)
            begun = reasons if before is None else reasons - before[1]
            found.update(_BEGINNINGS[reason] for reason in begun if reason in _BEGINNINGS)
            if near_threshold(each.score, each.threshold):
                found.add(NEAR_THRESHOLD)
        if result.scene is None:
            self._last.update(present)
        else:  # the names of objects are those of this frame's tracks
            self._last = present
        return tuple(kind for kind in KINDS if kind in found)


def _state(prediction: Prediction) -> tuple[str | None, frozenset[Reason]]:
    """The label that may be used, if one may, and the reasons."""
    return (
        prediction.candidate if prediction.accepted_when_decided else None,
        frozenset(prediction.decided_reasons),
    )
