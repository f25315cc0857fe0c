"""The data that a bundle is judged on: a known data set, or the user's own pictures, a folder per label."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path

from framegate.export.data.labelled import Place, TrainedOn, is_label_folder, load_splits, trained_on
from framegate.export.data.splits import Splits
from framegate.models import datasets
from framegate.models.datasets import DataSet
from framegate.models.labelled import LabelledImages
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.console import progress_bar, to_stderr
from framegate.runtime.errors import DataError, UsageError

OWN = "own-pictures"
"""What a report calls a folder of the user's own pictures."""


def data_for(place: Path, bundle: Bundle, name: str | None = None) -> DataSet:
    """The data at a place.

    A folder with one folder of pictures per label is divided as ``framegate export --unseen`` divides it, so that what
    calibrated the bundle calibrates here, and what was kept back is reported on.

    Args:
        place: A known data set, or a folder of pictures DIR/LABEL/IMAGE.
        bundle: Whose labels and input size the pictures of a folder get.
        name: Which known data set it is; None finds out.

    Raises:
        DataError: Neither lies there.
    """
    if name is not None:
        return datasets.dataset(name)
    if is_label_folder(place):
        return _own(place, bundle)
    try:
        return datasets.detect(place)
    except DataError as error:
        raise DataError(f"{error}; or a folder with one folder of pictures per label") from error


def training_of(data: DataSet, place: Path, bundle: Bundle) -> tuple[LabelledImages, LabelledImages]:
    """The data set's training and calibration split.

    Args:
        data: As `data_for` found it.
        place: Where it lies.
        bundle: Its record says which copy trained the network.

    Raises:
        DataError: It is another copy, or cannot be read.
    """
    train, calibration, known = _recorded(data, place, bundle)
    known.check(place, data.title, train, calibration)
    return train, calibration


def calibration_of(data: DataSet, place: Path, bundle: Bundle) -> LabelledImages:
    """The data set's calibration split; of another copy, too, which is said on standard error."""
    train, calibration, known = _recorded(data, place, bundle)
    if not known.is_copy(train, calibration):
        to_stderr(
            f"framegate: images {place}: another copy of {data.title} than the one that trained the network; some of "
            "its calibration images may have trained it, and figures that are fitted on them may be too good"
        )
    return calibration


def _recorded(data: DataSet, place: Path, bundle: Bundle) -> tuple[LabelledImages, LabelledImages, TrainedOn]:
    """Training and calibration split, and how the copy that trained the bundle's network is known, if this data did."""
    known = trained_on(bundle.origin, bundle.calibrations.values())
    return *data.load_training(place), known if known.data == data.name else TrainedOn()


def _own(place: Path, bundle: Bundle) -> DataSet:
    @cache
    def splits() -> Splits:
        known = [each for each in bundle.calibrations.values() if each.group]
        with progress_bar() as progress:
            if known:  # the same folder, divided otherwise, would report on images that calibrated
                with suppress(UsageError):  # the expression does not match: another folder
                    grouped = Place(place, group=known[0].group, unit=known[0].unit)
                    return load_splits(grouped, bundle.labels, bundle.preprocess, progress)
            return load_splits(Place(place), bundle.labels, bundle.preprocess, progress)

    def training(_: Path) -> tuple[LabelledImages, LabelledImages]:
        return splits().train, splits().calibration

    return DataSet(
        name=OWN,
        title=f"the folder {place.name}",
        labels=bundle.labels,
        depth=bundle.preprocess.depth,
        citation="",
        expected="a folder per label",
        archives=(),
        find=lambda path: path if is_label_folder(path) else None,
        read_training=training,
        read_test=lambda _: splits().test,
    )
