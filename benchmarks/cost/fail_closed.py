"""The campaign of faults around a frame's judgement: what is injected, what can be read, and how soon.

    python -m framegate.benchmarks.cost.fail_closed --out benchmarks/results/fail-closed.json

Every fault is injected for real into the shipped bundle on the shipped clip. The columns: how often something was read
while the fault lasted, how often that was an ACCEPT that nobody may use, what was read instead, and how long it took
from the fault to the first REJECT. The exit code is 1 if any such ACCEPT could be read. The same faults, and more, are
tests: tests/runtime/test_verdict_end.py and its neighbours.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper

from framegate.benchmarks.checkout import BUNDLES, CLIPS, RESULTS
from framegate.benchmarks.cost.broken_parts import BrokenEngine, OneBufferSource, PictureCamera
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.bundle import MANIFEST, Bundle, seal
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import to_stderr, to_stdout
from framegate.runtime.errors import FramegateError
from framegate.runtime.pipeline import Pipeline
from framegate.runtime.roi import Roi
from framegate.runtime.scores import Tensor
from framegate.runtime.session import Session
from framegate.runtime.sources.open import open_source
from framegate.runtime.verdict import Frame, Image, Prediction

BUNDLE = BUNDLES / "hybrid-cifar10.bundle"
CLIP = CLIPS / "highway_1280x720_25fps.mp4"
CAR, SKY = Roi.parse("car=795,385,160,130"), Roi.parse("sky=700,20,160,130")
ENGINE = "onnxruntime", "fp32"
DEADLINE_MS = 200.0
PATIENCE_S = 10.0


@dataclass
class Outcome:
    """What came of one fault.

    Attributes:
        read: How often something was read, or tried, while the fault lasted.
        accepts: ACCEPT that must not be used among it.
        instead: What was read instead -> how often.
        within_ms: From the fault to the first REJECT, in milliseconds; 0 where the fault is refused before a frame.
    """

    read: int = 0
    accepts: int = 0
    instead: Counter[str] = field(default_factory=Counter)
    within_ms: float = math.nan

    def saw(self, prediction: Prediction, since_ns: int, usable: bool = False) -> None:
        """Count a prediction as a consumer reads it now; ``usable``: an ACCEPT of it would be right."""
        self.read += 1
        if prediction.accepted:
            self.accepts += not usable
            return
        self.instead.update(str(reason) for reason in prediction.reasons)
        if math.isnan(self.within_ms):
            self.within_ms = max(0.0, (time.monotonic_ns() - since_ns) / 1e6)

    def refused(self, work: Callable[[], object]) -> None:
        """Count something that must be refused with an error before any frame is judged."""
        self.read += 1
        try:
            work()
        except FramegateError as error:
            self.instead[type(error).__name__] += 1
            self.within_ms = 0.0
            return
        self.accepts += 1


def crops(roi: Roi) -> list[Image]:
    """The region in every frame of the clip."""
    found = []
    with open_source(str(CLIP), realtime=False) as source:
        while (frame := source.read()) is not None:
            piece = roi.crop(frame.image)
            assert piece is not None
            found.append(piece.copy())
    return found


def plain(camera: bool = False) -> Session:
    """A session on the shipped bundle; regions of a clip are no whole camera pictures."""
    return Session.open(BUNDLE, *ENGINE, 1, camera=camera)


def broken() -> tuple[Session, BrokenEngine]:
    """The same with an engine that can be told to misbehave."""
    bundle = Bundle.open(BUNDLE)
    engine = BrokenEngine(load_backend(ENGINE[0], bundle.model_path(ENGINE[1]), 1))
    return Session(bundle, engine, ENGINE[1], bundle.calibration(*ENGINE), camera=False), engine


def age_at_reading(car: list[Image], _: list[Image]) -> Outcome:
    """A 50 fps camera, a deadline of 100 ms, a consumer who looks at each verdict for 120 ms before acting."""
    found = Outcome()
    with Pipeline(PictureCamera(car), plain(), deadline_ms=100) as pipeline:
        for prediction in pipeline:
            if prediction.accepted_when_decided:
                time.sleep(0.12)
                found.saw(prediction, prediction.captured_ns)
            if found.read == 10:
                break
    return found


def no_deadline(car: list[Image], _: list[Image]) -> Outcome:
    """No deadline was given, and the engine takes 300 ms a frame."""
    found, (session, engine) = Outcome(), broken()

    def slow(logits: Tensor) -> Tensor:
        time.sleep(0.3)
        return logits

    engine.change = slow
    with Pipeline(PictureCamera(car), session, results_held=64) as pipeline:
        since = time.monotonic_ns()
        for prediction in pipeline:
            found.saw(prediction, since)
            if found.read == 10:
                break
    return found


def shared_session(car: list[Image], sky: list[Image]) -> Outcome:
    """One session for a car camera and a sky camera; then infer from eight threads."""
    found, session = Outcome(), plain()
    with Pipeline(PictureCamera(car), session) as first:
        next(iter(first))
        found.refused(lambda: Pipeline(PictureCamera(sky), session).__enter__())
        found.refused(lambda: session.infer(sky[0]))
    session = plain()
    session.infer(car[0])
    threads = [threading.Thread(target=found.refused, args=(lambda: session.infer(sky[0]),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def stuck_engine(car: list[Image], sky: list[Image]) -> Outcome:
    """The engine returns its last output, of a car, while the camera shows the sky."""
    found, (session, engine) = Outcome(), broken()
    session.infer(car[0])
    last = engine.finish().copy()
    engine.change = lambda _: last
    since = time.monotonic_ns()
    for image in sky:
        found.saw(session.infer(image), since)
    return found


def nan_inside(car: list[Image], _: list[Image]) -> Outcome:
    """A NaN among the weights; then an engine whose logits are clipped NaN, the same for every picture."""
    found = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(BUNDLE, Path(folder) / "nan.bundle"))
        model = onnx.load(copy / "model.fp32.onnx")
        tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
        values = onnx.numpy_helper.to_array(tensor).copy()
        values.flat[values.size // 2] = np.nan
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        onnx.save(model, copy / "model.fp32.onnx")
        (copy / "calibration.json").unlink()
        seal(copy, json.loads((copy / MANIFEST).read_text()))
        for backend in ("openvino", "onnxruntime"):
            found.refused(lambda backend=backend: Session.open(copy, backend, "fp32", 1))  # type: ignore[misc]
    session, engine = broken()
    engine.change = lambda logits: np.full_like(logits, 8.0) * (np.arange(logits.shape[1]) == 1)
    session.infer(car[0])
    since = time.monotonic_ns()
    for image in car[1:]:
        found.saw(session.infer(image), since)
    return found


def reused_buffer(car: list[Image], sky: list[Image]) -> Outcome:
    """A source that writes the next frame, a car, into the array of the last one, the sky."""
    found = Outcome()
    turns = [image for pair in zip(car, sky, strict=True) for image in pair]
    with Pipeline(OneBufferSource(turns, 400), plain(), deadline_ms=2000, results_held=64) as pipeline:
        for prediction in pipeline:
            found.saw(prediction, prediction.captured_ns, usable=prediction.frame_id % 2 == 0)
    return found


def edited(name: str, change: Callable[[dict[str, Any]], object], sealed: bool = False) -> Callable[[], object]:
    """Opens a copy of the bundle in which somebody has edited a JSON file."""

    def work() -> object:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copytree(BUNDLE, Path(folder) / "edited.bundle"))
            record = json.loads((copy / name).read_text())
            change(record)
            (copy / name).write_text(json.dumps(record))
            if sealed:
                seal(copy, json.loads((copy / MANIFEST).read_text()))
            return Session.open(copy, *ENGINE, 1)

    return work


def what_no_hash_covered(_: list[Image], __: list[Image]) -> Outcome:
    """Labels swapped; another mean; the weights of the float16 network edited; the network replaced after opening."""
    found = Outcome()
    found.refused(edited(MANIFEST, lambda record: record["labels"].reverse()))
    found.refused(edited(MANIFEST, lambda record: record["preprocess"].update(mean=[90.0, 90.0, 90.0])))

    def external() -> object:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copytree(BUNDLE, Path(folder) / "edited.bundle"))
            content = bytearray((copy / "model.fp32.onnx").read_bytes())
            content[-1000] ^= 1
            (copy / "model.fp32.onnx").write_bytes(content)
            return Session.open(copy, ENGINE[0], "fp16", 1)

    def replaced() -> object:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(shutil.copytree(BUNDLE, Path(folder) / "edited.bundle"))
            opened = Bundle.open(copy)
            shutil.copy(BUNDLES / "hybrid-gtsrb.bundle" / "model.fp32.onnx", copy / "model.fp32.onnx")
            return Session.open(opened, *ENGINE, 1)

    found.refused(external)
    found.refused(replaced)
    return found


def edited_calibration(_: list[Image], __: list[Image]) -> Outcome:
    """``threshold: 1e9, limits: []``; ``risk_bound: 0.9``; ``coverage: 7``; each with hashes that fit."""
    found = Outcome()
    for values in ({"threshold": 1e9, "limits": []}, {"risk_bound": 0.9}, {"coverage": 7}):

        def change(record: dict[str, Any], values: dict[str, Any] = values) -> None:
            for each in record["records"].values():
                each.update(values)

        found.refused(edited("calibration.json", change, sealed=True))
    return found


def time_and_numbers(car: list[Image], _: list[Image]) -> Outcome:
    """``captured_ns`` NaN, -inf or a text; ``frame_id`` a text, repeated, or going backwards."""
    found, session = Outcome(), plain()
    health, streams = session.camera_health(), (session.stream_policy(),)
    since = time.monotonic_ns()
    for number, captured in ((0, math.nan), (1, -math.inf), (2, "now"), ("x", since)):
        frame = Frame(number, captured, car[0])  # type: ignore[arg-type]
        found.saw(session.frame_judge.judge(frame, (Roi.whole(),), health, 10**10, streams)[0], since)
    for number, image in zip((10, 10, 9), car, strict=False):
        frame = Frame(number, time.monotonic_ns(), image)
        judged = session.frame_judge.judge(frame, (Roi.whole(),), health, 10**10, streams)[0]
        found.saw(judged, since, usable=image is car[0])
    return found


def wrong_shape_later(car: list[Image], _: list[Image]) -> Outcome:
    """A row of five logits from an engine of ten classes."""
    found, (session, engine) = Outcome(), broken()
    session.infer(car[0])
    engine.change = lambda logits: logits[:, :5]
    since = time.monotonic_ns()
    for image in car[1:11]:
        found.saw(session.infer(image), since)
    return found


def _hang(pipeline: Pipeline, hangs: threading.Event, found: Outcome) -> None:
    """Let something hang once a frame was accepted, and read `Pipeline.latest` until three deadlines later."""
    end = time.monotonic() + PATIENCE_S
    while not pipeline.latest().accepted and time.monotonic() < end:
        time.sleep(0.001)
    hangs.set()
    since = time.monotonic_ns()
    grace_ns = since + int(DEADLINE_MS * 1e6)  # until then the last verdict holds
    while time.monotonic_ns() < since + int(3 * DEADLINE_MS * 1e6):
        latest = pipeline.latest()
        found.saw(latest, since, usable=time.monotonic_ns() <= max(grace_ns, latest.valid_until_ns))
        time.sleep(0.005)


def hanging_source(car: list[Image], _: list[Image]) -> Outcome:
    """A source whose read never returns; the newest verdict is read all the time."""
    found, camera = Outcome(), PictureCamera(car)
    with Pipeline(camera, plain(), deadline_ms=DEADLINE_MS) as pipeline:
        _hang(pipeline, camera.hangs, found)
        camera.goes_on.set()
    return found


def hanging_engine(car: list[Image], _: list[Image]) -> Outcome:
    """An engine that never answers; the newest verdict is read all the time."""
    found, (session, engine) = Outcome(), broken()
    with Pipeline(PictureCamera(car), session, deadline_ms=DEADLINE_MS) as pipeline:
        _hang(pipeline, engine.hangs, found)
        engine.goes_on.set()
    return found


def truth_value(_: list[Image], sky: list[Image]) -> Outcome:
    """``if prediction:`` on a REJECT."""
    found, session = Outcome(), plain()
    since = time.monotonic_ns()
    for image in sky[:10]:
        prediction = session.infer(image)
        found.accepts += bool(prediction) or bool(prediction.verdict)
        found.saw(prediction, since)
    return found


def wrong_arithmetic(car: list[Image], _: list[Image]) -> Outcome:
    """An engine that computes something else than was exported, from the start or while a stream runs."""
    found, bundle = Outcome(), Bundle.open(BUNDLE)
    engine = BrokenEngine(load_backend(ENGINE[0], bundle.model_path(ENGINE[1]), 1))
    engine.change = lambda logits: logits * np.float32(0.2)
    found.refused(lambda: Session(bundle, engine, ENGINE[1], bundle.calibration(*ENGINE)))
    session, engine = broken()
    session.infer(car[0])
    engine.change = lambda logits: logits + np.float32(2) * (np.arange(logits.shape[1], dtype=np.float32) == 3)
    session.scorer.ask()  # what a stream does every ten seconds
    since = time.monotonic_ns()
    for image in car[1:]:
        found.saw(session.infer(image), since)
    return found


CASES: dict[str, Callable[[list[Image], list[Image]], Outcome]] = {
    "age at reading": age_at_reading,
    "no deadline given": no_deadline,
    "shared session": shared_session,
    "stuck engine": stuck_engine,
    "wrong arithmetic": wrong_arithmetic,
    "NaN inside": nan_inside,
    "reused buffer": reused_buffer,
    "what no hash covered": what_no_hash_covered,
    "edited calibration": edited_calibration,
    "time and numbers": time_and_numbers,
    "wrong shape later": wrong_shape_later,
    "hanging source": hanging_source,
    "hanging engine": hanging_engine,
    "truth value": truth_value,
}


def main(words: list[str] | None = None) -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description="Faults around a frame's judgement, injected for real.")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "fail-closed.json", help="the record (default: %(default)s)"
    )
    parser.add_argument(
        "--only", choices=CASES, action="append", help="this fault alone; can be repeated (default: all)"
    )
    arguments = parser.parse_args(words)
    car, sky = crops(CAR), crops(SKY)
    rows, through = [], 0
    for name, case in CASES.items():
        if arguments.only and name not in arguments.only:
            continue
        outcome = case(car, sky)
        through += outcome.accepts
        what = " ".join((case.__doc__ or "").split()).rstrip(".")
        row = {"fault": name, "what": what, "read": outcome.read, "unsafe_accepts": outcome.accepts}
        row |= {"instead": dict(outcome.instead.most_common()), "within_ms": round(outcome.within_ms, 1)}
        rows.append(row)
        words_of = ", ".join(f"{reason} {count}" for reason, count in outcome.instead.most_common())
        to_stdout(
            f"{name:22} {outcome.accepts} of {outcome.read} unsafe; rejected: {words_of}; {outcome.within_ms:.0f} ms"
        )
    record = {
        "what": "ACCEPT that could be read and must not be used, under faults around a frame's judgement",
        "command": "python -m framegate.benchmarks.cost.fail_closed --out benchmarks/results/fail-closed.json",
        "date": date.today().isoformat(),
        "bundle": Bundle.open(BUNDLE).name,
        "engine": "/".join(ENGINE),
        "deadline_ms": DEADLINE_MS,
        "machine": circumstances(),
        "faults": rows,
    }
    try:
        arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        to_stderr(f"fail_closed: {arguments.out} cannot be written ({error.strerror})")
        return 1
    return 1 if through else 0


if __name__ == "__main__":
    sys.exit(main())
