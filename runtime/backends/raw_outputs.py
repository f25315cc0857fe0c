"""All outputs of a network by name, on the CPU: what detectors need, whose outputs are no logits."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Protocol

import numpy as np

from framegate.runtime.backends.int8 import adds_int8_exactly
from framegate.runtime.backends.no_telemetry import no_telemetry
from framegate.runtime.errors import BackendError
from framegate.runtime.scores import Tensor

BACKENDS = ("openvino", "onnxruntime")


class RawNetwork(Protocol):
    """A network bound to one input array.

    Attributes:
        engine: Library and version.
    """

    engine: str

    def run(self) -> dict[str, Tensor]:
        """Name -> values for what the bound array holds now, in the network's order; valid until the next call.

        Raises:
            BackendError: The engine failed.
        """


def open_raw(model: Path, tensor: Tensor, backend: str = "auto", threads: int | None = None) -> RawNetwork:
    """Load a network and bind its only input.

    Args:
        model: The ONNX file.
        tensor: C-contiguous float32, of the input's shape.
        backend: ``auto`` takes the first of `BACKENDS` that is installed.
        threads: CPU threads; None leaves it to the engine.

    Raises:
        BackendError: It cannot be loaded, or takes another input.
    """
    if backend == "auto":
        backend = next((name for name in BACKENDS if importlib.util.find_spec(name) is not None), "none")
    if backend not in BACKENDS:
        raise BackendError(f"a detector runs on {' or '.join(BACKENDS)}, {backend!r} was asked for")
    opened: RawNetwork
    try:
        kind = _OpenVino if backend == "openvino" else _OnnxRuntime
        opened = kind(model, tensor, threads)
        opened.run()
    except BackendError:
        raise
    except Exception as error:  # both libraries raise a dozen kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = lines[-1] if lines else type(error).__name__
        raise BackendError(f"{backend} cannot run {model.name} on {tensor.shape}: {why}") from error
    return opened


class _OpenVino:
    """See `RawNetwork`."""

    def __init__(self, model: Path, tensor: Tensor, threads: int | None) -> None:
        from framegate.runtime.backends.openvino_cpu import core

        with no_telemetry():
            import openvino as ov

        self.engine = f"openvino {ov.__version__.split('-')[0]}"
        config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = str(threads)
        if not adds_int8_exactly():
            config["LP_TRANSFORMS_MODE"] = "NO"  # as `OpenVinoBackend` does
        network = core().read_model(model)
        network.reshape(list(tensor.shape))
        compiled = core().compile_model(network, "CPU", config)
        self._names = [output.get_any_name() for output in network.outputs]
        self._request = compiled.create_infer_request()
        self._request.set_input_tensor(ov.Tensor(tensor, shared_memory=True))

    def run(self) -> dict[str, Tensor]:
        """See `RawNetwork.run`."""
        self._request.infer()
        return {name: self._request.get_output_tensor(k).data for k, name in enumerate(self._names)}


class _OnnxRuntime:
    """See `RawNetwork`."""

    def __init__(self, model: Path, tensor: Tensor, threads: int | None) -> None:
        import onnxruntime as ort

        self.engine = f"onnxruntime {ort.__version__}"
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._feed = {self._session.get_inputs()[0].name: tensor}
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self) -> dict[str, Tensor]:
        """See `RawNetwork.run`."""
        values = self._session.run(self._names, self._feed)
        return {name: np.asarray(each) for name, each in zip(self._names, values, strict=True)}
