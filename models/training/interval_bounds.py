"""Training with interval bounds: the loss of the worst point of an L-infinity ball, as an interval sees it.

Gowal et al. 2018 (arXiv:1810.12715); batch normalisation and initial weights after Shi et al. 2021 (arXiv:2103.17268).
A box is carried through the network as its centre and its radius: a linear map W takes them to W c and |W| r, and a
monotone function is applied to the ends. These bounds train; those that a certificate is proved with are found by
`framegate.export.graph.reach`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framegate.models.plain_cnn import PlainCNN
from framegate.models.training.settings import TrainSettings
from framegate.runtime.errors import UsageError

_WARM_UP = 0.05
"""Share of the training before the radius begins to grow."""
_OVERSHOOT = 1.05
"""The last radius is this much larger than the one that is asked for, which is then met more often."""


def scheduled_radius(radius: float, done: float, ramp: float) -> float:
    """The radius to train with when the share ``done`` (0 to 1) of the training is over: 0, rising, then constant.

    Args:
        radius: That is asked for; a little more is trained.
        done: Share of the training that is over.
        ramp: Share of the training over which it rises; 0 gives all of it at once.
    """
    grown = min(1.0, max(0.0, (done - _WARM_UP) / ramp)) if ramp else 1.0
    return _OVERSHOOT * radius * grown


def _normalised(layer: nn.BatchNorm1d | nn.BatchNorm2d, clean: Tensor, box: tuple[Tensor, Tensor]) -> tuple[
    Tensor, tuple[Tensor, Tensor]
]:  # fmt: skip
    """Batch normalisation with the statistics of the clean images, for them and for the box."""
    axes = [k for k in range(clean.dim()) if k != 1]
    if layer.training:
        variance, mean = torch.var_mean(clean, axes, correction=0)
    else:
        assert layer.running_var is not None
        assert layer.running_mean is not None
        variance, mean = layer.running_var, layer.running_mean
    shape = [1, -1] + [1] * (clean.dim() - 2)
    scale = (layer.weight * torch.rsqrt(variance + layer.eps)).view(shape)
    shift = layer.bias.view(shape) - mean.view(shape) * scale
    out: Tensor = layer(clean)
    return out, (box[0] * scale + shift, box[1] * scale.abs())


def carry(layers: nn.Sequential, clean: Tensor, box: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Clean activations, and a box around them, through a chain of layers.

    Args:
        layers: Convolutions, linear layers, batch normalisation, ReLU and flattening.
        clean: (N, ...) the clean inputs; their statistics normalise.
        box: Centre and radius, each of the same shape; the radius is not negative.

    Raises:
        UsageError: A layer has no bound here.
    """
    centre, radius = box
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            both = layer(torch.cat([clean, centre]))
            radius = F.conv2d(radius, layer.weight.abs(), None, layer.stride, layer.padding)
            clean, centre = both.chunk(2)
        elif isinstance(layer, nn.Linear):
            clean, centre, radius = layer(clean), layer(centre), F.linear(radius, layer.weight.abs())
        elif isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            clean, (centre, radius) = _normalised(layer, clean, (centre, radius))
        elif isinstance(layer, nn.ReLU):
            low, high = F.relu(centre - radius), F.relu(centre + radius)
            clean, centre, radius = F.relu(clean), (high + low) / 2, (high - low) / 2
        elif isinstance(layer, nn.Flatten):
            clean, centre, radius = layer(clean), layer(centre), layer(radius)
        else:
            raise UsageError(f"interval bounds: {type(layer).__name__} has none here; train an architecture without it")
    return clean, (centre, radius)


def worst_margins(classify: nn.Linear, box: tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
    """Lower bounds of (logit of the label) - (every logit) over a box of features; 0 for the label itself.

    The last layer is bounded for the difference of two logits at once, which is tighter than a bound for each.

    Args:
        classify: The last linear layer.
        box: Centre and radius of its input, (N, features).
        labels: (N,).

    Returns:
        (N, classes).
    """
    difference = classify.weight[labels].unsqueeze(1) - classify.weight
    centre = torch.einsum("nch,nh->nc", difference, box[0]) + classify.bias[labels].unsqueeze(1) - classify.bias
    return centre - torch.einsum("nch,nh->nc", difference.abs(), box[1])


def bounds_of(
    model: PlainCNN,
    prepare: Callable[[Tensor], Tensor],
    pixels: Tensor,
    labels: Tensor,
    radius: float,
    seen: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits and worst margins of a batch.

    Args:
        model: The branch; in training mode the statistics of the images that are seen normalise.
        prepare: Pixels to the network's input, monotone in every pixel.
        pixels: (N, 3, h, w) in [0, 1], the middle of each ball.
        labels: (N,).
        radius: Of the ball, in pixel units.
        seen: Images whose logits are wanted, such as attacked ones; None: ``pixels``.

    Returns:
        Logits (N, classes) of what is seen and worst margins (N, classes) over the ball.
    """
    low, high = prepare((pixels - radius).clamp(0, 1)), prepare((pixels + radius).clamp(0, 1))
    inputs = prepare(pixels if seen is None else seen)
    clean, box = carry(model.layers, inputs, ((high + low) / 2, (high - low) / 2))
    return model.classify(clean), worst_margins(model.classify, box, labels)


def interval_loss(
    model: PlainCNN,
    prepare: Callable[[Tensor], Tensor],
    pixels: Tensor,
    labels: Tensor,
    done: float,
    settings: TrainSettings,
    seen: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of what is seen, clean or attacked images, mixed with that of the worst margins.

    With attacked images it is the mixture of De Palma et al. 2024 (arXiv:2305.13991, "MTL-IBP").

    Args:
        model: A `PlainCNN` in training mode.
        prepare: Pixels to the network's input.
        pixels: (N, 3, h, w) in [0, 1].
        labels: (N,).
        done: Share of the training that is over, 0 to 1.
        settings: ``interval_bounds``, ``interval_ramp``, ``interval_weight``; of the clean part ``label_smoothing``.
        seen: Attacked images; None: the clean ones.

    Returns:
        Scalar loss with a gradient, and the logits of what is seen.
    """
    radius = scheduled_radius(settings.interval_bounds, done, settings.interval_ramp)
    clean, margins = bounds_of(model, prepare, pixels, labels, radius, seen)
    share = settings.interval_weight
    worst = F.cross_entropy(-margins.float(), labels)
    plain = F.cross_entropy(clean.float(), labels, label_smoothing=settings.label_smoothing)
    return (1 - share) * plain + share * worst, clean.float()


@torch.inference_mode()
def certified_accuracy(
    model: PlainCNN, prepare: Callable[[Tensor], Tensor], pixels: Tensor, labels: Tensor, radius: float
) -> int:
    """How many images of a batch are right for every point of the ball, by interval bounds."""
    _, margins = bounds_of(model.eval(), prepare, pixels, labels, radius)
    others = margins.scatter(1, labels.unsqueeze(1), torch.inf)
    return int((others.min(1).values > 0).sum())
