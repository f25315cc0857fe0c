"""Signed bundles: only what the holder of a key has vouched for is opened."""

from __future__ import annotations

import json
import shutil

import pytest
from repository import BUNDLES

from framegate.runtime import Bundle, BundleError, Session, UsageError
from framegate.runtime.bundle.bundle import MANIFEST, seal
from framegate.runtime.bundle.signature import FILE, new_key, read_signature, sign
from framegate.runtime.cli.main import main

pytest.importorskip("cryptography")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(BUNDLES / "simplecnn-cifar10.bundle", tmp_path / "copy.bundle")


@pytest.fixture
def keys(tmp_path):
    """A private key, its public half, and somebody else's private key."""
    own, other = tmp_path / "own.pem", tmp_path / "other.pem"
    public = new_key(own)
    new_key(other)
    return own, public, other


def test_a_signed_bundle_is_trusted_and_stays_the_same_bundle(folder, keys):
    private, public, _ = keys
    digest = Bundle.open(folder).digest
    made = sign(folder, digest, private)
    assert Bundle.open(folder, trust=public).digest == digest
    assert read_signature(folder) == made
    assert Session.open(folder, "onnxruntime", "fp32", 1, trust=public).bundle.digest == digest


def test_the_private_key_is_for_its_owner_alone_and_never_overwritten(keys):
    private, public, _ = keys
    assert private.stat().st_mode & 0o077 == 0
    assert b"PUBLIC" in public.read_bytes()
    with pytest.raises(UsageError, match="never overwritten"):
        new_key(private)


def test_fault_the_bundle_is_not_signed(folder, keys):
    with pytest.raises(BundleError, match="it is not signed"):
        Bundle.open(folder, trust=keys[1])


def test_fault_somebody_else_has_signed_it(folder, keys):
    sign(folder, Bundle.open(folder).digest, keys[2])
    with pytest.raises(BundleError, match="it is signed by key"):
        Bundle.open(folder, trust=keys[1])


def test_fault_it_was_changed_and_sealed_again_after_it_was_signed(folder, keys):
    sign(folder, Bundle.open(folder).digest, keys[0])
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["labels"][0], manifest["labels"][1] = manifest["labels"][1], manifest["labels"][0]
    seal(folder, manifest)  # consistent in itself: only the signature knows
    assert Bundle.open(folder).labels[0] == "automobile"
    with pytest.raises(BundleError, match="changed after it was signed"):
        Bundle.open(folder, trust=keys[1])


def test_fault_the_signature_of_another_bundle_is_copied(folder, keys, tmp_path):
    other = shutil.copytree(BUNDLES / "mobilenet-cifar10.bundle", tmp_path / "other.bundle")
    sign(other, Bundle.open(other).digest, keys[0])
    shutil.copy(other / FILE, folder / FILE)
    with pytest.raises(BundleError, match="changed after it was signed"):
        Bundle.open(folder, trust=keys[1])


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"format": "framegate-signature-1", "public_key": "!", "signature": ""}']
)
def test_a_file_that_is_no_signature(folder, keys, content):
    (folder / FILE).write_text(content)
    with pytest.raises(BundleError, match="is no signature"):
        Bundle.open(folder, trust=keys[1])


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"])
def test_a_key_that_is_none(folder, keys, tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="expected an Ed25519 key"):
        Bundle.open(folder, trust=path)
    with pytest.raises(UsageError, match="cannot be read"):
        Bundle.open(folder, trust=tmp_path / "missing")
    with pytest.raises(UsageError, match="needs the private key"):
        sign(folder, "0" * 64, keys[1])


def test_framegate_sign(folder, keys, tmp_path, capsys):
    from framegate.runtime.cli import main as cli

    assert cli.main(["sign", str(folder), "--key", str(keys[0])]) == 0
    assert "signed by key" in capsys.readouterr().out
    assert cli.main(["sign", "--new-key", str(tmp_path / "third.pem")]) == 0
    assert cli.main(["sign", str(folder)]) == 2
    assert cli.main(["sign", "--new-key", str(tmp_path / "third.pem")]) == 2
    assert Bundle.open(folder, trust=keys[1])


def test_doctor_and_info_say_who_signed_a_bundle(folder, keys, capsys):
    private, public, other = keys

    def doctor(*words):
        code = main(["doctor", str(folder), "--json", *words])
        found = {each["what"]: each for each in json.loads(capsys.readouterr().out)}
        return code, found["bundle copy"]

    assert "not signed" in doctor()[1]["explanation"]
    code, found = doctor("--trust", str(public))
    assert (code, found["usable"]) == (1, False)
    assert "not signed" in found["explanation"]
    sign(folder, Bundle.open(folder).digest, private)
    code, found = doctor()
    assert (code, found["usable"]) == (0, True)
    assert "not checked" in found["explanation"]
    code, found = doctor("--trust", str(public))
    assert (code, found["usable"]) == (0, True)
    assert f"checked with {public}" in found["explanation"]
    assert doctor("--trust", str(other))[0] == 1
    assert main(["info", str(folder)]) == 0
    assert f"signed by key {read_signature(folder).fingerprint}" in capsys.readouterr().out


def test_doctor_says_what_is_wrong_with_a_bundle(folder, capsys):
    (folder / MANIFEST).write_text("{}")
    assert main(["doctor", str(folder), "--json"]) == 1
    found = {each["what"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["bundle copy"]["usable"] is False
    assert main(["doctor", "no/such.bundle"]) == 1
