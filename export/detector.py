"""From a detector as ONNX file to a detector bundle: the head is found by the shapes of the outputs, or it is refused.

Nothing is calibrated: a detector says where to look, and a classifier's gate decides what may be used. Objects that it
misses are covered by no promise.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from framegate.export.bundle_writer import staged, update_manifest, write_manifest
from framegate.export.graph.source import ImageInput
from framegate.runtime.backends.raw_outputs import open_raw
from framegate.runtime.bundle.bundle import Bundle, sha256_file
from framegate.runtime.errors import UsageError
from framegate.runtime.preprocess import PreprocessSpec
from framegate.runtime.regions.detector import DetectorRegions, DetectorSpec
from framegate.runtime.regions.heads import Head, choose_head


@dataclass(frozen=True, eq=False)
class OnnxDetector:
    """A detector that was read.

    Attributes:
        path: The file.
        model: What it holds.
        labels: One per class.
        head: How its outputs become boxes.
        preprocess: How a picture of its size becomes its input.
        spec: What the bundle says about it.
    """

    path: Path
    model: onnx.ModelProto
    labels: tuple[str, ...]
    head: Head
    preprocess: PreprocessSpec
    spec: DetectorSpec


def find_head(
    model: onnx.ModelProto, image: ImageInput, width: int, height: int, labels: tuple[str, ...], wanted: str | None
) -> Head:
    """Run the network once and look at what it gives.

    Args:
        model: The network.
        image: Its input.
        width: Of the input, in pixels.
        height: Of the input.
        labels: Of the detector.
        wanted: The head that was asked for; None finds it.

    Raises:
        UsageError: Its input is no colour image in the order NCHW, or no head fits; the message has the shapes.
        BackendError: It cannot be run.
    """
    if image.layout != "nchw" or image.channels != 3:
        raise UsageError(
            f"detector: its input has the layout {image.layout.upper()} with {image.channels} channels, expected NCHW "
            "with three; export the model again with this order"
        )
    tensor = np.full((1, 3, height, width), 0.5, np.float32)
    with tempfile.TemporaryDirectory(prefix="framegate-export-") as folder:
        file = Path(folder) / "detector.onnx"
        onnx.save(model, file)
        outputs = open_raw(file, tensor).run()
        shapes = {name: values.shape for name, values in outputs.items()}
    return choose_head(shapes, len(labels), width, height, wanted)


def export_detector(detector: OnnxDetector, out: Path, origin: str, force: bool) -> Bundle:
    """Write the bundle, and open it as it will be opened in the vehicle.

    Args:
        detector: What was read.
        out: ``NAME.bundle``.
        origin: Where the weights come from and their licence; empty if not stated.
        force: Replace an existing bundle.

    Raises:
        BundleError: It cannot be written, or its outputs are not those of the head.
        BackendError: No engine here runs it.
    """
    about: dict[str, Any] = {
        "weights": origin or "not stated",
        "source": detector.path.name,
        "source_sha256": sha256_file(detector.path),
        "head": detector.head.about,
    }
    with staged(out, force) as folder:
        onnx.save(detector.model, folder / "model.fp32.onnx")
        write_manifest(
            folder,
            name=out.stem,
            labels=detector.labels,
            preprocess=detector.preprocess,
            models={"fp32": "model.fp32.onnx"},
            taps=(),
            origin=about,
            parity=[],
        )
        update_manifest(folder, detector=detector.spec.to_json(), outputs=[o.name for o in detector.model.graph.output])
        DetectorRegions(Bundle.open(folder))
    return Bundle.open(out)
