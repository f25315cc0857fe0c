"""AUTOSAR's E2E protection as somebody else wrote it. Wheels exist for x86-64; elsewhere what needs it is skipped."""

from __future__ import annotations

import platform

import pytest

if platform.machine() != "x86_64":
    pytest.importorskip("e2e.p04", reason="autosar-e2e has no wheel for this processor")
from e2e import p04

__all__ = ["p04"]
