"""Pushes frames through a network and keeps what scores need: logits, features, tap statistics, input statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from framegate.evaluation.frames.network import Network
from framegate.evaluation.frames.observations import NO_LABEL, Observations
from framegate.evaluation.scores.activation import fit_edges, tap_statistics
from framegate.evaluation.scores.input import control_statistics
from framegate.models.pixels import to_pixels
from framegate.models.training.batches import Progress
from framegate.runtime.errors import CalibrationError

BATCH = 64
"""Frames per forward pass: activations of more do not stay in a processor's cache."""
EDGE_FRAMES = 256
Read = Callable[[slice], Tensor]


class Observer:
    """Observes sets of frames with one network; histogram edges are fitted once, on calibration frames.

    Args:
        network: What is observed.
        depth: Slices of a volume; 1 for images.
        progress: Called after every batch.
    """

    def __init__(self, network: Network, depth: int, progress: Progress) -> None:
        self.network, self.depth, self.progress = network, depth, progress
        self.edges: dict[str, Tensor] = {}

    @torch.no_grad()
    def fit_edges(self, images: npt.NDArray[np.uint8]) -> None:
        """Fix the histogram edges of every tap; a tap without a positive activation gets no histogram."""
        batches: dict[str, list[Tensor]] = {tap: [] for tap in self.network.taps}
        for k in range(0, min(EDGE_FRAMES, len(images)), BATCH):
            _, _, activations = self.network.observe(to_pixels(images[k : k + BATCH], self.depth))
            for tap, activation in activations.items():
                batches[tap].append(activation)
        for tap, parts in batches.items():
            try:
                self.edges[tap] = fit_edges(parts)
            except CalibrationError:
                continue

    def images(self, name: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64] | None) -> Observations:
        """Observe camera images.

        Args:
            name: What the set is called.
            images: (N, h, w, 3) uint8 BGR.
            labels: (N,), None for frames without a label of this network.
        """
        return self._observe(name, len(images), labels, lambda part: to_pixels(images[part], self.depth))

    def pixels(self, name: str, pixels: Tensor, labels: npt.NDArray[np.int64] | None) -> Observations:
        """Observe frames given as pixels in [0, 1], such as attacked ones."""
        return self._observe(name, len(pixels), labels, lambda part: pixels[part])

    @torch.no_grad()
    def _observe(self, name: str, count: int, labels: npt.NDArray[np.int64] | None, read: Read) -> Observations:
        logits, features, taps, controls = [], [], [], []
        for k in range(0, count, BATCH):
            pixels = read(slice(k, min(k + BATCH, count)))
            found, penultimate, activations = self.network.observe(pixels)
            logits.append(found.numpy())
            features.append(penultimate.numpy())
            statistics: dict[str, npt.NDArray[np.float64]] = {}
            for tap, activation in activations.items():
                statistics |= tap_statistics(tap, activation, self.edges.get(tap))
            taps.append(statistics)
            controls.append(control_statistics(pixels))
            self.progress(f"observe {name}", min(k + BATCH, count), count)
        known = np.full(count, NO_LABEL, np.int64) if labels is None else labels
        return Observations(
            name, np.concatenate(logits), known, np.concatenate(features), _joined(taps), _joined(controls)
        )


def _joined(parts: list[dict[str, npt.NDArray[np.float64]]]) -> Mapping[str, npt.NDArray[np.float64]]:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
