"""The kernels of one CUDA source on one GPU: loaded once, launched from a plan.

Plans come from the module ``launch`` beside each source. They refuse wrong types, sizes, shapes and addresses before
any launch, so what arrives here has been checked.

    kernels = Kernels(gpu, "softmax_entropy")
    kernels.run(plan_rows(logits, "f16", 1, 1000, {"entropy": out}), stream)
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from framegate.cuda_kernels.compile.images import load_image
from framegate.cuda_kernels.compile.sources import FOLDER
from framegate.cuda_kernels.driver.checks import Argument, Dimensions
from framegate.cuda_kernels.driver.open import Driver


class LaunchPlan(Protocol):
    """All that a launch needs; `softmax_entropy.launch.Launch` is one."""

    @property
    def kernel(self) -> str:
        """Its name in the source."""

    @property
    def grid(self) -> Dimensions:
        """Blocks in x, y, z."""

    @property
    def block(self) -> Dimensions:
        """Threads in x, y, z."""

    @property
    def parameters(self) -> ctypes.Structure:
        """The kernel's one parameter, passed by value."""


class Kernels:
    """A loaded module and the kernels that were asked of it. It lives as long as its driver is open."""

    def __init__(self, driver: Driver, source: str, folder: Path = FOLDER) -> None:
        """Load a source's machine code for the driver's GPU.

        Args:
            driver: an open GPU.
            source: its name, see `kernel_sources`.
            folder: where the folders with the sources and fat binaries are.

        Raises:
            CompilerError: no machine code fits this GPU and driver, and none can be compiled here.
            CudaError: the driver refuses to load it.
        """
        self._driver = driver
        image = load_image(source, driver.info.architecture, driver.info.driver_version, folder)
        self._module = driver.load_module(image)
        self._functions: dict[str, int] = {}

    def run(self, plan: LaunchPlan, stream: int) -> None:
        """Enqueue a planned launch."""
        self.launch(plan.kernel, plan.grid, plan.block, plan.parameters, stream)

    def launch(
        self,
        kernel: str,
        grid: Dimensions,
        block: Dimensions,
        parameters: ctypes.Structure,
        stream: int,
    ) -> None:
        """Enqueue a kernel of this source.

        Raises:
            CudaError: no such kernel, or the launch was refused.
        """
        self.call(kernel, grid, block, [parameters], stream)

    def call(
        self,
        kernel: str,
        grid: Dimensions,
        block: Dimensions,
        arguments: Sequence[Argument],
        stream: int,
    ) -> None:
        """Enqueue a kernel of several parameters; arguments are ctypes values of exactly their types.

        Raises:
            CudaError: no such kernel, or the launch was refused.
        """
        function = self._functions.get(kernel)
        if function is None:
            function = self._functions[kernel] = self._driver.get_function(self._module, kernel)
        self._driver.launch(function, grid, block, arguments, stream)
