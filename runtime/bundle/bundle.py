"""The model bundle: a folder with the networks, their calibration and a manifest that vouches for every file."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from framegate.runtime.bundle.calibration import BOX_SCORES, READ_FORMATS, SCORES, UNUSABLE, Calibration, record_key
from framegate.runtime.bundle.certificates import FILE as CERTIFICATES
from framegate.runtime.bundle.certificates import CertificateRecord, read_certificates
from framegate.runtime.bundle.known_answers import FILE as ANSWERS
from framegate.runtime.bundle.known_answers import KnownAnswers
from framegate.runtime.bundle.object_promises import ObjectPromise, read_object_promises
from framegate.runtime.bundle.onnx_file import holds_finite, read_onnx_facts
from framegate.runtime.bundle.search import MANIFEST as MANIFEST
from framegate.runtime.bundle.search import SUFFIX, find_bundle
from framegate.runtime.bundle.signature import FILE as SIGNATURE
from framegate.runtime.bundle.signature import require_signature
from framegate.runtime.errors import BundleError, CalibrationError
from framegate.runtime.monitor import FILE as MONITOR
from framegate.runtime.monitor import Monitor
from framegate.runtime.preprocess import PreprocessSpec

FORMAT = "framegate-bundle-2"
CALIBRATION = "calibration.json"
DIGEST, BINDS = "digest", "binds"


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def canonical(record: Mapping[str, Any]) -> bytes:
    """A JSON object as the bytes that are hashed: keys in order, no spaces."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over everything that a bundle says: the manifest, which holds the hash of every other file."""
    return hashlib.sha256(canonical({key: value for key, value in manifest.items() if key != DIGEST})).hexdigest()


def calibration_binding(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over what a calibration was made with beside the networks: labels, preprocessing, taps, monitor, head.

    A calibration also names its network's file. With other labels or another mean its thresholds mean nothing.
    """
    bound = {key: manifest[key] for key in ("labels", "preprocess")}
    bound |= {key: manifest[key] for key in ("dense", "detector") if key in manifest}
    return hashlib.sha256(
        canonical({**bound, "taps": list(manifest.get("taps", ())), "monitor": manifest["files"].get(MONITOR)})
    ).hexdigest()


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of two entries of one name other programs may read the other one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r:.60} is in it twice")
    return found


def _parsed(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content.decode("utf-8"), object_pairs_hook=_each_once)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BundleError(f"bundle {folder}: {name} cannot be read ({error})") from error
    if not isinstance(record, dict):
        raise BundleError(f"bundle {folder}: {name} is not a JSON object")
    return record


def _read(folder: Path, name: str) -> bytes:
    """The bytes of a file of a bundle.

    Raises:
        BundleError: It is missing, cannot be read, or is a link that leads out of the folder.
    """
    if Path(name).name != name or name == "..":
        raise BundleError(f"bundle {folder}: it names the file {name!r}; files must lie in the folder itself")
    path = folder / name
    try:
        if path.is_symlink() and path.resolve().parent != folder.resolve():
            raise BundleError(f"bundle {folder}: {name} is a link that leads out of the bundle; copy the file itself")
        if not path.is_file() and path.exists():  # a pipe would be waited for
            raise BundleError(f"bundle {folder}: {name} is no regular file; copy the whole folder again")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"bundle {folder}: {name} is missing; copy the whole folder again") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise BundleError(f"bundle {folder}: {name} cannot be read ({error})") from error


def _read_verified(folder: Path, name: str, hashes: Mapping[str, str]) -> bytes:
    """The bytes of a file, which are those that the manifest vouches for.

    Raises:
        BundleError: See `_read`; or the hash differs.
    """
    content = _read(folder, name)
    found = hashlib.sha256(content).hexdigest()
    if found != hashes[name]:
        raise BundleError(
            f"bundle {folder}: {name} has SHA-256 {found[:12]}..., the manifest says {hashes[name][:12]}...; "
            "the file was changed or damaged, copy the bundle again"
        )
    return content


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; every file listed in its manifest was present with the right hash.

    Attributes:
        path: The folder.
        name: Name of the model.
        digest: SHA-256 over everything that the bundle says.
        labels: One per class, in the order of the logits.
        preprocess: How an image becomes the network's input.
        models: Precision -> file name.
        hashes: File name -> SHA-256.
        calibrations: ``backend/precision`` -> calibration.
        taps: Layers whose activations can be watched, from early to late.
        origin: Where weights and data come from, for people.
        parity: The export's report: each backend and precision beside the trained network on the test images.
        monitor: Turns the networks' second output into signals; None if they have none.
        known_answers: What engines are asked; None if the bundle has none.
        detector: What the manifest says about the head of a detector (`framegate.runtime.regions.detector`); None for a
            classifier.
        certificates: What can be certified about its labels.
        dense: What the manifest says about a dense network's region (`framegate.runtime.dense.spec`); None for others.
        object_promises: ``backend/precision`` -> what is promised about tracks and boxes.
        trusted: A signature was asked for, and is right.
    """

    path: Path
    name: str
    digest: str
    labels: tuple[str, ...]
    preprocess: PreprocessSpec
    models: Mapping[str, str]
    hashes: Mapping[str, str]
    calibrations: Mapping[str, Calibration]
    taps: tuple[str, ...]
    origin: Mapping[str, Any]
    parity: tuple[Mapping[str, Any], ...]
    monitor: Monitor | None = None
    known_answers: KnownAnswers | None = None
    detector: Mapping[str, Any] | None = None
    certificates: tuple[CertificateRecord, ...] = ()
    dense: Mapping[str, Any] | None = None
    object_promises: Mapping[str, tuple[ObjectPromise, ...]] = field(default_factory=dict)
    trusted: bool = False

    @classmethod
    def open(cls, path: str | Path, trust: str | Path | None = None) -> Bundle:
        """Open and verify a bundle.

        Args:
            path: The folder, or the name of one, see `framegate.runtime.bundle.search`.
            trust: PEM file with an Ed25519 key, whose holder must have signed the bundle; None asks for no signature.

        Raises:
            BundleError: The folder or a file is missing, a hash is wrong, the format is unknown, or the signature is
                missing or wrong.
            UsageError: The key cannot be used.
        """
        folder = find_bundle(path)
        if not folder.is_dir():
            found = "a file" if folder.exists() else "nothing"
            raise BundleError(f"bundle {folder}: expected a folder NAME.bundle, found {found} there")
        if folder.suffix != SUFFIX and not os.path.lexists(folder / MANIFEST):
            raise BundleError(
                f"bundle {folder}: this folder is no bundle (it has no {MANIFEST}); framegate bundles lists those that "
                "are found"
            )
        manifest = _parsed(folder, MANIFEST, _read(folder, MANIFEST))
        if manifest.get("format") != FORMAT:
            raise BundleError(
                f"bundle {folder}: format is {manifest.get('format')!r}, this version reads {FORMAT!r}; "
                "export the model again or use a matching framegate"
            )
        try:
            digest = manifest_digest(manifest)
            if manifest.get(DIGEST) != digest:
                raise BundleError(
                    f"bundle {folder}: {MANIFEST} was changed: its digest is {digest[:12]}..., it says "
                    f"{str(manifest.get(DIGEST))[:12]}...; copy the bundle again, or export the model again"
                )
            opened = cls._from(folder, manifest, digest)
        except BundleError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
            raise BundleError(f"bundle {folder}: {MANIFEST} lacks or garbles {error}") from error
        if trust is None:
            return opened
        require_signature(folder, digest, Path(trust))
        return replace(opened, trusted=True)

    @classmethod
    def _from(cls, folder: Path, manifest: Mapping[str, Any], digest: str) -> Bundle:
        labels = tuple(_text(label) for label in manifest["labels"])
        hashes = {_text(name): _text(value) for name, value in manifest["files"].items()}
        models = {_text(precision): _text(file) for precision, file in manifest["models"].items()}
        if not labels or len(set(labels)) != len(labels):
            raise BundleError(f"bundle {folder}: labels are missing or not unique")
        for precision, file in models.items():
            if file not in hashes:
                raise BundleError(f"bundle {folder}: {precision} model {file!r} has no hash in {MANIFEST}")
        contents = {name: _read_verified(folder, name, hashes) for name in hashes}
        monitor = _read_monitor(folder, contents[MONITOR]) if MONITOR in hashes else None
        opened = cls(
            path=folder,
            name=_text(manifest["name"]),
            digest=digest,
            labels=labels,
            preprocess=_read_preprocess(folder, manifest["preprocess"]),
            models=models,
            hashes=hashes,
            calibrations={},
            taps=tuple(_text(tap) for tap in manifest.get("taps", ())),
            origin=_entries(manifest.get("origin", {})),
            parity=tuple(_entries(row) for row in manifest.get("parity", ())),
            monitor=monitor,
            detector=_entries(manifest["detector"]) if "detector" in manifest else None,
            dense=_entries(manifest["dense"]) if "dense" in manifest else None,
        )
        if ANSWERS in hashes:
            spec = opened.preprocess
            shape = (spec.depth * spec.height, spec.width, 3)
            try:
                answers = KnownAnswers.from_bytes(contents[ANSWERS], shape, len(labels))
            except BundleError as error:
                raise BundleError(f"bundle {folder}: {error}") from error
            opened = replace(opened, known_answers=answers)
        if CERTIFICATES in hashes:
            record = _parsed(folder, CERTIFICATES, contents[CERTIFICATES])
            try:
                opened = replace(opened, certificates=read_certificates(record, labels, hashes))
            except BundleError as error:
                raise BundleError(f"bundle {folder}: {error}") from error
        if CALIBRATION not in hashes:
            return opened
        calibrations, promises = _read_calibrations(opened, manifest, contents[CALIBRATION])
        return replace(opened, calibrations=calibrations, object_promises=promises)

    def model_path(self, precision: str) -> Path:
        """The ONNX file of a precision.

        Raises:
            BundleError: The bundle has no model of this precision.
        """
        if precision not in self.models:
            raise BundleError(
                f"bundle {self.path}: precision {precision!r} was asked for, it has {', '.join(sorted(self.models))}"
            )
        return self.path / self.models[precision]

    @contextmanager
    def loaded(self, precision: str) -> Iterator[Path]:
        """The network of a precision in a private folder, see `loaded_file`.

        Raises:
            BundleError: There is none of this precision; or see `loaded_file`.
        """
        with self.loaded_file(self.model_path(precision).name) as path:
            yield path

    def network_digest(self, loaded: Path) -> str:
        """What tells a network from all others: for caches of what engines make of it.

        Args:
            loaded: What `loaded` or `loaded_file` gave.

        Returns:
            A digest of its file and of those with its weights; empty, for no cache, if a signature was asked for: it
            says nothing about a cache.
        """
        if self.trusted:
            return ""
        names = sorted(path.name for path in loaded.parent.iterdir())
        return hashlib.sha256("\n".join([loaded.name, *(self.hashes[name] for name in names)]).encode()).hexdigest()

    @contextmanager
    def loaded_file(self, name: str) -> Iterator[Path]:
        """A network of the bundle in a private folder, which goes when the block ends.

        What an engine is given there are exactly the bytes whose hashes were compared: nobody else can write to it,
        whatever happens to the bundle meanwhile.

        Args:
            name: Its file.

        Raises:
            BundleError: A file has changed; weights lie outside of the bundle; a weight is not finite; or there is no
                place for the folder.
        """
        contents = {name: _read_verified(self.path, name, self.hashes)}
        try:
            facts = read_onnx_facts(contents[name])
        except BundleError as error:
            raise BundleError(f"bundle {self.path}: {name}: {error}") from error
        not_finite = list(facts.not_finite)
        for place in facts.external:
            if place.location not in self.hashes:
                raise BundleError(
                    f"bundle {self.path}: {name} takes weights from {place.location!r}, which is no file of the bundle"
                )
            if place.location not in contents:
                contents[place.location] = _read_verified(self.path, place.location, self.hashes)
            end = None if place.length is None else place.offset + place.length
            try:
                finite = holds_finite(memoryview(contents[place.location])[place.offset : end], place.data_type)
            except ValueError as error:
                raise BundleError(f"bundle {self.path}: {name}: weights {place.name!r}: {error}") from error
            if not finite:
                not_finite.append(place.name)
        if not_finite:
            raise BundleError(
                f"bundle {self.path}: {name} holds NaN or infinities in {not_finite[0]!r}"
                f"{f' and {len(not_finite) - 1} more' if len(not_finite) > 1 else ''}; export the model again"
            )
        with ExitStack() as gone:
            try:
                private = Path(gone.enter_context(tempfile.TemporaryDirectory(prefix="framegate-")))
                for each, content in contents.items():
                    (private / each).write_bytes(content)
            except OSError as error:
                size = sum(map(len, contents.values())) / 1e6
                raise BundleError(
                    f"bundle {self.path}: {name} needs {size:.1f} MB in a temporary folder of its own, and cannot have "
                    f"them ({error.strerror or error}); let TMPDIR name a folder with room"
                ) from error
            yield private / name

    def for_classifiers(self, command: str) -> Bundle:
        """The bundle itself, if it holds a classifier.

        Args:
            command: What is asked for, for the message.

        Raises:
            BundleError: It holds a detector or a dense network.
        """
        if self.detector is None and self.dense is None:
            return self
        kind = "detector" if self.dense is None else "dense network"
        raise BundleError(f"bundle {self.path}: `framegate {command}` is for classifiers, this one holds a {kind}")

    def calibration(self, backend: str, precision: str) -> Calibration | None:
        """The calibration for a backend and precision; None if there is none (every frame is then rejected)."""
        return self.calibrations.get(record_key(backend, precision))


def _text(value: object) -> str:
    """A JSON text, and nothing that only could be written as one."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60}, which should be a text")
    return value


def _entries(value: object) -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.60}, which should be an object")
    return value


def _read_preprocess(folder: Path, record: Mapping[str, Any]) -> PreprocessSpec:
    try:
        return PreprocessSpec.from_json(record)
    except BundleError as error:
        raise BundleError(f"bundle {folder}: {error}; export the model again") from error


def _read_monitor(folder: Path, content: bytes) -> Monitor:
    try:
        return Monitor.from_json(_parsed(folder, MONITOR, content))
    except BundleError as error:
        raise BundleError(f"bundle {folder}: {error}") from error


def _read_calibrations(
    bundle: Bundle, manifest: Mapping[str, Any], content: bytes
) -> tuple[dict[str, Calibration], dict[str, tuple[ObjectPromise, ...]]]:
    folder, monitor = bundle.path, bundle.monitor
    record = _parsed(folder, CALIBRATION, content)
    if record.get("format") not in READ_FORMATS:
        raise BundleError(
            f"bundle {folder}: {CALIBRATION} has format {record.get('format')!r}, expected {' or '.join(READ_FORMATS)}"
        )
    if record.get(BINDS) != calibration_binding(manifest):
        raise BundleError(
            f"bundle {folder}: {CALIBRATION} belongs to other labels, another preprocessing or another monitor; "
            "calibrate this bundle again"
        )
    try:
        calibrations = {_text(key): Calibration.from_json(value) for key, value in record["records"].items()}
        backends = {key.partition("/")[0] for key in calibrations}
        for key, calibration in calibrations.items():
            calibration.require_consistent(len(bundle.labels), key)
            made_on = calibration.engine.partition(" ")[0]
            if made_on in backends and made_on != key.partition("/")[0]:
                raise CalibrationError(f"{key} was made on {calibration.engine}; calibrate this bundle again")
        promises = read_object_promises(record, calibrations)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, CalibrationError) as error:
        raise BundleError(f"bundle {folder}: {CALIBRATION}: {error}") from error
    for key, calibration in calibrations.items():
        model = bundle.models.get(key.partition("/")[2])
        if model is None or bundle.hashes[model] != calibration.model_sha256:
            raise BundleError(
                f"bundle {folder}: calibration {key} belongs to another model file; calibrate this bundle again"
            )
        known: tuple[str, ...] = (*SCORES, *(monitor.signals if monitor else ()))
        if bundle.dense is not None or bundle.detector is not None:
            known = BOX_SCORES if bundle.dense is None else (UNUSABLE,)
        unknown = [
            name for name in (calibration.score, *(limit.signal for limit in calibration.limits)) if name not in known
        ]
        if unknown:
            raise BundleError(
                f"bundle {folder}: calibration {key} needs {unknown[0]!r}, this bundle gives {', '.join(known)}; "
                "calibrate it again"
            )
    return calibrations, promises


def seal(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a (temporary) bundle over the files that lie there, so that it vouches for all of them.

    Args:
        folder: The bundle.
        manifest: Its entries; hashes, digest and what the calibration is bound to are computed here.
    """
    names = sorted(path.name for path in folder.iterdir() if path.name not in (MANIFEST, SIGNATURE))
    hashes = {name: sha256_file(folder / name) for name in names}
    record = {**manifest, "format": FORMAT, "files": hashes}
    if CALIBRATION in hashes:
        calibration = _parsed(folder, CALIBRATION, _read(folder, CALIBRATION))
        write_bundle_json(folder, CALIBRATION, {**calibration, BINDS: calibration_binding(record)})
        hashes[CALIBRATION] = sha256_file(folder / CALIBRATION)
    record.pop(DIGEST, None)
    write_bundle_json(folder, MANIFEST, {**record, DIGEST: manifest_digest(record)})


def write_bundle_json(folder: Path, name: str, record: Mapping[str, Any]) -> None:
    """Write a JSON file of a bundle, completely or not at all."""
    temporary = folder / (name + ".part")
    temporary.write_text(json.dumps(record, indent=2, sort_keys=False) + "\n", encoding="utf-8")
    os.replace(temporary, folder / name)
