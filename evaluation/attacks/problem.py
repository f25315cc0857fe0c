"""What all attacks share: the problem they solve, its checks, and the best answer found so far.

An attack looks for pixels in [0, 1] at most epsilon away from a clean frame (L-infinity, in pixel units: 8/255 is eight
grey levels) that a classifier, given as a function from pixels to logits, no longer assigns to the frame's label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from framegate.evaluation.attacks.loss import LogitsOf, is_wrong
from framegate.models.training.batches import Progress
from framegate.runtime.errors import UsageError

PROBED_FRAMES = 8


@dataclass(frozen=True)
class AttackResult:
    """What an attack made of N frames.

    Attributes:
        attack: Name of the attack.
        epsilon: L-infinity radius it was given, in pixel units.
        pixels: (N, ...) float32 in [0, 1], within epsilon of the clean frames.
        logits: (N, C) of those pixels. NaN rows are possible, if that is what the network gave.
        misclassified: (N,) bool; the largest logit is not the label's, or a logit is NaN.
    """

    attack: str
    epsilon: float
    pixels: Tensor
    logits: Tensor
    misclassified: Tensor

    @staticmethod
    def join(attack: str, epsilon: float, parts: Sequence[BestSoFar]) -> AttackResult:
        """The result of an attack that went through the frames in parts."""
        return AttackResult(
            attack,
            epsilon,
            torch.cat([part.pixels for part in parts]),
            torch.cat([part.logits for part in parts]),
            torch.cat([part.misclassified for part in parts]),
        )

    @property
    def predictions(self) -> Tensor:
        """(N,) index of the largest logit."""
        return self.logits.argmax(1)

    @property
    def robust_accuracy(self) -> float:
        """Share of the frames that are still classified correctly, in [0, 1]."""
        return 1.0 - float(self.misclassified.double().mean())


class BestSoFar:
    """The best candidate of each frame: misclassified before correct, then the larger value.

    Args:
        clean: (N, ...) frames; each is its own first candidate with value -infinity.
        logits: (N, C) of the clean frames.
        labels: (N,) labels.
    """

    def __init__(self, clean: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.labels = labels
        self.pixels = clean.clone()
        self.logits = logits.clone()
        self.misclassified = is_wrong(logits, labels)
        self.value = torch.full((len(clean),), -torch.inf, device=clean.device)

    def offer(self, rows: Tensor, candidates: Tensor, logits: Tensor, values: Tensor) -> Tensor:
        """Keep the candidates that are better than what is held.

        Args:
            rows: (n,) int64, which frames the candidates belong to, no index twice.
            candidates: (n, ...) pixels.
            logits: (n, C) of the candidates.
            values: (n,) larger is better; NaN counts as -infinity.

        Returns:
            (n,) bool, the candidate is misclassified.
        """
        wrong = is_wrong(logits, self.labels[rows])
        values = values.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        was_wrong = self.misclassified[rows]
        better = (wrong & ~was_wrong) | ((wrong == was_wrong) & (values > self.value[rows]))
        kept = rows[better]
        self.pixels[kept] = candidates[better]
        self.logits[kept] = logits[better]
        self.misclassified[kept] = wrong[better]
        self.value[kept] = values[better]
        return wrong

    def open_rows(self) -> Tensor:
        """Indices of the frames that are still classified correctly, ascending."""
        return torch.nonzero(~self.misclassified)[:, 0]


class Ticker:
    """Counts the steps of one attack for a progress callback.

    Args:
        progress: Callback, or None.
        description: Its first argument.
        total: Steps in all.
    """

    def __init__(self, progress: Progress | None, description: str, total: int) -> None:
        self.progress, self.description, self.total, self.done = progress, description, total, 0

    def advance_to(self, done: int) -> None:
        """Report that ``done`` steps are over; going backwards is ignored."""
        if self.progress is not None and done > self.done:
            self.done = min(done, self.total)
            self.progress(self.description, self.done, self.total)


def check_problem(
    logits_of: LogitsOf, pixels: Tensor, labels: Tensor, epsilon: float, batch: int = 1, seed: int = 0
) -> int:
    """Refuse what cannot be attacked; classifies the first few frames.

    Returns:
        The number of classes.

    Raises:
        UsageError: No frames, pixels outside [0, 1] or not finite, labels of another number or out of range, epsilon
            outside (0, 1], batch below 1, seed below 0, or a network that gives probabilities instead of logits.
    """
    if not 0 < epsilon <= 1:
        raise UsageError(f"epsilon is {epsilon:g}; it must lie in (0, 1], in pixel units: 8/255 for eight grey levels")
    if batch < 1 or seed < 0:
        raise UsageError(f"batch is {batch} and seed is {seed}; batch must be at least 1 and seed at least 0")
    if pixels.ndim < 2 or len(pixels) == 0:
        raise UsageError(f"pixels have shape {tuple(pixels.shape)}: there is no frame to attack")
    if pixels.dtype != torch.float32 or not bool(((pixels >= 0) & (pixels <= 1)).all()):
        raise UsageError(
            f"pixels must be finite float32 in [0, 1], found {_range_of(pixels)}; divide 8-bit images by 255"
        )
    if labels.shape != pixels.shape[:1] or labels.dtype != torch.int64:
        raise UsageError(f"labels must be {len(pixels)} int64 numbers, found {tuple(labels.shape)} of {labels.dtype}")
    with torch.no_grad():
        logits = logits_of(pixels[:PROBED_FRAMES])
    if logits.ndim != 2 or len(logits) != min(PROBED_FRAMES, len(pixels)) or logits.shape[1] < 2:
        raise UsageError(f"the network gives {tuple(logits.shape)}; logits of shape (frames, classes) are needed")
    refuse_probabilities(logits)
    classes = logits.shape[1]
    if not bool(((labels >= 0) & (labels < classes)).all()):
        raise UsageError(
            f"labels run from {int(labels.min())} to {int(labels.max())}; the network knows 0 to {classes - 1}"
        )
    return classes


def refuse_probabilities(logits: Tensor) -> None:
    """Logits are needed: a softmax flattens the gradients that the attacks follow.

    Raises:
        UsageError: Every row of (N, C) lies in [0, 1] and sums to one.
    """
    if bool(((logits >= 0) & (logits <= 1)).all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
        raise UsageError(
            "the network gives probabilities (rows sum to one); logits needed: attack it without its softmax"
        )


def _range_of(pixels: Tensor) -> str:
    return f"{pixels.dtype} from {float(pixels.min()):g} to {float(pixels.max()):g}"


def evaluate(logits_of: LogitsOf, pixels: Tensor, batch: int = 128) -> Tensor:
    """(N, C) logits without gradients, ``batch`` frames at a time."""
    with torch.no_grad():
        return torch.cat([logits_of(pixels[rows]) for rows in batches(len(pixels), batch)])


def ascend(pixels: Tensor, gradient: Tensor, step: Tensor | float, clean: Tensor, epsilon: float) -> Tensor:
    """One step along the gradient's sign, projected; a NaN in the gradient moves nothing."""
    return project(pixels + step * gradient.nan_to_num(nan=0.0).sign(), clean, epsilon)


def project(pixels: Tensor, clean: Tensor, epsilon: float) -> Tensor:
    """The nearest pixels within ``epsilon`` of ``clean`` and inside [0, 1]."""
    return torch.minimum(torch.maximum(pixels, clean - epsilon), clean + epsilon).clamp_(0, 1)


def uniform(shape: torch.Size, frames: Tensor, seed: int, draw: int) -> Tensor:
    """Noise (n, ...) in [-1, 1), one stream per (seed, draw, frame): it does not depend on how frames are batched.

    Args:
        shape: Shape of one frame.
        frames: (n,) number of each frame.
        seed: At least 0.
        draw: Number of the draw, for example of the restart.
    """
    noise = torch.empty(len(frames), *shape)
    for row, frame in enumerate(frames.tolist()):
        torch.rand(shape, generator=generator_of(seed, draw, frame), out=noise[row])
    return (2 * noise - 1).to(frames.device)


def generator_of(*seeds: int) -> torch.Generator:
    """A generator on the CPU, named by integers >= 0, for one stream of random numbers; global state is not touched."""
    state = np.random.SeedSequence(seeds).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def batches(size: int, batch: int) -> Iterator[slice]:
    """Slices of at most ``batch`` that cover ``size``."""
    for start in range(0, size, batch):
        yield slice(start, min(start + batch, size))
