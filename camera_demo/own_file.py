"""People's own picture or clip on the page: received, looked at from outside, and judged by a process of its own.

Decoders of pictures and videos are large and old programs, and the file is a stranger's. So nothing of it is decoded in
the process that judges the camera: another one (`framegate.camera_demo.own_file_process`) decodes and judges it, with
low priority, limited time, and no right to write files; whatever it does, the camera's verdicts go on. The file lies in
a private temporary folder for as long as that takes, under a name made here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_FILE_BYTES = 32 * 2**20
CLIP_S = 20
"""Of a longer clip the beginning is judged, in seconds."""
MOST_FRAMES = 600
MOST_PIXELS = 64_000_000
JUDGE_S = 45.0
"""A clip that takes longer is judged as far as this."""
KILL_S = 100.0
"""After this the process is ended, whatever it does."""
_READ_BYTES = 1 << 16
_PICTURES = ((b"\xff\xd8\xff", ".jpg"), (b"\x89PNG\r\n\x1a\n", ".png"), (b"BM", ".bmp"))
_HEIF = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
WANTED = "a picture (JPEG, PNG, WebP, BMP) or a clip (MP4, MOV, WebM, MKV, AVI)"
BROKEN = "this file made its decoder fail, so nothing of it is shown; the camera's verdicts were not touched"


def kind_of(beginning: bytes) -> tuple[str, str]:
    """How a file ends that begins so, and why it is refused; one of the two is empty.

    Only what a signature names is given to a decoder. Lists of other files (``#EXTM3U``, ``ffconcat``), with which a
    video decoder would open what they name, have none.

    Args:
        beginning: At least 16 bytes, where the file has as many.
    """
    for signature, ending in _PICTURES:
        if beginning.startswith(signature):
            return ending, ""
    inner, brand = beginning[4:8], beginning[8:12]
    if beginning[:4] == b"RIFF":
        ending = {b"WEBP": ".webp", b"AVI ": ".avi"}.get(brand, "")
        return ending, "" if ending else f"expected {WANTED}"
    if inner == b"ftyp" and brand in _HEIF:
        return "", "this is a HEIC or AVIF picture, which is not read here; save it as JPEG"
    if inner in _BOXES:
        return ".mp4", ""
    if beginning.startswith(b"\x1a\x45\xdf\xa3"):
        return ".mkv", ""
    if not beginning:
        return "", "this file is empty"
    return "", f"this is neither {WANTED.replace(' or ', ' nor ')}"


@dataclass(frozen=True)
class Judge:
    """What judges the files: the demo's own bundle, engine and detector.

    Attributes:
        bundle: Path of the bundle.
        backend: Name of the backend.
        precision: Of the network.
        trust: PEM file of the key that must have signed it; None asks for no signature.
        objects: A detector bundle that finds the objects to judge; None judges the whole picture.
        label_map: What its labels go with; None compares nothing.
        track_rule: See ``--track-rule``.
    """

    bundle: str
    backend: str
    precision: str
    trust: str | None = None
    objects: str | None = None
    label_map: str | None = None
    track_rule: str | None = None


def record(**values: Any) -> bytes:
    """A record without a picture, as `framegate.camera_demo.picture` frames it, behind its length."""
    head = json.dumps(values, separators=(",", ":")).encode()
    return struct.pack(">II", 4 + len(head), len(head)) + head


class Received:
    """A file that has come, in a folder of its own that goes with it.

    Attributes:
        file: Where it lies; None if it is refused.
        why: It is refused.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="framegate-own-")
        self.file: Path | None = None
        self.why = ""

    async def receive(self, pieces: AsyncIterator[bytes]) -> None:
        """Take it, piece by piece."""
        self.file, self.why = await _receive(pieces, Path(self._folder.name))

    def forget(self) -> None:
        """Remove it."""
        self._folder.cleanup()


class OwnFiles:
    """Has files judged, one at a time. Belongs to an event loop.

    Args:
        judge: What judges them.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._busy = False

    async def judged(self, received: Received) -> AsyncIterator[bytes]:
        """Give what is found in a file, piece by piece: messages, each behind its length of 4 bytes.

        Args:
            received: The file; forgotten at the end.
        """
        try:
            if received.file is None:
                yield record(refused=received.why)
            elif self._busy:
                yield record(refused="another file is being judged just now; try again in a moment")
            else:
                self._busy = True
                try:
                    async for piece in self._ask(received.file):
                        yield piece
                finally:
                    self._busy = False
        finally:
            received.forget()

    async def _ask(self, file: Path) -> AsyncIterator[bytes]:
        settings = json.dumps({"file": str(file), **vars(self._judge)})
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "framegate.camera_demo.own_file_process",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "OPENCV_IO_MAX_IMAGE_PIXELS": str(MOST_PIXELS)},
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        loop = asyncio.get_running_loop()
        timer = loop.call_later(KILL_S, _kill, process)
        try:
            process.stdin.write(settings.encode())
            process.stdin.close()
            while piece := await process.stdout.read(_READ_BYTES):
                yield piece
            if await process.wait():
                yield record(refused=BROKEN)
        finally:  # also when the page is closed meanwhile
            timer.cancel()
            _kill(process)
            await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def _receive(received: AsyncIterator[bytes], folder: Path) -> tuple[Path | None, str]:
    """The file, or why there is none."""
    beginning, size = b"", 0
    place = folder / "received"
    with place.open("wb") as file:
        async for piece in received:
            size += len(piece)
            if size > MOST_FILE_BYTES:
                return None, f"this file is larger than {MOST_FILE_BYTES >> 20} MiB; take a shorter or smaller one"
            if len(beginning) < 16:
                beginning = (beginning + piece)[:16]
            file.write(piece)
    ending, why = kind_of(beginning)
    return (place.rename(folder / f"own{ending}"), "") if ending else (None, why)
