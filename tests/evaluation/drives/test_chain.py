"""The five commands as processes of their own, on one machine and on a cluster of two: the same bytes both ways."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from drive_files import LABELS, ROIS, colour, record_drives

from framegate.benchmarks.drives.chain import compare, write_record

RECORD = "FRAMEGATE_CHAIN_RECORD"
"""Environment variable: the file of the record of the small drives, such as benchmarks/results/drives-chain.json."""


@pytest.mark.long
def test_the_five_commands_on_a_cluster_of_which_a_worker_is_killed(tiny_bundle, tmp_path):
    pytest.importorskip("ray")
    drives = record_drives(tmp_path / "recorded", tiny_bundle, 60, frames=12)
    with (drives / "truth-0000.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("drive", "region", "frame_id", "label", "injected"))
        for drive in range(60):
            for roi in ROIS:
                writer.writerows((f"d{drive:02d}", roi.name, k, LABELS[colour(drive)], 0) for k in range(12))
    more = ["--backend", "onnxruntime", "--precision", "fp32", "--limit-share", "0"]
    found = compare(drives, tiny_bundle, tmp_path / "work", 0.2, 500, more)
    if os.environ.get(RECORD):
        write_record(Path(os.environ[RECORD]), drives, found)
    assert found["same_bytes"]
    assert len(found["killed"]) == 2
    assert all("1 times a file was given" in line for line in found["killed"])
