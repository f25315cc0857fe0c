"""``framegate certify``: give a bundle a certificate against patches or L-infinity changes."""

from __future__ import annotations

import argparse
import hashlib
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from framegate.export.bundle_writer import edited, update_manifest
from framegate.export.calibration.calibrate import fingerprint
from framegate.export.calibration.certificates import (
    FRAME,
    TRACK,
    counted,
    first_certified,
    possible_of_logits,
    possible_of_views,
    prove,
)
from framegate.export.commands.summaries import SUMMARIES
from framegate.export.data.labelled import (
    AUTO,
    TRAINING_RECORD,
    Place,
    load_calibration,
    load_training,
    trained_on,
    with_held_out,
)
from framegate.export.data.outputs import CPU_BACKENDS, STEP, backend_outputs
from framegate.export.export import QUANTISER_IMAGES
from framegate.export.graph.bounds import halved, stored, with_bounds
from framegate.export.graph.fold import deployment_model
from framegate.export.graph.translate import to_onnx
from framegate.export.int8.choice import HELD_OUT, choose_int8
from framegate.export.int8.sensitivity import LayerSensitivity
from framegate.export.progress import Progress
from framegate.models.checkpoint import held_out_share, load_checkpoint
from framegate.models.ensemble import MeanLogits
from framegate.models.labelled import LabelledImages
from framegate.models.registry import architecture
from framegate.models.training.augment import Images
from framegate.runtime.backends.choice import choose_backend, load_backend
from framegate.runtime.bundle.bundle import Bundle, sha256_file, write_bundle_json
from framegate.runtime.bundle.calibration import record_key
from framegate.runtime.bundle.certificates import (
    FILE,
    FORMAT,
    LINF,
    PATCH,
    CertificateRecord,
    CertificateThreshold,
    Demand,
    budget_text,
    labels_sha256,
)
from framegate.runtime.bundle.masks import MaskGrid, touched
from framegate.runtime.bundle.search import bundle_to_change
from framegate.runtime.certificate import SLACK, CertificateNetwork
from framegate.runtime.console import json_to_stdout, progress_bar, to_stdout
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.preprocess import PreprocessSpec

_MASKS = 4
"""In a row and in a column. Each place of a patch lies in about one of them, so 16 views certify: nearly as many frames
as 81 views that cover each place four times, for a fifth of the cost (docs/certificates.md)."""


@dataclass(frozen=True)
class Wanted:
    """What shall be certified, and how it shall be proved.

    Attributes:
        demand: Kind and budget.
        branches: Checkpoints of the networks that are asked, whose logits are averaged; none asks the bundle's own
            network, which is for patches only.
        precision: Which of the bundle's own networks; of a branch against patches ``fp32`` or ``int8``. Bounds of an
            L-infinity branch are computed in float32 always.
        backends: That get a threshold.
        target_risk: See `framegate.export.calibration.certificates.prove`.
        confidence_level: See there.
        unit: ``frame`` or ``track``.
        images: Images of the proof at most; None: all.
        side: Of a mask in pixels of the network's input; None: the default.
        stride: Between masks; None: the default.
        seed: Of the draw of frames.
    """

    demand: Demand
    branches: tuple[Path, ...] = ()
    precision: str = "fp32"
    backends: tuple[str, ...] = CPU_BACKENDS
    target_risk: float = 0.02
    confidence_level: float = 0.95
    unit: str = FRAME
    images: int | None = None
    side: int | None = None
    stride: int | None = None
    seed: int = 0


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``certify`` to the command line."""
    parser = commands.add_parser("certify", help=SUMMARIES["certify"])
    parser.add_argument("bundle", help="name of a bundle, or its folder; it is replaced by one with the certificate")
    parser.add_argument(
        "--data",
        type=Path,
        help="the known data set that it was trained on: the images that it keeps apart from training prove "
        "(default: --unseen alone)",
    )
    parser.add_argument(
        "--unseen",
        type=Path,
        metavar="DIR",
        help="images that neither network ever saw, a folder per label or a known data set, whose test split is used "
        "(default: none but what the data set of --data keeps apart)",
    )
    parser.add_argument("--budget", required=True, help="patch:5 (pixels of the images) or linf:2/255")
    parser.add_argument(
        "--branch",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="checkpoint of a small network that is asked instead of the bundle's own; linf needs one, a plaincnn "
        "trained with --interval-bounds; given several times, against patches, their mean answer is asked (default: "
        "the bundle's own network)",
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        help="of the bundle's own network, or of a branch against patches, which int8 makes two to four times as "
        "quick where the processor has instructions for it (default: %(default)s)",
    )
    parser.add_argument("--backend", default="all", help="engine; all: those of the CPU (default: %(default)s)")
    defaults = Wanted(Demand(PATCH, 1))
    parser.add_argument(
        "--target-risk", type=float, default=defaults.target_risk, metavar="SHARE",
        help="largest share of all captured units that any attack may make wrong and accepted (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--confidence-level", type=float, default=defaults.confidence_level, metavar="PROBABILITY",
        help="of that bound; with a second promise on the same data divide 1 less it (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--unit", choices=[FRAME, TRACK], default=FRAME,
        help="what is counted: frames (one random one of each track), or whole tracks (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--group", default=AUTO, help="see framegate calibrate (default: %(default)s)")
    parser.add_argument("--images", type=int, metavar="N", help="random images of the proof (default: all)")
    parser.add_argument(
        "--mask-side", type=int, metavar="PIXELS", help="of the network's input (default: such that masks just cover)"
    )
    parser.add_argument(
        "--mask-stride", type=int, metavar="PIXELS", help="between masks (default: four masks in a row)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw of frames (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Certify, write, and say what is promised."""
    backends = CPU_BACKENDS if arguments.backend == "all" else (choose_backend(arguments.backend),)
    wanted = Wanted(
        Demand.parse(arguments.budget), tuple(arguments.branch), arguments.precision, backends, arguments.target_risk,
        arguments.confidence_level, arguments.unit, arguments.images, arguments.mask_side, arguments.mask_stride,
        arguments.seed,
    )  # fmt: skip
    path = bundle_to_change(arguments.bundle)
    bundle = Bundle.open(path).for_classifiers("certify")
    with progress_bar() as progress:
        known = _trained_on(bundle, wanted.branches)
        place = Place(arguments.data, arguments.unseen, arguments.group, trained_on=known)
        split, unseen = load_calibration(place, bundle.labels, bundle.preprocess, progress)
        if not unseen:
            raise UsageError(
                "nobody says that the networks never saw these images, so they prove nothing: give them as "
                "--unseen DIR if they did not"
            )
        # The proof counts answers of the branch alone, so what the branch never saw proves, though the trunk saw it.
        unseen_by_all, share = len(split), _held_out(wanted.branches) if unseen == TRAINING_RECORD else 0.0
        if share:
            split = with_held_out(split, place, bundle.labels, bundle.preprocess, share)
        ranges = None
        if _branch_precision(wanted) == "int8":
            # Without what was held out: that proves, and must not choose the network.
            ranges = load_training(place, bundle.labels, bundle.preprocess, progress, share).images
        record = certify(bundle, split, wanted, progress, unseen_by_all, ranges)
    if arguments.json:
        promises = {key: record.promise(key) for key in sorted(record.thresholds)}
        json_to_stdout({"bundle": str(path), "certificate": record.to_json(), "promises": promises})
        return 0
    for key in sorted(record.thresholds):
        found = record.thresholds[key]
        to_stdout(f"{budget_text(record.kind, record.budget)}, {key}: tau {found.tau:.4f}: {record.promise(key)}")
        to_stdout(f"  {found.coverage:.1%} of the calibration frames looked at are certified")
        if found.tracks_certified is not None:
            wait = "" if found.frames_to_first is None else f", after {found.frames_to_first:g} frames (median)"
            to_stdout(f"  {found.tracks_certified:.1%} of the tracks have a certified frame{wait}")
    to_stdout(f"bundle: {path}")
    return 0


def _trained_on(bundle: Bundle, branches: tuple[Path, ...]) -> str:
    """The known data set whose training split trained every network that is asked; empty if they do not all say so."""
    data = trained_on(bundle.origin)
    return data if all(load_checkpoint(each)[1]["notes"].get("data") == data for each in branches) else ""


def _held_out(branches: tuple[Path, ...]) -> float:
    """Share of the training split's units that no branch was trained on, as their checkpoints say, or 0."""
    shares = {held_out_share(load_checkpoint(each)[1]["notes"]) for each in branches}
    return shares.pop() if len(shares) == 1 else 0.0


def certify(
    bundle: Bundle,
    split: LabelledImages,
    wanted: Wanted,
    progress: Progress,
    unseen_by_all: int | None = None,
    ranges: Images | None = None,
) -> CertificateRecord:
    """Replace a bundle by one with a certificate; one of the same kind and budget is replaced.

    Only one of another precision that promises the same stays beside it.

    Args:
        bundle: Opened.
        split: Images that the network that is asked was not trained on.
        wanted: What shall be certified.
        progress: Called during the work.
        unseen_by_all: So many of them, from the start, no network of the bundle was trained on either, and coverage is
            that of these; None: all.
        ranges: (N, h, w, 3) uint8 BGR training images that set the ranges of a branch in INT8.

    Raises:
        BundleError: The bundle cannot be written.
        CalibrationError: No threshold keeps the target; the bundle is unchanged.
        DataError: The branch has other labels.
        UsageError: The budget cannot be covered, or the branch has no bounds.
    """
    _check(bundle, wanted)
    with edited(bundle.path) as folder, _networks(bundle, folder, wanted, ranges, progress) as (file, plain, spec):
        masks = None if wanted.demand.kind == LINF else _masks(split, spec, wanted)
        precision = _branch_precision(wanted) or wanted.precision
        record = CertificateRecord(
            wanted.demand.kind, wanted.demand.budget, file, sha256_file(folder / file), precision, spec, masks, {}
        )
        looked = counted(len(split), split.groups, wanted.unit, wanted.images, wanted.seed)
        thresholds = {
            record_key(backend, precision): _proved(
                bundle, record, folder / file, plain, split, looked, backend, wanted, progress, unseen_by_all
            )
            for backend in wanted.backends
        }
        record = replace(record, thresholds=thresholds)
        others = [each for each in bundle.certificates if not _replaces(record, each)]
        write_bundle_json(
            folder,
            FILE,
            {
                "format": FORMAT,
                "labels_sha256": labels_sha256(bundle.labels),
                "certificates": [each.to_json() for each in (*others, record)],
            },
        )
        used = {each.network for each in (*others, record)}
        for old in folder.glob("certificate-*.onnx"):
            if old.name not in used:
                old.unlink()
        update_manifest(folder)
    return record


def _replaces(new: CertificateRecord, old: CertificateRecord) -> bool:
    """Whether an older certificate goes: a session of its precision would still take it, with its older promise."""
    if (new.kind, new.budget) != (old.kind, old.budget):
        return False
    return new.precision == old.precision or _terms(new) != _terms(old)


def _terms(record: CertificateRecord) -> set[tuple[float, float, str]]:
    return {(each.target_risk, each.confidence_level, each.unit) for each in record.thresholds.values()}


def _check(bundle: Bundle, wanted: Wanted) -> None:
    if bundle.preprocess.depth > 1:
        raise UsageError(f"bundle {bundle.path}: it takes volumes; certificates are for images")
    if wanted.demand.kind == LINF and not wanted.branches:
        raise UsageError(
            f"certificate {wanted.demand}: it needs --branch, a plaincnn trained with --interval-bounds; the bundle's "
            "own network has layers without tight bounds"
        )
    if wanted.demand.kind == LINF and len(wanted.branches) > 1:
        raise UsageError(
            f"certificate {wanted.demand}: {len(wanted.branches)} branches were given; its bounds are those of one "
            "network, so give one"
        )
    if _branch_precision(wanted) not in (None, "fp32", "int8"):
        raise UsageError(f"precision {wanted.precision}: a branch computes in fp32 or int8; give one of these")


def _branch_precision(wanted: Wanted) -> str | None:
    """What a branch computes in; None without one. Interval bounds have a proof for float32 alone."""
    if not wanted.branches:
        return None
    return wanted.precision if wanted.demand.kind == PATCH else "fp32"


def branch_graph(paths: tuple[Path, ...], labels: tuple[str, ...]) -> tuple[onnx.ModelProto, PreprocessSpec]:
    """The networks of checkpoints as one graph, which averages their logits, and how images become its input.

    Raises:
        DataError: One cannot be read, has other labels, or takes another input than the first.
    """
    models, specs = [], []
    for path in paths:
        model, record = load_checkpoint(path)
        if tuple(record["labels"]) != labels:
            raise DataError(
                f"branch {path}: it has {len(record['labels'])} labels of its own, the bundle {len(labels)}; give one "
                "trained on the bundle's data"
            )
        models.append(model)
        specs.append(architecture(record["architecture"]["name"]).preprocess)
        if specs[-1] != specs[0]:
            raise DataError(f"branch {path}: it takes another input than {paths[0]}; give networks that take the same")
    model = models[0] if len(models) == 1 else MeanLogits(models)
    return halved(to_onnx(deployment_model(model), specs[0])), specs[0]


def _in_int8(
    plain: onnx.ModelProto, spec: PreprocessSpec, ranges: Images | None, progress: Progress
) -> onnx.ModelProto:
    """A branch quantised by training images alone, of which some set the ranges and others judge."""
    if ranges is None or len(ranges) < 2:
        raise UsageError("INT8: a branch needs training images, whose activations set its ranges; give --data")
    drawn = ranges[np.random.default_rng(0).permutation(len(ranges))]
    count = min(QUANTISER_IMAGES, len(drawn) // 2)
    images, held_out = drawn[:count], drawn[count:][:HELD_OUT]
    sensitivity = LayerSensitivity(plain, images, spec, progress)
    return choose_int8(plain, images, held_out, spec, sensitivity, "auto", progress).model


@contextmanager
def _networks(
    bundle: Bundle, folder: Path, wanted: Wanted, ranges: Images | None, progress: Progress
) -> Iterator[tuple[str, Path, PreprocessSpec]]:
    """File of the network that is asked, a file of the network without bounds, and how images become its input."""
    if not wanted.branches:
        name = bundle.model_path(wanted.precision).name
        yield name, folder / name, bundle.preprocess
        return
    plain, spec = branch_graph(wanted.branches, bundle.labels)
    if _branch_precision(wanted) == "int8":
        plain = _in_int8(plain, spec, ranges, progress)
    demand = wanted.demand
    asked = with_bounds(plain, spec, demand.budget) if demand.kind == LINF else plain
    content = stored(asked)
    # The network of patch certificates is the same for every size of patch: one file, known by its content.
    mark = demand.budget if demand.kind == LINF else f"-{hashlib.sha256(content).hexdigest()[:8]}"
    name = f"certificate-{demand.kind}{mark}.onnx"
    (folder / name).write_bytes(content)
    with tempfile.TemporaryDirectory(prefix="framegate-") as private:
        (Path(private) / name).write_bytes(stored(plain))
        yield name, Path(private) / name, spec


def _masks(split: LabelledImages, spec: PreprocessSpec, wanted: Wanted) -> MaskGrid:
    """Masks over every patch of the asked size in images of the split's size."""
    height, width = split.images.shape[1:3]
    budget = wanted.demand.budget
    patch = max(touched(budget, width, spec.width, spec.resize), touched(budget, height, spec.height, spec.resize))
    shorter, longer = sorted((spec.width, spec.height))
    side, stride = wanted.side, wanted.stride
    # Masks that just cover: where they overlap further, some places lie in two and others in one, and those decide.
    if side is None:
        widest = min(shorter, patch + math.ceil((longer - patch + 1) / _MASKS) - 1)
        side = widest if stride is None else patch + stride - 1
    if stride is None:
        stride = max(1, side - patch + 1)
    return MaskGrid(spec.width, spec.height, patch, side, stride)


def _proved(
    bundle: Bundle,
    record: CertificateRecord,
    file: Path,
    plain: Path,
    split: LabelledImages,
    looked: np.ndarray,
    backend: str,
    wanted: Wanted,
    progress: Progress,
    unseen_by_all: int | None,
) -> CertificateThreshold:
    """The threshold of one engine."""
    images, labels = split.images[looked], split.labels[looked]
    own = bundle.model_path(_own_precision(bundle) if wanted.branches else wanted.precision)
    said, engine = backend_outputs(backend, own, bundle.preprocess, {"": images}, progress, bundle.monitor)
    candidates = said[""].logits.argmax(1)
    network = CertificateNetwork(record, load_backend(backend, file), len(bundle.labels))
    possible, certified = np.empty(len(images)), np.empty(len(images))
    if record.kind == LINF:
        clean, _ = backend_outputs(backend, plain, record.preprocess, {"": images}, progress)
        possible = possible_of_logits(clean[""].logits, labels)
    for k, image in enumerate(images):
        if record.kind == PATCH:
            means = network.view_means(image)
            possible[k], certified[k] = possible_of_views(means, int(labels[k])), means.min(0)[candidates[k]]
        else:
            certified[k] = network.certified(image)[candidates[k]]
        if (k + 1) % STEP == 0 or k + 1 == len(images):
            progress(f"certificate, {engine}", k + 1, len(images))
    groups = split.groups[looked] if wanted.unit == TRACK and split.groups is not None else None
    lowest = 0.0 if record.kind == LINF else -math.log(len(bundle.labels))
    proof = prove(possible, groups, lowest, wanted.target_risk, wanted.confidence_level)
    both = looked < (len(split) if unseen_by_all is None else unseen_by_all)
    passed = certified[both] >= proof.tau + SLACK
    tracks = (None, None) if groups is None else first_certified(passed, groups[both])
    return CertificateThreshold(
        tau=proof.tau,
        target_risk=wanted.target_risk,
        confidence_level=wanted.confidence_level,
        risk_bound=proof.risk_bound,
        events=proof.events,
        units=proof.units,
        # One frame of each track is a frame of a random track.
        unit=wanted.unit,
        coverage=float(np.mean(passed)),
        engine=engine,
        split_sha256=fingerprint(split),
        tracks_certified=tracks[0],
        frames_to_first=tracks[1],
    )


def _own_precision(bundle: Bundle) -> str:
    return "fp32" if "fp32" in bundle.models else sorted(bundle.models)[0]
