"""Frames from a GStreamer pipeline, and from the cameras on a Jetson's CSI connectors through one.

Needs an OpenCV that was built with GStreamer: Debian's and Ubuntu's python3-opencv and JetPack's own are, the wheels of
PyPI are not.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace

import cv2

from framegate.runtime.errors import SourceError, UsageError
from framegate.runtime.passwords import hide_parameters, hide_passwords
from framegate.runtime.sources.base import BaseSource
from framegate.runtime.sources.clock import ArrivalClock
from framegate.runtime.sources.live import Captured, LiveSource, one_line, size_and_rate
from framegate.runtime.sources.opencv import opencv_is_at_least, quiet_opencv
from framegate.runtime.sources.options import SourceOptions
from framegate.runtime.sources.watched_capture import WatchedCapture
from framegate.runtime.verdict import BGR, NV12

_SINK = "appsink drop=true max-buffers=1 sync=false"
"""Newest frame wins: the sink holds one, and a newer one replaces it."""
_CSI_OPTIONS = ("size", "fps", "format", "exposure_ms", "flip", "skip", "reconnect", "read_timeout_s")
_GST_OPTIONS = ("fps", "format", "flip", "skip", "reconnect", "read_timeout_s")
_TIMEOUTS_SINCE = 4, 7
"""OpenCV's first version with timeouts for pipelines; older ones need a `WatchedCapture`."""
_CSI_SIZE, _CSI_FPS = (1280, 720), 30.0


def open_gstreamer(uri: str, options: SourceOptions) -> tuple[BaseSource, SourceOptions]:
    """Open ``gst://PIPELINE``, a bare pipeline, or ``csi://0?size=1280x720&fps=30&format=nv12&exposure_ms=5``.

    Args:
        uri: What the user typed.
        options: What was asked for beside.

    Returns:
        The source, and the options that it left to others.

    Raises:
        SourceError: OpenCV has no GStreamer, or the pipeline does not run.
        UsageError: The address or the options are wrong.
    """
    if uri.lower().startswith("csi://"):
        sensor, _, query = uri[len("csi://") :].partition("?")
        options = options.with_query(uri, query)
        options.require_only("source csi://", _CSI_OPTIONS)
        pipeline = csi_pipeline(uri, sensor, options)
        name, nv12, left = f"csi://{sensor}", options.format in (None, NV12), replace(options, fps=None)
    else:
        options.require_only("a GStreamer pipeline", _GST_OPTIONS)
        wanted = uri[len("gst://") :] if uri.lower().startswith("gst://") else uri
        pipeline, nv12 = with_sink(wanted, options.format)
        name, left = hide_passwords(wanted.strip()), options
    _require_gstreamer(name)

    given_up: WatchedCapture | None = None

    def connect() -> GStreamerConnection:
        nonlocal given_up
        if given_up is not None and given_up.waits:  # a second one would find the camera in use
            raise SourceError(
                f"GStreamer pipeline {name} is silent, and OpenCV {cv2.__version__} cannot stop it (4.7 and newer can)"
            )
        capture = _open(pipeline, options.read_timeout_s)
        given_up = capture if isinstance(capture, WatchedCapture) else None
        return GStreamerConnection(name, pipeline, capture, options.read_timeout_s, nv12)

    return LiveSource(name, connect, reconnect=options.reconnect), left


def csi_pipeline(uri: str, sensor: str, options: SourceOptions) -> str:
    """The pipeline of a camera on a Jetson: sensor and image processor, then NV12 (or BGR) in the CPU's memory.

    Raises:
        UsageError: The sensor is no number, or the format none that the image processor gives.
    """
    if not re.fullmatch(r"[0-9]{1,2}", sensor):
        raise UsageError(f"source {hide_parameters(uri)!r}: expected csi://0 or csi://0?size=1280x720&fps=30")
    if options.format not in (None, NV12):
        raise UsageError(f"source {hide_parameters(uri)!r}: a CSI camera delivers nv12, not {options.format}")
    width, height = options.size or _CSI_SIZE
    rate = options.fps or _CSI_FPS
    # GStreamer wants a fraction.
    fraction = f"{round(rate)}/1" if float(rate).is_integer() else f"{round(rate * 1000)}/1000"
    exposure = ""
    if options.exposure_ms is not None:
        nanoseconds = round(options.exposure_ms * 1e6)
        exposure = f' aelock=true exposuretimerange="{nanoseconds} {nanoseconds}"'
    return (
        f"nvarguscamerasrc sensor-id={sensor}{exposure} "
        f"! video/x-raw(memory:NVMM),width={width},height={height},framerate={fraction},format=NV12 "
        f"! nvvidconv ! video/x-raw,format=NV12 ! {_SINK}"
    )


def with_sink(pipeline: str, pixel_format: str | None) -> tuple[str, bool]:
    """Add what OpenCV needs to the end of a pipeline that has no appsink.

    Args:
        pipeline: As for ``gst-launch-1.0``.
        pixel_format: ``nv12`` or None for BGR.

    Returns:
        The whole pipeline, and whether it delivers NV12.

    Raises:
        UsageError: It is empty, or the format is neither.
    """
    if not pipeline.strip():
        raise UsageError("gst:// needs a pipeline behind it, e.g. 'gst://videotestsrc ! video/x-raw,width=640'")
    if pixel_format not in (None, NV12):
        raise UsageError(f"a GStreamer pipeline delivers BGR or nv12 here, not {pixel_format}")
    if re.search(r"\bappsink\b", pipeline):
        # Written out by someone who knows: what the caps in front of it say is what arrives.
        return pipeline, pixel_format == NV12
    kind = "NV12" if pixel_format == NV12 else "BGR"
    return f"{pipeline} ! videoconvert ! video/x-raw,format={kind} ! {_SINK}", pixel_format == NV12


def _require_gstreamer(name: str) -> None:
    quiet_opencv()
    built = re.search(r"GStreamer:\s+(\S+)", cv2.getBuildInformation())
    if cv2.CAP_GSTREAMER in cv2.videoio_registry.getStreamBackends() and built and built[1] == "YES":
        return
    raise SourceError(
        f"source {name}: needs GStreamer, and this OpenCV ({cv2.__version__}) was built without it, like all wheels "
        "of opencv-python; use the system's OpenCV (on a Jetson JetPack's, on Debian and Ubuntu python3-opencv) in a "
        "virtual environment with --system-site-packages, and no opencv-python wheel in it"
    )


class GStreamerConnection:
    """A running pipeline; see `Connection`. The time of capture is that of arrival from it (`ArrivalClock`).

    Raises:
        SourceError: It does not run.
    """

    def __init__(
        self, name: str, pipeline: str, capture: cv2.VideoCapture | WatchedCapture, read_timeout_s: float, nv12: bool
    ) -> None:
        self._name = f"GStreamer pipeline {name}"
        self._capture = capture
        self._pixel_format = NV12 if nv12 else BGR
        self._silence = f"{self._name} delivered nothing for {read_timeout_s:g} s"
        self._clock = ArrivalClock()
        try:
            opened = capture.isOpened()
            self.frame_size, self.fps = size_and_rate(capture)
        except TimeoutError:
            raise SourceError(self._silence) from None
        if not opened:
            self._capture.release()
            shown = hide_passwords(pipeline.partition(" ! appsink")[0])
            raise SourceError(
                f"{self._name} does not run; `gst-launch-1.0 {shown} ! fakesink` "
                "says why; is every plugin installed, and is no other program using the camera?"
            )

    def read(self) -> Captured:
        """The newest frame."""
        asked_ns = time.monotonic_ns()
        try:
            grabbed = self._capture.grab()
            now_ns = time.monotonic_ns()
            ok, image = self._capture.retrieve() if grabbed else (False, None)
        except TimeoutError:
            raise SourceError(self._silence) from None
        except cv2.error as error:
            raise SourceError(f"{self._name} failed: {one_line(error)}") from error
        if not ok or image is None:
            raise SourceError(f"{self._name} stopped delivering: it ended, a part of it failed, or it fell silent")
        return Captured(image, self._clock.captured_ns(asked_ns, now_ns), self._pixel_format)

    def close(self) -> None:
        """Stop the pipeline."""
        self._capture.release()


def _open(pipeline: str, timeout_s: float) -> cv2.VideoCapture | WatchedCapture:
    """Open a pipeline that is given up when it is silent for so long."""
    if not opencv_is_at_least(*_TIMEOUTS_SINCE):
        return WatchedCapture(pipeline, cv2.CAP_GSTREAMER, timeout_s)
    timeout = round(timeout_s * 1000)
    parameters = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout]
    return cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER, parameters)
