"""Six recorded drives, and their table."""

from __future__ import annotations

import pytest
from drive_files import record_drives
from made_once import made_once

from framegate.runtime.cli import main as cli

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")
pytest.importorskip("mcap")


@pytest.fixture(scope="session")
def drives(tmp_path_factory, tiny_bundle):
    """A folder with six drives."""
    return made_once(tmp_path_factory, "drives", lambda folder: record_drives(folder, tiny_bundle, 6))


@pytest.fixture(scope="session")
def table(tmp_path_factory, drives):
    """Their table."""
    path = tmp_path_factory.mktemp("table") / "drives.parquet"
    assert cli.main(["drives", "index", str(drives), "--out", str(path), "--workers", "1"]) == 0
    return path
