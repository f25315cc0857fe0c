"""What training may watch: whole units of the training split, of every label, and never what is to prove."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from framegate.models import command_train, datasets
from framegate.models.held_out import hold_out
from framegate.models.labelled import LabelledImages
from framegate.runtime.cli.main import main
from framegate.runtime.errors import DataError


def split(count: int, labels: int, seed: int = 0, groups: np.ndarray | None = None, name: str = "s") -> LabelledImages:
    rng = np.random.default_rng(seed)
    numbers = np.sort(np.arange(count) % labels)
    pixels = rng.integers(0, 50, (count, 32, 32, 3))
    pixels[np.arange(count), :, :, numbers % 3] += 150
    return LabelledImages(name, pixels.astype(np.uint8), numbers, groups)


def test_every_label_is_watched_also_where_the_split_is_sorted_by_label() -> None:
    images = split(2000, 40)
    rest, watched = hold_out(images, 0.05)
    assert len(rest) + len(watched) == 2000
    assert np.bincount(watched.labels, minlength=40).tolist() == [2] * 40
    assert len(np.unique(watched.labels[:30])) > 15  # the first ones are of many labels, too
    assert np.array_equal(hold_out(images, 0.05)[1].images, watched.images)


def test_units_stay_whole_and_a_label_with_one_unit_only_trains() -> None:
    groups = np.arange(600) // 20
    images = split(600, 3, groups=groups)
    single = replace(images, groups=np.where(images.labels == 2, 999, groups))
    rest, watched = hold_out(single, 0.1)
    assert not set(rest.groups) & set(watched.groups)
    assert set(watched.labels) == {0, 1}
    with pytest.raises(DataError, match="no label has two units"):
        hold_out(replace(images, groups=images.labels), 0.1)


class _Forbidden:
    """Images that must not be looked at: whatever asks for one fails."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"training looked at calibration images ({name})")

    def __len__(self) -> int:
        raise AssertionError("training looked at calibration images")


@pytest.mark.parametrize("words", [[], ["--adversarial", "fgsm-rs", "--patience", "1"]], ids=["plain", "adversarial"])
def test_training_looks_at_no_image_that_is_to_prove_or_to_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """The whole command, with calibration and test splits that cannot be looked at."""

    def forbidden(place: object) -> LabelledImages:
        raise AssertionError("training read the test split")

    data = replace(
        datasets.DATASETS["cifar10"],
        labels=("blue", "green", "red"),
        find=lambda place: place,
        read_training=lambda place: (split(48, 3, name="train"), _Forbidden()),
        read_test=forbidden,
    )
    monkeypatch.setattr(command_train, "_open_data", lambda arguments: data)
    out = tmp_path / "c.pt"
    command = ["train", "simplecnn", "--data", str(tmp_path), "--epochs", "1", "--batch", "16", "--out", str(out)]
    assert main([*command, *words]) == 0
    assert "train, held out: accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("share", ["0", "0.6", "nan"])
def test_a_share_that_cannot_be_held_out_is_refused(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "simplecnn", "--data", "x", "--held-out", share]) == 2
    assert "held_out: " in capsys.readouterr().err
