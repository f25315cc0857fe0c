"""A checkpoint of ``framegate train`` as a network that can become a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from framegate.export.calibration.decisions import Outputs
from framegate.export.checks.assess import Reference
from framegate.export.data.outputs import STEP, Images, Logits
from framegate.export.data.splits import Splits
from framegate.export.graph.fold import deployment_model
from framegate.export.graph.translate import to_onnx
from framegate.export.progress import Progress
from framegate.models.checkpoint import PACKED, checkpoint_content, load_checkpoint
from framegate.models.predict import predict
from framegate.models.registry import Architecture, architecture
from framegate.runtime.preprocess import PreprocessSpec


@dataclass(frozen=True, eq=False)
class TrainedCheckpoint:
    """See `framegate.export.export.Exportable`.

    Attributes:
        path: The file.
        model: The trained network, in evaluation mode.
        record: What the checkpoint says about it: ``architecture``, ``labels``, ``notes``.
        needs_every_precision: True: framegate's own architectures are made for every precision, so one that loses
            accuracy was not trained well enough.
    """

    path: Path
    model: nn.Module
    record: Mapping[str, Any]
    needs_every_precision: bool = True

    @classmethod
    def read(cls, path: Path) -> TrainedCheckpoint:
        """Read the file.

        Raises:
            DataError: It is missing, damaged or of another kind.
        """
        return cls(path, *load_checkpoint(path))

    @property
    def labels(self) -> tuple[str, ...]:
        """See `Exportable.labels`."""
        return tuple(str(label) for label in self.record["labels"])

    @property
    def preprocess(self) -> PreprocessSpec:
        """See `Exportable.preprocess`."""
        return self._architecture.preprocess

    @property
    def taps(self) -> tuple[str, ...]:
        """See `Exportable.taps`."""
        return self._architecture.taps

    @property
    def _architecture(self) -> Architecture:
        return architecture(self.record["architecture"]["name"])

    def check(self, splits: Splits) -> None:
        """See `Exportable.check`: size, scaling and labels are recorded, so there is nothing to guess."""

    def graph(self, progress: Progress) -> onnx.ModelProto:
        """See `Exportable.graph`."""
        progress("fold and translate", 0, 1)
        graph = to_onnx(deployment_model(self.model), self.preprocess)
        progress("fold and translate", 1, 1)
        return graph

    def reference(self, splits: Splits, progress: Progress) -> Reference:
        """See `Exportable.reference`: the trained network in PyTorch."""
        total, done = len(splits.test) + len(splits.calibration), 0

        def logits(images: Images) -> Logits:
            nonlocal done
            parts = []
            for k in range(0, len(images), STEP):
                parts.append(predict(self.model, images[k : k + STEP], self.preprocess))
                done += len(parts[-1])
                progress("torch, the trained network", done, total)
            return np.concatenate(parts)

        test, calibration = logits(splits.test.images), logits(splits.calibration.images)
        return Reference("torch", f"torch {torch.__version__}", Outputs(test), Outputs(calibration))

    def origin(self) -> dict[str, Any]:
        """See `Exportable.origin`."""
        notes = self.record["notes"]
        return {
            "weights": str(notes.get("origin") or _weights(self.record["architecture"]["name"], notes)),
            "checkpoint": self.path.name.removesuffix(PACKED),
            "checkpoint_sha256": hashlib.sha256(checkpoint_content(self.path)).hexdigest(),
            "architecture": self.record["architecture"],
            "training": notes,
        }

    def notes(self) -> list[str]:
        """See `Exportable.notes`."""
        return []


def _weights(architecture: str, notes: Mapping[str, Any]) -> str:
    """Where weights come from, as far as the record of their training says so.

    Args:
        architecture: Its name.
        notes: Of `framegate train`.
    """
    settings = notes.get("settings")
    # The hybrid begins with a trunk, and a further training with another checkpoint, whose origin is not known.
    if not notes.get("data") or not isinstance(settings, Mapping) or notes.get("start") or architecture == "hybrid":
        return "not stated"
    said = f"trained from scratch by framegate train on {notes['data']}"
    if settings.get("adversarial", "none") != "none":
        said += f", against attacks ({settings['adversarial']}, {settings['epsilon'] * 255:g}/255)"
    return said + (f", taught by {notes['teacher']}" if notes.get("teacher") else "")
