"""Build one engine: parse, check, configure, build, inspect, store."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from framegate.cuda_kernels.compile.cache import write_atomically, write_json
from framegate.cuda_kernels.driver.open import DeviceInfo
from framegate.export.engines.network import NetworkFacts, check_network, describe_network, parse_onnx
from framegate.export.engines.options import BuildOptions, configure
from framegate.export.engines.progress import Progress, progress_monitor
from framegate.export.engines.scores import plugin_for_build
from framegate.runtime.backends.tensorrt.library import Messages, TensorRt
from framegate.runtime.backends.tensorrt.store import (
    EngineKey,
    StaleEngineError,
    StoredEngine,
    cache_errors,
    read_engine,
    write_engine,
)
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import BackendError

_WEIGHTS_HASH = b"framegate.weights_sha256"  # onnx_half.WEIGHTS_HASH; onnx is not needed to build an engine


@dataclass(frozen=True)
class EngineJob:
    """One engine to be had.

    Attributes:
        trt: The flavour that builds.
        bundle: The opened bundle.
        precision: One of the bundle's.
        target: As `framegate.export.engines.options.resolve_target` gave it.
        options: Of the build.
        info: This machine's GPU; None if it has none.
        folder: The engine cache.
    """

    trt: TensorRt
    bundle: Bundle
    precision: str
    target: str
    options: BuildOptions
    info: DeviceInfo | None
    folder: Path

    @property
    def key(self) -> EngineKey:
        """The engine's key in the cache."""
        model = self.bundle.model_path(self.precision)
        return EngineKey(self.bundle.hashes[model.name], model.name, self.trt.flavour, self.trt.version, self.target)

    def cached(self) -> StoredEngine:
        """The engine as built before with the same options.

        Raises:
            StaleEngineError: There is none that may be used; the message says why.
        """
        engine = read_engine(self.key, self.folder)
        if engine.header.get("options") != asdict(self.options):
            raise StaleEngineError(f"engine {engine.path} was built with other options: {engine.header.get('options')}")
        return engine


def build_engine(job: EngineJob, progress: Progress, stop: threading.Event) -> StoredEngine:
    """Build an engine and store it with its report beside it (``.layers.json``).

    Raises:
        BackendError: The model does not parse or is not what the bundle says, or TensorRT cannot build it.
        BundleError: The model cannot be given the scores.
    """
    trt, model = job.trt, job.bundle.model_path(job.precision)
    with cache_errors(job.folder):  # before the long work
        job.key.path(job.folder).parent.mkdir(parents=True, exist_ok=True)
    _check_weights(job.bundle, model)
    # The report opens the engine once more, which needs the plugin as much as the build does.
    with plugin_for_build(trt, job.options.scores, job.info, job.target) as plugin:
        facts, plan = _build_plan(job, progress, stop)
        report = _report(job, facts, plan)
    written = {
        "options": asdict(job.options),
        "precision": job.precision,
        "network": facts.to_json(),
        "plugin": plugin,
    }
    path = write_engine(job.key, job.folder, plan, written)
    with cache_errors(job.folder):
        write_json(report_path(path), report | {"plugin": plugin})
    return read_engine(job.key, job.folder)


def _build_plan(job: EngineJob, progress: Progress, stop: threading.Event) -> tuple[NetworkFacts, bytes]:
    trt, model, options = job.trt, job.bundle.model_path(job.precision), job.options
    messages = trt.logger()
    try:
        builder = trt.module.Builder(messages.native)
    except TypeError as error:  # pybind11's way to say that the factory returned nothing
        raise BackendError(f"{trt.engine} cannot start a build: {messages.take() or error}") from error
    network, parser = parse_onnx(trt, builder, messages, model, options.scores)
    facts = describe_network(trt, network)
    check_network(
        facts, model, job.bundle.preprocess, len(job.bundle.labels), job.precision, options.scores,
        dense=job.bundle.dense is not None,
    )  # fmt: skip
    config = builder.create_builder_config()
    configure(trt, builder, config, options, job.target)
    config.add_optimization_profile(_profile(builder, facts, options))
    config.progress_monitor = progress_monitor(trt, f"{job.bundle.name} {job.precision}", progress, stop)
    timings = None if trt.rtx or job.info is None else _timing_cache(trt, config, job.info, job.folder)
    built = builder.build_serialized_network(network, config)
    del parser
    if built is None:
        raise BackendError(
            f"{trt.engine} could not build {model} for {job.target}: {messages.take() or 'no reason given'}"
        )
    if timings is not None:
        with cache_errors(job.folder):
            _store(timings, bytes(config.get_timing_cache().serialize()))
    return facts, bytes(built)


def _check_weights(bundle: Bundle, model: Path) -> None:
    """Refuse a float16 file that points into another float32 file than the bundle's: the hash is in its metadata."""
    content = model.read_bytes()
    if _WEIGHTS_HASH in content and bundle.hashes[bundle.models["fp32"]].encode() not in content:
        raise BackendError(f"{model} was derived from other weights than those beside it; export the model again")


def report_path(engine: Path) -> Path:
    """Where the report of an engine lies."""
    return engine.with_suffix(".layers.json")


def _profile(builder: Any, facts: NetworkFacts, options: BuildOptions) -> Any:
    profile = builder.create_optimization_profile()
    for tensor in facts.inputs:
        batch, *rest = tensor.shape
        least, best, most = (1, 1, options.max_batch) if batch < 0 else (batch, batch, batch)
        profile.set_shape(tensor.name, (least, *rest), (best, *rest), (most, *rest))
    return profile


def _timing_cache(trt: TensorRt, config: Any, info: DeviceInfo, folder: Path) -> Path:
    """Give the build what earlier builds measured on this GPU, release and driver; return where to store it again."""
    driver = ".".join(map(str, info.driver_version))
    name = f"timing-{trt.flavour}-{trt.version}-{info.name}-cuda{driver}.cache".replace(" ", "_").replace("/", "_")
    path = folder / name
    known = b""
    with suppress(OSError):
        known = path.read_bytes()
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, False):
        # Damaged or from elsewhere: it only costs the time to measure again.
        config.set_timing_cache(config.create_timing_cache(b""), False)
    return path


def _store(path: Path, content: bytes) -> None:
    def produce(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, produce)


def _report(job: EngineJob, facts: NetworkFacts, plan: bytes) -> dict[str, Any]:
    inspector: Any = None
    reason = "an engine can be inspected only on a GPU that runs it"
    if job.info is not None:
        try:
            inspector, reason = inspect_plan(job.trt, plan, job.options.dla_core), ""
        except BackendError as error:
            reason = str(error)
    return {
        "engine": job.trt.engine,
        "target": job.target,
        "precision": job.precision,
        "plan_bytes": len(plan),
        "network": facts.to_json(),
        "inspector": inspector,
        "no_inspector_because": reason,
    }


def inspect_plan(trt: TensorRt, plan: bytes, dla_core: int | None = None) -> Any:
    """The EngineInspector's description of a plan, parsed; needs the GPU.

    Raises:
        BackendError: The plan cannot be opened here, or the description is no JSON.
    """
    messages: Messages = trt.logger()
    runtime = trt.runtime(messages)
    if dla_core is not None:
        runtime.DLA_core = dla_core
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError(f"{trt.engine} cannot open the engine here: {messages.take() or 'no reason given'}")
    text = engine.create_engine_inspector().get_engine_information(trt.module.LayerInformationFormat.JSON)
    try:
        return json.loads(text)
    except ValueError as error:  # a report is not worth an engine that took minutes to build
        raise BackendError(f"{trt.engine} describes the engine in something that is no JSON ({error})") from error
