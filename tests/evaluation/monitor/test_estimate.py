"""One bar for all that `framegate monitor` does, so that its estimate is one of the whole."""

from __future__ import annotations

from types import SimpleNamespace

from framegate.evaluation.command_monitor import whole_monitor
from framegate.evaluation.monitor.fit import Recipe


def test_the_bar_moves_with_every_stage_and_never_back():
    told: list[float] = []
    bundle = SimpleNamespace(models={"fp32": "a", "int8": "b"})
    splits = SimpleNamespace(test=range(2_000), calibration=range(5_000))
    whole = whole_monitor(lambda description, done, total: told.append(done / total), bundle, splits, Recipe())
    engines = [f"{name} 1.0, {precision}" for precision in ("fp32", "int8") for name in ("openvino", "onnxruntime")]
    stages = [
        *("monitor: clean images", "monitor: FGSM 2/255", "monitor: PGD-10 8/255", "monitor: attacks"),
        *("monitor: choosing layers", "monitor: attacks that it was not fitted on"),
        *engines,
        "monitor: PyTorch",
        *engines,
    ]
    reached = []
    for stage in stages:
        whole(stage, 0, 4)
        whole(stage, 4, 4)
        reached.append(told[-1])
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(set(reached[3:])) >= len(stages) - 4  # after the attacks on training images each stage moves it
