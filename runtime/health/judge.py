"""From the measures of one frame to reasons why it must not be used."""

from __future__ import annotations

from framegate.runtime.health.content import Content
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.verdict import Reason

_LEAST_ZONES = 6
"""Zones with detail that a scene needs for their loss to mean anything."""


def judge_content(content: Content, limits: HealthThresholds, small: bool = False) -> dict[Reason, str]:
    """Reasons to reject a frame of this content, each with a sentence for people; empty if there is none.

    Every comparison is written so that NaN, a measure that could not be taken, rejects.

    Args:
        content: Measures of the frame.
        limits: What is still well.
        small: The image has too few blocks for anything but its light to be judged.
    """
    if not (content.mean > limits.black_mean or content.std > limits.black_std):
        return {Reason.BLACK: ""}  # without light there is nothing else to judge
    if not content.saturated < limits.saturated_share:
        return {Reason.SATURATED: f"{content.saturated:.0%} of the pixels at the end of the range"}
    if small:
        return {}
    if not content.missing < limits.missing_rows:
        return {Reason.TORN: f"{content.missing:.0%} of the rows repeat the row above"}
    found: dict[Reason, str] = {}
    if content.lost:
        found[Reason.COLOUR_LOST] = f"channel {content.lost}"
    elif limits.colour and not content.coloured:
        found[Reason.COLOUR_LOST] = "the frame is grey, the camera is not"
    if not content.contrast >= limits.contrast:
        found[Reason.LOW_CONTRAST] = f"contrast {content.contrast:.2g} levels, expected {limits.contrast:.2g}"
        return found
    return found | judge_detail(content, limits)


def judge_detail(content: Content, limits: HealthThresholds) -> dict[Reason, str]:
    """As `judge_content`, for what is left of contrast, sharpness and noise where there is light."""
    found: dict[Reason, str] = {}
    if not content.detail >= limits.detail:
        found[Reason.LOW_CONTRAST] = f"detail {content.detail:.2g} levels, expected {limits.detail:.2g}"
    had = [(now, known) for now, known in zip(content.zones, limits.zones, strict=False) if known >= 1.0]
    lost = sum(not now >= limits.zone_fall * known for now, known in had)
    if len(had) >= _LEAST_ZONES and lost >= limits.zone_share * len(had):
        found[Reason.LOW_CONTRAST] = f"{lost} of {len(had)} zones of the frame lost their detail"
    if not content.sharpness >= limits.sharpness:
        found[Reason.BLURRED] = f"sharpness {content.sharpness:.2g}, expected {limits.sharpness:.2g}"
    if not content.noise <= limits.noise:
        found[Reason.NOISY] = f"noise {content.noise:.2g} levels, expected at most {limits.noise:.2g}"
    elif not content.blockiness <= limits.blockiness:
        found[Reason.NOISY] = f"blockiness {content.blockiness:.2g}, expected at most {limits.blockiness:.2g}"
    return found
