"""TensorRT in both flavours, 10.3 to 11.4 and TensorRT-RTX 1.7, behind one interface.

What differs between releases is asked of the library itself (`TensorRt.has`), never read off a version number, with one
exception: STRONGLY_TYPED still exists in TensorRT 11, where it is always on and deprecated.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framegate.runtime.backends.tensorrt.names import COMMON, OPTIONAL, missing_names
from framegate.runtime.errors import BackendError, UsageError

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Flavour -> module; the flavour is also the backend's name. ``auto`` takes the first that is installed."""

_KEPT_MESSAGES = 8

_loggers: list[Any] = []  # TensorRT keeps the first one for the process, and what has no logger of its own uses it


@dataclass(frozen=True)
class TensorRt:
    """One imported flavour.

    Attributes:
        flavour: ``tensorrt`` or ``tensorrt-rtx``.
        module: The imported package.
        version: Its version, e.g. ``10.13.3.9``.
    """

    flavour: str
    module: Any
    version: str

    @property
    def engine(self) -> str:
        """Flavour and version, e.g. ``tensorrt 10.13.3.9``."""
        return f"{self.flavour} {self.version}"

    @property
    def rtx(self) -> bool:
        """Whether engines are compiled for the GPU only when they are opened (TensorRT-RTX)."""
        return self.flavour == "tensorrt-rtx"

    def has(self, kind: str, member: str) -> bool:
        """Whether this release has a name that others lack.

        Raises:
            KeyError: The name is not in `tensorrt_names`: nobody checks it against the releases.
        """
        if member not in (*OPTIONAL.get(kind, ()), *COMMON.get(kind, ())):
            raise KeyError(f"{kind}.{member} is not listed in tensorrt_names")
        return hasattr(getattr(self.module, kind, None), member)

    def network_flags(self, plugin: bool = False) -> int:
        """Flags for ``Builder.create_network``: types come from the ONNX file, not from the builder's choice.

        Args:
            plugin: The network will get a plugin; where it can be compiled ahead of time, it shall be.
        """
        flags = 0
        if self.has("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") and int(self.version.split(".")[0]) == 10:
            flags |= 1 << int(self.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        if plugin and self.has("NetworkDefinitionCreationFlag", "PREFER_AOT_PYTHON_PLUGINS"):
            flags |= 1 << int(self.module.NetworkDefinitionCreationFlag.PREFER_AOT_PYTHON_PLUGINS)
        return flags

    def takes_plugins(self) -> bool:
        """Whether a network can hold a plugin. TensorRT-RTX has the classes of plugins, but no way in."""
        return self.has("INetworkDefinition", "add_plugin_v3")

    def plugin_package(self) -> Any | None:
        """The package with which a plugin is compiled into the engine; None where this release has none, or lacks that.

        It exists since TensorRT 10.6, ``aot_impl`` since 10.9.
        """
        if not (self.takes_plugins() and self.has("QuickPluginCreationRequest", "PREFER_AOT")):
            return None
        try:
            with _printing_to_standard_error():  # it greets on standard output, where --json prints
                package = importlib.import_module(f"{MODULES[self.flavour]}.plugin")
        except ImportError:
            return None
        return package if hasattr(package, "aot_impl") else None

    def compute_capabilities(self) -> tuple[int, ...]:
        """Architectures that this release builds for ahead of time, e.g. (86, 89); empty where it cannot."""
        kind = getattr(self.module, "ComputeCapability", None)
        if kind is None:
            return ()
        return tuple(sorted(int(name[2:]) for name in kind.__members__ if name.startswith("SM")))

    def logger(self) -> Messages:
        """A fresh logger; hand its ``native`` to TensorRT."""
        return Messages(self.module)

    def runtime(self, messages: Messages) -> Any:
        """What opens engines.

        Raises:
            BackendError: It does not start, with a driver that is older than the CUDA release it was made for, say.
        """
        try:
            return self.module.Runtime(messages.native)
        except TypeError as error:  # pybind11's way to say that the factory returned nothing
            raise BackendError(
                f"{self.engine} cannot start: {messages.take() or error}; a TensorRT made for CUDA 13 needs a driver "
                "for CUDA 13 (framegate doctor says which one is there)"
            ) from error


@contextmanager
def _printing_to_standard_error() -> Iterator[None]:
    """Send what a library prints, in whichever language, to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


class Messages:
    """Collects TensorRT's errors, so that they end in one exception instead of on standard error.

    Attributes:
        native: What TensorRT takes as its logger. It must outlive everything made with it.
    """

    def __init__(self, module: Any) -> None:
        # Bounded: an engine that fails on every frame logs on every frame.
        kept: deque[str] = deque(maxlen=_KEPT_MESSAGES)
        serious = (module.ILogger.INTERNAL_ERROR, module.ILogger.ERROR)

        class Collector(module.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in serious:
                    kept.append(message.strip())

        self._kept = kept
        self.native = Collector()
        _loggers.append(self.native)

    def take(self) -> str:
        """The errors since the last call in one line, the first first; empty if there were none."""
        text = "; ".join(dict.fromkeys(self._kept))
        self._kept.clear()
        return text


def install_line(flavour: str, cuda_major: int | None = None) -> str:
    """The line that installs a flavour on this machine.

    Args:
        flavour: A key of `MODULES`.
        cuda_major: CUDA release that the driver supports; None if unknown, which takes the newer wheels.
    """
    if is_jetson():
        if flavour == "tensorrt-rtx":
            return "TensorRT-RTX does not exist for Jetson; use --backend tensorrt"
        return (
            "sudo apt install nvidia-jetpack   (TensorRT belongs to JetPack; then make the virtual environment with "
            "python3 -m venv --system-site-packages)"
        )
    if flavour == "tensorrt-rtx":
        return "pip install 'framegate[rtx]'"
    return "pip install 'framegate[tensorrt-cu12]'" if cuda_major == 12 else "pip install 'framegate[tensorrt]'"


def is_jetson() -> bool:
    """Whether this is a board with NVIDIA's L4T."""
    return platform.machine() == "aarch64" and Path("/etc/nv_tegra_release").exists()


def installed_flavours() -> list[str]:
    """Flavours whose package is there, without importing it."""
    return [flavour for flavour, module in MODULES.items() if importlib.util.find_spec(module) is not None]


def load_tensorrt(flavour: str) -> TensorRt:
    """Import a flavour.

    Raises:
        UsageError: The flavour is unknown.
        BackendError: It is not installed, cannot be imported, or lacks names that framegate needs.
    """
    if flavour not in MODULES:
        raise UsageError(f"TensorRT flavour {flavour!r} was asked for; known are {', '.join(MODULES)}")
    try:
        module = importlib.import_module(MODULES[flavour])
    except ModuleNotFoundError as error:
        raise BackendError(
            f"{flavour} was asked for, but the package {error.name!r} is not installed; {install_line(flavour)}"
        ) from error
    except (ImportError, OSError) as error:
        raise BackendError(f"{flavour} is installed but cannot be imported: {error}") from error
    lacking = missing_names(module)
    version = str(getattr(module, "__version__", "unknown"))
    if lacking:
        raise BackendError(
            f"{flavour} {version} lacks {', '.join(lacking[:5])}; framegate works with TensorRT 10.3 to 11.4 and "
            "TensorRT-RTX 1.7"
        )
    return TensorRt(flavour, module, version)
