"""Every data set by name: its labels, where it comes from, how it is read, found and downloaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from framegate.models import cifar10, gtsrb, medmnist3d
from framegate.models.download import Progress, fetch, unpack_together
from framegate.models.labelled import LabelledImages
from framegate.runtime.errors import DataError, UsageError


@dataclass(frozen=True)
class Archive:
    """A file at an official address.

    Attributes:
        file: Its name.
        url: Address.
        checksum: MD5, 32 hexadecimal digits, as the data set's authors publish it.
    """

    file: str
    url: str
    checksum: str


@dataclass(frozen=True)
class DataSet:
    """A data set that this version can read.

    Attributes:
        name: What the command line calls it.
        title: What its authors call it.
        labels: One per class, in the order of the class numbers.
        depth: Slices of a volume; 1 for images.
        citation: Terms of use and what to cite, for manifests and reports.
        expected: What a folder must hold to be read.
        archives: What to download.
        find: Folder or file -> where the data lie, None if they do not.
        read_training: Reader of the training and calibration splits.
        read_test: Reader of the test split.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    depth: int
    citation: str
    expected: str
    archives: tuple[Archive, ...]
    find: Callable[[Path], Path | None]
    read_training: Callable[[Path], tuple[LabelledImages, LabelledImages]]
    read_test: Callable[[Path], LabelledImages]

    def load_training(self, folder: str | Path) -> tuple[LabelledImages, LabelledImages]:
        """The training and calibration splits: disjoint, and the same in every run.

        Args:
            folder: Folder with the unpacked archive, or the file if the data set is one.

        Raises:
            DataError: The data are missing, damaged or of another data set.
        """
        self._require(Path(folder))
        return self.read_training(Path(folder))

    def load_test(self, folder: str | Path) -> LabelledImages:
        """The official test split: for reporting only.

        Args:
            folder: Folder with the unpacked archive, or the file if the data set is one.

        Raises:
            DataError: The data are missing, damaged or of another data set.
        """
        self._require(Path(folder))
        return self.read_test(Path(folder))

    def _require(self, folder: Path) -> None:
        if not _holds(self, folder):
            raise DataError(f"{folder}: no {self.title} here, found {_found(folder)}; expected {self.expected}")


_GTSRB = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"
_MEDMNIST = "https://zenodo.org/records/10519652/files/"
_MEDMNIST_MD5 = {
    "AdrenalMNIST3D": "bbd3c5a5576322bc4cdfea780653b1ce",
    "FractureMNIST3D": "6aa7b0143a6b42da40027a9dda61302f",
    "NoduleMNIST3D": "8755a7e9e05a4d9ce80a24c3e7a256f3",
    "OrganMNIST3D": "a0c5a1ff56af4f155c46d46fbb45a2fe",
    "SynapseMNIST3D": "1235b78a3cd6280881dd7850a78eadb6",
    "VesselMNIST3D": "b41fd4f7e7e2feedddb201585ecafa1b",
}


def _medmnist(title: str, checksum: str) -> DataSet:
    name = title.lower()
    file = f"{name}.npz"
    return DataSet(
        name=name,
        title=title,
        labels=medmnist3d.LABELS[name],
        depth=medmnist3d.SIDE,
        citation=f"{title} of MedMNIST v2, CC BY 4.0; cite Yang et al., Scientific Data 10:41, 2023",
        expected=file,
        archives=(Archive(file, f"{_MEDMNIST}{file}?download=1", checksum),),
        find=partial(medmnist3d.find, name),
        read_training=partial(medmnist3d.load_training, name),
        read_test=partial(medmnist3d.load_test, name),
    )


DATASETS = {
    data.name: data
    for data in (
        DataSet(
            name="cifar10",
            title="CIFAR-10",
            labels=cifar10.LABELS,
            depth=1,
            citation="CIFAR-10, no licence stated; cite Krizhevsky, Learning Multiple Layers of Features, 2009",
            expected="cifar-10-batches-bin or cifar-10-batches-py with the official batches",
            archives=(
                Archive(
                    "cifar-10-binary.tar.gz",
                    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                    "c32a1d4ab5d03f1284b67883e8d87530",
                ),
            ),
            find=cifar10.find,
            read_training=cifar10.load_training,
            read_test=cifar10.load_test,
        ),
        DataSet(
            name="gtsrb",
            title="GTSRB",
            labels=gtsrb.LABELS,
            depth=1,
            citation="GTSRB, for research; cite Stallkamp et al., Neural Networks 32, 323-332, 2012",
            expected=f"GTSRB/Final_Training and GTSRB/Final_Test of the official archives, or {gtsrb.SMALL}",
            archives=tuple(
                Archive(file, f"{_GTSRB}{file}", checksum)
                for file, checksum in (
                    ("GTSRB_Final_Training_Images.zip", "f33fd80ac59bff73c82d25ab499e03a3"),
                    ("GTSRB_Final_Test_Images.zip", "c7e4e6327067d32654124b0fe9e82185"),
                    ("GTSRB_Final_Test_GT.zip", "fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
                )
            ),
            find=gtsrb.find,
            read_training=gtsrb.load_training,
            read_test=gtsrb.load_test,
        ),
        *(_medmnist(title, checksum) for title, checksum in _MEDMNIST_MD5.items()),
    )
}
NAMES = tuple(DATASETS)


def dataset(name: str) -> DataSet:
    """Look a data set up.

    Raises:
        UsageError: There is none of this name.
    """
    if name not in DATASETS:
        raise UsageError(f"data set: {name!r} given, expected one of {', '.join(NAMES)}")
    return DATASETS[name]


def detect(folder: str | Path) -> DataSet:
    """Find out which data set lies in a folder, or is a file.

    Raises:
        DataError: None does, or more than one.
    """
    place = Path(folder)
    here = [data for data in DATASETS.values() if _holds(data, place)]
    if len(here) == 1:
        return here[0]
    if here:
        names = ", ".join(data.name for data in here)
        raise DataError(f"{place}: more than one data set here ({names}); say which one, or give its own folder")
    expected = "; ".join(data.expected for data in DATASETS.values() if data.depth == 1)
    raise DataError(
        f"{place}: no known data set here, found {_found(place)}; expected {expected}; or NAME.npz of a MedMNIST 3D set"
    )


def download(name: str, folder: str | Path, progress: Progress) -> None:
    """Fetch a data set from its official address into a folder, if it does not lie there already.

    Archives are unpacked beside each other and take their final names together, at the end; then they are removed.

    Args:
        name: A name of `NAMES`.
        folder: Where to; it is made.
        progress: Called during the work.

    Raises:
        UsageError: The name is unknown.
        DataError: The address cannot be reached, an archive is wrong, or the folder cannot be written.
    """
    data, folder = dataset(name), Path(folder)
    if _holds(data, folder):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for archive in data.archives:
            fetch(archive.url, archive.checksum, folder / archive.file, progress)
        packed = [folder / archive.file for archive in data.archives if not archive.file.endswith(".npz")]
        if packed:
            unpack_together(packed, folder, progress)
    except OSError as error:
        raise DataError(f"{folder}: {data.title} cannot be stored here ({error})") from error


def _holds(data: DataSet, place: Path) -> bool:
    try:
        return data.find(place) is not None
    except OSError as error:
        raise DataError(f"{place}: cannot be looked at ({error.strerror})") from error


def _found(place: Path) -> str:
    """What lies at a place where the wanted data set does not, in a few words."""
    others = [data.title for data in DATASETS.values() if _holds(data, place)]
    if others:
        return ", ".join(others)
    if not place.is_dir():
        return "a file of another name" if place.exists() else "no such folder"
    names = sorted(entry.name for entry in place.iterdir())
    if not names:
        return "an empty folder"
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
