"""Give a bundle the float16 network that is derived from its float32 one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from framegate.export.bundle_writer import staged
from framegate.export.graph.half import HALF, half_file
from framegate.runtime.bundle import MANIFEST, Bundle, sha256_file, write_bundle_json
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
    with staged(path, force=True) as folder:
        shutil.copytree(path, folder, dirs_exist_ok=True)
        try:
            half_file(folder / source, folder / HALF)
        except ExportRefusedError:
            raise
        except Exception as error:  # the parser raises whatever strange bytes provoke
            raise BundleError(f"bundle {path}: {source} cannot be read ({type(error).__name__})") from error
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest["models"]["fp16"] = HALF
        manifest["files"][HALF] = sha256_file(folder / HALF)
        write_bundle_json(folder, MANIFEST, manifest)
    return Bundle.open(path)
