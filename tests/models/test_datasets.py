from __future__ import annotations

import hashlib
import http.server
import re
import tarfile
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from framegate.models import cifar10, datasets, gtsrb
from framegate.models.datasets import Archive
from framegate.runtime.errors import DataError, UsageError


def silent(what, done, total):
    pass


def write_cifar(folder):
    """The test batch in the official binary format: the label is the image's number modulo 10."""
    place = folder / "cifar-10-batches-bin"
    place.mkdir(parents=True)
    rows = np.zeros((10_000, 3073), np.uint8)
    rows[:, 0] = np.arange(10_000) % 10
    rows.tofile(place / "test_batch.bin")
    return folder


def write_gtsrb(folder):
    folder.mkdir(exist_ok=True)
    images = np.zeros((4, 32, 32, 3), np.uint8)
    labels, tracks = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    arrays = {"x_train": images, "y_train": labels, "track_train": tracks, "x_test": images, "y_test": labels}
    np.savez(folder / "gtsrb32.npz", **arrays)
    return folder


def write_volumes(folder, name="organmnist3d"):
    folder.mkdir(exist_ok=True)
    arrays = {f"{split}_images": np.zeros((2, 28, 28, 28), np.uint8) for split in ("train", "val", "test")}
    arrays |= {f"{split}_labels": np.array([[0], [1]]) for split in ("train", "val", "test")}
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    return folder


WRITERS = {"cifar10": write_cifar, "gtsrb": write_gtsrb, "organmnist3d": write_volumes}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return {name: write(tmp_path_factory.mktemp("data") / "here") for name, write in WRITERS.items()}


def test_every_data_set_is_complete():
    assert datasets.NAMES[:3] == ("cifar10", "gtsrb", "adrenalmnist3d")
    assert set(datasets.NAMES[2:]) == {
        f"{organ}mnist3d" for organ in ("adrenal", "fracture", "nodule", "organ", "synapse", "vessel")
    }
    for name in datasets.NAMES:
        data = datasets.dataset(name)
        assert data.name == name
        assert len(set(data.labels)) == len(data.labels) >= 2
        assert data.depth == (28 if name.endswith("3d") else 1)
        assert "cite" in data.citation
        assert data.archives
        for archive in data.archives:
            assert archive.url.startswith("https://")
            assert archive.file in archive.url
            assert re.fullmatch("[0-9a-f]{32}", archive.checksum)
    assert (datasets.dataset("cifar10").labels, datasets.dataset("gtsrb").labels) == (cifar10.LABELS, gtsrb.LABELS)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match="'mnist' given, expected one of cifar10, gtsrb, adrenalmnist3d, "):
        datasets.dataset("mnist")
    with pytest.raises(UsageError, match="'mnist' given"):
        datasets.download("mnist", "nowhere", silent)


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_tells_what_it_holds(places, name):
    data = datasets.detect(places[name])
    assert data.name == name
    splits = [data.load_test(str(places[name]))]
    if name != "cifar10":  # its training batches are large; they have a test of their own
        splits += data.load_training(places[name])
    height = 28 * 28 if data.depth > 1 else 32
    for split in splits:
        assert split.name.startswith(f"{name}-")
        assert len(split) > 0
        assert split.images.shape[1] == height
        assert 0 <= split.labels.min() <= split.labels.max() < len(data.labels)


def test_a_file_or_the_folder_inside_will_do(places):
    assert datasets.detect(places["cifar10"] / "cifar-10-batches-bin").name == "cifar10"
    assert datasets.detect(places["gtsrb"] / "gtsrb32.npz").name == "gtsrb"
    assert datasets.detect(places["organmnist3d"] / "organmnist3d.npz").name == "organmnist3d"


@pytest.mark.parametrize(("asked", "given"), [(a, g) for a in WRITERS for g in WRITERS if a != g])
def test_another_data_set_in_the_folder_is_named(places, asked, given):
    wanted, there = datasets.dataset(asked), datasets.dataset(given)
    for load in (wanted.load_training, wanted.load_test):
        with pytest.raises(DataError) as error:
            load(places[given])
        assert str(error.value) == (
            f"{places[given]}: no {wanted.title} here, found {there.title}; expected {wanted.expected}"
        )


def test_nothing_that_is_known(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    for k in range(5):
        (tmp_path / "other" / f"{k}.txt").write_text("x")
    for place, found in (
        (tmp_path / "nowhere", "no such folder"),
        (tmp_path / "empty", "an empty folder"),
        (tmp_path / "other", "0.txt, 1.txt, 2.txt and 2 more"),
        (tmp_path / "other" / "0.txt", "a file of another name"),
        (tmp_path / "other" / "0.txt" / "below", "no such folder"),
    ):
        for action in (datasets.detect, datasets.dataset("cifar10").load_training, datasets.dataset("gtsrb").load_test):
            with pytest.raises(DataError) as error:
                action(place)
            assert f"found {found}; expected " in str(error.value)
            assert "\n" not in str(error.value)


def test_two_data_sets_in_one_folder_must_be_told_apart(tmp_path):
    write_gtsrb(tmp_path)
    write_volumes(tmp_path)
    write_volumes(tmp_path, "vesselmnist3d")
    with pytest.raises(DataError, match=r"more than one data set here \(gtsrb, organmnist3d, vesselmnist3d\)"):
        datasets.detect(tmp_path)
    assert len(datasets.dataset("vesselmnist3d").load_test(tmp_path)) == 2


@pytest.fixture(scope="module")
def cifar_archive(places, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.add(places["cifar10"] / "cifar-10-batches-bin", "cifar-10-batches-bin")
    return path


@pytest.fixture
def served(tmp_path, monkeypatch, places, cifar_archive):
    """The official archives, as small as they go, on a server of this machine."""
    monkeypatch.setenv("no_proxy", "*")
    root = tmp_path / "served"
    root.mkdir()
    (root / cifar_archive.name).write_bytes(cifar_archive.read_bytes())
    (root / "organmnist3d.npz").write_bytes((places["organmnist3d"] / "organmnist3d.npz").read_bytes())

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        for name in ("cifar10", "organmnist3d"):
            data = datasets.dataset(name)
            archives = tuple(
                Archive(
                    archive.file,
                    f"http://127.0.0.1:{server.server_port}/{archive.file}",
                    hashlib.md5((root / archive.file).read_bytes()).hexdigest(),
                )
                for archive in data.archives
            )
            monkeypatch.setitem(datasets.DATASETS, name, replace(data, archives=archives))
        yield root
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["cifar10", "organmnist3d"])
def test_a_download_can_be_read_and_is_not_repeated(served, tmp_path, places, name):
    calls = []
    target = tmp_path / "new" / "data"
    datasets.download(name, target, lambda *call: calls.append(call))
    assert calls
    assert datasets.detect(target).name == name
    entry = "cifar-10-batches-bin" if name == "cifar10" else "organmnist3d.npz"
    assert [path.name for path in target.iterdir()] == [entry]
    np.testing.assert_array_equal(
        datasets.dataset(name).load_test(target).labels, datasets.dataset(name).load_test(places[name]).labels
    )
    for path in served.iterdir():
        path.unlink()  # a second request would now fail
    datasets.download(name, target, silent)


def test_an_archive_placed_by_hand_needs_no_network(served, tmp_path):
    target = tmp_path / "data"
    target.mkdir()
    (served / "cifar-10-binary.tar.gz").rename(target / "cifar-10-binary.tar.gz")
    datasets.download("cifar10", target, silent)
    assert datasets.detect(target).name == "cifar10"


def test_a_damaged_download_leaves_nothing(served, tmp_path):
    path = served / "organmnist3d.npz"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="its checksum is"):
        datasets.download("organmnist3d", tmp_path / "data", silent)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_folder_that_cannot_be_made(served, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="OrganMNIST3D cannot be stored here"):
        datasets.download("organmnist3d", tmp_path / "file" / "data", silent)
