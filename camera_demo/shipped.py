"""What `framegate demo` shows when it is given nothing: the clip, bundle and regions that come with framegate."""

from __future__ import annotations

from pathlib import Path

from framegate.runtime.roi import Roi

CLIP = Path(__file__).resolve().parent / "clips" / "highway_1280x720_25fps.mp4"
BUNDLE = "hybrid-cifar10"
"""A name, see `framegate.runtime.bundle_search`."""
REGIONS = (
    Roi("black-car", 795, 385, 160, 130, fractions=False),
    Roi("white-car", 1000, 370, 270, 160, fractions=False),
    Roi("sky", 700, 20, 160, 130, fractions=False),
    Roi("road", 560, 500, 160, 130, fractions=False),
)
"""Two cars, and two things that the network was not trained to name."""
