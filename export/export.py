"""One road from a network to a bundle, whoever trained the network.

    checkpoint or ONNX file -> float32 ONNX -> float16, INT8 -> checks, calibration -> known answers -> bundle

What depends on where a network comes from lies in `framegate.export.trained_checkpoint` and
`framegate.export.onnx_classifier`; both give an `Exportable`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from framegate.export import bundle_writer
from framegate.export.calibration.attempts import INT8_MAKING, int8_making
from framegate.export.calibration.calibrate import Promise, fingerprint
from framegate.export.calibration.design import division_seed, split_units
from framegate.export.checks.assess import Assessment, Reference
from framegate.export.checks.half import check_half
from framegate.export.checks.parity import ParityRow
from framegate.export.data.outputs import CPU_BACKENDS, Images
from framegate.export.data.splits import Splits, check_disjoint
from framegate.export.foreign_errors import first_line
from framegate.export.graph.graph import save, store_half
from framegate.export.graph.half import HALF, half_file
from framegate.export.int8.choice import GOOD_DIFFERENCE, HELD_OUT, Int8Choice, Int8Work, choose_int8
from framegate.export.int8.sensitivity import LayerSensitivity
from framegate.export.known_answers import write_known_answers
from framegate.export.progress import Progress, whole_export
from framegate.runtime.bundle.calibration import Calibration, record_key
from framegate.runtime.errors import DataError, ExportRefusedError, FramegateError
from framegate.runtime.preprocess import PreprocessSpec

QUANTISER_IMAGES = 256
"""Training images whose activations set the INT8 ranges."""
MODELS = {"fp32": "model.fp32.onnx", "int8": "model.int8.onnx"}
"""What the CPU backends run, hence what an export calibrates."""


class Exportable(Protocol):
    """A network that can become a bundle."""

    @property
    def labels(self) -> tuple[str, ...]:
        """One per output."""

    @property
    def preprocess(self) -> PreprocessSpec:
        """How an image becomes the network's input."""

    @property
    def taps(self) -> tuple[str, ...]:
        """Layers whose activations can be watched, from early to late; may be empty."""

    @property
    def needs_every_precision(self) -> bool:
        """True: without float16 or INT8 the export is refused. False: the bundle goes without, and says why."""

    def check(self, splits: Splits) -> None:
        """Look at what can be wrong before the long work, on real images.

        Raises:
            FramegateError: Something is.
        """

    def graph(self, progress: Progress) -> onnx.ModelProto:
        """The network in float32: input ``image``, output ``logits``, batch normalisation folded.

        Raises:
            ExportRefusedError: It has no form that all engines read.
        """

    def reference(self, splits: Splits, progress: Progress) -> Reference:
        """What the network computed before the export touched it; every exported file is compared with this."""

    def origin(self) -> dict[str, Any]:
        """Where it comes from, for the manifest; ``weights`` is a sentence for people."""

    def notes(self) -> list[str]:
        """What the export found out about it, one line each."""


@dataclass(frozen=True)
class Int8Making:
    """How the INT8 network is made.

    Attributes:
        ranges: One of `framegate.export.int8.choice.FAMILIES`.
        tune: Steps of fine-tuning; 0: none.
        seed: Of the draw of images.
    """

    ranges: str
    tune: int
    seed: int


@dataclass(frozen=True)
class ExportReport:
    """What an export found out.

    Attributes:
        bundle: Where it lies.
        parity: First the network as it came, then every backend and precision.
        calibrations: ``backend/precision`` -> calibration.
        sizes: File name -> bytes.
        int8: How the INT8 file came about; None if there is none.
        missing: Why the bundle lacks a precision, one line each.
    """

    bundle: Path
    parity: list[ParityRow]
    calibrations: Mapping[str, Calibration]
    sizes: Mapping[str, int]
    int8: Int8Choice | None
    missing: tuple[str, ...]


def export_bundle(
    network: Exportable,
    splits: Splits,
    target: Path,
    promise: Promise,
    progress: Progress,
    *,
    origin: str = "",
    force: bool = False,
    int8_ranges: str = "auto",
    with_int8: bool = True,
    tune_int8: int = 0,
) -> ExportReport:
    """Check, derive, calibrate and write; on any error nothing is left behind and an old bundle stays.

    Args:
        network: What is exported.
        splits: Disjoint images. Where nobody says that the network never saw those for calibration and test, nothing is
            calibrated unless the promise is given up (`Promise.proved`). The bundle stores the first few test images,
            on which engines are asked whether they still compute what was exported.
        target: ``NAME.bundle``.
        promise: What the calibrations shall promise.
        progress: Called during the work.
        origin: Where the weights come from and under which licence, for people; empty: what the network itself says.
        force: Replace an existing bundle.
        int8_ranges: One of `framegate.export.int8.choice.FAMILIES`.
        with_int8: False leaves the INT8 network out, which takes most of the time.
        tune_int8: Steps of fine-tuning of the INT8 network (`framegate.export.int8.fine_tuning`); 0: none.

    Raises:
        BundleError: The target cannot be written.
        DataError: The data have other labels than the network.
        ExportRefusedError: The network is not what it was said to be, or an exported file lost accuracy or cannot be
            made.
        CalibrationError: No threshold keeps the promise.
        BackendError: An engine does not run the network.
        UsageError: The network cannot be fine-tuned.
    """
    bundle_writer.check_target(target, force)
    if splits.names != network.labels:
        raise DataError(
            f"export: the network knows the labels {_short(network.labels)}, the data have {_short(splits.names)}; "
            "give data with the network's labels, in the order of its outputs"
        )
    network.check(splits)
    check_disjoint(splits)
    issued = bool(splits.unseen) or not promise.proved
    promise = promise if splits.unseen else replace(promise, proved=False)
    images = len(splits.test) + len(splits.calibration)
    progress = whole_export(progress, images, len(quantiser_images(splits, promise.seed)[0]), with_int8, tune_int8)
    with bundle_writer.staged(target, force) as folder:
        float_file = folder / MODELS["fp32"]
        graph = network.graph(progress)
        if tune_int8:
            # PyTorch takes a second to load, and most exports of ONNX files do without.
            from framegate.export.int8.fine_tuning import check_tunable

            check_tunable(graph, network.preprocess, tune_int8)
        save(store_half(graph), float_file)
        making = int8_making(int8_ranges, tune_int8) if with_int8 else ()
        assessment = Assessment(network.reference(splits, progress), splits, promise, making)
        # float32 first: what it cannot do, nothing that is derived from it can.
        assessment.add("fp32", float_file, network.preprocess, progress)
        no_half = _add_half(network, splits, folder)
        int8, no_int8 = None, "no INT8 file: none was asked for (--no-int8)"
        if with_int8:
            how = Int8Making(int8_ranges, tune_int8, promise.seed)
            int8, no_int8 = _add_int8(network, graph, splits, folder, assessment, how, progress)
        missing = tuple(reason for reason in (no_half, no_int8) if reason)
        models = {name: file for name, file in {**MODELS, "fp16": HALF}.items() if (folder / file).exists()}
        write_known_answers(folder, models, network.preprocess, splits.test.images)
        calibrations = assessment.calibrations if issued else {}
        bundle_writer.write_calibration(folder, calibrations)
        bundle_writer.write_manifest(
            folder,
            name=target.stem,
            labels=network.labels,
            preprocess=network.preprocess,
            models=models,
            taps=network.taps,
            origin=_origin(network, origin, int8, missing) | ({INT8_MAKING: list(making)} if making else {}),
            parity=[row.to_json() for row in assessment.table()],
        )
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return ExportReport(target, assessment.table(), calibrations, sizes, int8, missing)


def quantiser_images(splits: Splits, seed: int) -> tuple[Images, Images]:
    """Training images that set INT8 ranges, and calibration images that prove no threshold, which judge them."""
    count = min(QUANTISER_IMAGES, len(splits.train))
    chosen = np.random.default_rng(seed).choice(len(splits.train), count, replace=False)
    return splits.train.images[chosen], splits.calibration.images[_held_out(splits)]


def _held_out(splits: Splits) -> npt.NDArray[np.int64]:
    """Positions of the calibration images that judge INT8: of those that prove no threshold."""
    split = splits.calibration
    design, _ = split_units(len(split), split.groups, division_seed(fingerprint(split)))
    return design[:HELD_OUT]


def _add_half(network: Exportable, splits: Splits, folder: Path) -> str:
    """Write the float16 file if the network survives float16. Returns why there is none, or an empty string."""
    try:
        half_file(folder / MODELS["fp32"], folder / HALF)
        check_half(folder / MODELS["fp32"], folder / HALF, network.preprocess, splits.train.images)
    except ExportRefusedError as error:
        if network.needs_every_precision:
            raise
        (folder / HALF).unlink(missing_ok=True)
        return f"no float16 file: {error}"
    return ""


def _add_int8(
    network: Exportable,
    graph: onnx.ModelProto,
    splits: Splits,
    folder: Path,
    assessment: Assessment,
    making: Int8Making,
    progress: Progress,
) -> tuple[Int8Choice | None, str]:
    """Write and calibrate the INT8 file if it can be made and loses nothing.

    Returns:
        How it came about (None if it did not), and why there is no file (empty if there is one).
    """
    file, spec = folder / MODELS["int8"], network.preprocess
    images, held_out = quantiser_images(splits, making.seed)
    try:
        sensitivity = LayerSensitivity(graph, images, spec, progress)
        expected = assessment.calibration_outputs[record_key(CPU_BACKENDS[0], "fp32")]
        work = Int8Work(graph, images, held_out, spec, progress, expected.logits[_held_out(splits)])
        choice = choose_int8(graph, images, held_out, spec, sensitivity, making.ranges, progress, None, work)
        if making.tune:
            choice = work.fine_tuned(choice, splits.train.images, making.tune)
        save(store_half(choice.model), file)
        try:
            assessment.add("int8", file, spec, progress)
        except ExportRefusedError:
            # Once more with more layers in float32; a third try would be a choice by the test images.
            finer = choose_int8(
                graph, images, held_out, spec, sensitivity, making.ranges, progress, GOOD_DIFFERENCE / 3, work
            )
            if finer.keep_float == choice.keep_float:
                raise
            if making.tune:
                finer = work.fine_tuned(finer, splits.train.images, making.tune)
            choice = finer
            save(store_half(choice.model), file)
            assessment.add("int8", file, spec, progress)
    except Exception as error:  # an unusual graph makes quantisers raise exceptions of many classes
        if network.needs_every_precision:
            raise
        file.unlink(missing_ok=True)
        reason = str(error) if isinstance(error, FramegateError) else first_line(error)
        return None, f"no INT8 file: {reason}"
    return choice, ""


def _origin(network: Exportable, text: str, int8: Int8Choice | None, missing: tuple[str, ...]) -> dict[str, Any]:
    return {
        **network.origin(),
        **({"weights": text} if text else {}),
        **(int8.to_json() if int8 is not None else {}),
        **({"missing": "; ".join(missing)} if missing else {}),
    }


def _short(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''} ({len(names)})"
