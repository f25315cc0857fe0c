"""Data for a network, whoever trained it: a known data set, or a folder per label, in the order of its outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from framegate.export.data.image_folder import NamedImages, is_image_folder, read_image_folder
from framegate.export.data.splits import Splits, check_disjoint
from framegate.export.progress import Progress
from framegate.models import datasets
from framegate.models.held_out import HeldOut, hold_out, watched
from framegate.models.labelled import LabelledImages, Labels, fingerprint
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.preprocess import PreprocessSpec

AUTO, NONE = "auto", "none"
TRAINING_RECORD, OFFICIAL_TEST, USER = "training record", "official test split", "user"
"""Who says that the network never saw the images that prove."""
LARGEST = 10_000
"""Images of a folder that are used, unless told otherwise: they lie in memory."""
_TRAIN, _CALIBRATION = 0.1, 0.6
"""Shares of a folder of images; the rest is for the test."""


@dataclass(frozen=True)
class TrainedOn:
    """The known data set that trained a network, its calibration split left out, and how the same copy is known again.

    Another copy (all tracks instead of half of them, other pixels) is divided otherwise, so its calibration split may
    hold what the network was trained on.

    Attributes:
        data: Its name; empty if nobody says so.
        apart: What trainings on it set apart.
        calibration: Fingerprints of its calibration split, as earlier calibrations of the network recorded them.
    """

    data: str = ""
    apart: frozenset[HeldOut] = frozenset()
    calibration: frozenset[str] = frozenset()

    def is_copy(self, train: LabelledImages, calibration: LabelledImages) -> bool:
        """Whether all records are of this copy; where there are none, any one is believed.

        Args:
            train: Its training split, labels as the data set numbers them.
            calibration: Its calibration split, labels as the network numbers them.
        """
        same = all(fingerprint(hold_out(train, each.share)[1]) == each.sha256 for each in self.apart)
        return same and (not self.calibration or fingerprint(calibration) in self.calibration)

    def check(self, where: Path, title: str, train: LabelledImages, calibration: LabelledImages) -> None:
        """Refuse another copy, see `is_copy`.

        Args:
            where: What to name in the error.
            title: Of the data set.
            train: See there.
            calibration: See there.

        Raises:
            DataError: It is another one.
        """
        if not self.is_copy(train, calibration):
            raise DataError(
                f"images {where}: another copy of {title} than the one that trained the network, and divided "
                "otherwise, so which of these images it has seen is not known; give that copy, or other images that it "
                "never saw"
            )


@dataclass(frozen=True)
class Place:
    """Where images lie, and what is known about them.

    Attributes:
        data: Folder or file with a known data set, or a folder with one folder per label; None if ``unseen`` is all.
        unseen: The same, with images that the network never saw, as the user says; None if nobody says so.
        group: Which images belong together (tracks, recordings), so that no unit is in two splits and calibration
            counts units: ``auto`` takes the data set's own tracks if it has any, ``none`` takes every image for
            itself, anything else is a regular expression for a folder's LABEL/FILE names, whose first group is the
            unit.
        unit: What a unit of the regular expression is called.
        trained_on: Known data set whose training split trained the network, and whose calibration split did not, as
            its checkpoint says.
    """

    data: Path | None
    unseen: Path | None = None
    group: str = AUTO
    unit: str = "track"
    trained_on: TrainedOn = TrainedOn()

    @property
    def first(self) -> Path:
        """What calibrates.

        Raises:
            UsageError: Nothing was given.
        """
        place = self.unseen if self.unseen is not None else self.data
        if place is None:
            raise UsageError(
                "no images were given; give --unseen DIR (images that the network never saw) or --data DIR"
            )
        return place


def trained_on(origin: Mapping[str, Any], calibrations: Iterable[Calibration] = ()) -> TrainedOn:
    """What a record says that the network was trained on.

    Args:
        origin: Of a bundle or a checkpoint.
        calibrations: Of the bundle.
    """
    training = origin.get("training")
    if not isinstance(training, Mapping) or not isinstance(training.get("data"), str):
        return TrainedOn()
    if training.get("start") and training.get("start_data", training["data"]) != training["data"]:
        return TrainedOn()  # begun with weights of which nobody says what they saw
    apart = watched(training)
    earlier = frozenset(each.fingerprint for each in calibrations if each.unseen == TRAINING_RECORD)
    return TrainedOn(training["data"], frozenset() if apart is None else frozenset({apart}), earlier)


def load_splits(place: Place, labels: tuple[str, ...], spec: PreprocessSpec, progress: Progress) -> Splits:
    """Images for INT8 ranges, calibration and test: disjoint, and the same in every run.

    Who says that calibration and test were never seen (`Splits.unseen`): the training record, if the network was
    trained by framegate on this known data set; ``official test split``, if it is a known data set and the network is a
    foreign one: then its test split is divided, and the training split sets INT8 ranges only; ``user``, if the images
    were given as unseen ones; nobody, if they are some folder.

    Args:
        place: Where they lie.
        labels: The network's labels, in the order of its outputs.
        spec: How an image becomes the network's input.
        progress: Called during the work.

    Raises:
        DataError: There are no such data, or they have other labels.
        UsageError: The regular expression cannot be used.
    """
    parts, unseen = _parts(place, place.first, labels, spec, progress)
    two = place.unseen is not None and place.data is not None
    if two:
        parts = [load_training(place, labels, spec, progress), *_unite(parts)]
    if not all(len(part) for part in parts):
        raise DataError(f"{place.first}: {sum(map(len, parts))} images; give at least a few hundred")
    train, calibration, test = parts
    splits = Splits(train, calibration, test, labels, unseen)
    if two:  # what is said to be unseen may lie among what trained
        check_disjoint(splits)
    return splits


def load_calibration(
    place: Place, labels: tuple[str, ...], spec: PreprocessSpec, progress: Progress
) -> tuple[LabelledImages, str]:
    """The calibration part of `load_splits`, without reading what is not needed, and who says that it was never seen.

    Raises:
        DataError: There are no such data, or they have other labels.
    """
    where = place.first
    if is_label_folder(where):
        splits = load_splits(place, labels, spec, progress)
        return splits.calibration, splits.unseen
    data = _known(where, spec)
    _check_group(where, place.group)
    if data.name == place.trained_on.data:
        train, calibration = data.load_training(where)
        split = _in_order(_ungrouped(calibration, place.group), data.labels, labels, where)
        place.trained_on.check(where, data.title, train, split)
        return split, TRAINING_RECORD
    test = _in_order(_ungrouped(data.load_test(where), place.group), data.labels, labels, where)
    return _halves(test)[0], USER if place.unseen is not None else OFFICIAL_TEST


def load_training(
    place: Place, labels: tuple[str, ...], spec: PreprocessSpec, progress: Progress, held_out: float = 0.0
) -> LabelledImages:
    """What trained the network: it sets INT8 ranges and proves nothing.

    Args:
        place: Where it lies.
        labels: The network's labels, in the order of its outputs.
        spec: How an image becomes the network's input.
        progress: Called during the work.
        held_out: Share of a known data set's training split that did not train (`with_held_out`) and is left out here.

    Raises:
        DataError: There are no such data, or they have other labels.
        UsageError: Only unseen images were given, or others than those of which some were held out.
    """
    if place.data is None:
        raise UsageError("INT8: no training images were given, whose activations set its ranges; give them as --data")
    if held_out and place.data != place.first:
        raise UsageError(
            f"INT8: what the training held out proves, and must set no ranges, but {place.data} and {place.first} are "
            "two places that may share images; give the data set that it was trained on as --data alone"
        )
    if is_label_folder(place.data):
        return replace(read_image_folder(place.data, labels, spec, LARGEST, progress).images, name="train")
    data = _known(place.data, spec)
    train = data.load_training(place.data)[0]
    if held_out:
        train = hold_out(train, held_out)[0]
    return _in_order(train, data.labels, labels, place.data)


def with_held_out(
    calibration: LabelledImages, place: Place, labels: tuple[str, ...], spec: PreprocessSpec, share: float
) -> LabelledImages:
    """A calibration split, and what a training run on the same data set held out, the same share of each label.

    Args:
        calibration: Of `load_calibration`.
        place: Where it lies.
        labels: The network's labels, in the order of its outputs.
        spec: How an image becomes the network's input.
        share: That the run held out (`framegate.models.held_out.hold_out`).

    Raises:
        DataError: There are no such data.
    """
    data = _known(place.first, spec)
    train = data.load_training(place.first)[0]
    held = hold_out(train, share)[1]
    assert held.sequence is not None
    # Of a rare label one unit is held out whatever the share; here it would count for more than it is worth.
    units = np.arange(len(train)) if train.groups is None else train.groups
    enough = [label for label in np.unique(train.labels) if round(len(np.unique(units[train.labels == label])) * share)]
    index = np.argsort(held.sequence)
    proving = held.subset(index[np.isin(held.labels[index], enough)], held.name)
    return _both(calibration, _in_order(_ungrouped(proving, place.group), data.labels, labels, place.first))


def _parts(
    place: Place, where: Path, labels: tuple[str, ...], spec: PreprocessSpec, progress: Progress
) -> tuple[list[LabelledImages], str]:
    """Training, calibration and test of one place, and who says that the last two were never seen."""
    if is_label_folder(where):
        named = read_image_folder(where, labels, spec, LARGEST, progress)
        images = _with_units(named.images, named.names, place)
        names = ("train", "calibration", "test")
        parts = [images.subset(part, name) for part, name in zip(_cut(images), names, strict=True)]
        return parts, USER if place.unseen is not None else ""
    data = _known(where, spec)
    _check_group(where, place.group)
    trained, calibration = data.load_training(where)
    train, calibration = (
        _in_order(_ungrouped(split, place.group), data.labels, labels, where) for split in (trained, calibration)
    )
    test = _in_order(_ungrouped(data.load_test(where), place.group), data.labels, labels, where)
    if data.name == place.trained_on.data:
        place.trained_on.check(where, data.title, trained, calibration)
        return [train, calibration, test], TRAINING_RECORD
    return [train, *_halves(test)], USER if place.unseen is not None else OFFICIAL_TEST


def _with_units(images: LabelledImages, names: Sequence[str], place: Place) -> LabelledImages:
    # In the order in which they are: the fingerprint, by which it is known how often they were asked, must not hang on
    # how they are grouped.
    groups = _units(names, place.group)
    return images if groups is None else replace(images, groups=groups, unit=place.unit, group=place.group)


def _unite(parts: list[LabelledImages]) -> list[LabelledImages]:
    """Calibration and test; what would have been for training calibrates, too."""
    train, calibration, test = parts
    if calibration.name != "calibration":  # of a known data set, whose training split was seen
        return [calibration, test]
    return [_both(train, calibration), test]


def _both(first: LabelledImages, second: LabelledImages) -> LabelledImages:
    """Two parts of one data set as a calibration split."""
    groups = None if first.groups is None or second.groups is None else np.append(first.groups, second.groups)
    sequence = None
    if first.sequence is not None and second.sequence is not None:
        sequence = np.append(first.sequence, second.sequence)
    return LabelledImages(
        "calibration", np.concatenate([first.images, second.images]), np.append(first.labels, second.labels),
        groups, second.unit, sequence, second.group,
    )  # fmt: skip


def _halves(test: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """A known data set's test split for a network of which only this is known: that it was not trained on it."""
    units = np.arange(len(test)) if test.groups is None else test.groups
    known = np.random.default_rng(0).permutation(np.unique(units))
    calibrates = np.isin(units, known[: len(known) // 2])
    return (
        test.subset(np.flatnonzero(calibrates), f"{test.name}, calibration half"),
        test.subset(np.flatnonzero(~calibrates), f"{test.name}, report half"),
    )


def load_comparison(
    place: Path, labels: tuple[str, ...], spec: PreprocessSpec, limit: int | None, progress: Progress
) -> NamedImages:
    """The images on which two engines are compared: a known data set's test split, or a whole folder.

    Args:
        place: As for `load_splits`.
        labels: The network's labels, in the order of its outputs.
        spec: How an image becomes the network's input.
        limit: At most so many, from the start; None takes all.
        progress: Called during the work.

    Raises:
        DataError: There are no such data, or they have other labels.
    """
    if is_label_folder(place):
        return read_image_folder(place, labels, spec, limit if limit is not None else LARGEST, progress)
    data = _known(place, spec)
    images = _in_order(data.load_test(place), data.labels, labels, place)
    images = images.subset(np.arange(len(images))[:limit], images.name)
    return NamedImages(images, ("",) * len(images))


def _units(names: Sequence[str], group: str) -> Labels | None:
    """(N,) unit of each file of a folder, None if each stands for itself."""
    if group in (AUTO, NONE):
        return None
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise UsageError(f"group: {group!r} is no regular expression ({error})") from error
    if not pattern.groups:
        raise UsageError(f"group: {group!r} has no group; put the part that names the unit in brackets: '(.+)_\\d+'")
    found = []
    for name in names:
        match = pattern.search(name)
        if match is None or match.group(1) is None:
            raise UsageError(f"group: {group!r} does not match {name!r}; every file needs a unit")
        found.append(match.group(1))
    return np.unique(np.array(found), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _cut(images: LabelledImages) -> list[Labels]:
    """Positions for training, calibration and test; a unit stays whole, in the order in which units come."""
    units = np.arange(len(images)) if images.groups is None else images.groups
    _, first, inverse = np.unique(units, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[inverse.reshape(-1)]  # of each image's unit, by first appearance
    cuts = [round(len(first) * share) for share in (_TRAIN, _TRAIN + _CALIBRATION)]
    return [
        np.flatnonzero((rank >= low) & (rank < high)) for low, high in zip((0, *cuts), (*cuts, len(first)), strict=True)
    ]


def _check_group(place: Path, group: str) -> None:
    if group not in (AUTO, NONE):
        raise UsageError(
            f"group: {group!r} was asked for, but {place} is a known data set with its own tracks or none; "
            f"give {AUTO} or {NONE}"
        )


def _ungrouped(split: LabelledImages, group: str) -> LabelledImages:
    return replace(split, groups=None, unit="") if group == NONE else split


def is_label_folder(place: Path) -> bool:
    """True if this is a folder per label and none of the known data sets (GTSRB is one folder per label, too)."""
    try:
        return not any(data.find(place) for data in datasets.DATASETS.values()) and is_image_folder(place)
    except OSError as error:
        raise DataError(f"{place}: cannot be looked at ({error.strerror})") from error


def _known(place: Path, spec: PreprocessSpec) -> datasets.DataSet:
    """The known data set that lies at a place."""
    try:
        data = datasets.detect(place)
    except DataError as error:
        raise DataError(f"{error}; or a folder with one folder of images per label") from error
    if data.depth != spec.depth:
        raise DataError(f"{data.title} has {data.depth} slices an image, the network takes {spec.depth}")
    return data


def _in_order(split: LabelledImages, names: tuple[str, ...], labels: tuple[str, ...], place: Path) -> LabelledImages:
    """The split with the numbers of the network's outputs."""
    if names == labels:
        return split
    missing = sorted(set(names) - set(labels))
    if missing:
        raise DataError(
            f"{place}: label {missing[0]!r} ({len(missing)} of {len(names)}) is none of the network's "
            f"{len(labels)} ({', '.join(labels[:3])}, ...); the labels must have the data set's names"
        )
    number = np.array([labels.index(name) for name in names], np.int64)
    return replace(split, labels=number[split.labels])
