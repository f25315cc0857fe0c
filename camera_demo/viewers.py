"""The viewers of the page: each has a mailbox of one picture, so that a slow one delays nobody.

The thread that consumes the pipeline offers pictures to all viewers; each viewer's own task sends the newest one as
soon as the browser has confirmed an earlier one. Those that it had no time for are overwritten. So at most `IN_FLIGHT`
messages are on the way: a slow link shows fewer pictures, not older ones, and a browser that stalls is left after
`STALLED_S` seconds. A page may say as much as it has to confirm, and press a button now and then; one that says more is
left, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from framegate.camera_demo.allowance import Allowance
from framegate.camera_demo.picture import gone
from framegate.runtime.errors import UsageError

IN_FLIGHT = 2
"""Messages sent and not yet confirmed: one in the browser's decoder, one on the way."""
STATE_INTERVAL_S = 0.2
STALLED_S = 10.0
MOST_VIEWERS = 16
SAID_PER_S, SAID_AT_ONCE = 10.0, 20.0
"""Messages of a page beside those that confirm what it was sent."""
GOING_AWAY, REFUSED, TRY_LATER = 1001, 1008, 1013
"""Codes of RFC 6455 for the end of a connection."""

State = dict[str, Any]


class Viewer:
    """One open page. Belongs to its event loop, but for what says otherwise.

    Args:
        websocket: Accepted.
        state: Makes the record that is sent five times a second; its argument is how many samples the viewer has.
        press: Called with what the viewer sends: the name of a button and a severity.
        moment: Gives the message of a frame that the viewer asks for, at once.
    """

    def __init__(
        self,
        websocket: WebSocket,
        state: Callable[[int], State],
        press: Callable[[str, int], None],
        moment: Callable[[int], bytes] = gone,
    ) -> None:
        self._websocket = websocket
        self._state = state
        self._press = press
        self._moment = moment
        self._asked: int | None = None
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._slot: bytes | None = None
        self._unconfirmed = 0
        self._confirmed_at = time.monotonic()
        self._seen = 0
        self._ending: str | None = None
        self._may_say = Allowance(SAID_PER_S, SAID_AT_ONCE)
        self.pictures = 0
        """Pictures that were sent."""

    @property
    def waits_for_frame(self) -> bool:
        """Whether a picture would be sent at once; may be asked by any thread."""
        return self._slot is None and self._unconfirmed < IN_FLIGHT

    def offer(self, picture: bytes) -> None:
        """Put a picture into the mailbox, over one that lies there. From any thread."""
        self._call(self._put, picture)

    def finish(self, why: str) -> None:
        """Say why there is no more to see, and close. From any thread."""
        self._call(self._end, why)

    def _call(self, function: Callable[[Any], None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody watches any more
            self._loop.call_soon_threadsafe(function, value)

    def _put(self, picture: bytes) -> None:
        self._slot = picture
        self._wake.set()

    def _end(self, why: str) -> None:
        self._ending = why
        self._wake.set()

    async def serve(self) -> None:
        """Send and receive until either side ends."""
        tasks = {asyncio.create_task(self._send()), asyncio.create_task(self._receive())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self) -> None:
        next_state = 0.0
        while self._ending is None:
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):  # two classes before Python 3.11
                await asyncio.wait_for(self._wake.wait(), max(0.0, next_state - time.monotonic()))
            self._wake.clear()
            now = time.monotonic()
            if self._unconfirmed and now - self._confirmed_at > STALLED_S:
                await self._websocket.close(REFUSED, f"this page confirmed nothing for {STALLED_S:.0f} s")
                return
            if now >= next_state:
                next_state = now + STATE_INTERVAL_S
                if self._unconfirmed <= IN_FLIGHT:
                    record = self._state(self._seen)
                    self._seen = record["samples_seen"]
                    await self._sent(self._websocket.send_text(json.dumps(record, separators=(",", ":"))))
            if self._asked is not None and self._unconfirmed < IN_FLIGHT:
                asked, self._asked = self._asked, None
                await self._sent(self._websocket.send_bytes(self._moment(asked)))
            if self._slot is not None and self._unconfirmed < IN_FLIGHT:
                picture, self._slot = self._slot, None
                self.pictures += 1
                await self._sent(self._websocket.send_bytes(picture))
        await self._websocket.send_text(json.dumps({"ended": self._ending}))
        await self._websocket.close(GOING_AWAY, "the demo has ended")

    async def _sent(self, sending: Awaitable[None]) -> None:
        if not self._unconfirmed:
            self._confirmed_at = time.monotonic()
        self._unconfirmed += 1
        await asyncio.wait_for(sending, STALLED_S)

    async def _receive(self) -> None:
        while True:
            try:
                message = json.loads(await self._websocket.receive_text())
                if message == "shown" and self._unconfirmed:
                    self._unconfirmed -= 1
                    self._confirmed_at = time.monotonic()
                    self._wake.set()
                elif not self._may_say.take():
                    await self._websocket.close(REFUSED, f"this page says more than {SAID_PER_S:.0f} things a second")
                    return
                elif message != "shown" and "moment" in message:
                    self._asked = int(message["moment"])
                    self._wake.set()
                elif message != "shown":
                    # In a thread: closing a camera that hangs must not keep the other pages waiting.
                    await asyncio.to_thread(self._press, str(message["press"]), int(message["severity"]))
            except (ArithmeticError, KeyError, RecursionError, TypeError, ValueError, UsageError):
                await self._websocket.close(REFUSED, "not a message of this page")
                return
            except WebSocketDisconnect:
                return


class Viewers:
    """All open pages. What the pipeline's consumer needs of them may be called from any thread."""

    def __init__(self) -> None:
        self._open: tuple[Viewer, ...] = ()  # replaced, never changed: read without a lock
        self._ended: str | None = None

    def __len__(self) -> int:
        return len(self._open)

    @property
    def pictures(self) -> int:
        """Pictures that were sent to those who are watching now."""
        return sum(viewer.pictures for viewer in self._open)

    @property
    def waits_for_frame(self) -> bool:
        """Whether anybody would take a picture at once; encoding is only worth it then."""
        return any(viewer.waits_for_frame for viewer in self._open)

    def offer(self, picture: bytes) -> None:
        """Give a picture to everybody."""
        for viewer in self._open:
            viewer.offer(picture)

    def finish(self, why: str) -> None:
        """End all, and whoever comes later."""
        self._ended = why
        for viewer in self._open:
            viewer.finish(why)

    async def serve(self, viewer: Viewer) -> None:
        """Serve one viewer until it leaves; runs in the event loop, as whatever changes the list."""
        self._open = (*self._open, viewer)
        if self._ended is not None:
            viewer.finish(self._ended)
        try:
            await viewer.serve()
        finally:
            self._open = tuple(other for other in self._open if other is not viewer)
