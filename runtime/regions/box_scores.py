"""The scores of detected boxes: those of a classifier's frame, made from what a detector says about each box.

Let p_c be a box's score for class c after everything that the head multiplies into it (an objectness, say).

- **Exclusive** heads (a softmax: SSD, DETR with its class "no object") name one of C classes or nothing. The rest
  p_0 = 1 - sum p_c counts as one more class: entropy = -sum p log p over all C + 1, in [0, log(C + 1)].
- **Sigmoid** heads (YOLO, NanoDet, FastestDet, RT-DETR) answer C questions, each yes or no. Entropy is the sum of the
  entropies of the answers, -sum p_c log p_c + (1 - p_c) log(1 - p_c), in [0, C log 2].

For both, ``max_probability`` is 1 - the largest p_c, ``margin`` is 1 - (largest - second largest), where for exclusive
heads p_0 may be the second, and ``energy`` is the log-probability that there is nothing: log p_0 for exclusive heads,
the energy -log sum exp(x) with the logit of "no object" set to 0; sum log(1 - p_c) for sigmoid heads, which is the
joint energy -sum log(1 + exp(x_c)) of Wang et al. 2021 ("Can multi-label classification networks know what they don't
know?", arXiv 2111.12797). All are turned so that higher is less trustworthy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from framegate.runtime.bundle.calibration import BOX, SCORES

_LEAST = 1e-7  # of a probability: float32 knows none closer to 1

Floats = npt.NDArray[np.float64]


def box_scores(scores: npt.NDArray[np.float32], exclusive: bool) -> dict[str, Floats]:
    """Every score of every box.

    Args:
        scores: (N, C) of each class, in [0, 1], C >= 1.
        exclusive: Whether a box is of one class at most, so that a row sums to 1 at most.

    Returns:
        ``box_entropy`` (nats), ``box_max_probability``, ``box_margin`` and ``box_energy`` (nats) -> (N,); NaN for a box
        with a score that is no number in [0, 1].
    """
    p = scores.astype(np.float64)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(p).all(axis=1) & (p.min(axis=1) >= 0) & (p.max(axis=1) <= 1)
    p = np.where(known.reshape(-1, 1), p, 0.5)
    nothing = np.clip(1 - p.sum(axis=1, keepdims=True), 0, 1) if exclusive else np.zeros((len(p), 1))
    every = np.concatenate([p, nothing], axis=1)
    largest = p.max(axis=1)
    second = np.sort(np.where(np.arange(every.shape[1]) == p.argmax(axis=1)[:, None], -1, every), axis=1)[:, -1]
    sure = np.clip(every if exclusive else p, _LEAST, 1 - _LEAST)
    entropy = -(sure * np.log(sure)).sum(axis=1)
    if not exclusive:
        entropy = entropy - ((1 - sure) * np.log1p(-sure)).sum(axis=1)
    found = {
        "entropy": entropy,
        "max_probability": 1 - largest,
        "margin": 1 - (largest - second),
        "energy": np.log(sure[:, -1]) if exclusive else np.log1p(-sure).sum(axis=1),
    }
    return {BOX + name: np.where(known, found[name], np.nan) for name in SCORES}
