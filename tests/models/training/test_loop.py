from __future__ import annotations

import numpy as np
import pytest
import torch

from framegate.models.hybrid import HybridClassifier
from framegate.models.labelled import LabelledImages
from framegate.models.predict import predict
from framegate.models.registry import architecture, build
from framegate.models.training import augment
from framegate.models.training.loop import Task, Trainer, choose_device, outlier_loss
from framegate.models.training.outliers import make_outliers
from framegate.models.training.settings import TrainSettings
from framegate.runtime.errors import DataError, UsageError

torch.set_num_threads(1)


def silent(description: str, done: int, total: int) -> None:
    """Nobody watches."""


def two_colours(count: int = 48, seed: int = 0) -> LabelledImages:
    """Two plain colours with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.integers(0, 60, (count, 32, 32, 3)).astype(np.uint8)
    images[labels == 0, :, :, 0] += 180
    images[labels == 1, :, :, 2] += 180
    return LabelledImages("colours", images, labels)


def quick(network):
    """Batch statistics that adapt within the few steps of a test."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5
    return network


def trainer(tmp_path, progress=silent, name="simplecnn", teacher=None, **settings):
    torch.manual_seed(0)
    task = Task(
        quick(build(name, 2, {})),
        architecture(name).preprocess,
        two_colours(),
        two_colours(40, 1),
        augment.objects,
        teacher,
    )
    chosen = {"epochs": 4, "batch": 8, "learning_rate": 0.01, "average": 0.5, **settings}
    return Trainer(task, TrainSettings(**chosen), tmp_path / "run.state", progress)


def accuracy(run: Trainer) -> float:
    split = two_colours(40, 2)
    return float(np.mean(predict(run.task.model, split.images, run.task.preprocess).argmax(1) == split.labels))


def test_training_learns_and_tells_its_progress(tmp_path):
    calls = []
    run = trainer(tmp_path, lambda *call: calls.append(call))
    history = run.run()
    assert history[-1]["train_accuracy"] > 0.95
    assert history[-1]["loss"] < history[0]["loss"]
    assert calls[-1][0].startswith("epoch 4/4  loss ")
    assert calls[-1][1:] == (24, 24)
    assert accuracy(run) > 0.9
    assert not run.task.model.training


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_ends(tmp_path, optimizer):
    whole = trainer(tmp_path / "whole", optimizer=optimizer)
    whole.run()

    class CutError(Exception):
        pass

    def cut(description, done, total):
        if done == 15:  # in the middle of the third epoch
            raise CutError

    with pytest.raises(CutError):
        trainer(tmp_path / "cut", cut, optimizer=optimizer).run()
    resumed = trainer(tmp_path / "cut", optimizer=optimizer)
    assert len(resumed.run(resume=True)) == 4
    for name, value in whole.task.model.state_dict().items():
        torch.testing.assert_close(resumed.task.model.state_dict()[name], value, msg=name)


def test_resuming_with_other_settings_or_nothing_to_resume(tmp_path):
    with pytest.raises(DataError, match="does not exist; start without --resume"):
        trainer(tmp_path).run(resume=True)
    trainer(tmp_path, epochs=1).run()
    with pytest.raises(UsageError, match=r"made with epochs 1, now 4 is given"):
        trainer(tmp_path).run(resume=True)
    with pytest.raises(DataError, match="belongs to another network"):
        trainer(tmp_path, epochs=1, name="mobilenet").run(resume=True)
    (tmp_path / "run.state").write_bytes(b"PK garbage")
    with pytest.raises(DataError, match="is damaged"):
        trainer(tmp_path).run(resume=True)


def test_a_run_that_had_decided_to_end_trains_no_further_when_it_is_resumed(tmp_path):
    trainer(tmp_path, epochs=1).run()
    state = torch.load(tmp_path / "run.state", weights_only=True)
    state["settings"]["epochs"] = 2
    state["watch"]["reason"] = "no better robust accuracy"
    torch.save(state, tmp_path / "run.state")
    again = trainer(tmp_path, epochs=2)
    assert len(again.run(resume=True)) == 1
    assert again.stop_reason == "no better robust accuracy"


def test_a_state_from_before_a_setting_existed_is_resumed(tmp_path):
    trainer(tmp_path, epochs=1).run()
    state = torch.load(tmp_path / "run.state", weights_only=True)
    del state["settings"]["interval_bounds"]
    torch.save(state, tmp_path / "run.state")
    assert len(trainer(tmp_path, epochs=1).run(resume=True)) == 1


def test_a_diverging_run_says_so(tmp_path):
    with pytest.raises(DataError, match="diverged in epoch 1"):
        trainer(tmp_path, optimizer="sgd", learning_rate=1e25).run()


@pytest.mark.parametrize("more", [{}, {"name": "plaincnn", "interval_bounds": 1 / 255}, {"adversarial": "n-fgsm"}])
def test_a_student_learns_from_a_teacher_alone(tmp_path, more):
    """With interval bounds the teacher was asked, and nothing was learned from it."""
    split = two_colours()
    # The teacher calls every colour the other one: only a student that follows it does too.
    teacher = torch.from_numpy(8.0 * np.eye(2, dtype=np.float32)[1 - split.labels])
    run = trainer(tmp_path, teacher=teacher, distillation=1.0, epochs=6, **more)
    run.run()
    assert accuracy(run) < 0.1


@pytest.mark.parametrize(
    "kind",
    [{"adversarial": kind} for kind in ("fgsm-rs", "n-fgsm", "pgd", "trades")] + [{"interval_bounds": 1 / 255}, {}],
)
def test_smooth_labels_count_in_every_loss(tmp_path, kind):
    """They were read and left out of the losses of TRADES and of interval bounds."""
    losses = []
    for smoothing in (0.0, 0.5):
        run = trainer(tmp_path / f"{smoothing}", name="plaincnn", epochs=1, label_smoothing=smoothing, **kind)
        losses.append(run.run()[0]["loss"])
    assert losses[0] != losses[1]


def test_outliers_get_no_certain_answer(tmp_path):
    run = trainer(tmp_path, views=1, outlier_share=0.125)
    history = run.run()
    assert history[-1]["outlier_loss"] < 0.5  # a certain answer costs several times as much
    assert accuracy(run) > 0.9


@pytest.mark.parametrize("epochs", [1, pytest.param(8, marks=pytest.mark.long)])
def test_frozen_blocks_stay_and_the_rest_learns(tmp_path, epochs):
    torch.manual_seed(0)
    network = quick(HybridClassifier(2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    # A random trunk passes nothing on until its batch normalisation has adapted, so only the stem stays frozen.
    settings = TrainSettings(views=1, epochs=epochs, batch=8, frozen_blocks=1, learning_rate=0.004, average=0.5,
                             outlier_share=0.125)  # fmt: skip
    task = Task(network, architecture("hybrid").preprocess, two_colours(32), two_colours(8), augment.objects)
    run = Trainer(task, settings, tmp_path / "run.state", silent)
    history = run.run()
    if epochs > 1:
        assert history[-1]["train_accuracy"] > 0.95
        assert history[-1]["outlier_loss"] < 0.3
    after = network.state_dict()
    frozen = [name for name in after if name.startswith("trunk.features.0.")]
    assert len(frozen) >= 3
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(before["trunk.features.17.conv.2.weight"], after["trunk.features.17.conv.2.weight"])


def test_adversarial_training_keeps_the_most_robust_weights(tmp_path):
    run = trainer(tmp_path, adversarial="fgsm-rs", epsilon=0.1, epochs=3)
    history = run.run()
    robust = [record["robust_held_out_accuracy"] for record in history]
    assert max(robust) > 0.8  # two colours 180 apart withstand 0.1 = 25 grey values
    assert accuracy(run) > 0.9


def test_only_the_hybrid_has_blocks_to_freeze(tmp_path):
    with pytest.raises(UsageError, match="only the hybrid has trunk blocks to freeze"):
        trainer(tmp_path, frozen_blocks=2)
    with pytest.raises(UsageError, match="0 to 19"):
        trainer(tmp_path, name="hybrid", frozen_blocks=20)


def test_a_missing_device_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(UsageError, match="sees no CUDA device"):
        choose_device("cuda")


def test_a_uniform_answer_costs_nothing():
    assert float(outlier_loss(torch.full((3, 5), 2.0))) == pytest.approx(0, abs=1e-6)
    assert float(outlier_loss(torch.tensor([[9.0, 0.0]]))) > 3


@pytest.mark.parametrize(
    "make", [augment.objects, augment.signs, augment.volumes(4), lambda i, rng: make_outliers(i, 20, rng)]
)
def test_views_and_outliers_repeat_with_the_seed(make):
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    one, two = make(images, np.random.default_rng(3)), make(images, np.random.default_rng(3))
    np.testing.assert_array_equal(one, two)
    assert one.shape == (20, 32, 32, 3)
    assert one.dtype == np.uint8
    assert not np.array_equal(one, make(images, np.random.default_rng(4)))


def test_training_leaves_the_process_with_exact_arithmetic(tmp_path):
    trainer(tmp_path, epochs=1).run()
    assert torch.tensor(1e-40).mul(1.0).item() != 0.0
    assert np.float32(1e-40) * np.float32(1) != 0


def test_signs_are_never_mirrored():
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[:, :, :8] = 255  # a bar on the left
    rng = np.random.default_rng(0)
    for _ in range(50):
        view = augment.signs(image, rng)[0].astype(int)
        assert view[:, :16].sum() > view[:, 16:].sum()


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"batch": 0}, {"views": 0}, {"learning_rate": float("nan")},
                                 {"distillation": 2.0}, {"optimizer": "lion"}, {"adversarial": "cw"}])  # fmt: skip
def test_settings_out_of_range(bad):
    with pytest.raises(UsageError):
        TrainSettings(**bad)


def test_interval_bounds_train_the_plain_network_and_go_on_after_an_interruption(tmp_path):
    settings = {"name": "plaincnn", "interval_bounds": 1 / 255, "epochs": 2}
    whole = trainer(tmp_path / "whole", **settings)
    whole.run()
    first = trainer(tmp_path / "cut", **settings)

    def interrupt(description, done, total):
        if done > len(first.batches):
            raise KeyboardInterrupt

    first.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        first.run()
    again = trainer(tmp_path / "cut", **settings)
    assert len(again.run(resume=True)) == 2
    weights = [run.task.model.classify.weight for run in (whole, again)]
    torch.testing.assert_close(*weights)


def test_interval_bounds_of_a_network_without_them_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"outlier share: 0\.5 given"):
        trainer(tmp_path, name="plaincnn", interval_bounds=1 / 255, outlier_share=0.5)
    with pytest.raises(UsageError, match="only plaincnn"):
        trainer(tmp_path, interval_bounds=1 / 255)
