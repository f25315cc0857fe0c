"""From a segmentation network as ONNX file to a dense bundle, with a promise about one region of its frames."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from framegate.export.bundle_writer import replace_calibrations, staged, update_manifest, write_manifest
from framegate.export.data.dense_folder import DensePictures
from framegate.export.dense_promise import BACKENDS, DensePromise, calibrate_dense
from framegate.export.graph.graph import strip
from framegate.export.graph.source import ImageInput
from framegate.export.known_answers import write_known_answers
from framegate.export.progress import Progress
from framegate.runtime.backends.raw_outputs import open_raw
from framegate.runtime.bundle.bundle import Bundle, sha256_file
from framegate.runtime.dense.spec import DenseSpec
from framegate.runtime.errors import UsageError
from framegate.runtime.preprocess import PreprocessSpec
from framegate.runtime.session import Session

_ANSWERS = 2
"""Known answers: a dense network's pictures are large, and each has thousands of pixels that were asked."""


@dataclass(frozen=True, eq=False)
class OnnxDense:
    """A segmentation network that was read.

    Attributes:
        path: The file.
        model: What it holds; its only output gives the logits (1, C, rows, columns).
        labels: One per class.
        preprocess: How a frame becomes its input.
        spec: Its region; what makes a pixel usable is set by the calibration.
    """

    path: Path
    model: onnx.ModelProto
    labels: tuple[str, ...]
    preprocess: PreprocessSpec
    spec: DenseSpec


def require_map(model: onnx.ModelProto, image: ImageInput, width: int, height: int, labels: tuple[str, ...]) -> None:
    """Run the network once, and refuse what gives no map of logits.

    Args:
        model: The network.
        image: Its input.
        width: Of the input, in pixels.
        height: Of the input.
        labels: One per class.

    Raises:
        UsageError: Its input is no colour image in the order NCHW, or its output no map with a channel for each label.
        BackendError: It cannot be run.
    """
    if image.layout != "nchw" or image.channels != 3:
        raise UsageError(
            f"dense: its input has the layout {image.layout.upper()} with {image.channels} channels, expected NCHW "
            "with three; export the model again with this order"
        )
    with tempfile.TemporaryDirectory(prefix="framegate-export-") as folder:
        file = Path(folder) / "dense.onnx"
        onnx.save(model, file)
        outputs = open_raw(file, np.full((1, 3, height, width), 0.5, np.float32)).run()
    shapes = ", ".join(f"{name} {tuple(values.shape)}" for name, values in outputs.items())
    first = next(iter(outputs.values()))
    if len(outputs) != 1 or first.ndim != 4 or first.shape[:2] != (1, len(labels)):
        raise UsageError(
            f"dense: the outputs are {shapes}; expected one with logits (1, {len(labels)}, rows, columns), a channel "
            "for each label. A class number for each pixel (argmax) does not say how sure it is: export the logits"
        )


def export_dense(
    network: OnnxDense,
    pictures: DensePictures,
    promise: DensePromise,
    unseen: str,
    out: Path,
    origin: str,
    force: bool,
    progress: Progress,
) -> Bundle:
    """Write the bundle, calibrate it, and open it as it will be opened in the vehicle.

    Args:
        network: What was read.
        pictures: Labelled ones.
        promise: What shall be proved.
        unseen: Who says that the network never saw them.
        out: ``NAME.bundle``.
        origin: Where weights and data come from and their licence; empty if not stated.
        force: Replace an existing bundle.
        progress: Called during the work.

    Raises:
        BundleError: It cannot be written.
        BackendError: No engine here runs it.
        CalibrationError: No threshold keeps the promise.
    """
    about: dict[str, Any] = {
        "weights": origin or "not stated",
        "source": network.path.name,
        "source_sha256": sha256_file(network.path),
    }
    models = {"fp32": "model.fp32.onnx"}
    with staged(out, force) as folder:
        strip(network.model)  # source lines of the machine that wrote it, say
        onnx.save(network.model, folder / models["fp32"])
        write_known_answers(folder, models, network.preprocess, pictures.images, _ANSWERS)
        write_manifest(
            folder, name=out.stem, labels=network.labels, preprocess=network.preprocess, models=models, taps=(),
            origin=about, parity=[],
        )  # fmt: skip
        update_manifest(folder, dense=network.spec.to_json(), outputs=[o.name for o in network.model.graph.output])
        spec, records = calibrate_dense(
            Bundle.open(folder), network.spec, pictures, promise, unseen, BACKENDS, progress
        )
        update_manifest(folder, dense=spec.to_json())
        replace_calibrations(folder, records)
        Session.open(Bundle.open(folder), BACKENDS[0])
    return Bundle.open(out)
