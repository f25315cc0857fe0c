"""How pixels become the input of a network from elsewhere: the usual ways by name, and which fits the images.

A wrong scaling is the most frequent mistake with a network from elsewhere, and no file format records the right one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from framegate.export.graph.graph import INPUT
from framegate.export.graph.session import cpu_session, input_tensors
from framegate.models.labelled import LabelledImages
from framegate.runtime.errors import ExportRefusedError, UsageError
from framegate.runtime.preprocess import PreprocessSpec

Three = tuple[float, float, float]

SCALINGS: Mapping[str, tuple[Three, Three]] = {
    # mean and standard deviation of ImageNet's training images (torchvision), as 0..255
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "unit": ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),
    "symmetric": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "raw": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "caffe": ((123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
}
"""Name -> mean and std per channel (R, G, B) in pixel units: the network sees (pixel - mean) / std."""
MEANING = (
    "imagenet: ImageNet's mean and std (torchvision); unit: 0..1; symmetric: -1..1; raw: 0..255; "
    "caffe: ImageNet's mean subtracted (use with --colour bgr)"
)
_LOOKED_AT = 100
_IMAGES_PER_OUTPUT = 5
"""On average; with fewer, what an output mostly sees is chance."""
_DOUBTFUL = 0.5
"""Accuracy below which the other scalings are tried."""


def scaling(name: str, colour: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std in the network's channel order.

    Raises:
        UsageError: The scaling differs between channels, but the network has only one.
    """
    mean, std = SCALINGS[name]
    if colour == "grey":
        if len(set(mean)) > 1 or len(set(std)) > 1:
            raise UsageError(f"--scaling {name}: has a value per colour, the network takes grey; give --mean and --std")
        return mean[:1], std[:1]
    return (mean, std) if colour == "rgb" else (mean[::-1], std[::-1])


@dataclass(frozen=True)
class Trial:
    """What one way of scaling reaches.

    Attributes:
        option: What to type.
        accuracy: Share of right predictions, in [0, 1].
        by_majority: The same if every output had the label that most of its images have: much higher than
            ``accuracy`` if the labels are in another order.
    """

    option: str
    accuracy: float
    by_majority: float


def trials(model: onnx.ModelProto, spec: PreprocessSpec, split: LabelledImages) -> list[Trial]:
    """Try every scaling and colour order on a few images, the best first.

    Args:
        model: A prepared network.
        spec: Size and resize mode; its scaling and colours are varied.
        split: Labelled images, not those of the test.
    """
    found = []
    for option, varied in _variants(spec):
        found.append(_trial(option, model, varied, split))
    return sorted(found, key=lambda trial: -trial.accuracy)


def _variants(spec: PreprocessSpec) -> Iterator[tuple[str, PreprocessSpec]]:
    for colour in ("grey",) if spec.colour == "grey" else ("rgb", "bgr"):
        for name, (mean, _) in SCALINGS.items():
            if colour == "grey" and len(set(mean)) > 1:
                continue
            values = scaling(name, colour)
            yield f"--scaling {name} --colour {colour}", replace(spec, colour=colour, mean=values[0], std=values[1])


def _trial(option: str, model: onnx.ModelProto, spec: PreprocessSpec, split: LabelledImages) -> Trial:
    session = cpu_session(model)
    labels = split.labels[:_LOOKED_AT]
    tensors = input_tensors(split.images[: len(labels)], spec)
    predicted = np.array([session.run(None, {INPUT: tensor})[0].argmax() for tensor in tensors])
    accuracy = float(np.mean(predicted == labels))
    seen = np.unique(predicted)
    if len(seen) * _IMAGES_PER_OUTPUT > len(labels):
        return Trial(option, accuracy, accuracy)  # with an image or two per output, every output has a majority
    majority = sum(int(np.bincount(labels[predicted == output]).max()) for output in seen)
    return Trial(option, accuracy, majority / len(labels))


def suggestion(found: list[Trial], looked_at: int) -> str:
    """The best trials in words."""
    best = "; ".join(f"{trial.option}: accuracy {trial.accuracy:.2f}" for trial in found[:3])
    return f"tried on {looked_at} of your images: {best}"


def require_scaling(model: onnx.ModelProto, spec: PreprocessSpec, split: LabelledImages) -> None:
    """Refuse, with what was measured: how pixels become inputs was not given.

    Raises:
        UsageError: Always.
    """
    found = trials(model, spec, split)
    raise UsageError(
        "--scaling is missing: how pixels become the network's input is not in an ONNX file, look it up where the "
        f"model comes from. {suggestion(found, min(_LOOKED_AT, len(split)))}. {MEANING}"
    )


def check_scaling(model: onnx.ModelProto, spec: PreprocessSpec, split: LabelledImages) -> None:
    """Refuse what is very probably a wrong scaling, colour order or order of labels.

    Raises:
        ExportRefusedError: Another setting is far better, or another order of the labels would be.
    """
    given = _trial("", model, spec, split)
    if given.accuracy >= _DOUBTFUL:
        return
    count = min(_LOOKED_AT, len(split))
    found = trials(model, spec, split)
    reordered = given.by_majority > max(given.accuracy + 0.4, found[0].accuracy + 0.1)
    if found[0].accuracy > given.accuracy + 0.2 and not reordered:
        raise ExportRefusedError(
            f"the network reaches accuracy {given.accuracy:.2f} on {count} of your images as given, which looks like a "
            f"wrong --scaling or --colour; {suggestion(found, count)}"
        )
    if reordered:
        raise ExportRefusedError(
            f"the network reaches accuracy {given.accuracy:.2f} on {count} of your images, but {given.by_majority:.2f} "
            "with its outputs named after what they mostly see: the labels are probably in another order"
        )
