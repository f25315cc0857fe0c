"""AutoAttack's set of four, worst case per frame (Croce and Hein 2020, arXiv:2003.01690).

APGD with cross-entropy, APGD with the DLR loss, FAB and Square run one after the other, each on the frames that are
still right; a frame counts as robust only if all of them fail. All are written after their papers: the libraries
that have them are not maintained for current torch or take a detour through NumPy. ``apgd-t``, which aims at one wrong
class after the other and is slower, is what the published "standard" AutoAttack figures use; `WITH_TARGETS` has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from framegate.evaluation.attacks.apgd import apgd
from framegate.evaluation.attacks.fab import fab
from framegate.evaluation.attacks.loss import CLASSES_NEEDED, TARGETED, LogitsOf, is_wrong
from framegate.evaluation.attacks.problem import AttackResult, check_problem, evaluate
from framegate.evaluation.attacks.radius import epsilon_text
from framegate.evaluation.attacks.square import square
from framegate.models.training.batches import Progress
from framegate.runtime.errors import UsageError

APGD_LOSSES = {"apgd-ce": "cross_entropy", "apgd-dlr": "dlr", "apgd-margin": "margin", "apgd-t": TARGETED}
FOUR = ("apgd-ce", "apgd-dlr", "fab", "square")
WITH_TARGETS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "square")
KNOWN = (*APGD_LOSSES, "fab", "square")


@dataclass(frozen=True)
class AutoSettings:
    """What decides the outcome, for reports.

    Attributes:
        epsilon: L-infinity radius in pixel units, in (0, 1].
        attacks: Which, in this order, out of `KNOWN`. With fewer than 3 classes ``apgd-margin`` takes the place of
            ``apgd-dlr``, with fewer than 4 also that of ``apgd-t``.
        steps: Gradient steps per start of APGD and FAB.
        restarts: Starts of APGD-CE, APGD-DLR and FAB (the paper: 5; the published code: 1).
        targets: Wrong classes that FAB chooses from and APGD-T aims at.
        queries: Of Square (the paper: 5000).
        keep: Of APGD: ``first`` or ``best`` (see there); as many frames fall, with ``best`` to surer wrong answers.
    """

    epsilon: float
    attacks: tuple[str, ...] = FOUR
    steps: int = 100
    restarts: int = 1
    targets: int = 9
    queries: int = 5000
    keep: str = "first"

    def __post_init__(self) -> None:
        """Check names and numbers; epsilon is checked with the frames.

        Raises:
            UsageError: An unknown attack, or none, or a budget below 1.
        """
        if min(self.steps, self.restarts, self.targets, self.queries) < 1:
            raise UsageError(f"{self}: steps, restarts, targets and queries must be at least 1")
        unknown = sorted(set(self.attacks) - set(KNOWN))
        if unknown or not self.attacks:
            raise UsageError(f"attacks asked for: {', '.join(unknown) or 'none'}; known are {', '.join(KNOWN)}")

    def __str__(self) -> str:
        """One line for a report, with every parameter."""
        return (
            f"{' + '.join(self.attacks)}: L-inf, epsilon {epsilon_text(self.epsilon)}, {self.steps} steps, restarts "
            f"{self.restarts}, targets {self.targets}, {self.queries} queries; worst case per frame"
            + (", the surest wrong answer of APGD kept" if self.keep == "best" else "")
        )


@dataclass(frozen=True)
class AutoResult(AttackResult):
    """The worst case per frame. Frames that were wrong from the start are not attacked and come back clean.

    Attributes:
        fooled_by: (N,) int64, index into ``stages`` of what fooled the frame; 0 is the clean frame, -1 nothing.
        stages: ``clean`` and the attacks that ran.
        accuracies: Robust accuracy after each stage, the last equal to ``robust_accuracy``.
    """

    fooled_by: Tensor
    stages: tuple[str, ...]
    accuracies: tuple[float, ...]


def auto_attack(
    logits_of: LogitsOf,
    pixels: Tensor,
    labels: Tensor,
    settings: AutoSettings,
    *,
    batch: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> AutoResult:
    """Attack N frames with every attack of the set.

    Args:
        logits_of: (n, ...) pixels -> (n, C) logits; differentiable.
        pixels: (N, ...) float32 in [0, 1], images or volumes.
        labels: (N,) int64 in [0, C).
        settings: The attacks and their budgets.
        batch: Frames per forward pass.
        seed: Of everything random.
        progress: Called by each attack with its own description and total.

    Raises:
        UsageError: See `check_problem`.
    """
    classes = check_problem(logits_of, pixels, labels, settings.epsilon, batch, seed)
    names = tuple(dict.fromkeys(_for_classes(name, classes) for name in settings.attacks))
    found, logits = pixels.clone(), evaluate(logits_of, pixels, batch)
    fooled_by = torch.where(is_wrong(logits, labels), 0, -1)
    accuracies = [float((fooled_by < 0).double().mean())]
    for stage, name in enumerate(names, start=1):
        rows = torch.nonzero(fooled_by < 0)[:, 0]
        if len(rows) > 0:
            result = _run(name, settings, logits_of, pixels[rows], labels[rows], batch, seed, progress)
            fooled = rows[result.misclassified]
            found[fooled], logits[fooled] = result.pixels[result.misclassified], result.logits[result.misclassified]
            fooled_by[fooled] = stage
        accuracies.append(float((fooled_by < 0).double().mean()))
    return AutoResult(
        "AutoAttack", settings.epsilon, found, logits, fooled_by >= 0, fooled_by, ("clean", *names), tuple(accuracies)
    )


def _for_classes(name: str, classes: int) -> str:
    """The attack in use: a ratio loss needs four classes or three; with fewer classes the margin takes its place."""
    return "apgd-margin" if name in APGD_LOSSES and classes < CLASSES_NEEDED[APGD_LOSSES[name]] else name


def _run(
    name: str,
    settings: AutoSettings,
    logits_of: LogitsOf,
    pixels: Tensor,
    labels: Tensor,
    batch: int,
    seed: int,
    progress: Progress | None,
) -> AttackResult:
    problem = (logits_of, pixels, labels, settings.epsilon)
    steps, restarts, targets = settings.steps, settings.restarts, settings.targets
    if name == "square":
        return square(*problem, queries=settings.queries, batch=batch, seed=seed, progress=progress)
    if name == "fab":
        return fab(
            *problem, steps=steps, restarts=restarts, candidates=targets, batch=batch, seed=seed, progress=progress
        )
    return apgd(
        *problem,
        loss=APGD_LOSSES[name],
        steps=steps,
        restarts=1 if name == "apgd-t" else restarts,
        targets=targets,
        keep=settings.keep,
        batch=batch,
        seed=seed,
        progress=progress,
    )
