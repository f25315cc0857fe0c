"""Which layers lose too much in INT8: every layer is quantised alone, and the change of the logits is measured.

In a MobileNetV2 nearly all of the loss comes from one block: folding gives a few depthwise channels of the first
inverted residual large weights whose sums cancel, so a rounding error of one step is amplified. Such layers are small;
kept in float32 they cost neither space nor time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from framegate.models.predict import to_tensor
from framegate.runtime.preprocess import PreprocessSpec

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""

IMAGES = 32
"""Images that the measure uses, at most."""


def _rounded(x: Tensor, largest: Tensor) -> Tensor:
    """Symmetric INT8 and back: 127 steps up to ``largest`` (broadcast)."""
    step = largest.clamp_min(1e-12) / 127
    return torch.clamp(torch.round(x / step), -127, 127) * step


def _round_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (_rounded(inputs[0], inputs[0].abs().max()),)


@torch.inference_mode()
def logit_changes(
    model: nn.Module, images: npt.NDArray[np.uint8], spec: PreprocessSpec, progress: Progress
) -> dict[str, float]:
    """What quantising each layer alone does to the logits.

    Args:
        model: A deployment model; it is left as it was.
        images: (N, h, w, 3) uint8 BGR from the training split.
        spec: How an image becomes the network's input.
        progress: Called after every layer.

    Returns:
        Name of the layer -> root mean square change divided by the standard deviation of the logits.
    """
    tensors = to_tensor(images[:IMAGES], spec)
    layout = torch.channels_last_3d if tensors.dim() == 5 else torch.channels_last
    tensors = tensors.contiguous(memory_format=layout)  # about twice as fast on a CPU
    expected = model(tensors)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Conv3d, nn.Linear))}
    changes = {}
    for done, (name, layer) in enumerate(layers.items()):
        weight = layer.weight.data
        largest = weight.flatten(1).abs().amax(1).view(-1, *[1] * (weight.dim() - 1))
        layer.weight.data = _rounded(weight, largest)
        hook = layer.register_forward_pre_hook(_round_input)
        try:
            found = model(tensors)
        finally:
            hook.remove()
            layer.weight.data = weight
        changes[name] = float((found - expected).square().mean().sqrt() / expected.std())
        progress("INT8 sensitivity of each layer", done + 1, len(layers))
    return changes
