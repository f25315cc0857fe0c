"""OpenVINO without its telemetry: what goes into a vehicle reports to nobody.

``import openvino`` (seen in 2026.4) reports itself through the package openvino_telemetry, unless a file in the home
folder declines: it writes ``~/intel/stats`` and ``~/intel/openvino_ga_cid``, starts a thread, and from that thread
forks the process, whose copy posts to www.google-analytics.com, for at most 3 s. OpenVINO runs without that package,
too; so it is told that there is none.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PACKAGE = "openvino_telemetry"


@contextmanager
def no_telemetry() -> Iterator[None]:
    """What is imported for the first time within this block finds no telemetry package, and keeps its own stand-in.

    Afterwards the package can be imported as ever. A program that imported ``openvino`` before has reported already.
    """
    if _PACKAGE in sys.modules:  # somebody else's, with whatever was agreed there
        yield
        return
    sys.modules[_PACKAGE] = None  # type: ignore[assignment]  # an import then raises ModuleNotFoundError
    try:
        yield
    finally:
        sys.modules.pop(_PACKAGE, None)
