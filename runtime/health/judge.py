"""From the measures of one frame to reasons why it must not be used."""

from __future__ import annotations

import math

from framegate.runtime.health.content import Content
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.verdict import Reason

_DIM = 32.0
"""Mean in levels below which less contrast is asked for also where the usual light is not known."""
_LEAST_CONTRAST = 2.5
"""In levels; so much is asked for in any light that is not dim, whatever was learnt."""
_LESS_LIGHT = 0.75
_LEAST_ZONES = 6
"""Zones with detail that a scene needs for their loss to mean anything."""


def is_dark(content: Content, limits: HealthThresholds) -> bool:
    """Whether the frame is so dark that `Content.structure` decides."""
    return not (content.mean > limits.black_mean or content.std > limits.black_std)


def share_of_light(content: Content, limits: HealthThresholds) -> float:
    """The light of a frame as a part, at most 1, of what the limits were learnt in; 1 if one of them is not known.

    A quarter less is what scenes differ by, and counts as the same light.
    """
    if not limits.light > 0.0 or math.isnan(content.light):
        return 1.0
    return min(1.0, content.light / (_LESS_LIGHT * limits.light))


def _least_contrast(content: Content, limits: HealthThresholds) -> float:
    """The contrast that a frame must have, in levels, in its own light."""
    dim = min(1.0, content.mean / _DIM)
    share = share_of_light(content, limits) if limits.light > 0.0 else dim
    return max(limits.contrast * share, min(limits.contrast, _LEAST_CONTRAST) * dim)


def judge_content(content: Content, limits: HealthThresholds, small: bool = False) -> dict[Reason, str]:
    """Reasons to reject a frame of this content, each with a sentence for people; empty if there is none.

    Every comparison is written so that NaN, a measure that could not be taken, rejects.

    Args:
        content: Measures of the frame.
        limits: What is still healthy.
        small: The image has too few blocks for anything but its light to be judged.
    """
    if is_dark(content, limits) and not content.structure > limits.black_structure:
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
    expected = _least_contrast(content, limits)
    if not content.contrast >= expected:
        found[Reason.LOW_CONTRAST] = f"contrast {content.contrast:.2g} levels, expected {expected:.2g}"
        return found
    return found | judge_detail(content, limits)


def judge_detail(content: Content, limits: HealthThresholds) -> dict[Reason, str]:
    """As `judge_content`, for what is left of contrast, sharpness and noise where there is light."""
    found: dict[Reason, str] = {}
    light = share_of_light(content, limits)
    if not content.detail >= limits.detail * light:
        found[Reason.LOW_CONTRAST] = f"detail {content.detail:.2g} levels, expected {limits.detail * light:.2g}"
    had = [(now, known) for now, known in zip(content.zones, limits.zones, strict=False) if known >= 1.0]
    lost = sum(not now >= limits.zone_fall * light * known for now, known in had)
    if len(had) >= _LEAST_ZONES and lost >= limits.zone_share * len(had):
        found[Reason.LOW_CONTRAST] = f"{lost} of {len(had)} zones of the frame lost their detail"
    if not content.sharpness >= limits.sharpness:
        found[Reason.BLURRED] = f"sharpness {content.sharpness:.2g}, expected {limits.sharpness:.2g}"
    if not content.noise <= limits.noise:
        found[Reason.NOISY] = f"noise {content.noise:.2g} levels, expected at most {limits.noise:.2g}"
    elif not content.blockiness <= limits.blockiness:
        found[Reason.NOISY] = f"blockiness {content.blockiness:.2g}, expected at most {limits.blockiness:.2g}"
    return found
