"""A detector bundle as giver of regions.

Its manifest has an entry ``detector``: the head, how a frame is fitted into the input, the smallest score of a box and
the overlap above which the less sure of two boxes of one class is dropped. A detector that was calibrated on labelled
boxes has a threshold, too: a box whose score is above it is found and followed, and rejected with HIGH_SCORE.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from framegate.runtime.backends.raw_outputs import RawNetwork, open_raw
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.engine_check import NewAnswers, some_of
from framegate.runtime.errors import BackendError, BundleError
from framegate.runtime.policy.rules import judge_score
from framegate.runtime.preprocess import Preprocessor
from framegate.runtime.regions.base import Box, Found
from framegate.runtime.regions.box_scores import box_scores
from framegate.runtime.regions.fit import FITS, Fit
from framegate.runtime.regions.heads import Decoded, head_named
from framegate.runtime.verdict import NO_FINDINGS, Findings, Frame

_MOST = 300
"""Boxes that a detector gives at most on a frame, after suppression."""
_CANDIDATES = 5_000
_FARTHEST = 1e6
"""Pixels from the origin beyond which a box does not reach where boxes are compared."""
_SAMPLED = 997


@dataclass(frozen=True)
class DetectorSpec:
    """What a bundle says about its detector.

    Attributes:
        head: Name of the head, of `framegate.runtime.regions.heads.HEADS`.
        fit: One of `framegate.runtime.regions.fit.FITS`.
        score: The smallest score of a box, in (0, 1).
        overlap: The largest intersection over union of two boxes of one class, in (0, 1].
        labelled: Objects on the labelled images that it was calibrated with; 0 without a calibration.
        missed: Those of them that it did not find.
    """

    head: str
    fit: str
    score: float
    overlap: float
    labelled: int = 0
    missed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            BundleError: One is unknown or out of range.
        """
        head_named(self.head)
        if self.fit not in FITS:
            raise BundleError(f"detector fit is {self.fit!r}; this version knows {', '.join(FITS)}")
        for name, value in (("score", self.score), ("overlap", self.overlap)):
            if not (math.isfinite(value) and 0 < value <= 1):
                raise BundleError(f"detector {name} is {value}; expected a number in (0, 1]")
        if not 0 <= self.missed <= self.labelled:
            raise BundleError(f"detector missed is {self.missed} of {self.labelled} labelled objects")

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> DetectorSpec:
        """Read the ``detector`` entry of a manifest.

        Raises:
            BundleError: Something is missing or unknown.
        """
        try:
            head, fit, score, overlap = (record[name] for name in ("head", "fit", "score", "overlap"))
            counts = int(record.get("labelled", 0)), int(record.get("missed", 0))
            return cls(str(head), str(fit), float(score), float(overlap), *counts)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"manifest detector section is not usable: {error!r}") from error

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        counted = asdict(self)
        return counted if self.labelled else {k: v for k, v in counted.items() if k not in ("labelled", "missed")}

    def describe(self) -> str:
        """What it missed on labelled images, in one sentence; empty if that was not counted."""
        if not self.labelled:
            return ""
        return f"missed {self.missed} of {self.labelled} labelled objects, which no promise covers"


class DetectorRegions:
    """Runs a detector on every frame. See `framegate.runtime.regions.base.RegionGiver`.

    Args:
        bundle: A detector bundle.
        backend: ``auto``, ``openvino`` or ``onnxruntime``.
        threads: CPU threads; None leaves it to the engine.

    Attributes:
        engine: Library and version.
        labels: What it calls objects.
        identity: Name and digest of the bundle: which detector a promise is about.
        calibration: Its threshold on this engine; None: its boxes are judged by the classifier alone.

    Raises:
        BundleError: It is a bundle of something else.
        BackendError: The engine cannot load it.
    """

    def __init__(self, bundle: Bundle, backend: str = "auto", threads: int | None = None) -> None:
        if bundle.detector is None:
            raise BundleError(
                f"bundle {bundle.path}: it holds a classifier; objects are found by a detector bundle, which "
                "`framegate export --kind detector` writes"
            )
        self.name = bundle.name
        self.identity = f"{bundle.name} ({bundle.digest[:16]})"
        self.labels = bundle.labels
        self._spec = DetectorSpec.from_json(bundle.detector)
        self._head = head_named(self._spec.head)
        size = bundle.preprocess
        self._fit = Fit(self._spec.fit, size.width, size.height, size.resize)
        self._preprocess = Preprocessor(size)
        with bundle.loaded("fp32") as model:
            self._network: RawNetwork = open_raw(model, self._preprocess.tensor, backend, threads)
        self.engine = self._network.engine
        self.calibration = bundle.calibration(self.engine.partition(" ")[0], "fp32")
        shapes = {name: values.shape for name, values in self._network.run().items()}
        if not self._head.fits(shapes, len(self.labels), size.width, size.height):
            raise BundleError(f"bundle {bundle.path}: its outputs {shapes} are not those of the head {self._head.name}")
        self._input = size.width, size.height
        self._sample = some_of(self._preprocess.tensor, _SAMPLED)
        self._new = NewAnswers(f"the detector {bundle.name}")

    @classmethod
    def open(cls, path: str | Path, trust: str | Path | None = None) -> DetectorRegions:
        """Open a bundle by its path or name.

        Args:
            path: See `Bundle.open`.
            trust: The same.

        Raises:
            FramegateError: See the class, and `Bundle.open`.
        """
        return cls(Bundle.open(path, trust))

    def find(self, frame: Frame) -> Found:
        """See `RegionGiver.find`.

        Raises:
            BackendError: The engine failed, gave numbers that are not finite, or the answer to an earlier frame.
        """
        width, height = self._input
        self._preprocess(self._fit(frame.image))
        outputs = self._network.run()
        self._require_new_answer(outputs)
        decoded = self._head.decode(outputs, len(self.labels), width, height)
        kept = strongest(decoded, self._spec.score, self._spec.overlap if self._head.suppress else 1.0)
        corners = self._fit.back(decoded.corners[kept[0]])
        found = box_scores(decoded.scores[kept[0]], decoded.exclusive)
        boxes = []
        for k, ((x, y, right, bottom), label, score) in enumerate(zip(corners, kept[1], kept[2], strict=True)):
            scores = {name: float(values[k]) for name, values in found.items()}
            place = float(x), float(y), float(right - x), float(bottom - y)
            against = self._against(scores, int(label))
            boxes.append(Box(*place, self.labels[label], float(score), scores=scores, against=against))
        return Found(tuple(boxes))

    def _against(self, scores: Mapping[str, float], label: int) -> Findings:
        """What its own threshold says about a box: the rules of every calibration."""
        if self.calibration is None:
            return NO_FINDINGS
        name, threshold = self.calibration.score, self.calibration.threshold_of(label)
        value = scores[name]
        why = f"the detector's {name} is {value:.4g}, calibrated at most {threshold:.4g}"
        found = judge_score(value, math.isfinite(value), self.calibration, label)
        return dict.fromkeys(found, why) if found else NO_FINDINGS

    def close(self) -> None:
        """Nothing is held open."""

    def _require_new_answer(self, outputs: Mapping[str, Any]) -> None:
        for name, values in outputs.items():
            if not np.isfinite(values).all():
                raise BackendError(f"output {name} of the detector {self.name} is not finite")
        answer = b"".join(some_of(values, _SAMPLED).tobytes() for values in outputs.values())
        self._new.require(self._sample.tobytes(), answer)


def strongest(
    decoded: Decoded, score: float, overlap: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Which boxes stay, surest first: their numbers, labels and scores.

    Args:
        decoded: Of one frame.
        score: The smallest score, of the best class of a box.
        overlap: Of two boxes of one class whose intersection over union is larger, the less sure one goes; 1: none.
    """
    labels = decoded.scores.argmax(axis=1)
    best = decoded.scores[np.arange(len(labels)), labels]
    numbers = np.flatnonzero(best >= score)
    numbers = numbers[np.argsort(-best[numbers], kind="stable")[:_CANDIDATES]]
    if overlap < 1 and len(numbers):
        # OpenCV shifts the boxes of each class by the largest edge of all, so that one that is huge or infinite would
        # make all others fall into one; and one with a negative area would suppress what is smaller. What is no box
        # suppresses nothing and stays, to be counted as one without a verdict.
        corners = decoded.corners[numbers].clip(-_FARTHEST, _FARTHEST)
        boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        real = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
        compared = (boxes[real].tolist(), best[numbers[real]].tolist(), labels[numbers[real]].tolist())
        kept = np.flatnonzero(real)[np.asarray(cv2.dnn.NMSBoxesBatched(*compared, 0.0, overlap), np.int64).reshape(-1)]
        numbers = numbers[np.sort(np.concatenate([kept, np.flatnonzero(~real)]))]
    numbers = numbers[:_MOST]
    return numbers, labels[numbers], best[numbers]
