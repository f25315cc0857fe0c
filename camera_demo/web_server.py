"""uvicorn in a thread of its own, on a port that was free when it was asked for, behind an `Acceptor`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
import time

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from framegate.camera_demo.web_connections import Acceptor, Connection
from framegate.runtime.errors import FramegateError, UsageError

_START_S, _STOP_S = 10.0, 2
_WAITING = 64  # connections that the system holds until they are taken
_MOST_MESSAGE = 256  # bytes; a viewer sends the name of a button


def listen(host: str, port: int) -> socket.socket:
    """Take a port, before anything else is opened.

    Args:
        host: Name or address.
        port: 0 takes any that is free.

    Raises:
        UsageError: The host is not one of this machine, or the port is no port.
        FramegateError: The port is in use or not allowed.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"--port {port}: expected 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host}: no such name or address ({error}); try 127.0.0.1 or 0.0.0.0") from None
    listener = socket.socket(family, kind, protocol)
    # Not a port that somebody listens on, but one on which connections of an ended demo still time out.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_WAITING)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise FramegateError(
                f"port {port} on {host} is in use, perhaps by another demo; end that, or give --port 0 for any free one"
            ) from None
        raise FramegateError(f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}") from None
    return listener


class WebServer:
    """Serves an application until it is stopped.

    Args:
        app: The application. Finds its `Connection` as ``state.connection`` of a request or web socket.
        listener: From `listen`; closed at the end.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        self._listener = listener
        config = uvicorn.Config(
            _one_answer(app),
            log_config=None,
            log_level="critical",
            access_log=False,
            lifespan="off",
            loop="asyncio",
            http="h11",
            ws="websockets-sansio" if _has_sansio() else "websockets",
            ws_max_size=_MOST_MESSAGE,
            ws_per_message_deflate=False,  # JPEG does not get smaller
            timeout_graceful_shutdown=_STOP_S,
            server_header=False,
        )
        self._server = _Server(config, listener)
        self._thread = threading.Thread(target=self._run, name="framegate-demo-web", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._server.connections

    def start(self) -> None:
        """Return when it answers.

        Raises:
            FramegateError: It does not.
        """
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise FramegateError(
                    "the web server did not start; uvicorn or starlette are damaged, install them again"
                )
            time.sleep(0.01)

    def stop(self) -> None:
        """End all connections and the thread; can be called twice, and without `start`."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_STOP_S + 5.0)
        self._listener.close()

    def _run(self) -> None:
        with contextlib.suppress(SystemExit):  # what uvicorn does when it cannot start
            self._server.run()


class _Server(uvicorn.Server):
    """uvicorn whose connections come through an `Acceptor`."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        self._listener = listener
        self._acceptor: Acceptor | None = None

    @property
    def connections(self) -> int:
        return 0 if self._acceptor is None else len(self._acceptor)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])  # it listens to nothing itself
        self._acceptor = Acceptor(self._protocol)
        self._taking = asyncio.create_task(self._acceptor.serve(self._listener))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._taking.cancel()
        await super().shutdown(sockets=[])
        if self._acceptor is not None:
            self._acceptor.end_all()

    def _protocol(self, connection: Connection) -> asyncio.Protocol:
        state = {"connection": connection}
        return self.config.http_protocol_class(config=self.config, server_state=self.server_state, app_state=state)  # type: ignore[call-arg]


def _one_answer(app: ASGIApp) -> ASGIApp:
    """The application with one answer a connection, so that the pace of connections is that of requests."""

    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await app(scope, receive, send_last if scope["type"] == "http" else send)

    return closing


def _has_sansio() -> bool:
    from uvicorn.config import WS_PROTOCOLS

    return "websockets-sansio" in WS_PROTOCOLS
