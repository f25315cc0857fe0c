"""PyTorch as a rival: the bundle's architecture as a module, eager, compiled, and through Torch-TensorRT.

A bundle holds no module, so the architecture that its manifest names is built anew. Its weights are drawn, not
trained: that changes the answers and not the time, so these rivals' answers are not compared with framegate's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from framegate.benchmarks.latency.rivals import Answer, Rival, Rivals, blob_of
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.verdict import Image

UNTRAINED = "drawn weights"


def module_of(bundle: Bundle) -> Any:
    """The architecture, ready to run, on normalised pixels.

    Raises:
        ValueError: The bundle does not say which architecture it came from.
    """
    import torch

    from framegate.models.registry import build

    architecture = dict(bundle.origin.get("architecture", {}))
    if "name" not in architecture:
        raise ValueError(f"bundle {bundle.name}: its manifest names no architecture")
    torch.manual_seed(0)
    return build(architecture["name"], architecture["classes"], architecture.get("options", {})).eval()


def eager(bundle: Bundle, device: str, change: Callable[[Any, Any], Any] | None = None) -> tuple[Rival, str]:
    """cv2, the module's call, softmax and entropy in torch.

    Args:
        bundle: Of images, not volumes.
        device: ``cpu`` or ``cuda``.
        change: Turns (module, example input) into something faster.
    """
    import torch

    module, blob = module_of(bundle).to(device), blob_of(bundle.preprocess)
    spec = bundle.preprocess
    if change is not None:
        module = change(module, torch.zeros((1, 3, spec.height, spec.width), device=device))

    @torch.inference_mode()
    def judge(frame: Image) -> Answer:
        logits = module(torch.from_numpy(blob(frame)).to(device))
        log_p = torch.log_softmax(logits, 1)
        entropy = -(log_p.exp() * log_p).sum(1)
        return int(logits.argmax(1)), float(entropy)  # float() waits for a GPU

    return judge, f"torch {torch.__version__}"


def _compiled(module: Any, example: Any) -> Any:
    import torch

    fast = torch.compile(module, mode="reduce-overhead" if example.is_cuda else "default", dynamic=False)
    with torch.inference_mode():
        fast(example)  # compiles now, not in the first timed frame
    return fast


def _torch_tensorrt(module: Any, example: Any) -> Any:
    import torch_tensorrt

    return torch_tensorrt.compile(module, ir="dynamo", inputs=[example])


def torch_rivals(rivals: Rivals, bundle: Bundle, threads: int | None, frame: Image, compile_too: bool) -> None:
    """Add what PyTorch offers here; without it there is one reason for all."""
    try:
        import torch
    except ImportError:
        rivals.left_out["torch"] = "not installed; pip install 'framegate[evaluate]'"
        return
    if threads is not None:
        torch.set_num_threads(threads)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        rivals.try_to_add(f"torch eager fp32, {device}", partial(eager, bundle, device), frame)
        if compile_too:
            rivals.try_to_add(f"torch.compile fp32, {device}", partial(eager, bundle, device, _compiled), frame)
    if "cuda" in devices:
        rivals.try_to_add("Torch-TensorRT fp32, cuda", lambda: eager(bundle, "cuda", _torch_tensorrt), frame)
