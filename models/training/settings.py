"""What decides the outcome of a training run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from framegate.runtime.errors import UsageError

ADVERSARIAL = ("none", "fgsm-rs", "n-fgsm", "pgd", "trades")
OPTIMIZERS = ("adamw", "sgd")
MIRROR_IMAGES = ("none", "relabelled")
LARGEST_HELD_OUT = 0.5
"""Of the training split's units."""


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one run; stored in the checkpoint.

    Attributes:
        epochs: Passes over the training images.
        batch: Images per step.
        optimizer: ``adamw`` or ``sgd`` (Nesterov momentum 0.9).
        learning_rate: Peak of the cosine schedule; parameters named ``trunk.*`` get a quarter of it.
        weight_decay: Decoupled for AdamW, L2 for SGD.
        label_smoothing: In [0, 1); 0 keeps the entropy of the training targets at 0.
        average: Decay of the exponential moving average of the weights, in [0, 1).
        frozen_blocks: Blocks of the hybrid's trunk that keep their ImageNet weights, 0 to 19.
        views: Augmented views of each image that are cached behind the frozen blocks; used if there are any.
        outlier_share: Outlier images per training image in a batch, in [0, 1].
        outlier_weight: Weight of the outlier term (0.5 in Hendrycks et al. 2019).
        distillation: Share of the teacher's answers in the loss, in [0, 1]; used if there is a teacher.
        distillation_temperature: Temperature of teacher and student in that term.
        adversarial: ``none``, ``fgsm-rs`` (Wong et al. 2020), ``n-fgsm`` (de Jorge et al. 2022), ``pgd`` (Madry et al.
            2018), ``trades`` (Zhang et al.). With ``interval_bounds``, not for ``trades``: the images that are seen
            beside the worst case (De Palma et al. 2024).
        epsilon: L-infinity radius of the training attack in pixel units, in (0, 1].
        attack_steps: Steps of the training attack for ``pgd`` and ``trades``.
        beta: Weight of the robust term of ``trades``.
        entropy_weight: Weight of `framegate.models.training.adversarial.entropy_loss` in adversarial training, not with
            ``interval_bounds``; 0: none.
        patience: Adversarial training stops after so many epochs without better robust accuracy on what is held out;
            with ``interval_bounds`` it never does, so that what is held out can prove.
        masked_views: Share of the augmented images in which a square is hidden, in [0, 1]
            (`framegate.models.training.masked_views`).
        mask_side: Largest side of that square as a share of the image's side, in (0.15, 1).
        mask_choices: Random squares of which the one is hidden that costs the network most; 1 hides any. More
            need ``masked_views``, and no adversarial training, interval bounds or frozen blocks.
        interval_bounds: L-infinity radius in pixel units, in [0, 1], for which the worst case of interval bounds is
            trained (`framegate.models.training.interval_bounds`); 0 for none.
        interval_ramp: Share of the training over which that radius grows, after a short warm-up, in [0, 0.95]; 0 takes
            all of it at once.
        interval_weight: Share of that worst case in the loss, in [0, 1].
        mirror_images: ``none``, or ``relabelled``: the mirror images of traffic signs that are signs, too, train under
            those signs' labels (`framegate.models.gtsrb.with_mirror_images`).
        held_out: Share of the training split's units (images, or tracks) that do not train, in (0, 0.5]
            (`framegate.models.held_out.hold_out`): for the accuracy that is printed, for early stopping, and for
            `framegate certify`.
        seed: Seed of everything random.
    """

    epochs: int = 15
    batch: int = 256
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.0
    average: float = 0.998
    frozen_blocks: int = 0
    views: int = 6
    outlier_share: float = 0.0
    outlier_weight: float = 0.5
    distillation: float = 0.7
    distillation_temperature: float = 4.0
    adversarial: str = "none"
    epsilon: float = 8 / 255
    attack_steps: int = 7
    beta: float = 6.0
    entropy_weight: float = 0.0
    patience: int = 8
    masked_views: float = 0.0
    mask_side: float = 0.34
    mask_choices: int = 1
    interval_bounds: float = 0.0
    interval_ramp: float = 0.55
    interval_weight: float = 0.5
    mirror_images: str = "none"
    held_out: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: A value is outside its range.
        """
        self._check_ranges()
        self._check_certificate()
        if self.frozen_blocks < 0:
            raise UsageError(f"frozen_blocks: {self.frozen_blocks} given, expected 0 or more")
        self._check_attack()
        for name, known in (("optimizer", OPTIMIZERS), ("mirror_images", MIRROR_IMAGES)):
            if getattr(self, name) not in known:
                raise UsageError(f"{name}: {getattr(self, name)!r} given, expected one of {', '.join(known)}")

    def _check_ranges(self) -> None:
        for name in ("epochs", "batch", "views", "attack_steps", "patience", "mask_choices"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: {getattr(self, name)} given, expected at least 1")
        for name in ("outlier_share", "distillation", "masked_views", "interval_bounds", "interval_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}: {getattr(self, name)} given, expected 0 to 1")
        for name in ("label_smoothing", "average"):  # at 1 nothing is learnt
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name}: {getattr(self, name)} given, expected 0 to below 1")
        if self.seed < 0:
            raise UsageError(f"seed: {self.seed} given, expected 0 or more")
        for name in ("learning_rate", "distillation_temperature"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UsageError(f"{name}: {getattr(self, name)} given, expected a positive number")
        for name in ("weight_decay", "outlier_weight", "beta", "entropy_weight"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise UsageError(f"{name}: {getattr(self, name)} given, expected 0 or more")

    def _check_certificate(self) -> None:
        if not 0 < self.held_out <= LARGEST_HELD_OUT:
            raise UsageError(
                f"held_out: {self.held_out:g} given, expected a share above 0 and at most {LARGEST_HELD_OUT:g}"
            )
        if not 0.15 < self.mask_side < 1:
            raise UsageError(f"mask_side: {self.mask_side:g} given, expected a share of the image above 0.15, below 1")
        if not 0 <= self.interval_ramp <= 0.95:
            raise UsageError(f"interval_ramp: {self.interval_ramp:g} given, expected a share, 0 to 0.95")
        if self.mask_choices > 1 and not (
            self.masked_views and self.adversarial == "none" and not self.interval_bounds and not self.frozen_blocks
        ):
            raise UsageError(
                f"mask_choices: {self.mask_choices} given; a choice among masks needs masked_views above 0, and no "
                "adversarial training, interval bounds or frozen blocks; give --mask-choices 1 for masks anywhere"
            )
        if self.interval_bounds and (self.adversarial == "trades" or self.entropy_weight):
            other = "adversarial trades" if self.adversarial == "trades" else f"entropy_weight {self.entropy_weight:g}"
            raise UsageError(
                f"interval_bounds: given together with {other}; each is a loss of its own, give one of them (another "
                "attack can be joined with interval bounds)"
            )

    def _check_attack(self) -> None:
        if not 0 < self.epsilon <= 1:
            raise UsageError(
                f"epsilon: {self.epsilon:g} given, expected a pixel distance in (0, 1]; 8/255 is {8 / 255:.5f}"
            )
        if self.entropy_weight and self.adversarial == "none":
            raise UsageError(
                f"entropy_weight: {self.entropy_weight:g} given without adversarial training; it is about answers to "
                "attacked images, give --adversarial, too"
            )
        if self.adversarial not in ADVERSARIAL:
            raise UsageError(f"adversarial: {self.adversarial!r} given, expected one of {', '.join(ADVERSARIAL)}")
        if self.adversarial != "none" and self.frozen_blocks:
            raise UsageError(
                "adversarial training needs the gradient at the pixels, so no block may be frozen; give "
                "--frozen-blocks 0"
            )

    def without(self, name: str, taught: bool) -> str | None:
        """What a setting needs to have an effect at all, and these settings lack; None if it has one.

        Args:
            name: The setting.
            taught: Whether there is a teacher.
        """
        attacked, steps = self.adversarial != "none", self.adversarial in ("pgd", "trades")
        needed = {
            "views": (self.frozen_blocks, "--frozen-blocks"),
            "outlier_weight": (self.outlier_share, "--outlier-share"),
            "distillation": (taught, "--teacher"),
            "distillation_temperature": (taught, "--teacher"),
            "epsilon": (attacked, "--adversarial"),
            "patience": (
                attacked and not self.interval_bounds,
                "--interval-bounds 0" if attacked else "--adversarial",
            ),
            "attack_steps": (steps, "--adversarial pgd or trades"),
            "beta": (self.adversarial == "trades", "--adversarial trades"),
            "mask_side": (self.masked_views, "--masked-views"),
            "interval_ramp": (self.interval_bounds, "--interval-bounds"),
            "interval_weight": (self.interval_bounds, "--interval-bounds"),
        }
        there, what = needed.get(name, (True, ""))
        return None if there else what

    def to_json(self) -> dict[str, Any]:
        """A plain record."""
        return asdict(self)
