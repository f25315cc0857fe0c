"""An ONNX classifier from elsewhere as a network that can become a bundle."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from framegate.export.checks.assess import Reference
from framegate.export.checks.pixel_scaling import check_scaling, require_scaling
from framegate.export.data.outputs import backend_outputs
from framegate.export.data.splits import Splits
from framegate.export.graph.graph import OPSET, save
from framegate.export.graph.prepare import Prepared, check_same_function
from framegate.export.graph.session import input_tensors
from framegate.export.progress import Progress
from framegate.runtime.bundle.bundle import sha256_file
from framegate.runtime.bundle.calibration import record_key
from framegate.runtime.preprocess import PreprocessSpec

COMPARED = 16
"""Real images on which the prepared network must equal the original."""


@dataclass(frozen=True, eq=False)
class OnnxClassifier:
    """See `framegate.export.export.Exportable`.

    Attributes:
        path: The file as it came, for messages and the manifest.
        prepared: The network in a bundle's form.
        labels: One per output.
        preprocess: How an image becomes the network's input.
        scaling_given: False if the way pixels are scaled was not given; then `check` refuses and says which fits.
        taps: None: which layers are worth watching is not known.
        needs_every_precision: False: what the network was made for is not known, so float16 and INT8 may fail.
    """

    path: Path
    prepared: Prepared
    labels: tuple[str, ...]
    preprocess: PreprocessSpec
    scaling_given: bool = True
    taps: tuple[str, ...] = ()
    needs_every_precision: bool = False

    def check(self, splits: Splits) -> None:
        """See `Exportable.check`.

        Raises:
            UsageError: The scaling was not given; the message says which ones fit.
            ExportRefusedError: The prepared network computes something else than the file, or scaling, colours or the
                order of the labels are very probably wrong.
        """
        model, spec = self.prepared.model, self.preprocess
        if not self.scaling_given:
            require_scaling(model, spec, splits.train)
        tensors = np.concatenate(input_tensors(splits.train.images[:COMPARED], spec))
        check_same_function(self.prepared, tensors, self.path)
        check_scaling(model, spec, splits.train)

    def graph(self, progress: Progress) -> onnx.ModelProto:
        """See `Exportable.graph`."""
        return self.prepared.model

    def reference(self, splits: Splits, progress: Progress) -> Reference:
        """See `Exportable.reference`: the prepared network, which `check` has compared with the file."""
        images = {"test": splits.test.images, "calibration": splits.calibration.images}
        with tempfile.TemporaryDirectory(prefix="framegate-export-") as folder:
            file = Path(folder) / "prepared.onnx"
            save(self.prepared.model, file)
            outputs, engine = backend_outputs("onnxruntime", file, self.preprocess, images, progress)
        title, same_as = "the given network", record_key("onnxruntime", "fp32")
        return Reference("source", engine, outputs["test"], outputs["calibration"], title, same_as)

    def origin(self) -> dict[str, Any]:
        """See `Exportable.origin`."""
        original = self.prepared.original
        return {
            "weights": "not stated",
            "source": self.path.name,
            "source_sha256": sha256_file(self.path),
            "source_producer": f"{original.producer_name} {original.producer_version}".strip(),
            "source_layout": self.prepared.image.layout,
            "removed": self.prepared.removed,
            "batch": "1" if self.prepared.fixed_batch else "any",
            "onnx": f"operator set {OPSET}, prepared with onnx {onnx.__version__}",
        }

    def notes(self) -> list[str]:
        """See `Exportable.notes`."""
        spec, layout = self.preprocess, self.prepared.image.layout.upper()
        notes = [f"input {spec.width}x{spec.height} {spec.colour}, {layout} in the file; classes: {len(self.labels)}"]
        if self.prepared.removed:
            notes.append(f"removed the {self.prepared.removed} at the end: a bundle's networks give logits")
        if self.prepared.fixed_batch:
            notes.append("the network only takes one image at a time")
        return notes
