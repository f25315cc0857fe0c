"""What a verdict is as ``diagnostic_msgs/DiagnosticStatus``: one status per camera and region."""

from __future__ import annotations

import math
import time
from typing import Any, Final

from framegate.runtime.verdict import Prediction, Reason

OK, WARN, ERROR, STALE = b"\0", b"\1", b"\2", b"\3"
"""Levels of diagnostic_msgs/DiagnosticStatus."""
UNSURE: Final = frozenset(
    (Reason.HIGH_SCORE, Reason.ACTIVATION_SHIFT, Reason.WARMING_UP, Reason.BLURRED, Reason.NOISY, Reason.LOW_CONTRAST)
)
"""Reasons that come and go with the scene: a warning. With any other reason something is broken: an error."""
GONE: Final = frozenset((Reason.NO_FRAME, Reason.EXPIRED, Reason.LATE, Reason.STALE_FRAME))
"""Reasons that say that there is no verdict on the present."""


def level_of(reasons: tuple[Reason, ...]) -> bytes:
    """OK if the label may be used now, STALE without a verdict on the present, WARN if only unsure, else ERROR."""
    if not reasons:
        return OK
    if not GONE.isdisjoint(reasons):
        return STALE
    return WARN if UNSURE.issuperset(reasons) else ERROR


def to_status(prediction: Prediction, name: str, hardware: str, more: dict[str, str] | None = None) -> Any:
    """The newest verdict on a region as a status, as it stands now.

    Args:
        prediction: The verdict.
        name: Of the status, e.g. ``framegate: front/frame``.
        hardware: Which bundle judges.
        more: Further keys and values.
    """
    from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

    reasons = prediction.reasons
    words = " ".join(reason.value for reason in reasons)
    values = {
        "verdict": "REJECT" if reasons else "ACCEPT",
        "reasons": words,
        "label": "" if reasons else prediction.candidate,
        "candidate": prediction.candidate,
        "confidence": _number(prediction.confidence),
        "score": _number(prediction.score),
        "threshold": _number(prediction.threshold),
        "frame_id": str(prediction.frame_id),
        "age_ms": f"{(time.monotonic_ns() - prediction.captured_ns) / 1e6:.1f}",
        **(more or {}),
    }
    detail = f" ({prediction.detail})" if prediction.detail and reasons else ""
    return DiagnosticStatus(
        level=level_of(reasons),
        name=name,
        message=f"DO NOT USE: {words}{detail}" if reasons else f"USE {prediction.candidate}",
        hardware_id=hardware,
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""
