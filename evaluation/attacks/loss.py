"""The losses that attacks make larger, and their gradients with respect to the pixels.

Gradients are taken for the pixels only, so a network's own ``.grad`` fields stay untouched and no time goes into them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from framegate.runtime.errors import UsageError

LogitsOf = Callable[[Tensor], Tensor]
"""(N, ...) float32 pixels in [0, 1] -> (N, C) logits; the network behind it is in evaluation mode."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (N, C), labels (N,)) -> (N,); the attack makes it larger."""

TINY = 1e-12


def is_wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) bool: the largest of (N, C) logits is not the label's, or a logit is NaN (no usable prediction)."""
    return (logits.argmax(1) != labels) | logits.isnan().any(1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) cross-entropy in nats."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) largest other logit minus the label's, the loss of Carlini and Wagner 2017 (arXiv:1608.04644)."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - logits.gather(1, labels[:, None])[:, 0]


def difference_of_logits_ratio(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) margin divided by largest minus third largest logit: blind to shift and scale (arXiv:2003.01690, eq. 6)."""
    largest = logits.topk(3, dim=1).values
    return margin(logits, labels) / (largest[:, 0] - largest[:, 2] + TINY)


def targeted_logits_ratio(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """(N,) target's logit minus the label's, scaled as the targeted DLR loss of APGD-T (arXiv:2003.01690, eq. 7)."""
    largest = logits.topk(4, dim=1).values
    gained = logits.gather(1, targets[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]
    return gained / (largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2 + TINY)


LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": difference_of_logits_ratio,
}
TARGETED = "targeted"
CLASSES_NEEDED = {"cross_entropy": 2, "margin": 2, "dlr": 3, TARGETED: 4}


def check_loss(loss: str, classes: int) -> None:
    """Refuse the losses that compare with the third or fourth largest logit where there is none.

    Raises:
        UsageError: The network has too few classes for the loss.
    """
    if classes < CLASSES_NEEDED[loss]:
        needed = f"the loss {loss!r} needs at least {CLASSES_NEEDED[loss]} classes"
        raise UsageError(f"{needed}, the network has {classes}; use the loss 'margin'")


def gradient_of(logits_of: LogitsOf, pixels: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (N, C), loss (N,) and its gradient with respect to the pixels (N, ...), all detached.

    Raises:
        UsageError: The logits do not depend on the pixels by operations that can be differentiated.
    """
    moving = pixels.detach().requires_grad_(True)
    with torch.enable_grad():
        logits = logits_of(moving)
        values = loss(logits, labels)
        if not values.requires_grad:
            raise UsageError(
                "the network's logits carry no gradient; do not detach them or switch gradients off inside"
            )
        (gradient,) = torch.autograd.grad(values.sum(), moving)
    return logits.detach(), values.detach(), gradient
