from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from framegate.evaluation.attacks.adaptive import AdaptiveSettings, adaptive_pgd
from framegate.evaluation.attacks.linf import pgd
from framegate.evaluation.attacks.two_goals import STRATEGIES, BestEvasion, direction, unit
from framegate.runtime.errors import UsageError

EPSILON = 0.2
Monitored = tuple[Callable[[Tensor], tuple[Tensor, Tensor]], Tensor, Tensor, float]


def entropy(logits: Tensor) -> Tensor:
    logs = logits.log_softmax(1)
    return -(logs.exp() * logs).sum(1)


def classifier() -> nn.Sequential:
    """Three classes, linear; frames at its own prototypes have entropies around 0.5 nats."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(3, 48, generator=generator))
        network[1].bias.copy_(-network[1].weight.sum(1) / 2)
    return network


@pytest.fixture(scope="module")
def monitored() -> Monitored:
    """The classifier with the two-sided entropy score |H - mean| / deviation, accepting 80 % of the clean frames."""
    network = classifier()
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (120,), generator=generator)
    prototypes = 0.5 + 0.025 * network[1].weight.detach().view(3, 3, 4, 4)
    pixels = (prototypes[labels] + 0.05 * torch.randn(120, 3, 4, 4, generator=generator)).clamp(0, 1)
    clean = entropy(network(pixels).detach())
    centre, spread = float(clean.mean()), float(clean.std())

    def observe(some: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(some)
        return logits, ((entropy(logits) - centre) / spread).abs()

    threshold = float(observe(pixels)[1].detach().quantile(0.8))
    return observe, pixels, labels, threshold


def accepted(score: Tensor, threshold: float) -> Tensor:
    return score.isfinite() & (score <= threshold)


def lead(logits: Tensor) -> Tensor:
    """How far the largest logit is before the second: at zero rounding decides which class a frame is."""
    top = logits.topk(2, 1).values
    return top[:, 0] - top[:, 1]


def test_it_evades_a_two_sided_monitor_that_plain_pgd_does_not(monitored):
    observe, pixels, labels, threshold = monitored
    plain = pgd(lambda some: observe(some)[0], pixels, labels, EPSILON, 40)
    assert plain.robust_accuracy < 0.05
    seen = accepted(observe(plain.pixels)[1].detach(), threshold) & plain.misclassified
    assert seen.float().mean() < 0.1, "plain PGD is too certain and gets caught"
    result = adaptive_pgd(observe, pixels, labels, threshold, AdaptiveSettings(EPSILON, steps=40))
    assert result.evaded.float().mean() > 0.95
    logits, score = (part.detach() for part in observe(result.pixels))
    # The attack sees the frames in other batches, so that a bound met within rounding may be judged either way here.
    clear = ((score - threshold).abs() > 1e-3) & (lead(logits) > 1e-3)
    assert clear.float().mean() > 0.9
    assert torch.equal(result.evaded[clear], ((logits.argmax(1) != labels) & accepted(score, threshold))[clear])
    assert torch.allclose(score, result.score, atol=1e-4)
    assert (result.pixels - pixels).abs().max() <= EPSILON + 1e-6
    assert result.pixels.min() >= 0
    assert result.pixels.max() <= 1


def test_it_lowers_a_one_sided_score_as_far_as_plain_pgd_or_further(monitored):
    observe, pixels, labels, _ = monitored

    def one_sided(some: Tensor) -> tuple[Tensor, Tensor]:
        logits = observe(some)[0]
        return logits, entropy(logits)

    plain = pgd(lambda some: observe(some)[0], pixels, labels, EPSILON, 40)
    result = adaptive_pgd(one_sided, pixels, labels, 0.5, AdaptiveSettings(EPSILON, steps=40))
    assert result.evaded.all()
    assert result.score.mean() <= entropy(plain.logits).mean() + 1e-3


@pytest.mark.parametrize("name", [*STRATEGIES, "weight"])
def test_every_strategy_works_alone(monitored, name):
    observe, pixels, labels, threshold = monitored
    settings = AdaptiveSettings(
        EPSILON,
        steps=40,
        strategies=() if name == "weight" else (name,),
        weights=(0.5,) if name == "weight" else (),
    )
    result = adaptive_pgd(observe, pixels, labels, threshold, settings)
    assert result.evaded.float().mean() > 0.6
    assert result.strategies == ("clean frame", *settings.names)
    assert set(result.won_by[result.evaded].tolist()) <= {0, 1}


def test_the_union_is_at_least_each_strategy_and_first_evades_as_many_as_best(monitored):
    observe, pixels, labels, threshold = monitored
    tight = threshold / 20
    union = adaptive_pgd(observe, pixels, labels, tight, AdaptiveSettings(EPSILON, steps=12))
    first = adaptive_pgd(observe, pixels, labels, tight, AdaptiveSettings(EPSILON, steps=12, keep="first"))
    # "first" goes on with fewer frames in a batch: a score on the threshold may round to its other side.
    clear = (union.score - tight).abs() > 1e-3
    assert clear.float().mean() > 0.9
    assert union.evaded[clear].any()
    assert torch.equal(union.evaded[clear], first.evaded[clear])
    both = union.evaded & first.evaded
    assert (union.score[both] <= first.score[both] + 1e-5).all()
    for name in STRATEGIES:
        alone = adaptive_pgd(
            observe, pixels, labels, tight, AdaptiveSettings(EPSILON, steps=12, weights=(), strategies=(name,))
        )
        assert not (alone.evaded & ~union.evaded & clear).any()
    more = adaptive_pgd(observe, pixels, labels, tight, AdaptiveSettings(EPSILON, steps=12, restarts=2))
    assert not (union.evaded & ~more.evaded & clear).any()


def test_a_frame_that_was_wrong_and_accepted_needs_no_attack(monitored):
    observe, pixels, labels, _ = monitored
    wrong = (labels + 1) % 3
    settings = AdaptiveSettings(0.001, steps=1, keep="first")
    result = adaptive_pgd(observe, pixels, wrong, 1e3, settings)
    untouched = observe(pixels)[0].argmax(1) != wrong
    assert result.evaded[untouched].all()
    assert (result.won_by[untouched] == 0).all()
    assert torch.equal(result.pixels[untouched], pixels[untouched])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_never_evades(monitored, bad):
    observe, pixels, labels, _ = monitored

    def broken(some: Tensor) -> tuple[Tensor, Tensor]:
        logits, score = observe(some)
        return logits, 0 * score + bad

    result = adaptive_pgd(broken, pixels[:20], labels[:20], 1e9, AdaptiveSettings(EPSILON, steps=10))
    assert result.misclassified.all()
    assert not result.evaded.any()
    assert result.blind == 1.0


def test_a_histogram_is_attacked_through_its_smooth_form(monitored):
    observe, pixels, labels, threshold = monitored

    def stepped(some: Tensor) -> tuple[Tensor, Tensor]:
        logits, score = observe(some)
        hard = (score / threshold * 4).ceil() / 4 * threshold
        return logits, score + (hard - score).detach()

    result = adaptive_pgd(stepped, pixels, labels, threshold, AdaptiveSettings(EPSILON, steps=30, keep="first"))
    assert result.evaded.float().mean() > 0.9
    steps = result.score[result.evaded] / threshold * 4
    assert torch.allclose(steps, steps.round(), atol=1e-4), "judged by the real score"


def test_batch_size_does_not_matter_and_nothing_global_is_touched(monitored):
    observe, pixels, labels, threshold = monitored
    settings = AdaptiveSettings(0.1, steps=5, restarts=2)
    before = torch.get_rng_state()
    seen: list[tuple[str, int, int]] = []
    whole, split = (
        adaptive_pgd(
            observe, pixels, labels, threshold, settings, batch=batch, progress=lambda *call: seen.append(call)
        )
        for batch in (128, 50)
    )
    assert torch.equal(before, torch.get_rng_state())
    clear = (whole.score - threshold).abs() > 2e-3
    assert clear.float().mean() > 0.9
    assert torch.equal(whole.evaded[clear], split.evaded[clear])
    assert torch.allclose(whole.score, split.score, atol=1e-3)
    assert seen[-1] == ("adaptive PGD", 3 * 2 * 6 * 5, 3 * 2 * 6 * 5)


def test_directions():
    up, down = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[-0.6, 0.8], [0.6, 0.8]])
    wrong = torch.tensor([True, True])
    assert torch.equal(direction("selective", 0.5, up, down, wrong), down)
    assert torch.equal(direction("selective", 0.5, up, down, ~wrong), up)
    assert torch.equal(direction("two-phase", 0.1, up, down, wrong), up)
    assert torch.allclose(direction("weight 0.25", 0.5, up, down, wrong), 0.75 * up + 0.25 * down)
    projected = direction("orthogonal", 0.5, up, down, wrong)
    # The first frame's goals conflict: what lowers its margin is taken out. The second's do not.
    assert torch.allclose(projected, torch.tensor([[0.0, 0.8], [0.6, 0.8]]))


def test_unit_survives_tiny_zero_and_broken_gradients():
    gradients = torch.tensor([[3e-30, 4e-30], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
    assert torch.allclose(unit(gradients), torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))


def test_what_counts_as_better():
    labels = torch.zeros(1, dtype=torch.int64)
    right, wrong = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    best = BestEvasion(torch.zeros(1, 1), right, torch.tensor([0.1]), labels, 1.0)
    row = torch.tensor([0])
    for pixel, logits, score, kept in [
        (1.0, wrong, 9.0, True),
        (2.0, right, 0.0, False),
        (3.0, wrong, math.nan, False),
        (4.0, wrong, 1.0, True),
        (5.0, wrong, 1.5, False),
        (6.0, wrong, 0.5, True),
        (7.0, wrong, math.nan, False),
        (8.0, wrong, -math.inf, False),
    ]:
        best.offer(row, torch.full((1, 1), pixel), logits, torch.tensor([score]), 1)
        assert (best.pixels.item() == pixel) is kept
    assert best.rank.item() == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": math.nan}, "threshold is nan"),
        ({"settings": {"epsilon": 1.5}}, "epsilon is 1.5"),
        ({"observe": lambda some: (classifier()(some), classifier()(some))}, "one number a frame"),
        ({"observe": lambda some: (classifier()(some), some.detach().mean((1, 2, 3)))}, "score carry no gradient"),
        ({"observe": lambda some: (classifier()(some).softmax(1), some.mean((1, 2, 3)))}, "logits needed"),
        ({"labels": torch.tensor([0, 3])}, "the network knows 0 to 2"),
    ],
)
def test_bad_input_is_refused_in_one_line(change, message):
    arguments = {
        "observe": lambda some: (classifier()(some), some.mean((1, 2, 3))),
        "pixels": torch.full((2, 3, 4, 4), 0.5),
        "labels": torch.tensor([0, 1]),
        "threshold": 0.5,
    }
    arguments.update({key: value for key, value in change.items() if key != "settings"})
    settings = AdaptiveSettings(**{"epsilon": 0.1, "steps": 2, **change.get("settings", {})})
    with pytest.raises(UsageError) as error:
        adaptive_pgd(settings=settings, **arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"restarts": 0},
        {"step_size": 0.0},
        {"weights": (1.5,)},
        {"strategies": ("luck",)},
        {"weights": (), "strategies": ()},
        {"keep": "last"},
    ],
)
def test_settings_out_of_range(options):
    with pytest.raises(UsageError):
        AdaptiveSettings(0.1, **options)
