"""Small drives, recorded by the real black box from verdicts of a real session."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from framegate.runtime.frame_result import FrameResult
from framegate.runtime.policy.stream import Policy
from framegate.runtime.replay.recording import Recording
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.sinks.black_box import BlackBoxSink
from framegate.runtime.verdict import Frame

ROIS = (Roi("left", 0, 0, 80, 96, fractions=False), Roi("right", 80, 0, 80, 96, fractions=False))
LABELS = ("blue", "green", "red")
FRAMES = 60
_STEP_NS = 200_000_000


def colour(drive: int) -> int:
    """The label of both regions of a drive."""
    return drive % 3


def scene(drive: int, number: int) -> np.ndarray:
    """A picture of one colour that loses it in the second half of a drive, and again and again in every fifth."""
    rng = np.random.default_rng([drive, number])
    strength = 1.0 if number < FRAMES // 2 else 1.0 - 2 * (number - FRAMES // 2) / FRAMES
    if drive % 5 == 4 and number % 10 == 7:
        strength = 0.05
    structure = cv2.GaussianBlur(np.random.default_rng(drive).normal(0, 120, (96, 160, 3)), (0, 0), 3)
    base = np.full(3, 90.0)
    base[colour(drive)] += 120.0 * strength
    return np.clip(base + structure + rng.normal(0, 5, (96, 160, 3)), 0, 255).astype(np.uint8)


def record_drive(
    folder: Path, session: Session, drive: int, policy: Policy | None = None, frames: int = FRAMES
) -> None:
    """Record one drive into a folder of its own."""
    policy = policy or Policy()
    recording = Recording.of(session, ROIS, sequence=True, fps=5.0, source="made", policy=policy)
    sink = BlackBoxSink(
        folder / f"car{drive:02d}", 10**7, ROIS, recording, drive=f"d{drive:02d}", camera="front", version="test"
    )
    health, streams = session.camera_health(), tuple(session.stream_policy(policy) for _ in ROIS)
    for number in range(frames):
        at = 10**9 + number * _STEP_NS
        image = scene(drive, number)
        judged = session.frame_judge.judge(Frame(number, at, image), ROIS, health, None, streams)
        sink.write(FrameResult(judged, image, ""))
    sink.close()


def record_drives(folder: Path, bundle: Path, count: int, frames: int = FRAMES) -> Path:
    """Record some drives with one bundle."""
    session = Session.open(bundle, "onnxruntime", "fp32", 1)
    for drive in range(count):
        record_drive(folder, session, drive, frames=frames)
    return folder
