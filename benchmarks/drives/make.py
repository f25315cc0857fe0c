"""Drives with a known truth: ``python -m framegate.benchmarks.drives.make --hours 0.1 --out DIR``.

Each drive is a car in its own weather, judged by the bundle and recorded by the black box on a clock of its own, so
that an hour of drive takes no hour. `framegate.benchmarks.drives.scenes` says what the cars see, the shipped clip, or,
with ``--signs DATA``, tracks of traffic signs, and which errors are injected. The truth goes to ``DIR/truth-*.csv``;
drives that are there are not made again.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

from framegate.benchmarks.drives.scenes import FPS, Highway, Scene, Signs
from framegate.runtime.console import progress_bar, to_stdout
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.policy.stream import Policy
from framegate.runtime.replay.recording import Recording
from framegate.runtime.session import Session
from framegate.runtime.sinks.black_box import BlackBoxSink
from framegate.runtime.verdict import Frame

CARS = 7
"""Drive k is one of car k modulo this."""
TRUTH_FILE = "truth-{:04d}.csv"


def make(
    out: Path, session: Session, scene: Scene, drives: int, seconds: float, *, seed: int = 0, name: str = "drive"
) -> int:
    """Record drives.

    Args:
        out: A folder; one for each car below it.
        session: Judges.
        scene: What is seen.
        drives: How many.
        seconds: Length of each.
        seed: Of weather and errors.
        name: What the names of the drives begin with.

    Returns:
        Verdicts in all.
    """
    frames = round(seconds * FPS)
    policy = Policy()
    recording = Recording.of(session, scene.rois, sequence=True, fps=FPS, source="made", policy=policy)
    out.mkdir(parents=True, exist_ok=True)
    with progress_bar() as progress:
        for drive in range(drives):
            truth = out / TRUTH_FILE.format(drive)
            if truth.exists():  # made in an earlier run
                continue
            folder, called = out / f"car{drive % CARS}", f"{name}{drive:04d}"
            for path in folder.glob(f"{called}.*.mcap"):
                path.unlink()  # of a run that was interrupted within this drive
            sink = BlackBoxSink(
                folder, 10**11, scene.rois, recording, drive=called, camera="front", version="made", report=to_stdout
            )
            rows = _drive(session, policy, sink, scene, drive, frames, seed)
            with truth.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(("drive", "region", "frame_id", "label", "injected"))
                writer.writerows((called, *row) for row in rows)
            progress("recording drives", drive + 1, drives)
    return frames * drives * len(scene.rois)


def open_session(bundle: str, backend: str, precision: str, *, limits: bool) -> Session:
    """Who judges made drives.

    Args:
        bundle: Which.
        backend: Which engine.
        precision: Which network.
        limits: False: the score alone decides. The limits of the shipped bundle reject the shipped clip as a whole, and
            a drive on which nothing is accepted shows nothing.
    """
    session = Session.open(bundle, backend, precision, 1)
    if limits or session.calibration is None:
        return session
    own = replace(session.calibration, limits=())
    return Session(session.bundle, session.scorer.backend, session.precision, own)


def _drive(
    session: Session, policy: Policy, sink: BlackBoxSink, scene: Scene, drive: int, frames: int, seed: int
) -> list[tuple[str, int, str, int]]:
    """Record one drive; returns region, frame, label and whether an error was injected, for each verdict."""
    rois = scene.rois
    health, streams = session.camera_health(), tuple(session.stream_policy(policy) for _ in rois)
    rows = []
    for number, moment in enumerate(scene.moments(drive, frames, seed)):
        at = 10**9 + round(number * 1e9 / FPS)
        judged = session.frame_judge.judge(Frame(number, at, moment.picture), rois, health, None, streams)
        sink.write(FrameResult(judged, moment.picture, ""))
        if number % round(FPS) == 0:
            sink.flush()
        for roi, label, injected in zip(rois, moment.labels, moment.injected, strict=True):
            rows.append((roi.name, number, label, int(injected)))
    sink.close()
    return rows


def main() -> None:
    """Make drives of so many hours together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--hours", type=float, default=0.1)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a drive")
    parser.add_argument("--signs", type=Path, metavar="DATA", help="GTSRB: tracks of signs in place of the highway")
    parser.add_argument("--bundle", help="default: the shipped one for what is seen")
    parser.add_argument("--clip", type=Path, default=Path("camera_demo/clips/highway_1280x720_25fps.mp4"))
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seed", type=int, default=0, help="of weather and errors")
    arguments = parser.parse_args()
    drives = max(1, round(arguments.hours * 3600 / arguments.seconds))
    shipped = "hybrid-gtsrb" if arguments.signs else "hybrid-cifar10"
    session = open_session(
        arguments.bundle or shipped, arguments.backend, arguments.precision, limits=bool(arguments.signs)
    )
    scene = Signs(arguments.clip, arguments.signs) if arguments.signs else Highway(arguments.clip)
    kind = "signs" if arguments.signs else "highway"
    name = f"{kind}-{arguments.seed}-"  # drives of one table have different names
    made = make(arguments.out, session, scene, drives, arguments.seconds, seed=arguments.seed, name=name)
    to_stdout(f"{drives} drives, {made} verdicts: {arguments.out}")


if __name__ == "__main__":
    main()
