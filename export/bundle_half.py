"""Give a bundle the float16 network that is derived from its float32 one."""

from __future__ import annotations

from pathlib import Path

from framegate.export.bundle_writer import edited, update_manifest
from framegate.export.graph.half import HALF, half_file
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import BundleError, ExportRefusedError


def add_half(path: Path) -> Bundle:
    """Add ``model.fp16.onnx`` to a bundle that has none; everything else in it stays as it is.

    The new file has no calibration, so every frame stays rejected until it is calibrated on the engine that runs it.

    Returns:
        The bundle, opened again.

    Raises:
        BundleError: It has no float32 network, that network cannot be read, or the folder cannot be written.
        ExportRefusedError: The network has no float16 form; see `framegate.export.graph.half.to_half`.
    """
    bundle = Bundle.open(path)
    if "fp16" in bundle.models:
        return bundle
    source = bundle.model_path("fp32").name
    with edited(bundle) as folder:
        try:
            half_file(folder / source, folder / HALF)
        except ExportRefusedError:
            raise
        except Exception as error:  # damaged files make the parser raise exceptions of many classes
            raise BundleError(f"bundle {path}: {source} cannot be read ({type(error).__name__})") from error
        update_manifest(folder, models={**bundle.models, "fp16": HALF})
    return Bundle.open(path)
