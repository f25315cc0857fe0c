"""Small networks that certificates ask beside the bundle's own: one graph of several, and what they never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from framegate.export.data.labelled import TrainedOn, trained_on
from framegate.export.export import QUANTISER_IMAGES
from framegate.export.graph.average import averaged
from framegate.export.graph.fold import deployment_model
from framegate.export.graph.graph import halved
from framegate.export.graph.translate import to_onnx
from framegate.export.int8.choice import HELD_OUT, choose_int8
from framegate.export.int8.sensitivity import LayerSensitivity
from framegate.export.progress import Progress
from framegate.models.checkpoint import load_checkpoint
from framegate.models.held_out import HeldOut, held_out
from framegate.models.registry import architecture
from framegate.models.training.augment import Images
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.preprocess import PreprocessSpec


def branch_graph(paths: tuple[Path, ...], labels: tuple[str, ...]) -> tuple[onnx.ModelProto, PreprocessSpec]:
    """The networks of checkpoints as one graph, which averages their logits, and how images become its input.

    Raises:
        DataError: One cannot be read, has other labels, takes volumes, or takes another input than the first.
    """
    models, specs = [], []
    for path in paths:
        model, record = load_checkpoint(path)
        if tuple(record["labels"]) != labels:
            raise DataError(
                f"branch {path}: it has {len(record['labels'])} labels of its own, or another order, the bundle has "
                f"{len(labels)}; give one trained on the bundle's data"
            )
        specs.append(architecture(record["architecture"]["name"]).preprocess)
        if specs[-1].depth > 1:
            raise DataError(f"branch {path}: it takes volumes; certificates are for images")
        if specs[-1] != specs[0]:
            raise DataError(f"branch {path}: it takes another input than {paths[0]}; give networks that take the same")
        models.append(model)
    graphs = [to_onnx(deployment_model(model), specs[0]) for model in models]
    return halved(averaged(graphs)), specs[0]


def in_int8(plain: onnx.ModelProto, spec: PreprocessSpec, ranges: Images | None, progress: Progress) -> onnx.ModelProto:
    """A branch quantised by training images alone, of which some set the ranges and others judge."""
    if ranges is None or len(ranges) < 2:
        raise UsageError("INT8: a branch needs training images, whose activations set its ranges; give --data")
    drawn = ranges[np.random.default_rng(0).permutation(len(ranges))]
    count = min(QUANTISER_IMAGES, len(drawn) // 2)
    images, judging = drawn[:count], drawn[count:][:HELD_OUT]
    sensitivity = LayerSensitivity(plain, images, spec, progress)
    return choose_int8(plain, images, judging, spec, sensitivity, "auto", progress).model


def trained_all(bundle: Bundle, branches: tuple[Path, ...]) -> TrainedOn:
    """The known data set whose training split trained all networks, and its copy; none if they do not all say so.

    Branches alone are asked, but coverage is counted on what the bundle's own network never saw, either.

    Args:
        bundle: Opened.
        branches: Checkpoints.
    """
    own = trained_on(bundle.origin, bundle.calibrations.values())
    known = [trained_on({"training": load_checkpoint(each)[1]["notes"]}) for each in branches]
    if any(each.data != own.data for each in known):
        return TrainedOn()
    return TrainedOn(own.data, own.apart.union(*(each.apart for each in known)), own.calibration)


def held_out_of_all(branches: tuple[Path, ...]) -> HeldOut | None:
    """What of the training split no branch was trained on, if the checkpoints of all say that it is the same."""
    held = {held_out(load_checkpoint(each)[1]["notes"]) for each in branches}
    return held.pop() if len(held) == 1 else None
