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
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
"""The first of them, on which the better ways to the ranges are compared with each other."""
GLANCED = 64
"""The first of them, on which all ways are."""
HOPEFUL = 1.5
"""A way that differs by so many times what is good enough on `RANKED` images is not looked at on all."""
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


class Int8Work:
    """What is computed once however often a choice is made: statistics, networks, comparisons.

    Args:
        model: The float32 graph, its weights stored as float32.
        images: (N, h, w, 3) uint8 BGR from the training split; they set the ranges.
        held_out: More images, which set nothing; the first `HELD_OUT` are used.
        spec: How an image becomes the network's input.
        progress: Called during the work.
        expected: Logits of the float32 network for the held-out images, from the engine that judges; None: they are
            computed.

    Raises:
        UsageError: There are no images.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        images: Images,
        held_out: Images,
        spec: PreprocessSpec,
        progress: Progress,
        expected: Logits | None = None,
    ) -> None:
        if len(held_out) == 0:
            raise UsageError("INT8: no held-out images given; the ways to the ranges are compared on some")
        self.images = min(len(held_out), HELD_OUT)
        self._quantiser = _Quantiser(model, images, spec, progress)
        self._judge = _Judge(model, held_out[: self.images], spec, progress, expected)
        self._found: dict[tuple[str, tuple[str, ...], int], Candidate] = {}

    @property
    def tried(self) -> tuple[Candidate, ...]:
        """All that were compared."""
        return tuple(self._found.values())

    def best(self, methods: Sequence[str], keep_float: Sequence[str], good: float) -> tuple[Candidate, onnx.ModelProto]:
        """The nearest of some methods.

        Many are compared on a few images, the best two on more, the best on all if it may be good enough.
        """
        some = min(RANKED, self.images)
        left = list(methods)
        for count in (GLANCED, some):
            if count <= some and len(left) > (2 if count < some else 1):
                left = sorted(left, key=lambda method: _order(self._candidate(method, keep_float, count)))
                left = left[:2] if count < some else left[:1]
        nearest = self._candidate(left[0], keep_float, some)
        if some < self.images and nearest.entropy_difference <= HOPEFUL * good:
            nearest = self._candidate(left[0], keep_float, self.images)
        return nearest, self._quantiser.network(left[0], keep_float)

    def fine_tuned(self, choice: Int8Choice, images: Images, steps: int) -> Int8Choice:
        """A choice after fine-tuning, or the choice itself where that is nearer to float32 on the held-out images.

        Args:
            choice: Of `choose_int8`, with this work.
            images: (N, h, w, 3) uint8 BGR from the training split.
            steps: See `framegate.export.int8.fine_tuning.fine_tuned`.

        Raises:
            UsageError: The graph cannot be fine-tuned.
        """
        network = self._quantiser.fine_tuned(choice.model, images, steps)
        before = self._judge.candidate(choice.chosen.method, choice.model, len(choice.keep_float), self.images)
        method = f"{choice.chosen.method}, fine-tuned in {steps} steps"
        after = self._judge.candidate(method, network, len(choice.keep_float), self.images)
        candidates = (*choice.candidates, before, after)
        if _order(after) >= _order(before):
            return replace(choice, candidates=candidates)
        return replace(choice, model=network, chosen=after, candidates=candidates, images=self.images)

    def _candidate(self, method: str, keep_float: Sequence[str], count: int) -> Candidate:
        key = method, tuple(keep_float), count
        if key not in self._found:
            network = self._quantiser.network(method, keep_float)
            self._found[key] = self._judge.candidate(method, network, len(keep_float), count)
        return self._found[key]


def choose_int8(
    model: onnx.ModelProto,
    images: Images,
    held_out: Images,
    spec: PreprocessSpec,
    sensitivity: FindsLayers,
    family: str,
    progress: Progress,
    good: float | None = None,
    work: Int8Work | None = None,
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
        work: Of an earlier choice for the same images, so that nothing is computed again.

    Raises:
        UsageError: There are no images, or a layer or the family does not exist.
        ExportRefusedError: No method gives finite outputs, or the result does not have the symmetric form.
        BackendError: The engine does not run the graph.
    """
    methods = methods_of(family)
    good = GOOD_DIFFERENCE if good is None else good
    work = Int8Work(model, images, held_out, spec, progress) if work is None else work
    best: tuple[Candidate, onnx.ModelProto, list[str]] | None = None
    last: list[str] | None = None
    for limit in (math.inf, *FLOAT_LIMITS):
        keep_float = [] if limit == math.inf else sensitivity.above(limit)
        if best is not None and (len(keep_float) > LARGEST_FLOAT_SHARE * len(sensitivity.layers) or keep_float == last):
            methods = (best[0].method,)
            continue
        last = keep_float
        found = work.best(methods, keep_float, good)
        if best is None or _order(found[0]) < _order(best[0]):
            best = (*found, keep_float)
        if best[0].entropy_difference <= good:
            break
        if limit < math.inf:
            methods = (best[0].method,)  # more layers in float32 need no other ranges for the rest
    assert best is not None
    chosen, network, keep_float = best
    if not math.isfinite(chosen.entropy_difference):
        raise ExportRefusedError("INT8: the quantised network gives outputs that are NaN or infinite")
    check_symmetric(network)
    onnx.checker.check_model(network, full_check=True)
    return Int8Choice(network, chosen, work.tried, chosen.images, len(sensitivity.layers), tuple(keep_float))


def _order(candidate: Candidate) -> tuple[float, float]:
    return candidate.entropy_difference, -candidate.agreement


class _Quantiser:
    """Makes INT8 networks of one float32 network from statistics that are collected once."""

    def __init__(self, model: onnx.ModelProto, images: Images, spec: PreprocessSpec, progress: Progress) -> None:
        self._model, self._images, self._spec, self._progress = model, images, spec, progress
        self._bases: dict[tuple[str, ...], tuple[onnx.ModelProto, set[str]]] = {}
        self._ranges: dict[tuple[str, str], float] = {}
        inputs = sorted({layer.input[0] for layer in layers_with_bias(model)})
        tensors = activation_ranges(to_int8(model, images[:1], spec, [], _unheard))
        self._statistics = collect(model, tensors, inputs, images, spec, progress)

    def _base(self, keep_float: Sequence[str]) -> tuple[onnx.ModelProto, set[str]]:
        """Where the pairs stand, with biases that make up for the rounding of the weights, and the pairs' tensors."""
        key = tuple(keep_float)
        if key not in self._bases:
            # The ranges of one image, which are replaced.
            base = to_int8(self._model, self._images[:1], self._spec, keep_float, _unheard)
            corrected = with_corrected_biases(base, self._model, self._statistics.means)
            self._bases[key] = corrected, set(activation_ranges(base))
        return self._bases[key]

    def network(self, method: str, keep_float: Sequence[str]) -> onnx.ModelProto:
        """The network with a method's ranges."""
        base, tensors = self._base(keep_float)
        return with_ranges(base, {name: self._range(name, method) for name in tensors})

    def fine_tuned(self, network: onnx.ModelProto, images: Images, steps: int) -> onnx.ModelProto:
        """A network of this one after fine-tuning."""
        # PyTorch takes a second to load, and most exports of ONNX files do without.
        from framegate.export.int8.fine_tuning import fine_tuned

        return fine_tuned(network, self._model, images, self._spec, steps, self._progress)

    def _range(self, tensor: str, method: str) -> float:
        key = tensor, method
        if key not in self._ranges:
            self._ranges[key] = self._statistics.range_of(tensor, method)
        return self._ranges[key]


def _unheard(text: str, done: int, total: int) -> None:
    """The progress of one image is none."""


class _Judge:
    """Compares INT8 networks with their float32 network, on the engine that runs them."""

    def __init__(
        self,
        model: onnx.ModelProto,
        images: Images,
        spec: PreprocessSpec,
        progress: Progress,
        expected: Logits | None,
    ) -> None:
        self._images, self._spec, self._whole = images, spec, progress
        few, some = min(GLANCED, len(images)), min(RANKED, len(images))
        self._before, self._planned = 0, len(METHODS) * few + 2 * some + len(images)
        self._expected = self._run(model, "fp32", len(images)) if expected is None else expected[: len(images)]

    def _run(self, model: onnx.ModelProto, name: str, count: int) -> Logits:
        with tempfile.TemporaryDirectory(prefix="framegate-int8-") as place:
            file = Path(place) / f"model.{name}.onnx"
            logits = _logits(model, file, self._images[:count], self._spec, self._progress)
        self._before += count
        return logits

    def _progress(self, _: str, done: int, total: int) -> None:
        """The comparisons as one stage of the work."""
        done += self._before
        self._whole("INT8: comparing ways to the ranges", done, max(done, self._planned))

    def candidate(self, method: str, network: onnx.ModelProto, float_layers: int, count: int) -> Candidate:
        """The network beside the float32 one on the first ``count`` images."""
        return _compare(method, float_layers, self._expected[:count], self._run(network, method, count))


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
