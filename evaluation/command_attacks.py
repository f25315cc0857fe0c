"""``framegate attacks``: attacks of many kinds and sizes against a bundle, without and with gate and certificate."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from framegate.evaluation.attack_rows import failed_checks, row_checks
from framegate.evaluation.attack_table import Attacked, attack_table, markdown
from framegate.evaluation.attacks.auto import WITH_TARGETS
from framegate.evaluation.attacks.health import check_attack_health
from framegate.evaluation.attacks.linf import LinfSettings
from framegate.evaluation.attacks.memory import keep_freed_memory
from framegate.evaluation.frames.network import Network
from framegate.evaluation.frames.own_data import OWN, calibration_of, data_for
from framegate.evaluation.gate.names import ATTACKS_FORMAT
from framegate.evaluation.gate.rules import BATCH, observe
from framegate.evaluation.measured import manifest_sha256
from framegate.evaluation.report.files import rounded, write_json
from framegate.evaluation.summaries import SUMMARIES
from framegate.models.labelled import LabelledImages, fingerprint
from framegate.models.pixels import to_pixels
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.certificates import Demand
from framegate.runtime.certificate import Certifier
from framegate.runtime.circumstances import circumstances
from framegate.runtime.cli.options import BUNDLE_HELP
from framegate.runtime.console import json_to_stdout, progress_bar, to_stderr, to_stdout
from framegate.runtime.errors import DataError, UsageError

_HEALTH = 48
_CALIBRATION = 1_000


_IMAGES, _TRANSFER = "images_sha256", "transfer_sha256"


def _same(found: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether a record is of the same settings, bundles and images.

    Older ones do not say of which images: a known data set is taken for the one of its name, a folder is not.
    """
    older = {} if asked.get("data") == OWN else {key: asked[key] for key in (_IMAGES, _TRANSFER) if key in asked}
    return {**older, **found} == dict(asked)


class Saved:
    """Rows of an interrupted run, which the same command takes up again.

    Args:
        path: Where they lie.
        asked: Settings; rows of other settings, or of another bundle, are not taken.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._asked = dict(asked)
        self._before, self._started = 0.0, time.monotonic()
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if _same(found["asked"], self._asked):
                self.rows, self._before = list(found["rows"]), float(found["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing that can be taken up: everything is computed

    def seconds(self) -> float:
        """Of work, that of the interrupted runs included."""
        return self._before + time.monotonic() - self._started

    def keep(self, row: dict[str, Any]) -> None:
        """Write a new row beside the others."""
        self.rows.append(row)
        write_json(self.path, {"asked": self._asked, "seconds": self.seconds(), "rows": self.rows})


def measured_before(path: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The finished record of an earlier run with the same settings on the same bundle and images, or None."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if _same(found["asked"], asked) and found["rows"] and found["health"]:
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or one that says not enough: everything is computed
    return None


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``attacks`` to the command line."""
    parser = commands.add_parser("attacks", help=SUMMARIES["attacks"])
    parser.add_argument("bundle", help=BUNDLE_HELP)
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        help="the data set it was trained on, or your own pictures in one folder per label",
    )
    parser.add_argument("--frames", type=int, default=500, metavar="N", help="test frames (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="gradient steps (default: %(default)s)")
    parser.add_argument(
        "--adaptive", type=int, default=60, metavar="N", help="frames of the adaptive attack (default: %(default)s)"
    )
    parser.add_argument(
        "--auto",
        type=int,
        default=0,
        metavar="N",
        help="frames of AutoAttack's set at 8/255: APGD with three losses, FAB and Square (default: %(default)s)",
    )
    parser.add_argument(
        "--transfer",
        metavar="BUNDLE",
        help="another bundle with the same labels, whose attacked frames are shown, too (default: none)",
    )
    parser.add_argument("--require-certificate", metavar="BUDGET", help="patch:5 or linf:2/255 (default: none)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="everything random (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="measure anew what --out already holds")
    parser.add_argument("--out", required=True, type=Path, help="results file (.json)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Attack, judge, write the record. Returns 1 if a health check of the attacks failed."""
    if arguments.frames < 1 or arguments.steps < 1 or min(arguments.adaptive, arguments.auto, arguments.seed) < 0:
        raise UsageError("frames and steps: expected at least 1; adaptive, auto and seed: 0 or more")
    if arguments.out.is_dir():
        raise UsageError(f"out {arguments.out}: expected the name of a file (.json), found a folder")
    if arguments.out.suffix == ".part":  # where rows of an interrupted run lie, which are removed at the end
        raise UsageError(f"out {arguments.out}: expected the name of a file that ends in .json")
    bundle = Bundle.open(arguments.bundle).for_classifiers("attacks")
    data = data_for(arguments.data, bundle)
    if data.labels != bundle.labels or data.depth > 1:
        raise DataError(f"{arguments.data}: {data.title} is not what this bundle was trained on, or holds volumes")
    foreign = None if arguments.transfer is None else Bundle.open(arguments.transfer)
    if foreign is not None and foreign.labels != bundle.labels:
        raise UsageError(f"transfer {arguments.transfer}: it has other labels; give a bundle trained on the same data")
    demand = None if arguments.require_certificate is None else Demand.parse(arguments.require_certificate)
    certifier = None if demand is None else Certifier(bundle, demand, "onnxruntime")
    calibration, test = calibration_of(data, arguments.data, bundle), data.load_test(arguments.data)
    asked = {
        "format": ATTACKS_FORMAT,
        "bundle": bundle.name,
        "manifest_sha256": manifest_sha256(bundle.path),
        "data": data.name,
        _IMAGES: [fingerprint(calibration), fingerprint(test)],
        "frames": arguments.frames,
        "adaptive_frames": arguments.adaptive,
        "steps": arguments.steps,
        "seed": arguments.seed,
        "transfer_from": None if foreign is None else foreign.name,
        "certificate": None if certifier is None else certifier.identity,
        **({} if foreign is None else {_TRANSFER: manifest_sha256(foreign.path)}),
        **({"auto_frames": arguments.auto, "auto_attacks": list(WITH_TARGETS)} if arguments.auto else {}),
    }
    before = None if arguments.again else measured_before(arguments.out, asked)
    if before is not None:
        to_stderr(f"framegate: {arguments.out}: measured before with these settings; --again measures anew")
        return _shown(before, arguments)
    record = _measured(arguments, asked, bundle, (calibration, test), certifier, foreign)
    write_json(arguments.out, record)
    arguments.out.with_suffix(".part").unlink(missing_ok=True)
    return _shown(record, arguments)


def _measured(
    arguments: argparse.Namespace,
    asked: Mapping[str, Any],
    bundle: Bundle,
    splits: tuple[LabelledImages, LabelledImages],
    certifier: Certifier | None,
    foreign: Bundle | None,
) -> dict[str, Any]:
    """The record, from the calibration and the test split; its rows are kept on the way."""
    keep_freed_memory()
    network = Network.from_bundle(bundle)
    saved = Saved(arguments.out.with_suffix(".part"), asked)
    rng = np.random.default_rng(arguments.seed)
    calibration, test = splits
    calibration = calibration.subset(rng.permutation(len(calibration))[:_CALIBRATION], "calibration")
    test = test.subset(rng.permutation(len(test))[: arguments.frames], test.name)
    pixels, labels = to_pixels(test.images), torch.from_numpy(test.labels)
    with progress_bar() as progress:
        clean = observe(
            network, bundle.monitor, to_pixels(calibration.images), torch.from_numpy(calibration.labels)
        )  # fmt: skip
        what = Attacked(
            bundle,
            network,
            clean,
            certifier,
            None if foreign is None else Network.from_bundle(foreign),
            arguments.seed,
        )
        rows = attack_table(
            what, pixels, labels, progress, steps=arguments.steps, adaptive=arguments.adaptive, auto=arguments.auto,
            known=saved.rows, keep=saved.keep,
        )  # fmt: skip
        few = slice(0, min(_HEALTH, len(pixels)))
        health = check_attack_health(
            network, pixels[few], labels[few], LinfSettings("PGD-20", 8 / 255, 20), frames=len(pixels[few]),
            queries=150, batch=BATCH, seed=arguments.seed, progress=progress,
        )  # fmt: skip
    record: dict[str, Any] = {
        **asked,
        "frames": len(test),
        "asked": dict(asked),
        "seconds": round(saved.seconds(), 1),
        "machine": {**circumstances(), "torch": torch.__version__},
        "health": [{"name": check.name, "passed": check.passed} for check in health.checks]
        + [{"name": check.name, "passed": check.passed} for check in row_checks(rows)],
        "rows": rows,
    }
    return dict(rounded(record))


def _shown(record: Mapping[str, Any], arguments: argparse.Namespace) -> int:
    """Print a record; 1 if a health check of its attacks failed."""
    failed = failed_checks(record)
    if arguments.json:
        json_to_stdout(record)
        return 1 if failed else 0
    for line in markdown(record["rows"]).splitlines():
        to_stdout(line)
    for name in failed:
        to_stdout(f"health check failed, do not quote these figures: {name}")
    to_stdout(f"figures: {arguments.out}")
    return 1 if failed else 0
