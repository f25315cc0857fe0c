"""The five commands of docs/drives.md, on small drives."""

from __future__ import annotations

import csv
import json
import shlex
import shutil

import pytest
from drive_files import LABELS, colour, record_drives
from repository import ROOT

from framegate.runtime.cli import main as cli

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")
pytest.importorskip("mcap")


def five():
    text = (ROOT / "docs" / "drives.md").read_text()
    block = text.split("```sh\n")[1].split("```")[0]
    return [shlex.split(line)[1:] for line in block.strip().splitlines()]


@pytest.mark.slow
def test_from_recordings_to_a_new_bundle_and_a_difference(tiny_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(tiny_bundle, tmp_path / "my.bundle")
    record_drives(tmp_path / "drives", tmp_path / "my.bundle", 60, frames=2)
    before = (tmp_path / "my.bundle" / "calibration.json").read_bytes()
    index, mine, labels, calibrate, what_if = five()
    tables = []
    for workers in ("1", "2"):  # who does the work makes no difference
        assert cli.main([*index, "--workers", workers]) == 0
        tables.append((tmp_path / "drives.parquet").read_bytes())
    assert tables[0] == tables[1]
    assert cli.main(mine) == 0
    path = tmp_path / "to-label" / "frames.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    for row in rows:
        row["label"] = LABELS[colour(int(row["drive"][1:]))]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert cli.main(labels) == 0
    calibrate[calibrate.index("0.05")] = "0.2"  # with sixty drives
    assert cli.main([*calibrate, "--backend", "onnxruntime", "--precision", "fp32", "--limit-share", "0"]) == 0
    record = json.loads((tmp_path / "my.bundle" / "calibration.json").read_bytes())["records"]["onnxruntime/fp32"]
    assert (record["unit"], record["groups"], record["unseen"]) == ("drive", 60, "user")
    assert (tmp_path / "my.bundle" / "calibration.json").read_bytes() != before
    assert cli.main([*what_if, "--workers", "1"]) == 0
    assert "wrong among labelled accepts: 0.0 % [0.0, " in capsys.readouterr().out
    assert (tmp_path / "difference.html").read_text().startswith("<!doctype html>")
