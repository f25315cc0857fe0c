"""Logits of a network in PyTorch; apart from `model_outputs`, so that calibrating a bundle needs no PyTorch."""

from __future__ import annotations

import numpy as np
from torch import nn

from framegate.export.data.outputs import STEP, Images, Logits, Progress
from framegate.models.predict import predict
from framegate.runtime.preprocess import PreprocessSpec


def torch_logits(
    model: nn.Module, spec: PreprocessSpec, image_sets: dict[str, Images], progress: Progress
) -> dict[str, Logits]:
    """The trained network's logits, the reference that every exported file is compared with."""
    total = sum(len(images) for images in image_sets.values())
    done = 0
    logits = {}
    for name, images in image_sets.items():
        parts = []
        for k in range(0, len(images), STEP):
            parts.append(predict(model, images[k : k + STEP], spec))
            done += len(parts[-1])
            progress("torch, the trained network", done, total)
        logits[name] = np.concatenate(parts)
    return logits
