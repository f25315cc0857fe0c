"""Give a bundle a certificate: choose the network and its masks, prove a threshold for each engine, write it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from framegate.export.branch import branch_graph, in_int8
from framegate.export.bundle_writer import edited, update_manifest, write_certificates
from framegate.export.calibration.attempts import CertificateQuestion, count_attempt, was_asked
from framegate.export.calibration.calibrate import fingerprint
from framegate.export.calibration.certificates import (
    FRAME,
    TRACK,
    Closer,
    check_units,
    counted,
    first_certified,
    possible_of_views,
    prove,
    units_of,
)
from framegate.export.calibration.decisions import Floats
from framegate.export.calibration.temperature import Labels
from framegate.export.data.outputs import CPU_BACKENDS, STEP, backend_outputs
from framegate.export.graph.graph import stored
from framegate.export.graph.reach import CASES, Reach, check_cases
from framegate.export.progress import Progress
from framegate.models.labelled import LabelledImages
from framegate.models.training.augment import Images
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.bundle import Bundle, sha256_file
from framegate.runtime.bundle.calibration import record_key
from framegate.runtime.bundle.certificates import (
    LINF,
    PATCH,
    CertificateRecord,
    CertificateThreshold,
    Demand,
)
from framegate.runtime.bundle.masks import MaskGrid, touched
from framegate.runtime.certificate import SLACK, CertificateNetwork
from framegate.runtime.errors import CalibrationError, UsageError
from framegate.runtime.preprocess import PreprocessSpec

_MASKS = 4
"""In a row and in a column. Most places of a patch lie in one of them only, so 16 views do: where many units prove,
they certify nearly as many frames as 81 that cover each place four times, for a fifth of the cost (certificates.md)."""
_TOGETHER = 20
"""Images whose closer bounds are found in one call."""


@dataclass(frozen=True)
class Wanted:
    """What shall be certified, and how it shall be proved.

    Attributes:
        demand: Kind and budget.
        branches: Checkpoints of the networks that are asked, whose logits are averaged; none asks the bundle's own
            network, which is for patches only.
        precision: Which of the bundle's own networks; of a branch against patches ``fp32`` or ``int8``. An L-infinity
            branch computes in float32 always.
        backends: That get a threshold.
        target_risk: See `framegate.export.calibration.certificates.prove`.
        confidence_level: See there.
        unit: ``frame`` or ``track``.
        images: Images of the proof at most; None: all.
        side: Of a mask in pixels of the network's input; None: the default.
        stride: Between masks; None: the default.
        cases: Into which one image is split for the closest bounds of an L-infinity certificate, at most; 0: not at
            all.
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
    cases: int = CASES

    @property
    def branch_precision(self) -> str | None:
        """What a branch computes in; None without one. Margins have a proof for float32 alone."""
        if not self.branches:
            return None
        return self.precision if self.demand.kind == PATCH else "fp32"


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
    check_wanted(bundle, wanted)
    with edited(bundle) as folder:
        file, spec = _network(bundle, folder, wanted, ranges, progress)
        masks = None if wanted.demand.kind == LINF else _masks(split, spec, wanted)
        precision = wanted.branch_precision or wanted.precision
        record = CertificateRecord(
            wanted.demand.kind, wanted.demand.budget, file, sha256_file(folder / file), precision, spec, masks, {}
        )
        looked = counted(len(split), split.groups, wanted.unit, wanted.images)
        both = looked < (len(split) if unseen_by_all is None else unseen_by_all)
        if not both.any():
            raise CalibrationError(
                f"certificate: the bundle's own network was trained on all {len(looked)} images looked at, so coverage "
                "cannot be counted; give more --images"
            )
        bounds = _bounds(record, folder / file, wanted) if record.kind == LINF else None
        groups = split.groups[looked] if wanted.unit == TRACK and split.groups is not None else None
        check_units(units_of(len(looked), groups), wanted.target_risk, wanted.confidence_level)
        asked = _count(bundle, record, split, wanted)
        reach = None
        if bounds is not None:
            reach = _Remembered(bounds, wanted.cases, split.images[looked], split.labels[looked], progress)
        thresholds = {
            record_key(backend, precision): _proved(
                bundle, record, folder / file, split, looked, groups, both, backend, wanted, progress, reach
            )
            for backend in wanted.backends
        }
        thresholds = {key: replace(each, attempts=asked) for key, each in thresholds.items()}
        record = replace(record, thresholds=thresholds)
        others = [each for each in bundle.certificates if not _replaces(record, each)]
        write_certificates(folder, bundle.labels, (*others, record))
        used = {each.network for each in (*others, record)}
        for old in folder.glob("certificate-*.onnx"):
            if old.name not in used:
                old.unlink()
        update_manifest(folder)
    return record


def _bounds(record: CertificateRecord, file: Path, wanted: Wanted) -> Reach:
    try:
        return Reach(file, record.preprocess, record.budget)
    except UsageError as error:
        raise UsageError(f"branch {wanted.branches[0]}: {error}") from error


def _count(bundle: Bundle, record: CertificateRecord, split: LabelledImages, wanted: Wanted) -> int:
    """How many different questions about this budget and precision these images have been asked, with this one."""
    split_sha256 = fingerprint(split)
    masks = "" if record.masks is None else repr(record.masks)
    question = CertificateQuestion(
        record.network_sha256, masks, wanted.unit, wanted.images, wanted.target_risk, wanted.confidence_level
    )
    place = f"{split_sha256}-{record.kind}-{record.budget}-{record.precision}"
    asked = was_asked(place, question)
    earlier = [
        # A bundle from another machine speaks of questions that are not noted here, and this one may be none of them.
        (each.attempts or 1) + (not asked and old.network_sha256 != record.network_sha256)
        for old in bundle.certificates
        if (old.kind, old.budget, old.precision) == (record.kind, record.budget, record.precision)
        for each in old.thresholds.values()
        if each.split_sha256 == split_sha256
    ]
    return count_attempt(place, question, max(earlier, default=0))


def _replaces(new: CertificateRecord, old: CertificateRecord) -> bool:
    """Whether an older certificate goes: a session of its precision would still take it, with its older promise."""
    if (new.kind, new.budget) != (old.kind, old.budget):
        return False
    return new.precision == old.precision or _terms(new) != _terms(old)


def _terms(record: CertificateRecord) -> set[tuple[float, float, str]]:
    return {each.terms for each in record.thresholds.values()}


def check_wanted(bundle: Bundle, wanted: Wanted) -> None:
    """Refuse what cannot be certified, before any image is read.

    Raises:
        UsageError: The budget needs a branch or just one, a branch is given twice, precision or numbers are impossible.
    """
    if wanted.images is not None and wanted.images < 1:
        raise UsageError(f"images {wanted.images}: expected at least 1")
    check_cases(wanted.cases)
    files = [each.resolve() for each in wanted.branches]
    for k, file in enumerate(files):
        if file in files[:k]:
            raise UsageError(f"branch {file}: it is given twice; give networks of different trainings (--seed)")
    if bundle.preprocess.depth > 1:
        raise UsageError(f"bundle {bundle.path}: it takes volumes; certificates are for images")
    if wanted.demand.kind == LINF and not wanted.branches:
        raise UsageError(
            f"certificate {wanted.demand}: it needs --branch, a plaincnn trained with --interval-bounds; the bundle's "
            "own network has layers without tight bounds"
        )
    if wanted.demand.kind == LINF and len(wanted.branches) > 1:
        raise UsageError(
            f"certificate {wanted.demand}: {len(wanted.branches)} branches were given; its proof is about one network, "
            "so give one"
        )
    if wanted.demand.kind == LINF and (wanted.side, wanted.stride) != (None, None):
        raise UsageError(f"certificate {wanted.demand}: it has no masks; leave --mask-side and --mask-stride out")
    if wanted.branch_precision not in (None, "fp32", "int8"):
        raise UsageError(f"precision {wanted.precision}: a branch computes in fp32 or int8; give one of these")


def _network(
    bundle: Bundle, folder: Path, wanted: Wanted, ranges: Images | None, progress: Progress
) -> tuple[str, PreprocessSpec]:
    """File of the network that is asked, and how images become its input."""
    if not wanted.branches:
        return bundle.model_path(wanted.precision).name, bundle.preprocess
    network, spec = branch_graph(wanted.branches, bundle.labels)
    if wanted.branch_precision == "int8":
        network = in_int8(network, spec, ranges, progress)
    content = stored(network)
    # The network is the same for every budget: one file, known by its content.
    name = f"certificate-{wanted.demand.kind}-{hashlib.sha256(content).hexdigest()[:8]}.onnx"
    (folder / name).write_bytes(content)
    return name, spec


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
    try:
        return MaskGrid(spec.width, spec.height, patch, side, stride)
    except UsageError as error:
        raise UsageError(
            f"certificate {wanted.demand}: a patch of {budget} pixels of regions of {width}x{height} changes up to "
            f"{patch} pixels of the network's input: {error}"
        ) from error


class _Remembered:
    """How sure of a wrong label an attacker can make a branch on some images, found out once for all engines."""

    def __init__(self, reach: Reach, cases: int, images: Images, labels: Labels, progress: Progress) -> None:
        self._images, self._labels, self._progress = images, labels, progress
        self.quick = np.empty(len(images))
        for first in range(0, len(images), STEP):
            rows = slice(first, first + STEP)
            self.quick[rows] = reach.quick(images[rows], labels[rows])
            progress("certificate, first bounds of its margins", min(rows.stop, len(images)), len(images))
        self.closer = [self._found_once("closer bounds of its margins", reach.margins, _TOGETHER)]
        if cases:
            split = partial(reach.closest, cases=cases)
            self.closer.append(self._found_once("closest bounds of its margins", split, 1))

    def _found_once(self, what: str, bound: Callable[[Images, Labels], Floats], at_once: int) -> Closer:
        found = dict[int, float]()

        def find(rows: Labels, left: int) -> Floats:
            missing = [int(row) for row in rows if int(row) not in found]
            if missing:
                found.update(zip(missing, bound(self._images[missing], self._labels[missing]), strict=True))
                known = len(found)
                # How many are left grows as the threshold falls.
                self._progress(f"certificate, {what}", known, known + max(0, left - len(rows)))
            return np.array([found[int(row)] for row in rows])

        return Closer(find, at_once)


def _proved(
    bundle: Bundle,
    record: CertificateRecord,
    file: Path,
    split: LabelledImages,
    looked: np.ndarray,
    groups: Labels | None,
    both: np.ndarray,
    backend: str,
    wanted: Wanted,
    progress: Progress,
    reach: _Remembered | None,
) -> CertificateThreshold:
    """The threshold of one engine; ``both`` are those of the images looked at that no network saw.

    ``groups`` are the tracks of the images looked at, where whole tracks count.
    """
    images, labels = split.images[looked], split.labels[looked]
    own = bundle.model_path(_own_precision(bundle) if wanted.branches else wanted.precision)
    said, engine = backend_outputs(backend, own, bundle.preprocess, {"": images}, progress, bundle.monitor)
    candidates = said[""].logits.argmax(1)
    network = CertificateNetwork(record, load_backend(backend, file), len(bundle.labels))
    possible, certified = np.empty(len(images)), np.empty(len(images))
    if reach is not None:
        possible = reach.quick
    for k, image in enumerate(images):
        if record.kind == PATCH:
            means = network.view_means(image)
            possible[k], certified[k] = possible_of_views(means, int(labels[k])), means.min(0)[candidates[k]]
        else:
            certified[k] = network.certified(image)[candidates[k]]
        if (k + 1) % STEP == 0 or k + 1 == len(images):
            progress(f"certificate, {engine}", k + 1, len(images))
    lowest = 0.0 if record.kind == LINF else -math.log(len(bundle.labels))
    closer = () if reach is None else reach.closer
    proof = prove(possible, groups, lowest, wanted.target_risk, wanted.confidence_level, closer)
    passed = certified[both] >= proof.tau + SLACK
    tracks = (None, None) if groups is None else first_certified(*_as_captured(split, looked[both], passed))
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


def _as_captured(split: LabelledImages, shown: np.ndarray, passed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What passed of some frames of tracks, and their tracks, in the order of capture."""
    part = split.subset(shown, split.name)
    order = part.as_captured()
    assert part.groups is not None
    return passed[order], part.groups[order]


def _own_precision(bundle: Bundle) -> str:
    return "fp32" if "fp32" in bundle.models else sorted(bundle.models)[0]
