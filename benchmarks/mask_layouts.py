"""How many masked views a patch certificate needs: coverage and cost of several layouts of masks, one network.

    python -m framegate.benchmarks.mask_layouts resnet20-gtsrb --budget patch:5 --precision int8 --data GTSRB \
        --layouts 11/7 10/6 10/3 8/4 8/2 --out benchmarks/results/mask-layouts-5.json

A layout is SIDE/STRIDE in pixels of the network's input. Nothing is proved: the counts are of official test frames, so
that a layout can be chosen without the calibration frames, which must not choose it (docs/certificates.md).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.benchmarks.certificates import Measured, cost
from framegate.benchmarks.latency.record import written
from framegate.export.branch import branch_graph
from framegate.export.graph.graph import stored
from framegate.models import datasets
from framegate.runtime.bundle.bundle import Bundle, sha256_file
from framegate.runtime.bundle.calibration import record_key
from framegate.runtime.bundle.certificates import PATCH, CertificateRecord, Demand
from framegate.runtime.bundle.masks import MaskGrid
from framegate.runtime.certificate import find_certificate
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import progress_bar, to_stdout
from framegate.runtime.errors import FramegateError, UsageError

FORMAT = "framegate-mask-layouts-1"
_DRAWS = 400
_EVENTS = (0.005, 0.01, 0.02, 0.045)

Values = npt.NDArray[np.float64]


def layout(text: str) -> tuple[int, int]:
    """Side and stride of ``11/7``.

    Raises:
        UsageError: It is no layout.
    """
    side, _, stride = text.partition("/")
    if not (side.isdecimal() and stride.isdecimal()):
        raise UsageError(f"layout {text!r}: expected SIDE/STRIDE in pixels, such as 11/7")
    return int(side), int(stride)


def at_events(certified: Values, possible: Values, share: float) -> float:
    """Coverage at the smallest threshold with at most this share of frames in the event."""
    tau = np.sort(possible)[::-1][int(share * len(possible))]
    return float(np.mean(certified > tau))


def where_units_prove(certified: Values, possible: Values, units: int, seed: int = 0) -> tuple[float, float, float]:
    """Coverage on the other frames if so many random ones prove, without an event: mean, 10th and 90th percentile."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(_DRAWS):
        order = rng.permutation(len(possible))
        found.append(np.mean(certified[order[units:]] > possible[order[:units]].max()))
    low, high = np.quantile(found, [0.1, 0.9])
    return float(np.mean(found)), float(low), float(high)


@contextmanager
def _network(bundle: Bundle, record: CertificateRecord, branches: tuple[Path, ...]) -> Iterator[Path]:
    """File of the certificate's own network, or of what checkpoints say together that judge the views instead."""
    if not branches:
        with bundle.loaded_file(record.network) as file:
            yield file
        return
    graph, spec = branch_graph(branches, bundle.labels)
    if spec != record.preprocess:
        raise UsageError(f"branch {branches[0]}: it takes another input than the certificate's network")
    with tempfile.TemporaryDirectory(prefix="framegate-") as folder:
        file = Path(folder) / "branch.onnx"
        file.write_bytes(stored(graph))
        yield file


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every layout in turn, on the same frames."""
    bundle, demand = Bundle.open(arguments.bundle), Demand.parse(arguments.budget)
    record = find_certificate(bundle, demand, arguments.precision, arguments.backend)
    if record.kind != PATCH or record.masks is None:
        raise UsageError(f"budget {arguments.budget}: layouts of masks are for patches, such as patch:5")
    layouts = [layout(text) for text in arguments.layouts]
    for name, least in (("frames", 1), ("units", 1), ("seed", 0), ("cost_calls", 0)):
        if np.min(getattr(arguments, name)) < least:
            raise UsageError(f"{name} {getattr(arguments, name)}: expected at least {least}")
    if arguments.branch and record.precision != "fp32":
        raise UsageError(f"precision {record.precision}: a branch is measured in fp32 here; leave --precision out")
    data = datasets.detect(arguments.data)
    test = data.load_test(arguments.data)
    test = test.subset(np.random.default_rng(arguments.seed).permutation(len(test))[: arguments.frames], test.name)
    if len(test) <= max(arguments.units):
        raise UsageError(f"units {max(arguments.units)}: there are {len(test)} frames; give fewer, or more --frames")
    rows: list[dict[str, Any]] = []
    with _network(bundle, record, tuple(arguments.branch)) as file, progress_bar() as progress:
        sha256 = sha256_file(file)
        for side, stride in layouts:
            grid = MaskGrid(record.masks.width, record.masks.height, record.masks.patch, side, stride)
            measured = Measured(bundle, replace(record, masks=grid), arguments.backend, file)
            certified, limit = measured.values(test, progress)
            rows.append(
                {
                    **asdict(grid),
                    "views": grid.views,
                    "coverage_at_event": {str(e): round(at_events(certified, limit.values, e), 4) for e in _EVENTS},
                    "coverage_where_units_prove": {
                        str(n): [round(value, 4) for value in where_units_prove(certified, limit.values, n)]
                        for n in arguments.units
                    },
                    **({"cost": cost(measured, arguments.cost_calls)} if arguments.cost_calls else {}),
                }
            )
            to_stdout(str(rows[-1]))
    return {
        "format": FORMAT,
        "what": "coverage of layouts of masks on test frames; [mean, 10 %, 90 %] of coverage where units prove",
        "bundle": bundle.name,
        "budget": arguments.budget,
        "engine": record_key(arguments.backend, record.precision),
        "branches": [each.name for each in arguments.branch],
        "network_sha256": sha256,
        "frames": len(test),
        "seed": arguments.seed,
        "layouts": rows,
        "machine": circumstances(),
    }


def main(given: Sequence[str] | None = None) -> int:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(prog="python -m framegate.benchmarks.mask_layouts", description=__doc__)
    parser.add_argument("bundle", help="name of a bundle with a patch certificate, or its folder")
    parser.add_argument("--budget", required=True, help="patch:5, as certified")
    parser.add_argument("--data", required=True, type=Path, help="data set of the bundle")
    parser.add_argument("--layouts", required=True, nargs="+", metavar="SIDE/STRIDE", help="such as 11/7 10/3")
    parser.add_argument(
        "--branch", type=Path, action="append", default=[], metavar="FILE",
        help="checkpoint that judges the views; several: their mean answer (default: what the bundle has)",
    )  # fmt: skip
    parser.add_argument("--backend", default="openvino", help="(default: %(default)s)")
    parser.add_argument("--precision", default="fp32", help="(default: %(default)s)")
    parser.add_argument("--frames", type=int, default=800, help="test frames (default: %(default)s)")
    parser.add_argument("--units", type=int, nargs="+", default=[113, 168], help="that prove (default: 113 168)")
    parser.add_argument("--cost-calls", type=int, default=0, help="timed calls; 0: none (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the frames (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, help="record (.json)")
    arguments = parser.parse_args(given)
    try:
        record = measure(arguments)
    except FramegateError as error:
        print(f"mask layouts: {error}", file=sys.stderr)
        return error.exit_code
    return written(arguments.out, record, "mask layouts")


if __name__ == "__main__":
    sys.exit(main())
