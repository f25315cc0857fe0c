"""The whole way from a checkpoint to a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from framegate.export import bundle_writer
from framegate.export.calibration.calibrate import Promise
from framegate.export.calibration.decisions import Outputs
from framegate.export.calibration.design import split_units
from framegate.export.checks.assess import Assessment, Reference, assess_all
from framegate.export.checks.half import check_half
from framegate.export.checks.parity import ParityRow
from framegate.export.data.outputs import Images, Progress
from framegate.export.data.outputs_torch import torch_logits
from framegate.export.data.splits import Splits
from framegate.export.graph import graph as onnx_graph
from framegate.export.graph.fold import deployment_model
from framegate.export.graph.half import HALF, half_file
from framegate.export.int8.choice import HELD_OUT, Int8Choice, choose_int8
from framegate.export.int8.sensitivity_torch import logit_changes
from framegate.models.checkpoint import load_checkpoint
from framegate.models.registry import architecture
from framegate.runtime.bundle import sha256_file
from framegate.runtime.calibration import Calibration
from framegate.runtime.errors import DataError
from framegate.runtime.preprocess import PreprocessSpec

QUANTISER_IMAGES = 512
"""Training images whose activations set the INT8 ranges."""
MODELS = {"fp32": "model.fp32.onnx", "int8": "model.int8.onnx"}
"""What the CPU backends run, hence what an export calibrates."""
"""For GPUs: the float32 network in float16, its large weights in the float32 file."""


@dataclass(frozen=True)
class ExportReport:
    """What an export found out.

    Attributes:
        bundle: Where it lies.
        parity: First the trained network, then every backend and precision.
        calibrations: ``backend/precision`` -> calibration.
        sizes: File name -> bytes.
        int8: How the INT8 file came about; None if there is none.
    """

    bundle: Path
    parity: list[ParityRow]
    calibrations: Mapping[str, Calibration]
    sizes: Mapping[str, int]
    int8: Int8Choice | None


def quantiser_images(splits: Splits, seed: int) -> tuple[Images, Images]:
    """Training images that set INT8 ranges, and calibration images that prove no threshold, which judge them."""
    count = min(QUANTISER_IMAGES, len(splits.train))
    chosen = np.random.default_rng(seed).choice(len(splits.train), count, replace=False)
    design, _ = split_units(len(splits.calibration), splits.calibration.groups, seed)
    return splits.train.images[chosen], splits.calibration.images[design[:HELD_OUT]]


def write_models(
    model: nn.Module, spec: PreprocessSpec, splits: Splits, folder: Path, seed: int, ranges: str, progress: Progress
) -> Int8Choice:
    """Write ``model.fp32.onnx``, ``model.fp16.onnx`` and ``model.int8.onnx``.

    Returns:
        How the INT8 file came about.

    Raises:
        ExportRefusedError: The network cannot be folded, exported or quantised in the form that all engines read.
    """
    progress("fold and translate", 0, 1)
    deployed = deployment_model(model)
    graph = onnx_graph.to_onnx(deployed, spec)
    onnx_graph.save(onnx_graph.store_half(graph), folder / MODELS["fp32"])
    half_file(folder / MODELS["fp32"], folder / HALF)
    progress("fold and translate", 1, 1)
    images, held_out = quantiser_images(splits, seed)
    changes = logit_changes(deployed, images, spec, progress)
    choice = choose_int8(graph, images, held_out, spec, changes, ranges, progress)
    onnx_graph.save(onnx_graph.store_half(choice.model), folder / MODELS["int8"])
    return choice


def export_bundle(
    checkpoint: Path,
    splits: Splits,
    target: Path,
    promise: Promise,
    origin: str,
    force: bool,
    progress: Progress,
    int8_ranges: str = "auto",
) -> ExportReport:
    """Export, compare, calibrate and write; on any error nothing is left behind and an old bundle stays.

    Args:
        checkpoint: Written by ``framegate train``.
        splits: Disjoint images.
        target: ``NAME.bundle``.
        promise: What the calibrations shall promise.
        origin: Where the weights come from and under which licence, for people; may be empty.
        force: Replace an existing bundle.
        progress: Called during the work.
        int8_ranges: One of `framegate.export.int8.choice.FAMILIES`.

    Raises:
        DataError: The checkpoint cannot be used with these data.
        BundleError: The target cannot be written.
        ExportRefusedError: An exported file lost accuracy, or cannot be made.
        CalibrationError: No threshold keeps the promise.
    """
    bundle_writer.check_target(target, force)
    model, record = load_checkpoint(checkpoint)
    labels = tuple(str(label) for label in record["labels"])
    if labels != splits.names:
        raise DataError(
            f"checkpoint {checkpoint}: trained on labels {_short(labels)}, the data have {_short(splits.names)}; "
            "give the data set it was trained on"
        )
    network = architecture(record["architecture"]["name"])
    with bundle_writer.staged(target, force) as folder:
        choice = write_models(model, network.preprocess, splits, folder, promise.seed, int8_ranges, progress)
        parity, calibrations = _compare_and_calibrate(model, network.preprocess, folder, splits, promise, progress)
        check_half(folder / MODELS["fp32"], folder / HALF, network.preprocess, splits.train.images)
        bundle_writer.write_calibration(folder, calibrations)
        bundle_writer.write_manifest(
            folder,
            name=target.stem,
            labels=labels,
            preprocess=network.preprocess,
            models={**MODELS, "fp16": HALF},
            taps=network.taps,
            origin={**_origin(checkpoint, record, origin), **choice.to_json()},
            parity=[row.to_json() for row in parity],
        )
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return ExportReport(target, parity, calibrations, sizes, choice)


def _compare_and_calibrate(
    model: nn.Module, spec: PreprocessSpec, folder: Path, splits: Splits, promise: Promise, progress: Progress
) -> tuple[list[ParityRow], dict[str, Calibration]]:
    """Gate, calibrate and compare every backend and precision with the trained network."""
    image_sets = {"test": splits.test.images, "calibration": splits.calibration.images}
    outputs = torch_logits(model, spec, image_sets, progress)
    reference = Reference(
        "torch", f"torch {torch.__version__}", Outputs(outputs["test"]), Outputs(outputs["calibration"])
    )
    assessment = Assessment(reference, splits, promise)
    assess_all(assessment, folder, MODELS, spec, progress)
    return assessment.table(), assessment.calibrations


def _short(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''} ({len(names)})"


def _origin(checkpoint: Path, record: Mapping[str, Any], text: str) -> dict[str, Any]:
    return {
        "weights": text or str(record["notes"].get("origin", "not stated")),
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": sha256_file(checkpoint),
        "architecture": record["architecture"],
        "training": record["notes"],
    }
