"""The INT8 network whose decisions are nearest to the float32 network's.

Every way to its ranges is tried with all layers quantised. If the best still moves the entropies too far, the layers
that do most of it are looked for and stay in float32, then more of them, as long as most are quantised: a sensitive
layer is usually small, and costs little time.

Judged are images that set no range. They may come from the half of the calibration split that sets the temperature:
the half that proves the threshold is never looked at here.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

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
"""Images on which the best candidate is compared with float32, at most."""
RANKED = 256
"""The first of them, on which the ways to the ranges are compared with each other."""
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
        images: Held-out images that were looked at.
    """

    method: str
    float_layers: int
    entropy_difference: float
    agreement: float
    images: int


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


class FindsLayers(Protocol):
    """`framegate.export.int8.sensitivity.LayerSensitivity`, or what stands for it in a test."""

    @property
    def layers(self) -> Sequence[str]:
        """All that could stay in float32."""

    def above(self, limit: float) -> list[str]:
        """Those that change the logits by more, the most sensitive first."""


def choose_int8(
    model: onnx.ModelProto,
    images: Images,
    held_out: Images,
    spec: PreprocessSpec,
    sensitivity: FindsLayers,
    family: str,
    progress: Progress,
    good: float | None = None,
) -> Int8Choice:
    """Quantise a float32 graph with every method of a family and keep the best.

    Args:
        model: The graph, its weights stored as float32.
        images: (N, h, w, 3) uint8 BGR from the training split; they set the ranges.
        held_out: More images, which set nothing; the first `HELD_OUT` are used.
        spec: How an image becomes the network's input.
        sensitivity: Finds the layers that INT8 would spoil; asked only if quantising all of them is not good enough.
        family: One of `FAMILIES`.
        progress: Called during the work.
        good: Mean difference of the entropies that is good enough; None: `GOOD_DIFFERENCE`.

    Raises:
        UsageError: There are no images, or a layer or the family does not exist.
        ExportRefusedError: No method gives finite outputs, or the result does not have the symmetric form.
        BackendError: The engine does not run the graph.
    """
    methods = methods_of(family)
    if len(held_out) == 0:
        raise UsageError("INT8: no held-out images given; the ways to the ranges are compared on some")
    judged = held_out[:HELD_OUT]
    quantiser = _Quantiser(model, images, spec, progress)
    tried: list[Candidate] = []
    best: tuple[Candidate, onnx.ModelProto, list[str]] | None = None
    with tempfile.TemporaryDirectory(prefix="framegate-int8-") as place:
        judge = _Judge(model, Path(place), judged, spec, progress)
        last: list[str] | None = None
        for limit in (math.inf, *FLOAT_LIMITS):
            keep_float = [] if limit == math.inf else sensitivity.above(limit)
            if best is not None and (
                len(keep_float) > LARGEST_FLOAT_SHARE * len(sensitivity.layers) or keep_float == last
            ):
                methods = (best[0].method,)
                continue
            last = keep_float
            found = judge.best(list(quantiser.networks(keep_float, methods)), len(keep_float), tried)
            if best is None or _order(found[0]) < _order(best[0]):
                best = (*found, keep_float)
            if best[0].entropy_difference <= (GOOD_DIFFERENCE if good is None else good):
                break
            if limit < math.inf:
                methods = (best[0].method,)  # more layers in float32 need no other ranges for the rest
    assert best is not None
    chosen, network, keep_float = best
    if not math.isfinite(chosen.entropy_difference):
        raise ExportRefusedError("INT8: the quantised network gives outputs that are NaN or infinite")
    check_symmetric(network)
    onnx.checker.check_model(network, full_check=True)
    return Int8Choice(network, chosen, tuple(tried), len(judged), len(sensitivity.layers), tuple(keep_float))


def _order(candidate: Candidate) -> tuple[float, float]:
    return candidate.entropy_difference, -candidate.agreement


class _Quantiser:
    """Makes INT8 networks of one float32 network from statistics that are collected once."""

    def __init__(self, model: onnx.ModelProto, images: Images, spec: PreprocessSpec, progress: Progress) -> None:
        self._model, self._images, self._spec = model, images, spec
        self._inputs = sorted({layer.input[0] for layer in layers_with_bias(model)})
        tensors = activation_ranges(self._base([]))
        self._statistics = collect(model, tensors, self._inputs, images, spec, progress)

    def _base(self, keep_float: Sequence[str]) -> onnx.ModelProto:
        """Where the pairs stand; the ranges of one image, which are replaced."""
        return to_int8(self._model, self._images[:1], self._spec, keep_float, lambda text, done, total: None)

    def networks(self, keep_float: Sequence[str], methods: Sequence[str]) -> Iterator[tuple[str, onnx.ModelProto]]:
        """The network with each method's ranges, and biases that make up for the rounding of the weights."""
        base = self._base(keep_float)
        corrected = with_corrected_biases(base, self._model, self._statistics.means)
        for method in methods:
            ranges = {name: self._statistics.range_of(name, method) for name in activation_ranges(base)}
            yield method, with_ranges(corrected, ranges)


class _Judge:
    """Compares INT8 networks with their float32 network, on the engine that runs them."""

    def __init__(
        self, model: onnx.ModelProto, folder: Path, images: Images, spec: PreprocessSpec, progress: Progress
    ) -> None:
        self._folder, self._images, self._spec, self._whole = folder, images, spec, progress
        self._before, self._planned = 0, 2 * len(images) + len(METHODS) * min(RANKED, len(images))
        self._expected = _logits(model, folder / "model.fp32.onnx", images, spec, self._progress)
        self._before = len(images)

    def _progress(self, _: str, done: int, total: int) -> None:
        """The comparisons as one stage of the work."""
        done += self._before
        self._whole("INT8: comparing ways to the ranges", done, max(done, self._planned))

    def best(
        self, networks: list[tuple[str, onnx.ModelProto]], float_layers: int, tried: list[Candidate]
    ) -> tuple[Candidate, onnx.ModelProto]:
        """The nearest on a part of the images, compared on all of them; every comparison joins ``tried``."""
        some = min(RANKED, len(self._images)) if len(networks) > 1 else len(self._images)
        found = []
        for method, network in networks:
            found.append((self._candidate(method, network, float_layers, some), network))
            tried.append(found[-1][0])
        nearest, network = min(found, key=lambda each: _order(each[0]))
        if some < len(self._images):
            nearest = self._candidate(nearest.method, network, float_layers, len(self._images))
            tried.append(nearest)
        return nearest, network

    def _candidate(self, method: str, network: onnx.ModelProto, float_layers: int, count: int) -> Candidate:
        file = self._folder / f"model.{method}.onnx"
        logits = _logits(network, file, self._images[:count], self._spec, self._progress)
        self._before += count
        return _compare(method, float_layers, self._expected[:count], logits)


def _logits(model: onnx.ModelProto, file: Path, images: Images, spec: PreprocessSpec, progress: Progress) -> Logits:
    """Run a network as the vehicle would."""
    onnx_graph.save(model, file)
    return backend_outputs(_BACKEND, file, spec, {"": images}, progress)[0][""].logits


def _compare(method: str, float_layers: int, expected: Logits, found: Logits) -> Candidate:
    if not np.isfinite(found).all():
        return Candidate(method, float_layers, math.inf, 0.0, len(found))
    first, second = softmax_scores(expected, 1.0), softmax_scores(found, 1.0)
    return Candidate(
        method,
        float_layers,
        float(np.mean(np.abs(first.entropy - second.entropy))),
        float(np.mean(first.argmax == second.argmax)),
        len(found),
    )
