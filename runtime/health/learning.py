"""What this camera's frames are like when it is healthy: learnt at the start of a stream, or in a calibration run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import CalibrationError
from framegate.runtime.health.content import Content, is_measured
from framegate.runtime.health.judge import judge_content, judge_detail, share_of_light
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.verdict import Reason

FEWEST_FRAMES = 30
"""Frames that a calibration run needs."""
_MARGIN = 1.25
"""A calibrated limit lies at least this factor beyond the worst frame of the run."""


class Learner:
    """Turns relative thresholds into absolute ones after the first good frames of a stream.

    The absolute limits stay in force before, during and after: a camera that starts blurred, covered or noisy beyond
    them is rejected and nothing is learnt from it. Within them the start counts as normal: a camera that starts
    slightly blurred is only found by limits from a calibration run.

    What was learnt is not changed later, so that a lens which fogs up slowly is not followed. It describes the camera
    and not the scene: contrast and detail are compared in proportion to the light (`HealthThresholds.light`), so that
    dusk and a tunnel are no loss of them. What else changes for good, a night mode without colour or the noise of a
    high gain, is rejected until the stream is opened again; a calibration run over day and night prevents that.

    Attributes:
        limits: The limits in force now.
    """

    def __init__(self, thresholds: HealthThresholds) -> None:
        self.limits = thresholds
        self._seen: list[Content] = []
        self._missing = thresholds.learn_frames

    @property
    def is_learning(self) -> bool:
        """Whether the next good frame will be learnt from."""
        return self._missing > 0

    def learn(self, content: Content) -> None:
        """Take one frame in which nothing was found."""
        if self._missing <= 0 or not is_measured(content):
            return
        self._seen.append(content)
        self._missing -= 1
        if self._missing == 0:
            self.limits = learnt(self.limits, self._seen)
            self._seen = []


def learnt(base: HealthThresholds, frames: Sequence[Content]) -> HealthThresholds:
    """Absolute limits from frames of a healthy camera: the stricter of `base` and what is relative to their medians.

    Args:
        base: Absolute limits that stay, and how far from normal is too far.
        frames: At least one, every measure finite.
    """
    saturated, contrast, detail, sharp, noise, blocks = _columns(frames)
    return replace(
        base,
        light=_light(base, frames),
        detail=max(base.detail, base.detail_fall * float(np.median(detail))),
        zones=tuple(np.median([content.zones for content in frames], axis=0).tolist()),
        saturated_share=min(base.saturated_share, float(np.median(saturated)) + base.saturated_rise),
        contrast=max(base.contrast, base.contrast_fall * float(np.median(contrast))),
        sharpness=max(base.sharpness, base.sharpness_fall * float(np.median(sharp))),
        noise=min(base.noise, base.noise_rise * float(np.median(noise)) + 1.0),
        blockiness=min(base.blockiness, base.blockiness_rise * max(float(np.median(blocks)), 1.0)),
        colour=base.colour if base.colour is not None else any(content.coloured for content in frames),
        learn_frames=0,
    )


def calibrated(base: HealthThresholds, frames: Sequence[Content]) -> HealthThresholds:
    """Limits from a calibration run: as `learnt`, but wide enough for every frame of the run, with a margin.

    Args:
        base: Absolute limits that stay in force, and how far from normal is too far.
        frames: Frames of the healthy camera, under all the light and weather it is meant for.

    Raises:
        CalibrationError: Fewer than 30 frames within the absolute limits of `base`.
    """
    good = [content for content in frames if is_measured(content) and not judge_content(content, base)]
    if len(good) < FEWEST_FRAMES:
        raise CalibrationError(
            f"calibration of the camera's health: {len(good)} of {len(frames)} frames lie within the absolute limits; "
            f"expected at least {FEWEST_FRAMES}; give more frames of the healthy camera"
        )
    strict = learnt(base, good)
    saturated, contrast, detail, sharp, noise, blocks = _columns(good)
    light = np.array([share_of_light(content, strict) for content in good])
    lost = [content for content in good if Reason.LOW_CONTRAST in judge_detail(content, replace(strict, detail=0.0))]
    return replace(
        strict,
        detail=max(base.detail, min(strict.detail, float((detail / light).min()) / _MARGIN)),
        # Where healthy frames differ so much between zones, zones tell nothing.
        zones=() if lost else strict.zones,
        saturated_share=min(base.saturated_share, max(strict.saturated_share, _MARGIN * float(saturated.max()))),
        contrast=max(base.contrast, min(strict.contrast, float((contrast / light).min()) / _MARGIN)),
        sharpness=max(base.sharpness, min(strict.sharpness, float(sharp.min()) / _MARGIN)),
        noise=min(base.noise, max(strict.noise, _MARGIN * float(noise.max()))),
        blockiness=min(base.blockiness, max(strict.blockiness, _MARGIN * float(blocks.max()))),
    )


def _light(base: HealthThresholds, frames: Sequence[Content]) -> float:
    light = float(np.median([content.light for content in frames]))
    return light if math.isfinite(light) else base.light


def _columns(frames: Sequence[Content]) -> tuple[npt.NDArray[np.float64], ...]:
    return tuple(
        np.array([getattr(content, name) for content in frames], np.float64)
        for name in ("saturated", "contrast", "detail", "sharpness", "noise", "blockiness")
    )
