"""The page and its stream as a Starlette application, and who may open them.

On a loopback address everybody on this machine may, but no web page of somebody else: a browser says in ``Host`` which
name it was asked for (another name that was pointed here, DNS rebinding, is refused) and in ``Origin`` which page asks
(a foreign one is refused). On any other address a token is asked for as well.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from framegate.camera_demo.addresses import is_loopback
from framegate.camera_demo.allowance import Allowance
from framegate.camera_demo.own_file import MOST_FILE_BYTES, OwnFiles, Received
from framegate.camera_demo.picture import gone
from framegate.camera_demo.viewers import MOST_VIEWERS, REFUSED, TRY_LATER, State, Viewer, Viewers
from framegate.camera_demo.web_connections import Connection
from framegate.runtime.console import plain

_PAGE = Path(__file__).parent / "page"
_FILES = {"index.html": "text/html", "demo.css": "text/css", "demo.js": "text/javascript"}
_MOST_QUERY = 256
"""Bytes of an address behind the ``?`` that are looked at; a token has 22."""
_SCRIPTS = ("basics.js", "charts.js", "picture.js", "moments.js", "own_file.js", "live.js")
"""They are served as one file, in this order: a page takes no more connections for them."""
_OWN_PER_S, _OWN_AT_ONCE = 0.5, 4.0
"""Files of people that are looked at."""
_OWN_S = 150.0
"""For receiving and judging one."""
_OPENED_PER_S, _OPENED_AT_ONCE = 1.0, 32.0
"""Pages opened; the first record of a page is the largest one."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def refusal(connection: HTTPConnection, token: str | None) -> str:
    """Why this request may not be answered, or an empty string.

    Args:
        connection: The request.
        token: What ``?token=`` must be; None on a loopback address, where none is needed.
    """
    asked = connection.headers.get("host", "")
    origin = connection.headers.get("origin", "")
    try:
        foreign = "origin" in connection.headers and urlsplit(origin).netloc != asked
        name = urlsplit(f"//{asked}").hostname or ""
    except ValueError:
        return "its headers are no addresses"
    if foreign:
        return (
            f"a page of {plain(origin)} may not use this one ({plain(asked)}); if that is a proxy before the demo, "
            "let it hand on the header Host (nginx: proxy_set_header Host $http_host)"
        )
    if token is None:
        if not is_loopback(name):
            found = f"{asked!r} is not its name"
            return f"this page is for this machine only, and {found}; start it with --host to open it"
        return ""
    query = connection.scope["query_string"]
    # Before it is taken apart: nobody without the token makes this process work.
    given = connection.query_params.get("token", "") if len(query) <= _MOST_QUERY else query.decode("latin-1")
    if hmac.compare_digest(given.encode(), token.encode()):
        return ""
    found = "the token in the address is wrong" if given else "the address lacks its token"
    return f"{found}; open the whole address that framegate demo printed when it started"


def _promised(request: Request) -> float:
    """Bytes of the file that a request says it brings; infinity if it does not say a number."""
    said = request.headers.get("content-length", "")
    return int(said) if said.isdecimal() and len(said) < 16 else float("inf")


def _file(name: str) -> bytes:
    names = _SCRIPTS if name == "demo.js" else (name,)
    return b"\n".join((_PAGE / each).read_bytes() for each in names)


def _own_route(token: str | None, own_files: OwnFiles | None) -> Callable[[Request], Awaitable[Response]]:
    """Takes a file of somebody and answers with what is found, see `OwnFiles.judged`."""
    brought = Allowance(_OWN_PER_S, _OWN_AT_ONCE)

    async def own(request: Request) -> Response:
        why = refusal(request, token)
        if why:
            return PlainTextResponse(f"framegate demo: {why}\n", 403, _HEADERS)
        if own_files is None:
            return PlainTextResponse("files are judged only where the demo was started with --own-files", 403, _HEADERS)
        if not brought.take():
            return PlainTextResponse("too many files in a short time; try again in some seconds", 429, _HEADERS)
        if not _promised(request) <= MOST_FILE_BYTES:
            words = f"this file is larger than {MOST_FILE_BYTES >> 20} MiB; take a shorter or smaller one"
            return PlainTextResponse(words, 413, _HEADERS)
        request.state.connection.take_file(MOST_FILE_BYTES, _OWN_S)
        received = Received()
        await received.receive(request.stream())  # all of it first: the answer listens for a disconnection in its place
        found = own_files.judged(received)
        return StreamingResponse(found, headers=_HEADERS, media_type="application/octet-stream")

    return own


def make_app(
    viewers: Viewers,
    state: Callable[[int], State],
    press: Callable[[str, int], None],
    token: str | None,
    moment: Callable[[int], bytes] = gone,
    own_files: OwnFiles | None = None,
) -> Starlette:
    """The application.

    Args:
        viewers: Where open pages are entered.
        state: See `Viewer`.
        press: See `Viewer`.
        token: See `refusal`.
        moment: See `Viewer`.
        own_files: Judges files of people; None takes none.
    """
    files = {name: _file(name) for name in _FILES}  # in memory: no request touches the disk
    opened = Allowance(_OPENED_PER_S, _OPENED_AT_ONCE)

    async def page(request: Request) -> Response:
        if why := refusal(request, token):
            return PlainTextResponse(f"framegate demo: {why}\n", 403, _HEADERS)
        return Response(files["index.html"], headers=_HEADERS, media_type=_FILES["index.html"])

    async def file(request: Request) -> Response:  # holds no secret: the same for everybody
        name = request.path_params["name"]
        if name not in files:
            return PlainTextResponse("framegate demo: there is no such file\n", 404, _HEADERS)
        return Response(files[name], headers=_HEADERS, media_type=_FILES[name])

    async def why(request: Request) -> Response:  # a browser does not tell the page why its stream was refused
        return PlainTextResponse(refusal(request, token), headers=_HEADERS)

    async def stream(websocket: WebSocket) -> None:
        if refusal(websocket, token):
            await websocket.close(REFUSED)  # before it is accepted: the answer is 403
            return
        await websocket.accept()
        if len(viewers) >= MOST_VIEWERS:
            await websocket.close(TRY_LATER, f"{MOST_VIEWERS} pages are open already; close one")
        elif not opened.take():
            await websocket.close(TRY_LATER, "too many pages are being opened at a time")
        else:
            connection: Connection = websocket.state.connection
            connection.stay()
            try:
                await viewers.serve(Viewer(websocket, state, press, moment))
            finally:
                connection.leave()

    return Starlette(
        routes=[
            Route("/", page),
            Route("/page/{name}", file),
            Route("/why", why, methods=["POST"]),
            Route("/own", _own_route(token, own_files), methods=["POST"]),
            WebSocketRoute("/stream", stream),
        ],
    )
