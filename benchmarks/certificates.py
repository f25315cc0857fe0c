"""What a bundle's certificate gives on test frames and tracks, what it costs, and attacks inside its budget.

    python -m framegate.benchmarks.certificates hybrid-gtsrb --budget linf:2/255 --data GTSRB \
        --out benchmarks/results/certificates/hybrid-gtsrb-linf2.json

Coverage and events are counted on the official test frames, tracks on the calibration split. Attacks aim at the
certificate itself and stay inside the budget; the theorem allows no counterexample (docs/certificates.md). A part that
is left out (0) keeps what an earlier run wrote, if it was the same certificate.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from framegate.benchmarks.certificate_tables import FORMAT
from framegate.benchmarks.latency.record import written
from framegate.evaluation.attacks.certified import Allowed, Values, attacks_on, judged, reached
from framegate.evaluation.frames.own_data import training_of
from framegate.evaluation.metrics.intervals import share
from framegate.export.calibration.certificates import first_certified, possible_of_views
from framegate.export.calibration.selective_risk import binomial_upper_bound
from framegate.export.calibration.temperature import Labels
from framegate.export.data.outputs import backend_outputs
from framegate.export.graph.reach import CASES
from framegate.models import datasets
from framegate.models.labelled import LabelledImages
from framegate.models.pixels import to_pixels
from framegate.models.training.augment import Images
from framegate.runtime.backends.base import infer
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import record_key
from framegate.runtime.bundle.certificates import (
    LINF,
    CertificateRecord,
    CertificateThreshold,
    Demand,
)
from framegate.runtime.certificate import SLACK, CertificateNetwork, find_certificate
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import progress_bar, to_stdout
from framegate.runtime.errors import FramegateError
from framegate.runtime.preprocess import Preprocessor

TARGET, CONFIDENCE = 0.02, 0.95
_CHUNK = 50


class Measured:
    """A certificate in one engine, and what it says about splits of images.

    Args:
        bundle: Opened.
        record: Its certificate.
        backend: Of bundle and certificate.
        file: Of the certificate's network.
        cases: See `framegate.evaluation.attacks.certified.Allowed.of_margins`.
    """

    def __init__(self, bundle: Bundle, record: CertificateRecord, backend: str, file: Path, cases: int = CASES) -> None:
        self.bundle, self.record, self.backend, self.file, self.cases = bundle, record, backend, file, cases
        self.engine = load_backend(backend, file)
        self.network = CertificateNetwork(record, self.engine, len(bundle.labels))

    def labels(self, split: LabelledImages, progress: Any) -> Labels:
        """(N,) what the bundle's own network says."""
        own = self.bundle.model_path("fp32")
        said, _ = backend_outputs(self.backend, own, self.bundle.preprocess, {"": split.images}, progress)
        return np.asarray(said[""].logits.argmax(1), np.int64)

    def values(self, split: LabelledImages, progress: Any) -> tuple[Values, Allowed]:
        """(N,) what the label of the bundle's own network gets, and the most that a wrong label may reach."""
        labels = self.labels(split, progress)
        certified, wrong = np.empty(len(split)), np.empty(len(split))
        for k, image in enumerate(split.images):
            if self.record.kind == LINF:
                certified[k] = self.network.certified(image)[labels[k]]
            else:
                means = self.network.view_means(image)
                certified[k], wrong[k] = means.min(0)[labels[k]], possible_of_views(means, int(split.labels[k]))
            if (k + 1) % _CHUNK == 0 or k + 1 == len(split):
                progress("certificates", k + 1, len(split))
        if self.record.kind == LINF:
            return certified, self.margins(split.images, split.labels)
        return certified, Allowed(wrong)

    def margins(self, images: Images, labels: Labels) -> Allowed:
        """What an L-infinity certificate allows a wrong label on attacked forms of some images."""
        return Allowed.of_margins(self.file, self.record, images, labels, self.cases)


def at_threshold(
    certified: Values, possible: Values, tau: float, groups: npt.NDArray[np.int64] | None
) -> dict[str, Any]:
    """Coverage and events at one threshold, and of tracks, if there are some."""
    passed, events = certified >= tau + SLACK, possible >= tau
    found: dict[str, Any] = {
        "tau": round(tau, 4),
        "certified": share(passed).to_json(),
        "event": share(events).to_json(),
    }
    if groups is not None:
        tracks, wait = first_certified(passed, groups)
        worst = np.array([events[groups == each].any() for each in np.unique(groups)])
        found |= {"tracks_certified": tracks, "frames_to_first": wait, "tracks_with_event": share(worst).to_json()}
    return found


def loosest(possible: Values, units: int) -> float:
    """The smallest threshold with at most ``units`` events."""
    return max(0.0 if possible.max() >= 0 else -np.inf, float(np.nextafter(np.sort(possible)[::-1][units], np.inf)))


def allowed_events(count: int) -> int:
    """Events among ``count`` units with which the bound still keeps the target."""
    events = -1
    while binomial_upper_bound(events + 1, count, CONFIDENCE) <= TARGET:
        events += 1
    return events


def figures(measured: Measured, split: LabelledImages, tau: float, progress: Any) -> dict[str, Any]:
    """Of one split: at the shipped threshold, and at those that single frames and whole tracks would give for 2 %."""
    certified, limit = measured.values(split, progress)
    groups = split.groups
    shipped = at_threshold(certified, limit.above(tau), tau, groups)
    result: dict[str, Any] = {"frames": len(split), "shipped": shipped}
    events, lowest = allowed_events(len(split)), 0.0 if measured.record.kind == LINF else -np.inf
    if events >= 0:
        possible = limit.lowered(None, events, lowest)
        found = at_threshold(certified, possible, loosest(possible, events), groups)
        result["frames_counted_singly_2_percent"] = found
    if groups is not None:
        units = int(TARGET * len(np.unique(groups)))
        possible = limit.lowered(groups, units, lowest)
        worst = np.array([possible[groups == each].max() for each in np.unique(groups)])
        result["tracks_2_percent_point_estimate"] = at_threshold(certified, possible, loosest(worst, units), groups)
    return result


def attacked(
    measured: Measured, test: LabelledImages, threshold: CertificateThreshold, steps: int, seed: int, progress: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attacks inside the budget on the certificate: counts of each, summed over chunks, and `if_none_were_stronger`."""
    record, tau = measured.record, threshold.tau
    attacks = attacks_on(record, measured.file, record.budget, steps, seed)
    totals: dict[str, dict[str, int]] = {name: {} for name in attacks}
    clean, strongest = [], []
    for first in range(0, len(test), _CHUNK):
        rows = slice(first, min(first + _CHUNK, len(test)))
        images, true = test.images[rows], test.labels[rows]
        pixels, labels = to_pixels(images), torch.from_numpy(true)
        if record.kind == LINF:
            limit = measured.margins(images, true).above(tau)
        else:
            limit = Allowed.of_views(measured.network, images, true).values
        clean.append(reached(measured.network, pixels))
        wrong = [clean[-1].copy()]
        for name, attack in attacks.items():
            wrong.append(reached(measured.network, attack(pixels, labels)))
            for key, value in judged(wrong[-1], limit, true, tau).items():
                totals[name][key] = totals[name].get(key, 0) + value
        for each in wrong:
            each[np.arange(len(true)), true] = -np.inf
        strongest.append(np.max(wrong, axis=(0, 2)))
        progress("attacks inside the budget", rows.stop, len(test))
    own = measured.labels(test, progress)
    certified = np.concatenate(clean)[np.arange(len(test)), own]
    return totals, if_none_were_stronger(certified, np.concatenate(strongest), threshold.target_risk)


def if_none_were_stronger(certified: Values, strongest: Values, share_allowed: float) -> dict[str, Any]:
    """Coverage if these attacks were the strongest that there are, and so many frames may be in the event.

    What lies between it and the coverage where the theorem counts them is given away by its bounds, or is what
    stronger attacks would find.

    Args:
        certified: (N,) on the clean frames.
        strongest: (N,) the most that a wrong label reached on the clean or an attacked frame.
        share_allowed: Share of the frames that may reach the threshold.
    """
    tau = loosest(strongest, int(share_allowed * len(strongest)))
    return at_threshold(certified, strongest, tau, None)


def cost(measured: Measured, calls: int) -> dict[str, float]:
    """Microseconds of a certificate: preprocessing, views and engine; and of the engine alone."""
    rng = np.random.default_rng(0)
    spec = measured.record.preprocess
    image = rng.integers(0, 256, (spec.height, spec.width, 3)).astype(np.uint8)
    found: dict[str, float] = {}
    for name, call in (
        ("certificate", lambda: measured.network.certified(image)),
        ("engine", lambda: infer(measured.engine)),
        ("resize", lambda: Preprocessor(spec)(image)),
    ):
        taken = []
        for k in range(calls + calls // 5):
            began = time.perf_counter_ns()
            call()
            if k >= calls // 5:
                taken.append(time.perf_counter_ns() - began)
        found |= {
            f"{name}_p50_us": float(np.median(taken)) / 1e3,
            f"{name}_p99_us": float(np.quantile(taken, 0.99)) / 1e3,
        }
    return {key: round(value, 1) for key, value in found.items()}


def _earlier(path: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """Parts that were measured before, of the same certificate, and are kept."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found if all(found.get(key) == value for key, value in asked.items()) else {}
    except (OSError, ValueError, AttributeError):
        return {}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that was asked for."""
    bundle = Bundle.open(arguments.bundle)
    record = find_certificate(bundle, Demand.parse(arguments.budget), arguments.precision, arguments.backend)
    key = record_key(arguments.backend, record.precision)
    threshold = record.thresholds[key]
    result: dict[str, Any] = {
        "format": FORMAT,
        "bundle": bundle.name,
        "certificate": arguments.budget,
        "engine": key,
        "promise": record.promise(key),
        "risk_bound": threshold.risk_bound,
        "unit": threshold.unit,
        "views": record.masks.views if record.masks else 1,
        "network_sha256": record.network_sha256,
        "tau": threshold.tau,
    }
    if record.kind == LINF:
        result["cases"] = arguments.cases
    result = {**_earlier(arguments.out, result), **result, "machine": circumstances()}
    torch.set_num_threads(1)
    with bundle.loaded_file(record.network) as file:
        measured = Measured(bundle, record, arguments.backend, file, arguments.cases)
        if arguments.cost_calls:
            result["cost"] = cost(measured, arguments.cost_calls)
        data = datasets.detect(arguments.data)
        rng = np.random.default_rng(arguments.seed)
        test = data.load_test(arguments.data)
        test = test.subset(rng.permutation(len(test)), test.name)
        with progress_bar() as progress:
            if arguments.frames:
                part = test.subset(np.arange(min(arguments.frames, len(test))), test.name)
                result["test"] = figures(measured, part, threshold.tau, progress)
                calibration = training_of(data, arguments.data, bundle)[1]
                if calibration.groups is None:  # of tracks all frames are needed
                    some = rng.permutation(len(calibration))[: arguments.frames]
                    calibration = calibration.subset(some, calibration.name)
                result["calibration"] = figures(measured, calibration, threshold.tau, progress)
            if arguments.attack:
                part = test.subset(np.arange(min(arguments.attack, len(test))), test.name)
                result["attacks"], result["if_none_were_stronger"] = attacked(
                    measured, part, threshold, arguments.steps, arguments.seed, progress
                )
    return result


def main() -> int:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(prog="python -m framegate.benchmarks.certificates", description=__doc__)
    parser.add_argument("bundle", help="name of a bundle, or its folder")
    parser.add_argument("--budget", required=True, help="patch:5 or linf:2/255, as certified")
    parser.add_argument("--data", required=True, type=Path, help="data set of the bundle")
    parser.add_argument("--backend", default="onnxruntime", help="(default: %(default)s)")
    parser.add_argument("--precision", default="fp32", help="where several are proved (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=3000, help="test frames; 0: none (default: %(default)s)")
    parser.add_argument("--attack", type=int, default=1000, help="attacked test frames (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="gradient steps (default: %(default)s)")
    parser.add_argument("--cost-calls", type=int, default=0, help="timed calls; 0: none (default: %(default)s)")
    parser.add_argument(
        "--cases", type=int, default=CASES, help="of linf, see framegate certify --cases (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of frames and attacks (default: %(default)s)")
    parser.add_argument("--out", required=True, type=Path, help="record (.json)")
    arguments = parser.parse_args()
    try:
        record = measure(arguments)
    except FramegateError as error:
        print(f"certificates: {error}", file=sys.stderr)
        return error.exit_code
    for part in ("cost", "test", "calibration", "attacks"):
        if part in record:
            to_stdout(f"{part}: {record[part]}")
    code = written(arguments.out, record, "certificates")
    return code or int(any(each["counterexamples"] for each in record.get("attacks", {}).values()))


if __name__ == "__main__":
    sys.exit(main())
