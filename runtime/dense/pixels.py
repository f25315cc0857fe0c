"""Dense predictions (segmentation): which pixels may be used, and whether a frame has enough of them.

Each pixel of logits (C, H, W) is scored and compared with the calibrated threshold like a frame of a classifier; the
frame is accepted if the share of usable pixels in a region of interest reaches a minimum. What a calibration promises
for pixels holds for pixels like those it saw.

`judge_dense` is for whoever runs a dense network by himself. A dense bundle does this in a pipeline
(`framegate.runtime.dense.spec`), with camera check, policy and deadline, and with a promise about regions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.runtime.bundle.calibration import SCORES, Calibration, Limit
from framegate.runtime.errors import RejectedFrame, UsageError
from framegate.runtime.roi import Roi
from framegate.runtime.verdict import Reason

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: == on arrays has no single truth value
class DenseScores:
    """The scores of every pixel, all turned so that higher is less trustworthy; NaN where the logits are not finite.

    Attributes:
        labels: (H, W) int64, index of the largest logit, the lowest on a tie; -1 where the logits are not finite.
        maps: Name of each score asked for -> (H, W) float32. ``entropy`` in nats, [0, log C]; ``max_probability``
            is 1 - p, [0, 1]; ``margin`` is 1 - (best minus second-best probability), [0, 1]; ``energy`` in the unit of
            the logits.
    """

    labels: Labels
    maps: dict[str, Map]


@dataclass(frozen=True, slots=True, eq=False)
class DensePrediction:
    """The verdict on one frame of a dense model.

    Attributes:
        mask: (H, W) bool, True where a pixel's label may be used if the frame is accepted; also outside the region.
        share: Usable pixels in the region of interest / all of its pixels, in [0, 1].
        min_share: The share that was asked for.
        reasons: Empty exactly when the frame is accepted.
        candidates: (H, W) int64 labels of all pixels, -1 where there is none: for displays, **never for decisions**.
        score: (H, W) float32, the calibrated score; NaN without calibration or where the logits are not finite.
        finite: Share of the region's pixels whose logits are all finite, in [0, 1].
    """

    mask: Mask
    share: float
    min_share: float
    reasons: tuple[Reason, ...]
    candidates: Labels
    score: Map
    finite: float

    @property
    def accepted(self) -> bool:
        """True if downstream logic may use `labels`."""
        return not self.reasons

    def __bool__(self) -> bool:
        """The same as `accepted`, so that no rejected prediction is true."""
        return self.accepted

    @property
    def labels(self) -> Labels:
        """The labels of the usable pixels, -1 everywhere else.

        Raises:
            RejectedFrame: The frame was rejected.
        """
        if self.reasons:
            why = ", ".join(self.reasons)
            raise RejectedFrame(
                f"the frame was rejected: {why} ({self.share:.1%} of the region usable, {self.min_share:.1%} needed); "
                "check .accepted before using .labels"
            )
        return np.where(self.mask, self.candidates, -1)


def dense_scores(logits: npt.NDArray[Any], temperature: float, names: tuple[str, ...] = ("entropy",)) -> DenseScores:
    """Score every pixel, by the formulas of `framegate.cuda_kernels.softmax_entropy.reference` in float32.

    A pixel with NaN or an infinity of either sign among its logits has no scores: from a network, each is a fault.

    Args:
        logits: (C, H, W) float16 or float32, C >= 1. Not modified.
        temperature: Logits are divided by it, finite and > 0.
        names: Which scores, of `SCORES`.

    Raises:
        UsageError: The logits have another shape or type, the temperature is not positive, or a score is unknown.
    """
    x = _as_logits(logits)
    if not 0.0 < temperature < math.inf:
        raise UsageError(f"temperature: asked for a finite number > 0, found {temperature!r}")
    unknown = sorted(set(names) - set(SCORES))
    if unknown:
        raise UsageError(f"a dense output has no score {', '.join(unknown)}; it has {', '.join(SCORES)}")
    finite = np.isfinite(x).all(axis=0)
    if not finite.all():
        x = np.where(finite, x, np.float32(0))  # a harmless stand-in, overwritten below
    labels = x.argmax(axis=0)
    largest = x.max(axis=0)
    with np.errstate(over="ignore", under="ignore"):  # infinitely far below the maximum, or probability 0: both right
        d = (x - largest) / np.float32(temperature)
        e = np.exp(d)
        z = e.sum(axis=0)
        log_z = np.log(z)
        maps: dict[str, Map] = {}
        if "entropy" in names:
            s = np.einsum("chw,chw->hw", np.where(e > 0, d, np.float32(0)), e)
            maps["entropy"] = np.clip(log_z - s / z, 0, np.float32(math.log(len(x))))
        if "max_probability" in names:
            maps["max_probability"] = 1 - 1 / z
        if "energy" in names:
            maps["energy"] = -(largest + np.float32(temperature) * log_z)
        if "margin" in names:
            np.put_along_axis(d, labels[None], -np.inf, axis=0)  # what is left is the rivals
            maps["margin"] = 1 + np.expm1(d.max(axis=0)) / z
    for each in maps.values():
        each[~finite] = np.nan
    labels[~finite] = -1
    return DenseScores(labels.astype(np.int64, copy=False), maps)


def scores_of_maps(
    logits: npt.NDArray[Any],
    labels: npt.NDArray[np.uint8],
    entropy: Map,
    max_probability: Map,
    margin: Map,
    energy: Map,
) -> DenseScores:
    """What an engine computed about every pixel, as `dense_scores` gives it.

    Args:
        logits: (C, H, W) float32 that the maps belong to. A logit of -inf, which a kernel takes for a mask, is a fault.
        labels: (H, W) of the largest logit.
        entropy: (H, W), and so are the others; see `framegate.runtime.backends.base.PixelMaps`.
        max_probability: p of the label.
        margin: Largest minus second largest p.
        energy: As everywhere.
    """
    finite = np.isfinite(logits).all(axis=0)
    turned = {"entropy": entropy, "max_probability": 1 - max_probability, "margin": 1 - margin, "energy": energy}
    maps = {name: np.where(finite, each, np.float32(np.nan)) for name, each in turned.items()}
    return DenseScores(np.where(finite, labels, -1).astype(np.int64), maps)


def judge_dense(
    logits: npt.NDArray[Any], calibration: Calibration | None, roi: Roi | None = None, min_share: float = 0.9
) -> DensePrediction:
    """Which pixels may be used, and whether the frame may.

    Args:
        logits: (C, H, W) float16 or float32, one frame.
        calibration: Temperature, score, threshold and single-frame limits, all applied to each pixel; None rejects the
            frame with NOT_CALIBRATED, without a usable pixel.
        roi: The region whose pixels are counted, in pixels **of the logits** or fractions; None counts all.
        min_share: Accept iff at least this share of the region's pixels is usable, in (0, 1].

    Returns:
        A prediction with one of the reasons NOT_CALIBRATED, HIGH_SCORE (too few usable pixels) or NOT_FINITE (too few
        because so many logits are not finite).

    Raises:
        UsageError: The logits, the region or ``min_share`` cannot be used, or the calibration needs a signal that a
            dense output does not have.
    """
    x = _as_logits(logits)
    if not 0.0 < min_share <= 1.0:
        raise UsageError(f"min_share is {min_share!r}; expected a share in (0, 1]")
    height, width = x.shape[1:]
    box = (roi or Roi.whole()).pixels(width, height)
    if box is None:
        raise UsageError(f"region {roi.name if roi else ''!r} reaches outside the {width}x{height} logits")
    limits = [limit for limit in calibration.limits if limit.frames == 1] if calibration else []
    score_name = calibration.score if calibration else "entropy"
    names = tuple(dict.fromkeys((score_name, *(limit.signal for limit in limits))))
    scores = dense_scores(x, calibration.temperature if calibration else 1.0, names)
    score = scores.maps[score_name]
    mask = np.zeros(score.shape, np.bool_)
    if calibration:
        mask = usable_pixels(scores, score_name, _thresholds(calibration, scores.labels, len(x)), tuple(limits))
    left, top, columns, rows = box
    inside = np.s_[top : top + rows, left : left + columns]
    share = float(np.count_nonzero(mask[inside]) / (rows * columns))
    finite = float(np.count_nonzero(scores.labels[inside] >= 0) / (rows * columns))
    reasons: tuple[Reason, ...] = ()
    if not share >= min_share:
        reasons = (Reason.HIGH_SCORE,) if finite >= min_share else (Reason.NOT_FINITE,)
    if calibration is None:
        reasons = (Reason.NOT_CALIBRATED,)
        score = np.full_like(score, np.nan)
    return DensePrediction(mask, share, min_share, reasons, scores.labels, score, finite)


def usable_pixels(scores: DenseScores, score: str, threshold: float | Map, limits: tuple[Limit, ...] = ()) -> Mask:
    """(H, W) True where a pixel's score is at most the threshold, and all limits hold.

    Args:
        scores: Of all pixels, with every score that is compared.
        score: Name of the one that the threshold is for.
        threshold: The largest that is usable, one for all or (H, W) one for each pixel.
        limits: Ranges for single frames.
    """
    # Written so that NaN fails: only a true comparison makes a pixel usable.
    mask: Mask = scores.maps[score] <= threshold
    for limit in limits:
        value = scores.maps[limit.signal]
        low = -math.inf if limit.low is None else limit.low
        mask = mask & (value >= low) & (value <= (math.inf if limit.high is None else limit.high))
    return mask


def _thresholds(calibration: Calibration, labels: npt.NDArray[np.int64], classes: int) -> float | Map:
    """The threshold of every pixel; one for all where no label has its own. A pixel without a label has no score."""
    if not calibration.classes:
        return calibration.threshold
    return np.array([calibration.threshold_of(k) for k in range(classes)])[labels]


def _as_logits(logits: npt.NDArray[Any]) -> Map:
    found = f"{type(logits).__name__}"
    if isinstance(logits, np.ndarray):
        if logits.ndim == 3 and logits.size and logits.dtype in (np.float16, np.float32):
            return logits.astype(np.float32, copy=False)
        found = f"{logits.dtype} {logits.shape}"
    raise UsageError(f"logits: asked for one frame (C, H, W) of float32 or float16, none of them 0, found {found}")
