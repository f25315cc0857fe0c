"""What an open page costs: the record, and the table made from it."""

from __future__ import annotations

import json

import pytest

from framegate.benchmarks import tables
from framegate.benchmarks.cost import page

pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'framegate[demo]'")
pytest.importorskip("websockets", reason="websockets is not installed: pip install 'framegate[demo]'")

FAST = "synthetic://?width=1280&height=720&fps=60"


@pytest.mark.long
def test_a_viewer_takes_turns_with_nobody(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "find_chromium", lambda: None)
    out = tmp_path / "page-latency.json"
    words = ["--frames", "60", "--source", FAST, "--bundle", str(tiny_bundle), "--out", str(out), "--note", "a test"]
    assert page.main(words) == 0
    record = json.loads(out.read_text())
    nobody, viewer = (record["series"][name] for name in ("nobody looks", "one viewer"))
    for row in (nobody, viewer):
        assert row["frames"] == 100  # two whole turns
        assert sum(row["histogram"]["counts"]) == 100
        assert row["verdicts"]["evaluated"] == 400
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
    assert nobody["pictures_per_second"] == 0
    assert viewer["pictures_per_second"] > 1
    assert viewer["reference"] == "nobody looks"
    part = viewer["to_reference"]["p50"]
    assert part["low"] <= part["ratio"] <= part["high"]
    assert record["left_out"] == {"Chromium beside it": "no Chromium is installed"}

    text = tables.Writer(tmp_path).block("page")
    assert f"| one viewer | {viewer['p50_ms']:.2f} | {viewer['p99_ms']:.2f} |" in text
    assert "Beside it: a test." in text


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--frames", "0"], 2, "--frames 0"),
        (["--out", "/no/such/folder/r.json"], 1, "does not exist"),
        (["--bundle", "no.bundle"], 1, "no.bundle"),
        (["--source", "no-such.mp4"], 1, "no-such.mp4"),
    ],
)
def test_what_cannot_be_measured_is_one_line(tiny_bundle, tmp_path, capsys, words, code, said):
    given = {"--bundle": str(tiny_bundle), "--out": str(tmp_path / "r.json")} | dict([words])
    assert page.main([word for pair in given.items() for word in pair]) == code
    error = capsys.readouterr().err
    assert said in error.splitlines()[-1]
    assert "Traceback" not in error
