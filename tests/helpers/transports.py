"""Addresses of every transport that no other test uses; what is missing here is skipped."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import socket

import pytest

from framegate.runtime.handover.ros2_topic import INSTALL

_count = itertools.count()
PACKAGES = {"zenoh": ("zenoh", "pip install 'framegate[zenoh]'"), "ros2": ("rclpy", INSTALL)}


def free_port() -> int:
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def address_of(kind, tmp_path) -> str:
    """An address that no other test uses."""
    package, line = PACKAGES.get(kind, (None, ""))
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: {line}")
    name = f"t{os.getpid()}n{next(_count)}"
    if kind == "jsonl":
        os.mkfifo(tmp_path / name)
        return f"jsonl://{tmp_path / name}"
    return {
        "udp": f"udp://127.0.0.1:{free_port()}",
        "multicast": f"multicast://239.255.70.86:{free_port()}",
    }.get(kind, f"{kind}://{name}/Verdicts" if kind != "local" else f"local://{name}")
