"""Motion JPEG over HTTP, the protocol of most network cameras and of their web pages.

Read here and not by FFmpeg, which completes half a JPEG with the remains of the picture before and scales a picture of
another size to the old one, both without a word. Here a picture that was cut off becomes a frame without pixels, which
is rejected as BAD_INPUT, and every picture has its own size.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse

from framegate.runtime.errors import SourceError
from framegate.runtime.sources.address import StreamAddress, why_not_connected, why_status
from framegate.runtime.sources.clock import WAITED_NS
from framegate.runtime.sources.http_body import HttpBody
from framegate.runtime.sources.images import AS_CAPTURED, decode_image
from framegate.runtime.sources.live import Captured
from framegate.runtime.sources.multipart import MultipartParser
from framegate.runtime.sources.proxy import through_proxy

_MULTIPART = "multipart/x-mixed-replace"
_BURST = 100
"""Pictures that one read leaves out at most, so that a server faster than this cannot hold it for ever."""


def open_http(address: StreamAddress, open_timeout_s: float) -> HTTPResponse | None:
    """Ask for the stream.

    Args:
        address: With user and password if need be (basic and digest authentication).
        open_timeout_s: Until it must have answered.

    Returns:
        The answer, if it is motion JPEG; None for another kind of video, to be opened by FFmpeg.

    Raises:
        SourceError: There is none, or no video.
    """
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if address.user:
        passwords.add_password(None, address.bare, address.user, address.password)
    opener = urllib.request.build_opener(
        urllib.request.HTTPBasicAuthHandler(passwords), urllib.request.HTTPDigestAuthHandler(passwords)
    )
    name = f"stream {address.shown}"
    try:
        response: HTTPResponse = opener.open(address.bare, timeout=open_timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        proxy = through_proxy(address)
        raise SourceError(f"{name}: {why_status(error.code, str(error.reason))}{proxy and '; '}{proxy}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise SourceError(f"{name}: {through_proxy(address) or _why_not_asked(address, error)}") from error
    kind = response.headers.get_content_type()
    if kind == _MULTIPART:
        return response
    response.close()
    if kind in ("image/jpeg", "image/png", "text/html"):
        what = "a web page" if kind == "text/html" else "a single picture"
        raise SourceError(f"{name}: {what} ({kind}), not a stream; look up the stream's address in the manual")
    return None


def _why_not_asked(address: StreamAddress, error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, OSError):
        return why_not_connected(address, reason)
    return f"what listens at {address.place} does not speak HTTP"


class MjpegConnection:
    """One answer of the type multipart/x-mixed-replace, picture by picture; see `Connection`.

    If several pictures have arrived, the newest one is taken and the others are not even decoded. One that need not be
    waited for arrived at some time since nothing was there to be received, and counts as that old.
    """

    def __init__(self, address: StreamAddress, response: HTTPResponse, read_timeout_s: float) -> None:
        self._name = f"stream {address.shown}"
        self._read_timeout_s = read_timeout_s
        boundary = str(response.headers.get_param("boundary") or "").strip('"')
        self._parser = MultipartParser(boundary.encode("latin-1", "replace"))
        try:
            self._body = HttpBody(response, read_timeout_s)
        except ValueError as error:
            response.close()
            raise SourceError(f"{self._name} broke off: {error}") from error
        self._failure: Exception | None = None
        self._empty_ns = time.monotonic_ns()  # when nothing was known to wait in the network's buffers
        self.frame_size: tuple[int, int] | None = None
        self.fps: float | None = None
        try:
            self._first: Captured | None = self._read()  # so that what opens is a stream
        except SourceError:
            self.close()
            raise
        if self._first.image.size:
            self.frame_size = (self._first.image.shape[1], self._first.image.shape[0])

    def read(self) -> Captured:
        """The newest picture."""
        first, self._first = self._first, None
        return first or self._read()

    def close(self) -> None:
        """Hang up."""
        self._body.close()

    def _read(self) -> Captured:
        deadline = time.monotonic() + self._read_timeout_s
        picture: bytes | None = None
        skipped = -1
        arrived_ns = 0
        while skipped < _BURST:
            newer = self._next_picture()
            if newer is not None:
                picture = newer
                arrived_ns = self._empty_ns
                skipped += 1
            elif not self._receive(None if picture is not None else deadline):
                break
        assert picture is not None
        image = decode_image(picture, AS_CAPTURED)
        return Captured(image, arrived_ns, skipped=skipped)

    def _next_picture(self) -> bytes | None:
        try:
            return self._parser.next_picture()
        except ValueError as error:
            raise SourceError(f"{self._name}: {error}") from error

    def _receive(self, deadline: float | None) -> bool:
        """Hand what arrives next to the parser.

        Args:
            deadline: Until then it is waited for; None: a whole picture is there, so nothing is.

        Returns:
            False: nothing could be had without waiting.

        Raises:
            SourceError: The connection broke off, or no whole picture came until the deadline.
        """
        asked_ns = time.monotonic_ns()
        try:
            if self._failure is not None:
                raise self._failure
            data = self._body.receive(wait=deadline is not None)
        except TimeoutError:
            raise SourceError(f"{self._name}: nothing for {self._read_timeout_s:g} s") from None
        except (OSError, EOFError, ValueError) as error:
            if deadline is None:  # what is whole is delivered first
                self._failure = error
                return False
            why = "the server closed it" if isinstance(error, EOFError) else str(error)
            raise SourceError(f"{self._name} broke off: {why}") from error
        if deadline is not None and time.monotonic() > deadline:
            raise SourceError(f"{self._name}: no whole picture for {self._read_timeout_s:g} s")
        now_ns = time.monotonic_ns()
        if data is None or now_ns - asked_ns >= WAITED_NS:
            self._empty_ns = now_ns
        if data is None:
            return False
        self._parser.feed(data)
        return True
