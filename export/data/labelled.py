"""Data for a network, whoever trained it: a known data set, or a folder per label, in the order of its outputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from framegate.export.data.image_folder import NamedImages, is_image_folder, read_image_folder
from framegate.export.data.splits import Splits
from framegate.export.progress import Progress
from framegate.models import datasets
from framegate.models.labelled import LabelledImages, Labels
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.preprocess import PreprocessSpec

AUTO, NONE = "auto", "none"
LARGEST = 10_000
"""Images of a folder that are used, unless told otherwise: they lie in memory."""
_TRAIN, _CALIBRATION = 0.1, 0.6
"""Shares of a folder of images; the rest is for the test."""


def load_splits(
    place: Path, labels: tuple[str, ...], spec: PreprocessSpec, progress: Progress, group: str = AUTO
) -> Splits:
    """Images for INT8 ranges, calibration and test: disjoint, and the same in every run.

    Args:
        place: Folder or file with a known data set, or a folder with one folder per label. The network must not have
            been trained on the images that calibrate and test it.
        labels: The network's labels, in the order of its outputs.
        spec: How an image becomes the network's input.
        progress: Called during the work.
        group: Which images belong together (tracks, recordings), so that no unit is in two splits and calibration
            counts units: ``auto`` takes the data set's own tracks if it has any, ``none`` takes every image for
            itself, anything else is a regular expression for a folder's LABEL/FILE names, whose first group is the
            unit.

    Raises:
        DataError: There are no such data, or they have other labels.
        UsageError: The regular expression cannot be used.
    """
    if _is_folder(place):
        named = read_image_folder(place, labels, spec, LARGEST, progress)
        images = replace(named.images, groups=_units(named.names, group))
        parts = _cut(images)
        if not all(len(part) for part in parts):
            raise DataError(f"{place}: {len(images)} images; give at least a few hundred")
        train, calibration, test = (
            images.subset(part, name) for part, name in zip(parts, ("train", "calibration", "test"), strict=True)
        )
        return Splits(train, calibration, test, labels)
    data = _known(place, spec)
    _check_group(place, group)
    train, calibration = (
        _in_order(_ungrouped(split, group), data.labels, labels, place) for split in data.load_training(place)
    )
    return Splits(train, calibration, _in_order(data.load_test(place), data.labels, labels, place), labels)


def load_calibration(
    place: Path, labels: tuple[str, ...], spec: PreprocessSpec, progress: Progress, group: str = AUTO
) -> LabelledImages:
    """The calibration part of `load_splits`, without reading a known data set's test images.

    Raises:
        DataError: There are no such data, or they have other labels.
    """
    if _is_folder(place):
        return load_splits(place, labels, spec, progress, group).calibration
    data = _known(place, spec)
    _check_group(place, group)
    return _in_order(_ungrouped(data.load_training(place)[1], group), data.labels, labels, place)


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
    if _is_folder(place):
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
    return replace(split, groups=None) if group == NONE else split


def _is_folder(place: Path) -> bool:
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
    return LabelledImages(split.name, split.images, number[split.labels], split.groups)
