"""Ranges of INT8 activations: what each method gives, that biases make up for rounding, and that the best one wins."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from framegate.export.int8 import choice as int8_choice
from framegate.export.int8 import ranges as int8_ranges
from framegate.export.int8.choice import Int8Work, choose_int8, methods_of
from framegate.export.int8.quantize import check_symmetric, to_int8
from framegate.export.int8.ranges import (
    BINS,
    METHODS,
    ActivationStatistics,
    collect,
    entropy_bins,
    percentile_bins,
)
from framegate.export.int8.tuning import (
    activation_ranges,
    layers_with_bias,
    with_corrected_biases,
    with_ranges,
)
from framegate.runtime.errors import ExportRefusedError, UsageError
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

SPEC = PreprocessSpec(8, 8, "bilinear", "stretch", "rgb", (127.5,) * 3, (127.5,) * 3)


def _network() -> onnx.ModelProto:
    """Convolution, ReLU, depthwise convolution, mean, linear layer."""
    rng = np.random.default_rng(5)
    weights = {
        "first.weight": rng.normal(0, 0.4, (6, 3, 3, 3)),
        "first.bias": rng.normal(0, 0.1, 6),
        "second.weight": rng.normal(0.3, 0.3, (6, 1, 3, 3)),
        "second.bias": rng.normal(0, 0.1, 6),
        "classify.weight": rng.normal(0, 1.0, (3, 6)),
        "classify.bias": np.zeros(3),
        "axes": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["image", "first.weight", "first.bias"], ["a"], "first", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "second.weight", "second.bias"], ["c"], "second", group=6),
        helper.make_node("ReduceMean", ["c", "axes"], ["d"], "mean", keepdims=0),
        helper.make_node("Gemm", ["d", "classify.weight", "classify.bias"], ["logits"], "classify", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(value if name == "axes" else value.astype(np.float32), name)
            for name, value in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


class _Known:
    """Layers whose effect on the logits is known."""

    def __init__(self, **changes: float) -> None:
        self.changes, self.layers, self.asked = changes, tuple(changes), []

    def above(self, limit: float) -> list[str]:
        self.asked.append(limit)
        return sorted(
            (name for name, c in self.changes.items() if not c <= limit), key=lambda name: -self.changes[name]
        )


def _images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)


def _run(model: onnx.ModelProto, images: np.ndarray, outputs: tuple[str, ...] = ("logits",)) -> list[np.ndarray]:
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    for name in set(outputs) - {"logits"}:
        graph.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    preprocess = Preprocessor(SPEC)
    return session.run(list(outputs), {"image": np.concatenate([preprocess(image).copy() for image in images])})


def test_percentile_counts_from_zero() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[:1000] = 1
    assert percentile_bins(counts, 99.5) == 995
    assert percentile_bins(counts, 100) == 1000
    assert percentile_bins(counts, 0.01) == 1


def test_entropy_cuts_a_long_thin_tail_and_keeps_an_even_spread() -> None:
    rng = np.random.default_rng(0)
    values = np.abs(np.append(rng.normal(0, 1, 200_000), [60.0]))
    counts, _ = np.histogram(values, BINS, (0, 60))
    assert 2.5 < entropy_bins(counts) * 60 / BINS < 8
    even = np.full(BINS, 50)
    assert entropy_bins(even) > 0.97 * BINS


def test_statistics_are_those_of_the_tensors(quiet) -> None:
    images = _images(20, 1)
    inside = _run(_network(), images, ("b",))[0]
    top = float(np.abs(inside).max())
    found = collect(_network(), ["b", "image"], ["b", "d"], images, SPEC, quiet)
    assert found.largest["b"] == pytest.approx(top, rel=1e-6)
    assert 0.9 < found.largest["image"] <= 1
    expected, _ = np.histogram(np.abs(inside), BINS, (0, top))
    assert found.magnitudes["b"].sum() == expected.sum() == inside.size
    assert np.abs(np.cumsum(found.magnitudes["b"]) - np.cumsum(expected)).max() <= 3  # a value on an edge
    assert found.means["b"] == pytest.approx(inside.mean((0, 2, 3)), rel=1e-5)
    assert found.means["d"].shape == (6,)
    assert found.range_of("b", "minmax") == found.largest["b"]
    quantile = np.quantile(np.abs(inside), 0.999, method="inverted_cdf")
    assert 0 <= found.range_of("b", "percentile-99.9") - quantile <= 1.01 * top / BINS


def test_a_tensor_of_zeros_keeps_its_range() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[0] = 1000
    statistics = ActivationStatistics({"x": 2.0}, {"x": counts}, {})
    assert {statistics.range_of("x", method) for method in METHODS} == {2.0}


def test_new_ranges_change_scales_and_nothing_else(quiet) -> None:
    base = to_int8(_network(), _images(20, 1), SPEC, [], quiet)
    ranges = activation_ranges(base)
    assert {"image", "b", "d"} == set(ranges)
    assert ranges["b"] == pytest.approx(float(_run(_network(), _images(20, 1), ("b",))[0].max()), rel=1e-5)
    changed = with_ranges(base, {name: value / 2 for name, value in ranges.items()})
    check_symmetric(changed)
    assert activation_ranges(changed) == pytest.approx({name: value / 2 for name, value in ranges.items()})
    assert [n.SerializeToString() for n in changed.graph.node] == [n.SerializeToString() for n in base.graph.node]
    assert activation_ranges(base) == ranges  # the argument stays as it was


def test_corrected_biases_undo_the_mean_error_of_rounded_weights(quiet) -> None:
    """With only the weights rounded, coarsely, each layer's channel means come back; a float layer keeps its bias."""
    network, images = _network(), _images(40, 2)
    base = to_int8(network, images, SPEC, ["first"], quiet)
    for item in base.graph.initializer:  # 16 levels instead of 256, so that rounding is large
        if item.data_type == TensorProto.INT8 and item.dims:
            value = numpy_helper.to_array(item)
            if value.ndim > 1:
                coarse = np.clip(np.floor(value / 16.0) * 16, -127, 127).astype(np.int8)
                item.CopyFrom(numpy_helper.from_array(coarse, item.name))
    means = collect(network, activation_ranges(base), ["image", "b", "d"], images, SPEC, quiet).means
    corrected = with_corrected_biases(base, network, means)
    expected = _run(network, images, ("c",))[0].mean((0, 2, 3))
    before = np.abs(_run(base, images, ("c",))[0].mean((0, 2, 3)) - expected).max()
    after = np.abs(_run(corrected, images, ("c",))[0].mean((0, 2, 3)) - expected).max()
    assert after < 0.1 * before, (before, after)
    kept = [next(numpy_helper.to_array(i) for i in m.graph.initializer if i.name == "first.bias") for m in
            (network, corrected)]  # fmt: skip
    assert np.array_equal(*kept)


def test_a_bias_that_two_layers_share_is_left_alone() -> None:
    network = _network()
    second = next(node for node in network.graph.node if node.name == "second")
    second.input[2] = "first.bias"
    assert [layer.name for layer in layers_with_bias(network)] == ["classify"]


def test_the_method_nearest_to_float_is_taken(quiet) -> None:
    images, held_out = _images(60, 3), _images(50, 4)
    choice = choose_int8(_network(), images, held_out, SPEC, _Known(first=0, second=0), "auto", quiet)
    assert [candidate.method for candidate in choice.candidates] == list(METHODS)
    assert choice.chosen.entropy_difference == min(c.entropy_difference for c in choice.candidates)
    only = choose_int8(_network(), images, held_out, SPEC, _Known(first=0, second=0), "minmax", quiet)
    assert [candidate.method for candidate in only.candidates] == ["minmax"]
    assert only.chosen == choice.candidates[0]
    assert choice.to_json()["int8_ranges"]["held_out_images"] == 50


def test_more_layers_stay_in_float_while_decisions_differ(quiet, monkeypatch) -> None:
    monkeypatch.setattr(int8_choice, "GOOD_DIFFERENCE", 1e-9)
    changes = _Known(first=0.02, second=0.001, classify=0.0)
    choice = choose_int8(_network(), _images(30, 3), _images(30, 4), SPEC, changes, "percentile", quiet)
    assert [candidate.float_layers for candidate in choice.candidates] == [0, 0, 0, 1]
    assert choice.keep_float in ((), ("first",))
    monkeypatch.setattr(int8_choice, "GOOD_DIFFERENCE", 10.0)
    assert choose_int8(_network(), _images(30, 3), _images(30, 4), SPEC, changes, "auto", quiet).keep_float == ()
    monkeypatch.setattr(int8_choice, "GOOD_DIFFERENCE", 1e-9)
    both = _Known(first=0.02, second=0.02, classify=0.0)  # two of three is more than half
    assert choose_int8(_network(), _images(30, 3), _images(30, 4), SPEC, both, "minmax", quiet).keep_float == ()


def test_no_layer_is_looked_for_while_int8_is_good_enough(quiet, monkeypatch) -> None:
    monkeypatch.setattr(int8_choice, "GOOD_DIFFERENCE", 10.0)
    known = _Known(first=9.0)
    assert choose_int8(_network(), _images(30, 3), _images(30, 4), SPEC, known, "auto", quiet).keep_float == ()
    assert known.asked == []


def test_the_ways_are_ranked_on_a_part_and_the_best_is_compared_on_all(quiet, monkeypatch) -> None:
    monkeypatch.setattr(int8_choice, "RANKED", 20)
    monkeypatch.setattr(int8_choice, "GOOD_DIFFERENCE", 10.0)
    choice = choose_int8(_network(), _images(30, 3), _images(50, 4), SPEC, _Known(), "auto", quiet)
    assert [candidate.images for candidate in choice.candidates][-1] == choice.chosen.images == choice.images == 50
    assert [candidate.images for candidate in choice.candidates[: len(METHODS)]] == [20] * len(METHODS)


def test_many_ways_are_glanced_at_and_two_of_them_ranked(quiet, monkeypatch) -> None:
    monkeypatch.setattr(int8_choice, "GLANCED", 10)
    monkeypatch.setattr(int8_choice, "RANKED", 20)
    monkeypatch.setattr(int8_choice, "GOOD_DIFFERENCE", 10.0)
    work = Int8Work(_network(), _images(30, 3), _images(50, 4), SPEC, quiet)
    first = choose_int8(_network(), _images(30, 3), _images(50, 4), SPEC, _Known(), "auto", quiet, None, work)
    assert [each.images for each in first.candidates] == [10] * len(METHODS) + [20, 20, 50]
    again = choose_int8(_network(), _images(30, 3), _images(50, 4), SPEC, _Known(), "auto", quiet, None, work)
    assert again == first  # nothing was compared anew


def test_a_way_that_is_far_from_good_is_not_looked_at_on_all_images(quiet, monkeypatch) -> None:
    monkeypatch.setattr(int8_choice, "RANKED", 20)
    monkeypatch.setattr(int8_choice, "GOOD_DIFFERENCE", 1e-9)
    choice = choose_int8(_network(), _images(30, 3), _images(50, 4), SPEC, _Known(), "minmax", quiet)
    assert [each.images for each in choice.candidates] == [choice.images] == [20]


def test_a_large_tensor_is_sampled_and_keeps_its_largest_value(quiet, monkeypatch) -> None:
    monkeypatch.setattr(int8_ranges, "SAMPLED", 40)
    images = _images(200, 1)
    inside = _run(_network(), images, ("b",))[0]
    found = collect(_network(), ["b"], [], images, SPEC, quiet)
    assert found.largest["b"] == pytest.approx(float(np.abs(inside).max()), rel=1e-6)
    assert found.magnitudes["b"].sum() < inside.size / 5
    share = np.cumsum(found.magnitudes["b"]) / found.magnitudes["b"].sum()
    expected = np.cumsum(np.histogram(np.abs(inside), BINS, (0, found.largest["b"]))[0]) / inside.size
    assert np.abs(share - expected).max() < 0.03


def test_outputs_that_are_no_numbers_are_refused(quiet, monkeypatch) -> None:
    real = int8_choice._logits
    monkeypatch.setattr(
        int8_choice,
        "_logits",
        lambda model, file, *rest: real(model, file, *rest) * (np.nan if "fp32" not in file.name else 1),
    )
    with pytest.raises(ExportRefusedError, match="NaN or infinite"):
        choose_int8(_network(), _images(4, 3), _images(4, 4), SPEC, _Known(), "auto", quiet)


def test_what_cannot_be_chosen_says_why(quiet) -> None:
    assert methods_of("percentile") == ("percentile-99.9", "percentile-99.99", "percentile-99.999")
    with pytest.raises(UsageError, match="--int8-ranges best: expected one of auto"):
        methods_of("best")
    with pytest.raises(UsageError, match="no held-out images"):
        choose_int8(_network(), _images(4, 3), _images(0, 4), SPEC, _Known(), "auto", quiet)
    with pytest.raises(UsageError, match="no images given"):
        choose_int8(_network(), _images(0, 3), _images(4, 4), SPEC, _Known(), "auto", quiet)
