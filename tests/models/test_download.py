"""A real HTTP server on this machine; no test leaves it."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import re
import socket
import tarfile
import threading
import zipfile

import pytest

from framegate.models.download import fetch, unpack, unpack_together
from framegate.runtime.errors import DataError

DATA = bytes(range(256)) * 12_000  # three times the size of a read
MD5, SHA256 = hashlib.md5(DATA).hexdigest(), hashlib.sha256(DATA).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """/whole, /ranges (answers a Range request), /short (breaks off), /unknown (no length), /gone (404)."""

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        kind = self.path.strip("/")
        if kind == "gone":
            self.send_error(404)
            return
        start = 0
        if kind == "ranges" and (asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
            start = int(asked[1])
            if start >= len(DATA):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if kind != "unknown":
            self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        self.wfile.write(DATA[start:2_000_000] if kind == "short" else DATA[start:])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.requests = []
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        running.url = f"http://127.0.0.1:{running.server_port}"
        yield running
        running.shutdown()
        thread.join()


def silent(what, done, total):
    pass


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["whole", "unknown"])
@pytest.mark.parametrize("checksum", [MD5, SHA256])
def test_a_good_file_arrives_whole_with_progress(server, tmp_path, kind, checksum):
    calls = []
    target = tmp_path / "new" / "data.bin"
    fetch(f"{server.url}/{kind}", checksum, target, lambda *call: calls.append(call))
    assert target.read_bytes() == DATA
    assert names(target.parent) == ["data.bin"]
    done = [call[1] for call in calls]
    assert done == sorted(done)
    assert calls[-1] == ("data.bin, kB", 3072, 3072)
    assert all(d <= t for _, d, t in calls)


def test_a_file_that_is_there_already_is_not_fetched_again(server, tmp_path):
    target = tmp_path / "data.bin"
    target.write_bytes(DATA)
    fetch(f"{server.url}/whole", MD5, target, silent)
    assert server.requests == []
    target.write_bytes(DATA[:-1])  # a damaged one is
    fetch(f"{server.url}/whole", MD5, target, silent)
    assert target.read_bytes() == DATA


def test_a_transfer_that_breaks_off_goes_on_where_it_ended(server, tmp_path):
    target = tmp_path / "data.bin"
    with pytest.raises(DataError, match=r"broke off after 2000000 of 3072000 bytes, what came is kept; .*yourself"):
        fetch(f"{server.url}/short", MD5, target, silent)
    assert names(tmp_path) == ["data.bin.part"]
    fetch(f"{server.url}/ranges", MD5, target, silent)
    assert server.requests[-1] == ("/ranges", "bytes=2000000-")
    assert target.read_bytes() == DATA
    assert names(tmp_path) == ["data.bin"]


def test_a_server_that_cannot_go_on_sends_everything(server, tmp_path):
    target = tmp_path / "data.bin"
    (tmp_path / "data.bin.part").write_bytes(DATA[:1000])
    fetch(f"{server.url}/whole", MD5, target, silent)
    assert target.read_bytes() == DATA


def test_a_rest_that_is_too_long_is_begun_again(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(DATA + b"x")
    fetch(f"{server.url}/ranges", MD5, tmp_path / "data.bin", silent)
    assert [asked for _, asked in server.requests] == [f"bytes={len(DATA) + 1}-", None]
    assert (tmp_path / "data.bin").read_bytes() == DATA


def test_a_wrong_file_is_thrown_away(server, tmp_path):
    target = tmp_path / "data.bin"
    target.write_bytes(b"an old one")
    with pytest.raises(DataError, match=f"its checksum is {MD5}, expected {'0' * 32}; try again, or place the file as"):
        fetch(f"{server.url}/whole", "0" * 32, target, silent)
    assert names(tmp_path) == ["data.bin"]  # no rest that the next attempt would build on
    assert target.read_bytes() == b"an old one"


def test_a_rest_of_another_file_is_found_out(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(b"something else")
    with pytest.raises(DataError, match="its checksum is"):
        fetch(f"{server.url}/ranges", MD5, tmp_path / "data.bin", silent)
    fetch(f"{server.url}/ranges", MD5, tmp_path / "data.bin", silent)
    assert (tmp_path / "data.bin").read_bytes() == DATA


def test_an_answer_that_is_no_file(server, tmp_path):
    with pytest.raises(
        DataError, match=r"/gone: the server answered 404 Not Found; try again later, or place the file"
    ):
        fetch(f"{server.url}/gone", MD5, tmp_path / "data.bin", silent)
    assert names(tmp_path) == []


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_a_network_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as closed:  # a port that nobody listens on
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/data.bin"
        with pytest.raises(DataError) as error:
            fetch(url, MD5, tmp_path / "data.bin", silent)
    assert re.fullmatch(
        rf"download {url}: .*refused.*; try again with a network, or place the file as {tmp_path}/data\.bin yourself",
        one_line(error),
    )


def test_a_server_that_talks_nonsense(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            connection, _ = listening.accept()
            connection.recv(1000)
            connection.sendall(b"hello\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DataError, match="download http") as error:
            fetch(f"http://127.0.0.1:{listening.getsockname()[1]}/x", MD5, tmp_path / "data.bin", silent)
        thread.join()
    one_line(error)


def test_a_target_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="download http"):
        fetch(f"{server.url}/whole", MD5, tmp_path / "file" / "data.bin", silent)


FILES = {"top/a.txt": b"first", "top/deep/b.bin": bytes(3000), "c.csv": b""}


def write_tar(path, members=FILES, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            else:
                info.type, info.linkname = data
                tar.addfile(info)
    return path


def write_zip(path, members=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            if not isinstance(data, bytes):
                info.external_attr, data = 0o120777 << 16, data[1].encode()  # how zip stores a symbolic link
            file.writestr(info, data)
    return path


WRITERS = {"tar": write_tar, "zip": write_zip}


def read_tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", WRITERS)
def test_an_archive_is_unpacked(tmp_path, kind):
    calls = []
    out = tmp_path / "out"
    out.mkdir()
    unpack(WRITERS[kind](tmp_path / f"a.{kind}"), out, lambda *call: calls.append(call))
    assert read_tree(out) == FILES
    assert [call[1:] for call in calls] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [
        ("tar", "../outside", b"x"),
        ("tar", "/tmp/framegate-was-here", b"x"),
        ("tar", "a/../../outside", b"x"),
        ("tar", "link", (tarfile.SYMTYPE, "/etc/passwd")),
        ("tar", "link", (tarfile.SYMTYPE, "c.csv")),
        ("tar", "hard", (tarfile.LNKTYPE, "top/a.txt")),
        ("tar", "device", (tarfile.CHRTYPE, "")),
        ("tar", "pipe", (tarfile.FIFOTYPE, "")),
        ("zip", "../outside", b"x"),
        ("zip", "/tmp/framegate-was-here", b"x"),
        ("zip", "a\\..\\..\\outside", b"x"),
        ("zip", "c:/outside", b"x"),
        ("zip", "link", (tarfile.SYMTYPE, "/etc/passwd")),
    ],
)
def test_an_archive_that_reaches_outside_is_refused(tmp_path, kind, name, content):
    out = tmp_path / "out" / "in"
    out.mkdir(parents=True)
    with pytest.raises(DataError, match="no plain file or folder below the target") as error:
        unpack(WRITERS[kind](tmp_path / f"a.{kind}", {**FILES, name: content}), out, silent)
    one_line(error)
    assert names(tmp_path / "out") == ["in"]
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert not os.path.exists("/tmp/framegate-was-here")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("keep", [0, 10, 120, -30])
def test_an_archive_that_was_cut_off(tmp_path, kind, keep):
    path = WRITERS[kind](tmp_path / f"a.{kind}")
    path.write_bytes(path.read_bytes()[:keep])
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match="cannot be unpacked") as error:
        unpack(path, out, silent)
    one_line(error)


def test_archives_that_share_a_folder_appear_together(tmp_path):
    archives = [write_zip(tmp_path / "a.zip"), write_tar(tmp_path / "b.tar.gz", {"top/second.txt": b"2"})]
    unpack_together(archives, tmp_path, silent)
    assert read_tree(tmp_path) == {**FILES, "top/second.txt": b"2"}  # and the archives are gone


def test_one_bad_archive_leaves_everything_as_it_was(tmp_path):
    archives = [write_zip(tmp_path / "a.zip"), write_tar(tmp_path / "b.tar.gz", {"../x": b"2"})]
    with pytest.raises(DataError, match="no plain file"):
        unpack_together(archives, tmp_path, silent)
    assert names(tmp_path) == ["a.zip", "b.tar.gz"]


def test_what_lies_there_is_never_overwritten(tmp_path):
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "mine").write_text("keep me")
    with pytest.raises(DataError, match=r"top: exists already; move it away"):
        unpack_together([write_zip(tmp_path / "a.zip")], tmp_path, silent)
    assert names(tmp_path) == ["a.zip", "top"]
    assert names(tmp_path / "top") == ["mine"]
