"""FGSM, projected gradient descent and uniform noise within an L-infinity ball.

FGSM: Goodfellow, Shlens and Szegedy 2015 (arXiv:1412.6572). PGD: Madry et al. 2018 (arXiv:1706.06083), here with the
best iterate of each frame kept, so that an unlucky last step never counts in the network's favour.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from framegate.evaluation.attacks.loss import LOSSES, LogitsOf, check_loss, gradient_of
from framegate.evaluation.attacks.problem import (
    AttackResult,
    BestSoFar,
    Ticker,
    ascend,
    batches,
    check_problem,
    evaluate,
    project,
    uniform,
)
from framegate.evaluation.attacks.radius import epsilon_text, levels_text
from framegate.models.training.batches import Progress
from framegate.runtime.errors import UsageError

KEEP = ("best", "first", "last")


@dataclass(frozen=True)
class LinfSettings:
    """What decides the outcome of a gradient attack, for reports.

    Attributes:
        name: Printed name, such as ``PGD-20``.
        epsilon: Radius in pixel units, in (0, 1].
        steps: Gradient steps per restart, at least 1.
        restarts: At least 1. Restart k starts from the same noise however many there are.
        step_size: Pixel units; None is 2.5 epsilon / steps, as in Madry et al.'s code.
        random_start: Start from uniform noise in the ball instead of the clean frame.
        loss: ``cross_entropy``, ``margin`` (Carlini and Wagner) or ``dlr``.
        keep: ``best``: among clean frame and iterates the misclassified one of highest loss. ``first``: the first
            misclassified one; such frames cost no more steps, and the robust accuracy of the same restarts is that of
            ``best``. ``last``: the last iterate of each restart, the textbook form.
    """

    name: str
    epsilon: float
    steps: int
    restarts: int = 1
    step_size: float | None = None
    random_start: bool = True
    loss: str = "cross_entropy"
    keep: str = "best"

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: A value is outside its range.
        """
        if self.steps < 1 or self.restarts < 1:
            raise UsageError(f"{self.name}: steps {self.steps}, restarts {self.restarts}; both must be at least 1")
        if self.step_size is not None and not 0 < self.step_size <= 1:
            raise UsageError(f"{self.name}: step size is {self.step_size:g}; it must lie in (0, 1], in pixel units")
        if self.loss not in LOSSES:
            raise UsageError(f"{self.name}: loss is {self.loss!r}; known are {', '.join(LOSSES)}")
        if self.keep not in KEEP:
            raise UsageError(f"{self.name}: keep is {self.keep!r}; known are {', '.join(KEEP)}")

    @property
    def step(self) -> float:
        """The step size in use, in pixel units."""
        return 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size

    def __str__(self) -> str:
        """One line for a report, with every parameter."""
        start = "random start" if self.random_start else "clean start"
        return (
            f"{self.name}: L-inf, epsilon {epsilon_text(self.epsilon)}, {self.steps} x {levels_text(self.step)}, "
            f"restarts {self.restarts}, {start}, loss {self.loss}, {self.keep} iterate"
        )


def fgsm(
    logits_of: LogitsOf,
    pixels: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    loss: str = "cross_entropy",
    batch: int = 128,
    progress: Progress | None = None,
) -> AttackResult:
    """One signed gradient step of length epsilon from the clean frame (parameters and errors as in `run_linf`)."""
    settings = LinfSettings("FGSM", epsilon, 1, step_size=epsilon, random_start=False, loss=loss, keep="last")
    return run_linf(settings, logits_of, pixels, labels, batch=batch, progress=progress)


def pgd(
    logits_of: LogitsOf,
    pixels: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int,
    *,
    step_size: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
    loss: str = "cross_entropy",
    keep: str = "best",
    batch: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> AttackResult:
    """Projected gradient descent (parameters as in `LinfSettings`, errors as in `run_linf`)."""
    settings = LinfSettings(f"PGD-{steps}", epsilon, steps, restarts, step_size, random_start, loss, keep)
    return run_linf(settings, logits_of, pixels, labels, batch=batch, seed=seed, progress=progress)


def run_linf(
    settings: LinfSettings,
    logits_of: LogitsOf,
    pixels: Tensor,
    labels: Tensor,
    *,
    batch: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> AttackResult:
    """Attack N frames with these settings.

    Args:
        settings: The attack.
        logits_of: (n, ...) pixels -> (n, C) logits; differentiable.
        pixels: (N, ...) float32 in [0, 1], images or volumes.
        labels: (N,) int64 in [0, C).
        batch: Frames per forward pass; it does not change the result.
        seed: Of the random starts.
        progress: Called after each step of each batch.

    Raises:
        UsageError: See `check_problem`.
    """
    check_loss(settings.loss, check_problem(logits_of, pixels, labels, settings.epsilon, batch, seed))
    per_batch = settings.restarts * settings.steps
    ticker = Ticker(progress, settings.name, per_batch * -(-len(pixels) // batch))
    parts = []
    for number, rows in enumerate(batches(len(pixels), batch)):
        ticker.advance_to(number * per_batch)
        parts.append(_attack_batch(settings, logits_of, pixels[rows], labels[rows], rows.start, seed, ticker))
    ticker.advance_to(ticker.total)
    return AttackResult.join(settings.name, settings.epsilon, parts)


def _attack_batch(
    settings: LinfSettings,
    logits_of: LogitsOf,
    clean: Tensor,
    labels: Tensor,
    first_frame: int,
    seed: int,
    ticker: Ticker,
) -> BestSoFar:
    loss = LOSSES[settings.loss]
    best: BestSoFar | None = None
    if settings.keep != "last":
        best = BestSoFar(clean, evaluate(logits_of, clean, len(clean)), labels)
    base = ticker.done
    for restart in range(settings.restarts):
        rows = best.open_rows() if best is not None and settings.keep == "first" else torch.arange(len(clean))
        rows = rows.to(clean.device)
        moving = clean[rows]
        if settings.random_start:
            noise = uniform(clean.shape[1:], rows + first_frame, seed, restart)
            moving = project(moving + settings.epsilon * noise, moving, settings.epsilon)
        for step in range(settings.steps):
            if len(rows) == 0:
                break
            logits, values, gradient = gradient_of(logits_of, moving, labels[rows], loss)
            if best is not None and (step > 0 or settings.random_start):
                wrong = best.offer(rows, moving, logits, values)
                if settings.keep == "first":
                    rows, moving, gradient = rows[~wrong], moving[~wrong], gradient[~wrong]
            moving = ascend(moving, gradient, settings.step, clean[rows], settings.epsilon)
            ticker.advance_to(base + restart * settings.steps + step + 1)
        if len(rows) > 0:
            logits = evaluate(logits_of, moving, len(moving))
            if best is None:
                best = BestSoFar(moving, logits, labels)
            best.offer(rows, moving, logits, loss(logits, labels[rows]))
    assert best is not None
    return best


def uniform_noise(
    logits_of: LogitsOf,
    pixels: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    draws: int = 1,
    batch: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> AttackResult:
    """The baseline without gradients: ``draws`` noises of full strength, each pixel moved by +epsilon or -epsilon.

    Per frame the misclassified draw of largest margin is kept. Parameters and errors as in `run_linf`.
    """
    check_problem(logits_of, pixels, labels, epsilon, batch, seed)
    if draws < 1:
        raise UsageError(f"draws is {draws}; it must be at least 1")
    ticker = Ticker(progress, "noise", draws)
    best = BestSoFar(pixels, evaluate(logits_of, pixels, batch), labels)
    for draw in range(draws):
        for chosen in batches(len(pixels), batch):
            rows = torch.arange(chosen.start, chosen.stop, device=pixels.device)
            noise = epsilon * uniform(pixels.shape[1:], rows, seed, draw).sign()
            noisy = project(pixels[rows] + noise, pixels[rows], epsilon)
            logits = evaluate(logits_of, noisy, batch)
            best.offer(rows, noisy, logits, LOSSES["margin"](logits, labels[rows]))
        ticker.advance_to(draw + 1)
    return AttackResult.join("noise", epsilon, [best])
