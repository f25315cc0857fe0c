"""Accuracy against time: the baseline, the race, the table and the plot."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from framegate.benchmarks.latency import pareto, pareto_plot
from framegate.evaluation.report.table import markdown
from framegate.export.graph.session import cpu_session


@pytest.mark.long
def test_the_baseline_is_mobilenet_v2_without_tiny_numbers(tmp_path):
    path = tmp_path / "baseline.onnx"
    pareto.write_baseline(path)
    session = cpu_session(path)
    logits = session.run(None, {"image": np.random.default_rng(0).normal(size=(1, 3, 96, 96)).astype(np.float32)})[0]
    assert logits.shape == (1, 10)
    assert np.abs(logits).max() > 1e-3
    weights = sum(np.prod(w.shape) for w in pareto_weights(path))
    assert 2.2e6 < weights < 2.4e6  # 3.5 million of the paper less its 1,000 labels, plus ten


def pareto_weights(path):
    import onnx

    return [onnx.numpy_helper.to_array(each) for each in onnx.load(str(path)).graph.initializer]


@pytest.fixture(scope="module")
def record(tmp_path_factory, tiny_bundle):
    folder = tmp_path_factory.mktemp("pareto")
    shutil.copytree(tiny_bundle, folder / "tiny.bundle")
    out, png = folder / "pareto.json", folder / "pareto.png"
    assert pareto.main(["--calls", "50", "--bundles", str(folder), "--out", str(out), "--png", str(png)]) == 0
    assert png.read_bytes().startswith(b"\x89PNG")
    return json.loads(out.read_text())


@pytest.mark.long
def test_every_network_is_measured_beside_the_baseline_of_its_engine(record):
    rows = {(row["network"], row["engine"], row["precision"]): row for row in record["rows"]}
    assert (pareto.BASELINE, "onnxruntime", "fp32") in rows
    tiny = next(row for key, row in rows.items() if key[0] != pareto.BASELINE and key[1:] == ("onnxruntime", "fp32"))
    assert tiny["calls"] == 50
    assert 0 < tiny["to_baseline_p50"]["ratio"] < 1
    assert tiny["accuracy"] is None  # no committed record of it


@pytest.mark.long
def test_the_table_shows_ratio_and_accuracy(record):
    rows = [dict(row) for row in record["rows"]]
    rows[-1] |= {"accuracy": {"value": 0.9, "data": "cifar10"}, "p50_ms": 0.5}
    rows[-1]["to_baseline_p50"] = {"ratio": 0.5, "low": 0.4, "high": 0.6}
    text = markdown(pareto_plot.table({**record, "rows": rows}))
    assert "| 0.50 [0.40, 0.60] | 90.0 % (cifar10) |" in text
    assert "Not yet measured" in pareto_plot.table(None)


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--calls", "0"], "at least 1"), (["--bundles", "."], "no bundle with a classifier"), ([], "does not exist")],
)
def test_what_cannot_be_measured_is_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pareto, "write_baseline", lambda path: None)
    out = "missing/pareto.json" if not words else "pareto.json"
    assert pareto.main([*words, "--out", out]) != 0
    assert said in capsys.readouterr().err
    assert not (tmp_path / "pareto.json").exists()
