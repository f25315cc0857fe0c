"""Is the camera itself healthy? Checks that need no network.

Absolute limits hold for every image; limits relative to the stream's own start, frozen and torn content for cameras
only; a volume is judged by size, light and frozen content alone.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from framegate.runtime.health.content import Content, structure
from framegate.runtime.health.frozen import HISTORY, RecentFrames
from framegate.runtime.health.judge import is_dark, judge_content
from framegate.runtime.health.learning import Learner
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.health.volume import VolumeHealth
from framegate.runtime.native.fast_path import Counting
from framegate.runtime.pixel_format import nv12_problem, nv12_rows
from framegate.runtime.verdict import BGR, NO_FINDINGS, NV12, Findings, Image, Reason

MIN_SIDE = 16
"""Smaller regions (pixels) carry too little to classify."""
ROWS = 32
MAX_STEP = 32
"""Every so many rows of a frame are looked at that there are about 32, at most every 32nd."""
SMALL = 120
"""Of images with a shorter side (pixels) only light and exact repetition are judged: they have too few blocks."""


def unusable(image: object, depth: int = 1) -> str:
    """Why this image cannot be classified at all, or an empty string.

    Args:
        image: What came as pixels.
        depth: Slices that it must be a column of, for volumes.
    """
    if not isinstance(image, np.ndarray):
        return f"expected a (height, width, 3) uint8 BGR array, got {type(image).__name__}"
    if image.ndim != 3 or image.shape[2] != 3:
        shape = "x".join(map(str, image.shape))
        return f"expected a colour image (height, width, 3), got shape {shape}"
    if image.dtype != np.uint8:
        return f"expected 8-bit pixels (uint8), got {image.dtype}"
    if min(image.shape[:2]) < MIN_SIDE:
        return f"expected at least {MIN_SIDE}x{MIN_SIDE} pixels, got {image.shape[1]}x{image.shape[0]}"
    if depth > 1 and (image.shape[0] % depth or image.shape[0] // depth < MIN_SIDE):
        return (
            f"expected {depth} slices of equal height, at least {MIN_SIDE} pixels, one below the other, "
            f"got {image.shape[1]}x{image.shape[0]}"
        )
    return ""


def _row_step(height: int) -> int:
    """Every so many rows of a frame of this height are looked at."""
    return max(1, min(MAX_STEP, height // ROWS))


def _unusable_nv12(image: Image) -> str:
    problem = nv12_problem(image)
    if not problem and min(image.shape[0] * 2 // 3, image.shape[1]) < MIN_SIDE:
        size = f"{image.shape[1]}x{image.shape[0] * 2 // 3}"
        problem = f"expected at least {MIN_SIDE}x{MIN_SIDE} pixels, got {size}"
    return problem


def _coloured(image: Image) -> Image:
    """A view of a grey image as one with three equal channels; anything else as it is."""
    if not isinstance(image, np.ndarray) or image.ndim != 2:
        return image
    return np.broadcast_to(image[:, :, None], (*image.shape, 3))


class CameraHealth:
    """Judges whole frames of one stream, in the order of capture; keeps what it needs of the last few.

    Args:
        frame_size: (width, height) that every frame must have; None: the first usable frame decides.
        fixed_size: False for unrelated images, which may differ in size (a folder of photographs): then only the
            absolute limits apply, and nothing is compared with other frames.
        thresholds: The limits; None: `HealthThresholds()`.
        grey: Images may also be (height, width) uint8: the network takes grey ones.
        volume: Images are columns of slices of a volume.
    """

    def __init__(
        self,
        frame_size: tuple[int, int] | None = None,
        fixed_size: bool = True,
        thresholds: HealthThresholds | None = None,
        *,
        grey: bool = False,
        volume: bool = False,
    ) -> None:
        limits = thresholds or HealthThresholds()
        self._expected = frame_size
        self._begun: Image | None = None
        self._alike: tuple[tuple[int, ...], tuple[int, ...]] = (), ()  # shape and strides of what can be begun at once
        self._row_bytes = 0
        self._admitted: tuple[int, ...] = ()  # the shape of a camera's frames
        self._fixed = fixed_size
        self._grey = grey
        self._learner = Learner(limits)
        self._recent = RecentFrames(limits.still, HISTORY if fixed_size else 0)
        self._volumes = VolumeHealth(limits, compare=fixed_size) if volume else None
        self._content: Content | None = None
        self._looked = False

    @property
    def content(self) -> Content | None:
        """Measures of the last camera frame or image that was judged, None before that."""
        return self._content if self._content is not None or not self._looked else self._recent.content

    @property
    def limits(self) -> HealthThresholds:
        """The limits in force now: what was given, then what was learnt from the stream's first good frames."""
        return self._learner.limits

    def check(self, image: Image, pixel_format: str = BGR) -> Findings:
        """`admit`, and `inspect` where that finds nothing."""
        refused = self.admit(image, pixel_format)
        return refused or self.inspect(image, pixel_format)

    def admit(self, image: Image, pixel_format: str = BGR) -> Findings:
        """Reasons not even to show this frame to a network: its format and size.

        Args:
            image: The whole frame.
            pixel_format: Of the image.
        """
        try:
            known = type(image) is np.ndarray and image.shape == self._admitted and image.dtype == np.uint8
            if known and pixel_format == BGR:
                return NO_FINDINGS
            return self._refuse(image, pixel_format)
        except Exception as error:  # noqa: BLE001 - whatever a strange image provokes must end in REJECT
            return {Reason.BAD_INPUT: f"health check failed: {error}"}

    def prepare(self) -> None:
        """Start the thread that helps this check before the first frame, so that real-time tuning finds it."""
        if self._expected is not None and self._volumes is None:
            width, height = self._expected
            self._recent.prepare(-(-height // _row_step(height)), width)

    def attend(self) -> None:
        """Help with the frame that `begin` is asked for next, for a moment.

        By the thread that hands frames over: waking another one would take longer than what it does.
        """
        self._recent.attend()

    def close(self) -> None:
        """End the thread that helps this check; its frames are then judged without."""
        self._recent.close()

    def begin(self, image: Image, pixel_format: str = BGR) -> bool:
        """Begin to look at an admitted frame on another core; `inspect` of the same image must follow.

        True if that was possible: then it is worth asking `inspect` late. Nothing is found here, and nothing raised.

        Args:
            image: The whole frame, which must stay as it is.
            pixel_format: Of the image.
        """
        self.forget_begun()
        try:
            alike = pixel_format == BGR and (image.shape, image.strides) == self._alike
            if alike and self._recent.begin_again(image, self._row_bytes):
                self._begun = image
                return True
            if pixel_format != BGR or image.ndim != 3 or self._volumes is not None or not self._fixed:
                return False  # images of all sizes are no stream that a thread would be worth
            rows = image[:: _row_step(image.shape[0])]
            if self._recent.begin(rows, self._fixed):
                self._begun = image
                self._alike, self._row_bytes = (image.shape, image.strides), rows.strides[0]
        except Exception:  # noqa: BLE001 - `inspect` will meet the same, and say it
            return False
        return self._begun is not None

    def counting(self, image: Image) -> Counting | None:
        """What counts frames like this one in compiled code; None where `announce` would find nothing.

        Args:
            image: A frame for which `begin` returned True.
        """
        if (image.shape, image.strides) != self._alike or min(image.shape[:2]) < SMALL or self._learner.is_learning:
            return None
        found = self._recent.counting()
        if found is None:
            return None
        beside, job, keep, still, memory = found
        return Counting(beside, job, self._row_bytes, still, keep, memory)

    def announce(self, image: Image, memory: object) -> tuple[int, int, int] | None:
        """`begin` for whoever starts the counting himself, in compiled code; `inspect` must follow.

        None, and nothing begun, where that is not for this memory.

        Args:
            image: The whole frame, like the one that `counting` was asked for; it must stay as it is.
            memory: From `counting`.

        Returns:
            See `framegate.runtime.native.fast_path.Check.announce`.
        """
        self.forget_begun()
        if self._learner.is_learning:
            return None
        slots = self._recent.announce(image, memory, self._learner.limits)
        if slots is not None:
            self._begun = image
        return slots

    def forget_begun(self) -> None:
        """What was begun or announced will not be asked for."""
        if self._begun is not None:
            self._recent.forget_begun()
            self._begun = None

    def saw_good(self) -> None:
        """Learn from the frame that was announced, in place of `inspect`: compiled code found nothing against it."""
        self._begun = self._content = None
        self._looked = True
        self._recent.saw_good()

    def inspect(self, image: Image, pixel_format: str = BGR) -> Findings:
        """Reasons to reject an admitted frame for what it shows. It takes longer, and no network need wait for it.

        Args:
            image: The whole frame.
            pixel_format: Of the image. Of NV12 only the rows that are looked at are converted.
        """
        begun, self._begun = self._begun, None
        if begun is not image:
            self._recent.forget_begun()
        try:
            quick = begun is image and not self._learner.is_learning  # begun: a colour frame of a camera
            if quick and self._recent.is_good(self._learner.limits, min(image.shape[:2]) < SMALL):
                self._content, self._looked = None, True
                return NO_FINDINGS
            return self._inspect(image, pixel_format)
        except Exception as error:  # noqa: BLE001 - see `admit`
            return {Reason.BAD_INPUT: f"health check failed: {error}"}

    def _refuse(self, image: Image, pixel_format: str) -> Findings:
        if pixel_format == NV12:
            problem = _unusable_nv12(image)
        elif pixel_format != BGR:
            problem = f"pixel format is {pixel_format!r}; expected {BGR} or {NV12}"
        else:
            problem = unusable(_coloured(image) if self._grey else image)
        if problem:
            return {Reason.BAD_INPUT: problem}
        height, width = image.shape[:2]
        if pixel_format == NV12:
            height = height * 2 // 3
        if self._fixed:
            if self._expected is None:
                self._expected = (width, height)
            elif (width, height) != self._expected:
                return {Reason.WRONG_SIZE: f"{width}x{height}, the stream is {self._expected[0]}x{self._expected[1]}"}
            if pixel_format == BGR:
                self._admitted = image.shape
        return NO_FINDINGS

    def _inspect(self, image: Image, pixel_format: str) -> Findings:
        height, width = image.shape[:2]
        if self._volumes is not None:
            whole = image if pixel_format == BGR else cv2.cvtColor(image, cv2.COLOR_YUV2BGR_NV12)
            return self._volumes.check(whole)
        if pixel_format == NV12:
            height = height * 2 // 3
        step = _row_step(height)
        if pixel_format == NV12:
            step = max(2, step - step % 2)  # chroma belongs to pairs of rows
            rows = nv12_rows(image, step)
        else:
            rows = image[::step] if image.ndim == 3 else cv2.cvtColor(image[::step], cv2.COLOR_GRAY2BGR)
        return self._check_camera(rows, step, min(height, width) < SMALL)

    def _check_camera(self, sampled: Image, step: int, small: bool) -> Findings:
        self._recent.take(sampled)
        self._content, self._looked = None, True
        limits = self._learner.limits
        learning = not self._fixed or self._learner.is_learning
        if not learning and self._recent.healthy(limits, small):
            found: dict[Reason, str] = {}
        else:
            found = self._judge_content(limits, step, small, learning)
        if self._fixed:
            frozen, torn = self._recent.repeats(small)
            if torn and not {Reason.BLACK, Reason.SATURATED} & found.keys():  # white rows are all alike
                found.setdefault(Reason.TORN, "rows repeat those of an earlier frame")
            if frozen:
                found[Reason.FROZEN] = ""
            if not found:
                self._recent.learn()
                if learning:
                    self._learner.learn(self.content or self._recent.content)
        return found

    def _judge_content(self, limits: HealthThresholds, step: int, small: bool, learning: bool) -> dict[Reason, str]:
        content = self._recent.content
        if is_dark(content, limits):
            content = content._replace(structure=structure(self._recent.rows, step))
        if learning:
            content = content._replace(light=self._recent.light())
        found = judge_content(content, limits, small)
        if Reason.LOW_CONTRAST in found and limits.light > 0.0 and math.isnan(content.light):
            # Measured only where it may excuse something: it takes longer than all the counting.
            content = content._replace(light=self._recent.light())
            found = judge_content(content, limits, small)
        self._content = content
        return found
