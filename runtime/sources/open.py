"""`open_source`: which kind of source a name or address means.

Each kind's module is imported only when it is opened: a folder of images never touches the video decoder.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from framegate.runtime.errors import SourceError
from framegate.runtime.passwords import hide_passwords
from framegate.runtime.sources.base import Source
from framegate.runtime.sources.opencv import IMAGE_SUFFIXES
from framegate.runtime.sources.options import SourceOptions
from framegate.runtime.sources.spelling import odd_sign, same_name

_CAMERA_NUMBER = re.compile(r"[0-9]{1,6}")
_CAMERA_PATH = re.compile(r"/dev/video[0-9]+")
_PARAMETER = re.compile("[a-z_]+=")
STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https", "udp")
STREAM_OPTIONS = ("fps", "flip", "skip", "reconnect", "open_timeout_s", "read_timeout_s", "transport")
_POSSIBLE = (
    "possible are: a camera (0 or /dev/video0), a video file, an image file, a folder of images or a pattern, "
    "csi://0, a GStreamer pipeline, rtsp://, rtsps://, http://, https:// or udp:// and an address, "
    "or synthetic://?width=640&height=480&fps=30&frames=100"
)


def open_kind(uri: str, options: SourceOptions, realtime: bool, loop: bool) -> tuple[Source, SourceOptions]:
    """Open a source as `open_source` describes it, all but what every kind has in common.

    Returns:
        The source, and the options that are left to do for `AdjustedSource`.

    Raises:
        SourceError: There is no such thing, or it cannot be opened.
        UsageError: An option or parameter is wrong, or this kind of source cannot honour it.
    """
    scheme = uri.partition("://")[0].lower() if "://" in uri else ""
    if uri[: len("synthetic:")].lower() == "synthetic:":
        from framegate.runtime.sources.synthetic import SyntheticSource

        uri = "synthetic:" + uri[len("synthetic:") :]

        options.require_only(f"source {hide_passwords(uri)!r}", ("flip", "skip"))
        return SyntheticSource.parse(uri, realtime=realtime, loop=loop), options
    if scheme in ("gst", "csi") or " ! " in uri:
        from framegate.runtime.sources.gstreamer import open_gstreamer

        return open_gstreamer(uri, options)
    if scheme in STREAM_SCHEMES:
        from framegate.runtime.sources.stream import open_stream

        options.require_only(f"source {scheme}://", STREAM_OPTIONS)
        return open_stream(uri, options), options
    device, _, query = uri.partition("?")
    try:
        is_camera = _CAMERA_PATH.fullmatch(os.path.realpath(device)) is not None
    except (OSError, ValueError) as error:  # a NUL in the name
        raise SourceError(f"source {hide_passwords(uri)!r}: cannot be looked up: {error}") from error
    if is_camera or _CAMERA_NUMBER.fullmatch(device):
        from framegate.runtime.sources.camera import CAMERA_OPTIONS, CameraSource

        if not is_camera:
            _require_one_meaning(device)
        options = options.with_query(uri, query)
        options.require_only(f"camera {device}", CAMERA_OPTIONS)
        return CameraSource(device if is_camera else int(device), options), replace(options, fps=None)
    return _open_file(uri, options, realtime, loop), replace(options, fps=None)


def _require_one_meaning(number: str) -> None:
    """Refuse a number that is a camera to the letter, where a file or folder of that name is more likely meant.

    Raises:
        SourceError: There is one, and no such camera, or nobody writes a camera like that.
    """
    camera = f"/dev/video{int(number)}"
    if os.path.lexists(number) and (number != str(int(number)) or not os.path.exists(camera)):
        kind = "folder" if os.path.isdir(number) else "file"
        raise SourceError(
            f"source {number!r}: a number is a camera, here {camera}, and there is a {kind} of that name; write "
            f"./{number} for the {kind} or {camera} for the camera"
        )


def _open_file(uri: str, options: SourceOptions, realtime: bool, loop: bool) -> Source:
    path = Path(uri)
    try:
        is_folder, is_file, exists = path.is_dir(), path.is_file(), path.exists()
    except (OSError, ValueError) as error:  # a folder on the way that may not be entered, a NUL in the name
        raise SourceError(f"source {hide_passwords(uri)!r}: cannot be looked up: {error}") from error
    named, _, query = uri.partition("?")
    if not exists and _PARAMETER.match(query) and os.path.exists(named):
        raise SourceError(
            f"source {hide_passwords(uri)!r}: {hide_passwords(named)} is there, and files and folders take no "
            "parameters behind a ?; use options such as --fps"
        )
    is_pattern = not exists and any(sign in uri for sign in "*?[") and "://" not in uri
    if uri and (is_pattern or is_folder or (is_file and path.suffix.lower() in IMAGE_SUFFIXES)):
        from framegate.runtime.sources.images import ImageSource

        options.require_only(f"images {hide_passwords(uri)}", ("fps", "flip", "skip"))
        return ImageSource(path, loop=loop, fps=options.fps)
    if is_file:
        from framegate.runtime.sources.video import VideoFileSource

        options.require_only(f"video {uri}", ("fps", "flip", "skip"))
        return VideoFileSource(path, realtime=realtime, loop=loop, fps=options.fps)
    raise SourceError(f"source {hide_passwords(uri)!r}: {_why_nothing(uri, path, exists)}")


def _why_nothing(uri: str, path: Path, exists: bool) -> str:
    """Why what was typed is no source, and what could be."""
    if not uri:
        return f"nothing was named; {_POSSIBLE}"
    if uri.lower().startswith("file://"):
        return "a file is named by its path alone; leave out file://, and write %20 and the like as what they stand for"
    if "://" in uri:
        found = odd_sign(uri.partition("://")[0])
        return f"this kind of address is not supported; {found or _POSSIBLE}"
    if exists:
        return f"it is neither a file nor a folder; {_POSSIBLE}"
    if uri.startswith("~"):
        return (
            "there is no such file or folder; a shell puts your home folder in place of ~ only where it is not quoted"
        )
    scheme = uri.partition(":")[0].lower()
    if scheme in STREAM_SCHEMES and uri != scheme:
        return f"there is no such file or folder; the address of a stream begins with {scheme}://"
    # A name with an @ may be an address without its beginning, and that sign part of its password.
    hint = "" if "@" in uri else same_name(path) or odd_sign(uri)
    return f"there is no such file or folder; {hint or _POSSIBLE}"


def open_source(uri: str, options: SourceOptions | None = None, *, realtime: bool = True, loop: bool = False) -> Source:
    """Open what the user typed.

    Args:
        uri: ``0`` or ``/dev/video0`` (also a link to it), with ``?size=1280x720&fps=30&format=mjpeg`` if wished: a
            camera; a file or folder named 0 is ``./0``. ``csi://0``: a camera on a Jetson's CSI connector. ``gst://``
            and a GStreamer pipeline, or anything with `` ! `` in it: that pipeline. ``rtsp://``, ``http://`` and their
            like: a network stream. A folder, a pattern such as ``'frames/*.png'``, or one image file: images. Any other
            file: a video. ``synthetic://?width=640&height=480&fps=30&frames=100``: a moving test pattern.
        options: What is asked of it beside; see there which kind of source can do what.
        realtime: Deliver a video or the test pattern at its own frame rate, like a camera. False: as fast as it
            is read. Cameras, streams and images have no choice.
        loop: Start again at the end. A camera or stream has none.

    Raises:
        SourceError: There is no such thing, or it cannot be opened.
        UsageError: The parameters of an address or the options are wrong, or this kind of source cannot honour them.
    """
    options = SourceOptions() if options is None else options
    source, left = open_kind(uri, options, realtime, loop)
    if left.flip == "none" and not left.skip and left.fps is None:
        return source
    from framegate.runtime.sources.adjust import AdjustedSource

    return AdjustedSource(source, flip=left.flip, skip=left.skip, fps=left.fps)
