"""Attacks that aim at a certificate: what they climb is what the engine computes, and the theorem stops them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from certified_bundles import SIDE, SPEC, patch_record, random_network
from onnx import TensorProto, helper, numpy_helper

from framegate.evaluation.attacks.certified import (
    Allowed,
    attacks_on,
    judged,
    margins,
    reached,
    view_means,
)
from framegate.export.graph.graph import INPUT
from framegate.export.graph.reach import Reach
from framegate.models.pixels import PixelInput, to_pixels
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.certificates import CertificateRecord
from framegate.runtime.bundle.masks import MaskGrid
from framegate.runtime.certificate import CertificateNetwork
from framegate.runtime.errors import UsageError

LEVELS = 3
PREPARE = PixelInput(SPEC)
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(3)
    return rng.integers(40, 216, (24, SIDE, SIDE, 3)).astype(np.uint8), rng.integers(0, 4, 24).astype(np.int64)


@pytest.fixture(scope="module")
def linf(tmp_path_factory):
    """File, record and engine of a small random network."""
    file = random_network(tmp_path_factory.mktemp("linf") / "plain.onnx", 1)
    record = CertificateRecord("linf", LEVELS, file.name, "", "fp32", SPEC, None, {})
    return file, record, CertificateNetwork(record, load_backend("onnxruntime", file, 1), 4)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    file = random_network(tmp_path_factory.mktemp("patch") / "n.onnx", 0)
    record = patch_record(MaskGrid(SIDE, SIDE, 2, 4, 2), SPEC)
    return file, record, CertificateNetwork(record, load_backend("onnxruntime", file, 1), 4)


def test_what_is_attacked_are_the_margins_that_the_engine_computes(linf, frames):
    file, _, network = linf
    pixels = to_pixels(frames[0])
    mine = margins(file, PREPARE)(pixels).numpy()
    engine = reached(network, pixels)
    own = engine > -np.inf
    assert own.sum(1).tolist() == [1] * 24
    np.testing.assert_allclose(mine[own], engine[own], atol=1e-4)
    assert (mine[~own] <= 0).all()


def test_what_is_attacked_are_the_means_that_the_engine_computes(patches, frames):
    file, record, network = patches
    pixels = to_pixels(frames[0])
    means = view_means(file, PREPARE, record.masks)(pixels).numpy()
    assert np.abs(means - reached(network, pixels)).max() < 1e-4


def test_a_network_with_a_shortcut_is_attacked_as_the_engine_computes_it(frames, tmp_path):
    """A chain of its layers alone would be another network, and no attack on that finds a counterexample here."""
    rng = np.random.default_rng(2)
    shapes = {"first": (6, 3, 3, 3), "second": (6, 6, 3, 3), "last": (4, 6), "bias": (4,)}
    weights = [numpy_helper.from_array(rng.normal(0, 0.5, s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", [INPUT, "first"], ["a"], "conv", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], "beside", pads=[1] * 4),
        helper.make_node("Add", ["b", "c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "last", "bias"], ["logits"], "last_layer", transB=1),
    ]
    image = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])
    graph = helper.make_graph(nodes, "shortcut", [image], [logits], weights)
    file = tmp_path / "shortcut.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    record = patch_record(MaskGrid(SIDE, SIDE, 2, 4, 2), SPEC)
    network = CertificateNetwork(record, load_backend("onnxruntime", file, 1), 4)
    pixels = to_pixels(frames[0])
    means = view_means(file, PREPARE, record.masks)(pixels).numpy()
    assert np.abs(means - reached(network, pixels)).max() < 1e-4


@pytest.mark.parametrize("kind", ["linf", "patches"])
def test_attacks_inside_the_budget_get_nowhere_beyond_the_clean_frame(kind, frames, request):
    file, record, network = request.getfixturevalue(kind)
    pixels, labels = to_pixels(frames[0]), frames[1]
    tau = -3.0 if kind == "patches" else 0.0
    allowed = Allowed.of_margins(file, record, *frames) if kind == "linf" else Allowed.of_views(network, *frames)
    limit, clean = allowed.above(tau), reached(network, pixels)
    for attack in attacks_on(record, file, record.budget, 4, 0).values():
        moved = reached(network, attack(pixels, torch.from_numpy(labels)))
        assert (moved != clean).any()  # the attack does reach it
        found = judged(moved, limit, labels, tau)
        assert found["certified_wrong"] > 0
        assert found["counterexamples"] == 0


def test_fault_a_bound_that_is_none_is_found_out(linf, frames):
    """The test above can fail: what is certified for a smaller ball is broken by attacks on a larger one."""
    file, record, network = linf
    pixels, labels = to_pixels(frames[0]), frames[1]
    limit = Allowed.of_margins(file, record, *frames).above(0.0)
    broken = 0
    for attack in attacks_on(record, file, 60, 6, 0).values():
        moved = reached(network, attack(pixels, torch.from_numpy(labels)))
        broken += judged(moved, limit, labels, 0.0)["counterexamples"]
    assert broken > 0


def test_only_what_stands_above_is_bounded_more_closely(linf, frames):
    file, record, _ = linf
    reach, calls = Reach(file, record.preprocess, record.budget), []

    def closer(rows):
        calls.extend(rows)
        return reach.margins(frames[0][rows], frames[1][rows])

    limit = Allowed(reach.quick(*frames), [closer])
    first = limit.values.copy()
    tau = float(np.median(first))
    low = limit.above(tau)
    assert (low[first < tau] == first[first < tau]).all()
    assert (low <= first).all()
    assert (low < first).any()
    limit.above(tau)
    assert len(calls) == len(set(calls)) == (first >= tau).sum()  # nothing is asked twice
    # Of those that still stand above, the closest ones.
    both = Allowed.of_margins(file, record, *frames, cases=20).above(tau)
    assert (both <= low).all()
    assert (both[low >= tau] < low[low >= tau]).any()


def test_counts_of_an_attack():
    limit = np.array([1.0, -1.0, -1.0])
    reach = np.array([[-np.inf, 0.5], [2.0, -np.inf], [-np.inf, 0.5]])
    found = judged(reach, limit, np.zeros(3, np.int64), 0.2)
    assert found == {"frames": 3, "possible": 1, "certified_wrong": 2, "counterexamples": 1}


def test_a_network_that_is_no_chain_has_no_margins_to_attack(tmp_path):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] image) => (float[N,3] logits) { logits = Relu(image) }'
    )
    onnx.save(model, tmp_path / "relu.onnx")
    with pytest.raises(UsageError, match="plain chain"):
        margins(tmp_path / "relu.onnx", PREPARE)
