"""Our kernel inside the engine, compiled ahead of time: TensorRT 10.9 and later, through its package ``plugin``.

TensorRT calls `_launch` once while it builds, gets PTX, grid, block and the integers among the parameters, and keeps
them in the plan. The engine then needs no Python and no registered plugin: any process that opens it can run it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from framegate.cuda_kernels.softmax_entropy.plugin_launch import INPUTS, OUTPUTS, plan_plugin
from framegate.runtime.backends.tensorrt.library import TensorRt
from framegate.runtime.backends.tensorrt.plugin import NAME, NAMESPACE, VERSION, plugin_registry
from framegate.runtime.errors import BackendError


class AheadOfTime:
    """The plugin's definition in one flavour's package; a process can make it once.

    Attributes:
        ptx: What the next build puts into its engine.
        creator: What the registry holds while the plugin is wanted.
    """

    def __init__(self, package: Any) -> None:
        self.ptx = b""
        self.creator: Any = None
        self._package = package
        identity = f"{NAMESPACE}::{NAME}"
        description = package.TensorDesc
        four: Any = tuple.__class_getitem__((description,) * len(OUTPUTS))

        # The package reads names, order and annotations of these functions. The annotations are set and not written,
        # because its classes are known only now.
        def describe(logits: Any, temperature: Any) -> Any:
            return self._outputs(logits)

        def launch(logits: Any, temperature: Any, outputs: Any, tactic: Any) -> Any:
            return self._launch(logits)

        inputs = dict.fromkeys(INPUTS, description)
        describe.__annotations__ = {**inputs, "return": four}
        result = tuple[str, bytes, package.KernelLaunchParams, package.SymExprs]
        launch.__annotations__ = {**inputs, "outputs": four, "tactic": int, "return": result}
        package.register(identity)(describe)
        package.aot_impl(identity)(launch)

    def _outputs(self, logits: Any) -> tuple[Any, ...]:
        """Shapes and types of `OUTPUTS`: [N, C] like the logits, and three times [N, 1]."""
        rows = logits.shape_expr[0]
        if rows.is_fake:
            # Asked for types alone. A constant made now would be made by the builder of a call that is over.
            return tuple(logits.like() for _ in OUTPUTS)
        single = [self._package.from_shape_expr((rows, 1), logits.dtype) for _ in OUTPUTS[1:]]
        return (logits.like(), *single)

    def _launch(self, logits: Any) -> tuple[str, bytes, Any, Any]:
        """Name, PTX, grid and block for any number of rows, and the integers among the parameters."""
        package = self._package
        rows, classes = logits.shape_expr
        if not classes.is_constant:
            raise ValueError(f"{NAMESPACE}::{NAME}: the number of classes is not fixed in the network")
        plan = plan_plugin(int(classes.constant_value()))
        launch = package.KernelLaunchParams()
        launch.grid_x = package.cdiv(rows, plan.rows_per_block)
        launch.block_x = plan.threads
        integers = package.SymIntExprs(2)
        integers[0], integers[1] = package.SymInt32(rows), package.SymInt32(plan.classes)
        return plan.kernel, self.ptx, launch, integers


_defined: dict[str, AheadOfTime] = {}  # by module


@contextmanager
def ahead_of_time_plugin(trt: TensorRt, package: Any, ptx: bytes) -> Iterator[None]:
    """Keep the plugin registered, with this PTX, as long as the block runs.

    Raises:
        BackendError: The registry does not take it.
    """
    registry = plugin_registry(trt)
    flavour = trt.module.__name__
    known = _defined.get(flavour)
    if known is None:
        if registry.get_creator(NAME, VERSION, NAMESPACE) is not None:
            raise BackendError(f"another plugin {NAMESPACE}::{NAME} is registered in {trt.engine} of this process")
        known = _defined[flavour] = AheadOfTime(package)  # which registers it
        known.creator = registry.get_creator(NAME, VERSION, NAMESPACE)
        taken = known.creator is not None
    else:
        taken = registry.register_creator(known.creator, NAMESPACE)
    if not taken:
        raise BackendError(f"{trt.engine} did not register the plugin {NAMESPACE}::{NAME}")
    known.ptx = ptx
    try:
        yield
    finally:
        known.ptx = b""
        registry.deregister_creator(known.creator)
