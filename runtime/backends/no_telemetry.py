"""OpenVINO without its telemetry: what goes into a vehicle reports to nobody.

``import openvino`` (seen in 2026.4) reports itself through the package openvino_telemetry, unless a file in the home
folder declines: it writes ``~/intel/stats`` and ``~/intel/openvino_ga_cid``, starts a thread, and from that thread
forks the process, whose copy posts to www.google-analytics.com, for at most 3 s. OpenVINO runs without that package,
too; so it is told that there is none.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PACKAGE = "openvino_telemetry"
_CONVERTER = "openvino.tools.ovc"
"""Converts models of other frameworks. ``import openvino`` loads it, half of the import, for one function."""


@contextmanager
def no_telemetry() -> Iterator[None]:
    """What is imported for the first time within this block finds no telemetry package, and keeps its own stand-in.

    Afterwards the package can be imported as ever. A program that imported ``openvino`` before has reported already.
    ``openvino.convert_model`` is loaded when it is asked for, without telemetry.
    """
    with _without(*(() if _PACKAGE in sys.modules else (_PACKAGE,)), _CONVERTER):
        yield
    _offer_converter()


@contextmanager
def _without(*packages: str) -> Iterator[None]:
    """Nobody can import these for the first time within the block."""
    held = [name for name in packages if name not in sys.modules]
    for name in held:
        sys.modules[name] = None  # type: ignore[assignment]  # an import then raises ModuleNotFoundError
    try:
        yield
    finally:
        for name in held:
            sys.modules.pop(name, None)


def _offer_converter() -> None:
    """Let ``openvino.convert_model`` be found, which `no_telemetry` kept from being loaded."""
    openvino = sys.modules.get("openvino")
    if openvino is None or hasattr(openvino, "convert_model"):
        return

    def get(name: str) -> object:
        if name == "convert_model":
            with _without(_PACKAGE):
                return importlib.import_module(_CONVERTER).convert_model
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")

    vars(openvino)["__getattr__"] = get
