"""The sender: a pipeline's predictions out as messages, and heartbeats while there is none."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.console import to_stderr
from framegate.runtime.errors import UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.handover.base import Outgoing
from framegate.runtime.handover.clock import new_epoch, this_clock
from framegate.runtime.handover.message import HEARTBEAT, NOTHING, VERDICT, Fields, fields_of, pack
from framegate.runtime.handover.protection import COUNTERS
from framegate.runtime.verdict import NO_FRAME_ID, Prediction, Reason
from framegate.runtime.watchdog import HEARTBEAT as HEARTBEAT_THREAD

HEARTBEAT_S = 0.05
"""Longest silence of a sender in seconds, also while there is no verdict."""
_GOODBYES = 3
_JOIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Identity:
    """What the verdicts were made with.

    Attributes:
        labels: Of the bundle, in the order of the classes.
        bundle: First 8 bytes of its digest.
        calibration: First 8 bytes of the calibration's hash; `NOTHING` if there is none.
    """

    labels: tuple[str, ...]
    bundle: bytes
    calibration: bytes

    @classmethod
    def of(cls, bundle: Bundle, calibration: Calibration | None) -> Identity:
        """That of a bundle and of the calibration that is in force (`Session.bundle`, `Session.calibration`)."""
        return cls(bundle.labels, bytes.fromhex(bundle.digest)[:8], calibration_id(calibration))


def calibration_id(calibration: Calibration | None) -> bytes:
    """The first 8 bytes of the SHA-256 of a calibration record as canonical JSON; `NOTHING` without one."""
    if calibration is None:
        return NOTHING
    text = json.dumps(calibration.to_json(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()[:8]


class _Stream:
    """What a sender remembers of one stream."""

    __slots__ = ("counter", "data_id", "frame_id", "kind", "name", "region", "sent_ns")

    def __init__(self, name: str, region: int, data_id: int) -> None:
        self.name, self.region, self.data_id = name, region, data_id
        self.kind = VERDICT
        self.counter = COUNTERS - 1
        self.frame_id = NO_FRAME_ID
        self.sent_ns = 0


class Sender:
    """Sends every prediction that it is given to all transports. Use as a context manager, or call `close`.

    A thread of its own sends a heartbeat for every stream that was silent for too long, so that a receiver can tell a
    slow camera from a dead process. `send` and `send_all` may be called from any thread; nothing waits for a receiver.

    Args:
        outgoing: Where to; closed at the end.
        streams: Names of the regions, each with its data id, in the order of the regions.
        identity: What the verdicts are made with.
        key: Of the authentication, 16 to 64 bytes; None for none.
        heartbeat_s: Longest silence in seconds; None sends no heartbeats.

    Attributes:
        epoch: Of this start.
        sent: Messages, heartbeats among them, counted once for all transports.

    Raises:
        UsageError: There is no stream, or two have one name or data id.
    """

    def __init__(
        self,
        outgoing: Sequence[Outgoing],
        streams: Sequence[tuple[str, int]],
        identity: Identity,
        *,
        key: bytes | None = None,
        heartbeat_s: float | None = HEARTBEAT_S,
    ) -> None:
        names, ids = [name for name, _ in streams], [data_id for _, data_id in streams]
        if not streams or len(set(names)) != len(names) or len(set(ids)) != len(ids):
            raise UsageError(f"hand-over of the streams {streams}: every one needs a name and a data id of its own")
        if not all(0 <= data_id < 2**32 for data_id in ids):
            raise UsageError(f"hand-over of the streams {streams}: a data id is 0 to 4294967295")
        self.epoch = new_epoch()
        self.sent = 0
        self.outgoing = tuple(outgoing)
        self._streams = {name: _Stream(name, region, data_id) for region, (name, data_id) in enumerate(streams)}
        self._identity = identity
        self._class_ids = {label: index for index, label in enumerate(identity.labels)}
        self._key = key
        self._domain = this_clock()
        self._sending = threading.RLock()
        self._closed = threading.Event()
        self._process = os.getpid()
        self._thread: threading.Thread | None = None
        self._start_beating(heartbeat_s)

    def _start_beating(self, heartbeat_s: float | None) -> None:
        self._heartbeat_s = heartbeat_s
        if heartbeat_s is not None:
            self._thread = threading.Thread(target=self._beat, name=HEARTBEAT_THREAD, daemon=True)
            self._thread.start()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send_all(self, predictions: Iterable[Prediction]) -> None:
        """Send the predictions of one result (`FrameResult.predictions`)."""
        for prediction in predictions:
            self.send(prediction)

    def send_result(self, result: FrameResult) -> None:
        """Send everything that was decided about one frame."""
        self.send_all(result.predictions)

    def send(self, prediction: Prediction) -> None:
        """Send one prediction, as it stands now.

        Raises:
            UsageError: Its stream is none of this sender's, or a signal handler calls it that has interrupted a
                message.
        """
        stream = self._streams.get(prediction.stream)
        if stream is None:
            raise UsageError(f"there is no stream {prediction.stream!r} here; there are {', '.join(self._streams)}")
        self._require_idle()
        with self._sending:
            if not self._closed.is_set():
                self._say(stream, prediction)

    def _say(self, stream: _Stream, prediction: Prediction, more: int = 0, objects: int = 0) -> None:
        """Send what a prediction says in a stream; the last two arguments are those of `fields_of`."""
        frame_id, drops = prediction.frame_id, 0
        if frame_id != NO_FRAME_ID:
            if frame_id > stream.frame_id:
                drops = frame_id - stream.frame_id - 1
            stream.frame_id = frame_id
        identity, now = self._identity, self._now(stream)
        self._put(
            stream,
            now,
            fields_of(
                prediction,
                self.epoch,
                now,
                self._domain,
                self._class_ids,
                stream.kind,
                stream.region,
                drops,
                identity.bundle,
                identity.calibration,
                more,
                objects,
            ),
        )

    def heartbeat(self) -> None:
        """Send a heartbeat on every stream that was silent for the heartbeat time, or on all without such a time.

        Raises:
            UsageError: See `send`.
        """
        self._require_idle()
        with self._sending:
            if self._closed.is_set():
                return
            limit = 0 if self._heartbeat_s is None else int(self._heartbeat_s * 1e9)
            for stream in self._streams.values():
                if time.monotonic_ns() - stream.sent_ns >= limit:
                    self._say_nothing(stream, HEARTBEAT)

    def close(self) -> None:
        """Say that nothing more comes (REJECT, NO_FRAME), and close the transports; can be called twice.

        In a child that was forked it does nothing: the streams, and what is to be said of their end, are the parent's.

        Raises:
            UsageError: A signal handler calls it that has interrupted a message; nothing is closed then.
        """
        if os.getpid() != self._process:
            return
        self._require_idle()
        with self._sending:
            if self._closed.is_set():
                return
            self._closed.set()
            for _ in range(_GOODBYES):  # a datagram may get lost
                for stream in self._streams.values():
                    self._say_nothing(stream, stream.kind)
            for each in self.outgoing:
                each.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _require_idle(self) -> None:
        """Refuse a signal handler that has interrupted a message: it would wait for ever for this thread to go on."""
        if self._sending._is_owned():  # type: ignore[attr-defined] # as threading.Condition asks its lock
            raise UsageError(
                "this sender is at work on a message, which a signal handler has interrupted; set a flag there, and "
                "call send(), heartbeat() or close() from the loop"
            )

    def _now(self, stream: _Stream) -> int:
        """The time of sending: later than the one before."""
        return max(time.monotonic_ns(), stream.sent_ns + 1)

    def _say_nothing(self, stream: _Stream, kind: int) -> None:
        """Send a message without a frame."""
        now, identity = self._now(stream), self._identity
        silence = Prediction.without_frame(stream.name, Reason.NO_FRAME, "", now)
        own = stream.region, 0, identity.bundle, identity.calibration
        self._put(stream, now, fields_of(silence, self.epoch, now, self._domain, self._class_ids, kind, *own))

    def _put(self, stream: _Stream, now: int, fields: Fields) -> None:
        stream.counter = counter = (stream.counter + 1) % COUNTERS
        stream.sent_ns = now
        data = pack(counter, stream.data_id, self._key, *fields)
        self.sent += 1
        for each in self.outgoing:
            each.send(data)

    def _beat(self) -> None:
        pause = (self._heartbeat_s or HEARTBEAT_S) / 4
        while not self._closed.wait(pause):
            try:
                self.heartbeat()
            except Exception as error:  # noqa: BLE001 - a thread that died in silence would be noticed by nobody
                to_stderr(f"framegate: hand-over: no heartbeat could be sent: {error!r}")
                return
