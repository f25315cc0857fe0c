"""Frames from a camera through Video4Linux2."""

from __future__ import annotations

import os
import re
import stat
import time
from pathlib import Path

import cv2

from framegate.runtime.errors import SourceError
from framegate.runtime.source import BaseSource, quiet_opencv
from framegate.runtime.verdict import Frame


class CameraSource(BaseSource):
    """A V4L2 camera.

    Args:
        device: Its number, or its path such as ``/dev/video0`` or a link under ``/dev/v4l/by-id``.

    The driver keeps one buffer (where it allows that), so the frame read is the newest. The time of capture is taken
    when the driver hands the frame over, before it is decoded: exposure and transfer lie before it. A camera that
    goes silent without an error blocks `read` until the driver's timeout (OpenCV: 10 s); `close` does not wait
    for that, but the device stays open until then.

    Raises:
        SourceError: No such device, no permission, or it is no camera.
    """

    def __init__(self, device: int | str) -> None:
        quiet_opencv()
        path = f"/dev/video{device}" if isinstance(device, int) else device
        _require_device(path)
        # By path, not by number: a link is resolved, and one camera has one name in all messages.
        self._capture = cv2.VideoCapture(os.path.realpath(path), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(
                f"camera {path}: exists, but cannot be opened as a V4L2 camera; another program may be using it, or "
                f"it is no capture device (cameras often have a second node for metadata); {_present()}"
            )
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        super().__init__(
            path,
            live=True,
            frame_size=(width, height) if width > 0 and height > 0 else None,
            fps=fps if 0 < fps <= 1000 else None,
        )

    def _produce(self, frame_id: int) -> Frame:
        try:
            grabbed = self._capture.grab()
            captured_ns = time.monotonic_ns()
            ok, image = self._capture.retrieve() if grabbed else (False, None)
        except cv2.error as error:
            raise SourceError(f"camera {self.name} failed at frame {frame_id}: {error}") from error
        if not ok or image is None:
            raise SourceError(
                f"camera {self.name} stopped delivering before frame {frame_id}; was it unplugged, or is the USB bus "
                "overloaded?"
            )
        return Frame(frame_id, captured_ns, image)

    def _release(self) -> None:
        self._capture.release()


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
