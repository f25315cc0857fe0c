"""Data that the network has seen prove nothing. What gives them away, and what refuses then.

A network is nearly always right on what it was trained on, so a calibration on such images proves a risk that is far
below the true one. Two tests against a report split, which no decision was made with:

* One-sided exact test of Fisher (1922): were so few errors among the calibration images chance, if the error rate were
  that of the report images? For 0.4 % against 8 % it has power 0.96 with 100 report images, 0.999 with 200; 0.4 %
  against 1 % needs 5,000 of each for 0.89.
* Exact binomial audit: are the errors among the accepted report images more than the target allows?

Each refuses at level `ALPHA`: one truthful calibration in a hundred is refused wrongly by each. A report split that
was cut from the same seen images has no power, so images that lie in two splits are looked for by hash, and a bundle's
recorded test error is compared, too. Images of units (tracks) count once for each unit; where only the calibration
split has units, the report's counts are divided by the mean length of a unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from framegate.export.calibration.decisions import Flags, Outputs, accepted, predicted
from framegate.models.labelled import LabelledImages
from framegate.runtime.bundle.binomial import binomial_tail
from framegate.runtime.bundle.calibration import FRAMES, Calibration
from framegate.runtime.errors import CalibrationError

ALPHA = 0.01
_REMEDY = (
    "Nothing was written. Give images that it never saw (--unseen DIR), or --no-promise for thresholds that promise "
    "nothing"
)


def fisher(errors: int, count: int, other_errors: int, other_count: int) -> float:
    """P(at most ``errors`` of ``count``) given all errors of both samples, if both have the same error rate.

    Args:
        errors: Of the sample that may be too good.
        count: Its size.
        other_errors: Of the other sample.
        other_count: Its size.
    """
    total = errors + other_errors
    least = max(0, total - other_count)
    whole = _log_choose(count + other_count, total)
    return math.fsum(
        math.exp(_log_choose(count, k) + _log_choose(other_count, total - k) - whole) for k in range(least, errors + 1)
    )


def audit(errors: int, count: int, target_risk: float) -> float:
    """P(at least ``errors`` of ``count``) if the error rate is ``target_risk``."""
    return 1.0 if errors == 0 else 1.0 - binomial_tail(errors - 1, count, target_risk)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def check_report(
    key: str,
    calibration: Calibration,
    calibrated: tuple[Outputs, LabelledImages],
    report: tuple[Outputs, LabelledImages],
) -> None:
    """Refuse a calibration that a report split contradicts.

    Args:
        key: ``backend/precision``, for the message.
        calibration: What would be issued.
        calibrated: Outputs of its engine on the calibration split, and the split.
        report: The same of a split that decided nothing.

    Raises:
        CalibrationError: The report contradicts it.
    """
    outputs, split = calibrated
    wrong = predicted(outputs) != split.labels
    report_wrong = predicted(report[0]) != report[1].labels
    _check_errors(key, _counted(wrong, split), _counted(report_wrong, report[1], split), "the report images")
    passed = accepted(report[0], calibration)
    if calibration.about != FRAMES or not passed.any():
        return
    errors, count = _counted(report_wrong[passed], report[1].subset(np.flatnonzero(passed), ""), split)
    chance = audit(errors, count, calibration.target_risk)
    if not chance > ALPHA:
        raise CalibrationError(
            f"calibration refused: {key} was to keep {calibration.target_risk:.2%} errors among accepted frames, but "
            f"{errors} of {count} accepted report images are wrong ({errors / count:.2%}; probability {chance:.2g} if "
            f"the target held): the report images are not like the calibration images. {_REMEDY}"
        )


def check_recorded(key: str, wrong: Flags, split: LabelledImages, parity: Sequence[Mapping[str, Any]]) -> None:
    """Refuse calibration images on which the network does far better than on the test images of its export.

    Args:
        key: ``backend/precision``.
        wrong: (N,) errors on the calibration split.
        split: The calibration split.
        parity: The bundle's rows; one of another engine will do, all compute the same network.

    Raises:
        CalibrationError: It does.
    """
    rows = [row for row in parity if row.get("key") == key] or list(parity)
    if not rows:
        return
    try:
        count, accuracy = int(rows[0]["test_images"]), float(rows[0]["test_accuracy"])
    except (KeyError, TypeError, ValueError):
        return
    length = _mean_length(split)
    count, errors = round(count / length), round((1 - accuracy) * count / length)
    _check_errors(key, _counted(wrong, split), (errors, count), "the test images of its export")


def _check_errors(key: str, found: tuple[int, int], other: tuple[int, int], where: str) -> None:
    (errors, count), (other_errors, other_count) = found, other
    if not count or not other_count:
        return
    chance = fisher(errors, count, other_errors, other_count)
    if not chance > ALPHA:
        raise CalibrationError(
            f"calibration refused: {key} is wrong on {errors} of {count} calibration images ({errors / count:.2%}), "
            f"but on {other_errors} of {other_count} of {where} ({other_errors / other_count:.2%}; probability "
            f"{chance:.2g} if both were alike): the network has probably seen the calibration images. {_REMEDY}"
        )


def _mean_length(split: LabelledImages) -> float:
    return 1.0 if split.groups is None else len(split) / max(len(np.unique(split.groups)), 1)


def _counted(wrong: Flags, split: LabelledImages, other: LabelledImages | None = None) -> tuple[int, int]:
    """Errors and images, one of each unit; counts divided by the mean unit of ``other`` if only that has units."""
    if split.groups is not None:
        first = np.unique(split.groups, return_index=True)[1]
        return int(wrong[first].sum()), len(first)
    length = 1.0 if other is None else _mean_length(other)
    return round(int(wrong.sum()) / length), round(len(wrong) / length)
