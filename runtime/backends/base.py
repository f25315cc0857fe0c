"""What every inference engine looks like to the runtime: one protocol, and what CPU engines have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import BackendError
from framegate.runtime.verdict import BGR

if TYPE_CHECKING:
    from framegate.runtime.preprocess import PreprocessSpec
    from framegate.runtime.scores import FrameScores, Tensor
    from framegate.runtime.verdict import Image


ALL_ROWS = sys.maxsize
"""As the end of rows: however many there are."""


class PixelMaps(NamedTuple):
    """What an engine itself says about every pixel of a dense network's output, valid until its next call.

    Attributes:
        labels: (H, W) uint8, the largest logit's number.
        entropy: (H, W) float32, nats.
        max_probability: (H, W) float32.
        margin: (H, W) float32, largest minus second largest probability.
        energy: (H, W) float32, -T logsumexp(x / T).
    """

    labels: npt.NDArray[np.uint8]
    entropy: Tensor
    max_probability: Tensor
    margin: Tensor
    energy: Tensor


class Backend(Protocol):
    """An engine with one loaded model, bound to one input. Not thread-safe.

    `start` and `finish` are two calls because a GPU computes by itself: what is done between them costs no time.

    Attributes:
        name: The backend's name, e.g. ``openvino``.
        engine: Library and version, e.g. ``openvino 2026.4.1``.
    """

    name: str
    engine: str

    @property
    def classes(self) -> int:
        """Number of logits per image."""

    @property
    def takes_frames(self) -> bool:
        """Whether `bind_frames` works: the camera's pixels go to the engine as they are."""

    @property
    def fault(self) -> str:
        """Why it computes nothing any more; empty while nothing is wrong."""

    @property
    def pooled(self) -> Tensor | None:
        """Second output of a network with a monitor, (N, F) float32, of the last call.

        None without one, and before `bind`.
        """

    @property
    def scores(self) -> FrameScores | None:
        """Scores of the last call if the engine computes them itself (`bind_frames`), else None."""

    def bind(self, tensor: Tensor) -> None:
        """Use this C-contiguous float32 array as input of every later call, without copying if possible.

        Its shape is (N, channels, height, width), or (N, 1, depth, height, width) for volumes.

        Raises:
            BackendError: The model does not take this shape.
        """

    @property
    def maps(self) -> PixelMaps | None:
        """What the engine computed about every pixel in the last call (`bind_dense`); None if it computes no scores."""

    def bind_dense(self, tensor: Tensor, temperature: float) -> None:
        """`bind` for a dense network, whose pixels' scores the engine computes itself where it can.

        Args:
            tensor: See `bind`; one image.
            temperature: The logits of a pixel are divided by it.

        Raises:
            BackendError: The model does not take this shape.
        """

    def bind_frames(
        self,
        spec: PreprocessSpec,
        width: int,
        height: int,
        temperature: float,
        pixel_format: str = BGR,
    ) -> None:
        """Take camera frames of one size from now on: preprocessing and scores are the engine's own work.

        Args:
            spec: How the bundle wants its input.
            width: Of the frames, in pixels.
            height: Of the frames, in pixels.
            temperature: Of the calibration.
            pixel_format: BGR for (height, width, 3) uint8 frames, NV12 for (height * 3/2, width) uint8 ones, whose
                width and height are even.

        Raises:
            BackendError: It cannot do what the bundle asks for, or `takes_frames` is False.
        """

    def start(self, frame: Image | None = None) -> None:
        """Start on the bound array, or on this frame after `bind_frames`.

        Raises:
            BackendError: The engine failed.
        """

    def start_filled(self, fill: Callable[[int, int], object]) -> None:
        """Fill the bound array, a batch, and start; an engine may start on the first rows while others are filled.

        Args:
            fill: Fills the rows from its first number up to, and without, its second. It is called for all of them, in
                order, and what it raises is raised.

        Raises:
            BackendError: The engine failed.
        """

    def finish(self) -> Tensor:
        """Wait for what was started: logits (N, classes) float32, valid until the next call.

        Those of a dense network are (1, classes, H, W).

        Raises:
            BackendError: The engine failed.
        """

    def share(self) -> Backend:
        """An engine for another stream over the same weights where the library can, to be bound anew.

        Raises:
            BackendError: It cannot be opened once more.
        """

    def reinitialise(self) -> None:
        """Start again after a `fault`.

        Raises:
            BackendError: It did not work; the backend stays as it is.
        """

    def close(self) -> None:
        """Give back what it holds of a GPU. May be called twice."""


class CpuBackend:
    """What engines on the CPU have in common: they compute in `finish`, on arrays, and have no fault that stays."""

    name: str
    engine: str
    takes_frames = False
    fault = ""
    scores: FrameScores | None = None
    maps: PixelMaps | None = None

    def bind(self, tensor: Tensor) -> None:
        """See `Backend.bind`."""
        raise NotImplementedError

    def bind_dense(self, tensor: Tensor, temperature: float) -> None:
        """See `Backend.bind_dense`: a CPU gives logits only."""
        del temperature
        self.bind(tensor)

    def bind_frames(
        self,
        spec: PreprocessSpec,
        width: int,
        height: int,
        temperature: float,
        pixel_format: str = BGR,
    ) -> None:
        """See `Backend.bind_frames`: always refused."""
        del spec, width, height, temperature, pixel_format
        raise BackendError(f"{self.engine} runs on the CPU; it takes tensors, not camera frames")

    def start(self, frame: Image | None = None) -> None:
        """See `Backend.start`: a CPU computes when it is waited for."""
        del frame
        self._forget_started()

    def _forget_started(self) -> None:
        """Forget what `start_filled` started and nobody finished (Ctrl-C), where it computes by itself."""

    def start_filled(self, fill: Callable[[int, int], object]) -> None:
        """See `Backend.start_filled`: it starts when all are filled."""
        fill(0, ALL_ROWS)
        self.start()

    def reinitialise(self) -> None:
        """See `Backend.reinitialise`: always refused, since there is no fault to recover from."""
        raise BackendError(f"{self.engine} has nothing to start again")

    def close(self) -> None:
        """See `Backend.close`: it holds nothing that does not go with it."""


def infer(backend: Backend) -> Tensor:
    """Logits of the bound array, (N, classes) float32, valid until the next call.

    Raises:
        BackendError: The engine failed.
    """
    backend.start()
    return backend.finish()
