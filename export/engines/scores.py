"""An engine that computes the scores itself: the network it is built from, and the plugin while it is built.

The parser of TensorRT treats a node whose name is both a function of the file and a registered plugin in three ways:
up to 10.6 it takes the function, from 10.7 on the plugin, from 10.15 on the function again unless it is told otherwise.
So nothing is left to it: the file for a plugin holds no function, the flag that prefers plugins is set where it exists,
the plugin is registered only while it is wanted, and the layers are looked at afterwards
(`framegate.export.engines.network.check_network`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from framegate.cuda_kernels.compile.compiler import CompilerError
from framegate.cuda_kernels.compile.ptx import load_ptx
from framegate.cuda_kernels.driver.open import CudaError, DeviceInfo, open_driver
from framegate.cuda_kernels.softmax_entropy.plugin_launch import SOURCE
from framegate.export.engines.aot import ahead_of_time_plugin
from framegate.runtime.backends.tensorrt.library import TensorRt
from framegate.runtime.backends.tensorrt.plugin import AHEAD_OF_TIME, REGISTERED, deregister_plugin, register_plugin
from framegate.runtime.backends.tensorrt.scores import FUNCTION, KERNEL, PLUGIN
from framegate.runtime.backends.tensorrt.store import AMPERE
from framegate.runtime.errors import BackendError, BundleError, UsageError


def check_scores(trt: TensorRt, scores: str) -> None:
    """Check that a flavour can build engines whose scores are computed this way.

    Raises:
        BackendError: It cannot.
    """
    if scores == PLUGIN and not trt.takes_plugins():
        raise BackendError(
            f"scores by a plugin were asked for, {trt.engine} takes none (its networks have no add_plugin_v3, and its "
            f"parser ends the process on one); --scores {FUNCTION} builds them into the engine as layers, --scores "
            f"{KERNEL} runs the same kernel behind it"
        )


def network_file(model: Path, scores: str) -> bytes:
    """The ONNX file to parse for a bundle's model; weights in another file stay there.

    Raises:
        BackendError: The file cannot be read.
        BundleError: The package onnx, which changes the network, is missing or cannot read it.
    """
    try:
        content = model.read_bytes()
    except OSError as error:
        raise BackendError(f"{model} cannot be read ({error})") from error
    if scores == KERNEL:
        return content
    try:
        import onnx  # only here: a board need not have it

        from framegate.export.graph.scores import with_scores
    except ImportError as error:
        raise BundleError(
            f"--scores {scores} changes the network, which needs the package onnx: pip install onnx, or leave the "
            f"option out"
        ) from error
    try:
        plain = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf raises whatever strange bytes provoke
        raise BundleError(f"{model} cannot be read ({type(error).__name__})") from error
    try:
        return bytes(with_scores(plain, None, plugin=scores == PLUGIN).SerializeToString())
    except UsageError as error:
        raise BundleError(f"{model}: {error}") from error


@contextmanager
def plugin_for_build(trt: TensorRt, scores: str, info: DeviceInfo | None, target: str) -> Iterator[str]:
    """Register the plugin while an engine is built with it; gives what the engine's header says of it.

    That is `AHEAD_OF_TIME` (in the engine), `REGISTERED` (whoever opens the engine must register it), or nothing.

    Args:
        trt: The flavour that builds.
        scores: Who computes the scores.
        info: This machine's GPU.
        target: What the engine is built for.

    Raises:
        BackendError: The plugin cannot be made or registered here.
    """
    if scores != PLUGIN:
        yield ""
        return
    check_scores(trt, scores)
    if info is None:
        raise BackendError(f"{trt.engine} runs a plugin while it builds, and this machine has no GPU")
    package = trt.plugin_package()
    if package is not None:
        try:
            ptx = load_ptx(SOURCE, 80 if target == AMPERE else info.architecture, info.driver_version)
        except CompilerError as error:
            raise BackendError(f"the kernel cannot be put into an engine: {error}") from error
        with ahead_of_time_plugin(trt, package, ptx):
            yield AHEAD_OF_TIME
        return
    try:
        with open_driver() as gpu:
            creator = register_plugin(trt, gpu)
            try:
                yield REGISTERED
            finally:
                deregister_plugin(trt, creator)
    except (CompilerError, CudaError) as error:
        raise BackendError(f"the plugin cannot be run here: {error}") from error
