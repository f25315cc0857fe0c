"""Drives with a known truth: ``python -m framegate.benchmarks.drives.make --hours 0.1 --out DIR``.

Each drive is a car on the shipped clip, in its own weather (`framegate.evaluation.corruptions`), judged by the bundle
and recorded by the black box on a clock of its own, so that an hour of drive takes no hour. Both cars of the clip are
labelled automobile, sky and road are ``other``. **Errors are injected**: bursts in which a car's region shows a piece
of another place, turned and stretched, which is no car. The truth goes to ``DIR/truth-*.csv``; drives
that are there are not made again.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from framegate.evaluation.corruptions.suite import corrupt
from framegate.runtime.console import progress_bar, to_stdout
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.policy.stream import Policy
from framegate.runtime.replay.recording import Recording
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.sinks.black_box import BlackBoxSink
from framegate.runtime.verdict import Frame, Image

FPS = 25.0
SCALE = 0.5
ROIS = tuple(
    Roi(name, x * SCALE, y * SCALE, w * SCALE, h * SCALE, fractions=False)
    for name, x, y, w, h in (
        ("black-car", 796, 384, 160, 130),
        ("white-car", 1000, 370, 270, 160),
        ("sky", 700, 20, 160, 130),
        ("road", 560, 500, 160, 130),
    )
)
TRUTH = {"black-car": "automobile", "white-car": "automobile", "sky": "other", "road": "other"}
WEATHER = (("", 0), ("fog", 2), ("brightness", 2), ("gaussian_noise", 1), ("defocus_blur", 1), ("contrast", 1))
BURST = (5, 15)
"""Frames of an injected error."""
BURSTS_PER_MINUTE = 6.0
TRUTH_FILE = "truth-{:04d}.csv"


@dataclass(frozen=True)
class Burst:
    """One injected error."""

    region: int
    first: int
    last: int


def clip_frames(path: Path) -> list[Image]:
    """The clip, half as large."""
    capture = cv2.VideoCapture(str(path))
    found: list[Image] = []
    while True:
        more, image = capture.read()
        if not more:
            return found
        found.append(cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_AREA))


def bursts(rng: np.random.Generator, frames: int) -> list[Burst]:
    """When which car shows what is no car."""
    found = []
    for _ in range(rng.poisson(BURSTS_PER_MINUTE * frames / FPS / 60)):
        first = int(rng.integers(0, max(frames - BURST[1], 1)))
        found.append(Burst(int(rng.integers(0, 2)), first, first + int(rng.integers(*BURST))))
    return found


def pictures(base: list[Image], rng: np.random.Generator, frames: int, injected: list[Burst]) -> Iterator[Image]:
    """The frames of a drive: the clip there and back, with light that changes slowly, sensor noise and the errors."""
    noise = rng.normal(0, 3, (3, *base[0].shape)).astype(np.float32)
    period = 2 * len(base) - 2
    for number in range(frames):
        place = number % period
        image = base[place if place < len(base) else period - place].astype(np.float32)
        image *= 1.0 + 0.06 * np.sin(number / 70.0)
        # Rolled by another amount each time: no two frames are alike, at a hundredth of the cost of new noise.
        image += np.roll(noise[number % 3], int(rng.integers(0, noise.shape[1])), axis=0)
        picture = image.clip(0, 255).astype(np.uint8)
        for burst in injected:
            if burst.first <= number <= burst.last:
                _inject(picture, burst)
        yield picture


def _inject(picture: Image, burst: Burst) -> None:
    """Put a piece of the roadside into a car's region, turned and stretched."""
    box = ROIS[burst.region].pixels(picture.shape[1], picture.shape[0])
    assert box is not None
    x, y, width, height = box
    rng = np.random.default_rng([burst.first, burst.last])
    left, top = int(rng.integers(0, 150)), int(rng.integers(150, 220))
    piece = cv2.rotate(picture[top : top + 60, left : left + 90], cv2.ROTATE_90_CLOCKWISE)
    picture[y : y + height, x : x + width] = cv2.resize(piece, (width, height))


def make(
    out: Path, bundle: str, clip: Path, drives: int, seconds: float, *, backend: str, precision: str, seed: int = 0
) -> int:
    """Record drives.

    Args:
        out: A folder; one for each car below it.
        bundle: Which judges.
        clip: The shipped one of the highway.
        drives: How many.
        seconds: Length of each.
        backend: Which runs.
        precision: Which network.
        seed: Of weather and errors.

    Returns:
        Frames in all.
    """
    frames = round(seconds * FPS)
    clean = clip_frames(clip)
    session = Session.open(bundle, backend, precision, 1)
    policy = Policy()
    recording = Recording.of(session, ROIS, sequence=True, fps=FPS, source="made", policy=policy)
    out.mkdir(parents=True, exist_ok=True)
    weathers: dict[tuple[str, int], list[Image]] = {("", 0): clean}
    with progress_bar() as progress:
        for drive in range(drives):
            truth = out / TRUTH_FILE.format(drive)
            if truth.exists():  # made in an earlier run
                continue
            weather = WEATHER[drive % len(WEATHER)]
            if weather not in weathers:
                # The network sees regions of a picture of half the size: so is the weather made.
                weathers[weather] = list(corrupt(np.stack(clean), weather[0], weather[1], seed))
            rng = np.random.default_rng([seed, drive])
            sink = BlackBoxSink(
                out / f"car{drive % 7}", 10**11, ROIS, recording, drive=f"drive{drive:04d}", camera="front",
                version="made", report=to_stdout,
            )  # fmt: skip
            rows = _drive(session, policy, sink, weathers[weather], rng, frames)
            with truth.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(("drive", "region", "frame_id", "label", "injected"))
                writer.writerows((f"drive{drive:04d}", *row) for row in rows)
            progress("recording drives", drive + 1, drives)
    return frames * drives


def _drive(
    session: Session, policy: Policy, sink: BlackBoxSink, base: list[Image], rng: np.random.Generator, frames: int
) -> list[tuple[str, int, str, int]]:
    """Record one drive; returns region, frame, label and whether an error was injected, for each verdict."""
    injected = bursts(rng, frames)
    health, streams = session.camera_health(), tuple(session.stream_policy(policy) for _ in ROIS)
    rows = []
    for number, picture in enumerate(pictures(base, rng, frames, injected)):
        at = 10**9 + round(number * 1e9 / FPS)
        judged = session.frame_judge.judge(Frame(number, at, picture), ROIS, health, None, streams)
        sink.write(FrameResult(judged, picture, ""))
        if number % round(FPS) == 0:
            sink.flush()
        for k, roi in enumerate(ROIS):
            broken = any(each.region == k and each.first <= number <= each.last for each in injected)
            rows.append((roi.name, number, "other" if broken else TRUTH[roi.name], int(broken)))
    sink.close()
    return rows


def main() -> None:
    """Make drives of so many hours together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--hours", type=float, default=0.1)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a drive")
    parser.add_argument("--bundle", default="models/bundles/hybrid-cifar10.bundle")
    parser.add_argument("--clip", type=Path, default=Path("camera_demo/clips/highway_1280x720_25fps.mp4"))
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seed", type=int, default=0, help="of weather and errors")
    arguments = parser.parse_args()
    drives = max(1, round(arguments.hours * 3600 / arguments.seconds))
    frames = make(
        arguments.out, arguments.bundle, arguments.clip, drives, arguments.seconds,
        backend=arguments.backend, precision=arguments.precision, seed=arguments.seed,
    )  # fmt: skip
    to_stdout(f"{drives} drives, {frames} frames, {frames * len(ROIS)} verdicts: {arguments.out}")


if __name__ == "__main__":
    main()
