"""Folding must not move the network, and rounding must do exactly what it says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from framegate.export.graph.fold import deployment_model, fold_batch_norm, round_to_half
from framegate.models.hybrid import HybridClassifier
from framegate.runtime.errors import ExportRefusedError

IMAGES = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(3)) * 2 - 1


def _batch_norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


# Keras' asymmetric padding lives in a subclass of Conv2d that a careless fold would replace.
@pytest.mark.parametrize(("convolution", "keras_trunk"), [("grouped", True), ("depthwise", False)])
def test_folded_network_computes_the_same(random_model, convolution: str, keras_trunk: bool) -> None:
    model = random_model(5, convolution, keras_trunk)
    folded = fold_batch_norm(model)
    assert _batch_norms(model) > 50
    assert _batch_norms(folded) == 0
    with torch.inference_mode():
        expected, found = model(IMAGES), folded(IMAGES)
    assert expected.std() > 0.01
    assert (expected - found).abs().max() < 1e-4 * expected.std()


def test_deployment_model_holds_half_precision_weights_and_leaves_the_original_alone(
    classifier: HybridClassifier,
) -> None:
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    deployed = deployment_model(classifier)
    halved = kept_rounded = 0
    for parameter in deployed.parameters():
        rounded = bool(torch.equal(parameter.half().float(), parameter))
        depthwise = parameter.dim() == 4 and parameter.shape[1] == 1
        if parameter.dim() > 1 and not depthwise:
            assert rounded
            halved += 1
        else:
            kept_rounded += rounded
    assert halved > 30
    assert kept_rounded < 5, "biases and depthwise kernels must stay float32"
    assert not deployed.training
    for name, value in classifier.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_batch_norm_that_follows_no_convolution_is_refused() -> None:
    with pytest.raises(ExportRefusedError, match="does not follow a convolution"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)))


@pytest.mark.parametrize("value", [1e5, float("nan"), float("inf")])
def test_a_weight_beyond_half_precision_is_refused(value: float) -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight[1, 0] = value
    with pytest.raises(ExportRefusedError, match="weight"):
        round_to_half(model)
