"""Layouts of masks: what is counted, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from framegate.benchmarks import mask_layouts
from framegate.runtime.errors import UsageError


def test_coverage_falls_with_the_events_that_are_allowed():
    certified = np.linspace(-1, 0, 100)
    possible = np.linspace(-2, -0.5, 100)
    assert mask_layouts.at_events(certified, possible, 0.0) == pytest.approx(0.5, abs=0.01)
    assert mask_layouts.at_events(certified, possible, 0.2) > 0.7


def test_few_units_prove_more_coverage_than_many_and_spread_further():
    rng = np.random.default_rng(0)
    certified, possible = rng.normal(0, 1, 1000), rng.normal(-2, 1, 1000)
    few = mask_layouts.where_units_prove(certified, possible, 20)
    many = mask_layouts.where_units_prove(certified, possible, 500)
    assert few[0] > many[0]
    assert few[2] - few[1] > many[2] - many[1]


def test_the_frames_that_prove_are_not_those_that_are_counted():
    """One frame lies far above: whoever draws it certifies nothing, and whoever does not, nearly everything."""
    certified, possible = np.zeros(1000), np.full(1000, -1.0)
    possible[0] = 1.0
    mean, low, high = mask_layouts.where_units_prove(certified, possible, 500)
    assert mean == pytest.approx(0.5, abs=0.1)
    assert (low, high) == (0.0, 1.0)


@pytest.mark.parametrize("text", ["11", "11/", "a/7", "11/-7"])
def test_what_is_no_layout_is_refused(text):
    with pytest.raises(UsageError, match="SIDE/STRIDE"):
        mask_layouts.layout(text)


def test_a_bundle_without_a_certificate_is_a_sentence(tmp_path, capsys):
    code = mask_layouts.main(
        ["simplecnn-cifar10", "--budget", "patch:5", "--data", str(tmp_path), "--layouts", "11/7", "--out",
         str(tmp_path / "found.json")]
    )  # fmt: skip
    assert code != 0
    assert "framegate certify" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--frames", "0"], ["--units", "0"], ["--units", "-3"], ["--seed", "-1"]])
def test_numbers_that_cannot_be_are_refused_before_anything_is_read(given, tmp_path, capsys):
    line = ["hybrid-cifar10", "--budget", "patch:5", "--data", str(tmp_path), "--layouts", "11/7"]
    assert mask_layouts.main([*line, "--out", str(tmp_path / "found.json"), *given]) != 0
    assert f"{given[0][2:]} " in capsys.readouterr().err


def test_a_branch_is_measured_in_float32(tmp_path, capsys):
    line = [
        "hybrid-cifar10",
        "--budget",
        "patch:5",
        "--data",
        str(tmp_path),
        "--layouts",
        "11/7",
        "--precision",
        "int8",
    ]
    assert mask_layouts.main([*line, "--out", str(tmp_path / "found.json"), "--branch", "views.pt"]) != 0
    assert "leave --precision out" in capsys.readouterr().err
