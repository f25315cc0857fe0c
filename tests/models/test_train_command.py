"""``framegate train``: what an interrupted run goes on with, and options that would do nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from framegate.models import command_train, datasets
from framegate.models.checkpoint import load_checkpoint, save_checkpoint
from framegate.models.held_out import held_out
from framegate.models.labelled import LabelledImages
from framegate.models.registry import build
from framegate.models.training.loop import Trainer
from framegate.runtime.cli.main import main

LABELS = ("blue", "green", "red")


def images(seed: int) -> LabelledImages:
    labels = np.arange(48) % 3
    pixels = np.random.default_rng(seed).integers(0, 50, (48, 32, 32, 3))
    pixels[np.arange(48), :, :, labels] += 150
    return LabelledImages("train", pixels.astype(np.uint8), labels)


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Runs the command on made images; ``--data 1`` is another copy of them than ``--data 0``."""

    def opened(arguments):
        split = images(int(arguments.data.name))
        return replace(datasets.DATASETS["cifar10"], labels=LABELS, read_training=lambda place: (split, split),
                       find=lambda place: place)  # fmt: skip

    monkeypatch.setattr(command_train, "_open_data", opened)
    monkeypatch.chdir(tmp_path)

    def run(*words, data="0", out="c.pt", network="simplecnn"):
        common = ["--data", data, "--epochs", "1", "--batch", "16", "--out", out]
        code = main(["train", network, *common, *words])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def interrupted(train, monkeypatch):
    """What a run with a teacher and a beginning left that was stopped after its first step."""
    torch.manual_seed(1)
    network = {"name": "simplecnn", "classes": 3}
    for name in ("start.pt", "teacher.pt"):
        save_checkpoint(Path(name), build("simplecnn", 3, {}), network, LABELS, {})
    begun = Trainer.run

    def stop(self, resume=False):
        self.stop()
        return begun(self, resume)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "run", stop)
        code, _ = train("--start", "start.pt", "--teacher", "teacher.pt")
    assert code
    assert Path("c.state").exists()
    return train


@pytest.mark.parametrize(
    ("words", "data", "named"),
    [
        (["--teacher", "teacher.pt"], "0", "--start"),
        (["--start", "start.pt"], "0", "--teacher"),
        (["--start", "start.pt", "--teacher", "start.pt"], "0", "--teacher"),
        (["--start", "start.pt", "--teacher", "teacher.pt"], "1", "--data"),
    ],
)
def test_a_run_is_not_resumed_with_other_weights_or_images(interrupted, words, data, named):
    """The checkpoint would say nothing of what had begun or taught it, and what those had seen would prove."""
    code, said = interrupted("--resume", *words, data=data)
    assert code == 2
    assert f"was made with {named}" in said
    assert not Path("c.pt").exists()


def test_the_same_making_is_resumed_and_the_checkpoint_names_it(interrupted):
    code, said = interrupted("--resume", "--start", "start.pt", "--teacher", "teacher.pt")
    assert code == 0, said
    notes = load_checkpoint("c.pt")[1]["notes"]
    assert (notes["start"], notes["teacher"]) == ("start.pt", "teacher.pt")


def test_a_state_that_names_no_making_is_not_resumed(interrupted):
    state = torch.load("c.state", weights_only=True)
    del state["made_of"]
    torch.save(state, "c.state")
    code, said = interrupted("--resume", "--start", "start.pt", "--teacher", "teacher.pt")
    assert code == 2
    assert "that it does not name" in said


def test_a_teacher_in_the_current_folder_has_a_name(train, monkeypatch, tmp_path):
    """Without one the checkpoint said that it had no teacher, and what the teacher had seen would have proved."""
    monkeypatch.setattr(command_train, "teacher_logits", lambda *given: torch.zeros(45, 3))
    monkeypatch.setattr(command_train, "_made_of", lambda *given: {})
    code, said = train("--teacher", ".", "--held-out", "0.05")
    assert code == 0, said
    notes = load_checkpoint("c.pt")[1]["notes"]
    assert notes["teacher"] == tmp_path.name
    assert held_out(notes) is None


@pytest.mark.parametrize("given", [[], ["--epsilon", "0.02"]])
def test_the_attack_beside_interval_bounds_is_as_large_as_they_are(train, given):
    words = ["--adversarial", "fgsm-rs", "--interval-bounds", "2/255", "--held-out", "0.05"]
    code, said = train(*words, *given, network="plaincnn")
    assert code == 0, said
    notes = load_checkpoint("c.pt")[1]["notes"]
    assert notes["settings"]["epsilon"] == (0.02 if given else 2 / 255)
    assert held_out(notes).share == 0.05  # nothing was chosen by what it holds out, so that proves


def test_what_early_stopping_looked_at_proves_nothing(train):
    code, said = train("--adversarial", "fgsm-rs", "--held-out", "0.05")
    assert code == 0, said
    assert held_out(load_checkpoint("c.pt")[1]["notes"]) is None


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        (["--distillation", "0.5"], "--teacher"),
        (["--distillation-temperature", "2"], "--teacher"),
        (["--epsilon", "0.1"], "--adversarial"),
        (["--patience", "2"], "--adversarial"),
        (["--adversarial", "pgd", "--interval-bounds", "2/255", "--patience", "2"], "--interval-bounds 0"),
        (["--adversarial", "fgsm-rs", "--attack-steps", "9"], "--adversarial pgd or trades"),
        (["--adversarial", "pgd", "--beta", "3"], "--adversarial trades"),
        (["--mask-side", "0.3"], "--masked-views"),
        (["--interval-weight", "0.3"], "--interval-bounds"),
        (["--interval-ramp", "0.3"], "--interval-bounds"),
        (["--outlier-weight", "1"], "--outlier-share"),
        (["--views", "3"], "--frozen-blocks"),
    ],
)
def test_a_setting_that_would_change_nothing_is_refused(train, words, needs):
    code, said = train(*words)
    assert code == 2
    assert f"{words[-2]}: it changes nothing without {needs}; " in said


@pytest.mark.parametrize(
    "words", [["--trunk-weights", "x.pth"], ["--trunk-convention", "torchvision"], ["--convolution", "depthwise"]]
)
def test_an_option_of_another_architecture_is_refused(train, words):
    code, said = train(*words)
    assert code == 2
    assert f"{words[0]}: simplecnn has " in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--average", "1"], "average: 1.0 given, expected 0 to below 1"),
        (["--label-smoothing", "1"], "label_smoothing: 1.0 given, expected 0 to below 1"),
        (["--seed", "-1"], "seed: -1 given, expected 0 or more"),
    ],
)
def test_a_number_that_nothing_is_learnt_with_is_refused(train, words, said):
    code, err = train(*words)
    assert code == 2
    assert said in err


def test_a_checkpoint_that_cannot_be_written_is_refused_before_the_training(train, tmp_path):
    """A checkpoint named like a state was removed as one at the end."""
    (tmp_path / "folder").mkdir()
    Path("t.pt").write_bytes(b"")
    for out in ("c.state", "folder", "t.pt/c.pt"):
        code, said = train(out=out)
        assert code == 2, out
        assert f"--out {out}: " in said
    code, said = train("--teacher", "t.pt", out="t.pt")
    assert code == 2
    assert "also an input" in said
