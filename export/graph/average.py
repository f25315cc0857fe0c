"""Several networks as one graph that answers with the mean of their logits."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import compose, helper

from framegate.export.graph.graph import INPUT, OUTPUT


def averaged(models: Sequence[onnx.ModelProto]) -> onnx.ModelProto:
    """One graph of several, each with names of its own: networks may have layers, even all of them, in common.

    The softmax of the mean of the logits is the normalised geometric mean of the networks' softmax.

    Args:
        models: At least one; of the same input ``image`` and output ``logits``, operator set and version.
    """
    first = models[0]
    if len(models) == 1:
        return first
    parts = [
        compose.add_prefix(model, f"network{k}.", rename_inputs=False, rename_value_infos=False)
        for k, model in enumerate(models)
    ]
    together = onnx.ModelProto()
    together.CopyFrom(parts[0])
    for part in parts[1:]:
        together.graph.node.extend(part.graph.node)
        together.graph.initializer.extend(part.graph.initializer)
    del together.graph.value_info[:]
    # Not a chain of Add, which the INT8 quantiser would take for layers: one rounding more, and that of the logits.
    answers = [part.graph.output[0].name for part in parts]
    together.graph.node.append(helper.make_node("Mean", answers, [OUTPUT], name="mean"))
    del together.graph.output[:]
    together.graph.output.extend(first.graph.output)
    assert [each.name for each in together.graph.input] == [INPUT]
    onnx.checker.check_model(together, full_check=True)
    return together
