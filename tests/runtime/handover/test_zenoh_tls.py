"""Zenoh over mutual TLS, with the configuration of docs/examples/zenoh-tls: good, missing and wrong certificates."""

from __future__ import annotations

import contextlib
import datetime
import socket

import pytest
from repository import ROOT

from framegate.runtime.errors import FramegateError, UsageError
from framegate.runtime.handover import open_incoming, open_outgoing

pytest.importorskip("zenoh", reason="pip install 'framegate[zenoh]'")
x509 = pytest.importorskip("cryptography.x509", reason="pip install 'framegate[sign]'")
pytestmark = pytest.mark.long
EXAMPLE = ROOT / "docs" / "examples" / "zenoh-tls"


class Authority:
    """Signs certificates."""

    def __init__(self, name):
        from cryptography.hazmat.primitives.asymmetric import ec

        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.certificate = self.sign(self.name, self.key.public_key(), authority=True)

    def sign(self, subject, public, *, authority=False, days=1):
        from cryptography.hazmat.primitives import hashes

        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=10))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def give(self, folder, name, days=1):
        """Write a key, and a certificate for it."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        pem = serialization.Encoding.PEM
        (folder / f"{name}.pem").write_bytes(self.sign(subject, key.public_key(), days=days).public_bytes(pem))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )

    def write(self, path):
        from cryptography.hazmat.primitives import serialization

        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the example's files, as its user has them, on a port of its own."""
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    for name in ("receiver.json5", "sender.json5"):
        text = (EXAMPLE / name).read_text()
        assert "localhost:7447" in text
        (tmp_path / name).write_text(text.replace("localhost:7447", f"localhost:{port}"))
    monkeypatch.chdir(tmp_path)
    ours = Authority("ours")
    ours.write(tmp_path / "ca.pem")
    ours.give(tmp_path, "receiver")
    return tmp_path, ours


def hears(seconds=3.0):
    """Whether a message from the sender's configuration reaches the receiver's."""
    incoming = open_incoming("zenoh://car/front?config=receiver.json5")
    with contextlib.closing(incoming):
        try:
            outgoing = open_outgoing("zenoh://car/front?config=sender.json5")
        except FramegateError:
            return False
        with contextlib.closing(outgoing):
            for _ in range(round(seconds / 0.05)):
                outgoing.send(b"hello")
                if incoming.receive(0.05) is not None:
                    return True
    return False


def test_who_has_a_certificate_of_the_authority_is_heard(place):
    folder, ours = place
    ours.give(folder, "sender")
    assert hears(20.0)


def test_a_certificate_of_another_authority_is_not_heard(place):
    folder, _ = place
    Authority("theirs").give(folder, "sender")
    assert not hears()


def test_a_certificate_that_has_ended_is_not_heard(place):
    folder, ours = place
    ours.give(folder, "sender", days=-1)
    assert not hears()


def test_without_a_certificate_nothing_is_heard(place):
    folder, _ = place
    text = (folder / "sender.json5").read_text()
    for line in ('connect_certificate: "sender.pem",', 'connect_private_key: "sender.key",'):
        assert line in text
        text = text.replace(line, "")
    text = text.replace("enable_mtls: true", "enable_mtls: false")
    (folder / "sender.json5").write_text(text)
    assert not hears()


def test_a_missing_file_is_said_in_one_sentence(place):
    # The sender's certificate was not made.
    with pytest.raises(
        UsageError, match=r"connect_\w+ of the configuration is sender\.\w+, which cannot be read"
    ) as found:
        open_outgoing("zenoh://car/front?config=sender.json5")
    assert "\n" not in str(found.value)


def test_a_receiver_of_another_authority_gets_nothing(place):
    folder, ours = place
    ours.give(folder, "sender")
    theirs = Authority("theirs")
    theirs.give(folder, "receiver")
    assert not hears()


def test_plain_tcp_is_not_let_in(place):
    folder, ours = place
    ours.give(folder, "sender")
    text = (folder / "sender.json5").read_text()
    (folder / "sender.json5").write_text(text.replace("tls/localhost", "tcp/127.0.0.1").replace('["tls"]', '["tcp"]'))
    assert not hears()
