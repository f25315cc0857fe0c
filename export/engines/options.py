"""What may be asked of an engine build, and what that means on each flavour of TensorRT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from framegate.cuda_kernels.driver.open import DeviceInfo
from framegate.runtime.backends.tensorrt.library import TensorRt
from framegate.runtime.backends.tensorrt.scores import KERNEL, WAYS
from framegate.runtime.backends.tensorrt.store import AMPERE, device_target
from framegate.runtime.errors import BackendError, UsageError

THIS_GPU = "this-gpu"


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build; they are stored in the engine's header, and a change rebuilds.

    Attributes:
        level: Builder optimisation level, 0 (quick build) to 5 (searches longest).
        workspace_mib: Most scratch memory a layer may use, in MiB; None leaves it to TensorRT.
        max_batch: Largest batch of the optimisation profile; it is tuned for one image. 16 are the objects of a frame.
        dla_core: DLA core that takes the layers it can, the GPU takes the rest; None for the GPU alone.
        scores: Who computes the scores, one of `framegate.runtime.backends.tensorrt.scores.WAYS`.
    """

    level: int = 3
    workspace_mib: int | None = None
    max_batch: int = 16
    dla_core: int | None = None
    scores: str = KERNEL

    def __post_init__(self) -> None:
        """Refuse values that TensorRT would answer with a number only.

        Raises:
            UsageError: A value is outside its range.
        """
        if not 0 <= self.level <= 5:
            raise UsageError(f"level is {self.level}; expected 0 (quick build) to 5 (longest search)")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UsageError(f"workspace is {self.workspace_mib} MiB; expected at least 1")
        if not 1 <= self.max_batch <= 1024:
            raise UsageError(f"max batch is {self.max_batch}; expected 1 to 1024")
        if self.dla_core is not None and self.dla_core < 0:
            raise UsageError(f"DLA core is {self.dla_core}; cores are counted from 0")
        if self.scores not in WAYS:
            raise UsageError(f"scores by {self.scores!r} were asked for; known are {', '.join(WAYS)}")


def resolve_target(trt: TensorRt, wanted: str | None, info: DeviceInfo | None) -> str:
    """Turn the wanted target into the one an engine is keyed by; see `framegate.runtime.backends.tensorrt.store`.

    Args:
        trt: The flavour that builds.
        wanted: ``this-gpu``, ``sm_NN`` or ``ampere-and-newer``; None: this GPU, or without one what TensorRT-RTX
            builds for all GPUs since Ampere.
        info: This machine's GPU, None if it has none.

    Raises:
        UsageError: The target is unknown.
        BackendError: This flavour, or a machine without a GPU, cannot build for it.
    """
    if info is None and not trt.rtx:
        raise BackendError(
            f"{trt.engine} builds on the GPU that will run the engine, and this machine has none (framegate doctor "
            "says why); TensorRT-RTX builds without: --backend tensorrt-rtx"
        )
    wanted = wanted or (THIS_GPU if info is not None else AMPERE)
    if wanted == AMPERE:
        return AMPERE
    if wanted == THIS_GPU:
        if info is None:
            raise BackendError(f"target {THIS_GPU} was asked for, and this machine has no GPU; give sm_NN or {AMPERE}")
        return device_target(info)
    if not (wanted.startswith("sm_") and wanted[3:].isdigit()):
        raise UsageError(f"target {wanted!r} was asked for; known are {THIS_GPU}, {AMPERE} and sm_NN, e.g. sm_89")
    if trt.rtx:
        if int(wanted[3:]) not in trt.compute_capabilities():
            known = ", ".join(f"sm_{number}" for number in trt.compute_capabilities())
            raise BackendError(f"target {wanted} was asked for, {trt.engine} builds ahead of time for {known}")
    elif info is not None and wanted != f"sm_{info.architecture}":
        raise BackendError(f"target {wanted} was asked for, {trt.engine} builds here for sm_{info.architecture} only")
    elif not trt.has("HardwareCompatibilityLevel", "SAME_COMPUTE_CAPABILITY"):
        raise BackendError(f"target {wanted} was asked for, {trt.engine} can build for {THIS_GPU} and {AMPERE} only")
    return wanted


def configure(trt: TensorRt, builder: Any, config: Any, options: BuildOptions, target: str) -> None:
    """Put options and target into an IBuilderConfig.

    Raises:
        BackendError: A DLA core that this machine does not have was asked for.
    """
    # TF32 rounds the inputs of float32 products to 10 bits of mantissa: a calibrated threshold would not carry over.
    config.clear_flag(trt.module.BuilderFlag.TF32)
    config.profiling_verbosity = trt.module.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = options.level
    # One stream: auxiliary ones buy throughput with events between streams, and one small image has no use for that.
    config.max_aux_streams = 0
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.module.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if trt.has("BuilderFlag", "REQUIRE_USER_ALLOCATION"):
        # TensorRT-RTX may otherwise allocate while running, and what allocates cannot be captured into a graph.
        config.set_flag(trt.module.BuilderFlag.REQUIRE_USER_ALLOCATION)
    if options.dla_core is not None:
        _use_dla(trt, builder, config, options.dla_core)
    if trt.has("IBuilderConfig", "set_compute_capability"):
        _set_capabilities(trt, config, target)
    else:
        levels = trt.module.HardwareCompatibilityLevel
        same = target.startswith("sm_")
        chosen = levels.AMPERE_PLUS if target == AMPERE else levels.NONE
        config.hardware_compatibility_level = levels.SAME_COMPUTE_CAPABILITY if same else chosen


def _set_capabilities(trt: TensorRt, config: Any, target: str) -> None:
    kind = trt.module.ComputeCapability
    if target == AMPERE:
        # Turing cannot share an engine with its successors: its matrix units lack float32.
        chosen = [getattr(kind, f"SM{number}") for number in trt.compute_capabilities() if number >= 80]
    elif target.startswith("sm_"):
        chosen = [getattr(kind, f"SM{target[3:]}")]
    else:
        chosen = [kind.CURRENT]
    config.num_compute_capabilities = len(chosen)
    for index, capability in enumerate(chosen):
        config.set_compute_capability(capability, index)


def _use_dla(trt: TensorRt, builder: Any, config: Any, core: int) -> None:
    cores = int(builder.num_DLA_cores)
    if core >= cores:
        raise BackendError(f"DLA core {core} was asked for, {trt.engine} finds {cores} on this machine")
    config.default_device_type = trt.module.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.module.BuilderFlag.GPU_FALLBACK)
