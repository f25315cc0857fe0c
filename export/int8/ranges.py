"""INT8 ranges of activations from histograms: largest magnitude, percentile, or least loss of information.

ONNX Runtime's own calibrators keep every activation of every image until the last one has run (14 GB for 512 images of
the hybrid at 96x96) and run the network anew for every method. Here magnitudes are counted once, and every method and
every choice of layers reads the same counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, shape_inference

from framegate.export.data.outputs import Images
from framegate.export.graph.graph import INPUT, copy_of
from framegate.export.graph.session import cpu_session
from framegate.export.progress import Progress
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

METHODS = ("minmax", "percentile-99.9", "percentile-99.99", "percentile-99.999", "entropy")
"""Every way to a range; of all magnitudes, a percentile leaves the rest beyond it to be clipped."""
BINS = 4096
LEVELS = 128
"""Magnitudes that a symmetric INT8 can tell apart."""
SAMPLED = 16_384
"""Values of a tensor that are counted of each image, about."""
_REPORTED = 32
_STEP = 16  # bins between two ranges that the entropy method tries


@dataclass(frozen=True)
class ActivationStatistics:
    """What one pass over real images found.

    Attributes:
        largest: Tensor -> upper end of its histogram, the range of the min-max method.
        magnitudes: Tensor -> (BINS,) counts of |x| over [0, largest].
        means: Tensor -> (channels,) mean of every channel over images and positions.
    """

    largest: Mapping[str, float]
    magnitudes: Mapping[str, Counts]
    means: Mapping[str, Floats]

    def range_of(self, tensor: str, method: str) -> float:
        """The magnitude that becomes 127, positive.

        Args:
            tensor: One of `magnitudes`.
            method: One of `METHODS`.
        """
        counts, largest = self.magnitudes[tensor], self.largest[tensor]
        if method == "minmax" or not counts[1:].any():  # nothing but zeros tells nothing
            return largest
        if method == "entropy":
            return largest * entropy_bins(counts) / len(counts)
        return largest * percentile_bins(counts, float(method.removeprefix("percentile-"))) / len(counts)


def collect(
    model: onnx.ModelProto,
    tensors: Collection[str],
    layer_inputs: Sequence[str],
    images: Images,
    spec: PreprocessSpec,
    progress: Progress,
) -> ActivationStatistics:
    """Run the float network twice over real images: for the largest magnitudes and the means, then for the counts.

    Of a large tensor about `SAMPLED` values of each image are counted, others of the next image; its largest magnitude
    and its means are those of all values.

    Args:
        model: The network in float32, input ``image``.
        tensors: Whose magnitudes are wanted.
        layer_inputs: Tensors whose channel means are wanted, (N, channels, ...).
        images: (N, h, w, 3) uint8 BGR from the training split.
        spec: How an image becomes the network's input.
        progress: Called during the work.
    """
    largest, means = _extremes(model, sorted(tensors), sorted(set(layer_inputs)), images, spec, progress)
    session, names = _with_outputs(model, sorted(set(tensors) - {INPUT}))
    magnitudes = {name: np.zeros(BINS, np.int64) for name in tensors}
    preprocess = Preprocessor(spec)
    for k, image in enumerate(images):
        tensor = preprocess(image)
        values = dict(zip(names, session.run(names, {INPUT: tensor}), strict=True)) if names else {}
        values[INPUT] = tensor
        for name, top in largest.items():
            flat = values[name].ravel()
            step = max(1, flat.size // SAMPLED) | 1  # odd, so that it is not a width
            some = np.abs(flat[k % step :: step])
            bins = np.minimum((some * np.float32(BINS / top)).astype(np.int32), BINS - 1)
            magnitudes[name] += np.bincount(bins, minlength=BINS)
        if (k + 1) % _REPORTED == 0 or k + 1 == len(images):
            progress("INT8 activation histograms", k + 1, len(images))
    return ActivationStatistics(largest, magnitudes, means)


def _extremes(
    model: onnx.ModelProto,
    tensors: list[str],
    layer_inputs: list[str],
    images: Images,
    spec: PreprocessSpec,
    progress: Progress,
) -> tuple[dict[str, float], dict[str, Floats]]:
    """The largest magnitude of some tensors, positive, and the channel means of others, computed by the network."""
    graph = copy_of(model)
    ranks = _ranks(model)
    outputs = []
    for k, name in enumerate(tensors):
        graph.graph.node.append(helper.make_node("Abs", [name], [f"magnitude.{k}"]))
        graph.graph.node.append(helper.make_node("ReduceMax", [f"magnitude.{k}"], [f"largest.{k}"], keepdims=0))
        outputs.append(f"largest.{k}")
    for k, name in enumerate(layer_inputs):
        at = name
        if ranks.get(name, 0) > 2:
            at = f"mean.{k}"
            graph.graph.node.append(helper.make_node("GlobalAveragePool", [name], [at]))
        outputs.append(at)
    session, _ = _with_outputs(graph, sorted(set(outputs) - {INPUT}))
    wanted = list(dict.fromkeys(name for name in outputs if name != INPUT))
    top = dict.fromkeys(tensors, 0.0)
    sums: dict[str, Floats] = {}
    preprocess = Preprocessor(spec)
    for number, image in enumerate(images):
        tensor = preprocess(image)
        values = dict(zip(wanted, session.run(wanted, {INPUT: tensor}), strict=True)) if wanted else {}
        values[INPUT] = tensor
        found = [values[name] for name in outputs]
        for name, value in zip(tensors, found, strict=False):
            top[name] = max(top[name], float(value))
        for name, value in zip(layer_inputs, found[len(tensors) :], strict=True):
            mean = value.mean(axis=(0, *range(2, value.ndim)), dtype=np.float64)
            sums[name] = sums.get(name, 0.0) + mean
        if (number + 1) % _REPORTED == 0 or number + 1 == len(images):
            progress("INT8 activation ranges", number + 1, len(images))
    smallest = float(np.finfo(np.float32).tiny) * BINS
    return (
        {name: max(value, smallest) for name, value in top.items()},
        {name: total / len(images) for name, total in sums.items()},
    )


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Number of axes of each tensor whose shape is known."""
    graph = shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input]
    return {value.name: len(value.type.tensor_type.shape.dim) for value in values}


def percentile_bins(counts: Counts, percentile: float) -> int:
    """How many bins, from zero on, hold this percentage of all values."""
    reached = np.cumsum(counts) >= percentile / 100 * counts.sum()
    return int(np.argmax(reached)) + 1


def entropy_bins(counts: Counts) -> int:
    """How many bins, from zero on, lose least information in `LEVELS` steps (Kullback-Leibler divergence).

    After Migacz, "8-bit inference with TensorRT", GTC 2017: the values inside, those beyond counted in the last bin,
    are compared with the same values merged into steps and spread evenly over the bins that were not empty.
    """
    inside = counts.astype(np.float64)
    inside[0] = inside[1]  # exact zeros, half of all values behind a ReLU, are exact in INT8, too
    beyond = inside.sum() - np.cumsum(inside)
    best, least = len(inside), np.inf
    for end in range(LEVELS, len(inside) + 1, _STEP):
        expected = inside[:end].copy()
        filled = expected > 0
        step = np.arange(end) * LEVELS // end
        sums = np.bincount(step, expected, minlength=LEVELS)
        bins = np.bincount(step, filled, minlength=LEVELS)
        found = np.where(filled, sums[step] / np.maximum(bins[step], 1), 0.0)
        expected[-1] += beyond[end - 1]
        if not found.any():
            continue
        p, q = expected / expected.sum(), found / found.sum()
        some = p > 0
        divergence = float(np.sum(p[some] * np.log(p[some] / np.maximum(q[some], 1e-12))))
        if divergence < least:
            best, least = end, divergence
    return best


def _with_outputs(model: onnx.ModelProto, tensors: list[str]) -> tuple[ort.InferenceSession, list[str]]:
    """A session that gives these tensors, too."""
    graph = copy_of(model)
    known = {value.name for value in graph.graph.output}
    for name in tensors:
        if name not in known:
            graph.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return cpu_session(graph), tensors
