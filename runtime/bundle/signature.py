"""Who vouches for a bundle: an Ed25519 signature (RFC 8032) over its digest.

The digest covers everything that the bundle says. It shows damage and careless edits, but whoever edits on purpose can
write another digest; a signature can only be made by the holder of the private key. ``framegate sign`` makes one;
``--trust KEY`` refuses every bundle without one by that key. Needs the package cryptography.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framegate.runtime.errors import BundleError, UsageError

FILE = "signature.json"
FORMAT = "framegate-signature-1"
_PURPOSE = b"framegate bundle digest\0"
"""Signed along, so that a signature means nothing anywhere else."""


@dataclass(frozen=True)
class Signature:
    """What a bundle's signature file says; nobody has checked it yet.

    Attributes:
        public_key: 32 bytes.
        signature: 64 bytes.
    """

    public_key: bytes
    signature: bytes

    @property
    def fingerprint(self) -> str:
        """The key's name for people: the first 16 digits of its SHA-256."""
        return hashlib.sha256(self.public_key).hexdigest()[:16]


def read_signature(folder: Path) -> Signature | None:
    """The signature of a bundle; None if it has none.

    Raises:
        BundleError: There is a file, and it is no signature.
    """
    try:
        if (folder / FILE).exists() and not (folder / FILE).is_file():  # a pipe would be waited for
            raise ValueError("it is no regular file")
        record = json.loads((folder / FILE).read_text(encoding="ascii"))
        if record["format"] != FORMAT:
            raise ValueError(f"format is {record['format']!r}, expected {FORMAT!r}")
        found = Signature(*(base64.b64decode(record[name], validate=True) for name in ("public_key", "signature")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise BundleError(f"bundle {folder}: {FILE} is no signature ({error}); sign the bundle again") from error
    if len(found.public_key) != 32 or len(found.signature) != 64:
        raise BundleError(f"bundle {folder}: {FILE} is no signature (wrong length); sign the bundle again")
    return found


def require_signature(folder: Path, digest: str, key: Path) -> Signature:
    """Refuse a bundle that the holder of a key has not signed.

    Args:
        folder: The bundle.
        digest: Its digest.
        key: PEM file with the public key (or the private one, whose public half is taken).

    Raises:
        BundleError: It is not signed, by another key, or something was changed since.
        UsageError: The key cannot be read, or the package cryptography is not installed.
    """
    from_crypto = _cryptography()
    trusted = _public_bytes(from_crypto, _load_key(from_crypto, key))
    found = read_signature(folder)
    if found is None:
        raise BundleError(f"bundle {folder}: it is not signed, and only bundles signed by {key} are trusted")
    if found.public_key != trusted:
        raise BundleError(f"bundle {folder}: it is signed by key {found.fingerprint}, not by {key}")
    try:
        from_crypto.Ed25519PublicKey.from_public_bytes(trusted).verify(found.signature, _PURPOSE + digest.encode())
    except from_crypto.InvalidSignature:
        raise BundleError(f"bundle {folder}: it was changed after it was signed; get the signed bundle again") from None
    return found


def sign(folder: Path, digest: str, key: Path) -> Signature:
    """Sign a bundle.

    Args:
        folder: The bundle.
        digest: Its digest.
        key: PEM file with the private key.

    Raises:
        BundleError: The signature cannot be written.
        UsageError: The key cannot be read, or is not private; or the package cryptography is not installed.
    """
    from_crypto = _cryptography()
    private = _load_key(from_crypto, key)
    if not isinstance(private, from_crypto.Ed25519PrivateKey):
        raise UsageError(f"key {key}: signing needs the private key, this is the public one")
    made = Signature(_public_bytes(from_crypto, private), private.sign(_PURPOSE + digest.encode()))
    record = {
        "format": FORMAT,
        "public_key": base64.b64encode(made.public_key).decode(),
        "signature": base64.b64encode(made.signature).decode(),
    }
    temporary = folder / f"{FILE}.part"
    try:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="ascii")
        temporary.replace(folder / FILE)
    except OSError as error:
        raise BundleError(f"bundle {folder}: the signature cannot be written ({error})") from error
    return made


def new_key(path: Path) -> Path:
    """Make a key pair: the private key at ``path``, for its owner alone, and the public one beside it.

    Returns:
        Where the public key lies: ``NAME.pub.pem``.

    Raises:
        UsageError: There is a file already, it cannot be written, or the package cryptography is not installed.
    """
    from_crypto = _cryptography()
    private = from_crypto.Ed25519PrivateKey.generate()
    forms = from_crypto.serialization
    secret = private.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    public = private.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    beside = path.with_suffix(".pub.pem")
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
        beside.write_bytes(public)
    except FileExistsError:
        raise UsageError(
            f"key {path}: there is a file already; a key is never overwritten, give another name"
        ) from None
    except OSError as error:
        raise UsageError(f"key {path}: cannot be written ({error.strerror})") from error
    return beside


def _cryptography() -> Any:
    """The parts of the package cryptography that are used, as one namespace."""
    from types import SimpleNamespace

    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    except ImportError as error:
        raise UsageError(
            f"signatures need the package cryptography, which is not installed ({error}); pip install 'framegate[sign]'"
        ) from error
    return SimpleNamespace(
        InvalidSignature=InvalidSignature,
        serialization=serialization,
        Ed25519PrivateKey=Ed25519PrivateKey,
        Ed25519PublicKey=Ed25519PublicKey,
    )


def _load_key(from_crypto: Any, path: Path) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"key {path}: cannot be read ({error.strerror})") from error
    forms = from_crypto.serialization
    try:
        if b"PRIVATE KEY" in content:
            loaded = forms.load_pem_private_key(content, None)
        else:
            loaded = forms.load_pem_public_key(content)
    except Exception as error:  # the package raises several kinds for what is no key
        raise UsageError(f"key {path}: expected an Ed25519 key in PEM form without a password ({error})") from error
    if not isinstance(loaded, (from_crypto.Ed25519PrivateKey, from_crypto.Ed25519PublicKey)):
        raise UsageError(f"key {path}: expected an Ed25519 key, found {type(loaded).__name__}")
    return loaded


def _public_bytes(from_crypto: Any, key: Any) -> bytes:
    public = key.public_key() if isinstance(key, from_crypto.Ed25519PrivateKey) else key
    forms = from_crypto.serialization
    raw: bytes = public.public_bytes(forms.Encoding.Raw, forms.PublicFormat.Raw)
    return raw
