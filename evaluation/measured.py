"""Which bundle a record is about."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from framegate.runtime.bundle.bundle import DIGEST, MANIFEST, manifest_digest
from framegate.runtime.bundle.certificates import FILE


def manifest_sha256(folder: Path) -> str:
    """SHA-256 of a bundle's manifest as it is without certificates.

    A certificate changes nothing that is measured without it, so a bundle that gets one keeps its records; any other
    change of any file makes another number.

    Args:
        folder: The bundle, opened before.
    """
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    files = manifest["files"]
    kept = {name: sha for name, sha in files.items() if name != FILE and not name.startswith("certificate-")}
    if len(kept) < len(files):
        manifest = {name: value for name, value in manifest.items() if name != DIGEST} | {"files": kept}
        manifest[DIGEST] = manifest_digest(manifest)
    return hashlib.sha256((json.dumps(manifest, indent=2) + "\n").encode()).hexdigest()
