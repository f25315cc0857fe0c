"""A synthetic, complete results record. Nothing in it was measured: it is drawn from a seeded generator."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

FRAMES = 10000
CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
ATTACKS = [
    ("fgsm-0.03", "FGSM", "white box", 0.03, 1, 0.08),
    ("fgsm-8/255", "FGSM", "white box", 8 / 255, 1, 0.07),
    ("fgsm-51/255", "FGSM", "white box", 0.2, 1, 0.05),
    ("pgd-20-0.03", "PGD", "white box", 0.03, 20, 0.0),
    ("pgd-20-8/255", "PGD", "white box", 8 / 255, 20, 0.0),
    ("pgd-20x5-8/255", "PGD", "white box", 8 / 255, 20, 0.0),
    ("apgd-ce-8/255", "APGD-CE", "white box", 8 / 255, 50, 0.0),
    ("square-8/255", "Square", "black box", 8 / 255, 1000, 0.11),
    ("noise-8/255", "uniform noise", "noise", 8 / 255, None, 0.90),
]
LAYERS = ["trunk.features.0.0", "trunk.features.3.conv.0.0", "trunk.features.14.conv.0.0", "adapt.0"]
BASE = [
    ("entropy", "output", 0.93),
    ("max_probability", "output", 0.928),
    ("margin", "output", 0.926),
    ("energy", "output", 0.90),
    ("mahalanobis", "feature", 0.88),
    ("knn", "feature", 0.91),
    ("vim", "feature", 0.90),
    ("total_variation", "input", 0.56),
    ("high_frequency_energy", "input", 0.54),
    *((f"{layer}:{kind}", "activation", 0.52) for layer in LAYERS for kind in ("mass_entropy", "high_frequency_ratio")),
]
SCORES = [
    *BASE,
    *((f"two_sided({name})", family, auroc - 0.05) for name, family, auroc in BASE),
    ("logistic/network", "combined", 0.94),
    ("fisher/all", "combined", 0.85),
]
RULES = [
    ("entropy", 0.99, 0.97),
    ("entropy (two-sided)", 0.97, 0.20),
    ("trunk.features.0.0:high_frequency_ratio (two-sided)", 0.93, 0.35),
    ("entropy (two-sided) and trunk.features.0.0:high_frequency_ratio (two-sided)", 0.91, 0.1),
]
OOD = ["gtsrb", "photos", "gaussian noise", "uniform noise"]
CORRUPTIONS = [
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
]


def share(value: float, n: int = FRAMES) -> dict[str, Any]:
    """A share with a normal-approximation interval; good enough for a picture of nothing."""
    value = min(1.0, max(0.0, value))
    half = 1.96 * math.sqrt(max(value * (1 - value), 1e-5) / n)
    return {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half), "n": n}


def matrix(rng: np.random.Generator, classes: int, right: float) -> list[list[int]]:
    counts = rng.multinomial(int(1000 * (1 - right)), rng.dirichlet(np.full(classes, 0.4)), size=classes)
    counts[np.arange(classes), np.arange(classes)] += 1000 - counts.sum(axis=1)
    return counts.tolist()


def histogram(rng: np.random.Generator, shape: float, frames: int, edges: np.ndarray) -> list[int]:
    values = rng.gamma(shape, 0.35, frames).clip(0, edges[-1])
    return np.histogram(values, edges)[0].tolist()


def _scores(rng: np.random.Generator, accuracy: float) -> list[dict[str, Any]]:
    made = []
    for name, family, auroc in SCORES:
        bend = (auroc - 0.5) * 2 * (1 - accuracy)
        made.append(
            {
                "name": name,
                "family": family,
                "two_sided": name.startswith("two_sided"),
                "failure": {
                    "auroc": share(auroc),
                    "fpr95": share(1.3 - auroc),
                    "accepts95": share(1.35 - auroc),
                    "aurc": share(0.12 - 0.11 * auroc),
                    "eaurc": share(0.115 - 0.11 * auroc),
                    "augrc": share(0.1 - 0.09 * auroc),
                },
                "selective": [
                    {
                        "target_coverage": target,
                        "threshold": 1.6 * target - 0.2,
                        "coverage": share(target + rng.normal(0, 0.003)),
                        "accuracy": share(accuracy + bend * (1 - target) * 4),
                        "false_accept_rate": share(target * (1 - accuracy - bend * (1 - target) * 4)),
                    }
                    for target in (0.95, 0.9, 0.8, 0.7)
                ],
                "attacks": {
                    key: {
                        "auroc": share(rng.uniform(0.02, 0.99), 2000),
                        "fpr95": share(rng.uniform(0.1, 1), 2000),
                        "far": share(rng.uniform(0.2, 1.0) * (1 - robust), 1000),
                    }
                    for key, _, _, _, _, robust in ATTACKS
                    if key.endswith(("-0.03", "-8/255"))
                },
                "ood": {
                    key: {
                        "auroc": share(rng.uniform(0.5, 0.99)),
                        "fpr95": share(rng.uniform()),
                        "accepted": share(rng.uniform()),
                    }
                    for key in OOD
                },
                "corruptions": {"auroc": share(rng.uniform(0.5, 0.8), 7500), "far": share(rng.uniform(0.1, 0.3), 7500)},
            }
        )
    return made


def _attacks(rng: np.random.Generator, classes: int) -> list[dict[str, Any]]:
    return [
        {
            "key": key,
            "name": name,
            "kind": kind,
            "epsilon": epsilon,
            "steps": steps,
            "restarts": 5 if "x5" in key else 1,
            "step_size": None if steps is None else epsilon / 4,
            "random_start": name == "PGD",
            "loss": "cross-entropy",
            "n": 1000,
            "accuracy": share(robust, 1000),
            "accepted_wrong": share((1 - robust) * (0.4 if kind == "noise" else 0.96), 1000),
            "confusion": matrix(rng, classes, robust) if name == "PGD" else None,
        }
        for key, name, kind, epsilon, steps, robust in ATTACKS
    ]


def _layers(rng: np.random.Generator) -> list[dict[str, Any]]:
    def quantiles(shift: float) -> dict[str, float]:
        places = {"p5": -1.6, "p25": -0.7, "p50": 0.0, "p75": 0.7, "p95": 1.6}
        return {name: 2.5 + shift + place * 0.3 for name, place in places.items()}

    return [
        {
            "tap": f"{layer}:{statistic}",
            "clean": quantiles(0),
            "attacked": {key: quantiles(rng.normal(0, 0.4)) for key, *_ in ATTACKS[1:6:3]},
            "auroc": {key: share(rng.uniform(0.45, 0.9), 2000) for key, *_ in ATTACKS[1:6:3]},
        }
        for statistic in ("mass_entropy", "high_frequency_ratio")
        for layer in LAYERS
    ]


def _batches() -> list[dict[str, Any]]:
    return [
        {
            "protocol": "30 bins over the batch's range",
            "layer": layer,
            "attack": key,
            "unit": unit,
            "auroc": share(level + gain, decisions),
            "detection_accuracy": share(level + gain, decisions),
            "decisions": decisions,
        }
        for layer in ("trunk.features.0.0",)
        for key, level in (("fgsm-8/255", 0.55), ("fgsm-51/255", 0.8), ("pgd-20-8/255", 0.52))
        for unit, gain, decisions in (("frame", 0.0, 2000), ("batch 16", 0.1, 124), ("batch 128", 0.2, 14))
    ]


def record(classes: int = 10, accuracy: float = 0.93, data: str = "cifar10") -> dict[str, Any]:
    """Every key of the format, filled with invented figures."""
    rng = np.random.default_rng(0)
    edges = np.linspace(0, math.log(classes), 41)
    grid = np.linspace(0.02, 1, 50)
    return {
        "format": "framegate-evaluation-1",
        "bundle": {
            "name": "synthetic-example",
            "manifest_sha256": "0" * 64,
            "architecture": "hybrid",
            "labels": CIFAR if classes == 10 else [f"class {k}" for k in range(classes)],
            "model_file": "model.fp32.onnx",
            "precision": "fp32",
            "score": "entropy",
            "data": data,
            "training": {"settings": {"epochs": 10, "learning_rate": 0.001}, "seed": 0},
        },
        "suite": "full",
        "limit": None,
        "seed": 0,
        "main_attack": "pgd-20-8/255",
        "started": "2000-01-01T00:00:00+00:00",
        "seconds": 1234.5,
        "machine": {"cpu": "imaginary", "cores": 2, "versions": {"numpy": "0.0"}, "commit": "0" * 40},
        "sizes": {"calibration": 5000, "test": FRAMES},
        "clean": {
            "accuracy": share(accuracy),
            "temperature": 1.4,
            "ece": share(0.04),
            "ece_temperature": share(0.01),
            "confusion": matrix(rng, classes, accuracy),
            "backends": [
                {
                    "key": key,
                    "accuracy": share(accuracy),
                    "coverage": share(0.7),
                    "selective_risk": share(0.006, 7000),
                    "false_accept_rate": share(0.004),
                }
                for key in ("openvino/fp32", "openvino/int8", "onnxruntime/int8")
            ],
        },
        "scores": _scores(rng, accuracy),
        "best": {
            "failure": "logistic/network",
            "ood": "knn",
            "attack": "vim",
            "overall": "logistic/network",
            "corruption": "energy",
            "why": "invented for this test",
        },
        "attacks": _attacks(rng, classes),
        "adaptive": [
            {
                "score": name,
                "epsilon": 8 / 255,
                "steps": 100,
                "n": 500,
                "threshold": 1.1,
                "misclassified": share(1.0, 500),
                "evaded": share(evaded, 500),
                "plain_pgd_accepted": share(plain, 500),
                "auroc": share(0.45, 1000),
                "blind": 0.0,
                "weightings": {"0.1": 0.2, "1": 0.5, "10": 0.3},
            }
            for name, evaded, plain in RULES
        ],
        "health": [
            {"name": "more steps are not weaker", "passed": True, "detail": "0.0 % after 100 steps, 0.0 % after 20"},
            {"name": "white box beats black box", "passed": True, "detail": "0.0 % against 11.0 %"},
        ],
        "epsilon_curve": [
            {
                "attack": attack,
                "epsilon": k / 255,
                "accuracy": share(accuracy * math.exp(-k * rate), 1000),
                "false_accept_rate": share((1 - accuracy * math.exp(-k * rate)) * 0.9, 1000),
            }
            for attack, rate in (("fgsm", 0.4), ("pgd", 1.5))
            for k in (0, 1, 2, 4, 8, 16)
        ],
        "corruptions": [
            {
                "name": name,
                "severity": severity,
                "n": 500,
                "accuracy": share(accuracy - 0.02 * severity * (1 + k % 4), 500),
                "coverage": share(0.95 - 0.03 * severity, 500),
                "false_accept_rate": share(0.03 + 0.01 * severity * (1 + k % 4), 500),
            }
            for k, name in enumerate(CORRUPTIONS)
            for severity in range(1, 6)
        ],
        "ood": [{"name": name, "n": 2000, "accepted": share(0.2 + 0.2 * k, 2000)} for k, name in enumerate(OOD)],
        "risk_coverage": {
            name: {"coverage": grid.tolist(), "risk": ((1 - accuracy) * grid ** (6 * (auroc - 0.49))).tolist()}
            for name, _, auroc in SCORES[:9]
        },
        "entropy_histograms": {
            "edges": edges.tolist(),
            "right": histogram(rng, 0.3, 9300, edges),
            "wrong": histogram(rng, 2.5, 700, edges),
            "attacked": {
                "pgd-20-8/255": histogram(rng, 0.05, 1000, edges),
                "fgsm-8/255": histogram(rng, 1.5, 1000, edges),
            },
        },
        "layerwise": _layers(rng),
        "batchwise": _batches(),
        "batch_rule": [
            {"input": key, "coverage": kept, "accuracy_accepted": right, "accuracy": right, "batches": 79}
            for key, kept, right in (("clean", 0.97, 0.93), ("fgsm-8/255", 0.6, 0.07), ("pgd-20-8/255", 0.0, None))
        ],
    }


def without_figures(record: Any) -> Any:
    """The same record with None in place of every number: all names, and nothing that was measured."""
    if isinstance(record, dict):
        return {key: without_figures(value) for key, value in record.items()}
    if isinstance(record, list):
        return [without_figures(value) for value in record]
    return None if isinstance(record, int | float) and not isinstance(record, bool) else record
