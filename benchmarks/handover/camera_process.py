"""A camera process of the campaign: a real pipeline that hands its verdicts over, and misbehaves when it is told to.

    python -m framegate.benchmarks.handover.camera_process udp://127.0.0.1:47800 --data-id 257

Lines on standard input: ``hang`` and ``go`` (the engine), ``unplug`` and ``plug`` (the camera), ``vanish``
and ``appear`` (an object), ``silent`` and ``answer`` (who says where objects are), ``end``. The first line
on standard output says ``ready``.
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

import numpy as np

from framegate.benchmarks.checkout import BUNDLES, CLIPS
from framegate.benchmarks.cost.broken_parts import BrokenEngine, PictureCamera
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.handover import Identity, Sender, open_outgoing, read_key
from framegate.runtime.handover.object_sender import ObjectSender
from framegate.runtime.pipeline import RESULTS_HELD, Pipeline
from framegate.runtime.policy.track import TrackRule
from framegate.runtime.regions.function import FunctionRegions
from framegate.runtime.regions.judge import Objects
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.sources.open import open_source
from framegate.runtime.verdict import Image

CLIP = CLIPS / "highway_1280x720_25fps.mp4"
CARS = [Roi.parse(f"car={795 + right},{385 + down},160,130") for right, down in ((0, 0), (12, 6), (-12, -6))]
ENGINE = "onnxruntime", "fp32"


def accepted_pictures(session: Session) -> list[Image]:
    """The car in the frames of the clip, also from a little beside it, as far as the session accepts it; or all.

    More pictures than the camera check remembers: none may be the repetition of a recent one.
    """
    frames = []
    with open_source(str(CLIP), realtime=False) as source:
        while (frame := source.read()) is not None:
            frames.append(frame.image)
    seen = [piece.copy() for roi in CARS for image in frames if (piece := roi.crop(image)) is not None]
    return [image for image in seen if session.infer(image).accepted_when_decided] or seen


class NoisyCamera(PictureCamera):
    """Shows the pictures with the noise of a sensor, so that none is the repetition of another."""

    def _produce(self, frame_id: int):  # type: ignore[no-untyped-def]  # as in the base
        frame = super()._produce(frame_id)
        if frame is not None:
            noise = np.random.default_rng(frame_id).integers(-3, 4, frame.image.shape, np.int16)
            np.copyto(frame.image, np.clip(frame.image + noise, 0, 255).astype(np.uint8))
        return frame


class World:
    """What is where: two cars, of which one can vanish; both boxes show the whole picture.

    Attributes:
        one_alone: The second car is not there.
        answers: Cleared, `boxes` does not return.
    """

    def __init__(self) -> None:
        self.one_alone = False
        self.answers = threading.Event()
        self.answers.set()

    def boxes(self, image: Image) -> list[tuple[float | str, ...]]:
        """Where they are, each with its track."""
        self.answers.wait()
        height, width = image.shape[:2]
        first, second = (0, 0, width, height, "", 1.0, 1), (2, 2, width - 2, height - 2, "", 0.9, 2)
        return [first] if self.one_alone else [first, second]


def main(words: list[str] | None = None) -> int:
    """Run until standard input ends."""
    parser = argparse.ArgumentParser(description="A camera process that misbehaves when it is told to.")
    parser.add_argument("to", help="address of the receiver")
    parser.add_argument("--data-id", type=lambda text: int(text, 0), required=True)
    parser.add_argument("--bundle", default="hybrid-cifar10")
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--deadline-ms", type=float, default=200.0)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--objects", type=int, default=0, metavar="SLOTS", help="two objects, in so many slots")
    parser.add_argument("--held", action="store_true", help="be ready, and send nothing before the line 'begin'")
    arguments = parser.parse_args(words)
    bundle = Bundle.open(BUNDLES / f"{arguments.bundle}.bundle")
    engine = BrokenEngine(load_backend(ENGINE[0], bundle.model_path(ENGINE[1]), 1))
    session = Session(bundle, engine, ENGINE[1], bundle.calibration(*ENGINE), camera=False)
    camera = NoisyCamera(accepted_pictures(session), arguments.fps)
    if arguments.held:
        print("ready", flush=True)
        sys.stdin.readline()
    key = None if arguments.key is None else read_key(arguments.key)
    outgoing, identity = [open_outgoing(arguments.to)], Identity.of(bundle, session.calibration)
    world = World() if arguments.objects else None
    sender = (
        Sender(outgoing, [("frame", arguments.data_id)], identity, key=key)
        if world is None
        else ObjectSender(outgoing, arguments.data_id, arguments.objects, identity, key=key)
    )
    pipeline = Pipeline(
        camera,
        session,
        deadline_ms=arguments.deadline_ms,
        results_held=RESULTS_HELD,
        objects=None if world is None else Objects(FunctionRegions(world.boxes), rule=TrackRule(1, 1, 1)),
    )
    pipeline.tell(sender.send_result)
    with sender, pipeline:
        threading.Thread(target=_obey, args=(camera, engine, pipeline, world or World()), daemon=True).start()
        if not arguments.held:
            print("ready", flush=True)
        for _ in pipeline.results():
            pass
    return 0


def _obey(camera: PictureCamera, engine: BrokenEngine, pipeline: Pipeline, world: World) -> None:
    for line in sys.stdin:
        word = line.strip()
        part = engine if word in ("hang", "go") else camera
        if word in ("vanish", "appear"):
            world.one_alone = word == "vanish"
        elif word in ("silent", "answer"):
            (world.answers.clear if word == "silent" else world.answers.set)()
        elif word in ("hang", "unplug"):
            part.goes_on.clear()
            part.hangs.set()
        elif word in ("go", "plug"):
            part.hangs.clear()
            part.goes_on.set()
        else:
            break
    world.answers.set()
    for part in (engine, camera):
        part.hangs.clear()
        part.goes_on.set()
    pipeline.stop()


if __name__ == "__main__":
    sys.exit(main())
