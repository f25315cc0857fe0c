"""What a policy costs in time: the worst-case delays of its debounce, windows and drift alarm, for people and JSON."""

from __future__ import annotations

from typing import Any

from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.policy.debounce import HARD
from framegate.runtime.policy.drift import RUN_LENGTH, SIMULATED
from framegate.runtime.policy.stream import Policy


def _of_scenes(policy: Policy) -> str:
    """What the simulation says of scenes that are longer than the blocks."""
    if policy.scene_frames:
        return f" (scenes of {policy.scene_frames} frames)"
    said = ", ".join(f"{SIMULATED[scene]:,} for scenes of {scene}" for scene in sorted(SIMULATED))
    return f"; in simulation about {said} frames (--scene-frames makes the blocks follow the scenes)"


def policy_record(
    policy: Policy, calibration: Calibration | None, fps: float | None, sequence: bool = True
) -> dict[str, Any]:
    """The delays in frames, and in ms at ``fps`` (null without).

    Args:
        policy: The user's rules.
        calibration: Its windowed limits and whether drift can be judged.
        fps: Frames per second that are judged; None if unknown.
        sequence: Frames follow each other in time; unrelated images have no windows.
    """

    def ms(frames: int) -> float | None:
        return round(frames * 1000.0 / fps, 1) if fps else None

    windows = [limit for limit in calibration.limits if limit.frames > 1] if calibration and sequence else []
    drift = policy.drift and calibration is not None
    return {
        "fps": fps,
        "warm_up_frames": policy.warm_up,
        "warm_up_ms": ms(policy.warm_up),
        "debounce": {
            reason.value: {
                "m": rule.m,
                "n": rule.n,
                "k": rule.k,
                "delay_frames": rule.delay,
                "delay_ms": ms(rule.delay),
                "longest_delay_frames": rule.longest_delay,
                "longest_delay_ms": ms(rule.longest_delay),
                "hold_frames": rule.hold,
                "hold_ms": ms(rule.hold),
            }
            for reason, rule in policy.debounce.items()
        },
        "windows": [
            {"signal": limit.signal, "frames": limit.frames, "longest_delay_ms": ms(limit.frames)} for limit in windows
        ],
        "drift": {"block_frames": policy.drift_block, "run_length_frames": RUN_LENGTH} if drift else None,
    }


def policy_lines(
    policy: Policy, calibration: Calibration | None, fps: float | None, sequence: bool = True
) -> list[str]:
    """The same in sentences."""

    def time(frames: int) -> str:
        unit = "frame" if frames == 1 else "frames"
        return f"{frames} {unit} ({frames * 1000.0 / fps:.0f} ms at {fps:g} fps)" if fps else f"{frames} {unit}"

    lines = []
    if not policy.debounce:
        lines.append("debounce: none; every reason rejects at once (0 frames, 0 ms) and ends at once")
    for reason, rule in policy.debounce.items():
        if reason in HARD or rule.m == 1:
            begins = "rejects at once"
        else:
            begins = (
                f"rejects when {rule.m} of the last {rule.n} frames have it: a lasting fault is let through for "
                f"{time(rule.delay)}, a flickering one {rule.m - 1} times in any {rule.n} frames, and the rejection "
                f"follows the first such frame by {time(rule.longest_delay)} at worst"
            )
        ends = "ends at once" if rule.k == 1 else f"{time(rule.hold)} without it are still rejected"
        lines.append(f"debounce {reason}: {begins}; {ends}")
    if policy.warm_up:
        lines.append(f"warm-up: the first {time(policy.warm_up)} of every region are rejected")
    windows = [limit for limit in calibration.limits if limit.frames > 1] if calibration and sequence else []
    lines += [
        f"window: the mean of {limit.signal} is judged from the frame on that fills {time(limit.frames)}; "
        "a lasting shift beyond its limit is seen within as many"
        for limit in windows
    ]
    if policy.drift and calibration is not None:
        lines.append(
            f"drift: judged every {time(policy.drift_block)}; on average at least {RUN_LENGTH:,} frames to a false "
            f"alarm while blocks of {policy.drift_block} frames are independent and like the calibration images"
            f"{_of_scenes(policy)}"
        )
    if any((policy.debounce, policy.warm_up, windows)):
        lines.append("frames above are frames judged: dropped ones lengthen every delay")
    return lines
