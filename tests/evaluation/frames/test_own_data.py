"""A folder of one's own pictures is data to be judged on, divided as the export divides it."""

from __future__ import annotations

from types import SimpleNamespace

import foreign_onnx
import numpy as np
import pytest

from framegate.evaluation.frames.own_data import OWN, calibration_of, data_for, training_of
from framegate.export.data.labelled import TRAINING_RECORD, Place, load_splits
from framegate.models.labelled import LabelledImages, fingerprint
from framegate.runtime.errors import DataError
from framegate.runtime.preprocess import PreprocessSpec


@pytest.fixture
def bundle():
    spec = PreprocessSpec(20, 20, "area", "stretch", "rgb", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return SimpleNamespace(labels=foreign_onnx.LABELS, preprocess=spec, calibrations={}, origin={})


def test_what_calibrates_a_bundle_calibrates_its_report_and_the_rest_is_reported_on(bundle, tmp_path, capsys):
    foreign_onnx.write_photographs(tmp_path / "photos", 60)
    place = tmp_path / "photos"
    data = data_for(place, bundle)
    assert (data.name, data.labels, data.depth) == (OWN, foreign_onnx.LABELS, 1)
    train, calibration = data.load_training(place)
    test = data.load_test(place)
    exported = load_splits(Place(None, unseen=place), bundle.labels, bundle.preprocess, lambda *_: None)
    assert np.array_equal(calibration.images, exported.calibration.images)
    assert np.array_equal(test.images, exported.test.images)
    assert len(train) + len(calibration) + len(test) == 60


def test_a_folder_without_pictures_and_one_of_other_labels_are_refused(bundle, tmp_path):
    with pytest.raises(DataError, match=r"no known data set.*one folder of pictures per label"):
        data_for(tmp_path, bundle)
    foreign_onnx.write_photographs(tmp_path / "photos", 12)
    (tmp_path / "photos" / "red").rename(tmp_path / "photos" / "crimson")
    with pytest.raises(DataError, match="crimson"):
        data_for(tmp_path / "photos", bundle).load_test(tmp_path / "photos")


def test_a_folder_of_tracks_is_divided_by_the_tracks_that_calibrated(bundle, tmp_path):
    """Divided by images, frames of the tracks that calibrated would be reported on."""
    place, group = tmp_path / "photos", "([0-9]{3})[0-9]"
    foreign_onnx.write_photographs(place, 120)
    tracks = Place(None, place, group)
    exported = load_splits(tracks, bundle.labels, bundle.preprocess, lambda *_: None)
    bundle.calibrations = {"openvino/fp32": SimpleNamespace(group=group, unit="drive")}
    data = data_for(place, bundle)
    calibration, test = data.load_training(place)[1], data.load_test(place)
    assert np.array_equal(calibration.images, exported.calibration.images)
    assert np.array_equal(test.images, exported.test.images)
    assert (test.unit, len(np.unique(test.groups))) == ("drive", len(np.unique(exported.test.groups)))
    # Another folder, whose names say nothing of tracks.
    for file in place.glob("*/*.png"):
        file.rename(file.with_name("x" * (1 + int(file.stem)) + ".png"))
    assert data_for(place, bundle).load_test(place).groups is None


class _Data(SimpleNamespace):
    def load_training(self, place):
        return self.train, self.calibration


def test_another_copy_of_what_trained_the_bundle_is_refused_or_said(bundle, capsys):
    def part(value, name):
        return LabelledImages(name, np.full((6, 20, 20, 3), value, np.uint8), np.zeros(6, np.int64))

    known = SimpleNamespace(fingerprint=fingerprint(part(2, "calibration")), unseen=TRAINING_RECORD, group="")
    bundle.calibrations, bundle.origin = {"openvino/fp32": known}, {"training": {"data": "signs"}}
    same = _Data(name="signs", title="Signs", train=part(1, "train"), calibration=part(2, "calibration"))
    assert training_of(same, "here", bundle) == (same.train, same.calibration)
    assert calibration_of(same, "here", bundle) is same.calibration
    assert not capsys.readouterr().err
    other = _Data(name="signs", title="Signs", train=part(1, "train"), calibration=part(3, "calibration"))
    with pytest.raises(DataError, match="another copy of Signs"):
        training_of(other, "here", bundle)
    assert calibration_of(other, "here", bundle) is other.calibration
    assert "another copy of Signs" in capsys.readouterr().err
    foreign = _Data(name="others", title="Others", train=other.train, calibration=other.calibration)
    assert training_of(foreign, "here", bundle)[1] is other.calibration
