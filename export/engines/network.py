"""From an ONNX file to a TensorRT network, and the checks that it is the network the bundle speaks of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from framegate.export.engines.scores import network_file
from framegate.runtime.backends.tensorrt.library import Messages, TensorRt
from framegate.runtime.backends.tensorrt.scores import KERNEL, PLUGIN, SCORES, TEMPERATURE
from framegate.runtime.errors import BackendError
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec


@dataclass(frozen=True)
class TensorFacts:
    """An input or output; -1 in the shape is the batch, which the optimisation profile bounds."""

    name: str
    shape: tuple[int, ...]
    type: str


@dataclass(frozen=True)
class NetworkFacts:
    """What a parsed network consists of.

    Attributes:
        inputs: In the file's order.
        outputs: In the file's order; the first are the logits.
        layers: Layer type -> how many.
        types: Type of what a layer computes -> how many, constants, casts and reshapes not counted.
    """

    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    layers: Mapping[str, int]
    types: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """As a plain record."""
        return asdict(self)


def parse_onnx(trt: TensorRt, builder: Any, messages: Messages, model: Path, scores: str = KERNEL) -> tuple[Any, Any]:
    """Parse an ONNX file; return (network, parser): the network uses the parser's memory.

    Args:
        trt: The flavour that builds.
        builder: Its builder.
        messages: Its logger.
        model: The bundle's file.
        scores: Who computes the scores; see `framegate.export.engines.scores` for what that means to the parser.

    Raises:
        BackendError: The file is damaged, or an operator is not supported; the message names it.
        BundleError: The file cannot be given the scores.
    """
    content = network_file(model, scores)
    network = builder.create_network(trt.network_flags(scores == PLUGIN))
    parser = trt.module.OnnxParser(network, messages.native)
    if scores == PLUGIN and trt.has("OnnxParserFlag", "ENABLE_PLUGIN_OVERRIDE"):
        parser.set_flag(trt.module.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE)
    if not parser.parse(content, str(model)):  # the path, because a float16 file points to weights beside it
        problems = [_problem(parser.get_error(i)) for i in range(parser.num_errors)]
        said = "; ".join(problems) or messages.take() or "no reason given"
        raise BackendError(f"{trt.engine} cannot parse {model}: {said}")
    return network, parser


def _problem(error: Any) -> str:
    text = " ".join(str(error.desc()).split())
    operator = error.node_operator()
    return f"operator {operator} (node {error.node_name() or 'without a name'}): {text}" if operator else text


def describe_network(trt: TensorRt, network: Any) -> NetworkFacts:
    """Count what a network holds."""
    kinds = trt.module.LayerType
    moves_only = (kinds.CONSTANT, kinds.CAST, kinds.SHUFFLE)
    layers: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        layers[layer.type.name] += 1
        if layer.type not in moves_only and layer.num_outputs:
            types[layer.get_output(0).dtype.name] += 1
    inputs = tuple(_tensor(network.get_input(i)) for i in range(network.num_inputs))
    outputs = tuple(_tensor(network.get_output(i)) for i in range(network.num_outputs))
    return NetworkFacts(inputs, outputs, dict(layers), dict(types))


def _tensor(tensor: Any) -> TensorFacts:
    return TensorFacts(tensor.name, tuple(tensor.shape), tensor.dtype.name)


def check_network(
    facts: NetworkFacts,
    model: Path,
    spec: PreprocessSpec,
    classes: int,
    precision: str,
    scores: str = KERNEL,
    *,
    dense: bool = False,
) -> None:
    """Check that a network takes the bundle's input, gives its logits, and computes in the precision it is filed under.

    Args:
        facts: Of the network.
        model: The file, for messages.
        spec: The bundle's preprocessing.
        classes: How many labels it has.
        precision: What the file is filed under.
        scores: Who shall compute the scores; the layers show which way the parser took.
        dense: Its logits are a map, (N, classes, H, W).

    Raises:
        BackendError: It does not.
    """
    sides = Preprocessor(spec).tensor.shape[1:]
    more = [] if scores == KERNEL else [TensorFacts(TEMPERATURE, (1,), "FLOAT")]
    if not facts.inputs or facts.inputs[0].shape[1:] != sides or facts.inputs[0].type != "FLOAT":
        raise BackendError(f"{model}: one float32 input (N, {', '.join(map(str, sides))}) expected, has {facts.inputs}")
    if list(facts.inputs[1:]) != more:
        raise BackendError(f"{model}: besides the image {more or 'no input'} expected, has {facts.inputs[1:]}")
    given = facts.outputs[0].shape if facts.outputs and facts.outputs[0].type == "FLOAT" else ()
    if given[1:2] != (classes,) or len(given) != (4 if dense else 2):
        wanted = f"(N, {classes}, rows, columns)" if dense else f"(N, {classes})"
        raise BackendError(f"{model}: float32 logits {wanted} expected first, has {facts.outputs}")
    _check_scores(facts, model, classes, scores)
    quantised = facts.layers.get("QUANTIZE", 0) > 0 and facts.layers.get("DEQUANTIZE", 0) > 0
    halves = facts.types.get("HALF", 0) > 0
    good = {"fp32": not quantised and not halves, "fp16": halves, "int8": quantised}
    if not good.get(precision, True):
        raise BackendError(
            f"{model}: filed as {precision}, but its layers compute in {dict(facts.types)} and "
            f"{'some' if quantised else 'none'} are quantised; export the bundle again"
        )


def _check_scores(facts: NetworkFacts, model: Path, classes: int, scores: str) -> None:
    plugins = {kind: count for kind, count in facts.layers.items() if kind.startswith("PLUGIN")}
    # Which of a function and a plugin of one name the parser takes differs by release; the layers tell.
    if scores == PLUGIN and plugins != {"PLUGIN_V3": 1}:
        raise BackendError(
            f"{model}: the scores were to become one PLUGIN_V3 layer, the parser made {plugins or 'no plugin'} of "
            "them; leave --scores out and the same kernel runs behind the engine"
        )
    if scores != PLUGIN and plugins:
        raise BackendError(
            f"{model}: the parser made {plugins} of it, a plugin registered in this process; such an engine needs the "
            "plugin wherever it runs, and none was asked for"
        )
    if scores == KERNEL:
        return
    shapes = {tensor.name: (tensor.shape[1:], tensor.type) for tensor in facts.outputs[1:]}
    wanted = {name: ((classes,) if name == SCORES[0] else (1,), "FLOAT") for name in SCORES}
    if {name: shapes.get(name) for name in SCORES} != wanted:
        raise BackendError(f"{model}: float32 scores {wanted} expected besides the logits, has {facts.outputs}")
