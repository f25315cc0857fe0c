"""How often the drift alarm is false on video that consists of scenes, by the length of scenes and blocks.

    python -m framegate.benchmarks.cost.drift_scenes --out benchmarks/results/drift-scenes.json

`framegate.benchmarks.cost.drift` compares alarms; this asks one question about the shipped one, on streams long enough
to answer it: what becomes of its run length when the scenes are longer than its blocks. Every scene has a score of its
own, and its frames share most of it; over many scenes the video is like the calibration. Lengths are geometric, or all
alike. A block as long as a scene is not enough: one scene still fills most of two neighbouring blocks; the policy's
`scene_frames` makes blocks of three scenes.

The second table is about calibrations that saw no rejection: the true share is then unknown, not zero.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.benchmarks.latency.record import written
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.circumstances import circumstances
from framegate.runtime.policy.drift import BLOCK, RUN_LENGTH, SCENE_BLOCKS, DriftAlarm

COVERAGE, SIZE = 0.81, 2500
"""Of the shipped bundle hybrid-cifar10 in INT8; the images that a calibration measures its shares on."""
JITTER = 0.2
"""Share of the variance that is each frame's own."""
SCENES = (100, 250, 500, 1500)
BLOCKS = (BLOCK, *(SCENE_BLOCKS * scene for scene in SCENES))
CALIBRATIONS, THEN = 400, 100_000
_QUANTILES = tuple(k / 100 for k in range(101))


def record_of(coverage: float, size: int) -> Calibration:
    """A calibration whose scores are uniform on [0, 1]."""
    return Calibration(
        1.0, "entropy", coverage, 0.01, 0.95, 0.01, coverage, 0.006, size, "", "", "", score_quantiles=_QUANTILES
    )


def scene_scores(frames: int, scene: int, fixed: bool, random: np.random.Generator) -> NDArray[np.float64]:
    """(frames,) standard normal scores of a video that consists of scenes.

    Args:
        frames: How many.
        scene: Mean length of a scene.
        fixed: All scenes have this length; else it is geometric.
        random: Where the numbers come from.
    """
    count = max(4, 2 * frames // scene)
    lengths = np.full(count, scene) if fixed else random.geometric(1 / scene, count)
    own = np.repeat(random.standard_normal(count), lengths)[:frames]
    if len(own) < frames:
        return np.concatenate([own, scene_scores(frames - len(own), scene, fixed, random)])
    mixed = np.sqrt(1 - JITTER) * own + np.sqrt(JITTER) * random.standard_normal(frames)
    return np.asarray(mixed)


def false_alarms(scores: NDArray[np.float64], block: int, calibration: Calibration) -> int:
    """Alarms on (N,) standard normal scores; the alarm starts anew after each."""
    rejected = scores > NormalDist().inv_cdf(calibration.coverage) if calibration.coverage < 1 else scores > np.inf
    high = scores > NormalDist().inv_cdf(0.67)  # the quantile from which on DriftAlarm counts a score as high
    blocks = len(scores) // block
    shares = [flags[: blocks * block].reshape(blocks, block).mean(1).tolist() for flags in (rejected, high)]
    alarm, count = DriftAlarm(calibration, block=block), 0
    for pair in zip(*shares, strict=True):
        alarm.take_block(*pair)
        if alarm.alarm:
            count += 1
            alarm.reset()
    return count


def by_scene(frames: int) -> list[dict[str, Any]]:
    """The run length for every length of scenes and blocks."""
    rows = []
    for scene in SCENES:
        for fixed in (False, True):
            scores = scene_scores(frames, scene, fixed, np.random.default_rng([1, scene, fixed]))
            for block in BLOCKS:
                alarms = false_alarms(scores, block, record_of(COVERAGE, SIZE))
                # Without an alarm the run length is, with 95 % confidence, above frames / 3 (Poisson).
                length = round(frames / alarms) if alarms else f"> {frames // 3}"
                about = {"scene_frames": scene, "lengths": "fixed" if fixed else "geometric", "block_frames": block}
                rows.append({**about, "frames": frames, "false_alarms": alarms, "run_length": length})
    return rows


def without_rejections(calibrations: int, then: int) -> list[dict[str, Any]]:
    """Of calibrations that saw no rejection, those that alarm on so many independent frames like the calibration."""
    rows = []
    for size in (90, 300, 1000):
        random = np.random.default_rng([2, size])
        alarmed = 0
        for _ in range(calibrations):
            # Shares under which seeing none is likely enough to happen, uniformly up to 3 in the calibration's size.
            rate = 3 / size * random.random()
            shares = random.binomial(BLOCK, rate, then // BLOCK) / BLOCK
            alarm = DriftAlarm(record_of(1.0, size))
            for rejected in shares.tolist():
                alarm.take_block(rejected, 0.33)
            alarmed += alarm.alarms > 0
        rows.append({"size": size, "calibrations": calibrations, "then_frames": then, "alarmed": alarmed})
    return rows


def main() -> int:
    """Simulate, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--frames", type=int, default=20_000_000, help="of every stream (default: 20,000,000)")
    options = parser.parse_args()
    begun = time.monotonic()
    record = {
        "what": "framegate.runtime.policy.drift, see benchmarks/cost/drift_scenes.py",
        "machine": circumstances(),
        "coverage": COVERAGE,
        "size": SIZE,
        "run_length_promised": RUN_LENGTH,
        "scenes": by_scene(options.frames),
        "no_rejection_seen": without_rejections(CALIBRATIONS, THEN),
    }
    print(f"{time.monotonic() - begun:.0f} s")
    return written(options.out, record, "bench_drift_scenes")


if __name__ == "__main__":
    sys.exit(main())
