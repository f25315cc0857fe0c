"""Fits the head of a monitor: it separates clean from attacked frames by the spatial means of a few layers.

The head is small on purpose, so that it costs microseconds: standardised means, one hidden layer, one number. It is
fitted on training images, which are never used for anything that is promised or reported. These images count as clean
as they are, and as cameras and codecs change them (`framegate.evaluation.monitor.views`); otherwise the head would stop
every compressed frame. The choice of layers starts with the input of the last linear layer, which costs nothing; the
layer that helps most is added as long as it helps. `framegate.evaluation.gate.rules` measures what the head sees of
attacks that it was not fitted on, and of an attack that aims at it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framegate.evaluation.attacks.linf import fgsm, pgd
from framegate.evaluation.attacks.loss import LogitsOf
from framegate.evaluation.corruptions.suite import corrupt
from framegate.evaluation.frames.engine_network import ObservedNetwork
from framegate.evaluation.metrics.ranking import Ranking, auroc
from framegate.evaluation.monitor.views import GAIN, OFFSET, QUALITY, SCALE, harmless
from framegate.export.graph.pooled import FEATURES
from framegate.models.labelled import LabelledImages
from framegate.models.pixels import to_pixels
from framegate.models.training.batches import Progress
from framegate.runtime.errors import UsageError
from framegate.runtime.monitor import Monitor, Tap

BATCH = 32
"""Frames per forward pass: activations of more do not stay in a processor's cache."""
LIMIT = 8.0
HIDDEN = 16
LEAST_JUDGED = 20
"""Frames without which nobody can tell whether a monitor is worth its place."""
_EPOCHS, _STEP, _RATE, _DECAY = 40, 128, 3e-3, 0.1
_VALIDATION = 0.2
_GAIN = 0.001  # of the mean AUROC: less is not worth a layer

DAMAGE = (("gaussian_noise", 3), ("impulse_noise", 3), ("defocus_blur", 4))
"""Corruptions and their severities that stand beside transferred attacks, of which a network may feel little."""

Means = Mapping[str, npt.NDArray[np.float32]]
"""Layer, or `FEATURES` -> (N, channels)."""


@dataclass(frozen=True)
class Recipe:
    """What a monitor is fitted with.

    Attributes:
        images: Clean training images.
        attacked: How many of them each PGD attacks; FGSM attacks half of all.
        fgsm: Radii in grey levels.
        pgd: Radii in grey levels.
        pgd_steps: Steps of PGD.
        layers: At most so many layers besides the features.
        judged: Frames that are attacked to judge the result; None: as `framegate.evaluation.monitor.worth` says.
        seed: Of the choice of images and of the fit.
    """

    images: int = 3_000
    attacked: int = 400
    fgsm: tuple[int, ...] = (2, 4, 8)
    pgd: tuple[int, ...] = (4, 8)
    pgd_steps: int = 10
    layers: int = 2
    judged: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            UsageError: Too little to fit anything.
        """
        if not (self.images >= 100 and 20 <= self.attacked <= self.images and self.layers >= 0):
            raise UsageError(
                f"monitor: {self.images} images, {self.attacked} attacked, {self.layers} layers given; at least 100, "
                "20 and 0 are needed, and no more attacked than images"
            )
        if self.judged is not None and self.judged < LEAST_JUDGED:
            raise UsageError(f"monitor: {self.judged} judged images given, at least {LEAST_JUDGED} are needed")


@torch.no_grad()
def layer_means(network: ObservedNetwork, pixels: Tensor) -> dict[str, npt.NDArray[np.float32]]:
    """Spatial means of every tap, and the features, of (N, ...) pixels."""
    found: dict[str, list[Tensor]] = {}
    for k in range(0, len(pixels), BATCH):
        _, features, activations = network.observe(pixels[k : k + BATCH])
        means = {name: activation.flatten(2).mean(2) for name, activation in activations.items() if activation.ndim > 2}
        for name, value in {**means, FEATURES: features}.items():
            found.setdefault(name, []).append(value)
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def attacked_sets(
    network: ObservedNetwork,
    images: LabelledImages,
    depth: int,
    recipe: Recipe,
    progress: Progress,
    followed: LogitsOf | None = None,
) -> dict[str, Means]:
    """Layer means of clean training images (``clean``: as they are, and a harmless view of each), and by attack.

    Args:
        network: The one whose layers are looked at.
        images: Of the training split.
        depth: Slices of a volume; 1 for images.
        recipe: What is made.
        progress: Called before every set.
        followed: What the attacks follow if the network has no gradient: they are shown to the network as they are, and
            images with `DAMAGE` join them. None: the network itself.
    """
    rng = np.random.default_rng(recipe.seed)
    index = rng.permutation(len(images))[: recipe.images]
    if len(index) < 100:
        raise UsageError(f"monitor: {len(images)} training images given, at least 100 are needed")
    pixels, labels = to_pixels(images.images[index], depth), torch.from_numpy(images.labels[index])
    half, few = len(pixels) // 2, min(recipe.attacked, len(pixels))
    damage = () if followed is None else DAMAGE
    how = "" if followed is None else ", transferred"
    jobs = 1 + len(recipe.fgsm) + len(recipe.pgd) + len(damage)
    progress("monitor: clean images", 0, jobs)
    views = to_pixels(harmless(images.images[index], recipe.seed, depth), depth)
    found: dict[str, Means] = {"clean": _shuffled(layer_means(network, pixels), layer_means(network, views), rng)}
    target = followed or network
    for level in recipe.fgsm:
        progress(f"monitor: FGSM {level}/255", len(found), jobs)
        result = fgsm(target, pixels[:half], labels[:half], level / 255, batch=BATCH)
        found[f"FGSM {level}/255{how}"] = layer_means(network, result.pixels)
    for level in recipe.pgd:
        progress(f"monitor: PGD-{recipe.pgd_steps} {level}/255", len(found), jobs)
        # From the other end, so that the attacks do not all share their images.
        result = pgd(target, pixels[-few:], labels[-few:], level / 255, recipe.pgd_steps, batch=BATCH, seed=recipe.seed)
        found[f"PGD-{recipe.pgd_steps} {level}/255{how}"] = layer_means(network, result.pixels)
    for name, severity in damage:
        progress(f"monitor: {name} {severity}", len(found), jobs)
        damaged = corrupt(images.images[index[:half]], name, severity, recipe.seed, depth=depth)
        found[f"{name} {severity}"] = layer_means(network, to_pixels(damaged, depth))
    progress("monitor: attacks", jobs, jobs)
    return found


def _shuffled(first: Means, second: Means, rng: np.random.Generator) -> Means:
    """Both sets of frames in one random order, so that any part of it holds both."""
    order = rng.permutation(2 * len(first[FEATURES]))
    return {name: np.concatenate([first[name], second[name]])[order] for name in first}


def fit_monitor(sets: Mapping[str, Means], recipe: Recipe, data: str, progress: Progress) -> Monitor:
    """Choose layers and fit the head.

    Args:
        sets: From `attacked_sets`.
        recipe: What they were made with.
        data: Name of the data, for people.
        progress: Called during the work.
    """
    names = [name for name in sets["clean"] if name != FEATURES]
    chosen: list[str] = [FEATURES]
    best = _validated(sets, chosen, recipe.seed)
    path = [{"layers": list(chosen), "auroc": _rounded(best)}]
    while len(chosen) <= recipe.layers and names:
        progress("monitor: choosing layers", len(chosen) - 1, recipe.layers)
        tried = {name: _validated(sets, [*chosen, name], recipe.seed) for name in names}
        winner = max(tried, key=lambda name: float(np.mean(list(tried[name].values()))))
        if np.mean(list(tried[winner].values())) < np.mean(list(best.values())) + _GAIN:
            break
        best = tried[winner]
        chosen.append(winner)
        names.remove(winner)
        path.append({"layers": list(chosen), "auroc": _rounded(best)})
    progress("monitor: choosing layers", recipe.layers, recipe.layers)
    order = sorted(chosen, key=lambda name: (name == FEATURES, list(sets["clean"]).index(name)))
    centre, spread, network = _fit(*_training(sets, order, 1.0), recipe.seed)
    first, last = network[0], network[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    return Monitor(
        taps=tuple(Tap(name, sets["clean"][name].shape[1]) for name in order),
        centre=centre,
        spread=spread,
        limit=LIMIT,
        hidden=first.weight.detach().numpy(),
        hidden_bias=first.bias.detach().numpy(),
        weights=last.weight.detach().numpy()[0],
        bias=float(last.bias.detach()[0]),
        fitted={
            "data": data,
            "clean_images": len(sets["clean"][FEATURES]) // 2,
            "harmless_views": f"JPEG quality {QUALITY}, resampled by {SCALE}, contrast {GAIN}, brightness {OFFSET}",
            "attacks": {name: len(means[FEATURES]) for name, means in sets.items() if name != "clean"},
            "validation_share": _VALIDATION,
            "choice_of_layers": path,
            "seed": recipe.seed,
        },
    )


def head_score(monitor: Monitor, means: Means) -> npt.NDArray[np.float64]:
    """(N,) ``shift`` of many frames, the formula of `framegate.runtime.monitor.Monitor` on arrays."""
    pooled = np.concatenate([means[tap.name] for tap in monitor.taps], axis=1)
    return np.asarray(DifferentiableHead(monitor)(torch.from_numpy(pooled)).double())


class DifferentiableHead:
    """The head of a monitor as a differentiable function of (N, F) pooled values, for attacks that aim at it.

    Args:
        monitor: The fitted monitor.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._limit, self._bias = monitor.limit, monitor.bias
        self._centre, self._spread, self._hidden, self._hidden_bias, self._weights = (
            torch.from_numpy(np.asarray(each, np.float32))
            for each in (monitor.centre, monitor.spread, monitor.hidden, monitor.hidden_bias, monitor.weights)
        )

    def __call__(self, pooled: Tensor) -> Tensor:
        """(N, F) -> (N,)."""
        row = ((pooled - self._centre) / self._spread).clamp(-self._limit, self._limit)
        inner = F.relu(row @ self._hidden.T + self._hidden_bias)
        return inner @ self._weights + self._bias


def _training(
    sets: Mapping[str, Means], layers: Sequence[str], share: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Rows, 0 for clean and 1 for attacked, and weights: both kinds have the same sum, and so has every attack."""
    rows, targets, weights = [], [], []
    attacks = len(sets) - 1
    for name, means in sets.items():
        part = np.concatenate([means[layer] for layer in layers], axis=1)
        part = part[: round(len(part) * share)]
        rows.append(part)
        targets.append(np.full(len(part), name != "clean", np.float32))
        weights.append(np.full(len(part), 1.0 / len(part) / (1 if name == "clean" else attacks), np.float32))
    joined = np.concatenate(weights)
    return np.concatenate(rows), np.concatenate(targets), joined / joined.mean()


def _fit(
    rows: npt.NDArray[np.float32], targets: npt.NDArray[np.float32], weights: npt.NDArray[np.float32], seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], nn.Sequential]:
    clean = rows[targets == 0]
    # A channel that is always zero on clean frames must not give a frame an infinite value.
    centre, spread = clean.mean(0), np.maximum(clean.std(0), 1e-3 * (clean.std() + 1e-6))
    inputs = torch.from_numpy(np.clip((rows - centre) / spread, -LIMIT, LIMIT).astype(np.float32))
    wanted, importance = torch.from_numpy(targets), torch.from_numpy(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(rows.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
        optimiser = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _EPOCHS)
        for _ in range(_EPOCHS):
            order = torch.randperm(len(inputs))
            for k in range(0, len(order), _STEP):
                batch = order[k : k + _STEP]
                loss = F.binary_cross_entropy_with_logits(
                    network(inputs[batch])[:, 0], wanted[batch], importance[batch]
                )
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            schedule.step()
    return centre.astype(np.float32), spread.astype(np.float32), network


def _validated(sets: Mapping[str, Means], layers: Sequence[str], seed: int) -> dict[str, float]:
    """Attack -> AUROC against clean on the images that this fit did not see."""
    centre, spread, network = _fit(*_training(sets, layers, 1.0 - _VALIDATION), seed)

    def scores(name: str) -> npt.NDArray[np.float64]:
        part = np.concatenate([sets[name][layer] for layer in layers], axis=1)
        part = part[round(len(part) * (1.0 - _VALIDATION)) :]
        rows = torch.from_numpy(np.clip((part - centre) / spread, -LIMIT, LIMIT).astype(np.float32))
        return np.asarray(network(rows)[:, 0].detach().double())

    clean = scores("clean")
    return {name: separation(clean, scores(name)) for name in sets if name != "clean"}


def separation(clean: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """AUROC in [0, 1]: the probability that one of the other frames scores above a clean one."""
    scores = np.concatenate([clean, other])
    ranking = Ranking(scores, np.arange(len(scores)) >= len(clean))
    return auroc(*ranking.below(np.ones(len(scores), np.int64)))


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}
