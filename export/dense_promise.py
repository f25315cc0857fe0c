"""Calibrates a dense network: which pixels are usable, and from which share of them on a region may be used.

Two steps, on two parts of the labelled pictures that follow from their fingerprint (`design.division_seed`):

1. The *design part* sets the temperature of the pixels (least mean negative log-likelihood of the labelled ones) and
   the largest entropy of a usable pixel: the laxest of a few under which hardly a region is wrong.
2. The *proof part* sets the largest share of unusable pixels of an accepted region. A region is **wrong** if more than
   ``wrong_share`` of its usable, labelled pixels have another label than they should. The unit is the image, and the
   bound is the exact one of all promises (`selective_risk.select`): of the accepted regions at most r are wrong.

How the pixels of one image depend on each other does not matter: an image counts once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from framegate.export.calibration.decisions import Flags, Floats
from framegate.export.calibration.design import division_seed, split_units
from framegate.export.calibration.selective_risk import ONE_TARGET, check_promise, of_frames, select
from framegate.export.data.dense_folder import IGNORED, DensePictures
from framegate.export.progress import Progress
from framegate.runtime.backends.base import infer
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import FINGERPRINT, IMAGE, UNUSABLE, Calibration, record_key
from framegate.runtime.dense.pixels import dense_scores, usable_pixels
from framegate.runtime.dense.spec import DenseSpec
from framegate.runtime.errors import CalibrationError
from framegate.runtime.preprocess import Preprocessor
from framegate.runtime.scores import Tensor

BACKENDS = ("onnxruntime", "openvino")
_TEMPERATURES = np.geomspace(0.5, 4.0, 13)
_ENTROPIES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""Largest entropies of a usable pixel that are tried, as shares of the largest there is, log C."""
_QUANTILES = 100
_DESIGN_RISK = 0.5
"""Share of the target that wrong regions of the design part may make up, whatever their share of unusable pixels."""


@dataclass(frozen=True)
class DensePromise:
    """What shall be proved.

    Attributes:
        target_risk: Largest share of accepted regions that are wrong, in (0, 1).
        confidence_level: Probability with which it is kept, in (0, 1).
        wrong_share: A region is wrong if more than this share of its usable pixels is, in [0, 1).
        proved: False: thresholds are set without a proof, and nothing is promised.
    """

    target_risk: float = 0.05
    confidence_level: float = 0.95
    wrong_share: float = 0.01
    proved: bool = True


@dataclass(frozen=True, eq=False)
class _Maps:
    """Logits of the judged region of some pictures, and what is right there.

    Attributes:
        logits: (N, C, rows, columns) float32.
        truth: (N, rows, columns) label numbers, `IGNORED` where nobody knows.
    """

    logits: Tensor
    truth: npt.NDArray[np.uint8]

    def of(self, numbers: npt.NDArray[np.int64]) -> _Maps:
        return _Maps(self.logits[numbers], self.truth[numbers])


def observe(bundle: Bundle, backend: str, pictures: DensePictures, spec: DenseSpec, progress: Progress) -> _Maps:
    """What an engine says about the judged region of every picture.

    Args:
        bundle: A dense one; its calibration does not matter.
        backend: Which engine.
        pictures: Labelled ones.
        spec: Which region.
        progress: Called during the work.

    Raises:
        BackendError: The engine cannot run it.
        CalibrationError: The network's map is too small for the region.
    """
    with bundle.loaded("fp32") as model:
        engine = load_backend(backend, model, 1)
    preprocessor = Preprocessor(bundle.preprocess)
    engine.bind(preprocessor.tensor)
    logits, truth = [], []
    for k, (image, mask) in enumerate(zip(pictures.images, pictures.masks, strict=True)):
        preprocessor(image)
        found = infer(engine)[0]
        box = spec.roi.pixels(found.shape[2], found.shape[1])
        if box is None:
            raise CalibrationError(f"calibration: the region {spec.region!r} has no pixel of the network's map")
        x, y, width, height = box
        logits.append(found[:, y : y + height, x : x + width].copy())
        truth.append(_at_map(mask, found.shape[2], found.shape[1])[y : y + height, x : x + width])
        progress(f"pictures, {backend}", k + 1, len(pictures.images))
    return _Maps(np.stack(logits), np.stack(truth))


def _at_map(mask: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """The label in the middle of each pixel of the map."""
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(np.int64)
    return np.asarray(mask[rows[:, None], columns], np.uint8)


def calibrate_dense(
    bundle: Bundle,
    spec: DenseSpec,
    pictures: DensePictures,
    promise: DensePromise,
    unseen: str,
    backends: tuple[str, ...],
    progress: Progress,
    *,
    pixels_are_set: bool = False,
) -> tuple[DenseSpec, dict[str, Calibration]]:
    """Set the thresholds for all engines at once.

    Args:
        bundle: A dense one, without calibration.
        spec: Its region; what makes a pixel usable is set here.
        pictures: Labelled ones that the network never saw.
        promise: What shall be proved.
        unseen: Who says that it never saw them.
        backends: Names of the engines.
        progress: Called during the work.
        pixels_are_set: Keep what makes a pixel usable, as it is in ``spec``: for a further engine of a bundle.

    Returns:
        The spec with temperature and pixel threshold, and a calibration for each engine.

    Raises:
        CalibrationError: No threshold keeps the promise, or the pictures cannot be used.
        UsageError: The promise's numbers are out of range.
    """
    check_promise(promise.target_risk, promise.confidence_level)
    maps = {name: observe(bundle, name, pictures, spec, progress) for name in backends}
    print_of_data = pictures.fingerprint()
    design, proof = split_units(len(pictures.images), None, division_seed(print_of_data))
    if not len(design) or not len(proof):
        raise CalibrationError(f"calibration: {len(pictures.images)} pictures; give some hundred")
    first = maps[backends[0]]
    chosen = replace(spec, wrong_share=promise.wrong_share)
    if not pixels_are_set:
        chosen = _choose_pixels(first.of(design), chosen, promise)
    judged = {name: _judge(each, chosen) for name, each in maps.items()}
    parts = [
        of_frames((scores[design], wrong[design]), (scores[proof], wrong[proof]), promise.target_risk)
        for scores, wrong in judged.values()
    ]
    records = {}
    if promise.proved:
        selections = select(parts, promise.target_risk, promise.confidence_level, other_target=ONE_TARGET)
        found = [(each.threshold, each.accepted, each.errors, each.risk_bound) for each in selections]
    else:
        found = [_without_proof(part.candidates, part.counts) for part in parts]
    for (name, (scores, _)), (threshold, accepted, errors, bound) in zip(judged.items(), found, strict=True):
        if not accepted:
            raise CalibrationError("calibration: no picture of the proof part has enough usable pixels in the region")
        records[record_key(name, "fp32")] = Calibration(
            temperature=chosen.temperature,
            score=UNUSABLE,
            # Above the largest share that was tested it would accept what was not.
            threshold=min(threshold, float(np.nanmax(scores[proof]))),
            target_risk=promise.target_risk,
            confidence_level=promise.confidence_level,
            risk_bound=bound,
            coverage=accepted / len(proof),
            selective_risk=errors / accepted,
            size=len(proof),
            fingerprint=print_of_data,
            model_sha256=bundle.hashes[bundle.models["fp32"]],
            engine=_engine_name(bundle, name),
            score_quantiles=_quantiles(scores[proof]),
            unit=IMAGE,
            shares=1,
            division=FINGERPRINT,
            proved=promise.proved,
            unseen=unseen,
        )
    return chosen, records


def _engine_name(bundle: Bundle, backend: str) -> str:
    """Library and version of an engine."""
    with bundle.loaded("fp32") as model:
        return load_backend(backend, model, 1).engine


def _without_proof(candidates: Floats, counts: tuple[tuple[int, int], ...]) -> tuple[float, int, int, float]:
    """The laxest threshold; nothing is promised."""
    accepted, errors = counts[-1]
    return float(candidates[-1]), accepted, errors, 1.0


def _quantiles(scores: Floats) -> tuple[float, ...]:
    finite = np.sort(scores[np.isfinite(scores)])
    return tuple(float(each) for each in np.quantile(finite, np.linspace(0, 1, _QUANTILES + 1), method="lower"))


def _choose_pixels(design: _Maps, spec: DenseSpec, promise: DensePromise) -> DenseSpec:
    """Temperature and largest entropy of a usable pixel."""
    temperature = float(min(_TEMPERATURES, key=lambda each: _likelihood(design, float(each))))
    most = float(np.log(design.logits.shape[1]))
    chosen = replace(spec, score="entropy", temperature=temperature, threshold=_ENTROPIES[0] * most)
    allowed = _DESIGN_RISK * promise.target_risk * len(design.logits)
    for share in _ENTROPIES:
        candidate = replace(chosen, threshold=share * most)
        if not _judge(design, candidate)[1].sum() <= allowed:
            break
        chosen = candidate
    return chosen


def _likelihood(maps: _Maps, temperature: float) -> float:
    """Mean negative log-likelihood of the labelled pixels."""
    known = maps.truth != IGNORED
    scaled = maps.logits / np.float32(temperature)
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    right = np.take_along_axis(scaled, np.where(known, maps.truth, 0)[:, None].astype(np.int64), axis=1)[:, 0]
    return float((np.log(np.exp(scaled).sum(axis=1)) - right)[known].mean())


def _judge(maps: _Maps, spec: DenseSpec) -> tuple[Floats, Flags]:
    """(N,) share of unusable pixels of each region, NaN where a logit is not finite; (N,) whether it is wrong."""
    scores, wrong = [], []
    for logits, truth in zip(maps.logits, maps.truth, strict=True):
        pixels = dense_scores(logits, spec.temperature, (spec.score,))
        usable = usable_pixels(pixels, spec.score, spec.threshold)
        known = usable & (truth != IGNORED)
        mistakes = np.count_nonzero(known & (pixels.labels != truth))
        finite = bool((pixels.labels >= 0).all())
        scores.append(1.0 - np.count_nonzero(usable) / usable.size if finite else np.nan)
        # Without a usable labelled pixel nothing is known to be right.
        wrong.append(not mistakes <= spec.wrong_share * np.count_nonzero(known) or not known.any())
    return np.array(scores), np.array(wrong)


def summary(spec: DenseSpec, records: Mapping[str, Calibration]) -> list[str]:
    """What was set and promised, for people."""
    lines = [
        f"a pixel is usable if its {spec.score} is at most {spec.threshold:.4f} (temperature {spec.temperature:.3f})"
    ]
    for key, each in records.items():
        needed = f"{key}: a region needs {1 - each.threshold:.1%} usable pixels"
        lines.append(f"{needed}; {spec.promise(each)}")
    return lines
