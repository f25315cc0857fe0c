from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from framegate.models import cifar10
from framegate.models.labelled import LabelledImages
from framegate.runtime.errors import DataError

BATCHES = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]


def planes(number):
    """10,000 images whose red plane is the image's number modulo 251 and whose label is its number modulo 10."""
    numbers = np.arange(10_000)
    data = np.zeros((10_000, 3, 1024), np.uint8)
    data[:, 0] = (numbers % 251)[:, None]
    data[:, 2] = number
    return data.reshape(10_000, 3072), (numbers % 10).astype(np.uint8)


@pytest.fixture(scope="module")
def binary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate(BATCHES):
        data, labels = planes(number)
        np.concatenate([labels[:, None], data], axis=1).tofile(folder / f"{name}.bin")
    return folder


def test_splits_are_disjoint_complete_and_always_the_same(binary):
    train, calibration = cifar10.load_training(binary)
    assert (len(train), len(calibration)) == (45_000, 5_000)

    # (batch number, red value, label) is not unique, but the multiset over both splits must be the whole set.
    def keys(split):
        return np.stack([split.images[:, 0, 0, 0], split.images[:, 0, 0, 2], split.labels], 1)

    together = np.concatenate([keys(train), keys(calibration)])
    everything = np.concatenate(
        [np.stack([np.full(10_000, n), np.arange(10_000) % 251, np.arange(10_000) % 10], 1) for n in range(5)]
    )
    np.testing.assert_array_equal(
        np.sort(together.view("i8,i8,i8"), axis=0), np.sort(everything.view("i8,i8,i8"), axis=0)
    )
    again = cifar10.load_training(binary)[1]
    np.testing.assert_array_equal(calibration.images, again.images)


def test_images_are_bgr_like_camera_frames(binary):
    test = cifar10.load_test(binary.parent)  # the folder above is found too
    assert test.images.shape == (10_000, 32, 32, 3)
    assert test.images[7, 5, 5].tolist() == [5, 0, 7]  # blue holds the batch number, red the image's number
    assert test.labels[17] == 7


def test_python_format_gives_the_same(binary, tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    data, labels = planes(5)
    with (folder / "test_batch").open("wb") as file:
        pickle.dump({b"data": data, b"labels": labels.tolist()}, file, protocol=4)
    one, two = cifar10.load_test(binary), cifar10.load_test(tmp_path)
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.labels, two.labels)


class _Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/framegate-was-here",)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path):
    with (tmp_path / "test_batch").open("wb") as file:
        pickle.dump({b"data": _Evil()}, file)
    with pytest.raises(DataError, match=r"not a CIFAR-10 batch.*system"):
        cifar10.load_test(tmp_path)
    assert not os.path.exists("/tmp/framegate-was-here")


def test_missing_short_and_garbled_files(tmp_path):
    with pytest.raises(DataError, match="no CIFAR-10 batch 'test_batch' here"):
        cifar10.load_test(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match="100 bytes, expected 30730000"):
        cifar10.load_test(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"\xff" * 30_730_000)
    with pytest.raises(DataError, match=r"labels outside 0\.\.9"):
        cifar10.load_test(tmp_path)


def test_a_file_is_no_folder(binary):
    with pytest.raises(DataError, match="no CIFAR-10 batch 'data_batch_1' here"):
        cifar10.load_training(binary / "test_batch.bin")


def test_where_the_batches_lie(binary, tmp_path):
    assert cifar10.find(binary) == cifar10.find(binary.parent) == binary
    assert cifar10.find(tmp_path) is cifar10.find(binary / "test_batch.bin") is None


def test_images_and_labels_that_do_not_fit_together():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    assert len(LabelledImages("two", images, np.zeros(2, np.int64)).subset(np.array([1]), "one")) == 1
    for bad, labels in ((images, np.zeros(3, np.int64)), (images[..., 0], np.zeros(2, np.int64))):
        with pytest.raises(DataError, match="images bad: "):
            LabelledImages("bad", bad, labels)
    with pytest.raises(DataError, match="of float32, expected"):
        LabelledImages("bad", images.astype(np.float32), np.zeros(2, np.int64))
