"""The published batch-wise protocols, only to reproduce their figures and to label them. Nothing else uses this.

The paper ("Entropy-Based Non-Invasive Reliability Monitoring of Convolutional Neural Networks", 2025, arXiv:2508.21715)
and the prototype built on it (repository RobustEntropyCNN) take one entropy of all activations of a whole batch. Their
figures can't be compared with figures per frame:

- a batch of 16 or 128 frames, all attacked or all clean, averages away most of what makes single frames differ, so a
  shift far too small to judge a frame by separates batches; no camera delivers such batches. One attacked frame among
  16 clean ones is all but invisible;
- n is the number of batches, not of frames: 10 decisions in the paper, 79 in the prototype, hence wide intervals;
- a rejected batch takes its right frames with it, so coverage moves in steps of a batch and accuracy hardly at all.

Entropies here are in nats; the paper prints bits (divide by log 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from framegate.evaluation.metrics.intervals import Interval, proportion
from framegate.evaluation.metrics.ranking import Flags, Floats
from framegate.runtime.errors import DataError, UsageError

PROTOTYPE_BINS = 30
PROTOTYPE_BATCH = 128
PAPER_BATCH = 16
DEVIATIONS = 2.0
"""The prototype flags a batch above the mean plus so many standard deviations of the validation batches."""


def _edges(*parts: tuple[float, float, int]) -> Floats:
    return np.concatenate([np.linspace(low, high, count) for low, high, count in parts])


PAPER_EDGES: Mapping[str, Floats] = {
    "features.0": _edges((0, 0.3, 16), (0.34, 0.9, 15), (1.083, 2.0, 6), (2.67, 4.0, 3), (7.0, 7.0, 1)),
    "classifier.3": _edges((0, 2, 20), (2.001, 4, 3), (7.0, 7.0, 1)),
}
"""The paper's hand-set bin edges for two layers of torchvision's VGG-16: the first convolution and the second linear
layer. They belong to the scale of those layers and to nothing else."""


class BatchEntropy:
    """Entropy of the histogram of all activations of a batch, fed in portions of any size.

    After a ReLU. With edges: bins as of numpy.histogram, [a, b), the last [a, b], nothing beyond is counted. Without
    edges: ``PROTOTYPE_BINS`` equal bins of [0, largest activation of the batch], which stretch with the batch.

    Args:
        batch: Frames per batch.
        edges: (E,) ascending, or None.
    """

    def __init__(self, batch: int, edges: Floats | None = None) -> None:
        if batch < 1 or (edges is not None and (len(edges) < 2 or not (np.diff(edges) > 0).all())):
            raise UsageError(f"batch entropy: batch of {batch} and edges {edges}; expected >= 1, and ascending edges")
        self.batch, self.edges = batch, edges
        self._waiting: list[Tensor] = []
        self._frames = 0
        self._entropies: list[float] = []

    @torch.no_grad()
    def feed(self, activations: Tensor) -> None:
        """Take (n, ...) activations of the next n frames."""
        frames = activations.detach().flatten(1)
        while len(frames):
            taken = frames[: self.batch - self._frames]
            self._waiting.append(taken)
            self._frames += len(taken)
            frames = frames[len(taken) :]
            if self._frames == self.batch:
                self._close()

    def finish(self, keep_last: bool = False) -> Floats:
        """(B,) entropies in nats, one per batch; NaN for a batch with NaN or infinity, or with nothing in any bin.

        Args:
            keep_last: Count an incomplete last batch too, as the prototype does; else it is dropped.
        """
        if keep_last and self._frames:
            self._close()
        self._waiting, self._frames = [], 0
        return np.array(self._entropies)

    def _close(self) -> None:
        values = torch.cat([part.flatten() for part in self._waiting]).relu()
        self._entropies.append(batch_entropy(values, self.edges))
        self._waiting, self._frames = [], 0


def batch_entropy(values: Tensor, edges: Floats | None = None) -> float:
    """Entropy in nats of the histogram of (n,) activations after a ReLU; see `BatchEntropy`."""
    if not bool(torch.isfinite(values).all()):
        return float("nan")
    if edges is None:
        top = max(float(values.max()), 1e-8)  # the prototype's guard: a batch of zeros has entropy 0
        bins = (values.double() * (PROTOTYPE_BINS / top)).long().clamp_(max=PROTOTYPE_BINS - 1)
        counts = torch.bincount(bins, minlength=PROTOTYPE_BINS).double()
    else:
        limits = torch.as_tensor(edges, dtype=torch.float64)
        exact = values.double().cpu()
        bins = torch.bucketize(exact, limits, right=True)
        bins[exact == limits[-1]] -= 1
        counts = torch.bincount(bins, minlength=len(limits) + 1)[1 : len(limits)].double()
    total = counts.sum()
    return float(torch.special.entr(counts / total).sum()) if total > 0 else float("nan")


@dataclass(frozen=True)
class BatchRule:
    """Flag a batch on one side of a threshold.

    Attributes:
        threshold: In nats.
        direction: 1 flags above the threshold, -1 below.
    """

    threshold: float
    direction: int

    @classmethod
    def fit(cls, clean: Floats, attacked: Floats) -> BatchRule:
        """Least FPR + FNR on calibration batches, over all thresholds between two entropies and both directions.

        Of several best thresholds the middle one; equal directions count as above.

        Raises:
            DataError: One of the sets has no finite entropy.
        """
        clean, attacked = clean[np.isfinite(clean)], attacked[np.isfinite(attacked)]
        if len(clean) == 0 or len(attacked) == 0:
            raise DataError("batch rule: no calibration batch of one kind has an entropy; give more frames")
        values = np.unique(np.concatenate([clean, attacked]))
        candidates = np.concatenate(([-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]))
        clean_above = (clean[None] > candidates[:, None]).mean(axis=1)
        attacked_above = (attacked[None] > candidates[:, None]).mean(axis=1)
        above = clean_above + 1.0 - attacked_above
        below = 1.0 - clean_above + attacked_above
        loss = above if above.min() <= below.min() else below
        best = np.flatnonzero(loss <= loss.min() + 1e-12)
        return cls(float(candidates[best[len(best) // 2]]), 1 if loss is above else -1)

    def flags(self, entropies: Floats) -> Flags:
        """(B,) True where a batch is taken for attacked; an entropy that is not finite always is."""
        flagged = entropies > self.threshold if self.direction > 0 else entropies < self.threshold
        return np.asarray(~np.isfinite(entropies) | flagged)


@dataclass(frozen=True)
class BatchDetection:
    """What a batch rule does on other batches; n of each figure is a number of batches.

    Attributes:
        accuracy: Right decisions.
        false_positive_rate: Clean batches that are flagged.
        false_negative_rate: Attacked batches that are not.
    """

    accuracy: Interval
    false_positive_rate: Interval
    false_negative_rate: Interval


def detection_accuracy(rule: BatchRule, clean: Floats, attacked: Floats) -> BatchDetection:
    """Decisions of a rule on (B,) clean and (B,) attacked batches, with Clopper-Pearson intervals."""
    alarms, misses = int(rule.flags(clean).sum()), int((~rule.flags(attacked)).sum())
    decisions = len(clean) + len(attacked)
    return BatchDetection(
        proportion(decisions - alarms - misses, decisions),
        proportion(alarms, len(clean)),
        proportion(misses, len(attacked)),
    )


@dataclass(frozen=True)
class BatchSelection:
    """What the prototype's rule keeps.

    Attributes:
        batches: Batches in all.
        flagged: Flagged batches by layer.
        coverage: Accepted / evaluated frames. Frames of one batch share its fate: the interval is too narrow.
        accuracy_accepted: Right / accepted frames; NaN if nothing is accepted.
        accuracy: Right / evaluated frames, without any rejection.
    """

    batches: int
    flagged: Mapping[str, int]
    coverage: Interval
    accuracy_accepted: Interval
    accuracy: Interval


@dataclass(frozen=True)
class PrototypeRule:
    """The prototype's selective rule: a batch is rejected as a whole if any layer's entropy is above its threshold.

    Attributes:
        thresholds: Layer -> mean + 2 standard deviations over validation batches, nats.
    """

    thresholds: Mapping[str, float]

    @classmethod
    def fit(cls, validation: Mapping[str, Floats]) -> PrototypeRule:
        """Take the thresholds from layer -> (B,) entropies of clean validation batches.

        Raises:
            DataError: A layer has fewer than two batches, or an entropy that is not finite.
        """
        for layer, values in validation.items():
            if len(values) < 2 or not np.isfinite(values).all():
                raise DataError(f"batch rule: {layer} has {len(values)} validation batches; two finite ones are needed")
        return cls({layer: float(v.mean() + DEVIATIONS * v.std()) for layer, v in validation.items()})

    def select(self, entropies: Mapping[str, Floats], wrong: Flags, batch: int = PROTOTYPE_BATCH) -> BatchSelection:
        """Apply the rule.

        Args:
            entropies: Layer -> (B,) entropies, the last batch possibly incomplete.
            wrong: (N,) the prediction is wrong, in the order in which the frames were fed.
            batch: Frames per batch.

        Raises:
            DataError: Another number of batches than the frames make, or a layer without a threshold or entropies.
        """
        if set(entropies) != set(self.thresholds):
            raise DataError(f"batch rule: layers {sorted(entropies)} given, fitted on {sorted(self.thresholds)}")
        batches = -(-len(wrong) // batch)
        flags = {layer: ~(values <= self.thresholds[layer]) for layer, values in entropies.items()}
        if any(len(values) != batches for values in flags.values()):
            found = sorted({len(values) for values in flags.values()})
            raise DataError(f"batch rule: {found} batches given; {len(wrong)} frames make {batches} of {batch}")
        rejected: NDArray[np.bool_] = np.any(np.stack(list(flags.values())), axis=0)
        accepted = ~np.repeat(rejected, batch)[: len(wrong)]
        kept = int(accepted.sum())
        return BatchSelection(
            batches,
            {layer: int(values.sum()) for layer, values in flags.items()},
            proportion(kept, len(wrong)),
            proportion(int((accepted & ~wrong).sum()), kept),
            proportion(int((~wrong).sum()), len(wrong)),
        )


def averaged(values: Sequence[float] | Floats, batch: int) -> Floats:
    """(B,) means of consecutive runs of ``batch`` of (N,) per-frame values; an incomplete last run is dropped.

    The fair rival of a batch entropy: any per-frame statistic gains as much from averaging over a window of a stream.
    """
    if batch < 1:
        raise UsageError(f"batch: {batch} given, expected at least 1")
    whole = len(values) // batch * batch
    means: Floats = np.asarray(values, dtype=np.float64)[:whole].reshape(-1, batch).mean(axis=1)
    return means
