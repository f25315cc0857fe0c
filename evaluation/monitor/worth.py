"""Whether a monitor is worth its place: on attacks that it was not fitted on it must beat what needs no network.

A head that was fitted on one family of attacks may see nothing of another, and on a network whose features hardly move
under attack (an adversarially trained one) it may rank attacked frames below clean ones. The total variation of the
pixels costs less and sees something of every attack. So both are measured on the same frames, which trained nothing and
fitted nothing: the design part of the calibration split, which may be looked at before a threshold is proved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from framegate.evaluation.attacks.apgd import NAMES, apgd
from framegate.evaluation.attacks.loss import LogitsOf
from framegate.evaluation.attacks.problem import evaluate
from framegate.evaluation.attacks.square import square
from framegate.evaluation.frames.engine_network import ObservedNetwork
from framegate.evaluation.monitor.fit import BATCH, LEAST_JUDGED, head_score, layer_means, separation
from framegate.evaluation.scores.combined import Typicality
from framegate.evaluation.scores.input import control_statistics
from framegate.models.labelled import LabelledImages
from framegate.models.pixels import to_pixels
from framegate.models.training.batches import Progress
from framegate.runtime.errors import ExportRefusedError, UsageError
from framegate.runtime.monitor import Monitor

EPSILON = 8 / 255
FRAMES = 200
"""Frames that are attacked, at most; each is classified rightly before."""
STEPS, QUERIES = 30, 300
_RESAMPLES = 400
_CONFIDENCE = 0.95
_DLR_CLASSES = 3
"""The difference-of-logits ratio compares with the third best class."""
_MONITOR = "shift"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Worth:
    """What a monitor sees of attacks that it was not fitted on, and what the best control sees of them.

    Attributes:
        frames: Frames attacked.
        monitor: Attack -> AUROC of ``shift``, attacked against clean frames.
        control: Attack -> AUROC of the control.
        control_name: The control without a network that is best over all attacks.
        lead: Mean of the first less mean of the second.
        at_least: Lower end of the lead: 95 % of resamples of the frames give more.
    """

    frames: int
    monitor: Mapping[str, float]
    control: Mapping[str, float]
    control_name: str
    lead: float
    at_least: float

    def to_json(self) -> dict[str, Any]:
        """A plain record for the monitor's ``fitted``."""
        return {
            "frames": self.frames,
            "auroc": {name: round(value, 4) for name, value in self.monitor.items()},
            "best_control": self.control_name,
            "control_auroc": {name: round(value, 4) for name, value in self.control.items()},
            "lead": round(self.lead, 4),
            "lead_at_least": round(self.at_least, 4),
        }

    def summary(self) -> str:
        """One line for people."""
        figures = ", ".join(
            f"{name} {self.monitor[name]:.3f} ({self.control_name} {self.control[name]:.3f})" for name in self.monitor
        )
        return f"AUROC on {self.frames} frames under attacks that it was not fitted on: {figures}"

    def require(self) -> None:
        """Refuse a monitor that is not better than the control by more than chance.

        Raises:
            ExportRefusedError: With the figures.
        """
        if not self.at_least > 0:
            raise ExportRefusedError(
                f"monitor refused, the bundle is as it was: {self.summary()}; its lead over {self.control_name}, which "
                f"needs no network, is {self.lead:+.3f} and may be {self.at_least:+.3f}, above 0 is needed. The gate "
                "works without a monitor; an adversarially trained network gives it little to see, other networks more "
                "with more --images and --layers"
            )


def worth_of(
    monitor: Monitor,
    network: ObservedNetwork,
    images: LabelledImages,
    depth: int,
    seed: int,
    progress: Progress,
    followed: LogitsOf | None = None,
    frames: int | None = None,
) -> Worth:
    """Attack frames as the monitor's fit did not, and compare it with the controls.

    Args:
        monitor: Fitted.
        network: Of the bundle, with the monitor's layers as taps.
        images: Labelled images that neither trained the network nor fitted the monitor, nor prove a threshold.
        depth: Slices of a volume; 1 for images.
        seed: Of everything random.
        progress: Called during the work.
        followed: What an attack by gradient follows if the network has none, and is transferred from; None: the network
            itself. The attack by queries asks the network in both cases.
        frames: Frames that are attacked, at most; None: `FRAMES`.

    Raises:
        UsageError: Fewer than `LEAST_JUDGED` of the images are classified rightly.
    """
    clean, labels = _right_frames(network, images, depth, FRAMES if frames is None else frames)
    known = control_statistics(to_pixels(images.images, depth))
    judged = [_scores(monitor, network, clean, known)]
    progress("monitor: attacks that it was not fitted on", 0, 2)
    attacked = _attacks(network, followed, clean, labels, seed, progress)
    judged += [_scores(monitor, network, pixels, known) for pixels in attacked.values()]
    controls = [name for name in judged[0] if name != _MONITOR]

    def means(rows: npt.NDArray[np.int64]) -> dict[str, Floats]:
        """Score -> (attacks,) AUROC of these frames."""
        here, *others = judged
        return {name: np.array([separation(here[name][rows], there[name][rows]) for there in others]) for name in here}

    whole = means(np.arange(len(clean)))
    best = max(controls, key=lambda name: float(whole[name].mean()))
    rng = np.random.default_rng(seed)
    leads = []
    for _ in range(_RESAMPLES):
        some = rng.integers(0, len(clean), len(clean))
        here, *others = ({name: scores[name][some] for name in (_MONITOR, best)} for scores in judged)
        leads.append(np.mean([separation(here[_MONITOR], each[_MONITOR]) - separation(here[best], each[best])
                              for each in others]))  # fmt: skip
    return Worth(
        frames=len(clean),
        monitor=dict(zip(attacked, whole[_MONITOR].tolist(), strict=True)),
        control=dict(zip(attacked, whole[best].tolist(), strict=True)),
        control_name=best,
        lead=float(whole[_MONITOR].mean() - whole[best].mean()),
        at_least=float(np.quantile(leads, 1 - _CONFIDENCE)),
    )


def _right_frames(network: ObservedNetwork, images: LabelledImages, depth: int, frames: int) -> tuple[Tensor, Tensor]:
    """The first frames that the network classifies rightly: an attack leaves the others as they are."""
    pixels, labels = to_pixels(images.images, depth), torch.from_numpy(images.labels)
    right = torch.nonzero(evaluate(network, pixels, BATCH).argmax(1) == labels)[:frames, 0]
    if len(right) < LEAST_JUDGED:
        raise UsageError(
            f"monitor: of {len(images)} calibration images that set no threshold the network classifies {len(right)} "
            f"rightly; {LEAST_JUDGED} are needed to see whether a monitor is worth its place. Give more images"
        )
    return pixels[right], labels[right]


def _attacks(
    network: ObservedNetwork,
    followed: LogitsOf | None,
    pixels: Tensor,
    labels: Tensor,
    seed: int,
    progress: Progress,
) -> dict[str, Tensor]:
    """Attack -> pixels: one that follows another loss, and one that follows no gradient."""
    classes = network(pixels[:1]).shape[1]
    loss = "dlr" if classes >= _DLR_CLASSES else "margin"
    result = apgd(followed or network, pixels, labels, EPSILON, loss=loss, steps=STEPS, batch=BATCH, seed=seed)
    found = {f"{NAMES[loss]} 8/255{', transferred' if followed else ''}": result.pixels}
    progress("monitor: attacks that it was not fitted on", 1, 2)
    result = square(network, pixels, labels, EPSILON, queries=QUERIES, batch=BATCH, seed=seed)
    found[f"Square ({QUERIES} queries) 8/255"] = result.pixels
    progress("monitor: attacks that it was not fitted on", 2, 2)
    return found


def _scores(
    monitor: Monitor, network: ObservedNetwork, pixels: Tensor, known: Mapping[str, Floats]
) -> dict[str, Floats]:
    """The monitor's signal, and every control as it is and in its two-sided form."""
    found: dict[str, Floats] = {_MONITOR: head_score(monitor, layer_means(network, pixels))}
    for name, values in control_statistics(pixels).items():
        found[name] = values
        found[f"two_sided({name})"] = Typicality.fit(name, known[name]).atypicality(values)
    return found
