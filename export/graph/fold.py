"""From the trained network to the network that is deployed: batch normalisation folded away, weights in half precision.

In evaluation mode a batch normalisation is an affine map per channel, and so a part of the convolution before it
(Jacob et al. 2018, arXiv:1712.05877, section 3.2). Folding moves the logits by float32 rounding only; the weights are
then rounded to values that float16 can hold, so that they can be stored in half the space without another change.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from framegate.runtime.errors import ExportRefusedError

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_NORMALISATIONS = (nn.BatchNorm2d, nn.BatchNorm3d)


def deployment_model(model: nn.Module) -> nn.Module:
    """A folded and rounded copy of ``model`` in evaluation mode; every exported file computes this network.

    Raises:
        ExportRefusedError: A batch normalisation cannot be folded, or a weight does not fit into float16.
    """
    deployed = fold_batch_norm(model)
    for parameter in deployed.parameters():
        # Training lays weights out channels last; the exporter would write shape arithmetic for that. A clone and not
        # contiguous(), which leaves the strides of 1x1 kernels as they are.
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    for module in deployed.modules():
        # The same values and the same graph; the exporter takes nearly twice as long to trace what works in place.
        if isinstance(module, (nn.ReLU, nn.ReLU6)):
            module.inplace = False
    round_to_half(deployed)
    return deployed


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in evaluation mode in which every batch normalisation is part of a convolution.

    Only pairs that follow each other inside an ``nn.Sequential`` are folded, because only there the order of execution
    is the order of the children.

    Raises:
        ExportRefusedError: A batch normalisation does not directly follow a convolution in an ``nn.Sequential``.
    """
    folded = copy.deepcopy(model).eval()
    for parent in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        for k in range(len(parent) - 1):
            convolution, normalisation = parent[k], parent[k + 1]
            if isinstance(convolution, _CONVOLUTIONS) and isinstance(normalisation, _NORMALISATIONS):
                # The copy keeps the class of the convolution, hence a padding of its own.
                parent[k] = fuse_conv_bn_eval(convolution, normalisation)
                parent[k + 1] = nn.Identity()
    left = [name for name, module in folded.named_modules() if isinstance(module, _NORMALISATIONS)]
    if left:
        raise ExportRefusedError(
            f"folding: batch normalisation {left[0]!r} ({len(left)} in all) does not follow a convolution in an "
            "nn.Sequential; put it right behind one"
        )
    return folded


@torch.no_grad()
def round_to_half(model: nn.Module) -> None:
    """Round convolution and linear weights in place to values that float16 holds exactly.

    Biases stay float32, and so do depthwise kernels: they are small, and folding leaves some of them with large
    weights whose sums cancel.

    Raises:
        ExportRefusedError: A weight is not finite or beyond float16 (65504).
    """
    for name, parameter in model.named_parameters():
        depthwise = parameter.dim() >= 4 and parameter.shape[1] == 1
        if parameter.dim() > 1 and not depthwise:
            half = parameter.to(torch.float16).float()
            if not torch.isfinite(half).all():
                largest = float(parameter.abs().max())
                raise ExportRefusedError(
                    f"weight {name!r} reaches {largest:.3g}, float16 ends at 65504; the training has diverged"
                )
            parameter.copy_(half)
