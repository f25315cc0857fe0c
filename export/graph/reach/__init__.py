"""How sure a plain network can be made of a wrong label by any change within the budget of an L-infinity certificate.

What the vehicle computes is the network's margin on the frame that it sees. What that margin can be on an attacked form
of a clean frame is bounded here, when the certificate is proved, with as much time as it takes; the vehicle has none to
spare. The theorem is in docs/certificates.md ("The L-infinity certificate"). Nothing depends on how well a bound is
improved: each that is found holds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from framegate.export.calibration.temperature import Labels
from framegate.export.graph.plain_chain import plain_chain
from framegate.export.graph.reach.branching import closest
from framegate.export.graph.reach.labels import improved, quick
from framegate.export.graph.reach.relaxation import Ball, Chain, Problem
from framegate.runtime.errors import UsageError
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

CASES = 200
"""That `Reach.closest` looks at in one frame."""
_BATCH = 20
_ROUNDING = 1e-6
"""Of inputs, which are float32: the ball of frames is larger by so much of the largest input, and at least by this."""
_SLACK = 1e-6
"""Added at the end, relative and absolute: far more than float64 loses."""


def check_cases(cases: int) -> None:
    """Refuse a number of cases that is none.

    Raises:
        UsageError: It is negative.
    """
    if cases < 0:
        raise UsageError(f"cases {cases}: expected 0 or more")


class Reach:
    """Upper bounds of the margin that a wrong label can be given within the budget, by what any engine computes.

    Args:
        path: The plain network.
        spec: How images become its input.
        levels: Budget of the certificate in whole levels of 255, at the network's input.

    Raises:
        UsageError: The file holds no plain chain of layers.
    """

    def __init__(self, path: Path, spec: PreprocessSpec, levels: int) -> None:
        layers, last = plain_chain(path)
        self._chain = Chain.of(layers.double(), last.double())
        self._prepare = Preprocessor(spec)
        self._levels = levels
        mean, std = (torch.tensor(each, dtype=torch.float64).view(1, -1, 1, 1) for each in (spec.mean, spec.std))
        self._step, self._range = 1 / std, ((0 - mean) / std, (255 - mean) / std)

    def quick(self, images: npt.NDArray[np.uint8], labels: Labels) -> npt.NDArray[np.float64]:
        """Of each frame a bound of the largest margin of a wrong label, over all frames in the ball around it.

        Args:
            images: (N, h, w, 3) uint8 BGR, clean.
            labels: (N,) the true ones.

        Returns:
            (N,); not a number where the network's own output is none.
        """
        return self._batched(images, labels, _BATCH, quick)

    def margins(self, images: npt.NDArray[np.uint8], labels: Labels) -> npt.NDArray[np.float64]:
        """As `quick`, and lower, for a hundred times the work."""
        return self._batched(images, labels, _BATCH, improved)

    def closest(self, images: npt.NDArray[np.uint8], labels: Labels, cases: int = CASES) -> npt.NDArray[np.float64]:
        """As `margins`, and mostly lower, for ten times the work, or more.

        Args:
            images: See `quick`.
            labels: See there.
            cases: Into which a frame is split, at most.

        Raises:
            UsageError: cases is negative.
        """
        check_cases(cases)
        return self._batched(
            images, labels, 1, lambda problem: torch.tensor([closest(problem, cases)], dtype=torch.float64)
        )

    def problem(self, images: npt.NDArray[np.uint8], labels: Labels) -> Problem:
        """What is asked of some frames; see `quick`."""
        # Copies: the preprocessor has one buffer.
        inputs = torch.from_numpy(np.concatenate([self._prepare(image).copy() for image in images])).double()
        return Problem.of(self._chain, inputs, torch.from_numpy(np.asarray(labels, np.int64)), self._ball(inputs))

    def _batched(
        self, images: npt.NDArray[np.uint8], labels: Labels, batch: int, bound: Callable[[Problem], Tensor]
    ) -> npt.NDArray[np.float64]:
        found = np.full(len(images), np.nan)
        with torch.no_grad():
            for first in range(0, len(images), batch):
                rows = slice(first, min(first + batch, len(images)))
                problem = self.problem(images[rows], labels[rows])
                usable = problem.usable()
                if usable.any():
                    least = bound(problem)
                    found[rows] = torch.where(usable, least + _SLACK * (1 + least.abs()), torch.nan).numpy()
        return found

    def _ball(self, inputs: Tensor) -> Ball:
        """All that a camera can deliver instead, and what its rounding to float32 adds."""
        radius = self._levels * self._step
        low, high = torch.maximum(inputs - radius, self._range[0]), torch.minimum(inputs + radius, self._range[1])
        return (low + high) / 2, (high - low) / 2 + _ROUNDING * (1 + inputs.abs().max())
