"""Every architecture by name: how to build it, what input it takes, where it can be tapped, how it is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from framegate.models.hybrid import HybridClassifier
from framegate.models.hybrid3d import Hybrid3D
from framegate.models.plain_cnn import PlainCNN, ResNet20
from framegate.models.separable_cnn import MobileNet, SimpleCNN
from framegate.models.vgg import VGG16
from framegate.runtime.errors import UsageError
from framegate.runtime.preprocess import PreprocessSpec


def _rgb(size: int, std: float) -> PreprocessSpec:
    return PreprocessSpec(
        width=size,
        height=size,
        resize="bilinear",
        fit="stretch",
        colour="rgb",
        mean=(127.5, 127.5, 127.5),
        std=(std, std, std),
    )


_VOLUME = PreprocessSpec(
    width=28, height=28, resize="bilinear", fit="stretch", colour="grey", mean=(127.5,), std=(127.5,), depth=28
)


@dataclass(frozen=True)
class Architecture:
    """One network of the registry.

    Attributes:
        name: What the command line and checkpoints call it.
        about: One line for people.
        build: Called with the number of classes and ``options``; returns a module from inputs to logits.
        options: Keyword arguments of ``build`` with their defaults.
        preprocess: How an image becomes the network's input.
        taps: Layers (names of modules) whose activations can be watched, from early to late.
        bfloat16_on_cpu: Whether training it on a CPU gains by bfloat16.
        recipe: Training settings that differ from the defaults of `framegate.models.training.settings.TrainSettings`.
    """

    name: str
    about: str
    build: Callable[..., nn.Module]
    preprocess: PreprocessSpec
    taps: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    bfloat16_on_cpu: bool = False
    recipe: Mapping[str, Any] = field(default_factory=dict)


# The standard deviation of natural images is near 64; the hybrid's trunk was trained on pixel / 127.5 - 1.
_SMALL = _rgb(32, 64.0)
_SMALL_RECIPE = {"epochs": 30, "batch": 128, "learning_rate": 5e-3}

ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="simplecnn",
            about="3x3 convolution and three depthwise separable blocks, 52,630 parameters",
            build=SimpleCNN,
            options={"attention": True},
            preprocess=_SMALL,
            taps=("stem.0", "blocks.0.3", "blocks.2.3", "blocks.4.3"),
            recipe=_SMALL_RECIPE,
        ),
        Architecture(
            name="mobilenet",
            about="MobileNet baseline: four depthwise separable blocks, 121,494 parameters",
            build=MobileNet,
            options={"attention": True},
            preprocess=_SMALL,
            taps=("stem.0", "blocks.0.3", "blocks.2.3", "blocks.4.3", "blocks.5.3"),
            recipe=_SMALL_RECIPE,
        ),
        Architecture(
            name="hybrid",
            about="ImageNet MobileNetV2 trunk, grouped or depthwise convolution, squeeze-and-excitation",
            build=HybridClassifier,
            options={"convolution": "grouped", "attention": True, "keras_trunk": True},
            preprocess=_rgb(96, 127.5),
            taps=(
                "trunk.features.0.0",
                "trunk.features.3.conv.0.0",
                "trunk.features.7.conv.0.0",
                "trunk.features.14.conv.0.0",
                "trunk.features.18.0",
                "adapt.0",
                "convolve.0",
            ),
            bfloat16_on_cpu=True,
            recipe={"epochs": 12, "batch": 256, "frozen_blocks": 5, "views": 8, "outlier_share": 0.125},
        ),
        Architecture(
            name="hybrid3d",
            about="3D convolutions of 32, 64 and 128 channels for volumes",
            build=Hybrid3D,
            preprocess=_VOLUME,
            taps=("stages.0.0", "stages.1.0", "stages.2.0"),
            bfloat16_on_cpu=True,
            recipe={"epochs": 40, "batch": 32, "weight_decay": 0.05, "average": 0.99},
        ),
        Architecture(
            name="plaincnn",
            about="plain convolutions for interval bounds (--interval-bounds), 0.35 M parameters",
            build=PlainCNN,
            options={"width": 24},
            preprocess=_SMALL,
            taps=("layers.0", "layers.3", "layers.6"),
            recipe={"epochs": 60, "batch": 128, "interval_weight": 0.5, "weight_decay": 0.01},
        ),
        Architecture(
            name="resnet20",
            about="ResNet-20 without attention, 0.27 M parameters, for adversarial training and masked views",
            build=ResNet20,
            options={"width": 16},
            preprocess=_SMALL,
            taps=("stem.0", "blocks.2.first.0", "blocks.5.first.0", "blocks.8.first.0"),
            bfloat16_on_cpu=True,
            recipe={"epochs": 40, "batch": 128, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4},
        ),
        Architecture(
            name="vgg16",
            about="VGG-16 with batch normalisation for 32x32 images",
            build=VGG16,
            preprocess=_SMALL,
            taps=("stages.0.0", "stages.1.0", "stages.2.0", "stages.3.0", "stages.4.0", "hidden.0"),
            bfloat16_on_cpu=True,
            recipe=_SMALL_RECIPE,
        ),
    )
}


def architecture(name: str) -> Architecture:
    """Look an architecture up.

    Raises:
        UsageError: There is none of this name.
    """
    try:
        return ARCHITECTURES[name]
    except KeyError as error:
        raise UsageError(f"architecture: {name!r} given, expected one of {', '.join(ARCHITECTURES)}") from error


def build(name: str, classes: int, options: Mapping[str, Any]) -> nn.Module:
    """A new network with random weights.

    Args:
        name: A name of the registry.
        classes: Number of labels, at least 2.
        options: Some of the architecture's options.

    Raises:
        UsageError: The name, an option or a value is unknown.
    """
    chosen = architecture(name)
    unknown = set(options) - set(chosen.options)
    if unknown:
        known = ", ".join(chosen.options) or "none"
        raise UsageError(f"architecture {name}: option {sorted(unknown)[0]!r} given, it knows {known}")
    if classes < 2:
        raise UsageError(f"architecture {name}: {classes} classes given, expected at least 2")
    try:
        return chosen.build(classes, **{**chosen.options, **options})
    except (TypeError, ValueError) as error:
        raise UsageError(f"architecture {name}: {error}") from error
