"""The single checks of an attack's health; each states in plain words what it found.

They only judge; `framegate.evaluation.attacks.health` runs the attacks. After Carlini et al. 2019 (arXiv:1902.06705)
and AutoAttack's own flags (arXiv:2003.01690).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from framegate.evaluation.attacks.loss import LOSSES, LogitsOf, gradient_of, is_wrong
from framegate.evaluation.attacks.problem import AttackResult, evaluate
from framegate.evaluation.attacks.radius import epsilon_text, levels_text

COMMON_CLASS = 0.8
"""Share of one class among the predictions above which it counts as constant."""
CLASS_SLACK = 0.1
"""How much more common than expected such a class may be."""
ZERO_GRADIENTS = 0.05
"""Share of frames that may have a zero gradient, and of frames that may survive epsilon 0.5."""
ROUNDING = 1e-6
"""Pixels are float32: clean + epsilon may round up."""
WHOLE = 0.95
"""Share of the radius that an attack must have used on frames that it left right."""
REPEAT = 1e-3
"""Largest difference between two passes, relative to the largest logit."""


@dataclass(frozen=True)
class HealthCheck:
    """One check.

    Attributes:
        name: What was checked.
        passed: False also where a number was NaN.
        detail: The numbers, in plain words.
    """

    name: str
    passed: bool
    detail: str

    def __str__(self) -> str:
        """One line."""
        return f"{'passed' if self.passed else 'FAILED'}  {self.name}: {self.detail}"


def check_clean(logits: Tensor, labels: Tensor) -> HealthCheck:
    """Before any attack some frame is right, and the network does not give one class for every frame.

    A network that is fed the wrong pixel range usually gives one class.

    Args:
        logits: (N, C) of the clean frames.
        labels: (N,) labels.
    """
    right = int((~is_wrong(logits, labels)).sum())
    common, share = _most_common(logits.argmax(1))
    usual = float((labels == common).double().mean())
    passed = right > 0 and (share <= COMMON_CLASS or share <= usual + CLASS_SLACK)
    advice = "" if passed else "; check the pixel range and the labels"
    detail = f"{right} of {len(labels)} frames right, most common prediction class {common} at {share:.1%}{advice}"
    return HealthCheck("clean frames", passed, detail)


def check_constant_class(result: AttackResult, clean: Tensor, labels: Tensor) -> HealthCheck:
    """Attacked frames are not all given one class.

    An attack may well push most frames into one class, but it pushes that class's own frames out of it. So a common
    class fails only if its own frames stay in it, as they do when the output no longer depends on the input, and if the
    clean predictions were not much the same.

    Args:
        result: What an attack made of N frames.
        clean: (N, C) logits of the clean frames.
        labels: (N,) labels.
    """
    common, share = _most_common(result.predictions)
    before = float((clean.argmax(1) == common).double().mean())
    own = labels == common
    kept = float((result.predictions[own] == common).double().mean()) if bool(own.any()) else float(clean.shape[1] > 2)
    passed = share <= COMMON_CLASS or share <= before + CLASS_SLACK or kept <= 1 - COMMON_CLASS
    detail = (
        f"{share:.1%} of the attacked frames are called class {common}, {before:.1%} of the clean ones; "
        f"{kept:.1%} of the {int(own.sum())} frames labelled {common} still are"
    )
    return HealthCheck(f"{result.attack}: not one constant class", passed, detail)


def check_deterministic(logits_of: LogitsOf, pixels: Tensor) -> HealthCheck:
    """The same frames give the same logits twice, the second time in reverse order and in smaller batches.

    Fails for dropout or batch statistics left in training mode, and for networks with random layers, against which one
    gradient per step is too few.

    Args:
        logits_of: (n, ...) pixels -> (n, C) logits.
        pixels: (n, ...) frames.
    """
    first = evaluate(logits_of, pixels, len(pixels))
    second = evaluate(logits_of, pixels.flip(0), -(-len(pixels) // 3)).flip(0)
    difference, scale = float((first - second).abs().max()), float(first.abs().max())
    detail = f"two passes in other order and batches differ by {difference:.2g}, the largest logit is {scale:.3g}"
    return HealthCheck("deterministic", difference <= REPEAT * max(scale, 1e-6), detail)


def check_gradients(logits_of: LogitsOf, pixels: Tensor, labels: Tensor, loss: str, batch: int = 128) -> HealthCheck:
    """The loss has a gradient at the clean frames: not exactly zero everywhere, and finite.

    Args:
        logits_of: (n, ...) pixels -> (n, C) logits; differentiable.
        pixels: (n, ...) frames.
        labels: (n,) labels.
        loss: Name of the attack's loss.
        batch: Frames per pass.
    """
    zero = broken = 0
    for start in range(0, len(pixels), batch):
        rows = slice(start, start + batch)
        gradient = gradient_of(logits_of, pixels[rows], labels[rows], LOSSES[loss])[2].flatten(1)
        finite = gradient.isfinite().all(1)
        broken += int((~finite).sum())
        zero += int((finite & (gradient == 0).all(1)).sum())
    size = len(pixels)
    detail = f"{loss} gradient exactly zero for {zero} of {size} frames, not finite for {broken}"
    return HealthCheck("gradients", broken == 0 and zero <= ZERO_GRADIENTS * size, detail)


def check_never_weaker(name: str, right: dict[str, Tensor], tolerance: float) -> HealthCheck:
    """From left to right no more frames stay right.

    Args:
        name: What grows, such as ``more steps``.
        right: Which frames (n,) bool are still right, by budget in ascending order.
        tolerance: Share of the frames by which it may rise; one frame is always allowed.
    """
    counts = {budget: int(flags.sum()) for budget, flags in right.items()}
    size = len(next(iter(right.values())))
    ordered = list(counts.values())
    passed = all(after - before <= _allowed(size, tolerance) for before, after in pairwise(ordered))
    detail = ", ".join(f"{budget}: {count}" for budget, count in counts.items())
    return HealthCheck(f"{name} never weaker", passed, f"of {size} frames still right with {detail}")


def check_unbounded(right: Tensor, beatable: Tensor) -> HealthCheck:
    """At epsilon 0.5 mid-grey is in every ball, so each frame of another class than grey's can be fooled for certain.

    Args:
        right: (n,) bool, still right under the attack at epsilon 0.5.
        beatable: (n,) bool, the label is not the class of a mid-grey frame.
    """
    size, left = int(beatable.sum()), int((right & beatable).sum())
    detail = f"{left} of {size} frames survive that a mid-grey frame would fool"
    return HealthCheck("epsilon 0.5 fools every frame", left <= ZERO_GRADIENTS * size, detail)


def check_white_box(attack: str, right: Tensor, other: str, other_right: Tensor, tolerance: float) -> HealthCheck:
    """An attack that sees gradients is at least as strong as one that does not.

    Args:
        attack: Name of the white-box attack.
        right: (n,) bool, still right under it.
        other: Name of the other attack.
        other_right: (n,) bool, still right under that.
        tolerance: Share of the frames by which the white box may be behind; one frame is always allowed.
    """
    size, ours, theirs = len(right), int(right.sum()), int(other_right.sum())
    only = int((right & ~other_right).sum())
    detail = f"of {size} frames still right: {attack} {ours}, {other} {theirs}; {only} fell to the latter only"
    return HealthCheck(f"as strong as {other}", ours - theirs <= _allowed(size, tolerance), detail)


def check_whole_ball(result: AttackResult, pixels: Tensor) -> HealthCheck:
    """On frames that an attack left right it has gone as far as it may: one that stops halfway looks like robustness.

    Args:
        result: What an attack of many steps made of N frames.
        pixels: (N, ...) clean frames.
    """
    left = ~result.misclassified
    clean = pixels[left].flatten(1)
    room = torch.maximum(clean, 1 - clean).amax(1).clamp(max=result.epsilon)
    reached = (result.pixels[left].flatten(1) - clean).abs().amax(1)
    size, short = int(left.sum()), int((~(reached >= WHOLE * room)).sum())
    detail = (
        f"of {size} frames still right {short} were moved by less than {WHOLE:.0%} of {epsilon_text(result.epsilon)}"
    )
    return HealthCheck("uses the whole ball", short <= _allowed(size, ZERO_GRADIENTS), detail)


def check_inside_ball(
    logits_of: LogitsOf, result: AttackResult, pixels: Tensor, labels: Tensor, batch: int = 128
) -> HealthCheck:
    """The attacked pixels are finite, in [0, 1] and within epsilon, and are misclassified when looked at again.

    Args:
        logits_of: (n, ...) pixels -> (n, C) logits.
        result: What an attack made of N frames.
        pixels: (N, ...) clean frames.
        labels: (N,) labels.
        batch: Frames per pass.
    """
    furthest = float((result.pixels - pixels).abs().max())
    low, high = float(result.pixels.min()), float(result.pixels.max())
    again = is_wrong(evaluate(logits_of, result.pixels, batch), labels)
    changed, size = int((again != result.misclassified).sum()), len(labels)
    inside = furthest <= result.epsilon + ROUNDING and low >= 0 and high <= 1
    detail = (
        f"largest change {levels_text(furthest)} of {epsilon_text(result.epsilon)}, pixels from {low:.3g} to "
        f"{high:.3g}, {changed} of {size} outcomes differ when looked at again"
    )
    return HealthCheck(f"{result.attack}: inside the ball", inside and changed <= _allowed(size, 0.01), detail)


def _allowed(size: int, tolerance: float) -> int:
    return max(1, int(tolerance * size))


def _most_common(classes: Tensor) -> tuple[int, float]:
    """The most common class and its share."""
    counts = torch.bincount(classes)
    common = int(counts.argmax())
    return common, float(counts[common]) / len(classes)
