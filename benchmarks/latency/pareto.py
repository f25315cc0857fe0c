"""Accuracy against engine time of the shipped classifiers, beside MobileNetV2 at the hybrid's input size.

    python -m framegate.benchmarks.latency.pareto --out benchmarks/results/pareto.json --png docs/pareto.png

Every classifier of images, in fp32 and int8 on each CPU engine that runs here, and the MobileNetV2 baseline (1.0 width,
global average pooling, one linear layer; 96x96, ten labels) in fp32. Only the engine's call is timed, because all
networks share the rest of a frame's way. All take turns in blocks within one process, in an order that turns as well.

The baseline's weights are drawn, not trained: that changes its answers and not its time. So it has no accuracy here.
The accuracy of a bundle is that of its float32 network on its whole test set, from the committed evaluation records;
int8 verdicts differ slightly (docs/RESULTS.md says how much).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from framegate.benchmarks.checkout import BUNDLES, RESULTS
from framegate.benchmarks.latency.measure import BLOCK
from framegate.benchmarks.latency.record import written
from framegate.benchmarks.latency.series import percentiles, ratio
from framegate.evaluation.report.files import load_records
from framegate.evaluation.report.values import FORMAT as EVALUATION_FORMAT
from framegate.runtime.backends.base import Backend, infer
from framegate.runtime.backends.choice import choose_backend, load_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import progress_bar, to_stdout
from framegate.runtime.errors import BackendError, FramegateError, SinkError, UsageError
from framegate.runtime.preprocess import PreprocessSpec

BASELINE = "MobileNetV2"
ENGINES = ("openvino", "onnxruntime")
PRECISIONS = ("fp32", "int8")
_SETTLE = 5
_LABELS = 10
_SIDE = 96


@dataclass
class Runner:
    """A network in one engine and precision.

    Attributes:
        network: Name of its bundle, or `BASELINE`.
        engine: ``openvino`` or ``onnxruntime``.
        precision: ``fp32`` or ``int8``.
        backend: Ready, its input bound.
        input_side: Pixels.
        times_ns: Of its calls.
    """

    network: str
    engine: str
    precision: str
    backend: Backend
    input_side: int
    times_ns: list[int] = field(default_factory=list)

    def block(self) -> None:
        """One turn: some calls that are not counted, then `BLOCK` that are."""
        for k in range(_SETTLE + BLOCK):
            started = time.perf_counter_ns()
            infer(self.backend)
            if k >= _SETTLE:
                self.times_ns.append(time.perf_counter_ns() - started)


def write_baseline(path: Path) -> None:
    """MobileNetV2 with drawn weights as ONNX, batch normalisation folded as `framegate export` does it.

    Args:
        path: The file.
    """
    import onnx
    import torch
    from torch import nn

    from framegate.export.graph.fold import fold_batch_norm
    from framegate.export.graph.translate import to_onnx
    from framegate.models.mobilenet_v2 import MobileNetV2Trunk

    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trunk = MobileNetV2Trunk()
        network = nn.Sequential(
            trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(trunk.out_channels, _LABELS)
        ).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics of the one batch below
    with torch.no_grad():  # activations of usual size: tiny ones (denormal numbers) would cost time of their own
        network(torch.randn(8, 3, _SIDE, _SIDE, generator=generator))
    half = (127.5,) * 3
    spec = PreprocessSpec(_SIDE, _SIDE, "bilinear", "stretch", "rgb", half, half)
    onnx.save(to_onnx(fold_batch_norm(network.eval()), spec), str(path))


def _runner(
    network: str, engine: str, precision: str, model: Path, spec: tuple[int, int], threads: int | None
) -> Runner:
    backend = load_backend(choose_backend(engine), model, threads)
    values = np.random.default_rng(0).normal(size=(1, 3, *spec)).astype(np.float32)
    backend.bind(values)
    infer(backend)
    return Runner(network, engine, precision, backend, spec[0])


def runners(folder: Path, baseline: Path, threads: int | None) -> tuple[list[Runner], dict[str, str]]:
    """All that run here, the baseline first; and why others do not.

    Args:
        folder: Of bundles.
        baseline: From `write_baseline`.
        threads: Of every engine; None leaves it to the engine.

    Raises:
        UsageError: The folder holds no classifier of images.
    """
    wanted = [(BASELINE, "fp32", baseline, (_SIDE, _SIDE))]
    for path in sorted(folder.glob("*.bundle")):
        bundle = Bundle.open(path)
        spec = bundle.preprocess
        if bundle.detector is None and bundle.dense is None and spec.depth == 1 and spec.colour != "grey":
            size = spec.height, spec.width
            wanted += [
                (bundle.name, precision, bundle.model_path(precision), size)
                for precision in PRECISIONS
                if precision in bundle.models
            ]
    if len(wanted) == 1:
        raise UsageError(
            f"bundles {folder}: no bundle with a classifier of images in it; give the folder of the bundles"
        )
    found, left_out = [], {}
    for network, precision, model, size in wanted:
        for engine in ENGINES:
            try:
                found.append(_runner(network, engine, precision, model, size, threads))
            except BackendError as error:
                left_out[f"{network} {engine}/{precision}"] = str(error)
    return found, left_out


def take_turns(field_of: Sequence[Runner], turns: int, progress: Callable[[str, int, int], None]) -> None:
    """Let all run in turn, the order reversed every time."""
    for turn in range(turns):
        for runner in field_of if turn % 2 else reversed(field_of):
            runner.block()
        progress("engine calls", turn + 1, turns)


def rows_of(field_of: Sequence[Runner], accuracy: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """What the record says about each; the ratio is to the baseline in fp32 on the same engine.

    Args:
        field_of: Measured.
        accuracy: Of a bundle's float32 network, with its interval.
    """
    base = {each.engine: each.times_ns for each in field_of if each.network == BASELINE}
    rows = []
    for each in field_of:
        row: dict[str, Any] = {
            "network": each.network,
            "engine": each.engine,
            "precision": each.precision,
            "input": each.input_side,
            "calls": len(each.times_ns),
            "p50_ms": round(percentiles(each.times_ns)["p50_ms"], 5),
            "p99_ms": round(percentiles(each.times_ns)["p99_ms"], 5),
            "accuracy": accuracy.get(each.network),
        }
        if each.network != BASELINE and each.engine in base:
            row["to_baseline_p50"] = ratio(each.times_ns, base[each.engine], BLOCK)
        rows.append(row)
    return rows


def accuracies(folder: Path) -> dict[str, dict[str, Any]]:
    """Clean test accuracy and data set of each bundle, from the committed records of `framegate evaluate`."""
    found = {}
    for record in load_records(folder, EVALUATION_FORMAT, "framegate evaluate") if folder.is_dir() else []:
        found[record["bundle"]["name"]] = {**record["clean"]["accuracy"], "data": record["bundle"]["data"]}
    return found


def main(words: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2_000, metavar="N", help="of each (default: %(default)s)")
    parser.add_argument(
        "--threads",
        type=int,
        help="of every engine; default: each engine's own choice",
    )
    parser.add_argument("--bundles", type=Path, default=BUNDLES, help="folder of bundles (default: the shipped ones)")
    parser.add_argument("--out", type=Path, default=RESULTS / "pareto.json", help="the record (JSON)")
    parser.add_argument("--png", type=Path, help="also a plot; needs matplotlib")
    options = parser.parse_args(words)
    try:
        record = _measured(options)
        code = written(options.out, record, "pareto")
        if options.png and not code:
            from framegate.benchmarks.latency.pareto_plot import plot

            plot(record, options.png)
        return code
    except FramegateError as error:
        print(f"pareto: {error}", file=sys.stderr)
        return error.exit_code


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    if options.calls < 1 or (options.threads is not None and options.threads < 1):
        raise UsageError("--calls and --threads: expected at least 1")
    for path in filter(None, (options.out, options.png)):
        if not path.parent.is_dir():
            raise SinkError(f"{path}: the folder {path.parent} does not exist")
    with tempfile.TemporaryDirectory() as folder, progress_bar() as progress:
        baseline = Path(folder) / "mobilenet_v2.onnx"
        write_baseline(baseline)
        field_of, left_out = runners(options.bundles, baseline, options.threads)
        take_turns(field_of, -(-options.calls // BLOCK), progress)
    rows = rows_of(field_of, accuracies(RESULTS / "evaluation"))
    for row in rows:
        line = f"{row['network']}, {row['engine']}/{row['precision']}: p50 {row['p50_ms']:.3f} ms"
        if "to_baseline_p50" in row:
            part = row["to_baseline_p50"]
            line += f", {part['ratio']:.2f} [{part['low']:.2f}, {part['high']:.2f}] x {BASELINE} fp32"
        to_stdout(line)
    for name, reason in left_out.items():
        to_stdout(f"left out: {name}: {reason}")
    return {
        "what": "engine calls of the classifiers and of MobileNetV2 with drawn weights, interleaved in one process",
        "machine": circumstances(),
        "threads": options.threads,
        "rows": rows,
        "left_out": left_out,
    }


if __name__ == "__main__":
    sys.exit(main())
