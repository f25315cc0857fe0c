"""An ONNX classifier from elsewhere in a bundle's form: image NCHW in, logits out, batch open, no leftovers.

The result is checked: the prepared network is run beside the original, on real images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from framegate.export.foreign_errors import first_line
from framegate.export.graph.graph import INPUT, IR_VERSION, OPSET, OUTPUT, copy_of, strip
from framegate.export.graph.session import cpu_session, quiet_options
from framegate.export.graph.source import (
    ImageInput,
    check_control_flow,
    dimensions,
    find_input,
    find_output,
    operators,
    opset,
    read_onnx,
)
from framegate.runtime.errors import ExportRefusedError

Floats = npt.NDArray[np.float32]

_HIGHEST_OPSET = 20
"""TensorRT 10.3 reads operator sets up to 20."""
_LOWEST_OPSET = 13
"""Per-channel quantisation begins with 13."""
_SHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_NO_OPERATIONS = ("Identity", "Dropout", "Cast")
_SOFTMAX = ("Softmax", "LogSoftmax")
_YES_OR_NO = ("Sigmoid", "HardSigmoid")
_TWO_LOGITS = (
    "framegate needs a logit for each label: export the model again with two, for example "
    "torch.cat([torch.zeros_like(z), z], 1) of the z in front of the Sigmoid, and give two labels, 'no' first"
)
_TOLERANCE = 1e-3
"""Largest allowed difference between original and prepared outputs, as a share of the largest output."""


@dataclass(frozen=True)
class Prepared:
    """A network ready for a bundle, and the original to compare with.

    Attributes:
        model: Input ``image`` (batch or 1, channels, height, width) float32, output ``logits`` (.., classes).
        original: The file as it came.
        image: Its input.
        output: Name of its output.
        removed: The operator that turned logits into probabilities: ``Softmax``, ``LogSoftmax`` or nothing.
        classes: Number of logits.
        fixed_batch: True if the graph only takes one image at a time.
    """

    model: onnx.ModelProto
    original: onnx.ModelProto
    image: ImageInput
    output: str
    removed: str
    classes: int
    fixed_batch: bool


def prepare(path: Path, width: int, height: int, layout: str | None = None, output_name: str | None = None) -> Prepared:
    """Read a classifier and bring it into a bundle's form.

    Args:
        path: The file.
        width: Input width in pixels.
        height: Input height in pixels.
        layout: ``nchw`` or ``nhwc``; None finds out.
        output_name: Which output holds the classes; None if there is only one.

    Raises:
        DataError: The file is missing or damaged.
        UsageError: An option does not fit the file.
        ExportRefusedError: The network cannot be used; the message names the operator.
    """
    original = read_onnx(path)
    image, output = find_input(original, path, layout), find_output(original, path, output_name)
    model = _pinned(original, path)
    model = _without_name_clashes(model, {image.name, output.name})
    del model.graph.value_info[:]
    kept = next(value for value in model.graph.output if value.name == output.name)
    del model.graph.output[:]
    model.graph.output.append(kept)
    removed, shaped = _cut_tail(model, path)
    batch_of_file = dimensions_of_batch(original, image)
    _name_input(model, image, width, height)
    _name_output(model, flatten=shaped or len(dimensions(output)) != 2)
    example = np.random.default_rng(0).normal(size=(3, image.channels, height, width)).astype(np.float32)
    for batch in ("batch", 1):
        try:
            candidate = _finish(model, batch, path, batch_of_file)
            session = cpu_session(candidate)
            rows = _run(session, INPUT, example if batch == "batch" else example[:1])
            if batch == "batch" and not _close(rows[2:], _run(session, INPUT, example[2:])):
                continue  # what is computed for an image depends on the others: only one at a time is safe
        except ExportRefusedError:
            if batch == 1 and batch_of_file > 1:
                raise ExportRefusedError(
                    f"model {path}: the file takes {batch_of_file} images at a time, and its graph holds that number "
                    "fast; export the model again for one image, or with an open batch axis (torch.onnx.export: "
                    "dynamic_axes or dynamic_shapes)"
                ) from None
            if batch == 1:
                raise
            continue
        images = 1 if batch == 1 else len(example)
        if rows.shape == (images, 1):
            raise ExportRefusedError(f"model {path}: it has one output, a yes-or-no answer; {_TWO_LOGITS}")
        if rows.ndim != 2 or rows.shape[1] < 2 or len(rows) != images:
            raise ExportRefusedError(
                f"model {path}: output {output.name!r} is {'x'.join(map(str, rows.shape))} for one image; expected a "
                "row of at least two scores, one per class"
            )
        del candidate.graph.output[:]
        candidate.graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [batch, rows.shape[1]]))
        return Prepared(candidate, original, image, output.name, removed, rows.shape[1], batch == 1)
    raise AssertionError("a batch of one either works or raises")  # pragma: no cover


def check_same_function(prepared: Prepared, tensors: Floats, path: Path) -> None:
    """Compare the prepared network with the original, image by image.

    Args:
        prepared: From `prepare`.
        tensors: (N, channels, height, width), real images.
        path: For messages.

    Raises:
        ExportRefusedError: They differ, or the original gives probabilities although no Softmax could be removed.
    """
    expected = original_outputs(prepared, tensors, path)
    session = cpu_session(prepared.model)
    found = np.concatenate([_run(session, INPUT, row[None]) for row in tensors])
    if not np.isfinite(expected).all():
        raise ExportRefusedError(f"model {path}: it computes NaN or infinities on real images; its weights are damaged")
    if prepared.removed:
        logs = found - np.log(np.exp(found - found.max(1, keepdims=True)).sum(1, keepdims=True))
        logs -= found.max(1, keepdims=True)
        found = logs if prepared.removed == "LogSoftmax" else np.exp(logs)
    elif expected.min() >= 0 and np.abs(expected.sum(1) - 1).max() < 1e-3:
        last = prepared.model.graph.node[-1].op_type
        raise ExportRefusedError(
            f"model {path}: its outputs are probabilities, but it ends in {last}, not in Softmax, so logits cannot be "
            "recovered; export the model again without its last activation"
        )
    if not _close(found, expected):
        step = f" (removing {prepared.removed})" if prepared.removed else ""
        difference = np.abs(found - expected).max()
        raise ExportRefusedError(
            f"model {path}: the prepared network{step} differs from the original by {difference:.2g}; "
            "export the model again with operator set 18, with logits as outputs"
        )


def original_outputs(prepared: Prepared, tensors: Floats, path: Path) -> Floats:
    """What the file as it came computes: (N, classes), logits or probabilities.

    Args:
        prepared: From `prepare`.
        tensors: (N, channels, height, width).
        path: For messages.

    Raises:
        ExportRefusedError: ONNX Runtime does not run it.
    """
    inputs = tensors if prepared.image.layout == "nchw" else np.ascontiguousarray(tensors.transpose(0, 2, 3, 1))
    count = dimensions_of_batch(prepared.original, prepared.image) or 1
    # A file that takes several images at a time gets the last one several times.
    groups = [inputs[np.minimum(np.arange(k, k + count), len(inputs) - 1)] for k in range(0, len(inputs), count)]
    try:
        session = _original_session(prepared.original, path)
        rows = [session.run([prepared.output], {prepared.image.name: group})[0] for group in groups]
    except ExportRefusedError:
        raise
    except Exception as error:  # onnxruntime's own classes
        raise ExportRefusedError(f"model {path}: onnxruntime cannot run it ({first_line(error)})") from error
    return np.concatenate([each.reshape(count, -1) for each in rows])[: len(inputs)]


def _original_session(original: onnx.ModelProto, path: Path) -> ort.InferenceSession:
    """A session for the file as it came; where it is newer than ONNX Runtime, for the same graph in an older form."""
    try:
        return cpu_session(original)
    except Exception:  # noqa: BLE001 - onnxruntime's own classes; the older form says what is wrong
        return cpu_session(_pinned(original, path))


def dimensions_of_batch(model: onnx.ModelProto, image: ImageInput) -> int:
    """How many images a file takes at a time; 0 if it leaves that open."""
    value = next(value for value in model.graph.input if value.name == image.name)
    return dimensions(value)[0] or 0


def _pinned(original: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """A copy in operator set 18; where the converter cannot, in its own if every engine reads that."""
    model = copy_of(original)
    version = opset(model)
    if version != OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except Exception as error:  # an unusual graph makes the converter raise exceptions of many classes
            if not _LOWEST_OPSET <= version <= _HIGHEST_OPSET:
                raise ExportRefusedError(
                    f"model {path}: operator set {version} cannot be converted to {OPSET} "
                    f"({first_line(error)}); export the model again with operator set {OPSET}"
                ) from error
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(IR_VERSION, min(model.ir_version, 10))
    return model


def _without_name_clashes(model: onnx.ModelProto, own: set[str]) -> onnx.ModelProto:
    """Inner tensors that already have the names of a bundle's input and output get others."""
    inner = {name for node in model.graph.node for name in node.output}
    inner |= {initializer.name for initializer in model.graph.initializer}
    if not (inner | own) & {INPUT, OUTPUT}:
        return model
    return compose.add_prefix(model, "net.", rename_nodes=False, rename_inputs=False, rename_outputs=False)


def _cut_tail(model: onnx.ModelProto, path: Path) -> tuple[str, bool]:
    """Take the output from where the logits are: before a Softmax, and before what only changes their shape.

    Returns:
        The Softmax that was cut off, or an empty string, and whether the shape has to be made again.
    """
    made_by = {name: node for node in model.graph.node for name in node.output}
    at, removed, shaped, cast = model.graph.output[0].name, "", False, False
    while at in made_by:
        kind = made_by[at].op_type
        if kind in _SHAPES:
            shaped = True
        elif kind in _SOFTMAX and not removed:
            removed = kind
        elif kind not in _NO_OPERATIONS:
            break
        cast = cast or kind == "Cast"
        at = made_by[at].input[0]
    if at not in made_by:
        raise ExportRefusedError(f"model {path}: its output {at!r} is not computed from the image")
    if made_by[at].op_type in _YES_OR_NO:
        raise ExportRefusedError(_sigmoid(model, made_by[at].op_type, path))
    if cast:  # whatever the numbers were, logits are float32
        name = f"{at}.float32"
        model.graph.node.append(helper.make_node("Cast", [at], [name], "to_float32", to=TensorProto.FLOAT))
        at = name
    model.graph.output[0].name = at
    _drop_unused(model.graph)
    return removed, shaped


def _sigmoid(model: onnx.ModelProto, kind: str, path: Path) -> str:
    """Why a network that ends in a Sigmoid is refused, and the way out."""
    shape = dimensions(model.graph.output[0])
    if [size for size in shape[1:] if size != 1] == []:
        return f"model {path}: it ends in {kind} with one output, a yes-or-no answer; {_TWO_LOGITS}"
    return (
        f"model {path}: it ends in {kind}, so its outputs are independent yes-or-no answers; framegate needs one label "
        "out of several. If every image has exactly one of the labels, export the model again without its last "
        "activation, so that its outputs are logits; if not, make one network for each answer, with two logits"
    )


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that the output does not depend on: what was cut off, and other outputs' branches."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= {name for inner in _with_inner(node) for name in inner.input}
    kept.reverse()
    del graph.node[:]
    graph.node.extend(kept)
    weights = [item for item in graph.initializer if item.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _with_inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    yield node
    for attribute in node.attribute:
        yield from operators(attribute.g)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for k, name in enumerate(names):
                if name == old:
                    names[k] = new


def _name_input(model: onnx.ModelProto, image: ImageInput, width: int, height: int) -> None:
    """``image`` as (1, channels, height, width); a network that wants NHWC gets a Transpose in front."""
    graph = model.graph
    shape = [1, image.channels, height, width]
    if image.layout == "nchw":
        _rename(graph, image.name, INPUT)
    else:
        _rename(graph, image.name, f"{INPUT}.nhwc")
        graph.node.insert(0, helper.make_node("Transpose", [INPUT], [f"{INPUT}.nhwc"], "to_nhwc", perm=[0, 2, 3, 1]))
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape))


def _name_output(model: onnx.ModelProto, flatten: bool) -> None:
    """``logits`` as (batch, classes), whatever axes of length one came behind the classes."""
    graph = model.graph
    if not flatten:
        _rename(graph, graph.output[0].name, OUTPUT)
    else:
        _rename(graph, graph.output[0].name, f"{OUTPUT}.shaped")
        graph.node.append(helper.make_node("Flatten", [f"{OUTPUT}.shaped"], [OUTPUT], "to_logits", axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, None]))


def _finish(model: onnx.ModelProto, batch: int | str, path: Path, batch_of_file: int) -> onnx.ModelProto:
    """Set the batch, simplify, name every node, drop what only the exporter needed."""
    graph = copy_of(model)
    dim = graph.graph.input[0].type.tensor_type.shape.dim[0]
    if isinstance(batch, str):
        dim.dim_param = batch
    _open_reshapes(graph.graph, {1, batch_of_file} if isinstance(batch, str) else {batch_of_file} - {0, 1})
    graph = _simplified(graph, path)
    check_control_flow(graph, path)
    strip(graph)
    _name_nodes(graph.graph)
    return graph


def _open_reshapes(graph: onnx.GraphProto, counts: set[int]) -> None:
    """A Reshape to (1, ...) written for one image takes the batch from its input instead (ONNX: 0 copies).

    Args:
        graph: Changed in place.
        counts: Numbers of images that a graph may have been written for.
    """
    constants = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    targets = {node.input[1] for node in graph.node if node.op_type == "Reshape" and node.input[1] in constants}
    for name in targets:
        shape = numpy_helper.to_array(constants[name]).copy()
        if len(shape) > 1 and int(shape[0]) in counts:
            shape[0] = 0
            constants[name].CopyFrom(numpy_helper.from_array(shape, constants[name].name))


def _simplified(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Constants and batch normalisation folded, no-operations gone (ONNX Runtime's basic level)."""
    with tempfile.TemporaryDirectory(prefix="framegate-onnx-") as folder:
        target = Path(folder) / "simple.onnx"
        options = quiet_options()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target)
        try:
            ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own classes
            raise ExportRefusedError(f"model {path}: onnxruntime cannot run it ({first_line(error)})") from error
        simple = onnx.load(str(target))
    if any(node.domain not in ("", "ai.onnx") for node in simple.graph.node):
        return model  # it put in operators of its own, which other engines do not know
    standard = opset(simple)
    del simple.opset_import[:]
    simple.opset_import.append(helper.make_opsetid("", standard))
    return simple


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give a name to every node that has none, or one that was taken already."""
    taken: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)


def _run(session: ort.InferenceSession, name: str, tensor: Floats) -> Floats:
    try:
        rows: Floats = session.run(None, {name: tensor})[0]
    except Exception as error:  # onnxruntime's own classes
        reason = first_line(error)
        raise ExportRefusedError(f"the network does not run on a batch of {len(tensor)}: {reason}") from error
    return rows


def _close(found: Floats, expected: Floats) -> bool:
    """Written so that NaN and another shape fail."""
    if found.shape != expected.shape:
        return False
    return bool(np.abs(found - expected).max() <= _TOLERANCE * max(1.0, float(np.abs(expected).max())))
