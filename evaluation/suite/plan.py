"""What a suite measures, and on how many frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

from framegate.evaluation.attacks.adaptive import AdaptiveSettings
from framegate.evaluation.attacks.linf import LinfSettings
from framegate.evaluation.attacks.radius import epsilon_text
from framegate.runtime.errors import UsageError

EPSILON = 8 / 255
"""The radius at which the field compares robustness on 32x32 images, in pixel units."""
RESEARCH_EPSILON = 0.03
"""The radius of the research."""
_CURVE = (1 / 255, 2 / 255, 4 / 255, RESEARCH_EPSILON, EPSILON, 0.1, 0.2)


def attack_key(settings: LinfSettings) -> str:
    """The name under which an attack stands in a report: ``fgsm-8/255``, ``pgd-20-0.03``."""
    name = "fgsm" if settings.name == "FGSM" else settings.name.lower()
    return f"{name}-{epsilon_text(settings.epsilon)}"


@dataclass(frozen=True)
class Plan:
    """Sizes of one suite; a size of 0 leaves the part out.

    Attributes:
        name: ``look``, ``quick`` or ``full``.
        test: Clean test frames, at most.
        fgsm: Frames attacked by FGSM, per radius.
        pgd: Frames attacked by PGD at the two main radii.
        pgd_curve: Frames attacked by PGD at the other radii.
        pgd_steps: Steps of PGD.
        pgd_restarts: Restarts of PGD.
        health: Frames on which the attack's own health is checked.
        square_queries: Queries of the black-box attack in the health check.
        auto: Frames attacked by AutoAttack's set.
        adaptive: Frames attacked by the adaptive attack, per monitor.
        adaptive_steps: Steps per strategy.
        corruption: Frames per corruption and severity.
        ood: Frames per out-of-distribution set, at most.
        bootstrap: Resamples behind every interval that is not a count.
        calibration: Calibration frames, at most.
        adaptive_rules: The adaptive attack aims at so many acceptance rules, the entropy gate first.
        published: Whether the published protocols over whole batches are measured, too.
        epsilon: Main radius in pixel units, in (0, 1].
        curve: Radii of the accuracy curves; the main radius is added.
    """

    name: str
    test: int
    fgsm: int
    pgd: int
    pgd_curve: int
    pgd_steps: int
    pgd_restarts: int
    health: int
    square_queries: int
    auto: int
    adaptive: int
    adaptive_steps: int
    corruption: int
    ood: int
    bootstrap: int
    calibration: int = 1_000_000
    adaptive_rules: int = 4
    published: bool = True
    epsilon: float = EPSILON
    curve: tuple[float, ...] = _CURVE

    def __post_init__(self) -> None:
        """Check the radius and put it into the curve.

        Raises:
            UsageError: It is outside (0, 1].
        """
        if not 0 < self.epsilon <= 1:
            raise UsageError(f"epsilon: {self.epsilon:g} given, expected a pixel distance in (0, 1], such as 8/255")
        object.__setattr__(self, "curve", tuple(sorted({*self.curve, self.epsilon})))

    def limited(self, limit: int | None) -> Plan:
        """The same with at most ``limit`` frames in every part.

        Raises:
            UsageError: The limit is below 10, too few for any figure.
        """
        if limit is None:
            return self
        if limit < 10:
            raise UsageError(f"limit: {limit} given, expected at least 10 frames")
        parts = ("test", "fgsm", "pgd", "pgd_curve", "health", "auto", "adaptive", "corruption", "ood")
        return replace(self, **{part: min(getattr(self, part), limit) for part in parts})

    @property
    def main_attack(self) -> str:
        """Key of the attack that detection is judged on first."""
        return attack_key(self.pgd_settings(self.epsilon))

    def fgsm_settings(self, epsilon: float) -> LinfSettings:
        """FGSM at a radius."""
        return LinfSettings("FGSM", epsilon, 1, step_size=epsilon, random_start=False, keep="last")

    def pgd_settings(self, epsilon: float) -> LinfSettings:
        """PGD at a radius."""
        return LinfSettings(f"PGD-{self.pgd_steps}", epsilon, self.pgd_steps, self.pgd_restarts)

    def adaptive_settings(self, epsilon: float) -> AdaptiveSettings:
        """The adaptive attack at a radius.

        A first look leaves a frame alone once it is wrong and accepted: the share of such frames is the same, and most
        of the steps are spared. How low their score could have been pushed is not looked for.
        """
        return AdaptiveSettings(epsilon, self.adaptive_steps, keep="first" if self.name == "look" else "best")


PLANS = {
    "look": Plan(
        name="look",
        test=800,
        fgsm=48,
        pgd=48,
        pgd_curve=0,
        pgd_steps=10,
        pgd_restarts=1,
        health=20,
        square_queries=50,
        auto=0,
        adaptive=10,
        adaptive_steps=10,
        corruption=8,
        ood=100,
        bootstrap=100,
        calibration=400,
        adaptive_rules=1,
        published=False,
        curve=(),
    ),
    "quick": Plan(
        name="quick",
        test=10_000,
        fgsm=500,
        pgd=400,
        pgd_curve=100,
        pgd_steps=20,
        pgd_restarts=1,
        health=48,
        square_queries=150,
        auto=0,
        adaptive=40,
        adaptive_steps=20,
        corruption=60,
        ood=1_000,
        bootstrap=300,
    ),
    "full": Plan(
        name="full",
        test=1_000_000,
        fgsm=5_000,
        pgd=2_000,
        pgd_curve=500,
        pgd_steps=20,
        pgd_restarts=2,
        health=200,
        square_queries=1_000,
        auto=500,
        adaptive=200,
        adaptive_steps=50,
        corruption=500,
        ood=5_000,
        bootstrap=1_000,
    ),
}
