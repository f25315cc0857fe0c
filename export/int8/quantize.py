"""Static INT8 quantisation in the one form that TensorRT, OpenVINO and ONNX Runtime all read.

TensorRT takes only symmetric INT8: zero points of zero, and no INT32 DequantizeLinear as other quantisers write it for
biases (onnx-tensorrt onnxOpImporters.cpp, QuantDequantLinearHelper). Weights are stored as INT8 behind a
DequantizeLinear with one scale per output channel; activations pass a Quantize/DequantizeLinear pair with one scale.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from framegate.export.graph.graph import INPUT, copy_of
from framegate.export.progress import Progress
from framegate.runtime.errors import ExportRefusedError, UsageError
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

QUANTISED_OPERATORS = ("Conv", "Gemm", "Add")


class _ImageReader(CalibrationDataReader):  # type: ignore[misc]
    """Feeds images through the runtime's own preprocessing, one at a time."""

    def __init__(self, images: npt.NDArray[np.uint8], spec: PreprocessSpec, progress: Progress) -> None:
        self._images = images
        self._preprocess = Preprocessor(spec)
        self._progress = progress
        self._next = 0

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        if self._next == len(self._images):
            return None
        tensor = self._preprocess(self._images[self._next]).copy()
        self._next += 1
        self._progress("INT8 activation ranges", self._next, len(self._images))
        return {INPUT: tensor}


def to_int8(
    model: onnx.ModelProto,
    images: npt.NDArray[np.uint8],
    spec: PreprocessSpec,
    keep_float: Sequence[str],
    progress: Progress,
) -> onnx.ModelProto:
    """Quantise a float32 graph of `framegate.export.graph.translate.to_onnx`; ranges hold the largest magnitudes.

    Args:
        model: The graph, its weights still stored as float32.
        images: (N, h, w, 3) uint8 BGR from the training split; their activations set the ranges.
        spec: How an image becomes the network's input.
        keep_float: Names of layers that stay in float32.
        progress: Called after every image.

    Raises:
        UsageError: There are no images, or a layer to keep does not exist.
        ExportRefusedError: The result does not have the symmetric form.
    """
    if len(images) == 0:
        raise UsageError("INT8: no images given; activation ranges need real images, a few hundred are enough")
    unknown = set(keep_float) - {node.name for node in model.graph.node}
    if unknown:
        raise UsageError(f"INT8: layer {sorted(unknown)[0]!r} shall stay in float32, but the graph has no such node")
    source = copy_of(model)
    # The graph is folded and checked already; without this mark the quantiser logs advice to do so.
    source.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory(prefix="framegate-int8-") as folder:
        target = Path(folder) / "int8.onnx"
        quantize_static(
            source,
            target,
            _ImageReader(images, spec, progress),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED_OPERATORS),
            nodes_to_exclude=list(keep_float),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            # Where the pairs stand does not depend on this; int8_choice replaces the ranges by better ones.
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                # TensorRT reads INT8 initializers as well as Quantize/DequantizeLinear pairs on float weights;
                # the first is a quarter of the size.
                "AddQDQPairToWeight": False,
                # Only inputs are quantised: between a convolution and its ReLU6 a pair would spend the range on
                # values that are cut off next, and keep engines from fusing the two.
                "OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"],
            },
        )
        quantised = onnx.load(target)
    del quantised.metadata_props[:]
    del quantised.graph.value_info[:]
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    check_symmetric(quantised)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def check_symmetric(model: onnx.ModelProto) -> None:
    """Check the form that TensorRT parses.

    Raises:
        ExportRefusedError: A scale or zero point is not constant, a zero point is not INT8 zero, a DequantizeLinear
            reads INT32, or nothing is quantised.
    """
    constants = {initializer.name: initializer for initializer in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    if not pairs:
        raise ExportRefusedError("INT8: the graph holds no QuantizeLinear or DequantizeLinear; nothing was quantised")
    for node in pairs:
        where = f"INT8: {node.op_type} {node.name!r}"
        if len(node.input) < 3 or node.input[1] not in constants or node.input[2] not in constants:
            raise ExportRefusedError(f"{where} needs a constant scale and a constant zero point")
        zero = constants[node.input[2]]
        if zero.data_type != TensorProto.INT8 or numpy_helper.to_array(zero).any():
            raise ExportRefusedError(
                f"{where} has zero points of type {TensorProto.DataType.Name(zero.data_type)} "
                f"from {numpy_helper.to_array(zero).min()}; TensorRT takes INT8 zeros only"
            )
        scale = numpy_helper.to_array(constants[node.input[1]])
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise ExportRefusedError(f"{where} has a scale that is not positive and finite")
        data = constants.get(node.input[0])
        if node.op_type == "DequantizeLinear" and data is not None and data.data_type != TensorProto.INT8:
            raise ExportRefusedError(
                f"{where} reads {TensorProto.DataType.Name(data.data_type)} {node.input[0]!r}; TensorRT takes INT8 only"
            )
