"""What gets through under each fault: the table benchmarks/results/faults.json.gz.

    python -m framegate.benchmarks.cost.faults --out faults.json [--photos DIR]

Every kind and severity of `framegate run --inject` is injected into the shipped clips, from frame 12 to the end, and
goes through a pipeline with a real bundle; of the photographs (unrelated images) every one has the fault. Counted, per
region and in all: rejected, rejected with the reason that names the fault, accepted, and **false accepts**: accepted
with another label than the same region of the same frame without the fault has, or where it was not accepted without
the fault. Intervals are Clopper-Pearson at 95 %; they treat frames as independent, which frames of a clip are not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from framegate.benchmarks.checkout import BUNDLES, CLIPS
from framegate.evaluation.metrics.intervals import proportion
from framegate.evaluation.report.files import write_json
from framegate.runtime.circumstances import circumstances
from framegate.runtime.errors import FramegateError, UsageError
from framegate.runtime.faults.inject import (
    KINDS,
    ONE_SEVERITY,
    Fault,
    FaultInjector,
    fault_kinds,
)
from framegate.runtime.faults.plugins import load_plugins
from framegate.runtime.pipeline import Pipeline
from framegate.runtime.roi import Roi, parse_rois
from framegate.runtime.session import Session
from framegate.runtime.sources.open import open_source
from framegate.runtime.verdict import Prediction, Reason

BUNDLE = BUNDLES / "hybrid-cifar10.bundle"
DEMO_ROIS = ("black-car=795,385,160,130", "white-car=1000,370,270,160", "sky=700,20,160,130", "road=560,500,160,130")
"""Those of the Makefile."""
FIRST = 12
"""First frame with the fault: the limits have been learnt by then."""
HARD = ("black", "freeze", "stuck", "saturated", "torn", "half", "size", "grey16")
"""Nothing may be accepted under these."""
NAMES: dict[str, tuple[Reason, ...]] = {
    "black": (Reason.BLACK,),
    "freeze": (Reason.FROZEN,),
    "stuck": (Reason.FROZEN,),
    "saturated": (Reason.SATURATED,),
    "contrast": (Reason.LOW_CONTRAST,),
    "fog": (Reason.LOW_CONTRAST,),
    "rain": (Reason.LOW_CONTRAST, Reason.NOISY, Reason.BLURRED),
    "glare": (Reason.SATURATED, Reason.LOW_CONTRAST),
    "blur": (Reason.BLURRED,),
    "covered": (Reason.LOW_CONTRAST, Reason.BLURRED, Reason.BLACK),
    "noise": (Reason.NOISY,),
    "compression": (Reason.NOISY,),
    "channel": (Reason.COLOUR_LOST,),
    "half": (Reason.TORN,),
    "torn": (Reason.TORN,),
    "size": (Reason.WRONG_SIZE,),
    "grey16": (Reason.BAD_INPUT,),
}
"""The reasons that name a fault; kinds of other packages are not camera faults and have none."""
ATTACKS = {"fgsm": (Reason.ACTIVATION_SHIFT,), "pgd": (Reason.ACTIVATION_SHIFT,)}
"""The same for faults that the monitor is there for, not the camera check."""
ATTACKED = 12
"""Frames that are attacked: PGD on every region takes a second a frame."""
Verdicts = dict[tuple[int, str], Prediction]


@dataclass
class Tally:
    """Counts over the verdicts under one fault."""

    verdicts: int = 0
    rejected: int = 0
    named: int = 0
    other_label: int = 0
    newly_accepted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, prediction: Prediction, clean: Prediction | None, names: tuple[Reason, ...]) -> None:
        """Count one verdict, beside the one on the same region without the fault."""
        self.verdicts += 1
        self.rejected += not prediction.accepted
        self.named += any(reason in names for reason in prediction.reasons)
        self.reasons.update(reason.value for reason in prediction.reasons)
        if prediction.accepted and clean is not None:
            self.newly_accepted += not clean.accepted
            self.other_label += clean.accepted and clean.candidate != prediction.candidate

    def to_json(self) -> dict[str, Any]:
        """Shares with their intervals, and the counts."""
        return {
            "verdicts": self.verdicts,
            "rejected": proportion(self.rejected, self.verdicts).to_json(),
            "right_reason": proportion(self.named, self.verdicts).to_json(),
            "accepted": proportion(self.verdicts - self.rejected, self.verdicts).to_json(),
            "false_accepts": proportion(self.other_label + self.newly_accepted, self.verdicts).to_json(),
            "accepted_with_another_label": self.other_label,
            "accepted_where_clean_is_rejected": self.newly_accepted,
            "reasons": dict(sorted(self.reasons.items())),
        }


@dataclass(frozen=True)
class Footage:
    """A source of frames and the regions to judge.

    Attributes:
        name: For the table.
        uri: For `open_source`.
        rois: Regions, the whole frame among them.
        first: First frame with a fault.
        kinds: Faults that make sense here.
    """

    name: str
    uri: str
    rois: tuple[Roi, ...]
    first: int
    kinds: tuple[str, ...]

    def judge(self, session: Session, fault: Fault | None, plugins: dict[str, Any], limit: int | None) -> Verdicts:
        """All verdicts, by frame and region; with the fault from `first` to the end."""
        source = open_source(self.uri, realtime=False)
        faulty = FaultInjector(source, (fault,), plugins) if fault else source
        verdicts: Verdicts = {}
        with Pipeline(faulty, session, rois=self.rois, lossless=True) as pipeline:
            for prediction in pipeline:
                if limit is not None and prediction.frame_id >= limit:
                    break
                verdicts[prediction.frame_id, prediction.stream] = prediction
        return verdicts


def footage(photos: Path | None, plugins: bool) -> list[Footage]:
    """The shipped clips, and photographs if there are some."""
    kinds = tuple(kind for kind in fault_kinds() if plugins or kind in NAMES)
    whole = (Roi.whole(),)
    demo = CLIPS / "highway_1280x720_25fps.mp4"
    found = [
        Footage(demo.stem, str(demo), whole + parse_rois(list(DEMO_ROIS)), FIRST, kinds),
        Footage("highway_960x540_25fps", str(CLIPS / "highway_960x540_25fps.mp4"), whole, FIRST, kinds),
    ]
    if photos is not None:
        # Photographs have no frame before, and no size that they must have.
        unrelated = tuple(kind for kind in kinds if kind != "size" and (kind in KINDS or kind not in NAMES))
        found.append(Footage("photos", str(photos), whole, 0, unrelated))
    return found


def health_alarms(verdicts: Verdicts) -> dict[str, Any]:
    """Frames without a fault that the health check rejects."""
    named = {reason for reasons in NAMES.values() for reason in reasons}
    alarms = {frame for (frame, _), p in verdicts.items() if named & set(p.reasons)}
    frames = {frame for frame, _ in verdicts}
    return {"frames": len(frames), "false_alarms": proportion(len(alarms), len(frames)).to_json()}


def rows_of(item: Footage, session: Session, plugins: dict[str, Any], limit: int | None) -> dict[str, Any]:
    """The whole part of the table for one source."""
    clean = item.judge(session, None, {}, limit)
    faults: dict[str, Any] = {}
    for kind in item.kinds:
        frames = [limit, item.first + ATTACKED if kind in ATTACKS else None]
        last = min((number for number in frames if number is not None), default=None)
        for severity in (None,) if kind in ONE_SEVERITY else range(1, 6):
            started = time.monotonic()
            fault = Fault(kind, item.first, 10**9, severity or 3)
            tallies = {roi.name: Tally() for roi in item.rois} | {"all": Tally()}
            for (frame, stream), prediction in item.judge(
                session, fault, plugins, last if limit is None else min(last or limit, limit)
            ).items():
                if frame >= item.first:
                    for tally in (tallies[stream], tallies["all"]):
                        tally.add(prediction, clean.get((frame, stream)), {**NAMES, **ATTACKS}.get(kind, ()))
            faults[kind if severity is None else f"{kind}:{severity}"] = {k: t.to_json() for k, t in tallies.items()}
            total = tallies["all"]
            print(
                f"{item.name} {kind}:{severity or ''} rejected {total.rejected}/{total.verdicts} named {total.named} "
                f"false accepts {total.other_label + total.newly_accepted} ({time.monotonic() - started:.0f} s)",
                flush=True,
            )
    accepted = Counter(f"{stream}: {p.candidate}" for (_, stream), p in clean.items() if p.accepted)
    return {
        "clean": {**health_alarms(clean), "accepted_as": dict(sorted(accepted.items()))},
        "first_faulty_frame": item.first,
        "faults": faults,
    }


def summary(sources: dict[str, Any]) -> dict[str, Any]:
    """Over all clips: per fault the sums; and whether anything was accepted under a hard one."""
    sums: dict[str, Counter[str]] = {}
    for name, part in sources.items():
        for fault, regions in part["faults"].items():
            row, counts = regions["all"], sums.setdefault(fault, Counter())
            if name == "photos":
                continue
            n = row["verdicts"]
            counts["verdicts"] += n
            for key in ("rejected", "right_reason", "accepted", "false_accepts"):
                counts[key] += round((row[key]["value"] or 0.0) * n)
    return {
        fault: {
            key: proportion(counts[key], counts["verdicts"]).to_json()
            for key in ("rejected", "right_reason", "accepted", "false_accepts")
        }
        for fault, counts in sorted(sums.items())
        if counts["verdicts"]
    }


def _command(arguments: argparse.Namespace) -> str:
    """The command line, without where the photographs lie."""
    words = ["python -m framegate.benchmarks.cost.faults"]
    words += ["--photos PHOTOS"] if arguments.photos else []
    words += ["--plugins"] if arguments.plugins else []
    words += [f"--kinds {' '.join(arguments.kinds)}"] if arguments.kinds else []
    words += [f"--frames {arguments.frames}"] if arguments.frames else []
    return " ".join([*words, f"--out {arguments.out}"])


def main() -> int:
    """Measure and write. Returns 1 if anything was accepted under a hard fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--photos", type=Path, help="folder of photographs")
    parser.add_argument("--plugins", action="store_true", help="also the faults of other packages, e.g. attacks")
    parser.add_argument("--kinds", nargs="+", help="only these faults")
    parser.add_argument("--frames", type=int, help="only so many frames of each source")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.frames is not None and arguments.frames <= FIRST:
        parser.error(f"--frames: expected more than {FIRST}, the first frame with a fault")
    cv2.setNumThreads(1)
    try:
        unknown = sorted(set(arguments.kinds or ()) - set(fault_kinds()))
        if unknown:
            raise UsageError(f"fault {unknown[0]!r} is not known; known are {', '.join(fault_kinds())}")
        session = Session.open(arguments.bundle, arguments.backend, arguments.precision)
        sources = {}
        for item in footage(arguments.photos, arguments.plugins):
            kinds = tuple(kind for kind in item.kinds if not arguments.kinds or kind in arguments.kinds)
            item = Footage(item.name, item.uri, item.rois, item.first, kinds)
            plugins = load_plugins(kinds, session.bundle, item.rois) if arguments.plugins else {}
            sources[item.name] = rows_of(item, session, plugins, arguments.frames)
    except FramegateError as error:
        print(f"bench_faults: {error}", file=sys.stderr)  # one line, no traceback
        return error.exit_code
    clips = summary(sources)
    through = sorted(f for f, row in clips.items() if f.split(":")[0] in HARD and row["accepted"]["value"])
    record = {
        "what": "verdicts under injected faults; photographs are unrelated images, for which only absolute limits hold",
        "command": _command(arguments),
        "bundle": session.describe(),
        "machine": circumstances(),
        "hard_faults_with_an_accept": through,
        "clips": clips,
        "sources": sources,
    }
    try:
        write_json(arguments.out, record)
    except FramegateError as error:
        print(f"bench_faults: {error}", file=sys.stderr)
        return error.exit_code
    print(f"hard faults under which something was accepted on the clips: {', '.join(through) or 'none'}")
    return 1 if through else 0


if __name__ == "__main__":
    sys.exit(main())
