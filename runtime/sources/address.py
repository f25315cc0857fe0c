"""The address of a network stream: its parts, how it may be shown, and why nothing comes from there."""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit

from framegate.runtime.errors import SourceError
from framegate.runtime.passwords import hide_passwords
from framegate.runtime.sources.spelling import odd_sign

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_IN_ADDRESS = "%/:;=&?@!$'()*+,~[]|"
_NEVER_IN_HOST = frozenset(" \t\"'<>{}|\\^`")
_QUESTION_S = 1.0
"""For a question that comes on top of the time that an attempt may take."""


@dataclass(frozen=True)
class StreamAddress:
    """Parts of an address.

    Attributes:
        uri: As it was typed, with user name and password.
        shown: Without secrets (`hide_passwords`), for messages and records.
        bare: Without user name and password.
        scheme: In lower case.
        host: Name or number.
        port: Stated or usual; 0 if there is none.
        user: Empty if there is none.
        password: Empty if there is none.
    """

    uri: str
    shown: str
    bare: str
    scheme: str
    host: str
    port: int
    user: str
    password: str

    @classmethod
    def parse(cls, uri: str) -> StreamAddress:
        """Take an address apart.

        Raises:
            SourceError: It has no host, or a port that is none, or a password with characters that end it.
        """
        scheme = uri.partition("://")[0].lower()
        shown = hide_passwords(uri)
        expected = f"expected {scheme}://host:port/path"
        try:
            parts = urlsplit(uri)
        except ValueError:  # whose text may quote the password
            why = odd_sign(uri.partition("://")[2].rpartition("@")[2])
            raise SourceError(f"stream {shown}: its host is none; {why or expected}") from None
        before = uri.partition("://")[2].rpartition("@")[0]
        # "admin:12#345@host" is, to the letter, port 12 of the host admin.
        if "@" in parts.path + parts.query + parts.fragment and (":" in before or "@" in before):
            raise SourceError(
                f"stream {shown}: an @ behind the host; write # / ? : @ of a password as %23 %2F %3F %3A %40, "
                "and an @ of a path as %40"
            )
        try:
            port = parts.port or _PORTS.get(scheme, 0)
            host = parts.hostname or ""
        except ValueError:
            raise SourceError(f"stream {shown}: the port is no number from 1 to 65535; {expected}") from None
        if not host and scheme != "udp":  # udp://:5000 listens on all addresses
            raise SourceError(f"stream {scheme}://...: there is no host in it; expected {scheme}://host:port/path")
        if why := _why_no_host(host):
            raise SourceError(f"stream {shown}: its host is no name or address; {why}")
        if scheme == "udp" and not port:
            raise SourceError("stream udp://...: there is no port in it; expected udp://host:port")
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        return cls(uri, shown, _without_user(parts), scheme, host, port, user, password)

    @property
    def place(self) -> str:
        """``host:port``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _why_no_host(host: str) -> str:
    """What is wrong with a host's name; empty if nothing is."""
    if not host.isascii() and (why := odd_sign(host)):
        return why
    try:
        host.encode("idna")
    except UnicodeError:
        return "its parts between dots have 1 to 63 letters"
    return f"it has {next(sign for sign in host if sign in _NEVER_IN_HOST)!r}" if _NEVER_IN_HOST & {*host} else ""


def _without_user(parts: SplitResult) -> str:
    """The address for those who ask there, with signs that must not be in an address written as %E9."""
    asked = {name: quote(getattr(parts, name), safe=_IN_ADDRESS) for name in ("path", "query")}
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], **asked).geturl()


def why_not_connected(address: StreamAddress, error: OSError) -> str:
    """One sentence about a connection that could not be made."""
    if isinstance(error, socket.gaierror):
        return f"the host name {address.host} is not known; is it spelled right, and is there a network?"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {address.place} is not trusted ({error.verify_message}); if the camera has made it "
            "itself, save it and point the environment variable SSL_CERT_FILE to the file"
        )
    if isinstance(error, ssl.SSLError):
        return f"what listens at {address.place} does not speak TLS ({error.reason})"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens at {address.place}; is the camera or server running, and is the port right?"
    if isinstance(error, TimeoutError):
        return f"no answer from {address.place}; is it switched on and in this network, or is a firewall in between?"
    return f"no connection to {address.place}: {error}"


def why_status(code: int, text: str) -> str:
    """One sentence about an HTTP or RTSP status that is an error."""
    advice = {
        401: "; give user and password as in rtsp://USER:PASSWORD@host/path",
        403: "; this user may not see the stream",
        404: "; is the path right?",
        503: "; the camera or server is busy or still starting, or all its connections are taken",
    }
    return f"the server answers {code} {text}".rstrip() + advice.get(code, "")


def why_no_video(address: StreamAddress, timeout_s: float) -> str:
    """One sentence about an address from which FFmpeg got nothing.

    Args:
        address: Where.
        timeout_s: How long it has been tried; to ask takes at most that, and at most a second, once more.
    """
    if address.scheme == "udp":
        return _why_no_udp(address) or (
            f"nothing that is a video arrived within {timeout_s:g} s; does the sender run, and send to this port?"
        )
    reason = _why_no_rtsp(address, min(timeout_s, _QUESTION_S)) if address.scheme in ("rtsp", "rtsps") else ""
    return reason or f"no video could be read from it within {timeout_s:g} s; is it one?"


def _why_no_udp(address: StreamAddress) -> str:
    """Whether this machine can listen there; empty if it can."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(address.host or "0.0.0.0", address.port, type=socket.SOCK_DGRAM)[
            0
        ]
        with socket.socket(family, kind) as listener:
            listener.bind(where)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"another program listens at {address.place}; is a second framegate running?"
        if error.errno == errno.EADDRNOTAVAIL:
            return (
                f"{address.host} is not an address of this machine; udp:// waits for a sender, so name an address of "
                f"this machine, or all of them: udp://0.0.0.0:{address.port}"
            )
        return why_not_connected(address, error)
    return ""


def _why_no_rtsp(address: StreamAddress, timeout_s: float) -> str:
    """Ask an RTSP server what is wrong; empty if it reports nothing."""
    question = f"DESCRIBE {address.bare} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
    try:
        with socket.create_connection((address.host, address.port), timeout_s) as connection:
            if address.scheme == "rtsps":
                answer = _ask_over_tls(connection, question)
            else:
                connection.sendall(question.encode())
                answer = connection.recv(200).decode("latin-1")
    except OSError as error:
        return why_not_connected(address, error)
    version, _, status = answer.partition("\r\n")[0].partition(" ")
    code, _, text = status.partition(" ")
    if not version.startswith("RTSP/") or not code.isdigit():
        return f"what listens at {address.place} does not speak RTSP"
    if code == "401" and address.user:
        return "the server asks for a password, and did not take the one in the address"
    return why_status(int(code), text) if int(code) >= 400 else ""


def _ask_over_tls(connection: socket.socket, question: str) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # FFmpeg does not look at it either
    with context.wrap_socket(connection) as encrypted:
        encrypted.sendall(question.encode())
        return encrypted.recv(200).decode("latin-1")
