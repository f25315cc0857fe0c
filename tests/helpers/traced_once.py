"""Networks as ONNX graphs, without tracing an architecture more than once in a run of the tests.

PyTorch's exporter takes seconds, whatever the weights are. A graph that was traced once is filled with the weights of
another network of the same architecture. That the exporter leaves weights as they are is checked where it traces.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from made_once import made_once
from onnx import numpy_helper
from torch import nn

from framegate.export.graph.translate import to_onnx
from framegate.runtime.preprocess import PreprocessSpec

Translate = Callable[[nn.Module, PreprocessSpec], onnx.ModelProto]


def traced_once(factory: pytest.TempPathFactory, architecture: str) -> Translate:
    """What stands for `to_onnx`: the same graph, bit for bit.

    Args:
        factory: Knows where the temporary folders of this run are.
        architecture: Names what is traced, with everything that changes the graph: "simplecnn of 3 classes".
    """

    def translate(network: nn.Module, spec: PreprocessSpec) -> onnx.ModelProto:
        name = f"traced {architecture}"
        folder = made_once(factory, name, lambda folder: onnx.save(_traced(network, spec), folder / "graph.onnx"))
        graph = onnx.load(folder / "graph.onnx")
        _fill(graph, _weights(network))
        return graph

    return translate


def _traced(network: nn.Module, spec: PreprocessSpec) -> onnx.ModelProto:
    graph, weights = to_onnx(network, spec), _weights(network)
    found = {item.name: numpy_helper.to_array(item) for item in graph.graph.initializer}
    # Weights that are alike would be stored once, under the name of one of them.
    changed = [name for name, value in weights.items() if not np.array_equal(found.get(name, ()), value)]
    assert not changed, f"the exporter leaves out or changes {changed}"
    return graph


def _weights(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in network.state_dict().items()}


def _fill(graph: onnx.ModelProto, weights: dict[str, np.ndarray]) -> None:
    for item in graph.graph.initializer:
        if item.name in weights:
            assert tuple(item.dims) == weights[item.name].shape, f"{item.name}: this is another architecture"
            item.raw_data = weights[item.name].tobytes()
