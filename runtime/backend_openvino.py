"""OpenVINO on the CPU: one synchronous request on shared memory."""

from __future__ import annotations

from pathlib import Path

from framegate.runtime.backend import Tensor
from framegate.runtime.errors import BackendError
from framegate.runtime.monitor import POOLED
from framegate.runtime.telemetry import no_telemetry

with no_telemetry():
    import openvino as ov


class OpenVinoBackend:
    """See `framegate.runtime.backend.Backend`."""

    name = "openvino"

    def __init__(self, model: Path, threads: int | None) -> None:
        self.engine = f"openvino {ov.__version__.split('-')[0]}"
        # One stream with all threads: the latency of a single frame counts, not throughput.
        config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
        # Left alone, OpenVINO computes float32 layers in bfloat16 where the processor can: logits then move by whole
        # units, and a threshold calibrated on one machine would not hold on another.
        config["INFERENCE_PRECISION_HINT"] = "f32"
        if threads is not None:
            config["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            self._core = ov.Core()
            self._model = self._core.read_model(model)
            self._config = config
            self.classes = int(self._model.output(0).get_partial_shape()[1].get_length())
        except RuntimeError as error:
            raise BackendError(f"openvino cannot read {model}: {_first_line(error)}") from error
        self._request: ov.InferRequest | None = None
        self.pooled: Tensor | None = None

    def bind(self, tensor: Tensor) -> None:
        """See `Backend.bind`."""
        try:
            self._model.reshape(list(tensor.shape))
            self._request = self._core.compile_model(self._model, "CPU", self._config).create_infer_request()
            self._request.set_input_tensor(ov.Tensor(tensor, shared_memory=True))
            # Bind the output too: reading it through the request costs more than the copy it saves.
            self._output = self._request.get_output_tensor(0).data
            pooled = [k for k, output in enumerate(self._model.outputs) if POOLED in output.get_names()]
            self.pooled = self._request.get_output_tensor(pooled[0]).data if pooled else None
        except RuntimeError as error:
            raise BackendError(f"openvino cannot run this model on {tensor.shape}: {_first_line(error)}") from error

    def infer(self) -> Tensor:
        """See `Backend.infer`."""
        if self._request is None:
            raise BackendError("openvino: bind an input before infer")
        try:
            self._request.infer()
        except RuntimeError as error:
            raise BackendError(f"openvino failed: {_first_line(error)}") from error
        output: Tensor = self._output
        return output


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def load(model: Path, threads: int | None) -> OpenVinoBackend:
    """Entry point of the table in `framegate.runtime.backend`."""
    return OpenVinoBackend(model, threads)
