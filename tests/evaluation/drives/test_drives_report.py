"""The page about drives: whatever there is of them, its figures show all of their labels."""

from __future__ import annotations

import pytest

pytest.importorskip("matplotlib")

from framegate.evaluation.drives import plots
from framegate.evaluation.drives.questions import Questions
from framegate.evaluation.drives.table import DriveTable
from framegate.runtime.cli import main as cli


@pytest.fixture(params=[1, 5])
def some(request, drives, tmp_path):
    """A table of one drive, and of five."""
    path = tmp_path / "some.parquet"
    folders = [str(folder) for folder in sorted(drives.iterdir())[: request.param]]
    assert cli.main(["drives", "index", *folders, "--out", str(path), "--workers", "1"]) == 0
    return path, request.param


def test_fault_no_label_is_cut_off_or_covered(some):
    path, count = some
    for picture in plots.pictures(Questions(DriveTable(path))):
        with plots.style():
            picture.figure.canvas.draw()
        (axes,) = picture.figure.axes
        ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
        labels = [axes.xaxis.label, axes.yaxis.label]
        page = picture.figure.bbox
        for text in labels:
            box = text.get_window_extent()
            assert text.get_text()
            assert box.x0 >= 0, (picture.name, text)
            assert box.x1 <= page.x1, (picture.name, text)
            assert box.y0 >= 0, (picture.name, text)
            assert box.y1 <= page.y1, (picture.name, text)
        for legend in picture.figure.legends:
            box = legend.get_window_extent()
            assert not [
                text for text in (*ticks, *labels) if text.get_text() and box.overlaps(text.get_window_extent())
            ]
        if picture.name == "coverage":
            low, high = axes.get_xlim()
            assert [tick for tick in axes.get_xticks() if low <= tick <= high] == list(range(1, count + 1))
            assert f"{count} drive" + "s" * (count > 1) + ";" in picture.caption


def test_the_page_counts_drives_in_words(some, tmp_path):
    path, count = some
    page = tmp_path / "page.html"
    assert cli.main(["drives", "report", str(path), "--out", str(page)]) == 0
    text = page.read_text()
    assert f"verdicts in {count} drive{'s' * (count > 1)}: " in text
    assert "1 drives" not in text
