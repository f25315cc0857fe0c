"""The camera check beside the kind of monitor that the field uses: delay of detection, false alarms, frozen pictures.

    python -m framegate.benchmarks.cost.camera_rival --out benchmarks/results/camera-rival.json

Both see the same frames: the shipped clip at 480x270, with sensor noise of its own on every frame. The rival
(`framegate.benchmarks.cost.statistics_monitor`) learns all of it for 300 s, five frames a second, so that it has seen
whatever it is asked about; the check learns nothing but the first ten frames of each stream. Then the second half is
played with each fault from frame 30 on, and healthy scenes without any: the same view, another one, dusk that stays,
and a short darkness now and then. All this twice: for the moving camera, and for a camera that stands still (one frame
of the clip, with new noise), which is what such monitors are made for.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from framegate.benchmarks.checkout import CLIPS
from framegate.benchmarks.cost.statistics_monitor import STATISTICS, StatisticsMonitor
from framegate.evaluation.report.files import write_json
from framegate.runtime.circumstances import circumstances
from framegate.runtime.errors import FramegateError
from framegate.runtime.faults.camera import stuck, torn
from framegate.runtime.faults.inject import KINDS, ONE_SEVERITY
from framegate.runtime.health.check import CameraHealth
from framegate.runtime.sources.open import open_source
from framegate.runtime.verdict import Image

CLIP, OTHER_CLIP = CLIPS / "highway_960x540_25fps.mp4", CLIPS / "highway_1280x720_25fps.mp4"
SIZE = (480, 270)
FPS, LEARN_FPS = 25, 5
LEARN_S = 300
FIRST = 30
"""First frame with the fault."""
SCENE_S = 60
SEVERITIES = (1, 3, 5)
# fmt: off
FAULTS = (
    "black", "freeze", "stuck", "torn", "half", "saturated", "contrast", "fog", "glare", "rain", "blur", "covered",
    "noise", "compression", "channel",
)
# fmt: on
_WITH_PAST = {"stuck": stuck, "torn": torn}
_NOISE = 1.5
_FIELDS = 6
_SHIFTS = {"moving": 64, "fixed": 512}
_DARK = 0.25
_DARKNESS_S, _BETWEEN_S = 10, 20


def read_clip(path: Path) -> list[Image]:
    """All frames, scaled to `SIZE`."""
    images = []
    with open_source(str(path), realtime=False) as source:
        while (frame := source.read()) is not None:
            images.append(cv2.resize(frame.image, SIZE, interpolation=cv2.INTER_AREA))
    return images


class Sensor:
    """Adds the noise of a sensor, another one to every frame.

    Args:
        shape: Of the frames.
        shift: Places, along each side, at which a field of noise can lie. A view that never moves needs many: the same
            noise twice within 32 frames is a frozen picture.
    """

    def __init__(self, shape: tuple[int, ...], shift: int) -> None:
        self._rng = np.random.default_rng(0)
        self._size, self._shift = shape[:2], shift
        larger = (shape[0] + shift, shape[1] + shift, *shape[2:])
        self._fields = [self._rng.normal(0.0, _NOISE, larger).astype(np.float32) for _ in range(_FIELDS)]

    def see(self, image: Image, light: float = 1.0) -> Image:
        """A frame of this scene in so much light."""
        field, x, y = (int(self._rng.integers(most)) for most in (_FIELDS, self._shift, self._shift))
        noise = self._fields[field][y : y + self._size[0], x : x + self._size[1]]
        seen: Image = cv2.addWeighted(image.astype(np.float32), light, noise, 1.0, 0.0, dtype=cv2.CV_8U)
        return seen


def loop(images: list[Image], frames: int) -> Iterator[Image]:
    """So many frames, from the start again at the end."""
    for k in range(frames):
        yield images[k % len(images)]


def faulty(kind: str, severity: int, images: Iterator[Image], sensor: Sensor) -> Iterator[Image]:
    """A stream with a fault from `FIRST` on."""
    past: Image | None = None
    for k, scene in enumerate(images):
        image = sensor.see(scene)
        if k < FIRST:
            past = image
            yield image
            continue
        assert past is not None
        if kind == "freeze":
            yield past.copy()
        elif kind in _WITH_PAST:
            yield _WITH_PAST[kind](image, severity, k, past)
        else:
            yield KINDS[kind](image, severity, k)


def watch(stream: Iterator[Image], monitor: StatisticsMonitor) -> tuple[list[bool], list[bool]]:
    """For every frame whether the check rejects it, and whether the rival does not trust the camera."""
    health = CameraHealth()
    ours: list[bool] = []
    theirs: list[bool] = []
    for image in stream:
        ours.append(bool(health.check(image)))
        theirs.append(monitor.judge(image))
    return ours, theirs


def delay(alarms: list[bool]) -> dict[str, Any]:
    """From the first faulty frame to the first alarm, and how often there was one before."""
    after = alarms[FIRST:]
    first = after.index(True) if True in after else None
    return {
        "frames": None if first is None else first,
        "ms": None if first is None else round(1000 * first / FPS),
        "rejected": sum(after) / len(after),
        "alarm_before": any(alarms[FIRST // 2 : FIRST]),
    }


def false_alarms(alarms: list[bool]) -> dict[str, Any]:
    """Alarms in a healthy scene: how often one begins, and the share of frames that are lost."""
    begun = sum(now and not before for before, now in zip([False, *alarms], alarms, strict=False))
    return {
        "frames": len(alarms),
        "alarms": begun,
        "per_hour": round(begun * 3600 * FPS / len(alarms), 1),
        "rejected": sum(alarms) / len(alarms),
    }


def scenes(view: list[Image], other: list[Image], sensor: Sensor, seconds: int) -> dict[str, Iterator[Image]]:
    """Healthy ones, each with a word of what it is."""
    frames = seconds * FPS
    period = (_DARKNESS_S + _BETWEEN_S) * FPS

    def lit(light: Callable[[int], float]) -> Iterator[Image]:
        return (sensor.see(image, light(k)) for k, image in enumerate(loop(view, frames)))

    return {
        "the same view": lit(lambda k: 1.0),
        "another view": (sensor.see(image) for image in loop(other, frames)),
        "dusk that stays": lit(lambda k: max(_DARK, 1.0 - (1.0 - _DARK) * k / (20 * FPS))),
        "dark now and then": lit(lambda k: _DARK if k % period >= _BETWEEN_S * FPS else 1.0),
    }


def measure(
    learn_s: int, scene_s: int, kinds: tuple[str, ...], wanted: tuple[str, ...] = tuple(_SHIFTS)
) -> dict[str, Any]:
    """Everything for the record."""
    images, other = read_clip(CLIP), read_clip(OTHER_CLIP)
    count = len(images) - len(images) // 2
    cameras = {
        "moving": (images, images[-count:], other),
        "fixed": (images[:1], images[:1] * count, other[:1]),
    }
    sensors = {name: Sensor(images[0].shape, _SHIFTS[name]) for name in wanted}
    found = {name: _measure_camera(*cameras[name], sensors[name], learn_s, scene_s, kinds) for name in wanted}
    return {"learnt_s": learn_s, "scene_s": scene_s, "fps": FPS, "cameras": found}


def _measure_camera(
    learnt: list[Image],
    view: list[Image],
    other: list[Image],
    sensor: Sensor,
    learn_s: int,
    scene_s: int,
    kinds: tuple[str, ...],
) -> dict[str, Any]:
    """One camera: what the rival learns, what it is shown then, and another view."""
    monitor = StatisticsMonitor()
    started = time.monotonic()
    # Every fifth frame and the first one again at the end: 221 frames have no common divisor with 5.
    for k in range(learn_s * LEARN_FPS):
        monitor.learn(sensor.see(learnt[k * (FPS // LEARN_FPS) % len(learnt)]))
    print(f"learnt {learn_s} s in {time.monotonic() - started:.0f} s", flush=True)

    def prove_healthy() -> None:
        monitor.start()
        for image in loop(view, 2 * FPS):
            monitor.judge(sensor.see(image))

    healthy: dict[str, Any] = {}
    for name, stream in scenes(view, other, sensor, scene_s).items():
        prove_healthy()
        ours, theirs = watch(stream, monitor)
        healthy[name] = {"check": false_alarms(ours), "rival": false_alarms(theirs)}
        print(name, healthy[name], flush=True)
    faults: dict[str, Any] = {}
    for kind in kinds:
        for severity in (3,) if kind in ONE_SEVERITY else SEVERITIES:
            prove_healthy()
            ours, theirs = watch(faulty(kind, severity, loop(view, len(view)), sensor), monitor)
            name = kind if kind in ONE_SEVERITY else f"{kind}:{severity}"
            faults[name] = {"check": delay(ours), "rival": delay(theirs)}
            print(name, faults[name], flush=True)
    return {"healthy": healthy, "faults": faults}


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learn", type=int, default=LEARN_S, metavar="S", help="seconds (default: %(default)s)")
    parser.add_argument("--scene", type=int, default=SCENE_S, metavar="S", help="seconds each (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", default=FAULTS, choices=FAULTS, help="only these faults (default: all)")
    parser.add_argument("--cameras", nargs="+", default=list(_SHIFTS), choices=list(_SHIFTS), help="(default: both)")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    arguments = parser.parse_args()
    if min(arguments.learn, arguments.scene) < 1:
        parser.error("--learn and --scene: expected at least 1")
    cv2.setNumThreads(1)
    command = f"python -m framegate.benchmarks.cost.camera_rival --cameras {' '.join(arguments.cameras)}"
    try:
        record = {
            "what": "the camera check beside a monitor that learns eight statistics of each camera, on the same frames",
            "command": f"{command} --learn {arguments.learn} --scene {arguments.scene} --out {arguments.out}",
            "statistics": STATISTICS,
            "machine": circumstances(),
            **measure(arguments.learn, arguments.scene, tuple(arguments.kinds), tuple(arguments.cameras)),
        }
        write_json(arguments.out, record)
    except FramegateError as error:
        print(f"camera_rival: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
