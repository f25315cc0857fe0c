"""An RTSP server for the tests: ffmpeg encodes a clip over and over, GStreamer's RTSP server hands it out.

    /usr/bin/python3 rtsp_server.py PORT CLIP [USER:PASSWORD]      serves rtsp://127.0.0.1:PORT/test until it is killed

Run by the interpreter that has the GObject bindings (Debian: python3-gi gir1.2-gst-rtsp-server-1.0
gstreamer1.0-plugins-good gstreamer1.0-plugins-bad ffmpeg), which is rarely the one that runs the tests.
"""

from __future__ import annotations

import subprocess
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


def main(port: str, clip: str, login: str = "") -> None:
    """Serve until killed."""
    feed = str(int(port) + 1)  # a UDP port: live, so that nobody waits for anybody
    subprocess.Popen(
        [
            *("ffmpeg", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", clip, "-an", "-pix_fmt", "yuv420p"),
            *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10", "-f", "mpegts"),
            f"udp://127.0.0.1:{feed}?pkt_size=1316",
        ],
        stdin=subprocess.DEVNULL,
    )
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( udpsrc address=127.0.0.1 port={feed} caps=video/mpegts,systemstream=true,packetsize=188 "
        "! tsdemux latency=0 ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1 )"
    )
    factory.set_shared(True)
    if login:
        user, _, password = login.partition(":")
        auth = GstRtspServer.RTSPAuth()
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", user)
        auth.add_digest(user, password, token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role(user, "media.factory.access", True)
        permissions.add_permission_for_role(user, "media.factory.construct", True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/test", factory)
    server.attach(None)
    print("serving", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
