"""From a frame to the verdict's numbers about one region of a dense network's output."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from framegate.runtime.backends.base import Backend, infer
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import SCORES, UNUSABLE
from framegate.runtime.bundle.known_answers import summary
from framegate.runtime.dense.pixels import DenseScores, dense_scores, scores_of_maps, usable_pixels
from framegate.runtime.dense.spec import DenseSpec
from framegate.runtime.engine_check import EngineCheck, some_of
from framegate.runtime.errors import BackendError, BundleError
from framegate.runtime.preprocess import Preprocessor
from framegate.runtime.scorer import Scored
from framegate.runtime.scores import FrameScores, Tensor, not_finite
from framegate.runtime.stage_clock import SCORES as SCORING
from framegate.runtime.stage_clock import StageClock
from framegate.runtime.verdict import DenseRegion, Image

_WARM_UP = 3
_SAMPLED = 997


class DenseScorer(EngineCheck):
    """Runs a dense network on whole frames. It looks to `framegate.runtime.frame_judge` as a `Scorer` does.

    Args:
        bundle: A dense one.
        backend: A loaded engine. One on a GPU scores the pixels itself (`Backend.maps`).
        precision: Which model of the bundle runs, for messages.

    Attributes:
        backend: The engine.
        preprocessor: Turns frames into its input.
        spec: What the bundle says.
        wrong: What was wrong with the engine's last known answer; empty while nothing is wrong.
        probabilities: There is none for each class of a region; setting it changes nothing.
        takes_nv12: False.

    Raises:
        BackendError: The engine does not give the bundle's known answers, or gives no map.
        BundleError: Labels and logits do not fit.
    """

    takes_nv12 = False

    def __init__(self, bundle: Bundle, backend: Backend, precision: str) -> None:
        assert bundle.dense is not None
        super().__init__(bundle, backend, precision)
        self.spec: DenseSpec = DenseSpec.from_json(bundle.dense)
        self.temperature = self.spec.temperature
        self.preprocessor = Preprocessor(bundle.preprocess)
        self.probabilities = False
        self._labels = bundle.labels
        self._sample = some_of(self.preprocessor.tensor, _SAMPLED)
        self._shown = b""
        backend.bind_dense(self.preprocessor.tensor, self.temperature)
        if backend.classes != len(bundle.labels):
            raise BundleError(f"bundle {bundle.path}: {len(bundle.labels)} labels, but {backend.classes} logits")
        for _ in range(_WARM_UP):
            self._require_map(infer(backend))
        self._require_known_answers(precision)

    @property
    def computes_beside(self) -> bool:
        """See `Scorer.computes_beside`: only a GPU does."""
        return self.backend.takes_frames

    def start(self, image: Image, pixel_format: str) -> None:
        """Resize and normalise a whole frame, and start the engine on it.

        Args:
            image: Its pixels, usable (`framegate.runtime.health.check.unusable`).
            pixel_format: BGR.

        Raises:
            BackendError: The engine failed. It may raise anything else, too.
        """
        del pixel_format
        if self.wrong:
            raise BackendError(f"{self.backend.engine}: {self.wrong}")
        self.preprocessor(image)
        self._shown = self._sample.tobytes()
        began = time.perf_counter_ns()
        self.backend.start(None)
        self._started_ns = time.perf_counter_ns() - began

    def _answer_to(self, image: Image) -> tuple[Tensor, bytes, bytes]:
        """See `EngineCheck`; the logits are the means of their maps."""
        self.preprocessor(image)
        logits = infer(self.backend)
        self._require_map(logits)
        return summary(logits[0]), self._sample.tobytes(), self._sampled(logits)

    def _sampled(self, logits: Tensor) -> bytes:
        return some_of(logits, _SAMPLED).tobytes()

    def finish(self, stages: StageClock | None = None) -> Scored:
        """Wait for the engine, score every pixel, and count those of the region.

        Args:
            stages: Learns how long the wait and the scores took.

        Raises:
            BackendError: The engine failed. It may raise anything else, too.
        """
        logits, engine_ns = self._waited(stages)
        self._require_map(logits)
        answer = self._sampled(logits)
        if self._new.is_old(self._shown, answer):
            self._require_computed(self.preprocessor.tensor, answer)
            self._new.remember(self._shown, answer)
        maps = self.backend.maps
        pixels = None if maps is None else scores_of_maps(logits[0], *maps)
        scored = judge_region(logits[0], self.spec, self._labels, pixels)._replace(engine_ns=engine_ns)
        if stages is not None:
            stages.mark(SCORING)
        return scored

    def _require_map(self, logits: Tensor) -> None:
        classes = len(self._labels)
        if logits.ndim != 4 or logits.shape[:2] != (1, classes) or logits.dtype != np.float32:
            raise BackendError(
                f"{self.backend.engine} gave {logits.dtype} logits of shape {logits.shape}, expected float32 "
                f"(1, {classes}, rows, columns)"
            )


def judge_region(logits: Tensor, spec: DenseSpec, labels: tuple[str, ...], pixels: DenseScores | None = None) -> Scored:
    """What the map of logits of one frame says about the bundle's region.

    One pixel of the region whose logits are not finite makes the region's scores not finite: from a network it is a
    fault.

    Args:
        logits: (C, H, W) float32.
        spec: Which pixels are usable, and which region.
        labels: One per class.
        pixels: The scores of every pixel, if the engine computed them; None computes them here.
    """
    height, width = logits.shape[1:]
    box = spec.roi.pixels(width, height)
    if box is None:
        raise BackendError(f"the region {spec.region!r} lies outside of the network's map of {width}x{height}")
    scores = dense_scores(logits, spec.temperature, SCORES) if pixels is None else pixels
    mask = usable_pixels(scores, spec.score, spec.threshold)
    left, top, columns, rows = box
    inside = np.s_[top : top + rows, left : left + columns]
    usable, found = mask[inside], scores.labels[inside]
    counted = np.bincount(found[usable], minlength=len(labels)) / usable.size
    shown = scores.labels.view()
    for given in (mask, shown):  # a display that paints into them would change what `Prediction.pixels` says
        given.setflags(write=False)
    region = DenseRegion(
        usable_share=float(np.count_nonzero(usable) / usable.size),
        shares={name: float(share) for name, share in zip(labels, counted, strict=True) if share},
        box=box,
        mask=mask,
        candidates=shown,
    )
    return Scored(_means(scores, inside, counted), {UNUSABLE: 1.0 - region.usable_share}, 0, dense=region)


def _means(scores: DenseScores, inside: tuple[slice, slice], counted: npt.NDArray[np.float64]) -> FrameScores:
    """The label that most usable pixels of the region have, and the means of its pixels' scores."""
    labels = scores.labels[inside]
    if (labels < 0).any():
        return not_finite()
    mean = {name: float(scores.maps[name][inside].mean()) for name in SCORES}
    most = counted.argmax() if counted.any() else np.bincount(labels.reshape(-1)).argmax()
    return FrameScores(int(most), 1.0 - mean["max_probability"], mean["entropy"], 1.0 - mean["margin"], mean["energy"])
