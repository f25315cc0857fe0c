"""Options of ``framegate run`` and ``framegate demo`` about regions that move."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path

from framegate.runtime.errors import UsageError
from framegate.runtime.policy.track import TrackRule
from framegate.runtime.regions.base import MAX_OBJECTS, RegionGiver
from framegate.runtime.regions.detector import DetectorRegions
from framegate.runtime.regions.fixed import FixedRegions
from framegate.runtime.regions.judge import DEFAULT_RULE, Objects
from framegate.runtime.regions.label_map import LabelMap
from framegate.runtime.regions.open import open_regions
from framegate.runtime.regions.together import TogetherRegions
from framegate.runtime.regions.tracker import OverlapTracker
from framegate.runtime.roi import parse_rois


def add_object_options(parser: argparse.ArgumentParser) -> None:
    """Options that say where objects are, and how they are followed."""
    group = parser.add_argument_group("objects", "regions that move, and a verdict for each (docs/objects.md)")
    group.add_argument(
        "--objects",
        metavar="GIVER",
        help="judge the objects that GIVER finds: a detector bundle, boxes in FILE.jsonl or FILE.mcap, or a named pipe "
        "that they come through; regions of --roi are judged beside them (default: the fixed regions alone)",
    )
    group.add_argument(
        "--max-objects",
        type=int,
        metavar="N",
        help=f"objects of a frame that are judged at most, 1 to {MAX_OBJECTS}, the surest first; what is beyond is "
        f"counted and reported (default: {MAX_OBJECTS})",
    )
    group.add_argument(
        "--track-rule",
        metavar="M/N/K",
        help="an object is used when M of its last N frames were accepted and its last K accepted labels are equal; "
        f"'none' judges every frame alone (default: {DEFAULT_RULE})",
    )
    group.add_argument(
        "--label-map",
        type=Path,
        metavar="FILE.json",
        help="what the detector calls an object -> the classifier's labels that go with it; any other label is "
        "NO_AGREEMENT (default: nothing is compared)",
    )


def objects_of(
    arguments: argparse.Namespace, labels: Collection[str], giver: RegionGiver | None = None
) -> Objects | None:
    """What `add_object_options` collected; None if no objects are judged.

    Args:
        arguments: Of the command line.
        labels: The classifier's.
        giver: Says where objects are, in place of ``--objects``; with regions of its own beside them.

    Raises:
        UsageError: The options do not fit together.
        FramegateError: The giver of regions, or the label map, cannot be opened.
    """
    if arguments.objects is None and giver is None:
        for name in ("max_objects", "track_rule", "label_map"):
            if getattr(arguments, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} is for moving objects: give --objects, or leave it out")
        return None
    most = MAX_OBJECTS if arguments.max_objects is None else arguments.max_objects
    if not 1 <= most <= MAX_OBJECTS:
        raise UsageError(f"--max-objects {most}: expected 1 to {MAX_OBJECTS}")
    follow = arguments.track_rule != "none"
    rule = TrackRule.parse(arguments.track_rule) if follow and arguments.track_rule is not None else DEFAULT_RULE
    names = None if arguments.label_map is None else LabelMap.load(arguments.label_map, labels)
    if giver is None:
        loop = getattr(arguments, "loop", not getattr(arguments, "once", True))
        giver = open_regions(arguments.objects, loop=loop, trust=arguments.trust)
        if names is not None:
            _require_known(names, giver)
        if arguments.roi:  # judged beside them, in the same engine call
            giver = TogetherRegions((giver, FixedRegions(parse_rois(arguments.roi))))
    return Objects(giver, most, OverlapTracker() if follow else None, rule if follow else TrackRule(), names)


def _require_known(names: LabelMap, giver: RegionGiver) -> None:
    """Refuse a map that names an object as this detector never does: what it rules out would not be ruled out.

    Raises:
        UsageError: It does.
    """
    if not isinstance(giver, DetectorRegions):  # others do not say beforehand what they call objects
        return
    unknown = sorted(set(names.detected) - set(giver.labels))
    if unknown:
        raise UsageError(
            f"--label-map: the detector {giver.name} calls nothing {unknown[0]!r}, so that nothing would be compared; "
            f"it has {', '.join(giver.labels)}"
        )
