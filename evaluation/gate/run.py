"""Runs the gate of one bundle through clean, corrupted, foreign and attacked frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framegate.evaluation.attacks.adaptive import AdaptiveSettings, adaptive_pgd
from framegate.evaluation.attacks.apgd import apgd
from framegate.evaluation.attacks.health import check_attack_health
from framegate.evaluation.attacks.linf import LinfSettings, fgsm, pgd, run_linf, uniform_noise
from framegate.evaluation.attacks.problem import AttackResult
from framegate.evaluation.attacks.square import square
from framegate.evaluation.corruptions.suite import CORRUPTIONS, SEVERITIES, VOLUME_CORRUPTIONS, corrupt
from framegate.evaluation.frames.network import Network
from framegate.evaluation.gate.adaptive import gate_rule
from framegate.evaluation.gate.rules import (
    BATCH,
    GateInputs,
    detection,
    fp32_calibration,
    judge,
    observe,
    pooled_record,
    rules,
    windows,
)
from framegate.evaluation.metrics.intervals import share
from framegate.evaluation.monitor.fit import Recipe, attacked_sets, fit_monitor, head_score, layer_means, separation
from framegate.evaluation.suite.estimate import Estimate
from framegate.evaluation.suite.run import Frames
from framegate.models.labelled import LabelledImages
from framegate.models.pixels import to_pixels
from framegate.models.training.batches import Progress
from framegate.runtime.bundle.bundle import Bundle

EPSILON = 8 / 255


@dataclass(frozen=True)
class Sizes:
    """How many frames of everything.

    Attributes:
        test: Clean test frames, at most.
        fgsm: Frames per radius.
        pgd: Frames per radius.
        other: Frames of each attack that the monitor was not fitted on.
        queries: Queries of the black-box attack.
        adaptive: Frames of the adaptive attack.
        adaptive_steps: Steps per strategy.
        corruption: Frames per corruption and severity.
        health: Frames of the attack's health checks.
        transfer: Training images for the heads fitted without one family of attacks.
    """

    test: int = 10_000
    fgsm: int = 500
    pgd: int = 400
    other: int = 200
    queries: int = 300
    adaptive: int = 60
    adaptive_steps: int = 20
    corruption: int = 40
    health: int = 48
    transfer: int = 1_000

    def limited(self, limit: int | None) -> Sizes:
        """The same with at most ``limit`` frames of everything."""
        if limit is None:
            return self
        counts = {name: min(value, limit) for name, value in asdict(self).items() if name != "adaptive_steps"}
        return Sizes(**{**asdict(self), **counts, "transfer": max(100, min(self.transfer, limit))})


class GateRun:
    """One bundle, its frames, and the three rules.

    Args:
        bundle: With or without a monitor.
        network: Of the bundle.
        frames: Calibration, test and foreign frames.
        train: Training frames, for the heads fitted without one family of attacks.
        sizes: How many of them.
        seed: Which test frames are attacked, and everything random.
        progress: Called during the work.
    """

    def __init__(
        self,
        bundle: Bundle,
        network: Network,
        frames: Frames,
        train: LabelledImages,
        sizes: Sizes,
        seed: int,
        progress: Progress,
    ) -> None:
        self.bundle, self.network, self.frames, self.train = bundle, network, frames, train
        self.sizes, self.seed = sizes, seed
        parts = part_sizes(sizes, frames, bundle.monitor is not None, len(bundle.labels) > 2)
        self.progress = Estimate(parts, progress)
        self.order = np.random.default_rng(seed).permutation(len(frames.test))
        self.progress("gate: calibration frames", 0, 1)
        self.calibration = self._seen(frames.calibration.images, frames.calibration.labels)
        self.clean = self._seen(*self._test(sizes.test))
        self.rules = rules(fp32_calibration(bundle), self.calibration)
        self.progress("gate: calibration frames", 1, 1)

    def _test(self, count: int) -> tuple[Any, Any]:
        index = self.order[:count]
        return self.frames.test.images[index], self.frames.test.labels[index]

    def _attacked(self, count: int) -> tuple[Tensor, Tensor]:
        images, labels = self._test(count)
        return to_pixels(images, self.frames.depth), torch.from_numpy(labels)

    def _seen(self, images: Any, labels: Any | None) -> GateInputs:
        known = None if labels is None else torch.from_numpy(labels)
        return observe(self.network, self.bundle.monitor, to_pixels(images, self.frames.depth), known)

    def attacks(self) -> Mapping[str, GateInputs]:
        """Every attack by name.

        The first two families are those that a monitor is fitted on, here on other frames and with more steps.
        """
        found = {}
        for name, (count, attack) in self._jobs().items():
            with self.progress.part(name):
                pixels, labels = self._attacked(count)
                found[name] = observe(self.network, self.bundle.monitor, attack(pixels, labels).pixels, labels)
            self.progress(f"gate: {name}", len(found), len(self._jobs()))
        return found

    def _jobs(self) -> Mapping[str, tuple[int, Callable[[Tensor, Tensor], AttackResult]]]:
        """Name of each attack -> on how many frames, and what makes them of pixels and labels."""
        sizes, network, seed, told = self.sizes, self.network, self.seed, self.progress
        # The difference-of-logits ratio compares with the third best class.
        many = len(self.bundle.labels) > 2
        loss, other = ("dlr", "APGD-DLR 8/255") if many else ("margin", "APGD on the margin 8/255")

        def one_step(level: int) -> Callable[[Tensor, Tensor], AttackResult]:
            return lambda x, y: fgsm(network, x, y, level / 255, batch=BATCH, progress=told)

        def many_steps(level: int, loss: str = "cross_entropy") -> Callable[[Tensor, Tensor], AttackResult]:
            return lambda x, y: pgd(
                network, x, y, level / 255, 20, loss=loss, batch=BATCH, seed=seed, progress=told
            )  # fmt: skip

        return {
            **{f"FGSM {level}/255": (sizes.fgsm, one_step(level)) for level in (2, 4, 8)},
            **{f"PGD-20 {level}/255": (sizes.pgd, many_steps(level)) for level in (2, 4, 8)},
            "PGD-20 on the margin 8/255": (sizes.other, many_steps(8, "margin")),
            other: (
                sizes.other,
                lambda x, y: apgd(network, x, y, EPSILON, loss=loss, steps=30, batch=BATCH, seed=seed, progress=told),
            ),
            f"Square ({sizes.queries} queries) 8/255": (
                sizes.other,
                lambda x, y: square(
                    network, x, y, EPSILON, queries=sizes.queries, batch=BATCH, seed=seed, progress=told
                ),
            ),
            "uniform noise 8/255": (sizes.pgd, lambda x, y: uniform_noise(network, x, y, EPSILON, seed=seed)),
            "uniform noise 16/255": (sizes.pgd, lambda x, y: uniform_noise(network, x, y, 2 * EPSILON, seed=seed)),
        }

    def health(self) -> list[dict[str, Any]]:
        """The health checks of PGD, the attack that stands in the headline."""
        pixels, labels = self._attacked(self.sizes.health)
        settings = LinfSettings("PGD-20", EPSILON, 20)
        result = run_linf(settings, self.network, pixels, labels, batch=BATCH, seed=self.seed)
        health = check_attack_health(
            self.network, pixels, labels, settings, results=[result], frames=len(pixels), queries=150, batch=BATCH,
            seed=self.seed, progress=self.progress,
        )  # fmt: skip
        return [asdict(check) for check in health.checks]

    def adaptive(self) -> dict[str, Any]:
        """The attack that aims at classifier and gate together, against each rule."""
        pixels, labels = self._attacked(self.sizes.adaptive)
        settings = AdaptiveSettings(EPSILON, self.sizes.adaptive_steps)
        record: dict[str, Any] = {"attack": str(settings), "n": len(pixels)}
        for name, rule in self.rules.items():
            aim = gate_rule(name, self.network, self.bundle.monitor, rule, self.calibration)
            result = adaptive_pgd(
                aim.observe, pixels, labels, aim.threshold, settings, batch=BATCH, seed=self.seed,
                progress=self.progress,
            )  # fmt: skip
            record[name] = {
                "misclassified": share(result.misclassified.numpy()).to_json(),
                "false_accepts": share(result.evaded.numpy()).to_json(),
                "blind": result.blind,
            }
        return record

    def corrupted(self) -> dict[str, Any]:
        """Each corruption at each severity, and all together."""
        images, labels = self._test(self.sizes.corruption)
        names = VOLUME_CORRUPTIONS if self.frames.depth > 1 else CORRUPTIONS
        found: dict[str, dict[str, Any]] = {}
        for k, name in enumerate(names):
            parts = []
            for severity in SEVERITIES:
                changed = corrupt(images, name, severity, self.seed, depth=self.frames.depth)
                parts.append(judge(self._seen(changed, labels), self.rules))
            found[name] = pooled_record(parts)
            self.progress("gate: corruptions", k + 1, len(names))
        return {"all": pooled_record(list(found.values())), **found}

    def foreign(self) -> dict[str, Any]:
        """Frames that show none of the labels: each accepted one is a false accept."""
        found = {}
        for k, frames in enumerate(self.frames.foreign):
            seen = self._seen(frames.images, None)
            temperature = self.rules["gate"].temperature
            found[frames.name] = judge(seen, self.rules) | {
                "auroc": detection(self.clean, seen, self.calibration, temperature)
            }
            self.progress("gate: foreign frames", k + 1, len(self.frames.foreign))
        return found

    def transfer(self) -> dict[str, Any]:
        """AUROC on FGSM and PGD test frames of heads that were fitted without the family."""
        if self.bundle.monitor is None:
            return {}
        recipe = Recipe(images=self.sizes.transfer, attacked=min(200, self.sizes.transfer))
        sets = attacked_sets(self.network, self.train, self.frames.depth, recipe, self.progress)
        pixels, labels = self._attacked(self.sizes.other)
        results = {
            "FGSM 8/255": fgsm(self.network, pixels, labels, EPSILON, batch=BATCH),
            "PGD-20 8/255": pgd(self.network, pixels, labels, EPSILON, 20, batch=BATCH, seed=self.seed),
        }
        seen = {name: layer_means(self.network, result.pixels) for name, result in results.items()}
        clean = layer_means(self.network, pixels)
        record = {}
        for left_out in ("FGSM", "PGD"):
            kept = {name: means for name, means in sets.items() if not name.startswith(left_out)}
            head = fit_monitor(kept, recipe, "training", self.progress)
            record[f"fitted without {left_out}"] = {
                name: round(separation(head_score(head, clean), head_score(head, means)), 4)
                for name, means in seen.items()
            }
        return record

    def results(self, publish: Callable[[dict[str, Any]], None] = lambda found: None) -> dict[str, Any]:
        """Everything, as plain values.

        Args:
            publish: Called after every part with the sections so far.
        """
        found: dict[str, Any] = {
            "calibration": self.rules["promised"].to_json(),
            "thresholds": {name: rule.threshold for name, rule in self.rules.items()},
            "clean": judge(self.clean, self.rules),
        }
        publish(found)
        attacked = self.attacks()
        temperature = self.rules["gate"].temperature
        found["attacks"] = {name: judge(seen, self.rules) for name, seen in attacked.items()}
        found["detection"] = {
            name: detection(self.clean, seen, self.calibration, temperature) for name, seen in attacked.items()
        }
        found["windows"] = {
            name: windows(self.clean, attacked[name], self.calibration, self.seed)
            for name in ("FGSM 2/255", "PGD-20 2/255", "uniform noise 8/255")
        }
        publish(found)
        later = {
            "corruptions": self.corrupted,
            "foreign": self.foreign,
            "transfer": self.transfer,
            "adaptive": self.adaptive,
            "health": self.health,
        }
        for name, make in later.items():
            with self.progress.part(name):
                found[name] = make()
            publish(found)
        return found


_GRADIENT = 3.0
"""A gradient costs about so many passes without one."""


def part_sizes(sizes: Sizes, frames: Frames, monitored: bool, many: bool) -> dict[str, float]:
    """How large the parts of a run are, in passes of one frame; only their proportions matter: the pace is measured."""
    count = len(frames.test)
    pgd_20 = _GRADIENT * 20 + 1
    own = {
        **{f"FGSM {level}/255": min(sizes.fgsm, count) * (_GRADIENT + 1) for level in (2, 4, 8)},
        **{f"PGD-20 {level}/255": min(sizes.pgd, count) * pgd_20 for level in (2, 4, 8)},
        "PGD-20 on the margin 8/255": min(sizes.other, count) * pgd_20,
        "APGD-DLR 8/255" if many else "APGD on the margin 8/255": min(sizes.other, count) * (_GRADIENT * 30 + 1),
        f"Square ({sizes.queries} queries) 8/255": float(min(sizes.other, count) * sizes.queries),
        **{f"uniform noise {level}/255": 3.0 * min(sizes.pgd, count) for level in (8, 16)},
        "corruptions": 1.5 * min(sizes.corruption, count) * len(SEVERITIES) * len(CORRUPTIONS),
        "foreign": float(sum(len(each) for each in frames.foreign)),
        "adaptive": min(sizes.adaptive, count) * 3 * len(AdaptiveSettings(EPSILON).names)
        * 2 * _GRADIENT * (sizes.adaptive_steps + 1),
        "health": min(sizes.health, count) * (6 * pgd_20 + 150),
    }  # fmt: skip
    # Four views of clean images, and attacks of the recipe on a part of them.
    transfer = {"transfer": sizes.transfer * 2 + min(200, sizes.transfer) * 120.0 + min(sizes.other, count) * pgd_20}
    return {**own, **(transfer if monitored else {})}
