"""Attacks inside a certificate's budget that aim at the certificate itself, and what the theorem says about them.

What a certificate gives to each label is made differentiable and attacked like logits: the attacker raises the margin,
or the mean over masked views, of a wrong label. The theorem (docs/certificates.md) says how far he gets: no wrong label
gets more on an attacked frame than the clean frame allows. A frame on which it does is a counterexample, and so is one
whose wrong label is certified though its clean frame is not among those that the bound counts.

What the deployed engine says about the attacked frames, rounded to whole levels, decides; PyTorch only attacks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from framegate.evaluation.attacks.apgd import apgd
from framegate.evaluation.attacks.linf import pgd
from framegate.evaluation.attacks.loss import LogitsOf
from framegate.evaluation.attacks.patch import patch
from framegate.evaluation.frames.network import Network
from framegate.export.calibration.certificates import Closer, lowered, possible_of_views
from framegate.export.calibration.temperature import Labels
from framegate.export.graph.plain_chain import plain_chain
from framegate.export.graph.reach import CASES, Reach
from framegate.models.pixels import PixelInput, to_images
from framegate.models.training.augment import Images
from framegate.runtime.bundle.certificates import CertificateRecord
from framegate.runtime.bundle.masks import MaskGrid
from framegate.runtime.certificate import SLACK, CertificateNetwork

Values = npt.NDArray[np.float64]
_AT_ONCE = 20


def margins(path: Path, prepare: PixelInput) -> LogitsOf:
    """For every label how far its logit lies above the largest other one, differentiable.

    Args:
        path: Of the certificate's network.
        prepare: From pixels to its input.

    Raises:
        UsageError: The network is no plain chain of layers.
    """
    layers, last = plain_chain(path)
    own = torch.eye(len(last.bias), dtype=torch.bool)

    def found(pixels: Tensor) -> Tensor:
        logits = last(layers(prepare(pixels)))
        others = logits.unsqueeze(1).expand(-1, len(own), -1).masked_fill(own, -torch.inf)
        return torch.as_tensor(logits - others.amax(2))

    return found


def view_means(path: Path, prepare: PixelInput, masks: MaskGrid) -> LogitsOf:
    """For every label the lowest mean log-probability over the covering views of a place, differentiable.

    Raises:
        BundleError: The network has no differentiable form.
    """
    network = Network(path, prepare)
    network.check((len(prepare.spec.mean), masks.height, masks.width))
    network.requires_grad_(False)
    hidden = np.zeros((masks.views, 1, masks.height, masks.width), np.float32)
    masks.hide(np.ones((1, 1, masks.height, masks.width), np.float32), hidden)
    keep = torch.from_numpy(hidden)
    eye = masks.means(np.eye(masks.views))
    covering = torch.from_numpy(eye).float()

    def means(pixels: Tensor) -> Tensor:
        inputs = prepare(pixels)
        views = (inputs.unsqueeze(1) * keep).flatten(0, 1)
        said = network.of_inputs(views).log_softmax(1).view(len(inputs), masks.views, -1)
        return torch.einsum("pv,nvc->npc", covering, said).amin(1)

    return means


Attack = Callable[[Tensor, Tensor], Tensor]
"""(pixels, labels) -> attacked pixels."""


def attacks_on(record: CertificateRecord, path: Path, levels: int, steps: int, seed: int) -> dict[str, Attack]:
    """Attacks within the budget on what the certificate computes.

    Args:
        record: The certificate.
        path: Of its network.
        levels: The budget: levels of 255, or the side of the patch.
        steps: Gradient steps.
        seed: Of everything random.
    """
    prepare = PixelInput(record.preprocess)
    if record.masks is not None:
        means = view_means(path, prepare, record.masks)
        return {
            f"patch {levels}x{levels}, {steps} steps": lambda x, y: (
                patch(means, x, y, levels, steps, places=2, batch=4, seed=seed).pixels
            )
        }
    wrong, size = margins(path, prepare), levels / 255
    return {
        f"PGD-{steps} on the branch": lambda x, y: (
            pgd(wrong, x, y, size, steps, loss="margin", batch=50, seed=seed).pixels
        ),
        f"APGD-{steps} on the branch": lambda x, y: (
            apgd(wrong, x, y, size, loss="margin", steps=steps, batch=50, seed=seed, keep="best").pixels
        ),
    }


class Allowed:
    """The most that the theorem lets a wrong label reach on any attacked form of some clean frames.

    Args:
        values: (N,) a first bound.
        closer: Positions of frames -> bounds that are closer and cost more, each than those before.

    Attributes:
        values: (N,) what is known of it.
        closer: Those of ``closer``, for `framegate.export.calibration.certificates.lowered`.
    """

    def __init__(self, values: Values, closer: Sequence[Callable[[Labels], Values]] = ()) -> None:
        self.values = values
        self.closer = [Closer(self._remembered(each), _AT_ONCE) for each in closer]

    def _remembered(self, bound: Callable[[Labels], Values]) -> Callable[[Labels, int], Values]:
        done = np.zeros(len(self.values), bool)

        def find(rows: Labels, left: int) -> Values:
            new = rows[~done[rows]]
            if len(new):
                self.values[new], done[new] = np.fmin(self.values[new], bound(new)), True
            return self.values[rows]

        return find

    @classmethod
    def of_margins(
        cls, path: Path, record: CertificateRecord, images: Images, labels: Labels, cases: int = CASES
    ) -> Allowed:
        """That of an L-infinity certificate.

        Args:
            path: Of its network.
            record: The certificate.
            images: (N, h, w, 3) uint8 BGR, clean.
            labels: (N,) the true ones.
            cases: Into which a frame is split, at most; 0: not at all.
        """
        reach = Reach(path, record.preprocess, record.budget)
        closer = [lambda rows: reach.margins(images[rows], labels[rows])]
        if cases:
            closer.append(lambda rows: reach.closest(images[rows], labels[rows], cases))
        return cls(reach.quick(images, labels), closer)

    @classmethod
    def of_views(cls, network: CertificateNetwork, images: Images, labels: Labels) -> Allowed:
        """That of a patch certificate, whose network an engine has."""
        both = zip(images, labels, strict=True)
        return cls(np.array([possible_of_views(network.view_means(image), int(label)) for image, label in both]))

    def above(self, tau: float) -> Values:
        """``values``, those of at least ``tau`` the closest ones."""
        for each in self.closer:
            each.find(np.flatnonzero(self.values >= tau), 0)
        return self.values

    def lowered(self, groups: Labels | None, units: int, lowest: float) -> Values:
        """``values``, closest where the threshold depends on them that so many units may reach.

        Args:
            groups: (N,) track of each frame; None: each counts for itself.
            units: That may reach it.
            lowest: Of the threshold.
        """
        found = self.values
        for each in self.closer:
            found = lowered(found, groups, units, lowest, each)
        return found


def reached(network: CertificateNetwork, pixels: Tensor) -> Values:
    """(N, classes) what the engine certifies of each label on these frames, rounded to whole levels."""
    return np.stack([network.certified(image) for image in to_images(pixels)])


def judged(reach: Values, limit: Values, labels: Labels, tau: float) -> dict[str, int]:
    """Counts of one attack.

    Args:
        reach: See `reached`.
        limit: (N,) See `Allowed.above`.
        labels: True ones.
        tau: Of the certificate.

    Returns:
        ``frames``; ``possible``: frames whose clean form lets a wrong label reach tau, which the bound counts;
        ``certified_wrong``: attacked frames with a certified wrong label; ``counterexamples``: of those, frames that
        the bound does not count, and frames on which a wrong label reaches more than it may.
    """
    wrong = reach.copy()
    wrong[np.arange(len(labels)), labels] = -np.inf
    most = wrong.max(1)  # NaN stays, and is certified nowhere
    certified, possible = most >= tau + SLACK, limit >= tau
    # Of views, which another call computes: their sums differ by far less than this.
    beyond = ~(most <= limit + 1e-3) & (most >= tau)
    return {
        "frames": len(labels),
        "possible": int(possible.sum()),
        "certified_wrong": int(certified.sum()),
        "counterexamples": int(((certified & ~possible) | beyond).sum()),
    }
