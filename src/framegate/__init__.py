"""Camera frames in, one verdict per frame out: may driving logic use this prediction, and if not, why not.

    from framegate import Pipeline, Session, open_source

The names below are those of `framegate.runtime`. They are loaded when they are first used, so that ``import framegate``
costs nothing, and so that a room such as `framegate.cuda_kernels` can be imported without the runtime.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from framegate.runtime import (
        BackendError,
        Bundle,
        BundleError,
        Debounce,
        ExpiredVerdict,
        Frame,
        FramegateError,
        FrameResult,
        Pipeline,
        Policy,
        Prediction,
        Reason,
        RejectedFrame,
        Roi,
        Session,
        SinkError,
        SourceError,
        UsageError,
        Verdict,
        open_source,
    )

__version__ = "0.1.0"

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
    "__version__",
    "open_source",
]

# Type checkers read the imports above. This function they must not see: it would make every name a valid one to them.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name of the runtime (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from framegate import runtime

        value = globals()[name] = getattr(runtime, name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
