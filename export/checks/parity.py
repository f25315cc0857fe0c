"""The accuracy gate: an exported network must decide what the network decided that it was made from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from framegate.export.calibration.decisions import Outputs, accepted, predicted
from framegate.export.calibration.temperature import Labels, Logits
from framegate.runtime.calibration import Calibration
from framegate.runtime.errors import ExportRefusedError

COMPARED = 1_000
"""Images, from the start of the test split, that are compared one by one."""
LARGEST_LOSS = 0.005
"""An exported file may lose this share of accuracy against the trained network, no more."""


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


def check_accuracy(key: str, logits: Logits, reference: Logits, labels: Labels) -> None:
    """Refuse a file that loses more than half a point of accuracy.

    Raises:
        ExportRefusedError: It does.
    """
    found, expected = accuracy(logits, labels), accuracy(reference, labels)
    if not at_most(expected - found, LARGEST_LOSS, len(labels)):
        raise ExportRefusedError(
            f"export refused: {key} reaches accuracy {found:.4f} on {len(labels)} test images, the trained network "
            f"{expected:.4f}; at most {LARGEST_LOSS:.3f} may be lost. Nothing was written; train longer, or give the "
            "quantiser more varied images"
        )


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
