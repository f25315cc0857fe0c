"""What a checkpoint of framegate's own training says about where its weights come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from framegate.export.trained_checkpoint import TrainedCheckpoint
from framegate.models.checkpoint import save_checkpoint
from framegate.models.registry import build

PLAIN = {"data": "cifar10", "settings": {"adversarial": "none", "epsilon": 8 / 255}, "teacher": "", "start": ""}


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        (PLAIN, "trained from scratch by framegate train on cifar10"),
        ({**PLAIN, "teacher": "large.pt"}, "trained from scratch by framegate train on cifar10, taught by large.pt"),
        (
            {**PLAIN, "settings": {"adversarial": "n-fgsm", "epsilon": 8 / 255}},
            "trained from scratch by framegate train on cifar10, against attacks (n-fgsm, 8/255)",
        ),
        ({**PLAIN, "start": "earlier.pt"}, "not stated"),
        ({**PLAIN, "origin": "bought"}, "bought"),
        ({"data": "cifar10"}, "not stated"),
        ({}, "not stated"),
    ],
    ids=["from scratch", "taught", "against attacks", "begun from another", "stated", "no settings", "nothing"],
)
def test_weights_come_from_where_the_record_of_the_training_says(
    tmp_path: Path, notes: dict[str, Any], said: str
) -> None:
    path = tmp_path / "c.pt"
    save_checkpoint(path, build("simplecnn", 3, {}), {"name": "simplecnn", "classes": 3}, ("a", "b", "c"), notes)
    assert TrainedCheckpoint.read(path).origin()["weights"] == said
