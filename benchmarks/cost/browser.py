"""A headless Chromium driven over the DevTools protocol; needs no driver program and no download."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


_KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
"""Keys that are no characters, by their numbers."""


def find_chromium() -> str | None:
    """Path of an installed Chromium, None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page."""

    def __init__(self, folder: Path) -> None:
        program = find_chromium()
        assert program
        self._process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",  # CI containers run as root
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--remote-debugging-port=0",
                "--remote-allow-origins=*",
                f"--user-data-dir={folder}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port_file = folder / "DevToolsActivePort"
        deadline = time.monotonic() + 30
        while not (port_file.exists() and port_file.read_text().strip()):
            assert time.monotonic() < deadline, "Chromium did not start"
            assert self._process.poll() is None, "Chromium ended"
            time.sleep(0.05)
        port = port_file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            page = next(each for each in json.load(answer) if each["type"] == "page")
        self._connecting = connect(page["webSocketDebuggerUrl"], max_size=None)
        self._socket = self._connecting.__enter__()
        self._id = 0
        self.problems: list[str] = []
        """Uncaught errors and console errors of the page."""
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        self._id += 1
        self._socket.send(json.dumps({"id": self._id, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            if message.get("id") == self._id:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            if message.get("method") == "Runtime.exceptionThrown":
                self.problems.append(json.dumps(message["params"]["exceptionDetails"])[:500])
            elif message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.problems.append(message["params"]["entry"]["text"])

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """Set the page's size in CSS pixels; a phone has two of its own to each, and touches."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1 + phone, mobile=phone
        )

    def open(self, address: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression: str, timeout: float = 15.0) -> Any:
        """Poll until the expression is true."""
        deadline = time.monotonic() + timeout
        while True:
            # While a page loads its script's names are unknown: not there yet is not true yet.
            value = self.value(f"(() => {{ try {{ return {expression} }} catch {{ return false }} }})()")
            if value:
                return value
            if time.monotonic() > deadline:
                shown = self.value("document.body.innerText.slice(0, 600)")
                raise AssertionError(f"not within {timeout} s: {expression}\npage: {shown}\nproblems: {self.problems}")
            time.sleep(0.1)

    def key(self, key: str) -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            text = {"Enter": "\r"}.get(key, key)
            code: dict[str, Any] = {"windowsVirtualKeyCode": _KEYS[key]} if key in _KEYS else {}
            if key not in _KEYS or key == "Enter":
                code["text"] = text if kind == "keyDown" else ""
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **code)

    def screenshot(self, path: Path, *, full: bool = False, quality: int = 80) -> None:
        """Write what the page looks like: .png, or any other ending for JPEG."""
        picture = self.call(
            "Page.captureScreenshot",
            captureBeyondViewport=full,
            **({"format": "png"} if path.suffix == ".png" else {"format": "jpeg", "quality": quality}),
        )
        path.write_bytes(base64.b64decode(picture["data"]))

    def close(self) -> None:
        """End the browser."""
        self._connecting.__exit__(None, None, None)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
