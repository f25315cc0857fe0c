"""All verdicts on one frame, as a pipeline hands them to whoever reads, shows or records them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from framegate.runtime.roi import Roi
from framegate.runtime.verdict import Image, Prediction


def is_fixed(prediction: Prediction) -> bool:
    """Whether a verdict among those on objects is on a region with a name of its own, which nobody had to find."""
    return prediction.found is not None and prediction.found.fixed


@dataclass(frozen=True, slots=True)
class FrameResult:
    """All verdicts on one frame, or on the absence of one.

    Attributes:
        predictions: One per region, in the order given; with moving regions one per object, the surest first, and none
            where there is no object.
        image: The frame's pixels, as BGR, if the pipeline keeps them (``keep_frames``), else None.
        name: The frame's file name, if it has one.
        scene: With moving regions whether the frame could be looked at (the camera check, and whether it is known where
            objects are), which also says what it means that there is none. It has no label. Else None.
        left_out: With moving regions why boxes have no verdict (`framegate.runtime.regions.intake`) -> how many.
    """

    predictions: tuple[Prediction, ...]
    image: Image | None
    name: str
    scene: Prediction | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def first(self) -> Prediction:
        """What is there on every frame: the scene, or the first region."""
        return self.predictions[0] if self.scene is None else self.scene

    @property
    def verdicts(self) -> tuple[Prediction, ...]:
        """The scene, if there is one, and all predictions."""
        return self.predictions if self.scene is None else (self.scene, *self.predictions)

    @property
    def objects(self) -> int:
        """With moving regions: how many of the predictions are on objects, which somebody had to find."""
        return len(self.predictions) - self.fixed_regions

    @property
    def fixed_regions(self) -> int:
        """With moving regions: how many of the predictions are on fixed regions beside the objects."""
        return sum(map(is_fixed, self.predictions))

    def to_scene_json(self) -> dict[str, object]:
        """The record of the scene, and how many objects and fixed regions belong to it.

        Raises:
            ValueError: There is no scene.
        """
        if self.scene is None:
            raise ValueError("a frame without moving regions has no scene")
        counts = {"objects": self.objects, "regions": self.fixed_regions, "left_out": dict(self.left_out)}
        return self.scene.to_json() | counts

    def rois(self, fixed: tuple[Roi, ...]) -> tuple[Roi, ...]:
        """Where each of the predictions lies on this frame.

        Args:
            fixed: The pipeline's regions, for predictions that do not say it themselves.
        """
        if self.scene is None:
            return fixed
        return tuple(
            Roi(each.stream, *each.found.box, fractions=False) for each in self.predictions if each.found is not None
        )

    @property
    def has_frame(self) -> bool:
        """False for a report of silence, whose predictions are NO_FRAME or LATE and belong to no frame."""
        return self.first.frame_id >= 0
