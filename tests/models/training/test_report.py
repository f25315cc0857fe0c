"""What a training run tells while it works, and what it keeps when it is stopped."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from framegate.models.command_train import run_until_stopped
from framegate.models.labelled import LabelledImages
from framegate.models.registry import architecture, build
from framegate.models.training import augment
from framegate.models.training.loop import Task, Trainer, TrainingStopped
from framegate.models.training.report import epoch_line, open_tensorboard, plot_curves
from framegate.models.training.settings import TrainSettings
from framegate.runtime.cli.signals import ended_by_signals
from framegate.runtime.errors import UsageError

RECORD = {"epoch": 2, "loss": 0.51234, "train_accuracy": 0.9, "held_out_accuracy": 0.8, "learning_rate": 1.5e-3,
          "seconds": 30.0}  # fmt: skip


def split(count: int) -> LabelledImages:
    rng = np.random.default_rng(count)
    return LabelledImages("noise", rng.integers(0, 256, (count, 32, 32, 3), np.uint8), np.arange(count) % 2)


def trainer(folder, progress=lambda *call: None, report=None) -> Trainer:
    torch.manual_seed(0)
    task = Task(build("simplecnn", 2, {}), architecture("simplecnn").preprocess, split(24), split(6), augment.objects)
    return Trainer(task, TrainSettings(epochs=3, batch=8), folder / "run.state", progress, report)


def test_an_epoch_is_one_line_with_what_was_measured_and_how_long_the_rest_takes():
    assert epoch_line([RECORD], 10) == (
        "epoch 2/10: loss 0.512, training accuracy 0.900, held-out accuracy 0.800, learning rate 0.0015, 30 s, "
        "about 4 min left"
    )
    assert "left" not in epoch_line([RECORD], 2)


def test_a_step_tells_loss_and_accuracy_and_something_is_said_before_the_first(tmp_path):
    calls = []
    trainer(tmp_path, lambda *call: calls.append(call)).run()
    assert calls[0] == ("epoch 1/3", 0, 9)
    assert re.fullmatch(r"epoch 3/3  loss \d+\.\d{3}  accuracy [01]\.\d{3}", calls[-1][0])


def test_every_epoch_is_reported_with_accuracy_on_images_that_do_not_train(tmp_path):
    told = []
    trainer(tmp_path, report=lambda history: told.append(dict(history[-1]))).run()
    assert [record["epoch"] for record in told] == [1, 2, 3]
    assert {"loss", "train_accuracy", "held_out_accuracy", "learning_rate", "seconds"} <= set(told[0])
    assert all(
        record["held_out_accuracy"] * 6 == pytest.approx(round(record["held_out_accuracy"] * 6)) for record in told
    )


@pytest.mark.parametrize("at", [2, 4, 9])
def test_a_run_that_was_stopped_within_an_epoch_ends_where_a_whole_one_ends(tmp_path, at):
    whole = trainer(tmp_path / "whole")
    whole.run()
    stopped = trainer(tmp_path / "stopped")
    stopped.progress = lambda what, done, total: stopped.stop() if done == at else None
    with pytest.raises(TrainingStopped, match=f"epoch {(at - 1) // 3 + 1} after step {(at - 1) % 3 + 1} of 3"):
        stopped.run()
    seen = []
    resumed = trainer(tmp_path / "stopped", lambda what, done, total: seen.append(done))
    history = resumed.run(resume=True)
    assert min(seen, default=at + 1) > at  # no step is done twice
    assert [record["loss"] for record in history] == pytest.approx([record["loss"] for record in whole.history])
    for name, value in whole.task.model.state_dict().items():
        torch.testing.assert_close(resumed.task.model.state_dict()[name], value, msg=name)


@pytest.fixture
def signals_as_before():
    """A command that a signal ended leaves signals ignored, because its process is about to end. This one goes on."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_as_before")
def test_ctrl_c_saves_the_state_within_the_epoch(tmp_path, capfd):
    def interrupt(what, done, total):
        if done == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)  # the signal's thread asks the run to stop

    run = trainer(tmp_path, interrupt)
    with ended_by_signals():
        assert run_until_stopped(run, resume=False).startswith("stopped in epoch 1")
    assert torch.load(run.state_file, weights_only=True)["begun"][0]["step"] >= 1
    assert "finishing this step" in capfd.readouterr().err


def test_the_curves_are_a_picture(tmp_path):
    path = tmp_path / "runs" / "a.curves.png"
    plot_curves([], path, "nothing yet")
    assert not path.exists()
    plot_curves([{**RECORD, "epoch": 1}, RECORD], path, "simplecnn on noise")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [each.name for each in path.parent.iterdir()] == ["a.curves.png"]


def test_tensorboard_that_is_not_installed_is_named_with_its_install_line(tmp_path):
    code = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "import contextlib, pathlib\n"
        "from framegate.models.training.report import open_tensorboard\n"
        "from framegate.runtime.errors import UsageError\n"
        "try:\n    open_tensorboard(pathlib.Path(sys.argv[1]), contextlib.ExitStack())\n"
        "except UsageError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "pip install 'framegate[tensorboard]'" in done.stdout


def test_tensorboard_gets_every_epoch(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with contextlib.ExitStack() as closing:
        write = open_tensorboard(tmp_path, closing)
        write([{**RECORD, "epoch": 1}])
        write([RECORD])
    log = events.EventAccumulator(str(tmp_path))
    log.Reload()
    assert [(event.step, round(event.value, 4)) for event in log.Scalars("loss")] == [(1, 0.5123), (2, 0.5123)]
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        open_tensorboard(tmp_path / "file", contextlib.ExitStack())
