"""What a recording says about itself, so that its drive can be decided again: `framegate.runtime.replay.replay`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from framegate.runtime.bundle.calibration import Calibration, record_key
from framegate.runtime.errors import DataError, FramegateError
from framegate.runtime.passwords import hide_passwords
from framegate.runtime.policy.debounce import Debounce
from framegate.runtime.policy.stream import Policy
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.verdict import Prediction, Reason

FORMAT = "framegate-recording-1"
METADATA = "framegate.recording"
"""Name of the MCAP metadata record that holds it."""
DRIVE_METADATA = "framegate.drive"
"""Name of the one that says which drive a file of a black box belongs to: ``drive``, ``drive_id`` (another one after
every start), ``camera``, ``segment`` (its number), ``pictures`` and ``framegate`` (the version that recorded)."""
PREVIEW = "/preview"
"""Topic of the small pictures that a black box writes at a low rate."""
EVENT = "/event"
"""Topic of what a black box held worth full pictures: ``{"frame_id": 17, "captured_ns": 4711, "kinds": ["changed"]}``;
``frame_id`` is null for a report of silence. Older recordings have no ``captured_ns``, and -1 for silence."""
_INFINITIES = {math.inf: "inf", -math.inf: "-inf"}


@dataclass(frozen=True)
class Recording:
    """Under which bundle, calibration and policy the verdicts of a recording were given.

    Attributes:
        bundle: The bundle's name.
        digest: Its SHA-256, in hexadecimal.
        backend: What ran its network.
        precision: Which of its networks ran.
        calibration: In force; None rejected every frame.
        policy: In force.
        sequence: The frames follow each other in time.
        rois: The pipeline's regions.
        deadline_ms: Its deadline, None without one.
        fps: The source's rate, None if it had none.
        source: Its name.
    """

    bundle: str
    digest: str
    backend: str
    precision: str
    calibration: Calibration | None
    policy: Policy
    sequence: bool
    rois: tuple[Roi, ...]
    deadline_ms: float | None = None
    fps: float | None = None
    source: str = ""

    @classmethod
    def of(
        cls,
        session: Session,
        rois: tuple[Roi, ...],
        *,
        sequence: bool,
        deadline_ms: float | None = None,
        fps: float | None = None,
        source: str = "",
        policy: Policy | None = None,
    ) -> Recording:
        """What is in force in a session.

        Args:
            session: It judges the frames.
            rois: The pipeline's regions.
            sequence: See the attribute.
            deadline_ms: See the attribute.
            fps: See the attribute.
            source: See the attribute.
            policy: The pipeline's, if it has one of its own.
        """
        return cls(
            session.bundle.name,
            session.bundle.digest,
            session.scorer.backend.name,
            session.precision,
            session.calibration,
            policy or session.policy,
            sequence,
            rois,
            deadline_ms,
            fps,
            hide_passwords(source),
        )

    @property
    def key(self) -> str:
        """Under which its calibration is stored in a bundle."""
        return record_key(self.backend, self.precision)

    def to_metadata(self) -> dict[str, str]:
        """As texts, the inverse of `from_metadata`."""
        record: dict[str, object] = {
            "backend": self.backend,
            "precision": self.precision,
            "calibration": self.calibration and self.calibration.to_json(),
            "policy": {
                "debounce": {reason.value: [rule.m, rule.n, rule.k] for reason, rule in self.policy.debounce.items()},
                "warm_up": self.policy.warm_up,
                "drift": self.policy.drift,
                "scene_frames": self.policy.scene_frames,
            },
            "sequence": self.sequence,
            "regions": [asdict(roi) for roi in self.rois],
            "deadline_ms": self.deadline_ms,
            "fps": self.fps,
        }
        texts = {"format": FORMAT, "bundle": self.bundle, "bundle_digest": self.digest, "source": self.source}
        texts |= {name: json.dumps(value) for name, value in record.items()}
        return texts | {_SUM: _sum(texts)}

    @classmethod
    def from_metadata(cls, texts: Mapping[str, str]) -> Recording:
        """Read what a recording says.

        Raises:
            DataError: Something is missing, cannot be read, or is not what was written.
        """
        if texts.get("format") != FORMAT:
            raise DataError(f"its format is {texts.get('format')!r}, this version reads {FORMAT!r}")
        if texts.get(_SUM, _sum(texts)) != _sum(texts):
            raise DataError("what it says about itself is not what was written: its SHA-256 is another one")
        try:
            record = {name: json.loads(texts[name]) for name in _JSON}
            calibration = record["calibration"]
            policy = record["policy"]
            return cls(
                texts["bundle"],
                texts["bundle_digest"],
                str(record["backend"]),
                str(record["precision"]),
                None if calibration is None else Calibration.from_json(calibration),
                Policy(
                    {Reason(name): Debounce(*rule) for name, rule in policy["debounce"].items()},
                    policy["warm_up"],
                    bool(policy["drift"]),
                    policy.get("scene_frames", 0),  # older recordings do not say it
                ),
                bool(record["sequence"]),
                tuple(Roi(**roi) for roi in record["regions"]),
                record["deadline_ms"],
                record["fps"],
                texts.get("source", ""),
            )
        except FramegateError as error:
            raise DataError(str(error)) from error
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise DataError(f"what it says about itself lacks or garbles {error}") from error


_SUM = "sha256"
"""Of the other texts. MCAP has sums of messages, but none of metadata; older recordings have none."""
_JSON = ("backend", "precision", "calibration", "policy", "sequence", "regions", "deadline_ms", "fps")


def _sum(texts: Mapping[str, str]) -> str:
    """SHA-256 of what decides; a table of many drives leaves the source out."""
    said = [[name, text] for name, text in sorted(texts.items()) if name not in (_SUM, "source")]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def evidence(prediction: Prediction) -> dict[str, Any]:
    """What a verdict was decided by, without rounding, for `framegate.runtime.replay.replay` to decide again.

    Returns:
        ``found``, the reasons of the frame alone; ``score`` and ``threshold``; and ``values``, each score and signal
        that a limit can be set for; empty if the network gave no output. Infinities are texts, NaN is null.
    """
    values = {}
    if prediction.candidate or Reason.NOT_FINITE in prediction.found_reasons:
        scores = {
            "entropy": prediction.entropy,
            "max_probability": 1.0 - prediction.confidence,
            "margin": 1.0 - prediction.margin,
            "energy": prediction.energy,
        }
        values = {**prediction.signals, **scores}
    return {
        "found": [reason.value for reason in prediction.found_reasons],
        "score": exact(prediction.score),
        "threshold": exact(prediction.threshold),
        "values": {name: exact(value) for name, value in values.items()},
    }


def exact(value: float) -> float | str | None:
    """A number for JSON that `number` reads back bit by bit."""
    value = float(value)
    return value if math.isfinite(value) else _INFINITIES.get(value)


def number(value: object) -> float:
    """The inverse of `exact`.

    Raises:
        ValueError: It is no such number.
    """
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{value!r} is no number")
    return float(value)
