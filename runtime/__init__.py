"""What runs in the vehicle: frames in, one verdict per frame out.

from framegate.runtime import Pipeline, Session, open_source
"""

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import (
    BackendError,
    BundleError,
    ExpiredVerdict,
    FramegateError,
    RejectedFrame,
    SinkError,
    SourceError,
    UsageError,
)
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.pipeline import Pipeline
from framegate.runtime.policy.debounce import Debounce
from framegate.runtime.policy.stream import Policy
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.sources.open import open_source
from framegate.runtime.verdict import Frame, Prediction, Reason, Verdict

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "Debounce",
    "ExpiredVerdict",
    "Frame",
    "FrameResult",
    "FramegateError",
    "Pipeline",
    "Policy",
    "Prediction",
    "Reason",
    "RejectedFrame",
    "Roi",
    "Session",
    "SinkError",
    "SourceError",
    "UsageError",
    "Verdict",
    "open_source",
]
