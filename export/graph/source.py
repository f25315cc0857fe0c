"""Reads an ONNX classifier from elsewhere, and refuses one that cannot be used with a sentence that says why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, external_data_helper, inliner

from framegate.export.foreign_errors import first_line
from framegate.runtime.errors import DataError, ExportRefusedError, UsageError

_STANDARD = ("", "ai.onnx")
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
              "ConvInteger", "MatMulInteger")  # fmt: skip
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
_CONTROL_FLOW = ("If", "Loop", "Scan")


@dataclass(frozen=True)
class ImageInput:
    """The input of a classifier.

    Attributes:
        name: Name of the tensor.
        layout: ``nchw`` or ``nhwc``.
        channels: 1 or 3.
        width: In pixels; None if the graph leaves it open.
        height: In pixels; None if the graph leaves it open.
    """

    name: str
    layout: str
    channels: int
    width: int | None
    height: int | None


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read a file, with its weights and without model-local functions.

    Raises:
        DataError: The file or its weights are missing, or it is no complete ONNX model.
        ExportRefusedError: It holds an operator that is not of the ONNX standard, or is quantised already.
    """
    if not path.is_file():
        raise DataError(f"model {path}: {'a folder, expected a file' if path.exists() else 'no such file'}")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # damaged files make the parser raise exceptions of many classes
        raise DataError(f"model {path}: not an ONNX file, or cut off ({first_line(error)})") from error
    if not model.graph.node or not model.opset_import:
        raise DataError(f"model {path}: not an ONNX file, or cut off (it holds no network)")
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # a missing file, a wrong length, a path that leads out of the folder
        raise DataError(f"model {path}: its weights lie in another file ({first_line(error)}); copy both") from error
    if model.functions:
        model = inliner.inline_local_functions(model)
    check_operators(model, path)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # the checker's own classes, and those of damaged protobufs
        raise DataError(f"model {path}: damaged or not valid ONNX ({first_line(error)})") from error
    return model


def operators(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, those inside of branches and loops too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from operators(inner)


def check_operators(model: onnx.ModelProto, path: Path) -> None:
    """Refuse what TensorRT, OpenVINO and ONNX Runtime do not share.

    Raises:
        ExportRefusedError: Names the operator.
    """
    version = opset(model)
    for node in operators(model.graph):
        kind = node.op_type
        if node.domain not in _STANDARD:
            raise ExportRefusedError(
                f"model {path}: operator {node.domain}::{kind} ({node.name or node.output[0]!r}) is not of the ONNX "
                "standard; export the model again with standard operators only"
            )
        if not onnx.defs.has(kind, version, ""):
            raise ExportRefusedError(
                f"model {path}: operator {kind} ({node.name or node.output[0]!r}) is unknown in ONNX operator set "
                f"{version}; export the model again, e.g. with operator set 18"
            )
        if kind in _RANDOM:
            raise ExportRefusedError(
                f"model {path}: operator {kind} ({node.name or node.output[0]!r}) gives another answer each time, of "
                "which nothing can be promised; export the model again in evaluation mode"
            )
        if kind in _QUANTISED:
            raise ExportRefusedError(
                f"model {path}: it is quantised already (operator {kind}); give the float32 model, framegate "
                "quantises it itself"
            )


def check_control_flow(model: onnx.ModelProto, path: Path) -> None:
    """Refuse branches and loops that are left after simplification.

    Raises:
        ExportRefusedError: Names the operator.
    """
    for node in model.graph.node:
        if node.op_type in _CONTROL_FLOW:
            raise ExportRefusedError(
                f"model {path}: operator {node.op_type} ({node.name or node.output[0]!r}) decides at run time what is "
                "computed; export the model in evaluation mode and with a fixed input size"
            )


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard operator set; 0 if the model names none."""
    return next((entry.version for entry in model.opset_import if entry.domain in _STANDARD), 0)


def dimensions(value: onnx.ValueInfoProto) -> list[int | None]:
    """The shape of a tensor; None for a dimension that is left open."""
    return [dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim]


def find_input(model: onnx.ModelProto, path: Path, layout: str | None) -> ImageInput:
    """The one image that goes in.

    Args:
        model: From `read_onnx`.
        path: For messages.
        layout: ``nchw`` or ``nhwc`` if the user said so; None finds out where that is possible.

    Raises:
        ExportRefusedError: It is not one float32 image of one or three channels.
        UsageError: The layout was given wrongly, or has to be given.
    """
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise ExportRefusedError(f"model {path}: {len(inputs)} inputs ({names}); expected one, the image")
    value = inputs[0]
    _require_float(value, path, "input")
    shape = dimensions(value)
    shown = "x".join("?" if dim is None else str(dim) for dim in shape)
    if len(shape) != 4:
        raise ExportRefusedError(
            f"model {path}: input {value.name!r} is {shown or 'a scalar'}; expected four dimensions, batch x channels "
            "x height x width (NCHW) or batch x height x width x channels (NHWC)"
        )
    fitting = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if shape[axis] in (1, 3)]
    if layout is None:
        if len(fitting) != 1:
            raise UsageError(
                f"model {path}: input {value.name!r} is {shown}, which does not say where the colour channels are; "
                "give --layout nchw or --layout nhwc"
            )
        layout = fitting[0]
    axis = 1 if layout == "nchw" else 3
    channels = shape[axis] if shape[axis] is not None else 3
    if channels not in (1, 3):
        raise UsageError(
            f"model {path}: input {value.name!r} is {shown}; as {layout.upper()} it would have {channels} colour "
            f"channels, expected 1 or 3{f'; give --layout {fitting[0]}' if fitting else ''}"
        )
    height, width = (shape[2], shape[3]) if layout == "nchw" else (shape[1], shape[2])
    return ImageInput(value.name, layout, channels, width, height)


def says_layout(model: onnx.ModelProto) -> bool:
    """False if the shape of the input leaves open which axis the colour channels are.

    True, too, if the input cannot be used at all; `find_input` says why.
    """
    weights = {initializer.name for initializer in model.graph.initializer}
    shapes = [dimensions(value) for value in model.graph.input if value.name not in weights]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        return True
    return sum(shapes[0][axis] in (1, 3) for axis in (1, 3)) == 1


def find_output(model: onnx.ModelProto, path: Path, name: str | None) -> onnx.ValueInfoProto:
    """The scores of the classes.

    Args:
        model: From `read_onnx`.
        path: For messages.
        name: The output to take; None if there is only one.

    Raises:
        ExportRefusedError: It is not one float32 row of scores.
        UsageError: There is no output of this name, or it has to be named.
    """
    names = [value.name for value in model.graph.output]
    if name is None and len(names) != 1:
        raise UsageError(f"model {path}: {len(names)} outputs; give --output-name, one of {', '.join(names)}")
    if name is not None and name not in names:
        raise UsageError(f"model {path}: output {name!r} was asked for, it has {', '.join(names)}")
    value: onnx.ValueInfoProto = next(value for value in model.graph.output if name in (None, value.name))
    _require_float(value, path, "output")
    shape = dimensions(value)
    if value.type.tensor_type.HasField("shape") and len([dim for dim in shape[1:] if dim != 1]) > 1:
        shown = "x".join("?" if dim is None else str(dim) for dim in shape)
        raise ExportRefusedError(
            f"model {path}: output {value.name!r} is {shown}; expected one row of scores, batch x classes. Detectors "
            "and segmentation networks are no classifiers"
        )
    return value


def _require_float(value: onnx.ValueInfoProto, path: Path, what: str) -> None:
    kind = value.type.tensor_type.elem_type
    if not value.type.HasField("tensor_type") or kind != TensorProto.FLOAT:
        found = TensorProto.DataType.Name(kind) if value.type.HasField("tensor_type") else "no tensor"
        raise ExportRefusedError(
            f"model {path}: {what} {value.name!r} is {found}; expected float32"
            + (" scores of the classes" if what == "output" else "")
            + ". Export the model again without what converts it"
        )
