"""Adversarial training: losses on images that were moved, within an L-infinity ball, to where the network errs.

All perturbations live in pixel space, [0, 1], before resizing and normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from framegate.models.training.settings import TrainSettings

Logits = Callable[[Tensor], Tensor]
"""Pixels in [0, 1] -> logits (N, classes)."""


def _ball(pixels: Tensor, moved: Tensor, epsilon: float) -> Tensor:
    """The nearest point inside the ball and inside [0, 1]."""
    return torch.max(torch.min(moved, pixels + epsilon), pixels - epsilon).clamp(0, 1)


def _ascend(objective: Callable[[Tensor], Tensor], pixels: Tensor, start: Tensor, size: float, steps: int,
            epsilon: float) -> Tensor:  # fmt: skip
    """Projected signed gradient ascent of ``objective`` from ``start``."""
    moved = start
    for _ in range(steps):
        moved = moved.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(objective(moved), moved)
        moved = _ball(pixels, moved.detach() + size * slope.sign(), epsilon)
    return moved.detach()


def _random_start(pixels: Tensor, epsilon: float) -> Tensor:
    return (pixels + torch.empty_like(pixels).uniform_(-epsilon, epsilon)).clamp(0, 1)


def pgd_pixels(logits_of: Logits, pixels: Tensor, labels: Tensor, epsilon: float, steps: int) -> Tensor:
    """Projected gradient descent with a random start (Madry et al. 2018, arXiv:1706.06083).

    Args:
        logits_of: The network, in the mode (training or evaluation) in which it shall be attacked.
        pixels: (N, ...) in [0, 1].
        labels: (N,).
        epsilon: Radius in pixel units.
        steps: Gradient steps of size 2.5 epsilon / steps.
    """
    size = 2.5 * epsilon / steps
    return _ascend(
        lambda x: F.cross_entropy(logits_of(x).float(), labels),
        pixels,
        _random_start(pixels, epsilon),
        size,
        steps,
        epsilon,
    )


def _noise_step(logits_of: Logits, pixels: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """One signed gradient step from uniform noise of twice the radius; only the range of a pixel is kept."""
    noisy = (pixels + torch.empty_like(pixels).uniform_(-2 * epsilon, 2 * epsilon)).clamp(0, 1).requires_grad_(True)
    (slope,) = torch.autograd.grad(F.cross_entropy(logits_of(noisy).float(), labels), noisy)
    return (noisy.detach() + epsilon * slope.sign()).clamp(0, 1)


def adversarial_loss(
    logits_of: Logits, pixels: Tensor, labels: Tensor, settings: TrainSettings
) -> tuple[Tensor, Tensor]:
    """The training loss of one batch and the logits it was computed from.

    ``fgsm-rs``: one step of 1.25 epsilon from a random start (Wong et al. 2020, arXiv:2001.03994). ``n-fgsm``: one step
    of epsilon from noise of 2 epsilon that is not projected back (de Jorge et al. 2022, arXiv:2202.01181). ``pgd``:
    several steps. ``trades``: clean cross-entropy plus beta times the divergence between the answers to the clean and
    to the moved image (Zhang et al. 2019, arXiv:1901.08573).

    Returns:
        Scalar loss with a gradient, and logits (N, classes) of the attacked images.
    """
    epsilon = settings.epsilon
    if settings.adversarial == "trades":
        clean = logits_of(pixels).float()
        target = clean.detach().softmax(1)
        start = (pixels + 1e-3 * torch.randn_like(pixels)).clamp(0, 1)
        moved = _ascend(
            lambda x: F.kl_div(logits_of(x).float().log_softmax(1), target, reduction="batchmean"),
            pixels,
            start,
            2.5 * epsilon / settings.attack_steps,
            settings.attack_steps,
            epsilon,
        )
        attacked = logits_of(moved).float()
        robust = F.kl_div(attacked.log_softmax(1), clean.softmax(1), reduction="batchmean")
        plain = F.cross_entropy(clean, labels, label_smoothing=settings.label_smoothing)
        return plain + settings.beta * robust, attacked
    attacked = logits_of(attacked_pixels(logits_of, pixels, labels, settings)).float()
    return F.cross_entropy(attacked, labels, label_smoothing=settings.label_smoothing), attacked


def attacked_pixels(logits_of: Logits, pixels: Tensor, labels: Tensor, settings: TrainSettings) -> Tensor:
    """The images of a batch as ``n-fgsm``, ``fgsm-rs`` or ``pgd`` moves them; see `adversarial_loss`."""
    epsilon = settings.epsilon
    if settings.adversarial == "n-fgsm":
        return _noise_step(logits_of, pixels, labels, epsilon)
    if settings.adversarial == "fgsm-rs":
        return _ascend(
            lambda x: F.cross_entropy(logits_of(x).float(), labels),
            pixels,
            _random_start(pixels, epsilon),
            1.25 * epsilon,
            1,
            epsilon,
        )
    return pgd_pixels(logits_of, pixels, labels, epsilon, settings.attack_steps)


def entropy_loss(attacked: Tensor, labels: Tensor) -> Tensor:
    """How sure the network is of wrong answers: mean of (ln C - entropy) in nats, 0 for those that are right.

    A gate that rejects a high entropy can stop only wrong answers that have one. After the confidence penalty of
    Pereyra et al. 2017 (arXiv:1701.06548), here for the wrong answers to attacked images alone.

    Args:
        attacked: (N, C) logits of attacked images.
        labels: (N,), the right answers.
    """
    log_p = attacked.log_softmax(1)
    gap = math.log(attacked.shape[1]) + (log_p.exp() * log_p).sum(1)
    return (gap * (attacked.argmax(1) != labels)).mean()


class RobustWatch:
    """Decides after every epoch whether adversarial training goes on.

    Robust accuracy on held-out images peaks early and then falls (Rice et al. 2020, arXiv:2002.11569), and
    single-step training can lose it within one epoch, while its own training accuracy goes up (catastrophic
    overfitting, Wong et al. 2020). The best weights are kept in either case.

    Args:
        patience: Epochs without a better value before stopping.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best = -1.0
        self.best_epoch = 0
        self.reason = ""

    def update(self, epoch: int, robust_accuracy: float) -> bool:
        """Note an epoch's robust accuracy in [0, 1]; True if it is the best so far.

        Sets ``reason`` when training should stop.
        """
        if robust_accuracy > self.best:
            self.best, self.best_epoch = robust_accuracy, epoch
            return True
        if not robust_accuracy >= self.best / 2:
            self.reason = (
                f"catastrophic overfitting: robust accuracy fell from {self.best:.4f} to {robust_accuracy:.4f} in "
                f"epoch {epoch}; the weights of epoch {self.best_epoch} are kept"
            )
        elif epoch - self.best_epoch >= self.patience:
            self.reason = (
                f"no better robust accuracy than {self.best:.4f} for {self.patience} epochs; the weights of epoch "
                f"{self.best_epoch} are kept"
            )
        return False
