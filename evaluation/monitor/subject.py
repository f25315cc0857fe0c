"""The network that a monitor is fitted to, and what attacks on it follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from framegate.evaluation.attacks.loss import LOSSES, LogitsOf, gradient_of
from framegate.evaluation.frames.engine_network import EngineNetwork, ObservedNetwork
from framegate.evaluation.frames.network import Network
from framegate.evaluation.monitor.substitute import imitate
from framegate.models.labelled import LabelledImages
from framegate.models.pixels import PixelInput, to_pixels
from framegate.models.training.batches import Progress
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import BundleError, UsageError

_PROBED = 16
_ENOUGH = 0.5
"""Share of frames that need a gradient: behind a step function it is zero everywhere."""


@dataclass(frozen=True)
class Subject:
    """A network, and what attacks on it follow.

    Attributes:
        network: Whose layers are looked at.
        followed: A substitute, if the network has no gradient; None: the network itself.
        why: Why it has none; empty if it has one.
    """

    network: ObservedNetwork
    followed: LogitsOf | None = None
    why: str = ""


def subject_of(
    bundle: Bundle, taps: Sequence[str], images: LabelledImages, count: int, seed: int, progress: Progress
) -> Subject:
    """Open a bundle's float32 network; train a substitute if it has no gradient.

    Args:
        bundle: Opened.
        taps: Layers whose activations are asked for.
        images: Training images, of which the substitute learns.
        count: How many of them.
        seed: Of the choice of images, and of the substitute.
        progress: Called during the work.

    Raises:
        BundleError: The bundle has no float32 network, or its logits come from no linear layer.
    """
    depth = bundle.preprocess.depth
    chosen = images.images[np.random.default_rng(seed).permutation(len(images))[:count]]
    pixels = to_pixels(chosen, depth)
    try:
        network = Network.from_bundle(bundle, taps)
        why = "" if _has_gradient(network, pixels[:_PROBED]) else "its gradient is zero or no number for most images"
    except BundleError as error:
        if "fp32" not in bundle.models:
            raise
        why = str(error).partition(": ")[2].partition(";")[0]
    if not why:
        return Subject(network)
    engine = EngineNetwork(bundle.model_path("fp32"), PixelInput(bundle.preprocess), taps)
    return Subject(engine, imitate(engine, pixels, seed, progress), why)


def _has_gradient(network: Network, pixels: torch.Tensor) -> bool:
    labels = network(pixels).argmax(1)
    try:
        gradient = gradient_of(network, pixels, labels, LOSSES["margin"])[2]
    except UsageError:  # a constant between the pixels and the logits, as torch sees it
        return False
    largest = gradient.flatten(1).abs().amax(1)
    return float((torch.isfinite(largest) & (largest > 0)).float().mean()) >= _ENOUGH
