"""The answers of a better network, from which another one learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from framegate.models.checkpoint import load_checkpoint
from framegate.models.datasets import DataSet
from framegate.models.held_out import require_same_copy
from framegate.models.labelled import LabelledImages
from framegate.models.predict import predict
from framegate.models.registry import architecture
from framegate.runtime.backends.base import infer
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.console import progress_bar
from framegate.runtime.errors import DataError
from framegate.runtime.preprocess import Preprocessor

Images = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]
Answers = Callable[[Images], Logits]
_STEP = 250
_ENGINE = "onnxruntime"
"""Computes float32 as it is written, on every machine."""


def teacher_logits(path: Path, data: DataSet, images: LabelledImages, train: LabelledImages, device: str) -> Tensor:
    """The teacher's answers to the plain training images.

    Args:
        path: A checkpoint, or the folder of a bundle.
        data: What is trained on.
        images: Its whole training split.
        train: The images of it that train.
        device: Where a checkpoint computes; a bundle computes on the CPU.

    Returns:
        (N, classes) float32 logits.

    Raises:
        BackendError: ONNX Runtime is not installed; said of bundles only.
        BundleError: The folder is no bundle of a classifier.
        DataError: The checkpoint cannot be read, or the teacher has other labels or another copy of the data set.
    """
    answers, notes = _of_bundle(path, data) if path.is_dir() else _of_checkpoint(path, data, device)
    require_same_copy(f"--teacher {path}", notes, data.name, data.title, images)
    parts = []
    with progress_bar() as progress:
        for k in range(0, len(train), _STEP):
            parts.append(answers(train.images[k : k + _STEP]))
            progress("teacher", min(k + _STEP, len(train)), len(train))
    return torch.from_numpy(np.concatenate(parts))


def _of_checkpoint(path: Path, data: DataSet, device: str) -> tuple[Answers, Mapping[str, Any]]:
    teacher, record = load_checkpoint(path)
    _require_same_labels(path, tuple(record["labels"]), data, record["notes"].get("data", "other data"))
    spec = architecture(record["architecture"]["name"]).preprocess
    teacher.to(device)
    return lambda images: predict(teacher, images, spec), record["notes"]


def _of_bundle(path: Path, data: DataSet) -> tuple[Answers, Mapping[str, Any]]:
    bundle = Bundle.open(path).for_classifiers("train --teacher")
    _require_same_labels(path, bundle.labels, data, "other data")
    preprocess, engine = Preprocessor(bundle.preprocess), load_backend(_ENGINE, bundle.model_path("fp32"))
    engine.bind(preprocess.tensor)

    def answers(images: Images) -> Logits:
        found = np.empty((len(images), len(bundle.labels)), np.float32)
        for k, image in enumerate(images):
            preprocess(image)
            found[k] = infer(engine)[0]
        return found

    training = bundle.origin.get("training")
    return answers, training if isinstance(training, Mapping) else {}


def _require_same_labels(path: Path, labels: tuple[str, ...], data: DataSet, trained_on: str) -> None:
    if labels != data.labels:
        raise DataError(
            f"teacher {path}: trained on {trained_on} with {len(labels)} labels, {data.name} has {len(data.labels)} of "
            f"its own; give one trained on {data.name}"
        )
