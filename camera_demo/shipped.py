"""What `framegate demo` shows when it is given nothing: the clip, its boxes and the bundle that come with framegate."""

from __future__ import annotations

from pathlib import Path

from framegate.camera_demo.clip_boxes import ClipBoxes
from framegate.runtime.regions.fixed import FixedRegions
from framegate.runtime.regions.together import TogetherRegions
from framegate.runtime.roi import Roi

CLIP = Path(__file__).resolve().parent / "clips" / "highway_1280x720_25fps.mp4"
BUNDLE = "hybrid-cifar10"
"""A name, see `framegate.runtime.bundle.search`."""
REGIONS = (
    Roi("black-car", 795, 385, 160, 130, fractions=False),
    Roi("white-car", 1000, 370, 270, 160, fractions=False),
    Roi("sky", 700, 20, 160, 130, fractions=False),
    Roi("road", 560, 500, 160, 130, fractions=False),
)
"""Two cars, and two things that the network was not trained to name: fixed rectangles, which the cars drive out of."""
BOXES = CLIP.with_suffix(".boxes.jsonl")
"""What a detector found on each frame of the clip."""
COUNTER_EXAMPLES = REGIONS[2:]
"""Regions that are judged beside the boxes: sky and road stay where they are."""
AGREEMENT = CLIP.with_suffix(".labels.json")
"""What the detector calls an object -> the classifier's labels that go with it; CIFAR-10 has no person and no train."""
AGREEING = frozenset({"automobile", "truck"})
"""The classifier's labels that it names; another classifier's are not compared."""


def shipped_giver() -> TogetherRegions:
    """The moving cars of the clip, and sky and road."""
    return TogetherRegions((ClipBoxes(BOXES), FixedRegions(COUNTER_EXAMPLES)))
