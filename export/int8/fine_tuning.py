"""Quantisation-aware fine-tuning: the INT8 weights that answer most like the float32 network.

Rounding each weight to the nearest step is best for that weight, not for the network. Here the quantised graph itself
is run in PyTorch, with gradients that pass the rounding unchanged (straight-through, Bengio et al. 2013,
arXiv:1308.3432), and its weights and biases are moved until its logits are those of the float32 network (Jacob et al.
2018, arXiv:1712.05877; the float32 network as a teacher, Hinton et al. 2015, arXiv:1503.02531). Ranges, and where the
network is quantised, stay as they are.

It needs no labels. The teacher is sure of its training images, and of such answers there is little to learn, so most
images are blends of two (Zhang et al. 2018, arXiv:1710.09412).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from framegate.export.data.outputs import Images
from framegate.export.foreign_errors import first_line
from framegate.export.graph.graph import INPUT, copy_of
from framegate.export.graph.operators.base import Attributes, Operator, numbers
from framegate.export.graph.operators.table import OPERATORS
from framegate.export.int8.tuning import LARGEST_LEVEL
from framegate.export.progress import Progress
from framegate.runtime.errors import BundleError, UsageError
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

BATCH = 32
STEP_SIZE = 0.002
"""How far one update moves a weight at most, about, in steps of its quantisation; it falls to 0 along a cosine."""
BLENDED = 0.7
"""Share of the images that are blends of two."""
LOGIT_WEIGHT = 0.1
"""Of the squared difference of the logits, beside the Kullback-Leibler divergence of the answers."""
_LOGITS = "logits"

Values = dict[str, Tensor]


class _Rounded(torch.autograd.Function):
    """Symmetric INT8 and back; the gradient passes where nothing was clipped."""

    @staticmethod
    def forward(ctx, value: Tensor, step: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        level = torch.round(value / step)
        ctx.save_for_backward((level >= -LARGEST_LEVEL - 1) & (level <= LARGEST_LEVEL))
        return level.clamp(-LARGEST_LEVEL - 1, LARGEST_LEVEL) * step

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        (within,) = ctx.saved_tensors
        return gradient * within, None


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _quantised(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    level: Tensor = _Rounded.apply(inputs[0], inputs[1])  # type: ignore[no-untyped-call]
    return level


def _dequantised(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    value: Tensor = inputs[0]  # float here all the time, on the steps that INT8 has
    return value


def _reshaped(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    # Of a graph that is written for one image and run here for many the first axis stays what it is.
    value: Tensor = inputs[0]
    shape = numbers(inputs[1])
    one_by_one = len(shape) > 1 and shape[0] == 1
    found: Tensor = OPERATORS["Reshape"](
        attributes, [value, torch.tensor([len(value), *shape[1:]]) if one_by_one else inputs[1]]
    )
    return found


_OPERATORS: Mapping[str, Operator] = {
    **OPERATORS,
    "QuantizeLinear": _quantised,
    "DequantizeLinear": _dequantised,
    "Reshape": _reshaped,
}


class GradedGraph(nn.Module):
    """An ONNX graph that PyTorch runs, in float32 or quantised by `framegate.export.int8.quantize.to_int8`.

    Args:
        model: The graph: input ``image``, output ``logits``.
        floats: Weights before they were quantised, by name; from these the INT8 weights begin. Empty: from what they
            are.

    Raises:
        UsageError: It has an operator that is not known here.
    """

    def __init__(self, model: onnx.ModelProto, floats: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self._nodes = _needed(model)
        self._attributes = [_attributes(node) for node in self._nodes]
        unknown = {node.op_type for node in self._nodes} - set(_OPERATORS)
        if unknown:
            raise UsageError(
                f"fine-tuning: operator {sorted(unknown)[0]} has no gradient here; leave the fine-tuning out"
            )
        self._constants = {
            item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in model.graph.initializer
        }
        self.weights: dict[str, tuple[nn.Parameter, Tensor]] = {}
        """INT8 initializer -> its weights in steps of the quantisation, and the step."""
        self.biases: dict[str, tuple[nn.Parameter, float]] = {}
        """Bias of a quantised layer -> it, in units of the number beside it: of the layer's mean step."""
        of = {}
        for node in self._nodes:
            if node.op_type == "DequantizeLinear" and node.input[0] in self._constants:
                weight, step = self._weight(node, floats or {})
                self.weights[node.input[0]] = nn.Parameter(weight), step
                of[node.output[0]] = float(step.mean())
        for node in self._nodes:
            if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 and node.input[1] in of:
                unit = of[node.input[1]]
                self.biases[node.input[2]] = nn.Parameter(self._constants[node.input[2]] / unit), unit

    def _weight(self, node: onnx.NodeProto, floats: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        stored, step = self._constants[node.input[0]].float(), self._constants[node.input[1]]
        if step.dim():
            shape = [1] * stored.dim()
            shape[_attributes(node).get("axis", 1)] = -1
            step = step.reshape(shape)
        before = floats.get(node.input[0].removesuffix("_quantized"))
        return (stored if before is None else before / step), step

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, height, width) -> (N, classes) logits."""
        values: Values = {INPUT: image}
        one = torch.ones(())
        for name, (weight, step) in self.weights.items():
            within = weight.clamp(-LARGEST_LEVEL, LARGEST_LEVEL)  # weights are symmetric, activations need not be
            values[name] = _Rounded.apply(within, one) * step  # type: ignore[no-untyped-call]
        for name, (bias, unit) in self.biases.items():
            values[name] = bias * unit
        for node, attributes in zip(self._nodes, self._attributes, strict=True):
            inputs = [values[name] if name in values else self._constants.get(name) for name in node.input]
            try:
                found = _OPERATORS[node.op_type](attributes, inputs)
            except (BundleError, RuntimeError, IndexError, ValueError, TypeError, KeyError) as error:
                raise UsageError(
                    f"fine-tuning: {node.op_type} {node.name!r} cannot be computed here ({first_line(error)}); leave "
                    "the fine-tuning out"
                ) from error
            values.update(zip(node.output, found if isinstance(found, tuple) else (found,), strict=False))
        return values[_LOGITS]

    def written_into(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of the quantised graph with these weights and biases."""
        result = copy_of(model)
        constants = {item.name: item for item in result.graph.initializer}
        for name, (weight, _) in self.weights.items():
            levels = weight.detach().round().clamp(-LARGEST_LEVEL, LARGEST_LEVEL).to(torch.int8)
            constants[name].CopyFrom(numpy_helper.from_array(levels.numpy(), name))
        for name, (bias, unit) in self.biases.items():
            constants[name].CopyFrom(numpy_helper.from_array((bias.detach() * unit).numpy(), name))
        return result


def _needed(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that the logits are computed with, in the order of the graph."""
    wanted, found = {_LOGITS}, []
    for node in reversed(model.graph.node):
        if wanted & set(node.output):
            found.append(node)
            wanted |= set(node.input)
    return found[::-1]


def check_tunable(model: onnx.ModelProto, spec: PreprocessSpec, steps: int) -> None:
    """Refuse before the long work what `fine_tuned` cannot do.

    Args:
        model: The network in float32.
        spec: How an image becomes its input.
        steps: Updates.

    Raises:
        UsageError: The graph has an operator without a gradient here, the network takes volumes, or ``steps`` is less
            than 1.
    """
    if steps < 1:
        raise UsageError(f"fine-tuning: {steps} steps given, expected at least 1")
    if spec.depth > 1:
        raise UsageError("fine-tuning: the network takes volumes; leave the fine-tuning out")
    side = torch.zeros((2, 1 if spec.colour == "grey" else 3, spec.height, spec.width))
    with torch.no_grad():
        GradedGraph(model)(side)  # what an operator's attributes forbid is found when it is run


def fine_tuned(
    quantised: onnx.ModelProto,
    model: onnx.ModelProto,
    images: Images,
    spec: PreprocessSpec,
    steps: int,
    progress: Progress,
    seed: int = 0,
) -> onnx.ModelProto:
    """A quantised graph whose weights and biases were moved until it answers like its float32 network.

    Args:
        quantised: Of `framegate.export.int8.choice.choose_int8`.
        model: The network in float32, its weights stored as float32.
        images: (N, h, w, 3) uint8 BGR from the training split; labels are not needed.
        spec: How an image becomes the network's input.
        steps: Updates, at least 1, of `BATCH` images each.
        progress: Called after every update.
        seed: Of the draw of images.

    Raises:
        UsageError: See `check_tunable`.
    """
    check_tunable(model, spec, steps)
    floats = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in model.graph.initializer}
    teacher, student = GradedGraph(model).requires_grad_(False), GradedGraph(quantised, floats)
    parameters = [each for each, _ in (*student.weights.values(), *student.biases.values())]
    optimizer = torch.optim.Adam(parameters, STEP_SIZE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 0.5 * (1 + math.cos(math.pi * done / steps)))
    preprocess, rng = Preprocessor(spec), np.random.default_rng(seed)
    for step in range(steps):
        batch = _batch(images, preprocess, rng)
        with torch.no_grad():
            expected = teacher(batch)
        found = student(batch)
        loss = F.kl_div(
            found.log_softmax(1), expected.log_softmax(1), log_target=True, reduction="batchmean"
        ) + LOGIT_WEIGHT * F.mse_loss(found, expected)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        progress("INT8: fine-tuning", step + 1, steps)
    return student.written_into(quantised)


def _batch(images: Images, preprocess: Preprocessor, rng: np.random.Generator) -> Tensor:
    """Random images, half of them mirrored, most of them blended with another one."""
    chosen = rng.choice(len(images), min(BATCH, len(images)), replace=False)
    mirrored = rng.random(len(chosen)) < 0.5
    tensors = np.concatenate(
        [preprocess(np.ascontiguousarray(images[k][:, ::-1]) if m else images[k]).copy()
         for k, m in zip(chosen, mirrored, strict=True)]
    )  # fmt: skip
    share = (rng.random(len(chosen)) * (rng.random(len(chosen)) < BLENDED))[:, None, None, None].astype(np.float32)
    return torch.from_numpy(tensors * (1 - share) + tensors[rng.permutation(len(chosen))] * share)
