"""Whether this processor adds up INT8 products without overflow, and what engines need where it does not."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"})
"""Flags of Linux for instructions that add INT8 products in 32 bits."""
_CPUINFO = Path("/proc/cpuinfo")


@cache
def adds_int8_exactly() -> bool:
    """Whether engines may use this processor's own INT8 instructions.

    x86 processors without VNNI or AMX (before 2019 to 2022) add two products in 16 bits, which saturate: with the
    signed 8-bit weights that TensorRT needs, sums of a real network overflow, and its logits are wrong without an
    error. The shipped hybrid's largest logit became 1.3 instead of 7.0 in OpenVINO 2026.4, and 6.1 in ONNX Runtime
    1.32.
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "reduce-range".

    Returns:
        True on other architectures, whose instructions do not saturate; False where x86 flags cannot be read.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i686", "i386"):
        return True
    try:
        text = _CPUINFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return any(not _DOT_PRODUCTS.isdisjoint(line.split()) for line in text.splitlines() if line.startswith("flags"))
