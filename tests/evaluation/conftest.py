"""A small network that really works, as a bundle: two colours, two labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import report_fixture
import torch
from made_once import made_once
from one_thread import graphs_run_on_one_thread  # noqa: F401 (a fixture)
from traced_once import Translate, traced_once

from framegate.export import bundle_writer
from framegate.export.calibration import attempts
from framegate.export.graph.fold import deployment_model
from framegate.export.graph.graph import save
from framegate.models.labelled import LabelledImages
from framegate.models.registry import architecture, build
from framegate.models.training.loop import Task, Trainer
from framegate.models.training.settings import TrainSettings

torch.set_num_threads(1)


def silent(description: str, done: int, total: int) -> None:
    """Nobody watches."""


def colours(count: int, seed: int, name: str) -> LabelledImages:
    """Three tints whose strength differs from frame to frame, some too faint to tell apart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.int64)
    images = rng.normal(110, 20, (count, 32, 32, 3))
    images[np.arange(count), :, :, labels] += rng.uniform(-2, 25, count)[:, None, None]
    return LabelledImages(name, np.clip(images, 0, 255).astype(np.uint8), labels)


@pytest.fixture(scope="session", name="colours")
def colours_fixture():
    return colours


@pytest.fixture(scope="session")
def invented_record():
    """The maker of invented results records."""
    return report_fixture.record


@pytest.fixture(scope="session")
def quiet():
    return silent


def train(folder: Path) -> torch.nn.Module:
    """Train the small network; its state is kept in the folder meanwhile."""
    torch.manual_seed(0)
    model = build("simplecnn", 3, {})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5
    task = Task(
        model, architecture("simplecnn").preprocess, colours(240, 0, "t"), colours(50, 1, "c"), lambda x, rng: x
    )
    settings = TrainSettings(epochs=4, batch=24, learning_rate=0.01, average=0.5)
    Trainer(task, settings, folder / "run.state", silent).run()
    return model


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> torch.nn.Module:
    folder = made_once(
        tmp_path_factory, "evaluation-trained", lambda folder: torch.save(train(folder).state_dict(), folder / "w.pt")
    )
    model = build("simplecnn", 3, {})
    model.load_state_dict(torch.load(folder / "w.pt"))
    return model.eval()


@pytest.fixture(scope="session")
def bundle_path(trained, tmp_path_factory) -> Path:
    """Without calibration: an evaluation fits its own thresholds."""
    translate = traced_once(tmp_path_factory, "simplecnn of 3 classes")
    folder = made_once(
        tmp_path_factory,
        "evaluation-bundle",
        lambda folder: write_bundle(trained, folder / "colours.bundle", translate),
    )
    return folder / "colours.bundle"


def write_bundle(trained: torch.nn.Module, target: Path, translate: Translate) -> None:
    """The trained network as a bundle."""
    network = architecture("simplecnn")
    with bundle_writer.staged(target, force=False) as folder:
        save(translate(deployment_model(trained), network.preprocess), folder / "model.fp32.onnx")
        bundle_writer.write_manifest(
            folder,
            name="colours",
            labels=("blue", "green", "red"),
            preprocess=network.preprocess,
            models={"fp32": "model.fp32.onnx"},
            taps=network.taps[::3],  # the first and the last: every tap is several scores
            origin={"architecture": {"name": "simplecnn"}, "training": {"data": "colours"}},
            parity=[],
        )


@pytest.fixture(scope="session", autouse=True)
def questions_of_these_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What was asked of calibration images is noted for the tests alone."""
    folder = tmp_path_factory.mktemp("asked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempts, "attempts_file", lambda split: folder / f"{split}.json")
        yield
