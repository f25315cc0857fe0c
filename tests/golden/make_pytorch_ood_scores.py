"""Writes pytorch_ood_scores.json: feature scores of pytorch-ood on drawn inputs, to compare ours with.

    pip install --no-deps --target DIR pytorch-ood==0.4.0
    PYTHONPATH=DIR python tests/golden/make_pytorch_ood_scores.py

(torch, numpy and scipy come from the environment; torchvision, which its other modules ask for, is not needed.)
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from drawn_digest import digest

PACKAGE = "pytorch_ood"
SEED, FITTED, SCORED, FEATURES, CLASSES, NEIGHBOURS = 5, 400, 12, 24, 6, 7


def drawn() -> dict[str, np.ndarray]:
    """Float32 features of two sets, a linear head, and float64 labels' means they scatter around."""
    rng = np.random.default_rng(SEED)
    weight = rng.normal(size=(CLASSES, FEATURES)).astype(np.float32)
    bias = rng.normal(size=CLASSES).astype(np.float32)
    means = rng.normal(size=(CLASSES, FEATURES)) * 1.5
    labels = rng.integers(0, CLASSES, FITTED)
    fitted = (means[labels] + rng.normal(size=(FITTED, FEATURES)) * np.linspace(0.1, 2, FEATURES)).astype(np.float32)
    scored = (rng.normal(size=(SCORED, FEATURES)) * 2).astype(np.float32)
    return {"weight": weight, "bias": bias, "labels": labels, "fitted": fitted, "scored": scored}


def detector_modules() -> dict[str, types.ModuleType]:
    root = Path(str(importlib.util.find_spec(PACKAGE).origin)).parent
    for name in ("", ".detector"):
        package = types.ModuleType(PACKAGE + name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        package.__version__ = version("pytorch-ood")
        sys.modules[PACKAGE + name] = package
    names = ("vim", "fdbd", "knn", "gen", "energy")
    return {name: importlib.import_module(f"{PACKAGE}.detector.{name}") for name in names}


def main() -> None:
    torch.set_grad_enabled(False)
    modules = detector_modules()
    arrays = drawn()
    weight, bias, fitted, scored = (torch.from_numpy(arrays[key]) for key in ("weight", "bias", "fitted", "scored"))
    labels = torch.from_numpy(arrays["labels"])
    head = torch.nn.Linear(FEATURES, CLASSES)
    head.weight.copy_(weight)
    head.bias.copy_(bias)
    identity = torch.nn.Identity()
    detectors = {
        "vim": modules["vim"].ViM(identity, FEATURES // 2, weight, bias),
        "fdbd": modules["fdbd"].fDBD(identity, head),
        "knn": modules["knn"].KNN(identity, k=NEIGHBOURS),
    }
    scores = {name: d.fit_features(fitted, labels).predict_features(scored).tolist() for name, d in detectors.items()}
    scores["gen"] = modules["gen"].GEN.score(head(scored)).tolist()
    scores["energy"] = modules["energy"].EnergyBased.score(head(scored)).tolist()
    record = {
        "made_with": {name: version(name) for name in ("pytorch-ood", "torch", "numpy")},
        "sha256": digest(arrays.values()),
        "scores": scores,
    }
    path = Path(__file__).with_name("pytorch_ood_scores.json")
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
