"""Mixed precision where the processor computes in it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def autocast(device: str) -> AbstractContextManager[Any]:
    """bfloat16 on CUDA and on CPUs that have it; emulating it elsewhere would cost time and gain nothing."""
    supported = device == "cuda" or getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.autocast(device, torch.bfloat16) if supported else nullcontext()
