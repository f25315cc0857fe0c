from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from framegate.evaluation.attacks.linf import LinfSettings, fgsm, pgd, run_linf, uniform_noise
from framegate.evaluation.attacks.problem import uniform
from framegate.runtime.errors import UsageError

EPSILON = 0.05


def linear(classes: int, seed: int = 0, shape: tuple[int, ...] = (3, 6, 6)) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(int(torch.tensor(shape).prod()), classes))
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(network[1].weight.shape, generator=generator))
        # Zero at mid-grey, so that every class is met.
        network[1].bias.copy_(-network[1].weight.sum(1) / 2)
    return network


def frames(size: int, seed: int = 1, shape: tuple[int, ...] = (3, 6, 6)) -> Tensor:
    return torch.rand(size, *shape, generator=torch.Generator().manual_seed(seed))


def truly_robust(network: nn.Sequential, pixels: Tensor, labels: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Closed form for a linear network: the worst pixels for class j are a corner of ball and box together.

    Returns:
        (N,) bool, no pixels of the ball are misclassified; (N,) bool, by more than rounding decides.
    """
    weight, flat = network[1].weight.detach(), pixels.flatten(1)
    low, high = (flat - epsilon).clamp(min=0), (flat + epsilon).clamp(max=1)
    logits = network(pixels).detach()
    worst = torch.full((len(pixels),), torch.inf)
    for other in range(len(weight)):
        normal = weight[labels] - weight[other]
        lowest = torch.where(normal > 0, low - flat, high - flat)
        gap = logits.gather(1, labels[:, None])[:, 0] - logits[:, other] + (normal * lowest).sum(1)
        worst = torch.where(labels == other, worst, torch.minimum(worst, gap))
    return worst > 0, worst.abs() > 1e-3


@pytest.fixture(scope="module")
def two_classes() -> tuple[nn.Sequential, Tensor, Tensor]:
    network, pixels = linear(2), frames(200)
    labels = network(pixels).argmax(1)
    labels[:10] = 1 - labels[:10]
    return network, pixels, labels


def test_fgsm_and_pgd_reach_the_closed_form_of_a_linear_network(two_classes):
    network, pixels, labels = two_classes
    truth, clear = truly_robust(network, pixels, labels, EPSILON)
    assert clear.float().mean() > 0.95
    assert 0.1 < truth.float().mean() < 0.9, "the test needs frames of both kinds"
    for result in (
        fgsm(network, pixels, labels, EPSILON),
        pgd(network, pixels, labels, EPSILON, 10),
        pgd(network, pixels, labels, EPSILON, 10, loss="margin", keep="first"),
        pgd(network, pixels, labels, EPSILON, 10, keep="last", restarts=2),
    ):
        assert torch.equal(result.misclassified[clear], ~truth[clear]), result.attack
        assert result.robust_accuracy == pytest.approx((~result.misclassified).float().mean().item())
        assert torch.equal(result.predictions != labels, result.misclassified)


def test_the_margin_loss_comes_close_with_many_classes():
    network, pixels = linear(6), frames(200)
    labels = network(pixels).argmax(1)
    robust, clear = truly_robust(network, pixels, labels, 0.03)
    result = pgd(network, pixels, labels, 0.03, 40, loss="margin", restarts=2)
    assert clear.float().mean() > 0.95
    assert not (result.misclassified & robust & clear).any(), "what cannot be done is not done"
    assert result.robust_accuracy <= robust.float().mean() + 0.02


@pytest.mark.parametrize("keep", ["best", "first", "last"])
def test_attacked_pixels_stay_in_ball_and_box(two_classes, keep):
    network, pixels, labels = two_classes
    result = pgd(network, pixels, labels, EPSILON, 5, keep=keep)
    assert (result.pixels - pixels).abs().max() <= EPSILON + 1e-6
    assert result.pixels.min() >= 0
    assert result.pixels.max() <= 1
    assert torch.allclose(network(result.pixels), result.logits, atol=1e-4)


def curved(seed: int = 0) -> Callable[[Tensor], Tensor]:
    """A network whose loss has many bumps, so that single starts and steps get stuck."""
    network = linear(4, seed)
    return lambda pixels: torch.sin(3 * network(pixels)) + 0.05 * network(pixels)


def test_more_steps_of_one_size_and_more_restarts_never_lose_a_frame():
    network, pixels = curved(), frames(120)
    labels = network(pixels).argmax(1)
    found = {}
    for steps, restarts in [(1, 1), (4, 1), (12, 1), (12, 3)]:
        result = pgd(network, pixels, labels, 0.01, steps, step_size=0.003, restarts=restarts)
        loss = nn.functional.cross_entropy(result.logits, labels, reduction="none")
        found[steps, restarts] = result.misclassified, loss
    for weak, strong in [((1, 1), (4, 1)), ((4, 1), (12, 1)), ((12, 1), (12, 3))]:
        assert not (found[weak][0] & ~found[strong][0]).any()
        both = found[weak][0] & found[strong][0]
        assert (found[strong][1][both] >= found[weak][1][both] - 1e-5).all()
    assert found[12, 3][0].sum() > found[1, 1][0].sum(), "the test needs frames that only the strong attack finds"


def test_best_and_first_fool_the_same_frames_and_best_has_the_higher_loss():
    network, pixels = curved(1), frames(100)
    labels = network(pixels).argmax(1)
    best, first = (pgd(network, pixels, labels, 0.01, 10, keep=keep) for keep in ("best", "first"))
    # "first" goes on with fewer frames in a batch: two logits within rounding of each other may change places.
    top = best.logits.topk(2, 1).values
    clear = top[:, 0] - top[:, 1] > 1e-3
    assert clear.float().mean() > 0.9
    assert torch.equal(best.misclassified[clear], first.misclassified[clear])
    fooled = best.misclassified & first.misclassified
    losses = [nn.functional.cross_entropy(r.logits[fooled], labels[fooled]) for r in (best, first)]
    assert losses[0] > losses[1]


def test_batch_size_does_not_matter_and_the_seed_does():
    network, pixels = curved(2), frames(50)
    labels = network(pixels).argmax(1)
    whole, split, other = (
        pgd(network, pixels, labels, 0.01, 3, batch=batch, seed=seed) for batch, seed in [(64, 0), (7, 0), (64, 1)]
    )
    assert torch.allclose(whole.pixels, split.pixels, atol=1e-6)
    assert not torch.allclose(whole.pixels, other.pixels, atol=1e-6)


def test_noise_is_even_and_of_its_own_for_every_frame_draw_and_seed():
    shape, rows = torch.Size((3, 20, 20)), torch.arange(3)
    noise = uniform(shape, rows, 0, 0)
    assert noise.min() >= -1
    assert noise.max() < 1
    assert noise.mean().abs() < 0.05
    assert noise.std() == pytest.approx(3**-0.5, abs=0.02)
    others = [noise[1], noise[2], uniform(shape, rows, 0, 1)[0], uniform(shape, rows, 1, 0)[0]]
    assert all((noise[0] - other).abs().mean() > 0.5 for other in others)
    assert torch.equal(uniform(shape, rows[1:], 0, 0), noise[1:])


def test_nothing_global_is_touched(two_classes):
    network, pixels, labels = two_classes
    before = torch.get_rng_state()
    pgd(network, pixels, labels, EPSILON, 2)
    uniform_noise(network, pixels, labels, EPSILON)
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not pixels.requires_grad


def test_noise_is_weaker_than_a_gradient_and_inside_the_ball(two_classes):
    network, pixels, labels = two_classes
    noise = uniform_noise(network, pixels, labels, EPSILON, draws=5)
    assert noise.robust_accuracy > fgsm(network, pixels, labels, EPSILON).robust_accuracy + 0.1
    assert (noise.pixels - pixels).abs().max() <= EPSILON + 1e-6
    assert noise.misclassified[:10].all(), "frames that were wrong before stay wrong"


def test_volumes_are_attacked_like_images():
    network, pixels = linear(2, shape=(1, 4, 5, 6)), frames(40, shape=(1, 4, 5, 6))
    labels = network(pixels).argmax(1)
    result = pgd(network, pixels, labels, EPSILON, 5)
    assert result.pixels.shape == pixels.shape
    robust, clear = truly_robust(network, pixels, labels, EPSILON)
    assert clear.float().mean() > 0.9
    assert torch.equal(result.misclassified[clear], ~robust[clear])


def test_logits_of_nan_count_as_misclassified():
    network, pixels = linear(3), frames(20)
    labels = network(pixels).argmax(1)

    def broken(some: Tensor) -> Tensor:
        logits = network(some)
        moved = (some - pixels[: len(some)]).abs().flatten(1).amax(1) > 0.004
        return torch.where(moved[:, None], torch.nan, logits)

    assert pgd(broken, pixels, labels, 0.005, 3, batch=20).misclassified.all()


def test_progress_ends_at_its_total(two_classes):
    network, pixels, labels = two_classes
    seen = []
    pgd(
        network,
        pixels,
        labels,
        EPSILON,
        3,
        restarts=2,
        keep="first",
        batch=64,
        progress=lambda *call: seen.append(call),
    )
    assert seen[-1] == ("PGD-3", 24, 24)
    assert [done for _, done, _ in seen] == sorted({done for _, done, _ in seen})


def test_settings_print_every_parameter():
    settings = LinfSettings("PGD-20", 8 / 255, 20)
    for part in ("PGD-20", "8/255", "20 x 1/255", "restarts 1", "random start", "cross_entropy", "best"):
        assert part in str(settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, "epsilon is 0"),
        ({"epsilon": 8.0}, "epsilon is 8"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"steps": 0}, "steps 0"),
        ({"restarts": 0}, "restarts 0"),
        ({"step_size": -1.0}, "step size"),
        ({"loss": "hinge"}, "hinge"),
        ({"keep": "all"}, "all"),
        ({"loss": "dlr"}, "at least 3 classes"),
        ({"batch": 0}, "batch is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"pixels": torch.full((4, 3, 6, 6), 255.0)}, "divide 8-bit images by 255"),
        ({"pixels": torch.full((4, 3, 6, 6), torch.nan)}, "finite"),
        ({"pixels": torch.zeros(4, 3, 6, 6, dtype=torch.float64)}, "float32"),
        ({"pixels": torch.zeros(0, 3, 6, 6)}, "no frame"),
        ({"labels": torch.tensor([0, 1, 2, 0])}, "the network knows 0 to 1"),
        ({"labels": torch.tensor([0, 1])}, "labels must be 4"),
        ({"logits_of": lambda some: linear(2)(some).softmax(1)}, "logits needed"),
        ({"logits_of": lambda some: linear(2)(some)[:, 0]}, "shape (frames, classes)"),
        ({"logits_of": lambda some: linear(2)(some).detach()}, "no gradient"),
    ],
)
def test_bad_input_is_refused_in_one_line(change, message):
    arguments = {
        "logits_of": linear(2),
        "pixels": torch.full((4, 3, 6, 6), 0.5),
        "labels": torch.tensor([0, 1, 0, 1]),
        "epsilon": 0.1,
        "steps": 2,
    }
    with pytest.raises(UsageError) as error:
        pgd(**{**arguments, **change})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_run_linf_is_what_pgd_runs(two_classes):
    network, pixels, labels = two_classes
    settings = LinfSettings("PGD-4", EPSILON, 4)
    assert torch.equal(
        run_linf(settings, network, pixels, labels).pixels, pgd(network, pixels, labels, EPSILON, 4).pixels
    )
