"""How sure a network can be made of a wrong label: no attack inside the ball gets beyond the bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from certified_bundles import SIDE, SPEC, deep_network, random_network
from onnx import numpy_helper

from framegate.evaluation.attacks.apgd import apgd
from framegate.evaluation.attacks.certified import margins
from framegate.evaluation.attacks.linf import pgd
from framegate.export.graph import reach as module
from framegate.export.graph.fold import deployment_model
from framegate.export.graph.graph import halved, stored
from framegate.export.graph.reach import Reach, branching, hidden, relaxation
from framegate.export.graph.reach.relaxation import gamma, largest
from framegate.export.graph.translate import to_onnx
from framegate.models.pixels import PixelInput, to_pixels
from framegate.models.plain_cnn import PlainCNN
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.certificates import CertificateRecord
from framegate.runtime.certificate import CertificateNetwork
from framegate.runtime.errors import UsageError

LEVELS = 2
torch.set_num_threads(1)


def frames(seed, low=40, high=216, side=SIDE):
    return np.random.default_rng(seed).integers(low, high, (8, side, side, 3)).astype(np.uint8)


def plain_cnn(path, seed):
    """The architecture that is shipped, narrow, normalised by random images, so that every layer does something."""
    torch.manual_seed(seed)
    model = PlainCNN(4, width=4)
    with torch.no_grad():
        model.classify.weight.normal_(0, 0.3)
        for layer in model.modules():
            if isinstance(layer, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                layer.momentum = 1.0
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_(0, 0.3)
        model.train()(torch.randn(64, 3, 32, 32))
    path.write_bytes(stored(halved(to_onnx(deployment_model(model.eval()), spec_of(path)))))
    return path


def spec_of(network):
    side = 32 if network.parent.name.startswith("plain_cnn") else SIDE
    return replace(SPEC, width=side, height=side)


@pytest.fixture(scope="module", params=[random_network, deep_network, plain_cnn])
def network(request, tmp_path_factory):
    """The file of a small random network."""
    return request.param(tmp_path_factory.mktemp(request.param.__name__) / "plain.onnx", 1)


def clean(network, seed, **around):
    """Frames, and for each a label that is not always the network's own."""
    images = frames(seed, side=spec_of(network).width, **around)
    return images, np.random.default_rng(seed).integers(0, 4, len(images)).astype(np.int64)


def highest(network, images, labels, size):
    """The largest margin of any wrong label that attacks of so many levels find."""
    pixels, found = to_pixels(images), []
    given = margins(network, PixelInput(spec_of(network)))
    for wrong in range(4):

        def away(some, wrong=wrong):  # the attacks lower the first label's value, and this one shall rise
            own = given(some)[:, wrong : wrong + 1]
            return torch.cat([-own, torch.zeros_like(own)], 1)

        zeros = torch.zeros(len(images), dtype=torch.int64)
        moved = [
            pgd(away, pixels, zeros, size / 255, 15, loss="margin", seed=0),
            apgd(away, pixels, zeros, size / 255, loss="margin", steps=15, keep="best"),
        ]
        best = torch.stack([given(each.pixels)[:, wrong] for each in moved]).amax(0).numpy()
        found.append(np.where(labels == wrong, -np.inf, best))
    return np.max(found, 0)


def test_no_attack_makes_a_wrong_label_surer_than_the_bound(network):
    images, labels = clean(network, 3)
    reach = Reach(network, spec_of(network), LEVELS)
    quick, low = reach.quick(images, labels), reach.margins(images, labels)
    closest = reach.closest(images, labels, 24)
    found = highest(network, images, labels, LEVELS)
    assert (found <= closest).all()
    assert (closest <= low + 1e-2).all()  # two searches for slopes
    assert (low <= quick + 1e-6).all()
    # The second bound is worth its time, although random weights make both wide.
    assert np.mean(low - found) < 0.95 * np.mean(quick - found)


def test_the_bound_is_close_where_little_can_be_lost(tmp_path):
    """One hidden layer: no further from what attacks find than that is from the clean frame."""
    network = random_network(tmp_path / "plain.onnx", 1)
    images, labels = clean(network, 3)
    found = highest(network, images, labels, LEVELS)
    given = margins(network, PixelInput(SPEC))(to_pixels(images)).numpy()
    given[np.arange(len(images)), labels] = -np.inf
    low = Reach(network, SPEC, LEVELS).margins(images, labels)
    assert np.mean(low - found) < 0.5 * np.mean(found - given.max(1))


def test_frames_at_the_ends_of_the_range_have_nothing_beyond_them(network):
    for low, high in ((0, 2), (254, 256)):
        images, labels = clean(network, 4, low=low, high=high)
        reach = Reach(network, spec_of(network), LEVELS)
        assert (highest(network, images, labels, LEVELS) <= reach.margins(images, labels)).all()
        inside = np.clip(images, LEVELS, 255 - LEVELS)
        assert (reach.quick(images, labels) < reach.quick(inside, labels) + 1e-9).mean() > 0.5


def test_fault_a_ball_that_is_too_small_is_found_out(network):
    """The tests above can fail: what is bounded for a small ball is exceeded by attacks on a larger one."""
    images, labels = clean(network, 3)
    reach = Reach(network, spec_of(network), LEVELS).margins(images, labels)
    assert (highest(network, images, labels, 40) > reach).any()


def tiny_network(path, seed):
    """Of which everything can be tried: five hidden values behind one pixel."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(5, 3, 1, 1)) * 3, rng.normal(size=(3, 5))
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,1,1] image) => (float[N,3] logits)
        <float[5,3,1,1] w = {{{_numbers(first)}}}, float[5] b = {{{_numbers(rng.normal(size=5))}}},
         float[3,5] v = {{{_numbers(second)}}}, float[3] c = {{0, 0, 0}}>
        {{ a = Conv (image, w, b) h = Relu (a) f = Flatten (h) logits = Gemm <transB = 1> (f, v, c) }}"""
    )
    onnx.save(model, path)
    return path


def _numbers(values):
    return ", ".join(f"{value:.6f}" for value in values.flatten())


def test_split_into_all_cases_the_bound_is_what_a_search_of_the_ball_finds(tmp_path):
    """And not below it: with five hidden values a few dozen cases are all that there are."""
    spec, levels, gaps = replace(SPEC, width=1, height=1), 40, []
    for seed in range(12):
        path = tiny_network(tmp_path / "tiny.onnx", seed)
        image = np.random.default_rng(seed).integers(60, 190, (1, 1, 1, 3)).astype(np.uint8)
        reach = Reach(path, spec, levels)
        inside = np.stack(np.meshgrid(*[np.linspace(-levels, levels, 33)] * 3), -1).reshape(-1, 3)
        step = torch.from_numpy(inside).view(-1, 3, 1, 1) / 64
        values = reach.problem(image, np.zeros(1, np.int64)).ball[0] + step
        logits = reach._chain.logits(values).numpy()
        label = int(logits[len(logits) // 2].argmax())
        two = np.sort(logits, 1)[:, -2:]
        wrong = logits.argmax(1) != label
        found = (two[wrong, 1] - two[wrong, 0]).max() if wrong.any() else -np.inf
        bounds = [reach.closest(image, np.array([label]), cases)[0] for cases in (0, 400)]
        assert found <= bounds[1] <= bounds[0] + 1e-6
        if wrong.any():
            gaps.append((bounds[0] - found, bounds[1] - found))
    assert len(gaps) > 4
    first, last = np.mean(gaps, 0)
    # What is left is the search's own step, and what gradients do not find.
    assert last < 0.5 * first


def test_more_cases_never_give_a_higher_bound(network):
    images, labels = clean(network, 11)
    reach = Reach(network, spec_of(network), LEVELS)
    found = np.array([reach.closest(images[:2], labels[:2], cases) for cases in (0, 8, 24)])
    assert (np.diff(found, axis=0) <= 1e-6).all()
    assert (found[2] < found[0]).any()


def test_with_many_cases_the_bound_comes_close_to_what_attacks_find(tmp_path):
    network = deep_network(tmp_path / "plain.onnx", 1)
    images, labels = clean(network, 3)
    reach = Reach(network, SPEC, LEVELS)
    found = highest(network, images, labels, LEVELS)
    closest = reach.closest(images, labels, 400)
    assert (found <= closest).all()
    assert np.mean(closest - found) < 0.2 * np.mean(reach.margins(images, labels) - found)


def test_fault_a_case_left_out_is_found_out(tmp_path, monkeypatch):
    """The tests above can fail: without one of the two signs the bound falls below what attacks find."""
    network = deep_network(tmp_path / "plain.onnx", 1)
    images, labels = clean(network, 3)
    solved = branching._solved

    def one_sign_only(problem, rough, cases, steps):
        found = solved(problem, rough, cases, steps)
        return [replace(case, bound=-1e9) if case.signs and case.signs[-1][2] > 0 else case for case in found]

    monkeypatch.setattr(branching, "_solved", one_sign_only)
    reach = Reach(network, SPEC, LEVELS).closest(images, labels, 60)
    assert (highest(network, images, labels, LEVELS) > reach).any()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_engine_stays_below_it_at_random_corners_of_the_ball(network, backend):
    images, labels = clean(network, 5)
    reach = Reach(network, spec_of(network), LEVELS).margins(images, labels)
    record = CertificateRecord("linf", LEVELS, network.name, "", "fp32", spec_of(network), None, {})
    engine = CertificateNetwork(record, load_backend(backend, network, 1), 4)
    compared = 0
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = images.astype(int) + rng.choice([-LEVELS, LEVELS], images.shape)
        for image, label, most in zip(moved.astype(np.uint8), labels, reach, strict=True):
            wrong = np.delete(engine.certified(image), label).max()  # -inf where the true label is the largest
            assert wrong <= most
            compared += wrong > -np.inf
    assert compared > 20


def test_hidden_values_stay_between_their_bounds(network):
    """Those of convolutions are found in windows of the planes, whose borders are the difficulty."""
    images, labels = clean(network, 6)
    spec = spec_of(network)
    reach = Reach(network, spec, LEVELS)
    inputs = torch.from_numpy(np.concatenate([reach._prepare(image).copy() for image in images])).double()
    problem = reach.problem(images, labels)
    first = hidden.tightened(problem)
    again = hidden.tightened(first, 5)
    bounds = again.bounds
    step, rng = LEVELS / 64, np.random.default_rng(1)
    for _ in range(30):
        values = inputs + step * torch.from_numpy(rng.choice([-1.0, 1.0], inputs.shape))
        for layer, (least, most) in zip(reach._chain.hidden, bounds, strict=True):
            out = layer.apply(values, layer.weight)
            out = out + layer.shift(out.dim())
            assert (out >= least).all()
            assert (out <= most).all()
            values = out.clamp(min=0)
    for before, after in ((problem, first), (first, again)):
        for (least, most), (low, high) in zip(after.bounds[1:], before.bounds[1:], strict=True):
            assert (most - least).sum() < (high - low).sum()
            assert (most <= high).all()


def test_windows_of_a_plane_give_what_the_whole_plane_gives(network):
    images, labels = clean(network, 8)
    reach = Reach(network, spec_of(network), LEVELS)
    problem = reach.problem(images[:1], labels[:1])
    for number, layer in enumerate(reach._chain.hidden):
        if layer.weight.dim() == 2 or not number:
            continue
        shape = problem.bounds[number][0].shape[1:]
        every = torch.arange(int(np.prod(shape)))
        low, high = hidden.convolved_ends(problem, number, every)
        chosen = torch.eye(len(every), dtype=torch.float64).view(-1, *shape)
        before = problem.bounds[number - 1][0].shape[1:]
        coefficients = layer.transposed(chosen, before).unsqueeze(0)
        around = (chosen * layer.shift(4)).flatten(1).sum(1), problem.lost[number][0].flatten()
        whole = largest(problem, coefficients, depth=number)[0] + around[0] + around[1]
        torch.testing.assert_close(high, whole, rtol=1e-9, atol=1e-9)
        whole = around[0] - largest(problem, -coefficients, depth=number)[0] - around[1]
        torch.testing.assert_close(low, whole, rtol=1e-9, atol=1e-9)


def test_rounding_of_the_engine_is_covered(tmp_path, monkeypatch):
    """A ball of next to nothing: only arithmetic is left, of sums whose large terms cancel each other."""
    monkeypatch.setattr(module, "_ROUNDING", 0.0)
    monkeypatch.setattr(module, "_SLACK", 0.0)
    spec = replace(SPEC, std=tuple(each * 1e9 for each in SPEC.std), mean=(-64e9,) * 3)  # inputs of about 1
    image, beyond = frames(9)[:1], 0
    for seed in range(8):
        path = random_network(tmp_path / "plain.onnx", seed)
        model = onnx.load(path)
        for weight in model.graph.initializer:
            if weight.name == "v":  # logits of which millions are common to all of them
                values = numpy_helper.to_array(weight) + np.float32(4000)
                weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        onnx.save(model, path)
        record = CertificateRecord("linf", 1, path.name, "", "fp32", spec, None, {})
        said = CertificateNetwork(record, load_backend("onnxruntime", path, 1), 4).certified(image[0])
        label = np.array([(said.argmax() + 1) % 4])
        assert said.max() <= Reach(path, spec, 1).margins(image, label)[0]
        with monkeypatch.context() as without:
            without.setattr(relaxation, "gamma", lambda terms: 0.0)
            beyond += said.max() > Reach(path, spec, 1).margins(image, label)[0]
    assert beyond  # without room for it there are counterexamples


def test_it_does_not_depend_on_what_is_beside_a_frame(network):
    images, labels = clean(network, 7)
    reach = Reach(network, spec_of(network), LEVELS)
    images, labels = np.concatenate([images] * 3), np.concatenate([labels] * 3)  # more than one batch
    together = reach.margins(images, labels)
    alone = np.array([reach.margins(images[k : k + 1], labels[k : k + 1])[0] for k in range(8)])
    np.testing.assert_allclose(together[:8], together[16:], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(together[:8], alone, rtol=1e-3, atol=1e-3)


def test_a_search_for_slopes_that_overflows_loses_no_hidden_value(tmp_path):
    """Its bounds are no numbers; a value without bounds would count as one that ReLU stops."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3,1,1] image) => (float[N,2] logits)
        <float[2,3,1,1] w = {1e-20, 0, 0, -1e-20, 0, 0}, float[2] b = {0, 0},
         float[2,2] v = {1e25, 0, 0, 1e25}, float[2] c = {-1e4, -1e4},
         float[2,2] u = {1e15, -1e15, -1e15, 1e15}, float[2] d = {0, 0},
         float[2,2] t = {1e-19, 0, 0, 0}, float[2] e = {0, 0}>
        { x = Conv (image, w, b) h = Relu (x) f = Flatten (h) y = Gemm <transB = 1> (f, v, c) i = Relu (y)
          z = Gemm <transB = 1> (i, u, d) j = Relu (z) logits = Gemm <transB = 1> (j, t, e) }"""
    )
    onnx.save(model, tmp_path / "extreme.onnx")
    reach = Reach(tmp_path / "extreme.onnx", replace(SPEC, width=1, height=1), 40)
    image, label = np.full((1, 1, 1, 3), 128, np.uint8), np.array([1])
    values = torch.linspace(-40 / 64, 40 / 64, 81).double().view(-1, 1, 1, 1) * torch.tensor([1.0, 0, 0]).view(
        1, 3, 1, 1
    )
    logits = reach._chain.logits(reach.problem(image, label).ball[0] + values)
    found = float((logits[:, 0] - logits[:, 1]).max())
    assert found > 1
    for bound in (reach.quick, reach.margins, lambda *given: reach.closest(*given, 20)):
        assert not bound(image, label)[0] < found  # no number is no bound


def test_a_number_of_cases_that_is_none_is_refused(network):
    with pytest.raises(UsageError, match="cases -1: expected 0 or more"):
        Reach(network, spec_of(network), LEVELS).closest(*clean(network, 3), -1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_fault_a_network_that_gives_no_number_has_no_bound(tmp_path, value):
    """Of one whose sums overflow in between, an engine may make finite answers that mean nothing."""
    plain = onnx.load(random_network(tmp_path / "plain.onnx", 1))
    for weight in plain.graph.initializer:
        values = numpy_helper.to_array(weight).copy()
        values.flat[0] = value
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(plain, tmp_path / "damaged.onnx")
    reach, labels = Reach(tmp_path / "damaged.onnx", SPEC, LEVELS), np.zeros(8, np.int64)
    assert np.isnan(reach.quick(frames(1), labels)).all()
    assert np.isnan(reach.margins(frames(1), labels)).all()
    assert np.isnan(reach.closest(frames(1), labels, 10)).all()


def test_gamma_is_the_bound_of_the_textbook():
    assert gamma(100) == pytest.approx(100 * 2**-24, rel=1e-4)
