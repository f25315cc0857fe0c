"""``framegate evaluate``: attacks, corruptions, foreign frames, every score; a folder with figures and a report."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from framegate.evaluation import boxes, tracks
from framegate.evaluation.attacks.memory import keep_freed_memory
from framegate.evaluation.attacks.radius import parse_epsilon
from framegate.evaluation.frames.network import Network, network_sha256
from framegate.evaluation.frames.ood import NOISE_SETS, FrameSet, from_clip, from_folder, from_images, noise_set
from framegate.evaluation.frames.own_data import calibration_of, data_for
from framegate.evaluation.measured import manifest_sha256
from framegate.evaluation.metrics.design_effect import honest
from framegate.evaluation.report.files import rounded, write_json
from framegate.evaluation.report.html import write_report
from framegate.evaluation.report.summary import summary
from framegate.evaluation.report.tables import write_tables
from framegate.evaluation.report.values import FORMAT
from framegate.evaluation.suite.plan import PLANS, Plan
from framegate.evaluation.suite.results import SuiteFigures
from framegate.evaluation.suite.run import Frames, Suite
from framegate.evaluation.suite.store import Store
from framegate.evaluation.summaries import SUMMARIES
from framegate.export.bundle_writer import to_change
from framegate.export.calibration.calibrate import fingerprint
from framegate.export.data.labelled import AUTO
from framegate.models import datasets
from framegate.models.datasets import DataSet
from framegate.models.labelled import LabelledImages
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.circumstances import circumstances
from framegate.runtime.cli.options import BUNDLE_HELP
from framegate.runtime.console import json_to_stdout, note, progress_bar, to_stderr, to_stdout
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.sources.images import ImageSource

_HEEDED = {
    "report": ("dataset", "ood", "suite", "epsilon", "limit", "seed", "threads", "restart"),
    "tracks": ("group", "target_risk", "confidence_level", "store"),
    "boxes": ("objects", "label_map", "target_risk", "confidence_level", "store", "threads"),
}
"""What is measured -> the options that have a say in it, besides those that all have."""
_SAID = {"report": "the report", "tracks": "what --tracks measures", "boxes": "what --boxes measures"}
_VIDEO = (".mp4", ".avi", ".mkv", ".mov", ".webm")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``evaluate`` to the command line."""
    parser = commands.add_parser("evaluate", help=SUMMARIES["evaluate"])
    _add_options(parser)
    parser.set_defaults(run=run)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help=BUNDLE_HELP)
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        help="the data set it was trained on, or your own pictures in one folder per label",
    )
    parser.add_argument(
        "--dataset", choices=datasets.NAMES, help="which data set it is (default: found out from the folder)"
    )
    parser.add_argument(
        "--ood",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="frames without its labels: another data set, a folder of pictures or a clip; can be repeated "
        "(default: none)",
    )
    parser.add_argument(
        "--suite",
        choices=list(PLANS),
        default="quick",
        help="how much is measured: look for a first look, quick, or full as in the published results "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--epsilon", default="8/255", help="main radius of the attacks in pixel units (default: %(default)s)"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="at most N frames in every part, for a first look (default: all)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="which frames are attacked, and everything random (default: %(default)s)",
    )
    parser.add_argument(
        "--tracks",
        action="store_true",
        help="compare rules for tracks (framegate run --track-rule) on the calibration tracks instead: wrong tracks, "
        "frames to the first use, and which rule keeps --target-risk",
    )
    parser.add_argument(
        "--boxes",
        type=Path,
        metavar="COCO.json",
        help="compare verdicts on objects with labelled boxes in COCO's format; --data: the images (default: none)",
    )
    parser.add_argument("--objects", metavar="GIVER", help="with --boxes: as of framegate run (default: none)")
    parser.add_argument(
        "--label-map",
        type=Path,
        metavar="FILE.json",
        help="with --boxes: category -> the classifier's labels that are right for it (default: the same name)",
    )
    parser.add_argument(
        "--target-risk",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="with --tracks: largest share of tracks that may ever show a wrong accepted label; with --boxes: of wrong "
        "accepted boxes (default: %(default)s)",
    )
    parser.add_argument(
        "--confidence-level",
        type=float,
        default=0.95,
        metavar="PROBABILITY",
        help="with --tracks and --boxes: with which probability (default: %(default)s)",
    )
    parser.add_argument(
        "--group",
        default=AUTO,
        help="with --tracks: which images are one track: auto (a data set's own tracks), or a regular expression for "
        "LABEL/FILE whose first group is the track (default: %(default)s)",
    )
    parser.add_argument(
        "--store",
        action="store_true",
        help="with --tracks and --boxes: write what was proved into the bundle, where framegate info shows it; by this "
        "you say that neither network nor thresholds saw the data",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: PyTorch's own choice)")
    parser.add_argument("--out", type=Path, help="folder for the report (default: runs/evaluation-BUNDLE-SUITE)")
    parser.add_argument("--restart", action="store_true", help="begin anew instead of going on in --out")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def _refuse_unheeded(arguments: argparse.Namespace) -> None:
    """Refuse options that what is measured does not heed: a figure would be taken for one that they had a say in.

    Raises:
        UsageError: One was given.
    """
    chosen = [name for name in ("boxes", "tracks") if getattr(arguments, name)]
    if len(chosen) > 1:
        raise UsageError("--tracks and --boxes measure something else each; give one of them")
    what = chosen[0] if chosen else "report"
    parser = argparse.ArgumentParser(add_help=False)
    _add_options(parser)
    for other, names in _HEEDED.items():
        for name in names:
            if name not in _HEEDED[what] and getattr(arguments, name) != parser.get_default(name):
                means = "leave it out" if other == "report" else f"give --{other}, or leave it out"
                raise UsageError(f"--{name.replace('_', '-')}: {_SAID[what]} does not depend on it; {means}")


def check_foreign(path: Path, own: DataSet) -> None:
    """Refuse a path of foreign frames before any work is done.

    Raises:
        DataError: Nothing usable lies there, it holds volumes, or it is the network's own data set.
    """
    if not path.exists():
        raise DataError(f"ood: {path}: no such file or folder; give another data set, a folder of pictures or a clip")
    if path.suffix.lower() in _VIDEO:
        return
    try:
        other = datasets.detect(path)
    except DataError:
        if not path.is_dir():
            raise
        ImageSource(path)  # says what is wrong with a folder without pictures
        return
    if other.name == own.name:
        raise DataError(f"ood: {path} holds {own.title}, the network's own data; give another data set")
    if other.depth > 1:
        raise DataError(f"ood: {path} holds volumes; give images")


def foreign_set(path: Path, own: DataSet, size: tuple[int, int], count: int, seed: int) -> FrameSet:
    """Frames without labels of the network.

    Args:
        path: Another data set, a folder of pictures, or a clip.
        own: The network's own data set.
        size: (height, width) of its images.
        count: Most frames to take.
        seed: Which patches of a clip.

    Raises:
        DataError: Nothing usable lies there, or it is the network's own data set.
    """
    if path.suffix.lower() in _VIDEO:
        return from_clip(path, count, size, seed)
    check_foreign(path, own)
    try:
        other = datasets.detect(path)
    except DataError:
        return from_folder(path, size, count)
    return from_images(other.name, other.load_test(path).images, size)


def foreign_sets(paths: Sequence[Path], own: DataSet, size: tuple[int, int], count: int, seed: int) -> list[FrameSet]:
    """`foreign_set` of each path, under different names: figures are kept and shown by them."""
    found: dict[str, FrameSet] = {}
    for path in paths:
        frames = foreign_set(path, own, size, count, seed)
        name, number = frames.name, 2
        while name in found:  # day/frames and night/frames
            name, number = f"{frames.name} ({number})", number + 1
        found[name] = replace(frames, name=name)
    return list(found.values())


def _fingerprint(frames: FrameSet) -> str:
    return fingerprint(LabelledImages(frames.name, frames.images, frames.labels))


def _check_data(data: DataSet, bundle: Bundle, arguments: argparse.Namespace) -> None:
    if data.depth != bundle.preprocess.depth:
        kinds = [
            "images" if depth == 1 else f"volumes of {depth} slices" for depth in (data.depth, bundle.preprocess.depth)
        ]
        raise DataError(
            f"{arguments.data}: {data.title} holds {kinds[0]}, the bundle takes {kinds[1]}; give the data set it was "
            "trained on"
        )
    if data.labels != bundle.labels:
        raise DataError(
            f"{arguments.data}: {data.title} has the labels {', '.join(data.labels[:3])}, ..., the bundle "
            f"{', '.join(bundle.labels[:3])}, ...; give the data set it was trained on"
        )
    if data.depth > 1 and arguments.ood:
        raise UsageError("ood: a network for volumes takes no images; leave --ood out")
    for path in arguments.ood:
        check_foreign(path, data)


def _frames(data: DataSet, bundle: Bundle, arguments: argparse.Namespace, plan: Plan) -> Frames:
    calibration = calibration_of(data, arguments.data, bundle)
    test = data.load_test(arguments.data)
    most = min(plan.calibration, max(arguments.limit, 50) if arguments.limit else plan.calibration)
    if most < len(calibration):
        calibration = _some(calibration, most, arguments.seed)
    height, width = test.images.shape[1] // data.depth, test.images.shape[2]
    foreign = foreign_sets(arguments.ood, data, (height, width), plan.ood, arguments.seed)
    noises = [noise_set(kind, min(plan.ood, 500), (height, width), arguments.seed, data.depth) for kind in NOISE_SETS]
    return Frames(calibration, test, data.depth, (*foreign, *noises))


def _some(split: LabelledImages, count: int, seed: int) -> LabelledImages:
    order = np.random.default_rng(seed).permutation(len(split))[:count].astype(np.int64)
    return split.subset(np.sort(order), split.name)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, write the report and say the most important figures."""
    if arguments.store and arguments.boxes is None and not arguments.tracks:
        raise UsageError("--store: it stores what --tracks or --boxes proves; give one of them, or leave it out")
    _refuse_unheeded(arguments)
    if arguments.store:
        to_change(arguments.bundle)  # refused before the work, if at all
    if arguments.boxes is not None:
        return boxes.run(arguments)
    if arguments.tracks:
        return tracks.run(arguments)
    plan = replace(PLANS[arguments.suite], epsilon=parse_epsilon(arguments.epsilon)).limited(arguments.limit)
    bundle = Bundle.open(arguments.bundle).for_classifiers("evaluate")
    data = data_for(arguments.data, bundle, arguments.dataset)
    _check_data(data, bundle, arguments)  # before the network is opened and thousands of images are read
    if arguments.seed < 0:
        raise UsageError(f"seed: {arguments.seed} given, expected 0 or more")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    note(f"reading {arguments.data} ({data.title}) and the network of {bundle.name}")
    keep_freed_memory()
    network = Network.from_bundle(bundle)
    frames = _frames(data, bundle, arguments, plan)
    out = arguments.out or Path(f"runs/evaluation-{bundle.name}-{arguments.suite}")
    identity = {
        "format": FORMAT,
        # Observed is the float32 network: another calibration or monitor of the same one changes nothing that is kept.
        "network_sha256": network_sha256(bundle.model_path("fp32")),
        "suite": plan.name,
        "seed": arguments.seed,
        "plan": vars(plan),
        "calibration": fingerprint(frames.calibration),
        "test": fingerprint(frames.test),
        "ood": [f"{each.name} {len(each)} {_fingerprint(each)[:16]}" for each in frames.foreign],
    }
    store = Store(out / "parts", identity, arguments.restart)
    started = time.monotonic()
    head: dict[str, Any] = {
        "format": FORMAT,
        "bundle": _about(bundle, data, manifest_sha256(bundle.path)),
        "suite": plan.name,
        "limit": arguments.limit,
        "seed": arguments.seed,
        "epsilon": plan.epsilon,
        "main_attack": plan.main_attack,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {**circumstances(), "torch": torch.__version__},
    }

    def finished(found: dict[str, Any]) -> dict[str, Any]:
        record = {**head, "seconds": round(time.monotonic() - started, 1), **found}
        full: dict[str, Any] = rounded(honest(record, frames.calibration, suite.calibration().wrong, len(frames.test)))
        return full

    try:
        with progress_bar() as progress:
            suite = Suite(network, frames, plan, arguments.seed, store, progress)
            partial = PartialReports(out, finished)
            record = finished(SuiteFigures(suite, bundle).results(partial.publish))
    except KeyboardInterrupt:
        report = f"; {out / 'report.html'} shows what was measured" if (out / "report.html").exists() else ""
        to_stderr(f"the finished parts are kept in {out}: the same command goes on from there{report}")
        raise
    write_everything(record, out)
    if arguments.json:
        json_to_stdout(record)
    else:
        _print_summary(record)
        to_stdout(f"report: {out / 'report.html'}   figures: {out / 'results.json'}, {out / 'tables.md'}")
    return 0 if all(check["passed"] for check in record["health"]) else 1


def write_everything(record: dict[str, Any], out: Path) -> None:
    """The record, its tables and its page."""
    write_json(out / "results.json", record)
    write_tables(record, out / "tables.md")
    write_report(record, out / "report.html")


class PartialReports:
    """Writes the report again while an evaluation runs, seldom enough to cost little.

    Args:
        out: Folder of the report.
        finished: Makes a record of what was found.
        clock: Seconds; for tests.
    """

    _COST = 15.0
    """A report is written once so many times its own duration has gone since the last one."""

    def __init__(
        self,
        out: Path,
        finished: Callable[[dict[str, Any]], dict[str, Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out, self._finished, self._clock = out, finished, clock
        self._next = clock() + self._COST

    def publish(self, found: Callable[[], dict[str, Any]]) -> None:
        """Write what was found so far, if it is time.

        Args:
            found: Makes the sections; they take time, so they are made only if they are written.
        """
        begun = self._clock()
        if begun < self._next:
            return
        write_everything(self._finished({**found(), "partial": True}), self._out)
        now = self._clock()
        self._next = now + self._COST * (now - begun)


def _gate_score(bundle: Bundle) -> str:
    """The score that the bundle's gate compares for the network that is evaluated; empty if there is not just one."""
    found = {key: each.score for key, each in bundle.calibrations.items()}
    own = {score for key, score in found.items() if key.endswith("/fp32")} or set(found.values())
    return own.pop() if len(own) == 1 else ""


def _about(bundle: Bundle, data: DataSet, manifest_sha256: str) -> dict[str, Any]:
    return {
        "name": bundle.name,
        "manifest_sha256": manifest_sha256,
        "architecture": str(bundle.origin.get("architecture", {}).get("name", "not stated")),
        "labels": list(bundle.labels),
        "model_file": bundle.models["fp32"],
        "precision": "fp32",
        "score": _gate_score(bundle),
        "data": data.name,
        "training": bundle.origin.get("training", {}),
    }


def _print_summary(record: dict[str, Any]) -> None:
    accuracy = record["clean"]["accuracy"]
    interval = f"[{accuracy['low']:.4f}, {accuracy['high']:.4f}]"
    to_stdout(f"clean accuracy {accuracy['value']:.4f} {interval} on {accuracy['n']} frames")
    for attack in record["attacks"]:
        if attack["key"] == record["main_attack"]:
            to_stdout(
                f"under {attack['key']}: accuracy {attack['accuracy']['value']:.4f}; wrong and accepted by the entropy "
                f"gate {attack['false_accept_rate']['value']:.1%} of {attack['n']} frames"
            )
    for purpose in ("failure", "ood", "overall"):
        to_stdout(f"best score, {purpose}: {record['best'][purpose] or 'none'}")
    for check in record["health"]:
        if not check["passed"]:
            to_stdout(f"attack health check FAILED: {check['name']}: {check['detail']}")
    to_stdout(summary(record)[0])  # what to do
