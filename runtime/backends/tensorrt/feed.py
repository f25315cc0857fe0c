"""How a slot's input reaches the engine: a finished tensor is copied, a camera frame goes through the kernel.

Boards on which CPU and GPU share their memory (Jetson) copy nothing: engine or kernel read the pinned memory.
"""

from __future__ import annotations

from framegate.cuda_kernels.camera_preprocess.launch import PreprocessPlan, plan_preprocess
from framegate.cuda_kernels.camera_preprocess.reference import Normalisation
from framegate.cuda_kernels.driver.open import Driver
from framegate.cuda_kernels.kernels import Kernels
from framegate.runtime.backends.tensorrt.engine import OpenedEngine
from framegate.runtime.backends.tensorrt.graph import Feed, Slot
from framegate.runtime.errors import BackendError
from framegate.runtime.preprocess import PreprocessSpec
from framegate.runtime.verdict import BGR


def plan_frame(spec: PreprocessSpec, width: int, height: int, pixel_format: str = BGR) -> PreprocessPlan:
    """Plan the preprocessing of a BGR or NV12 frame.

    Raises:
        BackendError: The kernel cannot do what the bundle asks for.
    """
    if spec.colour not in ("rgb", "bgr") or spec.depth != 1 or spec.fit != "stretch":
        raise BackendError(
            f"preprocessing on the GPU stretches colour images, the bundle wants colour {spec.colour}, depth "
            f"{spec.depth}, fit {spec.fit}"
        )
    mean = (spec.mean[0], spec.mean[1], spec.mean[2])
    std = (spec.std[0], spec.std[1], spec.std[2])
    size, output = (width, height), (spec.width, spec.height)
    normalisation = Normalisation(spec.colour, mean, std)
    try:
        return plan_preprocess(pixel_format, size, output, mode=spec.resize, normalisation=normalisation)
    except ValueError as error:
        raise BackendError(f"preprocessing {width}x{height} frames on the GPU: {error}") from error


def frame_feed(gpu: Driver, stream: int, plan: PreprocessPlan, frame_bytes: int, network_input: int) -> Feed:
    """Run the preprocessing kernel on a slot's frame, after a copy where the GPU has its own memory."""
    kernels = Kernels(gpu, "camera_preprocess")
    weights = gpu.allocate(plan.weights.nbytes)
    gpu.copy_to_device(weights, plan.weights, stream)
    gpu.synchronize(stream)
    frame = 0 if gpu.info.integrated else gpu.allocate(frame_bytes)
    # The planes lie one behind the other: of NV12 the luma, then the chroma.
    offsets = (0, plan.plane_bytes[0])[: len(plan.plane_bytes)]

    def feed(slot: Slot) -> None:
        if frame:
            gpu.copy_to_device(frame, slot.input.array, stream)
        first = frame or slot.input.device_pointer
        parameters = plan.parameters(
            planes=[first + offset for offset in offsets], output=network_input, weights=weights
        )
        kernels.launch(plan.kernel, plan.grid, plan.block, parameters, stream)

    return feed


def tensor_feed(gpu: Driver, engine: OpenedEngine, stream: int, nbytes: int) -> Feed:
    """Bring a slot's finished tensor to the engine: by a copy, or where memory is shared by its address alone."""
    if gpu.info.integrated:
        return lambda slot: engine.place(engine.input, slot.input.device_pointer)
    destination = gpu.allocate(nbytes)
    engine.place(engine.input, destination)

    def feed(slot: Slot) -> None:
        gpu.copy_to_device(destination, slot.input.array, stream)

    return feed
