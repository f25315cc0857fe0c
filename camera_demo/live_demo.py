"""The parts of the demo put together: source with faults, pipeline, board, viewers, web server."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from framegate.camera_demo.addresses import is_loopback
from framegate.camera_demo.board import Board
from framegate.camera_demo.delayed_backend import DelayedBackend
from framegate.camera_demo.fault_panel import FaultPanel
from framegate.camera_demo.live_attacks import LiveAttacks
from framegate.camera_demo.own_file import Judge, OwnFiles
from framegate.camera_demo.picture import is_fresh, message
from framegate.camera_demo.switched_source import SwitchedSource
from framegate.camera_demo.viewers import Viewers
from framegate.camera_demo.web_app import make_app
from framegate.camera_demo.web_server import WebServer
from framegate.runtime.faults.inject import fault_kinds
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.pipeline import RESULTS_HELD, Pipeline
from framegate.runtime.regions.judge import Objects
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.sources.base import Source

_SLOWED = 1.2
"""The slow engine's extra time, in deadlines."""
_LAST_WORD_S = 2.0
"""Time for every page to be told why the demo ends."""


class LiveDemo:
    """A pipeline on a page. Use as a context manager; whoever runs the pipeline gives every result to `show`.

    Args:
        opened: Opens the source; called at once, and again after the camera was killed on the page.
        session: Judges the frames.
        rois: Regions to classify; with ``objects`` those of them that are always there.
        deadline_ms: A verdict on an older frame is LATE.
        host: Address that the page is served on; one that others reach is protected by a token.
        listener: Taken there (`framegate.camera_demo.web_server.listen`); closed at the end.
        objects: What moves, see `framegate.runtime.pipeline.Pipeline`; None judges ``rois`` alone.
        attacked: The part of the picture that attacks are aimed at; None takes ``rois``.
        own_files: Judges pictures and clips that people bring; None takes none.

    Attributes:
        source: With the faults of the page.
        pipeline: Not running yet.
        is_private: Whether the page is for this machine only.
        viewers: The open pages.
        timeline: The last two minutes.
        stale_ms: A picture without a new verdict for so long, in milliseconds, must no longer be shown as live.

    Raises:
        SourceError: The source cannot be opened.
        UsageError: A region reaches outside the picture.
    """

    def __init__(
        self,
        opened: Callable[[], Source],
        session: Session,
        rois: tuple[Roi, ...],
        deadline_ms: float,
        host: str,
        listener: socket.socket,
        objects: Objects | None = None,
        attacked: tuple[Roi, ...] | None = None,
        own_files: Judge | None = None,
    ) -> None:
        self._rois = rois
        self._host = host
        self.is_private = is_loopback(host)
        self._token = None if self.is_private else secrets.token_urlsafe(16)
        backend = session.scorer.backend = DelayedBackend(session.scorer.backend)
        panel = FaultPanel(fault_kinds())
        panel.slow = lambda on: setattr(backend, "delay_s", _SLOWED * deadline_ms / 1e3 if on else 0.0)
        with ExitStack() as stack:
            attacks = LiveAttacks(session.bundle.path, attacked or rois)
            stack.callback(attacks.close)
            self.source = SwitchedSource(opened, panel, attacks)
            stack.callback(self.source.close)
            self.pipeline = Pipeline(
                self.source,
                session,
                rois=None if objects is not None else rois,
                objects=objects,
                deadline_ms=deadline_ms,
                lossless=not self.source.live,
                keep_frames=True,
                results_held=RESULTS_HELD,  # what is recorded shall be complete
            )
            fps = self.source.fps
            self.stale_ms = max(1000.0, 3000.0 / fps if fps else 0.0, 2.0 * deadline_ms * max(1, len(rois)))
            self._board = Board(
                self.pipeline,
                session,
                self.source,
                panel,
                rois,
                deadline_ms,
                self.stale_ms,
                lambda: attacks.status,
                moving=objects is not None,
                own_files=own_files is not None,
            )
            self.timeline = self._board.timeline
            stack.callback(self.timeline.close)
            self.viewers = Viewers()
            app = make_app(
                self.viewers,
                self._board.record,
                panel.press,
                self._token,
                self.timeline.moment,
                None if own_files is None else OwnFiles(own_files),
            )
            self._server = WebServer(app, listener)
            stack.callback(self._server.stop)
            self._stack = stack.pop_all()

    def __enter__(self) -> LiveDemo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self) -> str:
        """Serve the page from now on, at the address returned.

        Raises:
            FramegateError: The web server does not start.
        """
        self._server.start()
        port = self._server.address[1]
        # For all interfaces the name that other machines most likely know this one by.
        host = socket.gethostname() if self._host in ("0.0.0.0", "::", "") else self._host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/" + (
            f"?token={self._token}" if self._token else ""
        )

    def show(self, result: FrameResult) -> None:
        """Put a result on the page; belongs to one thread."""
        self._board.saw(result)
        if self.viewers.waits_for_frame and is_fresh(result):
            self.viewers.offer(message(result, self._rois, self._board.slots.title))

    def finish(self, why: str) -> None:
        """Tell every page why it ends, and wait until they know."""
        self.viewers.finish(why)
        last_word = time.monotonic() + _LAST_WORD_S
        while len(self.viewers) and time.monotonic() < last_word:  # a server that stops would cut it off
            time.sleep(0.02)
