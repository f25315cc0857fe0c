"""Every operator of the differentiable network beside ONNX Runtime, in the forms that exporters write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from framegate.export.graph.operators.table import OPERATORS
from framegate.runtime.errors import BundleError

IMAGE = (2, 4, 7, 8)
I64 = np.int64


def ints(*values: int) -> np.ndarray:
    return np.array(values, I64)


@dataclass(frozen=True)
class Case:
    """One form of an operator: its inputs are shapes (random numbers) or arrays; None leaves an input out."""

    op: str
    inputs: Sequence[Any] = (IMAGE,)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 18
    positive: bool = False
    outputs: int = 1

    def __str__(self) -> str:
        words = [f"{k}={v}" for k, v in self.attributes.items()]
        return "-".join([self.op, *words, *(str(len(self.inputs)) if len(self.inputs) > 1 else "",)]).strip("-")


def plain(*names: str, positive: bool = False, opset: int = 18) -> list[Case]:
    return [Case(name, positive=positive, opset=opset) for name in names]


def pools(op: str, **more: Any) -> list[Case]:
    forms: list[dict[str, Any]] = [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]},
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [2, 3], "strides": [1, 1], "auto_pad": "SAME_LOWER"},
        {"kernel_shape": [2, 2], "auto_pad": "VALID"},
    ]
    found = [Case(op, attributes={**form, **more}) for form in forms]
    found.append(Case(op, [(2, 3, 4, 6, 6)], {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2], **more}))
    return [*found, Case(op, [(2, 3, 9)], {"kernel_shape": [3], "strides": [2], "pads": [1, 1], **more})]


def reductions(*names: str) -> list[Case]:
    found = []
    for name in names:
        found += [
            Case(name, [IMAGE, ints(2, 3)], {"keepdims": 0}, positive=True),
            Case(name, [IMAGE, ints(-1)], positive=True),
            Case(name, positive=True),
            Case(name, [IMAGE], {"noop_with_empty_axes": 1}, positive=True),
        ]
    return found


CASES = [
    *plain("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Neg", "Round", "Sign", "Sin", "Tanh", "Relu", "Sigmoid"),
    *plain("HardSigmoid", "HardSwish", "Elu", "Selu", "Celu", "LeakyRelu", "Softplus", "Softsign", "ThresholdedRelu"),
    *plain("Mish", "Identity", "Softmax", "LogSoftmax", "GlobalAveragePool", "GlobalMaxPool", "Dropout"),
    *plain("Sqrt", "Log", "Reciprocal", positive=True),
    Case("Gelu", opset=20),
    Case("Gelu", attributes={"approximate": "tanh"}, opset=20),
    Case("Elu", attributes={"alpha": 0.3}),
    Case("HardSigmoid", attributes={"alpha": 1 / 6, "beta": 0.5}),
    Case("LeakyRelu", attributes={"alpha": 0.2}),
    Case("Softmax", attributes={"axis": 1}),
    *(Case(name, [IMAGE, IMAGE]) for name in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum")),
    *(Case(name, [IMAGE, (4, 1, 1)]) for name in ("Add", "Sub", "Mul", "Div", "PRelu")),
    Case("Pow", [IMAGE, np.array(2.0, np.float32)]),
    Case("Pow", [IMAGE, np.array(0.5, np.float32)], positive=True),
    Case("Sum", [IMAGE, IMAGE, (1,)]),
    Case("Clip", [IMAGE, np.array(0.0, np.float32), np.array(1.0, np.float32)]),
    Case("Clip", [IMAGE, None, np.array(0.5, np.float32)]),
    Case("Clip", [IMAGE, np.array(-0.5, np.float32)]),
    Case("Where", [np.arange(8) % 3 == 0, IMAGE, IMAGE]),
    *(Case(name, [IMAGE, IMAGE]) for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    *(Case(name, [np.arange(4) > 1, np.arange(4) % 2 == 0]) for name in ("And", "Or")),
    Case("Not", [np.arange(4) > 1]),
    Case("Cast", [ints(1, -2)], {"to": TensorProto.FLOAT}),
    Case("Cast", [(5,)], {"to": TensorProto.INT64}),
    Case("Div", [ints(7, -7, 9), ints(2)]),
    *reductions("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
    *reductions("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
    Case("ReduceMean", [IMAGE], {"axes": [2, 3]}, opset=13),
    Case("LpNormalization", attributes={"axis": 1, "p": 2}),
    Case("LpNormalization", attributes={"axis": 1, "p": 1}),
    # Layers.
    Case("Conv", [IMAGE, (6, 4, 3, 3), (6,)], {"pads": [1, 1, 1, 1]}),
    Case("Conv", [IMAGE, (6, 4, 3, 3)], {"strides": [2, 2], "pads": [0, 0, 1, 1]}),
    Case("Conv", [IMAGE, (4, 1, 3, 3), (4,)], {"group": 4, "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    Case("Conv", [IMAGE, (6, 4, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("Conv", [IMAGE, (6, 4, 2, 2)], {"auto_pad": "SAME_LOWER"}),
    Case("Conv", [IMAGE, (6, 4, 3, 3)], {"auto_pad": "VALID"}),
    Case("Conv", [IMAGE, (6, 4, 3, 3)], {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    Case("Conv", [(2, 3, 9), (5, 3, 3)], {"pads": [1, 1]}),
    Case("Conv", [(2, 3, 5, 6, 6), (4, 3, 3, 3, 3)], {"pads": [1] * 6}),
    Case("ConvTranspose", [IMAGE, (4, 3, 3, 3), (3,)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("ConvTranspose", [IMAGE, (4, 3, 3, 3), (3,)], {"strides": [2, 2], "pads": [1, 0, 0, 1], "output_padding": [1, 1]}),  # noqa: E501
    Case("ConvTranspose", [IMAGE, (4, 1, 2, 2)], {"strides": [2, 2], "group": 4}),
    *pools("MaxPool"),
    *pools("AveragePool"),
    *pools("AveragePool", count_include_pad=1),
    Case("MaxPool", attributes={"kernel_shape": [2, 2], "dilations": [2, 2]}),
    Case("Gemm", [(3, 5), (5, 4), (4,)]),
    Case("Gemm", [(3, 5), (4, 5), (4,)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", [(5, 3), (5, 4)], {"transA": 1}),
    Case("MatMul", [(2, 3, 4), (4, 5)]),
    Case("MatMul", [(2, 3, 4), (2, 4, 5)]),
    Case("Einsum", [(2, 3, 4), (2, 4, 5)], {"equation": "bij,bjk->bik"}),
    Case("BatchNormalization", [IMAGE, (4,), (4,), (4,), np.array([1.5, 0.5, 2, 1], np.float32)], {"epsilon": 1e-3}),
    Case("InstanceNormalization", [IMAGE, (4,), (4,)]),
    Case("LayerNormalization", [IMAGE, (8,), (8,)], {"axis": -1}),
    Case("LayerNormalization", [IMAGE, (7, 8)], {"axis": 2, "epsilon": 1e-3}),
    Case("LRN", attributes={"size": 3, "alpha": 0.1, "beta": 0.75, "bias": 1.0}),
    Case("LRN", attributes={"size": 5, "alpha": 0.1}),
    # Shapes.
    Case("Reshape", [IMAGE, ints(0, -1)]),
    Case("Reshape", [IMAGE, ints(2, 2, 2, -1)]),
    Case("Flatten"),
    Case("Flatten", attributes={"axis": 0}),
    Case("Flatten", attributes={"axis": -1}),
    Case("Squeeze", [(2, 3, 1, 1), ints(2, 3)]),
    Case("Squeeze", [(2, 3, 1, 1), ints(-1)]),
    Case("Squeeze", [(2, 3, 1, 1)]),
    Case("Unsqueeze", [(2, 3), ints(0, 3)]),
    Case("Unsqueeze", [(2, 3), ints(-1)]),
    Case("Transpose", attributes={"perm": [0, 2, 3, 1]}),
    Case("Transpose"),
    Case("Concat", [IMAGE, IMAGE, (2, 1, 7, 8)], {"axis": 1}),
    Case("Concat", [IMAGE, IMAGE], {"axis": -1}),
    Case("Split", [IMAGE, ints(1, 3)], {"axis": 1}, outputs=2),
    Case("Split", attributes={"axis": 1, "num_outputs": 2}, outputs=2),
    Case("Split", attributes={"axis": 2, "num_outputs": 3}, outputs=3),
    Case("Slice", [IMAGE, ints(0, 0), ints(7, 8), ints(2, 3), ints(2, 2)]),
    Case("Slice", [IMAGE, ints(1), ints(-1), ints(-1)]),
    Case("Slice", [IMAGE, ints(1, 1), ints(2, 99)]),
    Case("Slice", [IMAGE, ints(-1), ints(-(2**62)), ints(1), ints(-1)]),
    Case("Slice", [IMAGE, ints(6), ints(1), ints(3), ints(-2)]),
    Case("Gather", [IMAGE, np.array(1, I64)], {"axis": 1}),
    Case("Gather", [IMAGE, np.array([[0, -1]], I64)], {"axis": 2}),
    Case("GatherElements", [(3, 4), np.array([[0, 1, -1, 2]], I64)], {"axis": 0}),
    Case("Expand", [(1, 3, 1), ints(2, 1, 4)]),
    Case("Tile", [(2, 3), ints(2, 2)]),
    Case("Pad", [IMAGE, ints(0, 0, 1, 2, 0, 0, 3, 0)]),
    Case("Pad", [IMAGE, ints(0, 4, 0, 0, 0, 4, 0, 0), np.array(0.5, np.float32)]),
    Case("Pad", [IMAGE, ints(1, 2, 3, 1), None, ints(2, 3)]),
    Case("Pad", [IMAGE, ints(0, 0, -1, 0, 0, 0, 2, -1)]),
    *(Case("Pad", [IMAGE, ints(0, 0, 2, 1, 0, 0, 3, 2)], {"mode": mode}) for mode in ("reflect", "edge")),
    Case("Pad", [IMAGE, ints(0, 0, 2, 1, 0, 0, 3, 2)], {"mode": "wrap"}, opset=19),
    Case("DepthToSpace", attributes={"blocksize": 2}),
    Case("DepthToSpace", attributes={"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", [(2, 3, 4, 6)], {"blocksize": 2}),
    Case("Shape", [IMAGE]),
    Case("Shape", [IMAGE], {"start": 1, "end": -1}),
    Case("Size", [IMAGE]),
    Case("ConstantOfShape", [ints(2, 3)], {"value": numpy_helper.from_array(np.array([7], I64))}),
    Case("ConstantOfShape", [ints(2, 3)]),
    Case("Range", [np.array(1, I64), np.array(9, I64), np.array(3, I64)]),
    *(
        Case("Resize", [IMAGE, None, np.array([1, 1, *scales], np.float32)],
             {"mode": mode, "coordinate_transformation_mode": places})
        for mode in ("nearest", "linear", "cubic")
        for places in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
        for scales in ((2, 2), (0.6, 1.3))
    ),
    *(
        Case("Resize", [IMAGE, None, None, ints(2, 4, 14, 4)],
             {"mode": "nearest", "nearest_mode": rule, "coordinate_transformation_mode": "asymmetric"})
        for rule in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ),
    Case("Resize", [IMAGE, None, None, ints(9, 5)], {"mode": "linear", "axes": [2, 3]}),
]  # fmt: skip


def made(case: Case) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model of one node, and what goes in."""
    rng = np.random.default_rng(5)
    feeds, names = {}, []
    for k, each in enumerate(case.inputs):
        names.append("" if each is None else f"in{k}")
        if each is not None:
            value = each if isinstance(each, np.ndarray) else rng.normal(size=each).astype(np.float32)
            feeds[names[-1]] = (
                np.abs(value) + np.float32(0.1) if case.positive and not isinstance(each, np.ndarray) else value
            )
    node = helper.make_node(case.op, names, [f"out{k}" for k in range(case.outputs)], case.op, **case.attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in node.output],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model), feeds


def computed(model: onnx.ModelProto, feeds: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    node = model.graph.node[0]
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    found = OPERATORS[node.op_type](attributes, [feeds.get(name) for name in node.input])
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_computes_what_onnx_runtime_computes(case: Case) -> None:
    model, feeds = made(case)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    expected = session.run(None, feeds)
    found = computed(model, {name: torch.from_numpy(value) for name, value in feeds.items()})
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert tuple(ours.shape) == theirs.shape
        assert ours.numpy().dtype == theirs.dtype
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=2e-5)


def test_every_operator_has_a_case() -> None:
    assert {case.op for case in CASES} == set(OPERATORS)


_DIFFERENTIABLE = [
    case for case in CASES
    if not isinstance(case.inputs[0], np.ndarray)
    and case.op not in ("Cast", "Ceil", "Floor", "Round", "Sign", "Shape", "Size", "Equal", "Greater", "GreaterOrEqual",
                        "Less", "LessOrEqual")
]  # fmt: skip


@pytest.mark.parametrize("case", _DIFFERENTIABLE, ids=str)
def test_its_gradient_is_the_slope(case: Case) -> None:
    """Along one random direction, in double precision, where the function has no corner nearby."""
    model, feeds = made(case)
    values = {name: torch.from_numpy(value) for name, value in feeds.items()}
    values = {name: value.double() if value.is_floating_point() else value for name, value in values.items()}
    x = values["in0"].clone().requires_grad_(True)
    outputs = computed(model, {**values, "in0": x})
    weights = [torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1)) for y in outputs]

    def total(at: torch.Tensor) -> torch.Tensor:
        found = computed(model, {**values, "in0": at})
        return sum((y * w).sum() for y, w in zip(found, weights, strict=True))  # type: ignore[return-value]

    (gradient,) = torch.autograd.grad(total(x), x)
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    step = 1e-6
    with torch.no_grad():
        slope = (total(x + step * direction) - total(x - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            Case("Resize", [IMAGE, None, np.array([1, 1, 2, 2], np.float32)], {"mode": "linear", "antialias": 1}),
            "antialias",
        ),
        (Case("ConvTranspose", [IMAGE, (4, 3, 3, 3)], {"auto_pad": "SAME_UPPER"}), "auto_pad"),
        (Case("Cast", [(3,)], {"to": TensorProto.FLOAT16}), "FLOAT16"),
        (Case("LRN", attributes={"size": 2}), "LRN over 2 channels"),
    ],
    ids=str,
)
def test_a_form_that_is_not_known_is_named(case: Case, message: str) -> None:
    model, feeds = made(case)
    with pytest.raises(BundleError, match=message):
        computed(model, {name: torch.from_numpy(value) for name, value in feeds.items()})
