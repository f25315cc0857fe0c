"""Class means with one shared, shrunk covariance, and distances as if a frame had been left out of the fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framegate.evaluation.scores.protocol import Floats
from framegate.runtime.errors import CalibrationError

_BLOCK = 2000


def ledoit_wolf(centred: Floats) -> tuple[Floats, float]:
    """Covariance shrunk towards mu I, mu the mean variance (Ledoit and Wolf 2004, J. Multivariate Analysis 88, 365).

    Args:
        centred: (n, F), each row minus its mean.

    Returns:
        (F, F) covariance and the shrinkage in [0, 1].
    """
    n, features = centred.shape
    sample = centred.T @ centred / n
    mu = float(np.trace(sample)) / features
    spread = float(np.sum(sample**2))
    distance = spread - features * mu**2
    noise = (float(np.mean(np.sum(centred**2, axis=1) ** 2)) - spread) / n
    shrinkage = 1.0 if distance <= 0 else float(np.clip(noise / distance, 0.0, 1.0))
    shrunk = (1.0 - shrinkage) * sample
    shrunk[np.diag_indices(features)] += shrinkage * mu
    return shrunk, shrinkage


@dataclass(frozen=True, eq=False)
class ClassGaussians:
    """Gaussians of K classes with one covariance.

    Attributes:
        classes: (K,) labels.
        means: (K, F).
        counts: (K,) frames each mean rests on.
        precision: (F, F) inverse of the shrunk covariance.
        shrinkage: In [0, 1].
    """

    classes: NDArray[np.int64]
    means: Floats
    counts: NDArray[np.int64]
    precision: Floats
    shrinkage: float

    @classmethod
    def fit(cls, features: Floats, labels: NDArray[np.int64]) -> ClassGaussians:
        """Fit (n, F) features with (n,) labels.

        Raises:
            CalibrationError: The features do not vary within a class.
        """
        classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
        means = np.zeros((len(classes), features.shape[1]))
        np.add.at(means, index, features)
        means /= counts[:, None]
        covariance, shrinkage = ledoit_wolf(features - means[index])
        # Where next to nothing was shrunk away, a feature that never varies would make the covariance singular.
        covariance[np.diag_indices(len(covariance))] += 1e-9 * np.trace(covariance) / len(covariance)
        if not np.trace(covariance) > 0:
            raise CalibrationError(
                "features: they are the same for all frames of a class; record the penultimate features"
            )
        return cls(classes, means, counts, np.asarray(np.linalg.inv(covariance)), shrinkage)

    def smallest_distance(self, features: Floats) -> Floats:
        """(N,) squared Mahalanobis distance to the nearest class mean; NaN for a row that is not finite."""
        return np.concatenate(
            [self._distances(features[k : k + _BLOCK]).min(axis=1) for k in range(0, len(features), _BLOCK)]
            or [np.empty(0)]
        )

    def left_out_distance(self, features: Floats, labels: NDArray[np.int64]) -> Floats:
        """(n,) distances of the frames of the fit, each as if it had not been in it.

        Without frame x of class c, with d = x - mean_c and n_c frames, the mean moves to mean_c - d / (n_c - 1) and
        the scatter loses n_c / (n_c - 1) d d'. The inverse follows by Sherman and Morrison 1950; shrinkage and the
        number of frames that the scatter is divided by are kept. A class of one frame is left without a mean.
        """
        own = np.searchsorted(self.classes, labels)
        count = self.counts[own].astype(np.float64)
        alone = count == 1
        ratio = np.where(alone, 1.0, count / np.maximum(count - 1.0, 1.0))
        weight = (1.0 - self.shrinkage) * ratio / len(features)
        offset = features - self.means[own]
        turned = offset @ self.precision
        own_distance = (turned * offset).sum(axis=1)
        # 1 - weight * own_distance > 0: the downdated covariance stays positive definite.
        gain = weight / np.maximum(1.0 - weight * own_distance, np.finfo(np.float64).tiny)
        across = (turned * features).sum(axis=1)[:, None] - turned @ self.means.T
        distances = self._distances(features) + gain[:, None] * across**2
        own_left_out = ratio**2 * (own_distance + gain * own_distance**2)
        distances[np.arange(len(own)), own] = np.where(alone, np.inf, own_left_out)
        return np.asarray(distances.min(axis=1))

    def _distances(self, features: Floats) -> Floats:
        """(N, K) squared distances to every mean."""
        moved = features - self.means.mean(axis=0)  # near the data, so that little cancels below
        means = self.means - self.means.mean(axis=0)
        turned = moved @ self.precision
        means_turned = means @ self.precision
        own = (turned * moved).sum(axis=1)[:, None] - 2.0 * turned @ means.T + (means_turned * means).sum(axis=1)
        return np.asarray(np.maximum(own, 0.0))
