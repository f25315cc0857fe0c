"""Wrong readings, and what of them a gate accepts, are counted as a loop over single frames counts them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from framegate.benchmarks import confusions
from framegate.models.labelled import LabelledImages
from framegate.runtime import Bundle, Session


@pytest.fixture
def data(tiny_bundle, monkeypatch):
    labels = Bundle.open(tiny_bundle).labels
    rng = np.random.default_rng(1)
    test = LabelledImages("test", rng.integers(0, 256, (40, 32, 32, 3), np.uint8), np.arange(40) % len(labels))
    found = SimpleNamespace(labels=labels, title="things", load_test=lambda path: test)
    monkeypatch.setattr(confusions, "data_for", lambda path, bundle: found)
    return found


def test_the_counts_are_those_of_single_frames(tiny_bundle, data, tmp_path, capsys):
    one = data.labels[0]
    assert confusions.main([str(tiny_bundle), "--data", "x", "--label", one, "--out", str(tmp_path / "c.json")]) == 0
    record = json.loads((tmp_path / "c.json").read_text())
    session, test = Session.open(tiny_bundle), data.load_test("x")
    said = [session.infer(image) for image in test.images]
    right = [data.labels[label] for label in test.labels]
    wrong = [p.candidate != label for p, label in zip(said, right, strict=True)]
    assert record["all"] == {
        "read": 40,
        "accepted": sum(p.accepted_when_decided for p in said),
        "wrong": sum(wrong),
        "wrong and accepted": sum(p.accepted_when_decided and bad for p, bad in zip(said, wrong, strict=True)),
    }
    assert record[f"read as {one}..."].get("read", 0) == sum(p.candidate.startswith(one) for p in said)
    assert sum(pair["wrong"] for pair in record["pairs"]) <= sum(wrong)
    assert f"all: 40 read, {record['all']['accepted']} accepted" in capsys.readouterr().out


def test_what_cannot_be_counted_is_one_sentence(tiny_bundle, data, capsys):
    assert confusions.main([str(tiny_bundle), "--data", "x", "--label", "nothing"]) == 2
    assert "no label of" in capsys.readouterr().err
    data.labels = ("a", "b")
    assert confusions.main([str(tiny_bundle), "--data", "x"]) == 2
    assert "is not what" in capsys.readouterr().err
