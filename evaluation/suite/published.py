"""The published per-batch protocols, run on this network: only to stand, labelled, beside the figures per frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framegate.evaluation.attacks.linf import run_linf
from framegate.evaluation.metrics.metrics import detection
from framegate.evaluation.metrics.ranking import Floats
from framegate.evaluation.suite.batchwise import (
    PAPER_BATCH,
    PROTOTYPE_BATCH,
    BatchEntropy,
    BatchRule,
    PrototypeRule,
    detection_accuracy,
)
from framegate.evaluation.suite.observe import BATCH
from framegate.evaluation.suite.plan import RESEARCH_EPSILON, attack_key
from framegate.evaluation.suite.run import ATTACK_BATCH, Suite
from framegate.models.labelled import LabelledImages
from framegate.models.pixels import to_pixels

PAPER_EPSILON = 0.2
"""The paper's radius, 51/255."""
UNITS = {"frame": 1, f"batch {PAPER_BATCH}": PAPER_BATCH, f"batch {PROTOTYPE_BATCH}": PROTOTYPE_BATCH}
_PROTOCOL = "entropy of 30 equal bins up to the batch's largest activation, least FPR + FNR on calibration batches"
_LOGITS = "logits"


class BatchProtocols:
    """Runs the paper's detection and the prototype's rejection of whole batches.

    Args:
        suite: Whose network, frames, plan and store are used.
    """

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.layer = suite.network.taps[0] if suite.network.taps else ""

    def detection(self) -> list[dict[str, Any]]:
        """FGSM found by the first layer's entropy, decided per frame, per batch of 16 and per batch of 128.

        Frames of one batch are all clean or all attacked. Thresholds come from calibration frames under the same
        attack, so this flatters the protocol. A unit with fewer than two batches of a kind is left out.
        """
        rows: list[dict[str, Any]] = []
        if not self.layer or not self.suite.plan.fgsm:
            return rows
        for epsilon in sorted({self.suite.plan.epsilon, PAPER_EPSILON}):
            settings = self.suite.plan.fgsm_settings(epsilon)
            key = attack_key(settings)
            found = self.suite.store.record(f"batches-{key}", partial(self._entropies_under_fgsm, epsilon))
            rows += self._rows(key, {name: np.array(values, np.float64) for name, values in found.items()})
        return rows

    def _rows(self, key: str, entropies: Mapping[str, Floats]) -> Iterator[dict[str, Any]]:
        for unit in UNITS:
            fit = [entropies[f"calibration {kind} {unit}"] for kind in ("clean", "attacked")]
            clean, attacked = (entropies[f"test {kind} {unit}"] for kind in ("clean", "attacked"))
            if min(len(values) for values in (*fit, clean)) < 2:
                continue
            decided = detection_accuracy(BatchRule.fit(*fit), clean, attacked)
            detected = detection(
                clean, attacked, paired=True, resamples=self.suite.plan.bootstrap, seed=self.suite.seed
            )
            yield {
                "protocol": _PROTOCOL,
                "layer": self.layer,
                "attack": key,
                "unit": unit,
                "auroc": detected.auroc.to_json(),
                "detection_accuracy": decided.accuracy.to_json(),
                "false_positive_rate": decided.false_positive_rate.to_json(),
                "false_negative_rate": decided.false_negative_rate.to_json(),
                "decisions": len(clean) + len(attacked),
            }

    def _entropies_under_fgsm(self, epsilon: float) -> dict[str, list[float]]:
        suite = self.suite
        found: dict[str, list[float]] = {}
        index = suite.chosen(suite.plan.fgsm)
        for split, images, labels in (
            ("calibration", *_first(suite.frames.calibration, suite.plan.fgsm)),
            ("test", suite.frames.test.images[index], suite.frames.test.labels[index]),
        ):
            pixels = to_pixels(images, suite.frames.depth)
            settings = suite.plan.fgsm_settings(epsilon)
            attacked = run_linf(
                settings, suite.network, pixels, torch.from_numpy(labels), batch=ATTACK_BATCH, seed=suite.seed,
                progress=suite.progress,
            ).pixels  # fmt: skip
            for kind, frames in (("clean", pixels), ("attacked", attacked)):
                histograms = {unit: BatchEntropy(batch) for unit, batch in UNITS.items()}
                self._feed(frames, [(self.layer, histogram) for histogram in histograms.values()])
                for unit, histogram in histograms.items():
                    found[f"{split} {kind} {unit}"] = histogram.finish().tolist()
        return found

    @torch.no_grad()
    def _feed(self, pixels: Tensor, wanted: Sequence[tuple[str, BatchEntropy]]) -> None:
        """Push frames through the network once and feed each histogram with its layer."""
        for k in range(0, len(pixels), BATCH):
            logits, _, activations = self.suite.network.observe(pixels[k : k + BATCH])
            for layer, histogram in wanted:
                histogram.feed(logits if layer == _LOGITS else activations[layer])
            self.suite.progress("entropy of whole batches", min(k + BATCH, len(pixels)), len(pixels))

    def selection(self) -> list[dict[str, Any]]:
        """The prototype's rule on clean frames and under FGSM and PGD at the research's radius.

        Two layers as published: the first convolution and the output. Needs two validation batches of 128.
        """
        suite, plan = self.suite, self.suite.plan
        if not self.layer or len(suite.frames.calibration) < 2 * PROTOTYPE_BATCH:
            return []
        layers = (self.layer, _LOGITS)
        validation = self._recorded(
            "batches-validation", lambda: to_pixels(suite.frames.calibration.images, suite.frames.depth), layers, False
        )
        rule = PrototypeRule.fit(validation)
        rows = []
        for key, wrong, pixels in (
            ("clean", suite.clean().wrong, lambda: suite.attacked(len(suite.clean()))[0]),
            *self._attacks((plan.fgsm_settings(RESEARCH_EPSILON), plan.fgsm)),
            *self._attacks((plan.pgd_settings(RESEARCH_EPSILON), plan.pgd)),
        ):
            chosen = rule.select(self._recorded(f"batches-rule-{key}", pixels, layers, True), wrong)
            rows.append(
                {
                    "input": key,
                    "batches": chosen.batches,
                    "flagged": dict(chosen.flagged),
                    "coverage": chosen.coverage.to_json(),
                    "accuracy_accepted": chosen.accuracy_accepted.to_json(),
                    "accuracy": chosen.accuracy.to_json(),
                }
            )
        return rows

    def _attacks(self, *wanted: tuple[Any, int]) -> Iterator[tuple[str, Any, Any]]:
        for settings, count in wanted:
            if count:
                key, seen = self.suite.linf(settings, count)
                yield key, seen.wrong, partial(self.suite.linf_pixels, settings, count)

    def _recorded(self, name: str, pixels: Any, layers: tuple[str, ...], keep_last: bool) -> dict[str, Floats]:
        def make() -> dict[str, list[float]]:
            histograms = {layer: BatchEntropy(PROTOTYPE_BATCH) for layer in layers}
            self._feed(pixels(), list(histograms.items()))
            return {layer: histogram.finish(keep_last).tolist() for layer, histogram in histograms.items()}

        return {layer: np.array(values, np.float64) for layer, values in self.suite.store.record(name, make).items()}


def _first(split: LabelledImages, count: int) -> tuple[Any, Any]:
    return split.images[:count], split.labels[:count]
