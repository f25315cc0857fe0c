"""Who opens the demo's page while it is measured: a plain viewer, or a browser (`bench_page`)."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from framegate.benchmarks.cost.browser import Browser


class RemoteViewer:
    """A process that opens the page's stream when told to. Use as a context manager.

    Args:
        address: Of the page.
    """

    def __init__(self, address: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "framegate.benchmarks.cost.page_viewers", address],
            stdin=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> RemoteViewer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def turn(self) -> None:
        """Open the stream, or close it again."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")


class PageInChromium:
    """The page in a headless Chromium, driven as in the tests. Use as a context manager.

    Args:
        address: Of the page.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._folder = tempfile.TemporaryDirectory(prefix="framegate-page-", ignore_cleanup_errors=True)
        self._browser = Browser(Path(self._folder.name))
        self._browser.size(1280, 800)
        self._open = False

    def __enter__(self) -> PageInChromium:
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.close()
        self._folder.cleanup()

    def turn(self) -> None:
        """Open the page, or leave it again."""
        self._open = not self._open
        self._browser.open(self._address if self._open else "about:blank")


def look(address: str) -> None:
    """The viewer's process: a line opens the stream, the next one closes it; everything is taken and confirmed."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    while sys.stdin.readline():
        with connect(address.replace("http", "ws", 1) + "stream", max_size=None) as stream:

            def end(stream: Any = stream) -> None:
                sys.stdin.readline()
                stream.close()

            threading.Thread(target=end).start()
            with suppress(ConnectionClosed):
                while True:
                    stream.recv()
                    stream.send('"shown"')


if __name__ == "__main__":
    look(sys.argv[1])
