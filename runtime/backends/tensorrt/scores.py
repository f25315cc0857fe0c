"""Where a frame's scores come from on a GPU: our kernel behind the engine, or outputs of the engine itself.

An array of several images, and a dense network's map, leave their numbers as they are (`PlainLogits`), a map of few
enough labels with the scores of every pixel beside them (`DenseKernel`).

The kernel is the default: it works on every TensorRT and writes one self-checking record. ``framegate engine --scores
plugin`` and ``--scores function`` make engines that output the scores; `EngineOutputs` reads those, and nothing of ours
runs behind such an engine. Both give the same `Record`; what does not fit together has argmax -1 and NaN scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from framegate.cuda_kernels.driver.open import Driver, HostMemory
from framegate.cuda_kernels.kernels import Kernels
from framegate.cuda_kernels.softmax_entropy.launch import RECORD_BYTES, Record, plan_dense, plan_rows, read_record
from framegate.cuda_kernels.softmax_entropy.plugin_launch import OUTPUTS

KERNEL, PLUGIN, FUNCTION = "kernel", "plugin", "function"
WAYS = (KERNEL, PLUGIN, FUNCTION)
"""Who computes the scores: our kernel behind the engine, our kernel inside it, or the engine's own layers."""

SCORES = OUTPUTS
"""Outputs of an engine that computes them itself: float32 (N, C) and three times (N, 1), entropy in nats."""

TEMPERATURE = "temperature"
"""Input of such an engine, float32 (1): calibration comes after the build, so it cannot be a constant inside."""

_SEQUENCE = 32  # where the sequence number lies in a record's memory
_LOGITS = 64  # and the logits
_ALIGNMENT = 256  # what TensorRT asks of an address
_MARK = 0xFFFFFFFF  # a NaN that no GPU makes: theirs is 0x7FFFFFFF
_TOLERANCE = 1e-3  # of probabilities, far above rounding and far below a wrong frame's


class ScoreSource(Protocol):
    """The last part of a frame's way on the GPU, and how the host reads it.

    Attributes:
        result_bytes: Size of the host memory that a slot needs for its results.
    """

    result_bytes: int

    def logits_of(self, result: HostMemory) -> npt.NDArray[np.float32]:
        """The float32 view of the logits in a slot's result memory, one behind the other."""

    def mark(self, result: HostMemory, number: int) -> None:
        """Make sure that what is there now is not taken for the results of submission ``number``."""

    def enqueue(self, result: HostMemory, stream: int) -> None:
        """Give the stream everything that comes behind the engine.

        Raises:
            CudaError: The driver refuses.
        """

    def read(self, result: HostMemory, number: int) -> Record | None:
        """The scores of submission ``number``; None if they are not there, or torn."""


class KernelRecord:
    """Our kernel as the next node behind the engine, a 32-byte record and the logits in mapped memory."""

    def __init__(self, gpu: Driver, logits: int, classes: int, temperature: float) -> None:
        """Load the kernel.

        Args:
            gpu: The open GPU.
            logits: Device address of the engine's output, (1, classes) float32.
            classes: How many logits.
            temperature: Of the calibration.
        """
        self._logits, self._classes, self._temperature = logits, classes, temperature
        self._kernels = Kernels(gpu, "softmax_entropy")
        self.result_bytes = _LOGITS + 4 * classes

    def logits_of(self, result: HostMemory) -> npt.NDArray[np.float32]:
        """See `ScoreSource.logits_of`."""
        return result.array[_LOGITS:].view(np.float32)

    def mark(self, result: HostMemory, number: int) -> None:
        """See `ScoreSource.mark`: the kernel copies the number into the record."""
        result.array[_SEQUENCE : _SEQUENCE + 4].view(np.uint32)[0] = number

    def enqueue(self, result: HostMemory, stream: int) -> None:
        """See `ScoreSource.enqueue`."""
        where = result.device_pointer
        # The logits come along: the kernel takes -inf for a mask; from a network it is a fault, which only they show.
        outputs = {"records": where, "sequence": where + _SEQUENCE, "copy": where + _LOGITS}
        plan = plan_rows(self._logits, "f32", 1, self._classes, outputs, self._temperature)
        self._kernels.run(plan, stream)

    def read(self, result: HostMemory, number: int) -> Record | None:
        """See `ScoreSource.read`."""
        return read_record(result.array[:RECORD_BYTES].tobytes(), number)


class EngineOutputs:
    """Logits and scores that the engine itself writes: one block of device memory, one copy to the host."""

    def __init__(self, gpu: Driver, logits: str, classes: int) -> None:
        """Lay out and allocate the block.

        Args:
            gpu: The open GPU.
            logits: Name of that output.
            classes: How many logits.
        """
        self._gpu, self._classes = gpu, classes
        self._counts = {logits: classes, SCORES[0]: classes} | dict.fromkeys(SCORES[1:], 1)
        self._names = (logits, *SCORES)
        self._offsets: dict[str, int] = {}
        end = 0
        for name in self._names:
            self._offsets[name] = end
            end += -(-4 * self._counts[name] // _ALIGNMENT) * _ALIGNMENT
        self.result_bytes = end
        self._block = gpu.allocate(end)
        words = [self._offsets[name] // 4 + np.arange(self._counts[name]) for name in self._names]
        self._written = np.concatenate(words)  # where in the block's words there is something

    @property
    def addresses(self) -> Mapping[str, int]:
        """Output name -> device address, for the engine."""
        return {name: self._block + offset for name, offset in self._offsets.items()}

    def logits_of(self, result: HostMemory) -> npt.NDArray[np.float32]:
        """See `ScoreSource.logits_of`."""
        return result.array[: 4 * self._classes].view(np.float32)

    def mark(self, result: HostMemory, number: int) -> None:
        """See `ScoreSource.mark`: every word becomes a NaN that no computation leaves behind."""
        del number
        result.array[:].view(np.uint32)[...] = _MARK

    def enqueue(self, result: HostMemory, stream: int) -> None:
        """See `ScoreSource.enqueue`."""
        self._gpu.copy_to_host(result.array, self._block, stream)

    def read(self, result: HostMemory, number: int) -> Record | None:
        """See `ScoreSource.read`. The scores must also fit to each other, or the record has no argmax."""
        values = result.array.view(np.float32)[self._written]  # one copy, then judged
        classes, nan = self._classes, math.nan
        invalid = Record(number, -1, nan, nan, nan, nan)
        if not np.isfinite(values).all():
            return None if (values.view(np.uint32) == _MARK).any() else invalid
        best = int(values[:classes].argmax())
        probabilities = values[classes : 2 * classes]
        largest, entropy, margin, energy = map(float, (probabilities[best], *values[2 * classes :]))
        if abs(float(probabilities.sum()) - 1) > _TOLERANCE or float(probabilities.max()) - largest > _TOLERANCE:
            return invalid
        # Layers of an engine clamp nothing; rounding may leave the range by an ulp.
        entropy = min(max(entropy, 0.0), math.log(classes))
        return Record(number, best, entropy, largest, margin, energy)


class PlainLogits:
    """The engine's logits alone, of any number of images: one copy to the host."""

    def __init__(self, gpu: Driver, logits: int, count: int) -> None:
        """Remember where they lie.

        Args:
            gpu: The open GPU.
            logits: Device address of the engine's output, float32.
            count: How many values.
        """
        self._gpu, self._logits, self._count = gpu, logits, count
        self._marked = count  # words that must have been written
        self.result_bytes = 4 * count

    def logits_of(self, result: HostMemory) -> npt.NDArray[np.float32]:
        """See `ScoreSource.logits_of`."""
        return result.array[: 4 * self._count].view(np.float32)

    def mark(self, result: HostMemory, number: int) -> None:
        """See `ScoreSource.mark`: every word becomes a NaN that no computation leaves behind."""
        del number
        result.array.view(np.uint32).fill(_MARK)

    def enqueue(self, result: HostMemory, stream: int) -> None:
        """See `ScoreSource.enqueue`."""
        self._gpu.copy_to_host(self.logits_of(result), self._logits, stream)

    def read(self, result: HostMemory, number: int) -> Record | None:
        """See `ScoreSource.read`: there are no scores, but the logits must all be there."""
        if (result.array.view(np.uint32)[: self._marked] == _MARK).any():
            return None
        return Record(number, -1, *(math.nan,) * 4)


class DenseKernel(PlainLogits):
    """Our kernel behind a dense network: the scores and the label of every pixel, copied to the host with the logits.

    A bundle's known answers, and whether the engine repeats itself, are judged by the logits: so they travel, too.

    Attributes:
        names: Of the maps, in the order in which they lie in the result memory behind the logits.
    """

    names = ("entropy", "max_probability", "margin", "energy")

    def __init__(self, gpu: Driver, logits: int, shape: tuple[int, int, int], temperature: float) -> None:
        """Load the kernel and allocate the maps.

        Args:
            gpu: The open GPU.
            logits: Device address of the engine's output, (1, C, H, W) float32.
            shape: C, H, W.
            temperature: The logits of a pixel are divided by it.

        Raises:
            ValueError: The kernel cannot take so many labels, see `LARGEST_CHANNELS`.
        """
        channels, height, width = shape
        super().__init__(gpu, logits, channels * height * width)
        self._pixels = pixels = height * width
        self._map_shape = height, width
        kernels = Kernels(gpu, "softmax_entropy")
        # One block, the maps of four bytes before the labels of one, so that all are aligned.
        self._block_bytes = (4 * len(self.names) + 1) * pixels
        self._block = gpu.allocate(self._block_bytes)
        self._plan = plan_dense(logits, "f32", 1, channels, pixels, self._addresses(self._block), temperature)
        self._kernels = kernels
        self._marked += len(self.names) * pixels  # labels come with them; four that are none look like the mark
        self.result_bytes = 4 * (self._count + -(-self._block_bytes // 4))

    def _addresses(self, block: int) -> dict[str, int]:
        """Output of the kernel -> device address."""
        places = {name: block + 4 * k * self._pixels for k, name in enumerate(self.names)}
        return {**places, "argmax": block + 4 * len(self.names) * self._pixels}

    def enqueue(self, result: HostMemory, stream: int) -> None:
        """See `ScoreSource.enqueue`."""
        self._kernels.run(self._plan, stream)
        super().enqueue(result, stream)
        first = 4 * self._count
        self._gpu.copy_to_host(result.array[first : first + self._block_bytes], self._block, stream)

    def maps_of(self, result: HostMemory) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[np.float32]]]:
        """Views of a slot's result memory: (H, W) labels, and score -> (H, W).

        As the kernel gives them: ``max_probability`` and ``margin`` are not turned yet, and -inf is a mask.
        """
        first, nbytes = 4 * self._count, 4 * self._pixels
        maps = {
            name: result.array[first + k * nbytes : first + (k + 1) * nbytes].view(np.float32).reshape(self._map_shape)
            for k, name in enumerate(self.names)
        }
        labels = result.array[first + len(self.names) * nbytes :][: self._pixels].reshape(self._map_shape)
        return labels, maps
