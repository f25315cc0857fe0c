"""Proxies that environment variables name: an address is asked through one without anybody having typed it."""

from __future__ import annotations

import os
import urllib.request

from framegate.runtime.passwords import hide_passwords
from framegate.runtime.sources.address import StreamAddress


def through_proxy(address: StreamAddress, *, ffmpeg: bool = False) -> str:
    """That this address is asked through a proxy, and how to change that; empty if it is not.

    Args:
        address: What is asked.
        ffmpeg: FFmpeg asks, which takes ``http_proxy`` for whatever is encrypted, too, and for RTSP over TLS.
    """
    encrypted = address.scheme in ("https", "rtsps")
    if address.scheme != "http" and not (encrypted and (ffmpeg or address.scheme == "https")):
        return ""
    variable = _variable("http" if ffmpeg else address.scheme)
    if not variable or urllib.request.proxy_bypass(address.host):
        return ""
    return (
        f"it is asked through the proxy {hide_passwords(os.environ[variable])}, which the environment variable "
        f"{variable} names; for a camera in this network unset it, or add {address.host} to no_proxy"
    )


def _variable(scheme: str) -> str:
    """The variable that is in force; urllib prefers the one in lower case."""
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    return next((name for name in names if os.environ.get(name)), "")
