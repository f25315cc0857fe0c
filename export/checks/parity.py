"""The gate between two engines, of an export and of ``framegate verify``: one measure, the same limits.

Who replaces one engine by another must be able to rely on four things, and an engine that misses one of them fails:

- it loses no right labels, and accepts no more wrong ones: at most `LARGEST_LOSS` of the images, net, for each;
- it does not contradict: that both engines accept, with different labels, may be the case of `LARGEST_CONTRADICTION` of
  the images. One of the two labels is wrong then and used without a warning, so these are not set off against others;
- it decides alike: verdicts may differ on `LARGEST_DIFFERENCE` of the images. This limit is wide, because every engine
  has a calibration of its own: where a threshold lies follows from a few errors among the calibration images, and
  engines that both keep their promise differ by as much as one error more moves it (INT8 beside float32 in the shipped
  bundles: 0.2 to 1.8 % of the verdicts, 8.4 % where 268 images prove). Beyond it, what was tested with one engine
  says little about the other, also if the other only rejects more.

Nothing of it counts unless it is more than chance: of some hundred images a few change sides from one engine to the
next, whatever the engines.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from framegate.export.calibration.decisions import Outputs, accepted, predicted
from framegate.export.calibration.temperature import Labels, Logits
from framegate.runtime.bundle.binomial import binomial_tail
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.errors import ExportRefusedError

COMPARED = 1_000
"""Images, from the start of the test split, that are compared one by one."""
LARGEST_LOSS = 0.005
"""Share of the images that may lose their right label, and share that may be accepted with a wrong one, both net."""
LARGEST_CONTRADICTION = 0.002
"""Share of the images that both engines may accept with different labels."""
LARGEST_DIFFERENCE = 0.1
"""Share of the images that only one of the engines may accept."""
CHANCE = 0.05
"""A loss counts if so many changes for the worse have at most this probability where worse and better are alike; a
share, if so many images have at most this probability where the share is the limit."""


@dataclass(frozen=True)
class Changes:
    """Images on which one of two engines is wrong.

    Attributes:
        worse: Images on which only the engine that is judged is wrong.
        better: Images on which only the reference is.
    """

    worse: int
    better: int

    def too_many(self, images: int) -> bool:
        """Whether more is lost than `LARGEST_LOSS` of the images, and more than by chance."""
        within = at_most((self.worse - self.better) / images, LARGEST_LOSS, images)
        return not within and self.chance() <= CHANCE

    def chance(self) -> float:
        """Probability of so many changes for the worse, or more, if each change is as likely for the better.

        The sign test of paired comparisons (exact; McNemar 1947).
        """
        changes = self.worse + self.better
        ways = sum(math.comb(changes, k) for k in range(self.worse, changes + 1))
        return float(ways / 2**changes)


@dataclass(frozen=True)
class Loss:
    """What one engine loses against another on N images, each under its own calibration.

    Attributes:
        images: How many there are.
        labels: Wrong labels.
        wrong_accepts: Wrong labels that are accepted.
        new_accepts: Images that only the engine that is judged accepts.
        new_rejects: Images that only the reference accepts.
        contradictions: Images that both accept, with different labels.
    """

    images: int
    labels: Changes
    wrong_accepts: Changes
    new_accepts: int
    new_rejects: int
    contradictions: int

    def failures(self, key: str, reference: str) -> tuple[str, ...]:
        """Why the engine is not good enough, a sentence each; empty if it is.

        Args:
            key: Name of the engine that is judged.
            reference: Name of the other.
        """
        found = []
        for changes, what in ((self.labels, "gives"), (self.wrong_accepts, "accepts")):
            if changes.too_many(self.images):
                found.append(
                    f"{key} {what} a wrong label on {changes.worse} of {self.images} test images where {reference} "
                    f"does not (the other way round on {changes.better}); at most {LARGEST_LOSS:.1%} more may be"
                )
        if _too_many(self.contradictions, self.images, LARGEST_CONTRADICTION):
            found.append(
                f"{key} and {reference} both accept {self.contradictions} of {self.images} test images with different "
                f"labels; at most {LARGEST_CONTRADICTION:.1%} may be"
            )
        differing = self.new_accepts + self.new_rejects
        if _too_many(differing, self.images, LARGEST_DIFFERENCE):
            found.append(
                f"the verdicts of {key} and {reference} differ on {differing} of {self.images} test images (only {key} "
                f"accepts {self.new_accepts}, only {reference} {self.new_rejects}); at most {LARGEST_DIFFERENCE:.0%} "
                "may be"
            )
        return tuple(found)


def _too_many(count: int, images: int, limit: float) -> bool:
    """Whether a count is more than a share of the images, and more than by chance (exact binomial tail)."""
    if at_most(count / max(images, 1), limit, images):
        return False
    return binomial_tail(images - count, images, 1 - limit) <= CHANCE


def changed_labels(logits: Logits, reference: Logits, labels: Labels) -> Changes:
    """Images with another label than the true one; an output that is not finite is wrong."""
    wrong, expected = predicted(Outputs(logits)) != labels, predicted(Outputs(reference)) != labels
    return Changes(int((wrong & ~expected).sum()), int((expected & ~wrong).sum()))


def loss(
    outputs: Outputs, calibration: Calibration, reference: Outputs, reference_calibration: Calibration, labels: Labels
) -> Loss:
    """Compare an engine with its reference; an output that is not finite is wrong and rejected."""
    passed, expected = accepted(outputs, calibration), accepted(reference, reference_calibration)
    found, known = predicted(outputs), predicted(reference)
    wrong, reference_wrong = passed & (found != labels), expected & (known != labels)
    return Loss(
        images=len(labels),
        labels=changed_labels(outputs.logits, reference.logits, labels),
        wrong_accepts=Changes(int((wrong & ~reference_wrong).sum()), int((reference_wrong & ~wrong).sum())),
        new_accepts=int((passed & ~expected).sum()),
        new_rejects=int((expected & ~passed).sum()),
        contradictions=int((passed & expected & (found != known)).sum()),
    )


@dataclass(frozen=True)
class ParityRow:
    """One backend and precision beside the network that the export started from.

    Attributes:
        key: ``backend/precision``, or the network itself: ``torch`` for a checkpoint, ``source`` for an ONNX file.
        compared: Images compared one by one.
        accuracy: Share of right predictions among them, in [0, 1]; rejections do not count here.
        agreement: Share with the same predicted label as that network.
        verdict_agreement: Share with the same verdict, each network under its own calibration.
        largest_difference: Largest absolute difference of a logit.
        test_images: Images in the whole test split, which served for no decision but the accuracy gate.
        test_accuracy: Share of right predictions among them.
        test_coverage: Share of them accepted.
        test_selective_risk: Share of errors among the accepted, None if none is accepted.
    """

    key: str
    compared: int
    accuracy: float
    agreement: float
    verdict_agreement: float
    largest_difference: float
    test_images: int
    test_accuracy: float
    test_coverage: float
    test_selective_risk: float | None

    def to_json(self) -> dict[str, Any]:
        """A plain record for the manifest."""
        return asdict(self)


def accuracy(logits: Logits, labels: Labels) -> float:
    """Share of right predictions; an image without finite logits counts as wrong."""
    right = np.isfinite(logits).all(axis=1) & (logits.argmax(axis=1) == labels)
    return float(np.mean(right))


def at_most(share: float, limit: float, count: int) -> bool:
    """Whether a share of ``count`` images is within a limit; NaN is not.

    Counted in images: compared as shares, a loss of exactly the limit would depend on a rounding.
    """
    return bool(np.rint(share * count) <= math.floor(limit * count + 1e-9))


def check_accuracy(key: str, logits: Logits, expected: Logits, labels: Labels, reference: str) -> None:
    """The part of `check_loss` that needs no calibration: a file that fails it is not worth one.

    Raises:
        ExportRefusedError: The file lost accuracy.
    """
    nothing = Changes(0, 0)
    check_loss(key, Loss(len(labels), changed_labels(logits, expected, labels), nothing, 0, 0, 0), reference)


def check_loss(key: str, found: Loss, reference: str) -> None:
    """Refuse a file that loses too much.

    Args:
        key: ``backend/precision``.
        found: From `loss`, on the test images.
        reference: What it is compared with, for people.

    Raises:
        ExportRefusedError: It does.
    """
    failures = found.failures(key, reference)
    if failures:
        raise ExportRefusedError(f"export refused: {'; '.join(failures)}")


def compare(
    key: str,
    outputs: Outputs,
    calibration: Calibration,
    reference: Outputs,
    reference_calibration: Calibration,
    labels: Labels,
    compared: int = COMPARED,
) -> ParityRow:
    """Compare the outputs of an exported file with the trained network's on the test split."""
    verdicts, wrong = accepted(outputs, calibration), predicted(outputs) != labels
    reference_verdicts = accepted(reference, reference_calibration)
    first = slice(0, min(compared, len(labels)))
    logits, expected = outputs.logits, reference.logits
    return ParityRow(
        key=key,
        compared=len(labels[first]),
        accuracy=accuracy(logits[first], labels[first]),
        agreement=float(np.mean(logits[first].argmax(axis=1) == expected[first].argmax(axis=1))),
        verdict_agreement=float(np.mean(verdicts[first] == reference_verdicts[first])),
        largest_difference=float(np.abs(logits[first] - expected[first]).max()),
        test_images=len(labels),
        test_accuracy=accuracy(logits, labels),
        test_coverage=float(np.mean(verdicts)),
        test_selective_risk=float(np.mean(wrong[verdicts])) if verdicts.any() else None,
    )
