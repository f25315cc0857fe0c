"""The research's published figures and what they turn out to be when measured per frame, as plain data.

Published: repository OmarKhalil2003/RobustEntropyCNN at commit 2647efe (its README and CSV files) and the paper it
builds on, "Entropy-Based Non-Invasive Reliability Monitoring of Convolutional Neural Networks" (2025,
arXiv 2508.21715). Re-measured: the two networks whose weights that repository publishes (SimpleCNN and MobileNet), run
on the CIFAR-10 test set with pixels in [0, 1], entropy in nats per frame; the weights of the hybrid were not
available. Thresholds come from one half of the test set and are judged on the other. Attacks are L-infinity on the
logits, pixels in [0, 1]; PGD has 20 steps of epsilon/6 and a random start. Intervals are 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

CODE = "RobustEntropyCNN@2647efe"
PAPER = "arXiv 2508.21715"
REMEASURED = "published weights, CIFAR-10 test set, November 2026"
DATA = "cifar10"

_REPRODUCES = "reproduces"
_BATCHES = (
    "the published rule rejects whole batches of 128 frames by a batch entropy; accuracy on what it keeps is no better "
    "than without any rejection"
)
_CHANCE = (
    "exactly chance: images of 0 to 255 are clipped to [0, 1] by the attack, so the network sees nearly constant "
    "images and answers one class (read in the code; the hybrid's weights are not public)"
)


@dataclass(frozen=True)
class ResearchFigure:
    """One published or re-measured figure.

    Attributes:
        quantity: What it is, as a key: ``accuracy``, ``accuracy/fgsm``, ``accuracy/pgd``, ``batch_rule``,
            ``selective/COVERAGE``, ``failure/METRIC``, ``ece``, ``ece_temperature``, ``accepted/ATTACK`` (share of
            the wrong frames under attack that are accepted at 95 % clean coverage), ``auroc/ATTACK``,
            ``adaptive/auroc``, ``adaptive/accepted``, ``detection/UNIT``.
        label: The same for people.
        reported: As published, or None where nothing was.
        remeasured: Our measurement of the research's own network, or None where its weights are not public.
        low: Lower end of the re-measured figure's 95 % interval.
        high: Upper end of it.
        n: Frames (or decisions) of the re-measurement.
        wrong: What was wrong with the published figure, or what the re-measurement says about it.
        source: Where the published figure stands.
    """

    quantity: str
    label: str
    reported: float | None = None
    remeasured: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    wrong: str = ""
    source: str = CODE


_PER_FRAME = "not published; the research decides per batch"
_UNKNOWN = "not published, and the hybrid's weights are not public"
_OTHER_PICTURES = "not published: the paper's network saw ImageNet pictures; ours, of the same layers, CIFAR-10"
_SPLITS = "not published per frame; mean over 200 random splits into calibration and measurement"
_CERTAIN = "not published; PGD makes the network too certain, so a limit on entropy from above stops nothing"
_NEAR_CHANCE = "near chance per frame; the published success needs eps 0.2 or whole batches"

_CLEAN = ("accuracy", "clean accuracy")
_FGSM = ("accuracy/fgsm", "accuracy under FGSM, eps 0.03")
_PGD = ("accuracy/pgd", "accuracy under PGD, eps 0.03")
_RULE = "accuracy kept by the batch rule, coverage"

_NOT_PUBLISHED = (
    ResearchFigure("selective/0.95", "accuracy per frame at 95 % coverage", wrong=_SPLITS),
    ResearchFigure("selective/0.9", "accuracy per frame at 90 % coverage", wrong=_SPLITS),
    ResearchFigure("selective/0.8", "accuracy per frame at 80 % coverage", wrong=_SPLITS),
    ResearchFigure("selective/0.7", "accuracy per frame at 70 % coverage", wrong=_SPLITS),
    ResearchFigure("failure/auroc", "AUROC, entropy finds errors", n=10000, wrong=_PER_FRAME),
    ResearchFigure("failure/aurc", "AURC x1000", n=10000, wrong=_PER_FRAME),
    ResearchFigure("failure/augrc", "AUGRC x1000", n=10000, wrong=_PER_FRAME),
    ResearchFigure("ece", "calibration error (ECE)", n=5000, wrong="not published"),
    ResearchFigure("ece_temperature", "ECE after one temperature", n=5000, wrong="not published"),
    ResearchFigure("accepted/fgsm", "wrong frames accepted under FGSM, eps 0.03", n=5000, wrong=_PER_FRAME),
    ResearchFigure("accepted/pgd", "wrong frames accepted under PGD-20, eps 0.03", n=4000, wrong=_CERTAIN),
    ResearchFigure("auroc/pgd", "AUROC, high entropy finds PGD-20, eps 0.03", n=4000, wrong=_PER_FRAME),
    ResearchFigure("adaptive/auroc", "the same, attack aims at clean entropies", n=1000, wrong=_PER_FRAME),
    ResearchFigure("adaptive/accepted", "adaptive attack: wrong and accepted", n=1000, wrong=_PER_FRAME),
    ResearchFigure(
        "detection/frame", "FGSM 8/255 found by first-layer entropy, per frame", n=10000, wrong=_NEAR_CHANCE
    ),
    ResearchFigure("detection/batch 128", "the same, per batch of 128", n=78, wrong="78 decisions only"),
)
"""What the research does not publish, and on how many frames (or decisions) it was re-measured."""


def _remeasured(values: Mapping[str, tuple[float, float | None, float | None]]) -> tuple[ResearchFigure, ...]:
    """`_NOT_PUBLISHED` with the figures of one network: value and both ends of its interval."""
    return tuple(
        replace(figure, remeasured=value, low=low, high=high)
        for figure in _NOT_PUBLISHED
        for value, low, high in [values[figure.quantity]]
    )


SIMPLECNN = (
    ResearchFigure(*_CLEAN, 0.7013, 0.7013, 0.692, 0.710, 10000, _REPRODUCES),
    ResearchFigure(*_FGSM, 0.0103, 0.0103, n=10000, wrong=_REPRODUCES),
    ResearchFigure(*_PGD, 0.0, 0.0, 0.0, 0.0009, 4000, _REPRODUCES),
    ResearchFigure("batch_rule", f"{_RULE} 0.96", 0.699, 0.6995, n=10000, wrong=_BATCHES),
    *_remeasured(
        {
            "selective/0.95": (0.7227, None, None),
            "selective/0.9": (0.7431, None, None),
            "selective/0.8": (0.7819, None, None),
            "selective/0.7": (0.8211, None, None),
            "failure/auroc": (0.805, 0.796, 0.814),
            "failure/aurc": (117.8, 111.9, 124.2),
            "failure/augrc": (85.4, 81.6, 89.2),
            "ece": (0.111, None, None),
            "ece_temperature": (0.017, None, None),
            "accepted/fgsm": (0.983, None, None),
            "accepted/pgd": (1.0, None, None),
            "auroc/pgd": (0.011, None, None),
            "adaptive/auroc": (0.442, None, None),
            "adaptive/accepted": (0.992, None, None),
            "detection/frame": (0.551, 0.541, 0.561),
            "detection/batch 128": (0.846, 0.747, 0.918),
        }
    ),
)

MOBILENET = (
    ResearchFigure(*_CLEAN, 0.7372, 0.7372, 0.728, 0.746, 10000, _REPRODUCES),
    ResearchFigure(*_FGSM, 0.0147, 0.0145, n=10000, wrong="reproduces within 2 frames"),
    ResearchFigure(*_PGD, 0.0, 0.0, 0.0, 0.0009, 4000, _REPRODUCES),
    ResearchFigure("batch_rule", f"{_RULE} 0.974", 0.737, 0.7369, n=10000, wrong=_BATCHES),
    *_remeasured(
        {
            "selective/0.95": (0.7626, None, None),
            "selective/0.9": (0.7830, None, None),
            "selective/0.8": (0.8219, None, None),
            "selective/0.7": (0.8610, None, None),
            "failure/auroc": (0.822, 0.814, 0.830),
            "failure/aurc": (93.7, 88.2, 99.3),
            "failure/augrc": (69.1, 65.6, 72.5),
            "ece": (0.169, None, None),
            "ece_temperature": (0.013, None, None),
            "accepted/fgsm": (0.979, None, None),
            "accepted/pgd": (1.0, None, None),
            "auroc/pgd": (0.0, None, None),
            "adaptive/auroc": (0.443, None, None),
            "adaptive/accepted": (0.992, None, None),
            "detection/frame": (0.557, 0.547, 0.567),
            "detection/batch 128": (0.936, 0.857, 0.979),
        }
    ),
)

HYBRID = (
    ResearchFigure(*_CLEAN, 0.8549, wrong="weights not public, could not be run"),
    ResearchFigure(*_FGSM, 0.1000, wrong=_CHANCE),
    ResearchFigure(*_PGD, 0.1000, wrong=_CHANCE),
    ResearchFigure("batch_rule", f"{_RULE} 0.987", 0.855, wrong=_BATCHES),
    *(replace(figure, n=None, wrong=_UNKNOWN) for figure in _NOT_PUBLISHED),
)

# The paper: VGG-16 on ImageNet pictures, FGSM 0.2, batches of 16; its intervals were derived from its own counts.
VGG16 = (
    ResearchFigure(
        "paper/accuracy",
        "clean accuracy on 368 ImageNet pictures",
        0.865,
        wrong="another data set and picture size: no row of ours compares",
        source=PAPER,
    ),
    ResearchFigure(
        "detection/batch 16",
        "FGSM 0.2 found by first-layer entropy, per batch of 16",
        0.90,
        wrong="9 of 10 decisions (95 % interval 0.55 to 0.997) at eps 0.2 = 51/255, plainly visible noise; "
        "the paper itself leaves thresholds per frame to later work",
        source=PAPER,
    ),
    *(
        replace(figure, n=None, wrong=_OTHER_PICTURES, source=PAPER)
        for figure in (ResearchFigure(*_CLEAN), ResearchFigure(*_FGSM), ResearchFigure(*_PGD), *_NOT_PUBLISHED)
    ),
)

RESEARCH = {"simplecnn": SIMPLECNN, "mobilenet": MOBILENET, "hybrid": HYBRID, "vgg16": VGG16}
