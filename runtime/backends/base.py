"""What every inference engine looks like to the runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from framegate.runtime.verdict import BGR

if TYPE_CHECKING:
    from framegate.runtime.preprocess import PreprocessSpec
    from framegate.runtime.scores import FrameScores, Tensor
    from framegate.runtime.verdict import Image


class Backend(Protocol):
    """An engine with one loaded model, bound to one input array.

    Attributes:
        name: The backend's name, e.g. ``openvino``.
        engine: Library and version, e.g. ``openvino 2026.4.1``.
        classes: Number of logits per image.
        pooled: (N, F) float32 second output of a network with a monitor, of the last call; None without one, and
            before `bind`.
    """

    name: str
    engine: str
    classes: int
    pooled: Tensor | None

    def bind(self, tensor: Tensor) -> None:
        """Use this C-contiguous float32 array as input of every later call, without copying if possible.

        Its shape is (N, channels, height, width), or (N, 1, depth, height, width) for volumes.

        Raises:
            BackendError: The model does not take this shape.
        """

    def infer(self) -> Tensor:
        """Run the model on the bound array: logits (N, classes) float32, valid until the next call.

        Raises:
            BackendError: The engine failed.
        """


@runtime_checkable
class RecoverableBackend(Protocol):
    """A backend that may fail for good and can be started again.

    Attributes:
        fault: Why it computes nothing any more; empty while all is well.
    """

    fault: str

    def reinitialise(self) -> None:
        """Start again.

        Raises:
            BackendError: It did not work; the backend stays as it is.
        """


@runtime_checkable
class StartedBackend(Protocol):
    """A backend whose `Backend.infer` can be had in two steps, because a GPU computes by itself."""

    def start(self) -> None:
        """Start on the bound array.

        Raises:
            BackendError: The engine failed.
        """

    def finish(self) -> Tensor:
        """Wait for what was started: logits as from `Backend.infer`.

        Raises:
            BackendError: The engine failed.
        """


@runtime_checkable
class FrameBackend(Protocol):
    """A backend that can take the camera's pixels: preprocessing and scores are its own work."""

    def bind_frames(
        self,
        spec: PreprocessSpec,
        width: int,
        height: int,
        temperature: float,
        threshold: float,
        pixel_format: str = BGR,
    ) -> None:
        """Take (height, width, 3) uint8 BGR frames, or (height * 3/2, width) uint8 NV12 ones, from now on.

        Raises:
            BackendError: It cannot do what the bundle asks for.
        """

    def submit(self, frame: Image) -> None:
        """Start one frame.

        Raises:
            BackendError: The engine failed.
        """

    def result(self) -> FrameScores:
        """Wait for the submitted frame.

        Raises:
            BackendError: The engine failed.
        """
