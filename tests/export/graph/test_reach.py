"""What the bounds of an L-infinity certificate can be made to say: no attack inside the ball gets beyond it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from certified_bundles import SIDE, SPEC, random_network
from onnx import TensorProto, helper, numpy_helper

from framegate.evaluation.attacks.apgd import apgd
from framegate.evaluation.attacks.certified import lower_bounds
from framegate.evaluation.attacks.linf import pgd
from framegate.export.graph.bounds import halved, stored, with_bounds
from framegate.export.graph.reach import Reach
from framegate.models.pixels import PixelInput, to_pixels
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.certificates import CertificateRecord
from framegate.runtime.certificate import CertificateNetwork

LEVELS = 1
torch.set_num_threads(1)


def frames(seed):
    return np.random.default_rng(seed).integers(40, 216, (16, SIDE, SIDE, 3)).astype(np.uint8)


def deep_network(path, seed):
    """Convolutions with and without a stride and a border, and hidden linear layers, with random weights."""
    rng = np.random.default_rng(seed)
    shapes = {"a": (6, 3, 4, 4), "b": (6, 6, 3, 3), "c": (5, 6, 2, 3), "d": (10, 20), "e": (4, 10)}
    values = {name: rng.normal(size=shape) * (1.6 / np.prod(shape[1:]) ** 0.5) for name, shape in shapes.items()}
    values |= {f"{name}0": rng.normal(size=shape[0]) / 4 for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["image", "a", "a0"], ["x"], strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["x"], ["rx"]),
        helper.make_node("Conv", ["rx", "b", "b0"], ["y"], pads=[1] * 4, strides=[2, 1]),
        helper.make_node("Relu", ["y"], ["ry"]),
        helper.make_node("Conv", ["ry", "c", "c0"], ["z"], strides=[1, 1], pads=[1, 0, 1, 0]),
        helper.make_node("Relu", ["z"], ["rz"]),
        helper.make_node("Flatten", ["rz"], ["flat"]),
        helper.make_node("Gemm", ["flat", "d", "d0"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["rh"]),
        helper.make_node("Gemm", ["rh", "e", "e0"], ["logits"], transB=1),
    ]
    values["d"] = rng.normal(size=(10, 5 * 3 * 2)) / 3
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "deep", [image], [logits], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module", params=[random_network, deep_network])
def network(request, tmp_path_factory):
    """A file with bounds, of a small random network."""
    folder = tmp_path_factory.mktemp("reach")
    file = folder / "bounds.onnx"
    plain = halved(onnx.load(request.param(folder / "plain.onnx", 1)))
    file.write_bytes(stored(with_bounds(plain, SPEC, LEVELS)))
    return file


def highest(file, images, levels, size):
    """The most that attacks of this size find for the clean frame's label, by PyTorch's interval bounds."""
    pixels = to_pixels(images)
    bounds = lower_bounds(file, PixelInput(SPEC), levels)
    label = lower_bounds(file, PixelInput(SPEC), 0)(pixels).argmax(1)
    rows = torch.arange(len(images))

    def away(some):  # the attacks lower the label's value, and this one shall rise
        own = bounds(some).gather(1, label[: len(some), None])
        return torch.cat([-own, torch.zeros_like(own)], 1)

    zeros = torch.zeros(len(images), dtype=torch.int64)
    found = [
        pgd(away, pixels, zeros, size / 255, 30, loss="margin", seed=0),
        apgd(away, pixels, zeros, size / 255, loss="margin", steps=30, keep="best"),
    ]
    return torch.stack([bounds(each.pixels)[rows, label] for each in found]).amax(0).numpy()


def test_no_attack_gets_the_bounds_beyond_it_and_it_is_close(network):
    images = frames(3)
    margins = lower_bounds(network, PixelInput(SPEC), 0)(to_pixels(images)).amax(1).numpy()
    reach = Reach(network, SPEC, LEVELS).margins(images)
    found = highest(network, images, LEVELS, LEVELS)
    assert (found <= reach).all()
    # It is worth its time: below the margin on the clean frame, and no further from what attacks find than that is.
    assert np.mean(reach - found) < 0.7 * np.mean(margins - found)


def test_fault_a_ball_that_is_too_small_is_found_out(network):
    """The test above can fail: what is bounded for a small ball is exceeded by attacks on a larger one."""
    images = frames(3)
    reach = Reach(network, SPEC, LEVELS).margins(images)
    assert (highest(network, images, LEVELS, 40) > reach).any()


def test_the_engine_stays_below_it_at_random_corners_of_the_ball(network):
    images = frames(5)
    reach = Reach(network, SPEC, LEVELS).margins(images)
    record = CertificateRecord("linf", LEVELS, network.name, "", "fp32", SPEC, None, {})
    engine = CertificateNetwork(record, load_backend("onnxruntime", network, 1), 4)
    label = lower_bounds(network, PixelInput(SPEC), 0)(to_pixels(images)).argmax(1).numpy()
    compared = 0
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = images.astype(int) + rng.choice([-LEVELS, LEVELS], images.shape)
        for image, own, most in zip(moved.astype(np.uint8), label, reach, strict=True):
            said = engine.certified(image)[own]  # -inf where the middle of the box has another label
            assert said <= most
            compared += said > -np.inf
    assert compared > 20


def test_it_does_not_depend_on_what_is_beside_a_frame(network):
    images = frames(7)
    reach = Reach(network, SPEC, LEVELS)
    together = reach.margins(np.concatenate([images, images, images]))  # more than one batch
    alone = np.array([reach.margins(image[None])[0] for image in images])
    np.testing.assert_allclose(together[:16], together[16:32], rtol=1e-3)
    np.testing.assert_allclose(together[:16], alone, rtol=1e-3)


def test_fault_a_network_that_gives_no_number_has_no_bound(tmp_path):
    plain = onnx.load(random_network(tmp_path / "plain.onnx", 1))
    for weight in plain.graph.initializer:
        values = numpy_helper.to_array(weight).copy()
        values.flat[0] = np.nan
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(plain, tmp_path / "damaged.onnx")
    assert np.isnan(Reach(tmp_path / "damaged.onnx", SPEC, LEVELS).margins(frames(1))).all()
