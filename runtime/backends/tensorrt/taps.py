"""Activation entropy of an engine's taps, computed behind the engine on the same stream: one float32 a tap.

A tap is an output beside the logits (``framegate onnx --taps`` writes them). What arrives is the mass entropy of
`framegate.cuda_kernels.activation_entropy.reference`, which needs no calibrated edges. It lies in mapped host memory:
reading it costs no call of the driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from framegate.cuda_kernels.activation_entropy.launch import plan_activation_entropy, workspace_bytes
from framegate.cuda_kernels.driver.open import Driver, HostMemory
from framegate.cuda_kernels.kernels import Kernels
from framegate.runtime.errors import BackendError

SCORE_OUTPUTS = frozenset(("probabilities", "entropy", "margin", "energy", "max_probability"))
"""Outputs that are scores of the logits (``framegate onnx --scores``), hence no taps."""
TYPES = {"FLOAT": "f32", "HALF": "f16", "BF16": "bf16"}
"""TensorRT's name of a type -> the kernel's."""


@dataclass(frozen=True)
class Tap:
    """One output of the engine.

    Attributes:
        address: Device address.
        type: TensorRT's name of its element type.
        elements: Elements of one frame.
    """

    address: int
    type: str
    elements: int


class TapEntropies:
    """Launches one kernel for each tap.

    Attributes:
        names: The taps, in the order of the results.
        host_bytes: Size of the host memory that one frame's results need.
    """

    def __init__(self, gpu: Driver, stream: int, taps: Mapping[str, Tap]) -> None:
        """Load the kernel and prepare its memory.

        Raises:
            BackendError: A tap is of a type or size that the kernel does not take.
            CudaError: Out of memory.
            CompilerError: The kernel cannot be had for this GPU.
        """
        self.names, self.host_bytes = tuple(taps), 4 * len(taps)
        self._kernels = Kernels(gpu, "activation_entropy")
        self._taps = taps
        # The kernel counts a histogram, too. Nobody reads it, so one edge at zero is enough.
        edges = gpu.allocate_host(4)
        edges.array[:] = 0
        self._edges, self._unread = edges.device_pointer, gpu.allocate(4)
        self._workspaces = {}
        for name, tap in taps.items():
            try:
                size = workspace_bytes(TYPES.get(tap.type, tap.type), 1, tap.elements, 1).total
            except ValueError as error:
                raise BackendError(f"tap {name}: {error}") from error
            self._workspaces[name] = gpu.allocate(size)
            gpu.copy_to_device(self._workspaces[name], np.zeros(size, np.uint8), stream)
            gpu.synchronize(stream)  # the zeros must live until they have been read

    def enqueue(self, results: HostMemory, stream: int) -> None:
        """Enqueue the kernels; ``results`` receives (taps,) float32."""
        for k, (name, tap) in enumerate(self._taps.items()):
            plan = plan_activation_entropy(
                tap.address,
                TYPES[tap.type],
                frames=1,
                elements=tap.elements,
                edges=self._edges,
                edge_count=1,
                workspace=self._workspaces[name],
                histogram_entropy=self._unread,
                mass_entropy=results.device_pointer + 4 * k,
            )
            self._kernels.run(plan, stream)

    def read(self, results: HostMemory) -> dict[str, float]:
        """Tap -> entropy in nats in [0, log(elements)]; NaN if it has NaN or inf, or nothing but zeros."""
        return dict(zip(self.names, results.array.view(np.float32).tolist(), strict=True))
