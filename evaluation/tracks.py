"""What a rule for tracks costs and gains: ``framegate evaluate --tracks``.

Every frame of every calibration track goes through an engine as it would in the vehicle; then each rule of
`framegate.runtime.policy.track` decides, frame by frame, which of them are used. A track is **wrong** if a wrong label
was used on any of its frames: that is what a driver would have seen.

The thresholds were set on these tracks, and a rule that is chosen by this table is chosen on them, too: the figures are
those of the choice, not of a test. Intervals are Clopper-Pearson, over tracks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from framegate.evaluation.metrics.intervals import proportion
from framegate.evaluation.report.files import read_json, rounded, write_json
from framegate.evaluation.report.table import Row, Table, markdown
from framegate.evaluation.report.values import Cell
from framegate.export.bundle_writer import store_promise
from framegate.export.calibration.calibrate import fingerprint
from framegate.export.calibration.decisions import Flags, accepted, predicted
from framegate.export.calibration.selective_risk import check_promise
from framegate.export.calibration.track_promise import TrackPromise, prove_rule
from framegate.export.data.labelled import Place, load_calibration, trained_on
from framegate.export.data.outputs import backend_outputs
from framegate.models.labelled import LabelledImages, Labels
from framegate.runtime.backends.choice import choose_backend, default_precision
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.object_promises import TRACKS, ObjectPromise
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import json_to_stdout, note, progress_bar, to_stdout
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.policy.track import TrackGate, TrackRule
from framegate.runtime.regions.judge import DEFAULT_RULE

FORMAT = "framegate-tracks-1"
RULES = tuple(
    TrackRule(*numbers)
    for numbers in ((1, 1, 1), (1, 1, 2), (2, 3, 2), (1, 1, 3), (3, 5, 3), (3, 4, 3), (1, 1, 4), (4, 5, 4), (5, 6, 5))
)
"""What is compared, from the laxest to the strictest."""
FIRST = 10
"""A track's first frames, on which most wrong labels come."""


@dataclass(frozen=True)
class TrackFigures:
    """One rule on a set of tracks.

    Attributes:
        rule: The rule.
        tracks: How many there are.
        used: Tracks with a used frame.
        wrong: Tracks with a wrong label on a used frame.
        wrong_at_worst: Those that would be wrong if the vehicle rejected or dropped some of their frames besides. A
            frame that is missing between two with a wrong label lets them agree, so under most rules these are more.
        wrong_first: Those whose first used label was wrong.
        flips: Tracks whose used label changed.
        frames: Frames of all tracks.
        used_frames: Used ones.
        wrong_frames: Used ones with a wrong label.
        wrong_early: Those among the first `FIRST` frames of their track.
        waits: Frames to the first used one, from 1, of each track that was used.
    """

    rule: TrackRule
    tracks: int
    used: int
    wrong: int
    wrong_at_worst: int
    wrong_first: int
    flips: int
    frames: int
    used_frames: int
    wrong_frames: int
    wrong_early: int
    waits: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """A record of plain JSON values."""
        waits = np.array(self.waits or (0,))
        return {
            "rule": str(self.rule),
            "tracks": self.tracks,
            "tracks_used": proportion(self.used, self.tracks).to_json(),
            "tracks_wrong": proportion(self.wrong, self.tracks).to_json(),
            "tracks_wrong_count": self.wrong,
            "tracks_wrong_at_worst_count": self.wrong_at_worst,
            "tracks_wrong_first_count": self.wrong_first,
            "tracks_flipped_count": self.flips,
            "coverage": self.used_frames / self.frames,
            "wrong_frames": self.wrong_frames,
            "wrong_frames_early": self.wrong_early,
            "frames_to_first_accept": {
                "median": float(np.median(waits)),
                "p90": float(np.percentile(waits, 90)),
                "max": int(waits.max()),
            }
            if self.waits
            else None,
            "delay_frames": self.rule.delay,
            "longest_delay_frames": self.rule.longest_delay,
        }


def tracks_of(groups: Labels) -> list[Labels]:
    """The frame numbers of each track, in the order in which frames are given."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def apply_rule(rule: TrackRule, labels: Labels, found: Labels, passed: Flags, groups: Labels) -> TrackFigures:
    """What a rule does on tracks.

    Args:
        rule: The rule.
        labels: (N,) true labels.
        found: (N,) predicted ones.
        passed: (N,) which frames the gate accepts.
        groups: (N,) track of each frame.
    """
    tracks = tracks_of(groups)
    wrong_tracks = at_worst = wrong_first = flips = used_frames = wrong_frames = wrong_early = 0
    waits = []
    for track in tracks:
        gate = TrackGate(rule)
        used = [
            (place, int(found[k]), bool(found[k] == labels[k]))
            for place, k in enumerate(track)
            if not gate.decide(bool(passed[k]), str(found[k])) and passed[k]
        ]
        wrong = [place for place, _, right in used if not right]
        used_frames += len(used)
        wrong_frames += len(wrong)
        wrong_early += sum(place < FIRST for place in wrong)
        wrong_tracks += bool(wrong)
        at_worst += _may_be_wrong(rule, labels[track], found[track], passed[track])
        flips += len({label for _, label, _ in used}) > 1
        if used:
            waits.append(used[0][0] + 1)
            wrong_first += not used[0][2]
    return TrackFigures(
        rule, len(tracks), len(waits), wrong_tracks, at_worst, wrong_first, flips, len(labels), used_frames,
        wrong_frames, wrong_early, tuple(waits),
    )  # fmt: skip


def _may_be_wrong(rule: TrackRule, labels: Labels, found: Labels, passed: Flags) -> bool:
    """Whether a wrong label can be used on a track, whichever of its frames are rejected or dropped besides."""
    for label in np.unique(found[passed & (found != labels)]):
        gate = TrackGate(rule)  # nothing helps this label more than that no other one is accepted
        here = passed & (found == label)
        used = [not gate.decide(bool(one), str(label)) for one in here]
        if (here & (found != labels) & used).any():
            return True
    return False


def run(arguments: argparse.Namespace) -> int:
    """Judge every calibration track, compare the rules, write the record and print the table.

    Raises:
        DataError: The data have no tracks, or other labels than the bundle.
        FramegateError: The bundle cannot be opened, or the engine failed.
    """
    check_promise(arguments.target_risk, arguments.confidence_level)
    bundle = Bundle.open(arguments.bundle).for_classifiers("evaluate --tracks")
    with progress_bar() as progress:
        known = trained_on(bundle.origin, bundle.calibrations.values())
        place = Place(arguments.data, None, arguments.group, trained_on=known)
        split, unseen = load_calibration(place, bundle.labels, bundle.preprocess, progress)
    if split.groups is None:
        raise DataError(
            f"{arguments.data}: its images belong to no tracks; --tracks needs frames that belong together: a data set "
            "with tracks, or a folder with --group"
        )
    backend = choose_backend("auto")
    precision = default_precision(backend, bundle.models)
    found = evaluate_tracks(bundle, split, backend, precision)
    found["unseen"] = found["unseen"] and bool(unseen)
    promise = prove_tracks(found, arguments.target_risk, arguments.confidence_level)
    record = rounded({**found, "promise": promise.to_json()})
    out = (arguments.out or Path(f"runs/tracks-{bundle.name}")) / "tracks.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, record)
    if arguments.json:
        json_to_stdout(record)
    else:
        for line in markdown(table([record])).splitlines():
            to_stdout(line)
        to_stdout(promise.describe())
        if not record["unseen"]:
            to_stdout("NO promise: the thresholds of this bundle were set on these tracks; give --data with others")
        to_stdout(f"figures: {out}")
    if arguments.store:
        _store(bundle, record, promise, fingerprint(split))
    return 0


def _store(bundle: Bundle, record: dict[str, Any], promise: TrackPromise, data: str) -> None:
    """Write the promise into the bundle.

    Raises:
        UsageError: There is none.
    """
    if promise.rule is None or not record["unseen"]:
        why = promise.describe() if promise.rule is None else "the thresholds were set on these very tracks"
        raise UsageError(f"--store: nothing was stored, for nothing is promised: {why}")
    stored = ObjectPromise(
        TRACKS, promise.target_risk, promise.confidence_level, promise.wrong, promise.tracks, promise.bound,
        bundle.calibrations[record["key"]].threshold, rule=str(promise.rule), data=data,
    )  # fmt: skip
    store_promise(bundle, record["key"], stored)
    note(f"stored in {bundle.path} for {record['key']}")


def evaluate_tracks(bundle: Bundle, split: LabelledImages, backend: str, precision: str) -> dict[str, Any]:
    """The record of every rule on the tracks of a split.

    Raises:
        DataError: The bundle is not calibrated for this backend and precision, or the split has no tracks.
    """
    calibration = bundle.calibration(backend, precision)
    if calibration is None:
        raise DataError(f"bundle {bundle.name}: not calibrated for {backend}/{precision}; run `framegate calibrate`")
    if split.groups is None:
        raise DataError(f"{split.name}: its frames belong to no tracks")
    with progress_bar() as progress, bundle.loaded(precision) as model:
        images = {split.name: split.images}
        outputs, engine = backend_outputs(backend, model, bundle.preprocess, images, progress, bundle.monitor)
    passed, found = accepted(outputs[split.name], calibration), predicted(outputs[split.name])
    order = split.as_captured()  # a rule hangs on which frame came first
    judged = split.labels[order], found[order], passed[order], split.groups[order]
    return {
        "format": FORMAT,
        "bundle": {"name": bundle.name, "digest": bundle.digest},
        "engine": engine,
        "key": f"{backend}/{precision}",
        "data": split.name,
        "unseen": fingerprint(split) != calibration.fingerprint,
        "frames": len(split),
        "accuracy": proportion(int((found == split.labels).sum()), len(split)).to_json(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": circumstances(),
        "rules": [apply_rule(rule, *judged).to_json() for rule in RULES],
    }


def prove_tracks(record: dict[str, Any], target_risk: float, confidence_level: float) -> TrackPromise:
    """Which rule keeps a target on the tracks of a record, tested from the strictest to the laxest of `RULES`.

    Raises:
        UsageError: The target or the confidence level is no share.
    """
    # The camera check, a drift alarm or a busy processor take frames away that were all counted here.
    wrong = {each["rule"]: each["tracks_wrong_at_worst_count"] for each in record["rules"]}
    counted = [(rule, wrong[str(rule)]) for rule in reversed(RULES)]
    return prove_rule(counted, record["rules"][0]["tracks"], target_risk, confidence_level)


def read_tracks(path: Path) -> list[dict[str, Any]]:
    """The records of a folder, in the order of their names.

    Raises:
        DataError: One is no record of tracks, or there is none.
    """
    records = [read_json(each, "write it anew with `framegate evaluate --tracks`") for each in sorted(path.glob("*"))]
    if not records or any(record.get("format") != FORMAT for record in records):
        raise DataError(f"{path}: expected records of `framegate evaluate --tracks`")
    return records


def table(records: Sequence[dict[str, Any]]) -> Table:
    """Wrong tracks and delays of every rule."""
    rows = []
    for record in records:
        for each in record["rules"]:
            waits = each["frames_to_first_accept"]
            wrong = each["tracks_wrong"]
            rows.append(
                Row(
                    (
                        record["bundle"]["name"],
                        record["key"],
                        f"{each['rule']} (default)" if each["rule"] == str(DEFAULT_RULE) else each["rule"],
                        Cell(
                            f"{each['tracks_wrong_count']} of {each['tracks']}",
                            f"[{wrong['low']:.1%}, {wrong['high']:.1%}]",
                        ),
                        Cell(str(each["tracks_wrong_first_count"])),
                        Cell(str(each["tracks_flipped_count"])),
                        Cell(f"{each['tracks_used']['value']:.1%}"),
                        Cell(f"{waits['median']:g} / {waits['p90']:g}" if waits else "–"),
                        Cell(f"{each['coverage']:.1%}"),
                        Cell(f"{each['wrong_frames']} ({each['wrong_frames_early']})"),
                    )
                )
            )
    return Table(
        "Rules for tracks, on the calibration tracks",
        (
            "bundle",
            "engine",
            "rule M/N/K",
            "tracks ever wrong",
            "first label wrong",
            "label changes",
            "tracks used",
            "frames to first use, median / 90 %",
            "frames used",
            f"wrong frames (in the first {FIRST})",
        ),
        rows,
        note="A track is wrong if a wrong label was used on any of its frames. The thresholds were set on these "
        "tracks, and the default is the rule that uses a track soonest without a wrong one among them: both are "
        "choices, no test. Intervals are 95 %. Signs that a detector misses are not covered.",
    )
