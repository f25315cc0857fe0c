from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from framegate.evaluation.attacks.apgd import _Search, _State, apgd, checkpoints
from framegate.evaluation.attacks.auto import FOUR, AutoSettings, auto_attack
from framegate.evaluation.attacks.fab import fab, to_boundary
from framegate.evaluation.attacks.linf import pgd
from framegate.evaluation.attacks.loss import LOSSES, targeted_logits_ratio
from framegate.evaluation.attacks.square import square
from framegate.runtime.errors import UsageError

SHAPE = (3, 6, 6)


def linear(classes: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), classes))
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(network[1].weight.shape, generator=generator))
        network[1].bias.copy_(-network[1].weight.sum(1) / 2)
    return network


def is_wrong(network: nn.Module, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) misclassified, and (N,) whether that is clear of rounding: the attacks saw the frames in other batches."""
    logits = network(pixels).detach()
    top = logits.topk(2, 1).values
    return logits.argmax(1) != labels, top[:, 0] - top[:, 1] > 1e-4


def frames(size: int, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return low + (high - low) * torch.rand(size, *shape, generator=torch.Generator().manual_seed(1))


def true_distance(network: nn.Sequential, pixels: Tensor, labels: Tensor) -> Tensor:
    """Closed form for a linear network away from the edges of the box: gap / L1 norm, nearest class."""
    weight, logits = network[1].weight.detach(), network(pixels).detach()
    distance = torch.full((len(pixels),), torch.inf)
    for other in range(len(weight)):
        gap = logits.gather(1, labels[:, None])[:, 0] - logits[:, other]
        reach = gap / (weight[labels] - weight[other]).abs().sum(1)
        distance = torch.where(labels == other, distance, torch.minimum(distance, reach))
    return distance


@pytest.fixture(scope="module")
def problem() -> tuple[nn.Sequential, Tensor, Tensor, Tensor]:
    """Five classes, pixels so far from 0 and 1 that the box does not matter, and the true distances."""
    network, pixels = linear(5), frames(100, 0.2, 0.8)
    labels = network(pixels).argmax(1)
    return network, pixels, labels, true_distance(network, pixels, labels)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A small convolutional network on noisy stripes, trained here; test accuracy above 0.9."""
    generator = torch.Generator().manual_seed(3)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 4),
        )

    def draw(size: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, 4, (size,), generator=generator)
        rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
        waves = torch.stack([rows % 2, columns % 2, (rows + columns) % 2, (rows // 2) % 2]).float()
        noise = 0.1 * torch.randn(size, 1, 8, 8, generator=generator)
        return (0.5 + 0.2 * (waves[labels, None] - 0.5) + noise).clamp(0, 1), labels

    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(50):
        images, labels = draw(64)
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return network.eval(), *draw(60)


def test_the_ratio_loss_ignores_shift_and_scale_and_follows_its_formula():
    logits, labels = torch.tensor([[5.0, 3.0, 1.0, 0.0]]), torch.tensor([0])
    assert LOSSES["dlr"](logits, labels).item() == pytest.approx(-(5 - 3) / (5 - 1))
    assert LOSSES["dlr"](100 * logits + 7, labels).item() == pytest.approx(-0.5)
    assert LOSSES["dlr"](logits, torch.tensor([2])).item() == pytest.approx((5 - 1) / (5 - 1))
    assert targeted_logits_ratio(logits, labels, torch.tensor([2])).item() == pytest.approx(-(5 - 1) / (5 - 0.5))


def test_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [1]


def test_apgd_takes_ever_smaller_steps_around_a_peak():
    clean = frames(5, 0.3, 0.7)
    peak, seen = clean + 0.03, []

    def network(pixels: Tensor) -> Tensor:
        seen.append(pixels.detach().clone())
        far = (pixels - peak[: len(pixels)]).abs().flatten(1).sum(1)
        return torch.stack([torch.zeros_like(far), -1 - far], 1)

    result = apgd(network, clean, torch.zeros(5, dtype=torch.int64), 0.1, loss="margin", steps=60)
    assert not result.misclassified.any()
    early, late = ((seen[k] - seen[k - 1]).abs().amax() for k in (5, -1))
    assert early > 0.05
    assert late < 0.005
    assert (result.pixels - peak).abs().max() < 0.005, "the best iterate is kept"


def test_apgd_halves_the_step_of_the_frames_that_stopped_rising_and_sends_them_back():
    rows, wide = torch.arange(4), torch.zeros(4, 1)
    state = _State(
        rows=rows,
        targets=rows,
        clean=wide,
        moving=wide + 5,
        before=wide,
        gradient=wide + 5,
        value=torch.zeros(4),
        best=wide + 7,
        best_gradient=wide + 7,
        best_value=torch.tensor([1.0, 1.0, 1.0, 1.0]),
        step=wide + 2,
        # Of 10 steps: too few rises; enough; enough but no new best; the same just after a halving.
        rises=torch.tensor([7.0, 8.0, 8.0, 8.0]),
        halved=torch.tensor([False, False, False, True]),
        value_then=torch.tensor([0.0, 0.0, 1.0, 1.0]),
    )
    _Search(lambda pixels: pixels, "margin", 0.1, 100, rows).reconsider(state, 10)
    assert state.step[:, 0].tolist() == [1.0, 2.0, 1.0, 2.0]
    assert state.moving[:, 0].tolist() == [7.0, 5.0, 7.0, 5.0]
    assert state.gradient[:, 0].tolist() == [7.0, 5.0, 7.0, 5.0]
    assert state.value.tolist() == [1.0, 0.0, 1.0, 0.0]
    assert state.halved.tolist() == [True, False, True, False]
    assert state.rises.tolist() == [0.0] * 4


def test_apgd_that_keeps_the_best_goes_on_to_surer_wrong_answers(problem):
    network, pixels, labels, _ = problem
    kept = {
        keep: apgd(network, pixels, labels, 0.1, loss="margin", steps=20, keep=keep, seed=1)
        for keep in ("first", "best")
    }
    fallen = kept["first"].misclassified
    assert fallen.any()
    assert torch.equal(fallen, kept["best"].misclassified)
    sure = {keep: LOSSES["margin"](result.logits, labels) for keep, result in kept.items()}
    assert (sure["best"] >= sure["first"]).all()
    assert (sure["best"] > sure["first"] + 1)[fallen].any()
    assert ((kept["best"].pixels - pixels).abs() <= 0.1 + 1e-6).all()
    with pytest.raises(UsageError, match="keep is 'last'; known are first, best"):
        apgd(network, pixels, labels, 0.1, keep="last")


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr", "targeted"])
def test_apgd_reaches_the_closed_form(problem, loss):
    network, pixels, labels, distance = problem
    epsilon = float(distance.median())
    result = apgd(network, pixels, labels, epsilon, loss=loss, steps=30, targets=4)
    beyond = distance > epsilon * 1.001
    assert not result.misclassified[beyond].any(), "beyond the true distance nothing can be found"
    missed = int((~result.misclassified & (distance < epsilon * 0.999)).sum())
    # One start with an untargeted loss may climb towards the wrong class.
    assert missed <= (0 if loss == "targeted" else 2)
    assert (result.pixels - pixels).abs().max() <= epsilon + 1e-6


def test_fab_finds_the_true_distance(problem):
    network, pixels, labels, distance = problem
    result = fab(network, pixels, labels, float(distance.median()), steps=15, smallest=True)
    assert (result.distance >= distance * 0.9999).all()
    assert (result.distance <= distance * 1.01).all()
    assert torch.equal(result.misclassified, result.distance <= result.epsilon)
    wrong, clear = is_wrong(network, result.pixels, labels)
    assert clear.float().mean() > 0.9
    assert torch.equal(wrong[clear], result.misclassified[clear])


def test_fab_finds_the_true_distance_at_the_edges_of_the_box():
    network, pixels = linear(2), frames(60).round()
    labels = network(pixels).argmax(1)
    weight = network[1].weight.detach()
    normal = weight[1 - labels] - weight[labels]
    # Only coordinates that point into the box can move, each by at most 1.
    free = torch.where(normal > 0, pixels.flatten(1) < 0.5, pixels.flatten(1) > 0.5)
    logits = network(pixels).detach()
    gap = (logits[:, 0] - logits[:, 1]).abs()
    truth = gap / (normal.abs() * free).sum(1)
    reachable = truth < 1
    found = fab(network, pixels, labels, 0.1, steps=20, smallest=True).distance
    assert reachable.sum() > 10
    assert torch.allclose(found[reachable], truth[reachable], rtol=0.01)


def test_apgd_t_and_fab_aim_at_more_than_the_most_probable_wrong_class():
    def network(pixels: Tensor) -> Tensor:
        mean = pixels.flatten(1).mean(1)
        # Class 1 is always just behind class 0 and can't be reached; class 2 is far behind and can.
        return torch.stack([1 + 0 * mean, 0.9 - 0.001 * mean, 20 * (mean - 0.5), -5 - mean], 1)

    pixels, labels = torch.full((3, *SHAPE), 0.5), torch.zeros(3, dtype=torch.int64)
    for wrong_classes in (1, 2):
        aimed = apgd(network, pixels, labels, 0.1, loss="targeted", steps=5, targets=wrong_classes)
        nearest = fab(network, pixels, labels, 0.1, steps=5, candidates=wrong_classes)
        for result in (aimed, nearest):
            assert result.misclassified.all() == (wrong_classes == 2), result.attack


def test_projection_on_the_boundary_agrees_with_bisection():
    rng = np.random.default_rng(0)
    points, normal = rng.random((50, 12)), rng.standard_normal((50, 12))
    normal[:, :2] = 0
    value = rng.standard_normal(50) * 2
    change = (
        to_boundary(*(torch.tensor(part, dtype=torch.float32) for part in (points, value, normal))).double().numpy()
    )
    for k in range(50):
        room = np.where(-np.sign(value[k]) * normal[k] > 0, 1 - points[k], points[k])
        room[normal[k] == 0] = 0

        def reached(t: float, room: np.ndarray = room, k: int = k) -> float:
            return float(np.abs(normal[k]) @ np.minimum(room, t))

        assert np.all(points[k] + change[k] >= -1e-6)
        assert np.all(points[k] + change[k] <= 1 + 1e-6)
        if reached(1.0) < abs(value[k]):
            assert np.allclose(np.abs(change[k]), room, atol=1e-5)
            continue
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if reached(middle) < abs(value[k]) else (low, middle)
        assert abs(value[k] + normal[k] @ change[k]) < 1e-4
        assert np.abs(change[k]).max() == pytest.approx(high, abs=1e-5)


def test_square_comes_close_without_gradients(problem):
    network, pixels, labels, distance = problem
    epsilon = float(distance.median())
    with torch.no_grad():
        result = square(network, pixels, labels, epsilon, queries=1000)
    assert not result.misclassified[distance > epsilon * 1.001].any()
    assert result.misclassified[distance < 0.75 * epsilon].all()
    assert (result.pixels - pixels).abs().max() <= epsilon + 1e-6


def test_square_attacks_volumes():
    shape = (1, 4, 5, 6)
    network, pixels = linear(2, shape=shape), frames(30, 0.3, 0.7, shape)
    labels = network(pixels).argmax(1)
    epsilon = float(true_distance(network, pixels, labels).median())
    result = square(network, pixels, labels, 2 * epsilon, queries=400)
    assert result.robust_accuracy < 0.45, "a fifth is beyond reach"
    assert result.pixels.shape == pixels.shape


def test_the_worst_case_of_the_set_is_the_closed_form(problem):
    network, pixels, labels, distance = problem
    epsilon = float(distance.median())
    result = auto_attack(network, pixels, labels, AutoSettings(epsilon, steps=30, queries=50), batch=40)
    clear = (distance - epsilon).abs() > 0.001 * epsilon
    assert torch.equal(result.misclassified[clear], (distance <= epsilon)[clear])
    assert result.stages == ("clean", *FOUR)
    assert list(result.accuracies) == sorted(result.accuracies, reverse=True)
    assert result.accuracies[0] == 1.0
    assert result.accuracies[-1] == pytest.approx(result.robust_accuracy)
    assert torch.equal(result.fooled_by >= 0, result.misclassified)
    wrong, clear = is_wrong(network, result.pixels, labels)
    assert clear.float().mean() > 0.9
    assert torch.equal(wrong[clear], result.misclassified[clear])


def test_the_set_is_at_least_as_strong_as_its_parts_on_a_trained_network(trained):
    network, pixels, labels = trained
    assert (network(pixels).argmax(1) == labels).float().mean() > 0.9
    epsilon = 0.05
    plain = pgd(network, pixels, labels, epsilon, 20).robust_accuracy
    parts = {
        loss: apgd(network, pixels, labels, epsilon, loss=loss, steps=25).robust_accuracy
        for loss in ("dlr", "targeted")
    }
    parts["fab"] = fab(network, pixels, labels, epsilon, steps=25).robust_accuracy
    parts["square"] = square(network, pixels, labels, epsilon, queries=100).robust_accuracy
    result = auto_attack(network, pixels, labels, AutoSettings(epsilon, steps=25, queries=100))
    assert 0.05 < result.robust_accuracy < 0.95, "the test needs frames of both kinds"
    assert result.robust_accuracy <= min(plain, *parts.values()) + 1e-9
    assert max(parts["dlr"], parts["fab"]) <= plain + 0.05
    assert parts["square"] >= parts["targeted"]
    assert all(parameter.grad is None for parameter in network.parameters())


def test_later_attacks_only_see_the_frames_that_are_left(problem):
    network, pixels, labels, distance = problem
    seen: list[str] = []
    epsilon = float(distance.max()) * 1.5
    result = auto_attack(
        network, pixels, labels, AutoSettings(epsilon, steps=30), progress=lambda name, *_: seen.append(name)
    )
    assert result.robust_accuracy == 0
    assert set(seen) == {"APGD-CE"}
    assert (result.fooled_by == 1).all()


def test_frames_that_were_wrong_come_back_clean(problem):
    network, pixels, labels, _ = problem
    labels = labels.clone()
    labels[:7] = (labels[:7] + 1) % 5
    result = auto_attack(network, pixels, labels, AutoSettings(0.01, ("apgd-ce",), steps=5))
    assert torch.equal(result.pixels[:7], pixels[:7])
    assert (result.fooled_by[:7] == 0).all()


def test_two_classes_get_the_margin_instead_of_the_ratio():
    network, pixels = linear(2), frames(60, 0.2, 0.8)
    labels = network(pixels).argmax(1)
    distance = true_distance(network, pixels, labels)
    epsilon = float(distance.median())
    result = auto_attack(network, pixels, labels, AutoSettings(epsilon, (*FOUR, "apgd-t"), steps=20, queries=20))
    assert result.stages == ("clean", "apgd-ce", "apgd-margin", "fab", "square")
    assert result.robust_accuracy == pytest.approx((distance > epsilon).float().mean().item(), abs=0.02)


def test_the_seed_decides_and_nothing_global_does(trained):
    network, pixels, labels = trained
    settings = AutoSettings(0.05, ("apgd-ce", "square"), steps=5, queries=10)
    before = torch.get_rng_state()
    first, again, other = (auto_attack(network, pixels, labels, settings, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first.pixels, again.pixels)
    assert not torch.equal(first.pixels, other.pixels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n, p, y: AutoSettings(0.1, ("deepfool",)), "deepfool"),
        (lambda n, p, y: AutoSettings(0.1, ()), "none"),
        (lambda n, p, y: AutoSettings(0.1, queries=0), "at least 1"),
        (lambda n, p, y: auto_attack(n, p, y, AutoSettings(2.0)), "epsilon is 2"),
        (lambda n, p, y: auto_attack(lambda x: n(x).softmax(1), p, y, AutoSettings(0.1)), "logits needed"),
        (lambda n, p, y: apgd(n, p, y, 0.1, loss="dlr"), "at least 3 classes"),
        (lambda n, p, y: apgd(n, p, y, 0.1, loss="targeted"), "at least 4 classes"),
        (lambda n, p, y: apgd(n, p, y, 0.1, loss="hinge"), "hinge"),
        (lambda n, p, y: apgd(n, p, y, 0.1, steps=0), "steps 0"),
        (lambda n, p, y: fab(n, p, y, 0.1, candidates=0), "candidates 0"),
        (lambda n, p, y: square(n, p, y, 0.1, queries=0), "0 queries"),
        (lambda n, p, y: square(lambda x: n(x), p.flatten(1), y, 0.1), "(N, C, h, w)"),
        (lambda n, p, y: fab(n, p, y + 2, 0.1), "the network knows 0 to 1"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(UsageError) as error:
        call(linear(2), frames(4), torch.tensor([0, 1, 0, 1]))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
