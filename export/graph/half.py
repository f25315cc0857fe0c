"""The float16 network, derived from the float32 file of a bundle: always the same one from the same file.

Precision lives in the ONNX: TensorRT 11 knows no other way, and a strongly typed network means the same everywhere.
Input and output stay float32. Float32 inside stay: sums over many values, which pass 65504 or lose small addends
(pooling, reductions, normalisations, softmax), functions with a large range (exp, log, pow), and the last linear layer:
that is next to no arithmetic, and logits keep their resolution, hence entropies theirs.

On a disk the float16 network needs few weights of its own: its file points into the float32 file (`share_weights`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from framegate.export.foreign_errors import first_line
from framegate.export.graph.graph import copy_of
from framegate.runtime.errors import ExportRefusedError

SUMS = frozenset(
    ("GlobalAveragePool", "AveragePool", "GlobalLpPool", "LpPool", "ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2",
     "ReduceSumSquare", "ReduceLogSumExp", "ReduceProd", "CumSum", "Softmax", "LogSoftmax", "LRN", "LpNormalization",
     "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization",
     "MeanVarianceNormalization", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "Softplus", "Resize", "TopK")
)  # fmt: skip
"""Operators that stay in float32."""
_HALF, _FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
_SHAPE_INPUTS = {"Reshape": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "Slice": (1, 2, 3, 4), "Pad": (1, 3),
                 "Expand": (1,), "Gather": (1,), "Tile": (1,), "Split": (1,)}  # fmt: skip
_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")
_SHARED_FROM = 1024
"""Bytes from which a tensor is shared; smaller ones (shapes, scalars) are needed by parsers at once."""
HALF = "model.fp16.onnx"
"""Its name in a bundle."""
WEIGHTS_HASH = "framegate.weights_sha256"


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float16 form of a float32 network.

    Args:
        model: A bundle's float32 network; weights may be stored as float16 behind a Cast. It is left as it was.

    Returns:
        The network in float16, its input and output in float32; nodes keep their names.

    Raises:
        ExportRefusedError: It is quantised, or a weight does not fit into float16.
    """
    graph = model.graph
    quantised = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if quantised:
        raise ExportRefusedError(f"float16: the network is quantised (node {quantised[0].name!r}); give the fp32 model")
    builder = _Builder(model)
    wide = _last_layer(graph)
    for k, node in enumerate(graph.node):
        if not builder.is_stored_half(node):
            builder.add(node, to_float=k in wide or node.op_type in SUMS)
    return builder.finish()


def half_file(float_file: Path, target: Path) -> None:
    """Write the float16 network beside the float32 file it is derived from, without the weights that lie there already.

    Args:
        float_file: The float32 file of a bundle.
        target: The file to write, in the same folder.

    Raises:
        ExportRefusedError: See `to_half`.
    """
    content = float_file.read_bytes()
    half = to_half(onnx.load_model_from_string(content))
    try:
        onnx.checker.check_model(half, full_check=True)
    except Exception as error:  # the checker's own classes; an operator may not exist for float16
        raise ExportRefusedError(f"float16: the network has no valid float16 form ({first_line(error)})") from error
    half = share_weights(half, content, float_file.name)
    target.write_bytes(half.SerializeToString(deterministic=True))


def share_weights(model: onnx.ModelProto, content: bytes, name: str) -> onnx.ModelProto:
    """A copy whose large weights are references to where the same bytes lie in another ONNX file.

    That is ONNX external data: any engine that opens the file by its path finds them. The other file's SHA-256 is
    noted in the metadata, so that the hash of this file vouches for the weights, too.

    Args:
        model: The network; weights whose bytes the other file does not hold stay inside.
        content: The other file.
        name: Its name; both must lie in one folder.
    """
    shared = copy_of(model)
    for item in shared.graph.initializer:
        raw = item.raw_data
        at = content.find(raw) if len(raw) >= _SHARED_FROM else -1
        if at < 0:
            continue
        item.ClearField("raw_data")
        item.data_location = TensorProto.EXTERNAL
        for key, value in (("location", name), ("offset", at), ("length", len(raw))):
            item.external_data.add(key=key, value=str(value))
    del shared.metadata_props[:]
    shared.metadata_props.add(key=WEIGHTS_HASH, value=hashlib.sha256(content).hexdigest())
    return shared


def _last_layer(graph: onnx.GraphProto) -> set[int]:
    """Numbers of the nodes from the last linear layer to the output, and of what reshapes in front of it."""
    made_by = {name: k for k, node in enumerate(graph.node) for name in node.output}
    found: set[int] = set()
    k, linear = made_by.get(graph.output[0].name), False
    while k is not None:
        node = graph.node[k]
        if node.op_type in ("Conv", "ConvTranspose") or (linear and node.op_type not in _RESHAPES):
            break
        found.add(k)
        linear = linear or node.op_type in ("Gemm", "MatMul")
        k = made_by.get(node.input[0])
    return found if linear else set()


class _Builder:
    """Writes the nodes again, each with inputs of the type it computes in; a cast is made once and used by all."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._result = copy_of(model)
        del self._result.graph.node[:]
        del self._result.graph.initializer[:]
        del self._result.graph.value_info[:]
        self._constants = {item.name: item for item in model.graph.initializer}
        # A weight behind a widening Cast: its float16 values are taken as they are.
        self._stored = {
            node.output[0]: node.input[0]
            for node in model.graph.node
            if node.op_type == "Cast" and node.input[0] in self._constants
        }
        inferred = onnx.shape_inference.infer_shapes(model).graph
        self._types = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
        self._types |= {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input,)}
        self._now = dict(self._types)
        self._cast: dict[tuple[str, int], str] = {}
        self._used: set[str] = set()

    def is_stored_half(self, node: onnx.NodeProto) -> bool:
        """True for the Cast of a weight that is stored as float16."""
        return node.op_type == "Cast" and node.output[0] in self._stored

    def add(self, node: onnx.NodeProto, to_float: bool) -> None:
        """Add a node that computes in float32 or float16."""
        wanted = _FLOAT if to_float else _HALF
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for k, name in enumerate(node.input):
            if name and k not in _SHAPE_INPUTS.get(node.op_type, ()):
                copy.input[k] = self._typed(name, wanted)
            elif name in self._constants:
                self._keep(name)
        self._result.graph.node.append(copy)
        for name in node.output:
            if self._types.get(name, _FLOAT) == _FLOAT:
                self._now[name] = wanted

    def _typed(self, name: str, wanted: int) -> str:
        """The name under which a tensor is available in a type; tensors that are not floating point stay."""
        if (name, wanted) in self._cast:
            return self._cast[name, wanted]
        source: str = self._stored.get(name, name)
        item = self._constants.get(source)
        found = item.data_type if item is not None else self._now.get(source, _FLOAT)
        if item is not None:
            if (found, wanted) == (_FLOAT, _HALF):
                return self._rounded(item)
            self._keep(source)
        if found == wanted or found not in (_HALF, _FLOAT):
            return source
        cast = f"{name}.{'half' if wanted == _HALF else 'float'}"
        while cast in self._constants or cast in self._now:
            cast += "_"
        self._result.graph.node.append(helper.make_node("Cast", [source], [cast], f"{cast}.cast", to=wanted))
        self._now[cast] = wanted
        self._cast[name, wanted] = cast
        return cast

    def _keep(self, name: str) -> None:
        if name not in self._used:
            self._used.add(name)
            self._result.graph.initializer.append(self._constants[name])

    def _rounded(self, item: TensorProto) -> str:
        """A float32 constant as float16."""
        value = numpy_helper.to_array(item)
        largest = float(np.abs(value).max()) if value.size else 0.0
        if not largest <= float(np.finfo(np.float16).max):
            raise ExportRefusedError(
                f"float16: weight {item.name!r} reaches {largest:.3g}, float16 ends at 65504; use fp32 or int8"
            )
        name = self._cast[item.name, _HALF] = f"{item.name}.half"
        self._result.graph.initializer.append(numpy_helper.from_array(value.astype(np.float16), name))
        return name

    def finish(self) -> onnx.ModelProto:
        """The network, its output in float32 under its old name."""
        for value in self._result.graph.output:
            if self._now.get(value.name, _FLOAT) == _HALF:
                inner = f"{value.name}.half"
                for node in self._result.graph.node:
                    for names in (node.input, node.output):
                        for k, name in enumerate(names):
                            if name == value.name:
                                names[k] = inner
                self._result.graph.node.append(
                    helper.make_node("Cast", [inner], [value.name], f"{value.name}.cast", to=_FLOAT)
                )
        return self._result
