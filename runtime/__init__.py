"""What runs in the vehicle: frames in, one verdict per frame out.

from framegate.runtime import Pipeline, Session, open_source

The names are loaded when they are first used: a program that needs one of them, or one module, does not wait for all.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_HOMES = {
    "BackendError": "errors",
    "Bundle": "bundle.bundle",
    "BundleError": "errors",
    "Debounce": "policy.debounce",
    "ExpiredVerdict": "errors",
    "Frame": "verdict",
    "FrameResult": "frame_result",
    "FramegateError": "errors",
    "Pipeline": "pipeline",
    "Policy": "policy.stream",
    "Prediction": "verdict",
    "Reason": "verdict",
    "RejectedFrame": "errors",
    "Roi": "roi",
    "Session": "session",
    "SinkError": "errors",
    "SourceError": "errors",
    "UsageError": "errors",
    "Verdict": "verdict",
    "open_source": "sources.open",
}
"""Name -> the module below this package that holds it."""

# Type checkers read the imports above. This function they must not see: it would make every name a valid one to them.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
