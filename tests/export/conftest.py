"""One small classifier that really works, exported once for all tests of this room.

The network is random but for its last layer, which is solved by least squares: three colours, three labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from made_once import made_once
from one_thread import graphs_run_on_one_thread  # noqa: F401 (a fixture)
from torch import nn
from traced_once import traced_once

from framegate.export.calibration import attempts
from framegate.export.graph.fold import deployment_model
from framegate.export.int8.quantize import to_int8
from framegate.models.hybrid import HybridClassifier
from framegate.models.labelled import LabelledImages
from framegate.models.predict import to_tensor
from framegate.models.registry import architecture

PREPROCESS = architecture("hybrid").preprocess

# Many small kernels: on a busy machine two threads spend their time waiting for each other.
torch.set_num_threads(1)


def silent(description: str, done: int, total: int) -> None:
    """A progress callback for those who do not look."""


def coloured_images(count: int, seed: int, name: str = "colours") -> LabelledImages:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.int64)
    pixels = rng.normal(70, 15, (count, 32, 32, 3))
    pixels[np.arange(count), :, :, labels] += 100
    return LabelledImages(name, np.clip(pixels, 0, 255).astype(np.uint8), labels)


def random_classifier(classes: int = 3, convolution: str = "grouped", keras_trunk: bool = True) -> HybridClassifier:
    """Random weights, and batch statistics as a trained network has them: none is a zero or a one."""
    torch.manual_seed(7)
    model = HybridClassifier(classes, convolution, keras_trunk=keras_trunk)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0.0, 0.1)
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="session")
def random_model() -> Callable[..., HybridClassifier]:
    return random_classifier


@pytest.fixture(scope="session")
def colours() -> Callable[..., LabelledImages]:
    return coloured_images


@pytest.fixture(scope="session")
def quiet() -> Callable[[str, int, int], None]:
    return silent


def working_classifier() -> HybridClassifier:
    """The random one that tells three colours apart."""
    model = random_classifier()
    split = coloured_images(60, seed=1)
    tensors = to_tensor(split.images, PREPROCESS)
    pooled = []
    with torch.no_grad():
        # One pass gives every batch normalisation the statistics of these images, as training would. Most values
        # then lie inside (0, 6), where ReLU6 is linear, and kernels favour their centre, so that borders count little:
        # colours get through fifty random layers.
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.weight.mul_(0.05)
                module.weight[:, :, 1, 1] *= 20.0
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
                nn.init.constant_(module.weight, 0.7)
                nn.init.constant_(module.bias, 3.0)
        model.train()(tensors)
        hook = model.pool.register_forward_hook(lambda module, inputs, output: pooled.append(output.flatten(1)))
        model.eval()(tensors)
        hook.remove()
        features = pooled[0].double()
        mean = features.mean(0)
        wanted = 6.0 * nn.functional.one_hot(torch.from_numpy(split.labels), 3).double() - 2.0
        square = (features - mean).T @ (features - mean)
        ridge = 1e-2 * square.diagonal().mean() * torch.eye(128, dtype=torch.float64)
        solved = torch.linalg.solve(square + ridge, (features - mean).T @ wanted)
        model.classify.weight.copy_(solved.T)
        model.classify.bias.copy_(-mean @ solved)
    return model


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> HybridClassifier:
    def make(folder: Path) -> None:
        torch.save(working_classifier().state_dict(), folder / "state.pt")

    model = random_classifier()
    model.load_state_dict(torch.load(made_once(tmp_path_factory, "export-classifier", make) / "state.pt"))
    return model


@pytest.fixture(scope="session")
def deployed(classifier: HybridClassifier) -> nn.Module:
    return deployment_model(classifier)


@pytest.fixture(scope="session")
def graph(deployed: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return traced_once(tmp_path_factory, "hybrid of 3 classes")(deployed, PREPROCESS)


@pytest.fixture(scope="session")
def int8_graph(graph: onnx.ModelProto, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    def make(folder: Path) -> None:
        images = coloured_images(12, seed=2).images
        onnx.save(to_int8(graph, images, PREPROCESS, ["trunk.features.1.conv.1"], silent), folder / "graph.onnx")

    return onnx.load(made_once(tmp_path_factory, "export-int8", make) / "graph.onnx")


@pytest.fixture(scope="session", autouse=True)
def questions_of_these_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What was asked of calibration images is noted for the tests alone."""
    folder = tmp_path_factory.mktemp("asked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempts, "attempts_file", lambda split: folder / f"{split}.json")
        yield
