"""Frames from a camera through Video4Linux2."""

from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path

import cv2

from framegate.runtime.errors import SourceError
from framegate.runtime.sources.clock import ArrivalClock, DriverClock
from framegate.runtime.sources.images import AS_CAPTURED, decode_image
from framegate.runtime.sources.live import Captured, LiveSource, one_line, size_and_rate
from framegate.runtime.sources.opencv import quiet_opencv
from framegate.runtime.sources.options import SourceOptions
from framegate.runtime.verdict import BGR, NV12

CAMERA_OPTIONS = ("size", "fps", "format", "exposure_ms", "buffers", "flip", "skip", "reconnect")
_FOURCC = {"mjpeg": "MJPG", "yuyv": "YUYV", "nv12": "NV12"}
_JPEGS = ("MJPG", "JPEG")
_SILENCE = "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"
_SILENCE_S = 4
# V4L2_CID_EXPOSURE_AUTO: 1 is manual; exposure times count in 100 microseconds (videodev2.h).
_MANUAL = 1
_EXPOSURES_PER_MS = 10


class CameraSource(LiveSource):
    """A V4L2 camera that is opened again when it was unplugged and comes back.

    Args:
        device: Its number, or its path such as ``/dev/video0`` or a link under ``/dev/v4l/by-id``, which still leads to
            the same camera when its number has changed.
        options: Those in `CAMERA_OPTIONS`; a camera that does not do what was asked is refused.

    Raises:
        SourceError: No such device, no permission, it is no camera, or it does not do what was asked.
    """

    def __init__(self, device: int | str, options: SourceOptions | None = None) -> None:
        quiet_opencv()
        # Read by OpenCV at its first camera: how many seconds a silent one may block a read (its own default: 10).
        os.environ.setdefault(_SILENCE, str(_SILENCE_S))
        path = f"/dev/video{device}" if isinstance(device, int) else device
        wanted = SourceOptions() if options is None else options
        super().__init__(path, lambda: CameraConnection(path, wanted), reconnect=wanted.reconnect)


class CameraConnection:
    """An open V4L2 device; see `Connection`.

    With the one buffer that the driver may hold unless more are asked for (some drivers keep more) the frame read is
    the newest. Its time of capture is the driver's where that is plausible (`DriverClock`), else that of its arrival
    (`ArrivalClock`), before it is decoded: exposure and transfer then lie before it.

    JPEGs are decoded here. OpenCV would complete half a picture with the lower half of the one before.
    """

    def __init__(self, path: str, options: SourceOptions) -> None:
        _require_device(path)
        self._name = f"camera {path}"
        self._clock, self._arrivals = DriverClock(), ArrivalClock(options.buffers)
        # By path, not by number: a link is resolved, and one camera has one name in all messages.
        self._capture = cv2.VideoCapture(os.path.realpath(path), cv2.CAP_V4L2)
        try:
            if not self._capture.isOpened():
                raise SourceError(
                    f"camera {path}: exists, but cannot be opened as a V4L2 camera; another program may be using it, "
                    f"or it is no capture device (cameras often have a second node for metadata); {_present()}"
                )
            self._configure(options)
        except SourceError:
            self._capture.release()
            raise
        self.frame_size, self.fps = size_and_rate(self._capture)

    def read(self) -> Captured:
        """The next frame; a camera that goes silent breaks off after four seconds."""
        asked_ns = time.monotonic_ns()
        try:
            grabbed = self._capture.grab()
            now_ns = time.monotonic_ns()
            stamp_ms = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) if grabbed else 0.0
            ok, image = self._capture.retrieve() if grabbed else (False, None)
        except cv2.error as error:
            raise SourceError(f"{self._name} failed: {one_line(error)}") from error
        if ok and self._sends_jpeg:
            data = b"" if image is None else image.tobytes()
            image = decode_image(data, AS_CAPTURED)
        if not ok or image is None:
            raise SourceError(f"{self._name} stopped delivering; was it unplugged, or is the USB bus overloaded?")
        arrived_ns = self._arrivals.captured_ns(asked_ns, now_ns)
        captured_ns = self._clock.captured_ns(stamp_ms, now_ns)
        if self._clock.trusted:
            return Captured(image, captured_ns, self._pixel_format, "driver")
        return Captured(image, arrived_ns, self._pixel_format)

    def close(self) -> None:
        """Close the device."""
        self._capture.release()

    def _configure(self, options: SourceOptions) -> None:
        """Ask the driver for what was wished, and look at what it made of that.

        Raises:
            SourceError: It does something else.
        """
        capture = self._capture
        # The format first: it decides which sizes and rates there are.
        self._pixel_format = BGR
        if options.format is not None:
            code = cv2.VideoWriter.fourcc(*_FOURCC[options.format])
            capture.set(cv2.CAP_PROP_FOURCC, code)
            self._require("format", _FOURCC[options.format], _fourcc_name(capture.get(cv2.CAP_PROP_FOURCC)))
            if options.format == NV12:
                self._pixel_format = NV12
        if options.size is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, options.size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, options.size[1])
            found = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
            self._require("size", "{}x{}".format(*options.size), "{}x{}".format(*found))
        if options.fps is not None:
            capture.set(cv2.CAP_PROP_FPS, options.fps)
            rate = float(capture.get(cv2.CAP_PROP_FPS))
            if not abs(rate - options.fps) <= 0.02 * options.fps:  # 29.97 will do for 30
                self._require("fps", f"{options.fps:g}", f"{rate:g}")
        if options.exposure_ms is not None:
            ticks = max(1, round(options.exposure_ms * _EXPOSURES_PER_MS))
            manual = capture.set(cv2.CAP_PROP_AUTO_EXPOSURE, _MANUAL)
            if not (capture.set(cv2.CAP_PROP_EXPOSURE, ticks) and manual):
                self._require("exposure_ms", f"{options.exposure_ms:g}", "none that can be set")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, options.buffers)
        self._sends_jpeg = _fourcc_name(capture.get(cv2.CAP_PROP_FOURCC)) in _JPEGS
        if self._sends_jpeg or self._pixel_format == NV12:
            capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)

    def _require(self, what: str, wanted: str, found: str) -> None:
        if wanted != found:
            raise SourceError(
                f"{self._name}: {what} {wanted} was asked for, the camera offers {found}; "
                "`v4l2-ctl --list-formats-ext` shows what it can do"
            )


def _fourcc_name(code: float) -> str:
    number = int(code)
    return "".join(chr(number >> shift & 0x7F) for shift in (0, 8, 16, 24)) if number > 0 else "none"


def _require_device(path: str) -> None:
    """Check what can be checked without the driver, because OpenCV's refusal gives no reason.

    Raises:
        SourceError: The path does not exist, may not be opened, or is not a device.
    """
    try:
        mode = os.stat(path).st_mode
        # Opened for real, as OpenCV will: a container can forbid a device whose permission bits look fine.
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except FileNotFoundError as error:
        raise SourceError(f"camera {path}: no such device; {_present()}") from error
    except PermissionError as error:
        raise SourceError(
            f"camera {path}: permission denied; add the user to group video (sudo usermod -aG video $USER, then log "
            "in again), and in a container pass the device with --device"
        ) from error
    except OSError as error:
        raise SourceError(f"camera {path}: {error.strerror}; {_present()}") from error
    if not stat.S_ISCHR(mode):
        raise SourceError(f"camera {path}: a file, not a device; {_present()}")


def _present() -> str:
    """The cameras of this machine, for error messages."""
    nodes = [path.name for path in Path("/dev").glob("video*") if re.fullmatch(r"video[0-9]+", path.name)]
    nodes.sort(key=lambda name: int(name[5:]))
    return "present: " + ", ".join(f"/dev/{name}" for name in nodes) if nodes else "there is no /dev/video* at all"
