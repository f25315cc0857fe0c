"""The INT8 network whose decisions are nearest to the float32 network's.

Every way to its ranges is tried with only the worst layers in float32. If the best still moves the entropies too far,
more layers stay in float32, as long as most are quantised: a sensitive layer is usually small, and costs little time.

Judged are images that set no range. They may come from the half of the calibration split that sets the temperature:
the half that proves the threshold is never looked at here.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.export.data.outputs import CPU_BACKENDS, Images, Logits, backend_outputs
from framegate.export.graph import graph as onnx_graph
from framegate.export.int8.quantize import check_symmetric, to_int8
from framegate.export.int8.ranges import METHODS, collect
from framegate.export.int8.tuning import activation_ranges, layers_with_bias, with_corrected_biases, with_ranges
from framegate.export.progress import Progress
from framegate.runtime.errors import ExportRefusedError, UsageError
from framegate.runtime.preprocess import PreprocessSpec

FAMILIES = ("auto", "minmax", "percentile", "entropy")
"""What ``--int8-ranges`` takes; a family of several methods is chosen from like ``auto``."""
HELD_OUT = 1000
"""Images on which the candidates are compared, at most."""
FLOAT_LIMITS = (0.04, 0.01, 0.004)
"""Change of the logits, by their standard deviation, from which on a layer stays in float32: one after the other."""
LARGEST_FLOAT_SHARE = 0.5
"""Of all layers; beyond it the file would be no INT8 network any more."""
GOOD_DIFFERENCE = 0.015
"""Mean difference of the entropies, in nats, that is good enough. On CIFAR-10 it stands for a little more than 1 % of
differing verdicts (hybrid, each precision with its own threshold); what halves it costs the hybrid a quarter of its
speed."""
_BACKEND = CPU_BACKENDS[0]


@dataclass(frozen=True)
class Candidate:
    """One way to the ranges, beside the float32 network on the same engine.

    Attributes:
        method: One of `framegate.export.int8.ranges.METHODS`.
        float_layers: How many layers stay in float32.
        entropy_difference: Mean absolute difference of the softmax entropy in nats; infinite if an output is not
            finite.
        agreement: Share of images with the same label.
    """

    method: str
    float_layers: int
    entropy_difference: float
    agreement: float


@dataclass(frozen=True)
class Int8Choice:
    """The network, and what it was chosen from.

    Attributes:
        model: Symmetric INT8, as `framegate.export.int8.quantize.to_int8` makes it.
        chosen: What it scored.
        candidates: All that were compared.
        images: Held-out images on which they were compared.
        layers: Convolutions and linear layers in all.
        keep_float: Those in float32, the most sensitive first.
    """

    model: onnx.ModelProto
    chosen: Candidate
    candidates: tuple[Candidate, ...]
    images: int
    layers: int
    keep_float: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain record for the manifest's origin."""
        return {
            "int8_float_layers": list(self.keep_float),
            "int8_ranges": {
                "method": self.chosen.method,
                "held_out_images": self.images,
                "candidates": [asdict(candidate) for candidate in self.candidates],
            },
        }

    def summary(self) -> str:
        """One line for people."""
        return (
            f"INT8: ranges by {self.chosen.method}, {len(self.keep_float)} of {self.layers} layers in float32; on "
            f"{self.images} held-out images {self.chosen.agreement:.2%} have the label of fp32, entropies differ by "
            f"{self.chosen.entropy_difference:.4f} nats on average"
        )


def methods_of(family: str) -> tuple[str, ...]:
    """The methods that a value of ``--int8-ranges`` stands for.

    Raises:
        UsageError: There is no such family.
    """
    if family not in FAMILIES:
        raise UsageError(f"--int8-ranges {family}: expected one of {', '.join(FAMILIES)}")
    return tuple(method for method in METHODS if family in ("auto", method.split("-")[0]))


def layers_above(changes: Mapping[str, float], limit: float) -> list[str]:
    """The layers whose change is larger, or no number: the most sensitive first."""
    return sorted((name for name, change in changes.items() if not change <= limit), key=lambda name: -changes[name])


def choose_int8(
    model: onnx.ModelProto,
    images: Images,
    held_out: Images,
    spec: PreprocessSpec,
    changes: Mapping[str, float],
    family: str,
    progress: Progress,
) -> Int8Choice:
    """Quantise a float32 graph with every method of a family and keep the best.

    Args:
        model: The graph, its weights stored as float32.
        images: (N, h, w, 3) uint8 BGR from the training split; they set the ranges.
        held_out: More images, which set nothing; the first `HELD_OUT` are used.
        spec: How an image becomes the network's input.
        changes: Layer -> what quantising it alone does to the logits
            (`framegate.export.int8.sensitivity.logit_changes`).
        family: One of `FAMILIES`.
        progress: Called during the work.

    Raises:
        UsageError: There are no images, or a layer or the family does not exist.
        ExportRefusedError: No method gives finite outputs, or the result does not have the symmetric form.
        BackendError: The engine does not run the graph.
    """
    methods = methods_of(family)
    if len(held_out) == 0:
        raise UsageError("INT8: no held-out images given; the ways to the ranges are compared on some")
    judged = held_out[:HELD_OUT]
    tried: list[tuple[Candidate, onnx.ModelProto, list[str]]] = []
    with tempfile.TemporaryDirectory(prefix="framegate-int8-") as folder:
        expected = _logits(model, Path(folder) / "model.fp32.onnx", judged, spec, progress)
        for limit in FLOAT_LIMITS:
            keep_float = layers_above(changes, limit)
            if tried and (len(keep_float) > LARGEST_FLOAT_SHARE * len(changes) or keep_float == tried[-1][2]):
                continue
            for method, network in _quantised(model, images, spec, keep_float, methods, progress):
                logits = _logits(network, Path(folder) / f"model.{method}.onnx", judged, spec, progress)
                tried.append((_compare(method, len(keep_float), expected, logits), network, keep_float))
            best = min(tried, key=lambda one: (one[0].entropy_difference, -one[0].agreement))
            if best[0].entropy_difference <= GOOD_DIFFERENCE:
                break
            methods = (best[0].method,)  # more layers in float32 need no other ranges for the rest
    chosen, network, keep_float = best
    if not math.isfinite(chosen.entropy_difference):
        raise ExportRefusedError("INT8: the quantised network gives outputs that are NaN or infinite")
    check_symmetric(network)
    onnx.checker.check_model(network, full_check=True)
    candidates = tuple(candidate for candidate, _, _ in tried)
    return Int8Choice(network, chosen, candidates, len(judged), len(changes), tuple(keep_float))


def _quantised(
    model: onnx.ModelProto,
    images: Images,
    spec: PreprocessSpec,
    keep_float: Sequence[str],
    methods: Sequence[str],
    progress: Progress,
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The network with each method's ranges, and biases that make up for the rounding of the weights."""
    base = to_int8(model, images, spec, keep_float, progress)
    layer_inputs = sorted({layer.input[0] for layer in layers_with_bias(model)})
    statistics = collect(model, activation_ranges(base), layer_inputs, images, spec, progress)
    corrected = with_corrected_biases(base, model, statistics.means)
    for method in methods:
        yield method, with_ranges(corrected, {name: statistics.range_of(name, method) for name in statistics.largest})


def _logits(model: onnx.ModelProto, file: Path, images: Images, spec: PreprocessSpec, progress: Progress) -> Logits:
    """Run a network as the vehicle would."""
    onnx_graph.save(model, file)
    return backend_outputs(_BACKEND, file, spec, {"": images}, progress)[0][""].logits


def _compare(method: str, float_layers: int, expected: Logits, found: Logits) -> Candidate:
    if not np.isfinite(found).all():
        return Candidate(method, float_layers, math.inf, 0.0)
    first, second = softmax_scores(expected, 1.0), softmax_scores(found, 1.0)
    return Candidate(
        method,
        float_layers,
        float(np.mean(np.abs(first.entropy - second.entropy))),
        float(np.mean(first.argmax == second.argmax)),
    )
