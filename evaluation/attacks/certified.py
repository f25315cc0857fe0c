"""Attacks inside a certificate's budget that aim at the certificate itself, and what the theorem says about them.

What a certificate gives to each label is made differentiable and attacked like logits: the attacker raises the lower
bound, or the mean over masked views, of a wrong label. The theorem (docs/certificates.md) says how far he gets: no
label gets more on an attacked frame than the clean frame allows. A frame on which it does is a counterexample, and so
is one whose wrong label is certified though its clean frame is not among those that the bound counts.

What the deployed engine says about the attacked frames, rounded to whole levels, decides; PyTorch only attacks.
"""

from __future__ import annotations

from collections.abc import Callable
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
from framegate.export.graph.plain_chain import plain_chain
from framegate.export.graph.reach import Reach
from framegate.models.pixels import PixelInput, to_images
from framegate.models.training.interval_bounds import carry
from framegate.runtime.bundle.certificates import LINF, CertificateRecord
from framegate.runtime.bundle.masks import MaskGrid
from framegate.runtime.certificate import SLACK, CertificateNetwork

Values = npt.NDArray[np.float64]


def lower_bounds(path: Path, prepare: PixelInput, levels: int) -> LogitsOf:
    """For every label the lowest margin over the ball around the pixels, by interval bounds, differentiable.

    Args:
        path: Of the certificate's network.
        prepare: From pixels to its input.
        levels: Radius of the ball in levels of 255; 0 gives the margins at the pixels themselves.
    """
    layers, last = plain_chain(path)
    differences = last.weight.unsqueeze(1) - last.weight.unsqueeze(0)
    offsets = last.bias.unsqueeze(1) - last.bias.unsqueeze(0)
    own = torch.eye(len(last.bias), dtype=torch.bool)

    def bounds(pixels: Tensor) -> Tensor:
        low, high = prepare(pixels - levels / 255), prepare(pixels + levels / 255)
        middle = (low + high) / 2
        _, (centre, radius) = carry(layers, middle, (middle, (high - low) / 2))
        found = torch.einsum("cjh,nh->ncj", differences, centre) + offsets
        found = found - torch.einsum("cjh,nh->ncj", differences.abs(), radius)
        return found.masked_fill(own, torch.inf).amin(2)

    return bounds


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
    bounds, logits = lower_bounds(path, prepare, levels), lower_bounds(path, prepare, 0)
    size = levels / 255
    return {
        f"PGD-{steps} on the branch": lambda x, y: (
            pgd(logits, x, y, size, steps, loss="margin", batch=50, seed=seed).pixels
        ),
        f"PGD-{steps} on the bounds": lambda x, y: (
            pgd(bounds, x, y, size, steps, loss="margin", batch=50, seed=seed).pixels
        ),
        f"APGD-{steps} on the bounds": lambda x, y: (
            apgd(bounds, x, y, size, loss="margin", steps=steps, batch=50, seed=seed).pixels
        ),
    }


def allowed(
    record: CertificateRecord,
    network: CertificateNetwork,
    path: Path,
    pixels: Tensor,
    labels: npt.NDArray[np.int64] | None = None,
) -> Values:
    """The most that the theorem lets each label reach on an attacked form of each clean frame.

    Args:
        record: The certificate.
        network: Of an engine.
        path: Of its network.
        pixels: (N, 3, h, w) clean.
        labels: (N,) true ones, if only wrong labels matter, which takes less time; None: all.

    Returns:
        (N, classes).
    """
    if record.kind == LINF:
        with torch.inference_mode():
            margins = lower_bounds(path, PixelInput(record.preprocess), 0)
            found = np.concatenate([margins(part).double().numpy() for part in torch.split(pixels, 50)])
        # No other label can be certified than the largest: the margins of the others are below 0.
        largest = found.argmax(1)
        rows = np.flatnonzero(largest != labels) if labels is not None else np.arange(len(found))
        reach = Reach(path, record.preprocess, record.budget).margins(to_images(pixels)[rows])
        found[rows, largest[rows]] = np.fmin(found[rows, largest[rows]], reach)
        return found
    return np.stack([network.view_means(image).max(0) for image in to_images(pixels)])


def reached(network: CertificateNetwork, pixels: Tensor) -> Values:
    """(N, classes) what the engine certifies of each label on these frames, rounded to whole levels."""
    return np.stack([network.certified(image) for image in to_images(pixels)])


def judged(reach: Values, limit: Values, labels: npt.NDArray[np.int64], tau: float) -> dict[str, int]:
    """Counts of one attack.

    Args:
        reach: See `reached`.
        limit: See `allowed`.
        labels: True ones.
        tau: Of the certificate.

    Returns:
        ``frames``; ``possible``: frames whose clean form lets a wrong label reach tau, which the bound counts;
        ``certified_wrong``: attacked frames with a certified wrong label; ``counterexamples``: of those, frames that
        the bound does not count, and frames on which a label reaches more than it may.
    """
    rows = np.arange(len(labels))
    wrong_reach, wrong_limit = reach.copy(), limit.copy()
    wrong_reach[rows, labels] = wrong_limit[rows, labels] = -np.inf
    certified = (wrong_reach >= tau + SLACK).any(1)
    possible = (wrong_limit >= tau).any(1)
    # PyTorch's sums stand in for the engine's in the limit of a branch: they differ by far less than this.
    beyond = ~(reach <= limit + 1e-3) & (reach >= tau)
    return {
        "frames": len(labels),
        "possible": int(possible.sum()),
        "certified_wrong": int(certified.sum()),
        "counterexamples": int(((certified & ~possible) | beyond.any(1)).sum()),
    }
