"""What it gives to count what the bounds of an L-infinity certificate can reach instead of the margin on clean frames.

    python -m framegate.benchmarks.bounds_reach hybrid-gtsrb --budget linf:2/255 --data GTSRB \
        --out benchmarks/results/bounds-reach-gtsrb-2.json

Coverage is that of the smallest threshold with so many frames in the event, counted in both ways on the same frames.
The counts are of official test frames, so nothing is proved, and the calibration frames are not looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from framegate.benchmarks.certificates import Measured
from framegate.benchmarks.latency.record import written
from framegate.benchmarks.mask_layouts import at_events, where_units_prove
from framegate.export.calibration.certificates import possible_of_logits
from framegate.export.graph.plain_chain import plain_chain
from framegate.models import datasets
from framegate.models.pixels import PixelInput, to_pixels
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import record_key
from framegate.runtime.bundle.certificates import LINF, Demand
from framegate.runtime.certificate import find_certificate
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import progress_bar, to_stdout
from framegate.runtime.errors import FramegateError, UsageError

_EVENTS = (0.0025, 0.005, 0.01, 0.02, 0.045)
_UNITS = 168


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both ways of counting, on the same frames."""
    bundle = Bundle.open(arguments.bundle)
    record = find_certificate(bundle, Demand.parse(arguments.budget), "fp32", arguments.backend)
    if record.kind != LINF:
        raise UsageError(
            f"budget {arguments.budget}: interval bounds are for changes of all pixels, such as linf:2/255"
        )
    if arguments.frames <= _UNITS or arguments.seed < 0:
        given = f"frames {arguments.frames}, seed {arguments.seed}"
        raise UsageError(f"{given}: expected more than {_UNITS} frames, and a seed of at least 0")
    data = datasets.detect(arguments.data)
    test = data.load_test(arguments.data)
    test = test.subset(np.random.default_rng(arguments.seed).permutation(len(test))[: arguments.frames], test.name)
    with bundle.loaded_file(record.network) as file, progress_bar() as progress:
        measured = Measured(bundle, record, arguments.backend, file)
        certified, reached = measured.values(test, progress)
        layers, last = plain_chain(file)
        with torch.inference_mode():
            inputs = PixelInput(record.preprocess)(to_pixels(test.images))
            margins = possible_of_logits(last(layers(inputs)).numpy(), test.labels)
    ways = {"clean_margins": margins, "reach_of_bounds": reached}
    return {
        "format": "framegate-bounds-reach-1",
        "what": "coverage on test frames where so many are in the event, or where units prove without one (mean, 10 %, "
        "90 %), as the event is counted",
        "bundle": bundle.name,
        "budget": arguments.budget,
        "engine": record_key(arguments.backend, record.precision),
        "network_sha256": record.network_sha256,
        "frames": len(test),
        "seed": arguments.seed,
        "coverage_at_event": {
            name: {str(share): round(at_events(certified, possible, share), 4) for share in _EVENTS}
            for name, possible in ways.items()
        },
        f"coverage_where_{_UNITS}_units_prove": {
            name: [round(value, 4) for value in where_units_prove(certified, possible, _UNITS)]
            for name, possible in ways.items()
        },
        "machine": circumstances(),
    }


def main(given: Sequence[str] | None = None) -> int:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(prog="python -m framegate.benchmarks.bounds_reach", description=__doc__)
    parser.add_argument("bundle", help="name of a bundle with an L-infinity certificate, or its folder")
    parser.add_argument("--budget", required=True, help="linf:2/255, as certified")
    parser.add_argument("--data", required=True, type=Path, help="data set of the bundle")
    parser.add_argument("--backend", default="onnxruntime", help="(default: %(default)s)")
    parser.add_argument("--frames", type=int, default=1500, help="test frames (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the frames (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, help="record (.json)")
    arguments = parser.parse_args(given)
    try:
        record = measure(arguments)
    except FramegateError as error:
        print(f"bounds reach: {error}", file=sys.stderr)
        return error.exit_code
    to_stdout(str(record["coverage_at_event"]))
    return written(arguments.out, record, "bounds reach")


if __name__ == "__main__":
    sys.exit(main())
