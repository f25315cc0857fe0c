"""What attacks of many kinds and sizes make of a bundle: without the gate, with it, and with a certificate.

A row counts frames that are wrong; that are wrong and accepted by the promised gate; and that are wrong, accepted and
certified. Attacks that the gate was not fitted to stand beside those that it stops, so that no "0.0 %" stands alone.
Every attack but `adaptive` aims at the classifier only.

A camera delivers whole levels, and rounding undoes an attack that stops where the label only just changes. So every
attack sees the network behind that rounding, and goes on to the surest wrong answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from framegate.evaluation.attacks.adaptive import AdaptiveSettings, adaptive_pgd
from framegate.evaluation.attacks.apgd import apgd
from framegate.evaluation.attacks.auto import WITH_TARGETS, AutoSettings, auto_attack
from framegate.evaluation.attacks.l2 import pgd_l2
from framegate.evaluation.attacks.linf import fgsm, pgd
from framegate.evaluation.attacks.loss import LogitsOf
from framegate.evaluation.attacks.patch import PLACES, patch
from framegate.evaluation.attacks.spatial import ANGLES, SHIFTS, spatial
from framegate.evaluation.frames.network import Network
from framegate.evaluation.gate.adaptive import gate_rule
from framegate.evaluation.gate.rules import BATCH, GateInputs, fp32_calibration, observe
from framegate.evaluation.metrics.intervals import share
from framegate.export.calibration.decisions import accepted
from framegate.models.pixels import to_images
from framegate.models.training.batches import Progress
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.certificate import Certifier

LEVELS = (1, 2, 4, 8)
RADII = (0.25, 0.5, 1.0)
SIDES = (3, 5, 8)
TURNS = ((10.0, 1.0), (20.0, 3.0))
"""Degrees, and pixels of a frame 32 pixels wide."""
_WIDTH = 32

_Seen = TypeVar("_Seen")

Attack = Callable[[LogitsOf, Tensor, Tensor], Tensor]
"""(network, pixels, labels) -> attacked pixels."""


@dataclass(frozen=True)
class Attacked:
    """What is attacked, and how it is judged.

    Attributes:
        bundle: Opened, its fp32 network calibrated.
        network: Of the bundle, differentiable.
        calibration: Clean calibration frames, for the adaptive attack's units.
        certifier: Of the same bundle, or None.
        foreign: Another network with the same labels, whose attacked frames are shown to this one; or None.
        seed: Of everything random.
    """

    bundle: Bundle
    network: Network
    calibration: GateInputs
    certifier: Certifier | None = None
    foreign: Network | None = None
    seed: int = 0


def attacks(side: int, seed: int, steps: int = 20) -> Mapping[str, Attack]:
    """Every attack that aims at the classifier, by its name in the table.

    Args:
        side: Shorter side of the frames in pixels; patches and shifts are those of a frame of 32 pixels, enlarged.
        seed: Of everything random.
        steps: Gradient steps of the iterative attacks.
    """
    found: dict[str, Attack] = {}
    for level in LEVELS:
        found[f"FGSM {level}/255"] = lambda f, x, y, e=level / 255: fgsm(f, x, y, e, batch=BATCH).pixels  # type: ignore[misc]
    for level in LEVELS:
        found[f"PGD-{steps} {level}/255"] = lambda f, x, y, e=level / 255: (  # type: ignore[misc]
            pgd(f, x, y, e, steps, batch=BATCH, seed=seed).pixels
        )
    for level in LEVELS:
        found[f"APGD {level}/255"] = lambda f, x, y, e=level / 255: (  # type: ignore[misc]
            apgd(f, x, y, e, loss="margin", steps=steps, keep="best", batch=BATCH, seed=seed).pixels
        )
    for radius in RADII:
        found[f"PGD-{steps} L2 {radius:g}"] = lambda f, x, y, r=radius: (  # type: ignore[misc]
            pgd_l2(f, x, y, r, steps, batch=BATCH, seed=seed).pixels
        )
    for pixels in SIDES:
        size = max(1, round(pixels * side / _WIDTH))
        found[f"patch {size}x{size}"] = lambda f, x, y, s=size: (  # type: ignore[misc]
            patch(f, x, y, s, steps, batch=BATCH, seed=seed).pixels
        )
    for degrees, pixels_moved in TURNS:
        moved = pixels_moved * side / _WIDTH
        found[f"rotation {degrees:g} degrees, shift {moved:g}"] = lambda f, x, y, d=degrees, m=moved: (  # type: ignore[misc]
            spatial(f, x, y, d, m, batch=BATCH).pixels
        )
    return found


def attack_table(
    what: Attacked,
    pixels: Tensor,
    labels: Tensor,
    progress: Progress,
    *,
    steps: int = 20,
    adaptive: int = 60,
    auto: int = 0,
    known: Sequence[dict[str, Any]] = (),
    keep: Callable[[dict[str, Any]], None] = lambda row: None,
) -> list[dict[str, Any]]:
    """The rows of the table.

    Args:
        what: Is attacked.
        pixels: (N, 3, h, w) clean test frames in [0, 1].
        labels: (N,).
        progress: Called before each row, and at the end; counts what has to be computed, not what is known.
        steps: Gradient steps of the iterative attacks.
        adaptive: Frames of the adaptive attack at each size; 0 leaves it out.
        auto: Frames of AutoAttack's set (`framegate.evaluation.attacks.auto`) at 8/255, with its own numbers of steps
            and queries; 0 leaves it out.
        known: Rows of an interrupted run with the same settings, which are not computed again.
        keep: Called with every new row.

    Returns:
        One record a row: ``attack``, ``aims_at``, ``n``, and shares with their 95 % intervals.
    """
    done = {row["attack"]: row for row in known}
    jobs = _jobs(what, pixels, labels, steps, adaptive, auto)
    # Known rows cost nothing; counted as work done, they would make the estimate of the time left far too short.
    todo = {name: job.passes for name, job in jobs.items() if name not in done}
    rows: list[dict[str, Any]] = []
    passed, total = 0, sum(todo.values())
    for name, job in jobs.items():
        if name not in done:
            progress(f"attacks: {name}", passed, total)
            done[name] = {"attack": name, "aims_at": job.aims_at, **judged(what, job.run(), labels[: job.frames])}
            keep(done[name])
            passed += todo[name]
        rows.append(done[name])
    progress("attacks", total, total)
    return rows


def _delivered(seen: Callable[[Tensor], _Seen]) -> Callable[[Tensor], _Seen]:
    """The same of the frames that a camera would deliver: in whole levels, with the gradient as if they were not."""

    def of_whole_levels(pixels: Tensor) -> _Seen:
        whole = pixels.detach().mul(255).round_().div_(255)
        return seen(whole + (pixels - pixels.detach()))

    return of_whole_levels


class _Job(NamedTuple):
    """One row to be computed.

    Attributes:
        aims_at: Whom the attack aims at.
        frames: How many it attacks, the first ones.
        passes: About how often a frame goes through the network, times frames: the row's part of the time.
        run: Computes the attacked frames.
    """

    aims_at: str
    frames: int
    passes: int
    run: Callable[[], Tensor]


def _jobs(what: Attacked, pixels: Tensor, labels: Tensor, steps: int, adaptive: int, auto: int) -> dict[str, _Job]:
    """Name of each row -> what computes it."""
    chosen = attacks(min(pixels.shape[2:]), what.seed, steps)
    network = _delivered(what.network)
    every = len(pixels)
    jobs = {"none": _Job("nothing", every, every, lambda: pixels)}
    for name, attack in chosen.items():
        jobs[name] = _Job("classifier", every, every * _passes(name, steps), partial(attack, network, pixels, labels))
    if what.foreign is not None:
        foreign = _delivered(what.foreign)
        for name, attack in chosen.items():
            if "PGD-" in name and "L2" not in name:
                run = partial(attack, foreign, pixels, labels)
                jobs[f"transfer of {name}"] = _Job("another network", every, every * _passes(name, steps), run)
    few = min(adaptive, every)
    for level in LEVELS if adaptive else ():
        settings = AdaptiveSettings(level / 255, steps)
        passes = few * 3 * settings.restarts * len(settings.names) * steps  # two gradients of one pass
        run = partial(_adaptive, what, pixels[:few], labels[:few], settings)
        jobs[f"adaptive {level}/255"] = _Job("classifier and gate", few, passes, run)
    if auto:
        few, whole = min(auto, every), AutoSettings(8 / 255, WITH_TARGETS, keep="best")
        passes = few * (2 * whole.steps * (len(whole.attacks) + whole.targets) + whole.queries)
        jobs["AutoAttack with APGD-T 8/255"] = _Job(
            "classifier", few, passes, partial(_auto, what, pixels[:few], labels[:few], whole)
        )
    return jobs


def _passes(name: str, steps: int) -> int:
    """About how often an attack shows a frame to the network; a gradient counts as two."""
    if name.startswith("FGSM"):
        return 3
    if name.startswith("rotation"):
        return ANGLES * SHIFTS**2
    return 2 * steps * (PLACES if name.startswith("patch") else 1)


def _adaptive(what: Attacked, pixels: Tensor, labels: Tensor, settings: AdaptiveSettings) -> Tensor:
    aim = gate_rule("promised", what.network, what.bundle.monitor, fp32_calibration(what.bundle), what.calibration)
    observe_delivered = _delivered(aim.observe)
    return adaptive_pgd(observe_delivered, pixels, labels, aim.threshold, settings, batch=BATCH, seed=what.seed).pixels


def _auto(what: Attacked, pixels: Tensor, labels: Tensor, settings: AutoSettings) -> Tensor:
    return auto_attack(_delivered(what.network), pixels, labels, settings, batch=BATCH, seed=what.seed).pixels


def judged(what: Attacked, pixels: Tensor, labels: Tensor) -> dict[str, Any]:
    """Counts of one row; the frames are rounded to whole levels first, as a camera would deliver them."""
    images = to_images(pixels)
    seen = observe(what.network, what.bundle.monitor, _as_pixels(images), labels)
    passed = accepted(seen.outputs, fp32_calibration(what.bundle))
    row: dict[str, Any] = {
        "n": len(seen),
        "wrong": share(seen.wrong).to_json(),
        "wrong_and_accepted": share(seen.wrong & passed).to_json(),
        "accepted": share(passed).to_json(),
    }
    if what.certifier is not None:
        certified = _certified(what.certifier, images, seen.outputs.logits.argmax(1), passed)
        row["wrong_accepted_and_certified"] = share(seen.wrong & certified).to_json()
        row["accepted_and_certified"] = share(certified).to_json()
    return row


def _as_pixels(images: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(images[..., ::-1].copy()).permute(0, 3, 1, 2).float().div_(255)


def _certified(
    certifier: Certifier, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], passed: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Which of the accepted frames are certified, too; only those are asked."""
    found = np.zeros(len(images), bool)
    for k in np.flatnonzero(passed):
        found[k] = not certifier.decide(np.ascontiguousarray(images[k]), int(labels[k]))[1]
    return found


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table for people, shares in percent with their intervals."""
    columns = [("wrong", "wrong"), ("wrong_and_accepted", "wrong and accepted")]
    if any("wrong_accepted_and_certified" in row for row in rows):
        columns.append(("wrong_accepted_and_certified", "wrong, accepted and certified"))
    lines = ["| attack | aims at | frames | " + " | ".join(title for _, title in columns) + " |"]
    lines.append("|---" * (3 + len(columns)) + "|")
    for row in rows:
        cells = [_cell(row.get(key)) for key, _ in columns]
        lines.append(f"| {row['attack']} | {row['aims_at']} | {row['n']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{100 * found['value']:.1f} % [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
