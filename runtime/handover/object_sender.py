"""The sender for moving objects: a scene and a fixed number of slots, each a protected stream of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from framegate.runtime.errors import UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.handover.base import Outgoing
from framegate.runtime.handover.message import (
    LEFT_OUT,
    NO_CERTIFICATE,
    NO_OBJECT,
    NO_TRACK,
    SCENE,
    certificate_of,
    track_of,
)
from framegate.runtime.handover.objects import SCENE_NAME, ids_of, slot_name
from framegate.runtime.handover.sender import HEARTBEAT_S, Identity, Sender
from framegate.runtime.regions.intake import OUTSIDE
from framegate.runtime.verdict import Certificate, Prediction

_CERTIFIED: Final = 256
"""Tracks at most whose certificate is remembered."""
_NO_OBJECT_AT_ALL: Final = frozenset((OUTSIDE,))
"""Why a box has no verdict, where that leaves no object out."""


class ObjectSender(Sender):
    """Sends the objects of every frame: each in its slot, then the scene. See docs/handover.md, "Objects that move".

    An object keeps its slot while it is seen; a slot without an object says so on every frame. Objects that nobody
    follows, and those for which no slot is left, are counted, and the scene is rejected.

    Args:
        outgoing: Where to; closed at the end.
        data_id: Of the scene; slot k, from 1, has the id k higher, and the fixed regions follow.
        slots: How many there are, 1 to `MAX_SLOTS`.
        identity: What the verdicts are made with.
        regions: Names of fixed regions that are judged beside the objects.
        key: Of the authentication; None for none.
        heartbeat_s: Longest silence in seconds; None sends no heartbeats.

    Attributes:
        left_out: Objects that were in no slot, counted once a frame.

    Raises:
        UsageError: The number of slots is out of range, or two regions have one name.
    """

    def __init__(
        self,
        outgoing: Sequence[Outgoing],
        data_id: int,
        slots: int,
        identity: Identity,
        *,
        regions: Sequence[str] = (),
        key: bytes | None = None,
        heartbeat_s: float | None = HEARTBEAT_S,
    ) -> None:
        own = [SCENE_NAME, *(slot_name(number) for number in range(1, slots + 1))]
        names, ids = [*own, *regions], ids_of(data_id, slots, len(regions))
        for name in own:
            if name in regions:
                raise UsageError(
                    f"region {name!r}: with moving objects this name is taken; give the region another one"
                )
        self.left_out = 0
        self._slots = slots
        self._regions = tuple(regions)
        self._held: dict[int, int] = {}  # track -> slot
        self._certified: dict[int, tuple[str, Certificate]] = {}  # track -> label, what was certified about it
        super().__init__(outgoing, list(zip(names, ids, strict=True)), identity, key=key, heartbeat_s=None)
        scene = self._streams[SCENE_NAME]
        scene.kind, scene.region = SCENE, slots
        self._start_beating(heartbeat_s)

    def send_result(self, result: FrameResult) -> None:
        """Send the objects of one frame, or that there are none; then the scene.

        Raises:
            UsageError: See `send`.
        """
        self._require_idle()
        scene = result.scene if result.scene is not None else result.first
        tracks = {track: each for each in result.predictions if (track := track_of(each)) != NO_TRACK}
        rest = [each for each in result.predictions if track_of(each) == NO_TRACK]
        fixed = {each.stream: each for each in rest if each.stream in self._regions}
        with self._sending:
            if self._closed.is_set():
                return
            self._give_slots(tracks)
            missing = len(result.predictions) - len(fixed) - len(self._held)
            self.left_out += missing + _left_out(result.left_out)
            empty = replace(scene, candidate="", found=None)
            held = {slot: self._with_certificate(track, tracks[track]) for track, slot in self._held.items()}
            for slot in range(1, self._slots + 1):
                self._send_one(slot_name(slot), held.get(slot), empty)
            for name in self._regions:
                self._send_one(name, fixed.get(name), empty)
            incomplete = missing or _left_out(result.left_out)
            stream = self._streams[SCENE_NAME]
            self._say(stream, scene, LEFT_OUT if incomplete else 0, len(held))

    def _give_slots(self, tracks: Mapping[int, Prediction]) -> None:
        """Free the slots of tracks that are not seen any more, and give slots to new ones, the surest first."""
        self._held = {track: slot for track, slot in self._held.items() if track in tracks}
        taken = set(self._held.values())
        free = [slot for slot in range(1, self._slots + 1) if slot not in taken]
        for track in tracks:
            if track not in self._held and free:
                self._held[track] = free.pop(0)

    def _with_certificate(self, track: int, prediction: Prediction) -> Prediction:
        """The prediction, with what was certified about this track's label on an earlier frame (``--certify-once``)."""
        if certificate_of(prediction)[0] != NO_CERTIFICATE and prediction.certificate is not None:
            self._certified.pop(track, None)
            self._certified[track] = prediction.candidate, prediction.certificate
            if len(self._certified) > _CERTIFIED:
                del self._certified[next(iter(self._certified))]
            return prediction
        label, known = self._certified.get(track, ("", None))
        if known is None or prediction.certificate is not None or prediction.candidate != label:
            return prediction
        return replace(prediction, certificate=known)

    def _send_one(self, name: str, prediction: Prediction | None, empty: Prediction) -> None:
        """One slot, or one fixed region."""
        stream = self._streams[name]
        if prediction is None:
            self._say(stream, empty, NO_OBJECT)
        else:
            self._say(stream, prediction)


def _left_out(counts: Mapping[str, int]) -> int:
    return sum(count for why, count in counts.items() if why not in _NO_OBJECT_AT_ALL)
