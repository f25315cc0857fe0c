"""Fetches an archive from its official address, checks it and unpacks it.

Nothing incomplete ever bears the final name: a download grows as ``NAME.part``, goes on where it broke off, and takes
its name only when the checksum is right. The checksums are the MD5 sums that the data sets' authors publish: they
protect against damage, while HTTPS protects the way.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import stat
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from framegate.runtime.errors import DataError

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""

_TIMEOUT_S = 30.0
_BLOCK = 1 << 20


def fetch(url: str, checksum: str, target: Path, progress: Progress) -> None:
    """Download a file, or leave the one that is there if it is the right one.

    Args:
        url: ``https://`` address.
        checksum: MD5 (32 hexadecimal digits) or SHA-256 (64) of the whole file.
        target: Where it shall lie; its folder is made.
        progress: Called with the kilobytes received.

    Raises:
        DataError: The address cannot be reached, the transfer broke off, or the file is not the expected one. What a
            broken transfer left is used by the next one; a wrong file is removed.
    """
    by_hand = f"or place the file as {target} yourself"
    part = target.with_name(target.name + ".part")
    try:
        if target.is_file() and file_checksum(target, len(checksum)) == checksum:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        _receive(url, part, f"{target.name}, kB", progress)
        found = file_checksum(part, len(checksum))
        if found != checksum:
            part.unlink()
            raise DataError(f"download {url}: its checksum is {found}, expected {checksum}; try again, {by_hand}")
        os.replace(part, target)
    except urllib.error.HTTPError as error:
        raise DataError(
            f"download {url}: the server answered {error.code} {error.reason}; try again later, {by_hand}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DataError(f"download {url}: {_first_line(reason)}; try again with a network, {by_hand}") from error


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(":") if lines else type(error).__name__


def file_checksum(path: Path, digits: int) -> str:
    """MD5 of a file if 32 digits are asked for, SHA-256 if 64."""
    digest = hashlib.md5(usedforsecurity=False) if digits == 32 else hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _open(url: str, start: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "framegate"}
    if start:
        headers["Range"] = f"bytes={start}-"
    response: http.client.HTTPResponse = urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_S
    )
    return response


def _receive(url: str, part: Path, name: str, progress: Progress) -> None:
    """Append to ``part`` what is missing of it, or write all of it if the server cannot give the rest."""
    start = part.stat().st_size if part.is_file() else 0
    try:
        response = _open(url, start)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        start = 0  # what is there is as long as the file, or longer: begin again, the checksum decides
        response = _open(url, start)
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else 0
        done = start
        with part.open("ab" if start else "wb") as file:
            while block := response.read(_BLOCK):
                file.write(block)
                done += len(block)
                progress(name, -(-done // 1000), -(-max(done, total) // 1000))
    if done < total:
        raise ConnectionError(f"it broke off after {done} of {total} bytes, what came is kept")


def unpack_together(archives: list[Path], folder: Path, progress: Progress) -> None:
    """Unpack archives that may share folders; what is in them takes its name in ``folder`` only when all are unpacked.

    Args:
        archives: The files; they are removed at the end.
        folder: Where to; it exists.
        progress: Called with the members unpacked.

    Raises:
        DataError: An archive cannot be unpacked, or something of the same name is there already.
    """
    staging = Path(tempfile.mkdtemp(prefix=".unpack.", dir=folder))
    try:
        for archive in archives:
            unpack(archive, staging, progress)
        entries = sorted(staging.iterdir())
        for entry in entries:
            if os.path.lexists(folder / entry.name):
                raise DataError(f"{folder / entry.name}: exists already; move it away and run the same command again")
        for entry in entries:
            entry.rename(folder / entry.name)
        for archive in archives:
            archive.unlink()
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def unpack(archive: Path, folder: Path, progress: Progress) -> None:
    """Unpack a ``.zip`` archive; any other name is taken for a tar archive, compressed or not.

    Only regular files and folders below ``folder`` are made. This is stricter than `tarfile`'s ``data`` filter, which
    allows links: a link, a device, an absolute path or one with ``..`` ends the work.

    Args:
        archive: The file.
        folder: Where to; it exists.
        progress: Called with the members unpacked.

    Raises:
        DataError: The archive is damaged or holds something that it should not, or the disk is full.
    """
    try:
        if archive.suffix == ".zip":
            _unpack_zip(archive, folder, progress)
        else:
            _unpack_tar(archive, folder, progress)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DataError(
            f"archive {archive}: cannot be unpacked ({_first_line(error)}); remove it and download it again"
        ) from error


def _unpack_zip(archive: Path, folder: Path, progress: Progress) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for k, member in enumerate(members, 1):
            place = _inside(archive, folder, member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):  # 0: written where files have no Unix mode
                raise _refused(archive, member.filename)
            if member.is_dir():
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                with file.open(member) as source, place.open("wb") as target:
                    shutil.copyfileobj(source, target, _BLOCK)
            progress(f"unpack {archive.name}", k, len(members))


def _unpack_tar(archive: Path, folder: Path, progress: Progress) -> None:
    with tarfile.open(archive) as file:
        members = file.getmembers()
        for k, member in enumerate(members, 1):
            place = _inside(archive, folder, member.name)
            source = file.extractfile(member) if member.isreg() else None
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
            elif source is None:
                raise _refused(archive, member.name)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                with source, place.open("wb") as target:
                    shutil.copyfileobj(source, target, _BLOCK)
            progress(f"unpack {archive.name}", k, len(members))


def _inside(archive: Path, folder: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise _refused(archive, name)
    return folder.joinpath(*path.parts)


def _refused(archive: Path, name: str) -> DataError:
    return DataError(
        f"archive {archive}: it holds {name!r}, which is no plain file or folder below the target; it was not unpacked"
    )
