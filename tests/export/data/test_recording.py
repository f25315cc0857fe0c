"""A recorded drive with labelled regions becomes a calibration split by tracks."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest

from framegate.export.calibration.calibrate import Promise
from framegate.export.calibration.plan import plan
from framegate.export.commands import calibrate
from framegate.export.data.recording import read_recording
from framegate.models.labelled import LabelledImages
from framegate.runtime.cli.main import main
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

LABELS = ("blue", "green", "red")
SPEC = PreprocessSpec(20, 20, "bilinear", "stretch", "rgb", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
HEADER = "frame,x,y,width,height,label,track\n"
GOOD = "2,0,0,40,40,red,a\n0,10,10,30,30,blue,b\n2,,,,,green,c\n3,0,0,40,40,red,a\n"


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    folder = tmp_path / "drive"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(5):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (48, 64, 3)).astype(np.uint8))
    return folder


def _read(drive: Path, text: str, quiet) -> LabelledImages:
    file = drive.parent / "labels.csv"
    file.write_text(text)
    return read_recording(str(drive), file, LABELS, SPEC, "track", quiet)


def test_regions_become_images_as_the_runtime_shows_them(drive: Path, quiet) -> None:
    split = _read(drive, HEADER + GOOD, quiet)
    assert split.labels.tolist() == [0, 2, 1, 2]
    assert split.groups is not None
    assert split.groups.tolist() == [1, 0, 2, 0]
    preprocess = Preprocessor(SPEC)
    first, second = (cv2.imread(str(drive / f"{number}.png")) for number in (0, 2))
    for k, shown in enumerate((first[10:40, 10:40], second[:40, :40], second)):
        preprocess(np.ascontiguousarray(shown))
        assert np.array_equal(split.images[k], preprocess.small)


def test_where_every_track_was_labelled_once_images_are_the_units(drive: Path, quiet) -> None:
    split = _read(drive, HEADER + "0,,,,,red,a\n1,,,,,blue,b\n", quiet)
    assert (split.groups, split.unit) == (None, "track")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("frame,label\n", "no column 'x'; expected the header frame,x,y,width,height,label,track"),
        (HEADER, "no region is labelled"),
        (HEADER + "0,,,,,pink,a\n", "line 2: label 'pink' is none of the network's 3"),
        (HEADER + "0,,,,,red,\n", "line 2: no track"),
        (HEADER + "0,,,,,red,a\n1,,,,,blue,a\n", "line 3: track 'a' is 'blue' here and 'red' in line 2"),
        (HEADER + "first,,,,,red,a\n", "line 2: .* expected numbers"),
        (HEADER + "0,0,0,40,,red,a\n", "line 2: .* expected numbers"),
        (HEADER + "0,0,0,2,2,red,a\n", "line 2: frame 0, region .* pixels or more a side"),
        (HEADER + "0,0,0,nan,40,red,a\n", "line 2: frame 0, region .* pixels or more a side"),
        (HEADER + "0,40,0,40,40,red,a\n", r"line 2: the region reaches outside frame 0 \(64x48 pixels\)"),
        (HEADER + "9,,,,,red,a\n", "line 2: frame 9 is labelled, but .* ends before it"),
    ],
)
def test_bad_labels_are_one_clear_line(drive: Path, quiet, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        _read(drive, text, quiet)
    assert len(str(caught.value).splitlines()) == 1


def _split(count: int, units: int | None = None) -> LabelledImages:
    groups = None if units is None else np.arange(count) % units
    return LabelledImages("s", np.zeros((count, 2, 2, 3), np.uint8), np.arange(count) % 3, groups)


def test_a_plan_says_what_can_be_proved_and_what_a_target_needs() -> None:
    found = plan(_split(1000), Promise(0.01), precisions=1, labels=("a", "b"))
    assert (found.units, found.proving) == (1000, 800)
    assert found.lowest[0] == (1.0, pytest.approx(1 - 0.05 ** (1 / 800)))
    assert found.needed == ((0.01, 299, 374),)
    assert any("these may do" in line for line in found.lines())
    tracks = plan(_split(1000, 100), Promise(0.01, larger_risks=(0.05,)), precisions=2, labels=("a", "b"))
    assert (tracks.units, tracks.proving, tracks.shares) == (100, 80, 4)
    assert [accepted for _, accepted, _ in tracks.needed] == [437, 86]
    assert any("there are 100" in line for line in tracks.lines())


def test_the_command_plans_without_computing(
    drive: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framegate.export.commands.calibrate.backend_outputs", None)  # whatever computes fails
    (drive.parent / "labels.csv").write_text(HEADER + GOOD)
    words = ["calibrate", str(tiny_bundle), "--from", str(drive), "--labels", str(drive.parent / "labels.csv")]
    before = sorted((path.name, path.stat().st_mtime_ns) for path in tiny_bundle.iterdir())
    assert main([*words, "--plan", "--target-risk", "0.02", "0.1"]) == 0
    printed = capsys.readouterr().out
    assert "4 images of 3 tracks: 2 tracks prove" in printed
    assert "for target risk 0.1" in printed
    assert sorted((path.name, path.stat().st_mtime_ns) for path in tiny_bundle.iterdir()) == before
    assert main(words[:4]) == 2
    assert "--from and --labels belong together" in capsys.readouterr().err
    for group in ("none", "(x)"):
        assert main([*words, "--plan", "--group", group]) == 2
        assert "with --from the units are the tracks of --labels; leave it out" in capsys.readouterr().err
    mcap = [*words[:3], "drive.mcap", *words[4:]]
    assert main(mcap) == 2
    assert "compressed for people, and are not what the network saw" in capsys.readouterr().err


@pytest.mark.parametrize(("group", "unit"), [("(x)", "track"), ("none", "track"), ("auto", "patient")])
def test_a_table_of_drives_brings_its_units(group: str, unit: str) -> None:
    given = Namespace(recording="t.parquet", labels=None, data=None, unseen=None, group=group, unit=unit)
    with pytest.raises(UsageError, match=r"units are (the )?drives; leave it out"):
        calibrate._drives(given, None, None)
