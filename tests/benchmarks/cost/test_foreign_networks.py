"""Foreign networks from file to verdicts: what counts as a broken promise, and what the table shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from framegate.benchmarks import network_tables
from framegate.benchmarks.cost import foreign_networks
from framegate.runtime.errors import DataError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for label in ("cat", "dog"):
        (tmp_path / "held" / label).mkdir(parents=True)
        for k in range(30):
            image = np.full((16, 16, 3), k, np.uint8)
            cv2.imwrite(str(tmp_path / "held" / label / f"{k}.png"), image)
    return tmp_path / "held"


def _judged(monkeypatch, images: Path, always: str, promised: float) -> dict[str, object]:
    """A session that accepts everything as one label."""
    verdict = SimpleNamespace(accepted=True, label=always, reasons=())
    session = SimpleNamespace(infer=lambda image: verdict)
    monkeypatch.setattr(foreign_networks.Session, "open", lambda *words, **rest: session)
    calibration = SimpleNamespace(target_risk=promised, proved=True)
    bundle = SimpleNamespace(calibrations={"openvino/fp32": calibration})
    return foreign_networks.judge(bundle, list(foreign_networks.held_back(images)))["openvino/fp32"]


def test_a_promise_that_held_back_images_contradict_is_found(images, monkeypatch) -> None:
    broken = _judged(monkeypatch, images, "cat", 0.2)
    assert (broken["accepted"], broken["wrong"], broken["contradicted"]) == (60, 30, True)
    kept = _judged(monkeypatch, images, "cat", 0.5)
    assert (kept["contradicted"], kept["risk"]["value"]) == (False, 0.5)


def test_images_that_are_missing_or_damaged_are_named(images) -> None:
    assert len(list(foreign_networks.held_back(images))) == 60
    (images / "cat" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png: cannot be read as an image"):
        list(foreign_networks.held_back(images))
    with pytest.raises(DataError, match="no images found"):
        list(foreign_networks.held_back(images / "cat"))


def test_a_command_is_run_in_a_process_of_its_own_with_its_time() -> None:
    found = foreign_networks.command(["--version"])
    assert found["code"] == 0
    assert found["cpu_s"] > 0
    assert "framegate" in found["said"][-1]


def test_a_record_says_nothing_about_this_machines_folders() -> None:
    said = "framegate: model /home/me/my nets/a.onnx: 3 of 4/255, and/or /tmp/b.bundle"
    assert (
        foreign_networks.without_folders("model /home/me/a.onnx: ends, FGSM 4/255") == "model a.onnx: ends, FGSM 4/255"
    )
    assert "/tmp" not in foreign_networks.without_folders(said)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[3]", "one lacks file, kind, options, unseen"),
        ('[{"kind": "a", "file": "b", "unseen": "c", "options": []}]', "one lacks held_back"),
    ],
)
def test_a_list_that_lacks_something_is_refused(tmp_path, monkeypatch, capsys, text: str, message: str) -> None:
    (tmp_path / "networks.json").write_text(text)
    words = ["foreign_networks", str(tmp_path / "networks.json"), "--work", str(tmp_path), "--out", str(tmp_path / "o")]
    monkeypatch.setattr(sys, "argv", words)
    assert foreign_networks.main() != 0
    assert message in capsys.readouterr().err


def test_what_is_measured_already_is_kept_and_a_failure_is_the_exit_code(tmp_path, monkeypatch, capsys) -> None:
    network = {"kind": "a b", "file": "b.onnx", "unseen": "c", "options": [], "refused": "no"}
    (tmp_path / "networks.json").write_text(json.dumps([network]))
    (tmp_path / "a-b.json").write_text(json.dumps({"kind": "a b", "export": {"cpu_s": 1.0}, "as_expected": False}))
    words = ["foreign_networks", str(tmp_path / "networks.json"), "--work", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*words, "--out", str(tmp_path / "out.json")])
    assert foreign_networks.main() == 1
    assert "a b: NOT as expected" in capsys.readouterr().out
    record = json.loads((tmp_path / "out.json").read_text())
    assert "refused" in network_tables.foreign_networks(record)


def test_the_table_shows_the_engine_that_came_nearest_to_breaking_its_promise() -> None:
    def engine(wrong: int, probability: float) -> dict[str, object]:
        risk = {"value": wrong / 100, "low": 0.0, "high": 0.2, "n": 100}
        return {"promised_risk": 0.1, "images": 200, "accepted": 100, "wrong": wrong, "risk": risk,
                "probability_if_kept": probability}  # fmt: skip

    network = {
        "kind": "x",
        "as_expected": True,
        "export": {"cpu_s": 21.6},
        "verdicts": {"a": engine(3, 0.9), "b": engine(9, 0.6)},
    }
    network["monitor"] = {"code": 1, "cpu_s": 50.2}
    machine = {"cpu": "AMD", "cores": 2, "date": "2026-11-28"}
    text = network_tables.foreign_networks({"networks": [network], "machine": machine})
    assert "| x | 22 s | 10 % | 9 of 100 | 9.00 %" in text
    assert "refused with its figures | 50 s" in text
