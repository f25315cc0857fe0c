"""The whole way from an ONNX classifier that somebody else trained to a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from framegate.export import bundle_writer
from framegate.export.calibration.calibrate import Promise
from framegate.export.calibration.decisions import Outputs
from framegate.export.checks.assess import Assessment, Reference
from framegate.export.checks.half import check_half
from framegate.export.checks.pixel_scaling import check_scaling
from framegate.export.data.outputs import STEP, Images, Logits, Progress
from framegate.export.data.splits import Splits
from framegate.export.export_bundle import MODELS, ExportReport, quantiser_images
from framegate.export.graph import graph as onnx_graph
from framegate.export.graph.half import HALF, half_file
from framegate.export.graph.prepare import Prepared, check_same_function
from framegate.export.int8.choice import Int8Choice, choose_int8
from framegate.export.int8.sensitivity import logit_changes
from framegate.runtime.bundle import sha256_file
from framegate.runtime.errors import ExportRefusedError
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

COMPARED = 16
"""Real images on which the prepared network must equal the original."""


@dataclass(frozen=True)
class ForeignExport:
    """What was asked for.

    Attributes:
        source: The ONNX file, for messages and the manifest.
        prepared: The network in a bundle's form.
        labels: One per output.
        spec: How an image becomes the network's input.
        promise: What the calibrations shall promise.
        origin: Where the weights come from and under which licence, for people; may be empty.
        int8_ranges: One of `framegate.export.int8.choice.FAMILIES`.
    """

    source: Path
    prepared: Prepared
    labels: tuple[str, ...]
    spec: PreprocessSpec
    promise: Promise
    origin: str
    int8_ranges: str = "auto"


def export_onnx(
    asked: ForeignExport, splits: Splits, target: Path, force: bool, progress: Progress
) -> tuple[ExportReport, list[str]]:
    """Check, quantise, calibrate and write; on any error nothing is left behind and an old bundle stays.

    Args:
        asked: What was asked for.
        splits: Disjoint images that the network was not trained on.
        target: ``NAME.bundle``.
        force: Replace an existing bundle.
        progress: Called during the work.

    Returns:
        The report, and why the bundle lacks a precision, one line each.

    Raises:
        BundleError: The target cannot be written.
        ExportRefusedError: The network is not what it was said to be.
        CalibrationError: No threshold keeps the promise.
        BackendError: An engine does not run the network.
    """
    bundle_writer.check_target(target, force)
    check_same_function(asked.prepared, _tensors(splits.train.images[:COMPARED], asked.spec), asked.source)
    check_scaling(asked.prepared.model, asked.spec, splits.train)
    with bundle_writer.staged(target, force) as folder:
        onnx_graph.save(onnx_graph.store_half(asked.prepared.model), folder / MODELS["fp32"])
        assessment = Assessment(_reference(asked, splits, progress), splits, asked.promise)
        assessment.add("fp32", folder / MODELS["fp32"], asked.spec, progress)
        without_half = _add_half(asked, splits, folder)
        choice, without_int8 = _add_int8(asked, splits, folder, assessment, progress)
        files = {**MODELS, "fp16": HALF}
        missing = [line for line in (without_half, without_int8) if line]
        models = {name: file for name, file in files.items() if (folder / file).exists()}
        bundle_writer.write_calibration(folder, assessment.calibrations)
        bundle_writer.write_manifest(
            folder,
            name=target.stem,
            labels=asked.labels,
            preprocess=asked.spec,
            models=models,
            taps=(),
            origin=_origin(asked, choice, missing),
            parity=[row.to_json() for row in assessment.table()],
        )
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return ExportReport(target, assessment.table(), assessment.calibrations, sizes, choice), missing


def _add_half(asked: ForeignExport, splits: Splits, folder: Path) -> str:
    """Write the float16 file if the network survives float16. Returns why there is none, or an empty string."""
    try:
        half_file(folder / MODELS["fp32"], folder / HALF)
        check_half(folder / MODELS["fp32"], folder / HALF, asked.spec, splits.train.images)
    except ExportRefusedError as error:
        (folder / HALF).unlink(missing_ok=True)
        return f"no float16 file: {error}"
    return ""


def _add_int8(
    asked: ForeignExport, splits: Splits, folder: Path, assessment: Assessment, progress: Progress
) -> tuple[Int8Choice | None, str]:
    """Write and calibrate the INT8 file if it can be made and loses nothing.

    Returns:
        How it came about (None if it did not), and why there is no file (empty if there is one).
    """
    file = folder / MODELS["int8"]
    images, held_out = quantiser_images(splits, asked.promise.seed)
    network, spec = asked.prepared.model, asked.spec
    try:
        changes = logit_changes(network, images, spec, progress)
        choice = choose_int8(network, images, held_out, spec, changes, asked.int8_ranges, progress)
        onnx_graph.save(onnx_graph.store_half(choice.model), file)
        assessment.add("int8", file, asked.spec, progress)
    except Exception as error:  # noqa: BLE001 - quantisers raise whatever an unusual graph provokes; float files stand
        file.unlink(missing_ok=True)
        return None, f"no INT8 file: {(str(error).splitlines() or [type(error).__name__])[0]}"
    return choice, ""


def _reference(asked: ForeignExport, splits: Splits, progress: Progress) -> Reference:
    """The prepared network before anything was done to its numbers, which `check_same_function` has vouched for."""
    session = ort.InferenceSession(asked.prepared.model.SerializeToString(), providers=["CPUExecutionProvider"])
    preprocess = Preprocessor(asked.spec)
    total = len(splits.test) + len(splits.calibration)
    done = 0

    def logits(images: Images) -> Logits:
        nonlocal done
        rows = np.empty((len(images), asked.prepared.classes), np.float32)
        for k, image in enumerate(images):
            rows[k] = session.run(None, {onnx_graph.INPUT: preprocess(image)})[0][0]
            done += 1
            if done % STEP == 0 or done == total:
                progress("the network as it came", done, total)
        return rows

    test, calibration = logits(splits.test.images), logits(splits.calibration.images)
    return Reference("source", f"onnxruntime {ort.__version__}", Outputs(test), Outputs(calibration))


def _tensors(images: Images, spec: PreprocessSpec) -> Logits:
    preprocess = Preprocessor(spec)
    return np.concatenate([preprocess(image).copy() for image in images])


def _origin(asked: ForeignExport, choice: Int8Choice | None, missing: list[str]) -> Mapping[str, object]:
    prepared = asked.prepared
    return {
        "weights": asked.origin or "not stated",
        "source": asked.source.name,
        "source_sha256": sha256_file(asked.source),
        "source_producer": f"{prepared.original.producer_name} {prepared.original.producer_version}".strip(),
        "source_layout": prepared.image.layout,
        "removed": prepared.removed,
        "batch": "1" if prepared.fixed_batch else "any",
        "onnx": f"operator set {onnx_graph.OPSET}, prepared with onnx {onnx.__version__}",
        **(choice.to_json() if choice is not None else {}),
        **({"missing": "; ".join(missing)} if missing else {}),
    }
