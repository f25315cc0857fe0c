"""Writes torch_uncertainty_metrics.json: figures of torch-uncertainty on drawn inputs, to compare ours with.

torch-uncertainty asks for torchvision and lightning, which its metrics do not need. Install it beside, without them:

    pip install --no-deps --target DIR torch-uncertainty==0.13.0 torchmetrics==1.9.0 lightning-utilities seaborn pandas
    PYTHONPATH=DIR python tests/golden/make_torch_uncertainty_metrics.py

(torch, numpy, scipy and matplotlib come from the environment.)
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

PACKAGE = "torch_uncertainty"
CASES = (
    {"seed": 1, "n": 50, "classes": 3},
    {"seed": 2, "n": 400, "classes": 10},
    {"seed": 3, "n": 3000, "classes": 43},
)


def drawn(seed: int, n: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, classes) float64 logits that know something about the (n,) labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(size=(n, classes)) * 2.0
    logits[np.arange(n), labels] += rng.normal(3.0, 2.0, n)
    return logits, labels


def metric_modules() -> tuple[types.ModuleType, ...]:
    """The metric modules, with the packages above them left empty: those would import what is not installed."""
    root = Path(str(importlib.util.find_spec(PACKAGE).origin)).parent
    for name in ("", ".metrics", ".metrics.classification"):
        package = types.ModuleType(PACKAGE + name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[PACKAGE + name] = package
    base = f"{PACKAGE}.metrics.classification"
    return tuple(
        importlib.import_module(f"{base}.{name}") for name in ("risk_coverage", "fpr", "calibration.calibration_error")
    )


def main() -> None:
    risk_coverage, fpr, calibration = metric_modules()
    records = []
    for case in CASES:
        logits, labels = drawn(**case)
        probabilities, targets = torch.from_numpy(logits).softmax(1), torch.from_numpy(labels)
        record = dict(case, sha256=digest((logits, labels)))
        for name, metric in (("aurc", risk_coverage.AURC()), ("augrc", risk_coverage.AUGRC())):
            metric.update(probabilities, targets)
            record[name] = float(metric.compute())
        wrong = (probabilities.argmax(1) != targets).long()
        uncertainty = 1.0 - probabilities.amax(1)
        for name, scores in (("fpr95", uncertainty), ("fpr95_tied", (uncertainty * 8).round())):
            metric = fpr.FPR95(pos_label=1)
            metric.update(scores, wrong)
            record[name] = float(metric.compute())
        metric = calibration.CalibrationError(task="multiclass", num_classes=case["classes"], num_bins=15, norm="l1")
        metric.update(probabilities, targets)
        record["ece"] = float(metric.compute())
        records.append(record)
    made_with = {name: version(name) for name in ("torch-uncertainty", "torchmetrics", "torch", "numpy")}
    path = Path(__file__).with_name("torch_uncertainty_metrics.json")
    path.write_text(json.dumps({"made_with": made_with, "cases": records}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
