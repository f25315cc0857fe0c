"""Small real bundles: a few ONNX operators that both CPU engines run in microseconds."""

from __future__ import annotations

import functools
import gc
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from parallel_run import (  # noqa: F401 (pytest looks for hooks here)
    pytest_addoption,
    pytest_collection,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_xdist_auto_num_workers,
)

from framegate.runtime import pipeline, realtime
from framegate.runtime.bundle.bundle import CALIBRATION, MANIFEST, calibration_binding, manifest_digest

SIDE = 32
LABELS = ["blue", "green", "red"]


def _graph(kind: str) -> onnx.ModelProto:
    """Input (N, 3, 32, 32) -> (N, 3) logits; the mean of each channel (RGB order), scaled, decides.

    Kinds: ``colour`` (logits = 8 x mean colour, so a strongly coloured image is certain and a grey one is not),
    ``nan`` (logarithm of a negative number), ``infinite`` (division by zero), ``masked`` (one logit is -inf),
    ``failing`` (an index computed from the image is out of range: the engine itself raises).
    """
    scale = numpy_helper.from_array(np.diag([8.0, 8.0, 8.0]).astype(np.float32)[::-1].copy(), "scale")
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "scale"], ["colour"], transB=1),
    ]
    initializers = [scale]
    if kind == "colour":
        nodes.append(helper.make_node("Identity", ["colour"], ["logits"]))
    elif kind == "nan":
        initializers.append(numpy_helper.from_array(np.float32(-1e6), "shift"))
        nodes += [helper.make_node("Add", ["colour", "shift"], ["low"]), helper.make_node("Log", ["low"], ["logits"])]
    elif kind == "infinite":
        initializers.append(numpy_helper.from_array(np.float32(0), "zero"))
        nodes += [
            helper.make_node("Abs", ["colour"], ["positive"]),
            helper.make_node("Div", ["positive", "zero"], ["logits"]),
        ]
    elif kind == "masked":
        initializers.append(numpy_helper.from_array(np.array([1, 1, 0], np.float32), "kept"))
        nodes += [helper.make_node("Log", ["kept"], ["mask"]), helper.make_node("Add", ["colour", "mask"], ["logits"])]
    elif kind == "failing":
        initializers.append(numpy_helper.from_array(np.array([1000, 1001, 1002], np.float32), "far"))
        nodes += [
            helper.make_node("ReduceMax", ["flat"], ["largest"], keepdims=0),
            helper.make_node("Add", ["far", "largest"], ["where"]),
            helper.make_node("Cast", ["where"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["colour", "index"], ["logits"], axis=1),
        ]
    else:
        raise ValueError(kind)
    graph = helper.make_graph(
        nodes,
        kind,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_bundle(
    folder: Path,
    kind: str = "colour",
    threshold: float | None = 0.5,
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    folder.mkdir(parents=True)
    onnx.save(_graph(kind), folder / "model.fp32.onnx")
    onnx.save(_graph(kind), folder / "model.int8.onnx")
    files = ["model.fp32.onnx", "model.int8.onnx"]
    if threshold is not None:
        record = {
            "temperature": 1.0,
            "score": "entropy",
            "threshold": threshold,
            "target_risk": 0.05,
            "confidence_level": 0.95,
            "risk_bound": 0.04,
            "coverage": 0.9,
            "selective_risk": 0.01,
            "size": 1000,
            "fingerprint": "0" * 64,
            "model_sha256": _sha(folder / "model.fp32.onnx"),
            "engine": "test",
        }
        keys = [f"{b}/{p}" for b in ("openvino", "onnxruntime") for p in ("fp32", "int8")]
        calibration = {"format": "framegate-calibration-2", "records": dict.fromkeys(keys, record)}
        (folder / "calibration.json").write_text(json.dumps(calibration))
        files.append("calibration.json")
    manifest = {
        "format": "framegate-bundle-2",
        "name": "tiny",
        "labels": LABELS,
        "preprocess": {
            "width": SIDE,
            "height": SIDE,
            "resize": "bilinear",
            "fit": "stretch",
            "colour": "rgb",
            "mean": [127.5] * 3,
            "std": [127.5] * 3,
        },
        "models": {"fp32": "model.fp32.onnx", "int8": "model.int8.onnx"},
        "outputs": {"logits": "logits"},
        "taps": [],
        "origin": {"model": "made by the tests"},
        "parity": [],
        "files": {name: _sha(folder / name) for name in files},
    }
    if change is not None:
        change(manifest)
    vouch(folder, manifest)
    return folder


def vouch(folder: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest whose digest fits, whatever it says; the calibration is bound to it if its hash is right."""
    files = manifest.get("files")
    path = folder / CALIBRATION
    if isinstance(files, dict) and path.is_file() and files.get(CALIBRATION) == _sha(path):
        with suppress(KeyError, TypeError):
            calibration = json.loads(path.read_text())
            path.write_text(json.dumps({**calibration, "binds": calibration_binding(manifest)}))
            files[CALIBRATION] = _sha(path)
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


class OnlyYoungGarbage:
    """The module gc, but for what goes over everything: among 7,000 tests that takes half a second.

    What it would unfreeze are the collected tests (tests/helpers/parallel_run.py), which stay to the end.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(gc, name)

    @staticmethod
    def collect() -> int:
        return gc.collect(1)

    @staticmethod
    def unfreeze() -> None:
        return


@pytest.fixture(scope="session", autouse=True)
def pipelines_start_quickly() -> Iterator[None]:
    """A test in tests/runtime/test_pipeline.py puts the real one back, and every process of its own has it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (pipeline, realtime):
            patch.setattr(module, "gc", OnlyYoungGarbage())
        yield


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write a fresh bundle that the test may damage: make_bundle(kind=..., threshold=..., change=...)."""
    made = 0

    def make(**options: Any) -> Path:
        nonlocal made
        made += 1
        return write_bundle(tmp_path / f"tiny{made}.bundle", **options)

    return make


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle, shared: do not change it."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny.bundle")


@pytest.fixture(scope="session")
def coloured() -> Callable[..., np.ndarray]:
    """An image of one colour with slight noise, so that no two are alike: coloured((b, g, r), seed)."""

    def make(bgr: tuple[int, int, int], seed: int = 0, width: int = 64, height: int = 48) -> np.ndarray:
        noise = np.random.default_rng(seed).integers(-5, 6, (height, width, 3))
        return np.clip(np.array(bgr) + noise, 0, 255).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def blue_scene() -> Callable[[int], Any]:
    """Picture k of a healthy camera on a blue scene: structure, sensor noise, and something that moves."""
    structure = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 180, (240, 320, 3)), (0, 0), 3)

    @functools.lru_cache(64)  # tests show the same frames again and again, and noise takes longer than a verdict
    def drawn(k: int) -> Any:
        noise = np.random.default_rng([1, k]).normal(0, 5, (240, 320, 3))
        image = np.clip(np.array((225.0, 40.0, 40.0)) + structure + noise, 0, 255).astype(np.uint8)
        place = k % 60
        image[100 + place : 120 + place, 50 + 2 * place : 90 + 2 * place] = (200, 60, 30)
        return image

    return lambda k: drawn(k).copy()
