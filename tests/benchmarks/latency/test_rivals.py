"""The race against other tools: rivals compute the same thing; records, plots and tables hang together."""

from __future__ import annotations

import json

import numpy as np
import pytest
from repository import ROOT

from framegate.benchmarks import tables
from framegate.benchmarks.latency import against_rivals, plot, rivals, torch_rival
from framegate.benchmarks.latency import measure as bench
from framegate.benchmarks.latency.stream import read_frames
from framegate.runtime import Session
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.cli import main as cli

SMALL = "synthetic://?width=128&height=96&frames=40"


@pytest.fixture(scope="module")
def record(tiny_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("race")
    out = folder / "r.json"
    words = ["--bundle", str(tiny_bundle), "--source", SMALL, "--frames", "100", "--threads", "1", "--out", str(out)]
    assert against_rivals.main([*words, "--html", str(folder / "r.html")]) == 0
    return out


def test_every_rival_gives_the_bundles_labels_and_entropies(tiny_bundle):
    field, bundle, images = rivals.Rivals(), Bundle.open(tiny_bundle), read_frames(SMALL)
    rivals.cpu_rivals(field, bundle, 1, images[0])
    assert any("onnxruntime" in name for name in field.found)
    assert any("openvino" in name for name in field.found)
    session, named = Session.open(bundle, "onnxruntime", "fp32", 1, camera=False), 0
    for image in images[:8]:
        truth = session.infer(image)
        for name, rival in field.found.items():
            label, entropy = rival(image)
            assert entropy == pytest.approx(truth.entropy, abs=1e-3), name
            if truth.margin > 0.01:  # below, the last bits of two engines may say different labels
                assert bundle.labels[label] == truth.candidate, name
                named += 1
    assert named >= 4 * len(field.found)


def test_softmax_entropy_of_known_logits():
    label, entropy = rivals.softmax_entropy(np.zeros((1, 8), np.float32))
    assert (label, entropy) == (0, pytest.approx(np.log(8)))
    label, entropy = rivals.softmax_entropy(np.array([[0.0, 200.0, 0.0]], np.float32))
    assert (label, entropy) == (1, pytest.approx(0.0))


def test_a_rival_that_fails_is_left_out_with_its_reason():
    field = rivals.Rivals()

    def broken():
        raise ImportError("no module of that name\nand more")

    field.try_to_add("x", broken, np.zeros((8, 8, 3), np.uint8))
    assert field.found == {}
    assert field.left_out == {"x": "ImportError: no module of that name"}


def test_all_contenders_are_timed_equally_often_beside_one_reference(record):
    found = json.loads(record.read_text())
    series = found["series"]
    assert {row["frames"] for row in series.values()} == {100}
    first, *others = series.items()
    assert "to_reference" not in first[1]
    assert others
    for name, row in others:
        assert row["reference"] == first[0], name
        part = row["to_reference"]["p50"]
        assert part["low"] <= part["ratio"] <= part["high"]
        assert part["ratio"] == pytest.approx(row["p50_ms"] / first[1]["p50_ms"], rel=0.2)
    # The tiny bundle names no architecture, so torch cannot take part, and says why.
    assert any("architecture" in reason or "not installed" in reason for reason in found["left_out"].values())
    assert found["agreement"]
    assert all(one["same_label"] == 1.0 for one in found["agreement"].values())


def test_the_record_is_one_of_framegate_bench(record, capsys):
    assert cli.main(["bench", "--compare", str(record), str(record)]) == 0
    assert "nothing changed beyond noise" in capsys.readouterr().out


def test_torch_runs_the_architecture_that_the_manifest_names():
    pytest.importorskip("torch")
    bundle = Bundle.open(ROOT / "models/bundles/simplecnn-cifar10.bundle")
    field, image = rivals.Rivals(), read_frames(SMALL)[0]
    torch_rival.torch_rivals(field, bundle, None, image, compile_too=False)
    label, entropy = field.found["torch eager fp32, cpu"](image)
    assert 0 <= label < 10
    assert 0 <= entropy <= np.log(10) + 1e-6


def test_the_plot_is_a_picture_of_all_series(record, tmp_path):
    pytest.importorskip("matplotlib")
    import cv2

    out = tmp_path / "p.png"
    assert plot.main([str(record), str(out)]) == 0
    series = len(json.loads(record.read_text())["series"])
    assert cv2.imread(str(out)).shape[0] > 80 * series


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--frames", "0"], 2, "--frames"),
        (["--threads", "0"], 2, "--threads"),
        (["--bundle", "no.bundle"], 1, "no.bundle"),
        (["--source", "no/clip.mp4"], 1, "no/clip.mp4"),
        (["--out", "no/where/r.json"], 1, "no/where"),
        (["--bundle", str(ROOT / "models/bundles/hybrid3d-adrenalmnist3d.bundle")], 2, "volumes"),
    ],
)
def test_wrong_usage_is_one_line(capsys, words, code, said):
    assert against_rivals.main(words) == code
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_a_plot_of_what_is_no_record_is_refused(tmp_path, capsys, record):
    pytest.importorskip("matplotlib")
    assert plot.main([str(tmp_path / "no.json"), "p.png"]) == 1
    assert plot.main([str(record), str(tmp_path / "p.xyz")]) == 2
    assert "Traceback" not in capsys.readouterr().err


DOCUMENT = "a\n<!-- begin rivals -->\nold\n<!-- end -->\nb\n"


def test_the_table_of_a_document_comes_from_the_record(record, tmp_path):
    folder, document = tmp_path / "results", tmp_path / "R.md"
    folder.mkdir()
    (folder / "latency-rivals.json").write_text(record.read_text())
    document.write_text(DOCUMENT)
    for _ in range(2):  # filling twice changes nothing
        assert tables.main([str(document), "--results", str(folder)]) == 0
        text = document.read_text()
        assert "\nold\n" not in text
        assert text.startswith("a\n")
        assert text.endswith("<!-- end -->\nb\n")
        for name, row in json.loads(record.read_text())["series"].items():
            bundle, _, who = name.partition(": ")
            assert f"| {bundle} | {who} | {row['p50_ms']:.2f} | {row['p99_ms']:.2f} |" in text
        assert text.count("<!-- begin") == 1


def test_all_tables_can_be_made_from_what_the_commands_write(tiny_bundle, tmp_path, record, monkeypatch):
    monkeypatch.setattr(bench, "measure_startup", lambda *_: ([0.5], [120.0]))  # five processes; tests/runtime has them
    bundle, latency, scenarios = str(tiny_bundle), tmp_path / "cpu-latency.json", tmp_path / "latency-scenarios.json"
    common = ["--source", SMALL, "--frames", "20"]
    assert cli.main(["bench", bundle, *common, "--memory-frames", "0", "--out", str(latency)]) == 0
    words = ["--pace", "back-to-back", "--realtime", "block"]
    assert cli.main(["bench", bundle, *common, *words, "--out", str(scenarios)]) == 0
    (tmp_path / "latency-rivals.json").write_text(record.read_text())
    blocks = "".join(DOCUMENT.replace("rivals", name) for name in ("latency", "stages", "rivals", "scenarios"))
    text = tables.Writer(tmp_path).fill(blocks)
    for path in (latency, scenarios):
        series = json.loads(path.read_text())["series"]
        shown = {name: row for name, row in series.items() if not name.endswith("bare")}
        assert shown
        for name, row in shown.items():
            assert f"| {name}" in text
            assert f"{row['p50_ms']:.2f}" in text


DRIVER = (
    'BackendError: tensorrt-rtx: loading the CUDA driver, libcuda.so.1: NO_DRIVER ("cuda" is an NVIDIA driver '
    "library and can be found via system search. Ensure it is installed.); framegate doctor says what is missing"
)


def test_who_was_left_out_is_short_in_the_table_and_whole_in_the_record(record, tmp_path):
    changed = json.loads(record.read_text())
    missing = "backend 'tensorrt' was asked for, but the package 'tensorrt' is not installed; pip install tensorrt-cu13"
    changed["left_out"] = {f"framegate tensorrt/{precision}": missing for precision in ("int8", "fp16")}
    changed["left_out"] |= {"cv2 + tensorrt-rtx fp32 + NumPy": DRIVER, "framegate tensorrt-rtx/fp32": DRIVER}
    changed["left_out"]["torch"] = "not installed; pip install 'framegate[evaluate]'"
    (tmp_path / "latency-rivals.json").write_text(json.dumps(changed))
    text = tables.Writer(tmp_path).fill(DOCUMENT)
    assert "- framegate tensorrt (fp16, int8): the package 'tensorrt' is not installed\n" in text
    assert (
        "- cv2 + tensorrt-rtx + NumPy (fp32), framegate tensorrt-rtx (fp32): tensorrt-rtx: loading the CUDA driver, "
        "libcuda.so.1: NO_DRIVER\n" in text
    )
    assert "- torch: not installed\n" in text
    assert text.count("\n- ") == 3
    assert "in full in `benchmarks/results/latency-rivals.json`" in text
    changed["left_out"] = {}
    (tmp_path / "latency-rivals.json").write_text(json.dumps(changed))
    assert "Could not run" not in tables.Writer(tmp_path).fill(DOCUMENT)


def test_documents_and_records_that_cannot_be_used_are_refused(tmp_path, capsys, record):
    document = tmp_path / "R.md"
    document.write_text(DOCUMENT)
    assert tables.main([str(document), "--results", str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().err
    document.write_text(DOCUMENT.replace("rivals", "nonsense"))
    assert tables.main([str(document), "--results", str(tmp_path)]) == 1
    assert "expected one of" in capsys.readouterr().err
    # A record of the right format with other content than the table shows.
    (tmp_path / "cpu-latency.json").write_text(record.read_text())
    document.write_text(DOCUMENT.replace("rivals", "latency"))
    assert tables.main([str(document), "--results", str(tmp_path)]) == 1
    assert "measure it again" in capsys.readouterr().err
    assert document.read_text().count("old") == 1
