"""Runs every part of an evaluation: clean frames, attacks, corruptions, foreign frames. Nothing is judged here.

Each part is pushed through the network once and kept as observations, so that scores and metrics, which are cheap, can
be computed again from them at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from framegate.evaluation.attacks.adaptive import AdaptiveResult, AdaptiveSettings, adaptive_pgd
from framegate.evaluation.attacks.auto import AutoSettings, auto_attack
from framegate.evaluation.attacks.health import check_attack_health
from framegate.evaluation.attacks.linf import LinfSettings, pgd, run_linf, uniform_noise
from framegate.evaluation.attacks.monitors import AcceptanceRule, one_sided, two_sided
from framegate.evaluation.attacks.problem import AttackResult, refuse_probabilities
from framegate.evaluation.attacks.radius import epsilon_text
from framegate.evaluation.corruptions.suite import CORRUPTIONS, VOLUME_CORRUPTIONS, corrupt
from framegate.evaluation.frames.network import Network
from framegate.evaluation.frames.observations import Observations
from framegate.evaluation.frames.ood import FrameSet
from framegate.evaluation.suite.estimate import Estimate
from framegate.evaluation.suite.observe import Observer
from framegate.evaluation.suite.plan import EPSILON, RESEARCH_EPSILON, Plan, attack_key
from framegate.evaluation.suite.store import Store
from framegate.models.labelled import LabelledImages
from framegate.models.pixels import to_pixels
from framegate.models.training.batches import Progress

SEVERITIES = (1, 2, 3, 4, 5)
ATTACK_BATCH = 50
ADAPTIVE = "adaptive"


@dataclass(frozen=True)
class Frames:
    """What an evaluation looks at.

    Attributes:
        calibration: Calibration split: temperatures, thresholds and scores are fitted on it.
        test: Test split: for reporting only.
        depth: Slices of a volume; 1 for images.
        foreign: Sets without labels of this network.
    """

    calibration: LabelledImages
    test: LabelledImages
    depth: int
    foreign: tuple[FrameSet, ...]


_GRADIENT = 3.0
"""A gradient costs about so many passes without one."""
_STRATEGIES = len(AdaptiveSettings(EPSILON).names)


def part_sizes(frames: Frames, plan: Plan) -> dict[str, float]:
    """How large the parts of an evaluation are, in passes of one frame, by the names under which they are kept.

    Only their proportions matter: the pace is measured.
    """
    volumes = frames.depth > 1
    main = (plan.epsilon, RESEARCH_EPSILON)
    count = len(frames.test)
    sizes = {"calibration": float(len(frames.calibration)), "clean": float(min(plan.test, count))}
    for epsilon in plan.curve:
        sizes[attack_key(plan.fgsm_settings(epsilon))] = (_GRADIENT + 1) * min(plan.fgsm, count)
        n = min(plan.pgd if epsilon in main else plan.pgd_curve, count)
        sizes[attack_key(plan.pgd_settings(epsilon))] = n * (_GRADIENT * plan.pgd_steps * plan.pgd_restarts + 1)
    sizes[f"noise-{epsilon_text(plan.epsilon)}"] = 3.0 * min(plan.pgd, count)
    if plan.auto:
        sizes[f"autoattack-{epsilon_text(plan.epsilon)}"] = min(plan.auto, count) * _GRADIENT * 400
    # The checks attack the same frames in six ways, and ask a black box.
    sizes["health"] = min(plan.health, count) * (6 * _GRADIENT * plan.pgd_steps + plan.square_queries)
    each = min(plan.adaptive, count) * 2 * _GRADIENT * (plan.adaptive_steps + 1) * _STRATEGIES
    sizes |= {f"{ADAPTIVE} {k}": each for k in range(plan.adaptive_rules)}
    for name in VOLUME_CORRUPTIONS if volumes else CORRUPTIONS:
        for severity in SEVERITIES:
            sizes[f"corruption-{name}-{severity}"] = 1.5 * min(plan.corruption, count)
    for foreign in frames.foreign:
        sizes[f"ood-{foreign.name}"] = float(min(plan.ood, len(foreign)))
    return sizes


class Suite:
    """The parts of one evaluation; each is made on first use or read from the store.

    Args:
        network: The bundle's network.
        frames: What it is evaluated on.
        plan: How much of it.
        seed: Which test frames are attacked, and everything random.
        store: Where finished parts lie.
        progress: Called during the work.
    """

    def __init__(
        self, network: Network, frames: Frames, plan: Plan, seed: int, store: Store, progress: Progress
    ) -> None:
        self.network, self.frames, self.plan, self.seed, self.store = network, frames, plan, seed, store
        self.progress = Estimate(part_sizes(frames, plan), progress)
        self._observer = Observer(network, frames.depth, self.progress)
        self._observer.fit_edges(frames.calibration.images)
        # Every attacked set is the beginning of this order, so larger sets hold the smaller ones.
        self._order = np.random.default_rng(seed).permutation(len(frames.test))

    def chosen(self, count: int) -> npt.NDArray[np.int64]:
        """Positions in the test split of the first ``count`` attacked frames."""
        return self._order[: min(count, len(self._order))]

    def _seen(self, key: str, make: Callable[[], Observations]) -> Observations:
        """Observations that are kept, with their share of the estimate."""
        return self.store.observations(key, self._timed(key, make))

    def _timed(self, key: str, make: Callable[[], Any], part: str = "") -> Callable[[], Any]:
        def timed() -> Any:
            with self.progress.part(part or key):
                return make()

        if self.store.holds(key):
            self.progress.skip(part or key)
        return timed

    def calibration(self) -> Observations:
        """The whole calibration split."""
        split = self.frames.calibration
        return self._seen("calibration", lambda: self._observer.images("calibration", split.images, split.labels))

    def clean(self) -> Observations:
        """Clean test frames in the attack order, so that the first n belong to every attack on n frames."""
        index, split = self.chosen(self.plan.test), self.frames.test
        return self._seen("clean", lambda: self._observer.images("clean", split.images[index], split.labels[index]))

    def attacked(self, count: int) -> tuple[Tensor, Tensor]:
        """Clean pixels and labels of the frames that an attack on ``count`` frames starts from."""
        index, split = self.chosen(count), self.frames.test
        return to_pixels(split.images[index], self.frames.depth), torch.from_numpy(split.labels[index])

    def _observed(self, key: str, result: AttackResult, labels: Tensor) -> Observations:
        return self._observer.pixels(key, result.pixels, labels.numpy())

    def linf(self, settings: LinfSettings, count: int) -> tuple[str, Observations]:
        """Frames under FGSM or PGD."""
        key = attack_key(settings)

        def make() -> Observations:
            return self._observer.pixels(key, self.linf_pixels(settings, count), self.attacked(count)[1].numpy())

        return key, self._seen(key, make)

    def linf_pixels(self, settings: LinfSettings, count: int) -> Tensor:
        """The attacked pixels themselves; only those at the research's radius are kept for a second use."""

        def make() -> npt.NDArray[np.float32]:
            pixels, labels = self.attacked(count)
            result = run_linf(
                settings, self.network, pixels, labels, batch=ATTACK_BATCH, seed=self.seed, progress=self.progress
            )
            return result.pixels.numpy()

        if settings.epsilon != RESEARCH_EPSILON:
            return torch.from_numpy(make())
        return torch.from_numpy(self.store.array(f"pixels-{attack_key(settings)}", make))

    def noise(self, epsilon: float, count: int) -> tuple[str, Observations]:
        """Uniform noise of the same size: an attack is one only if it does more harm than this."""
        key = f"noise-{epsilon_text(epsilon)}"

        def make() -> Observations:
            pixels, labels = self.attacked(count)
            return self._observed(key, uniform_noise(self.network, pixels, labels, epsilon, seed=self.seed), labels)

        return key, self._seen(key, make)

    def auto(self, epsilon: float, count: int) -> tuple[str, Observations]:
        """Frames under AutoAttack's set."""
        key = f"autoattack-{epsilon_text(epsilon)}"

        def make() -> Observations:
            pixels, labels = self.attacked(count)
            result = auto_attack(
                self.network,
                pixels,
                labels,
                AutoSettings(epsilon),
                batch=ATTACK_BATCH,
                seed=self.seed,
                progress=self.progress,
            )
            return self._observed(key, result, labels)

        return key, self._seen(key, make)

    def attacks(self) -> Iterator[tuple[dict[str, Any], Observations]]:
        """Every attack of the plan: a record of its parameters, and what the network says about the attacked frames."""
        refuse_probabilities(torch.from_numpy(np.array(self.clean().logits[:256])))
        plan = self.plan
        for epsilon in plan.curve:
            settings = plan.fgsm_settings(epsilon)
            key, seen = self.linf(settings, plan.fgsm)
            yield _record(key, "FGSM", "white box", epsilon, settings), seen
        for epsilon in plan.curve:
            settings = plan.pgd_settings(epsilon)
            main = epsilon in (plan.epsilon, RESEARCH_EPSILON)
            key, seen = self.linf(settings, plan.pgd if main else plan.pgd_curve)
            yield _record(key, "PGD", "white box", epsilon, settings), seen
        key, seen = self.noise(plan.epsilon, plan.pgd)
        yield _record(key, "uniform noise", "noise", plan.epsilon, None), seen
        if plan.auto:
            key, seen = self.auto(plan.epsilon, plan.auto)
            yield _record(key, "AutoAttack set", "white box", plan.epsilon, None), seen

    def health(self) -> list[dict[str, Any]]:
        """The attack's own health checks."""

        def make() -> list[dict[str, Any]]:
            settings = self.plan.pgd_settings(self.plan.epsilon)
            pixels, labels = self.attacked(self.plan.health)
            result = run_linf(settings, self.network, pixels, labels, batch=ATTACK_BATCH, seed=self.seed)
            health = check_attack_health(
                self.network,
                pixels,
                labels,
                settings,
                results=[result],
                frames=len(pixels),
                queries=self.plan.square_queries,
                batch=ATTACK_BATCH,
                seed=self.seed,
                progress=self.progress,
            )
            return [asdict(check) for check in health.checks]

        found: list[dict[str, Any]] = self.store.record("health", self._timed("health", make))
        return found

    def acceptance_rules(self, temperature: float) -> list[AcceptanceRule]:
        """The acceptance rules that the adaptive attack aims at."""
        calibration = self.calibration()
        rules = [
            one_sided(self.network, calibration, "entropy", temperature),
            two_sided(self.network, calibration, ["entropy"], temperature),
        ]
        if self.network.taps:
            first = f"{self.network.taps[0]}:high_frequency_ratio"
            rules.append(two_sided(self.network, calibration, [first], temperature))
            rules.append(two_sided(self.network, calibration, ["entropy", first], temperature))
        return rules[: self.plan.adaptive_rules]

    def adaptive(self, rule: AcceptanceRule, epsilon: float, number: int = 0) -> dict[str, Any]:
        """The adaptive attack on one acceptance rule, and plain PGD against the same rule beside it.

        Args:
            rule: What is aimed at.
            epsilon: Radius in pixel units.
            number: Which of the plan's rules it is, for the estimate.

        Returns:
            ``misclassified``, ``evaded``, ``plain_accepted`` (N,) 0/1, ``clean_scores``, ``scores`` (N,), ``blind``,
            ``weightings`` strategy -> share of the evaded frames.
        """

        def make() -> dict[str, Any]:
            pixels, labels = self.attacked(self.plan.adaptive)
            result = adaptive_pgd(
                rule.observe,
                pixels,
                labels,
                rule.threshold,
                self.plan.adaptive_settings(epsilon),
                batch=ATTACK_BATCH,
                seed=self.seed,
                progress=self.progress,
            )
            plain = pgd(self.network, pixels, labels, epsilon, self.plan.pgd_steps, batch=ATTACK_BATCH, seed=self.seed)
            scores = rule.scores(plain.pixels)
            accepted = plain.misclassified.numpy() & np.isfinite(scores) & (scores <= rule.threshold)
            return {
                "misclassified": result.misclassified.int().tolist(),
                "evaded": result.evaded.int().tolist(),
                "plain_accepted": accepted.astype(int).tolist(),
                "clean_scores": _finite(rule.scores(pixels)),
                "scores": _finite(result.score.double().numpy()),
                "blind": result.blind,
                "weightings": _shares(result),
            }

        key = f"{ADAPTIVE}-{rule.name}-{epsilon_text(epsilon)}"
        found: dict[str, Any] = self.store.record(key, self._timed(key, make, f"{ADAPTIVE} {number}"))
        return found

    def corrupted(self) -> Iterator[tuple[str, int, Observations]]:
        """Every corruption at every severity, on the same frames."""
        index, split = self.chosen(self.plan.corruption), self.frames.test
        for name in VOLUME_CORRUPTIONS if self.frames.depth > 1 else CORRUPTIONS:
            for severity in SEVERITIES:
                key = f"{name}-{severity}"

                def make(name: str = name, severity: int = severity, key: str = key) -> Observations:
                    images = corrupt(split.images[index], name, severity, self.seed, depth=self.frames.depth)
                    return self._observer.images(key, images, split.labels[index])

                yield name, severity, self._seen(f"corruption-{key}", make)

    def foreign(self) -> Iterator[tuple[str, Observations]]:
        """Frames that show none of the network's labels."""
        for frames in self.frames.foreign:
            images = frames.images
            if len(images) > self.plan.ood:
                keep = np.random.default_rng(self.seed).permutation(len(images))[: self.plan.ood]
                images = images[np.sort(keep)]

            def make(name: str = frames.name, images: npt.NDArray[np.uint8] = images) -> Observations:
                return self._observer.images(name, images, None)

            yield frames.name, self._seen(f"ood-{frames.name}", make)


def _record(key: str, name: str, kind: str, epsilon: float, settings: LinfSettings | None) -> dict[str, Any]:
    record: dict[str, Any] = {"key": key, "name": name, "kind": kind, "epsilon": epsilon}
    if settings is not None:
        record |= {
            "steps": settings.steps,
            "restarts": settings.restarts,
            "step_size": settings.step,
            "random_start": settings.random_start,
            "loss": settings.loss,
        }
    return record


def _finite(values: npt.NDArray[np.float64]) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def _shares(result: AdaptiveResult) -> Mapping[str, float]:
    won = result.won_by[result.evaded].numpy()
    return {name: float(np.mean(won == k)) for k, name in enumerate(result.strategies)} if len(won) else {}
