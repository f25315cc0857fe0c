"""The page of a bench record: what a record says stays text, and what the page needs is said before measuring."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser

import pytest
from repository import ROOT

from framegate.benchmarks.latency.page import page
from framegate.runtime.cli import main as cli

RECORD = ROOT / "benchmarks" / "results" / "latency-streams.json"
HOSTILE = '"><script>alert(1)</script>\' onload="x" & {{ 7 * 7 }}'


class Page(HTMLParser):
    """Tags, attribute names and texts as a browser would see them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts, self.labels = [], set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.labels += [value for name, value in attrs if name == "aria-label"]

    def handle_data(self, data):
        self.texts.append(data)


def test_hostile_names_stay_text():
    record = json.loads(RECORD.read_text())
    plain = Page(page(record))
    for key in ("what", "source", "command"):
        record[key] = HOSTILE
    record["bundle"]["name"] = HOSTILE
    record["machine"] = {HOSTILE: HOSTILE}
    record["series"] = {f"{HOSTILE} {k}": row for k, row in enumerate(record["series"].values())}
    found = Page(page(record))
    assert set(found.tags) == set(plain.tags)
    assert found.attributes == plain.attributes
    assert "script" not in found.tags
    for k in range(len(record["series"])):
        assert found.texts.count(f"{HOSTILE} {k}") == 2  # in the table and above its histogram
    assert all(label.startswith(HOSTILE) for label in found.labels)
    assert len(found.labels) == len(record["series"])


def test_every_bar_is_a_bin_that_holds_frames():
    record = json.loads(RECORD.read_text())
    rows = record["series"].values()
    assert page(record).count('<rect class="bar"') == sum(n > 0 for row in rows for n in row["histogram"]["counts"])


def test_without_jinja_nothing_is_measured(tiny_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    out = tmp_path / "page.html"
    code = cli.main(["bench", str(tiny_bundle), "--frames", "1000000000", "--html", str(out)])
    error = capsys.readouterr().err
    assert code == 2
    assert "pip install jinja2" in error
    assert len(error.strip().splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize("missing", ["what", "command"])
def test_a_record_that_lacks_something_is_no_page_with_a_hole(missing):
    record = json.loads(RECORD.read_text())
    del record[missing]
    with pytest.raises(Exception, match=missing):
        page(record)
