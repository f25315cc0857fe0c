"""Run length to a false alarm, and delay, of the drift alarm and of what one would use instead.

    python -m framegate.benchmarks.cost.drift --out benchmarks/results/drift.json

Simulated streams of scores: 1 - p, p being the share of calibration frames with at least this score, so like the
calibration means uniform. Frames with p below the calibrated rejection rate are rejected. The alarms are:

* ``e-detector``: `framegate.runtime.policy.drift.DriftAlarm` as shipped (blocks of 100 frames), and with shorter ones;
* ``e-detector by frame``: the same with blocks of one frame, which takes every frame as independent;
* ``CUSUM by frame``: log-likelihood ratio of rejections at twice the calibrated rate, alarm at log(run length);
* ``KS of 250 frames``: one-sided Kolmogorov-Smirnov test on windows that do not overlap, its level by the
  Dvoretzky-Kiefer-Wolfowitz inequality (Massart's constant).

All are set so that theory bounds their run length from below by the same number while frames are independent.
What decides is how fast they fire on drift and whether they stay silent on video, whose frames are not independent.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from framegate.benchmarks.latency.record import written
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.circumstances import circumstances
from framegate.runtime.policy.drift import BLOCK, RUN_LENGTH, DriftAlarm
from framegate.runtime.verdict import Reason

COVERAGE = 0.81
"""Of the shipped bundle hybrid-cifar10 in INT8."""
SIZE = 2500
WINDOW = 250
FPS = 25
_HIGH = (Reason.HIGH_SCORE,)

Values = NDArray[np.float64]


class Alarm(Protocol):
    """Takes frames until it fires."""

    def saw(self, p: float) -> bool:
        """Take one frame; True if the alarm is raised."""


class Shipped:
    """The alarm of the runtime."""

    def __init__(self, block: int) -> None:
        quantiles = tuple(k / 100 for k in range(101))
        record = Calibration(
            1.0, "entropy", COVERAGE, 0.01, 0.95, 0.01, COVERAGE, 0.006, SIZE, "", "", "", score_quantiles=quantiles
        )
        self._alarm = DriftAlarm(record, block=block)

    def saw(self, p: float) -> bool:
        """Take one frame."""
        return self._alarm.saw(_HIGH if p < 1 - COVERAGE else (), 1 - p)


class Cusum:
    """Page's CUSUM of the rejections."""

    def __init__(self) -> None:
        rate, worse = 1 - COVERAGE, min(2 * (1 - COVERAGE), 0.95)
        self._steps = (math.log((1 - worse) / (1 - rate)), math.log(worse / rate))
        self._sum = 0.0

    def saw(self, p: float) -> bool:
        """Take one frame."""
        self._sum = max(self._sum, 0.0) + self._steps[p < 1 - COVERAGE]
        return self._sum >= math.log(RUN_LENGTH)


class KolmogorovSmirnov:
    """Are the scores of a window stochastically higher than the calibration's?"""

    def __init__(self) -> None:
        self._window: list[float] = []
        self._largest = math.sqrt(math.log(RUN_LENGTH / WINDOW) / (2 * WINDOW))

    def saw(self, p: float) -> bool:
        """Take one frame."""
        self._window.append(p)
        if len(self._window) < WINDOW:
            return False
        steps = np.arange(1, WINDOW + 1) / WINDOW
        worst = float(np.max(steps - np.sort(self._window)))
        self._window = []
        return worst >= self._largest


ALARMS: dict[str, Callable[[], Alarm]] = {
    "e-detector": lambda: Shipped(BLOCK),
    "e-detector, blocks of 25 frames": lambda: Shipped(25),
    "e-detector, blocks of 50 frames": lambda: Shipped(50),
    "e-detector by frame": lambda: Shipped(1),
    "CUSUM by frame": Cusum,
    f"KS of {WINDOW} frames": KolmogorovSmirnov,
}


def independent(random: np.random.Generator, shape: Callable[[Values], Values]) -> Iterator[Values]:
    """Chunks of p of independent frames, reshaped from uniform."""
    while True:
        yield shape(random.random(1000))


def video(
    random: np.random.Generator, scene_frames: float, accepted_only: bool = False, jitter: float = 0.2
) -> Iterator[Values]:
    """Scenes of geometric length; frames of a scene share most of their score (Gaussian copula).

    Over many scenes p is uniform: as a whole, the video is like the calibration.

    Args:
        random: Where the numbers come from.
        scene_frames: Mean length of a scene.
        accepted_only: No frame is rejected: p is uniform above the rejection rate.
        jitter: Share of the variance that is each frame's own.
    """
    while True:
        length = random.geometric(1 / scene_frames)
        normal = math.sqrt(1 - jitter) * random.standard_normal() + math.sqrt(jitter) * random.standard_normal(length)
        p = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in normal])
        yield 1 - COVERAGE + COVERAGE * p if accepted_only else p


def run_length(make: Callable[[], Alarm], stream: Callable[[], Iterator[Values]], frames: int) -> dict[str, Any]:
    """False alarms among ``frames`` frames; the alarm starts anew after each."""
    alarm, seen, alarms = make(), 0, 0
    for chunk in stream():
        for p in chunk.tolist():
            seen += 1
            if alarm.saw(p):
                alarms += 1
                alarm = make()
        if seen >= frames:
            break
    # Without an alarm the run length is, with 95 % confidence, above frames / 3 (Poisson).
    return {"frames": seen, "false_alarms": alarms, "run_length": round(seen / alarms) if alarms else f"> {seen // 3}"}


def delay(make: Callable[[], Alarm], stream: Callable[[], Iterator[Values]], runs: int, most: int) -> dict[str, Any]:
    """Frames from the change to the alarm, over several streams; those above ``most`` count as ``most``."""
    needed: list[int] = []
    for _ in range(runs):
        alarm, seen, fired = make(), 0, False
        for chunk in stream():
            for p in chunk.tolist():
                seen += 1
                fired = alarm.saw(p)
                if fired or seen >= most:
                    break
            if fired or seen >= most:
                break
        needed.append(seen)
    late = sum(each >= most for each in needed)
    record: dict[str, Any] = {"runs": runs, "median": int(np.median(needed)), "p95": int(np.percentile(needed, 95))}
    return {**record, "not_within": most, "missed": late} if late else record


def more_rejections(rate: float) -> Callable[[Values], Values]:
    """A share ``rate`` of the frames is rejected; accepted ones are distributed as before."""
    edge = 1 - COVERAGE

    def shape(u: Values) -> Values:
        return np.where(u < rate, u / rate * edge, edge + (u - rate) / max(1 - rate, 1e-12) * (1 - edge))

    return shape


DRIFTS: dict[str, Callable[[Values], Values]] = {
    "30 % rejected": more_rejections(0.3),
    "50 % rejected": more_rejections(0.5),
    "80 % rejected": more_rejections(0.8),
    "all rejected": more_rejections(1.0),
    # No rejection at all, yet every score is higher than two thirds of the calibrated ones.
    "accepted, but scores of the highest third": lambda u: (1 - COVERAGE) + u * (1 / 3 - (1 - COVERAGE)),
}


def main() -> int:
    """Simulate everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--frames", type=int, default=2_000_000, help="for the run lengths (default: 2,000,000)")
    parser.add_argument("--runs", type=int, default=100, help="streams for each delay (default: 100)")
    options = parser.parse_args()
    begun = time.monotonic()
    calm: dict[str, Callable[[np.random.Generator], Iterator[Values]]] = {
        "independent frames": lambda random: independent(random, lambda u: u),
        "video, scenes of 25 frames": lambda random: video(random, 25),
        "video, scenes of 100 frames": lambda random: video(random, 100),
        "video, all accepted, scenes of 100 frames": lambda random: video(random, 100, accepted_only=True),
        "video, all accepted, scenes of 500 frames": lambda random: video(random, 500, accepted_only=True),
        "video, one easy scene": lambda random: independent(random, lambda u: 0.8 + 0.2 * u),
    }
    record: dict[str, Any] = {
        "what": "framegate.runtime.policy.drift, see benchmarks/cost/drift.py",
        "machine": circumstances(),
        "coverage": COVERAGE,
        "run_length_promised": RUN_LENGTH,
        "block_frames": BLOCK,
        "fps": FPS,
        "alarms": {},
    }
    for name, make in ALARMS.items():
        lengths = {
            # The promise is about independent frames: five times as many of them.
            kind: run_length(
                make,
                lambda stream=stream: stream(np.random.default_rng(1)),  # type: ignore[misc]
                options.frames * (5 if kind == "independent frames" else 1),
            )
            for kind, stream in calm.items()
        }
        delays: dict[str, Any] = {}
        for kind, shape in DRIFTS.items():
            random = np.random.default_rng(2)
            delays[kind] = delay(make, lambda r=random, s=shape: independent(r, s), options.runs, 20_000)  # type: ignore[misc]
        record["alarms"][name] = {"run_length": lengths, "delay_frames": delays}
        print(f"{time.monotonic() - begun:5.0f} s  {name}", flush=True)
        print(json.dumps(record["alarms"][name], indent=1), flush=True)
    return written(options.out, record, "bench_drift")


if __name__ == "__main__":
    sys.exit(main())
