"""A folder of one's own pictures is data to be judged on, divided as the export divides it."""

from __future__ import annotations

from types import SimpleNamespace

import foreign_onnx
import numpy as np
import pytest

from framegate.evaluation.frames.own_data import OWN, data_for
from framegate.export.data.labelled import Place, load_splits
from framegate.runtime.errors import DataError
from framegate.runtime.preprocess import PreprocessSpec


@pytest.fixture
def bundle():
    spec = PreprocessSpec(20, 20, "area", "stretch", "rgb", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return SimpleNamespace(labels=foreign_onnx.LABELS, preprocess=spec)


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
