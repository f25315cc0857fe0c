"""Network streams: which reader takes an address, and the one on FFmpeg (RTSP, MPEG-TS, HLS and the like)."""

from __future__ import annotations

import os
import threading
import time

import cv2

from framegate.runtime.errors import SourceError
from framegate.runtime.sources.address import StreamAddress, why_no_video
from framegate.runtime.sources.base import BaseSource
from framegate.runtime.sources.clock import StreamClock
from framegate.runtime.sources.live import Captured, Connection, LiveSource, one_line, size_and_rate
from framegate.runtime.sources.mjpeg import MjpegConnection, open_http
from framegate.runtime.sources.opencv import opencv_is_at_least, quiet_opencv
from framegate.runtime.sources.options import SourceOptions
from framegate.runtime.sources.proxy import through_proxy

_OPTIONS_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_ENVIRONMENT = threading.Lock()
_SCALES_SINCE = 4, 13
_BACKLOG_NS = 2_000_000_000
_AT_ONCE_NS = 4_000_000
"""A frame that took less to get, decoding included, had been waiting."""


def open_stream(uri: str, options: SourceOptions) -> BaseSource:
    """Open a live network stream.

    Args:
        uri: ``rtsp://``, ``rtsps://``, ``http://``, ``https://`` or ``udp://`` and the rest.
        options: Timeouts, transport, and whether to reconnect.

    Raises:
        SourceError: There is nothing, or something else, at the address.
    """
    quiet_opencv()
    address = StreamAddress.parse(uri)

    def connect() -> Connection:
        if address.scheme in ("http", "https"):
            response = open_http(address, options.open_timeout_s)
            if response is not None:
                return MjpegConnection(address, response, options.read_timeout_s)
        return FfmpegConnection(address, options)

    return LiveSource(address.shown, connect, reconnect=options.reconnect)


class FfmpegConnection:
    """A stream that OpenCV's FFmpeg reads and decodes; see `Connection`.

    On one thread (FFmpeg's others would each hold a frame back) and without the queue that builds up while the stream
    is being recognised: what waits at the start is thrown away until a frame has to be waited for.

    A stream that changes its picture size without being opened again is scaled to the old size by OpenCV, unseen.
    Before 4.13 OpenCV mixed it with the picture before instead, so that no stream is opened with it.

    The time of capture is that of arrival, less what the frame lags behind the fastest one so far (`StreamClock`).

    Raises:
        SourceError: It cannot be opened; the message says why, as far as that can be found out.
    """

    def __init__(self, address: StreamAddress, options: SourceOptions) -> None:
        _require_scaling(address)
        self._name = f"stream {address.shown}"
        self._read_timeout_s = options.read_timeout_s
        self._clock = StreamClock()
        self._capture = _open_ffmpeg(address, options)
        # Where the rate is unknown FFmpeg likes to say 90000.
        self.frame_size, self.fps = size_and_rate(self._capture, 240.0)
        if self.frame_size is None:  # also what it calls open when the time was up before the first picture
            self._capture.release()
            proxy = through_proxy(address, ffmpeg=True)
            why = why_no_video(address, options.open_timeout_s)
            raise SourceError(f"{self._name}: {why}{proxy and '; '}{proxy}")
        if self._capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
            self._capture.release()
            raise SourceError(f"{self._name}: a recording, not a live stream; download it and give the file's name")
        self._fresh = False

    def read(self) -> Captured:
        """The next frame; after opening, the first one that was not waiting already."""
        skipped = 0
        asked_ns = started_ns = time.monotonic_ns()
        now_ns = self._grab()
        while not self._fresh and now_ns - asked_ns < _AT_ONCE_NS and now_ns - started_ns < _BACKLOG_NS:
            skipped += 1
            asked_ns, now_ns = now_ns, self._grab()
        self._fresh = True
        ok, image = self._capture.retrieve()
        if not ok or image is None:
            raise SourceError(f"{self._name}: a picture could not be decoded")
        captured_ns = self._clock.captured_ns(float(self._capture.get(cv2.CAP_PROP_POS_MSEC)), now_ns)
        return Captured(image, captured_ns, timestamps="stream", skipped=skipped)

    def close(self) -> None:
        """Close the connection."""
        self._capture.release()

    def _grab(self) -> int:
        """Wait for a frame; returns when it was there, in ns of the monotonic clock."""
        asked_ns = time.monotonic_ns()
        try:
            ok = self._capture.grab()
        except cv2.error as error:
            raise SourceError(f"{self._name} failed: {one_line(error)}") from error
        now_ns = time.monotonic_ns()
        if ok:
            return now_ns
        if now_ns - asked_ns >= 0.9e9 * self._read_timeout_s:
            raise SourceError(f"{self._name}: nothing usable for {self._read_timeout_s:g} s")
        raise SourceError(f"{self._name} broke off: the server closed it, or sent what is no video")


def _require_scaling(address: StreamAddress) -> None:
    """Refuse an OpenCV whose pictures become a mixture of two when a stream changes its size.

    Raises:
        SourceError: It is older than 4.13.
    """
    if opencv_is_at_least(*_SCALES_SINCE):
        return
    advice = "pip install --upgrade opencv-python-headless"
    if address.scheme in ("rtsp", "rtsps"):
        advice += f", or let GStreamer read it: 'rtspsrc location={address.shown} latency=0 ! decodebin'"
    raise SourceError(
        f"stream {address.shown}: needs OpenCV 4.13 or newer, this is {cv2.__version__}; older ones mix two pictures "
        f"when a stream changes its size, and nobody is told; {advice}"
    )


def _open_ffmpeg(address: StreamAddress, options: SourceOptions) -> cv2.VideoCapture:
    # OpenCV hands FFmpeg's own options on from the environment only. They must not reach the next file that is opened:
    # there "nobuffer" would lose the first frames.
    # Three frames to find out the rate instead of twenty: it opens, and comes back, more than a second sooner.
    ffmpeg_options = ["fflags;nobuffer+discardcorrupt", "err_detect;explode", "fpsprobesize;3"]
    if address.scheme in ("rtsp", "rtsps"):
        ffmpeg_options.insert(0, f"rtsp_transport;{options.transport}")
    parameters = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(options.open_timeout_s * 1000)),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(options.read_timeout_s * 1000)),
        *(cv2.CAP_PROP_N_THREADS, 1),
    ]
    with _ENVIRONMENT:
        given = os.environ.get(_OPTIONS_VARIABLE)
        if given is None:
            os.environ[_OPTIONS_VARIABLE] = "|".join(ffmpeg_options)
        try:
            return cv2.VideoCapture(address.uri, cv2.CAP_FFMPEG, parameters)
        finally:
            if given is None:
                os.environ.pop(_OPTIONS_VARIABLE, None)
