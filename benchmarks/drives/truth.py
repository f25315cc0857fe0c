"""Risk, mining and what-if against the truth of made drives: whether what the commands say is so."""

from __future__ import annotations

import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.benchmarks.drives.make import make
from framegate.benchmarks.drives.scenes import Scene
from framegate.benchmarks.drives.tables import quiet, table_of, with_threshold
from framegate.evaluation.drives.intervals import ratio
from framegate.evaluation.drives.labelling import Label, add_labels
from framegate.evaluation.drives.mine import CRITERIA, draw, mine
from framegate.evaluation.drives.table import DriveTable
from framegate.evaluation.drives.what_if import what_if
from framegate.runtime.mcap_messages import Contents
from framegate.runtime.replay.replay import TOPIC
from framegate.runtime.session import Session

RANDOM = 200
"""Random choices that mining is compared with."""
STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}
"""97.5 % quantile of Student's t, by degrees of freedom."""
Place = tuple[str, str, int]
"""Drive, region and frame."""


def truth_of(folder: Path) -> dict[Place, tuple[str, bool]]:
    """What each region showed, and whether an error was injected there."""
    found = {}
    for path in sorted(folder.glob("truth-*.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                found[row["drive"], row["region"], int(row["frame_id"])] = row["label"], row["injected"] == "1"
    return found


def measure_mining(folders: list[Path], work: Path, budget: int) -> dict[str, Any]:
    """Injected errors among the chosen verdicts, against random choice from all and from those with a picture.

    Each folder has drives of its own seed; over the folders of a scene the ratios have an interval.
    """
    found = {folder.name: _mined(folder, work, budget) for folder in folders}
    record: dict[str, Any] = {"budget": budget, "folders": found, "target_times": 5}
    for scene in sorted({name.rstrip("0123456789") for name in found}):
        for key in ("times_random_of_all", "times_random_with_picture"):
            own = [each[key] for name, each in found.items() if name.rstrip("0123456789") == scene]
            record[f"{scene}: {key}"] = _interval([each for each in own if each is not None])
    return record


def _interval(values: list[float]) -> dict[str, float]:
    """Mean and 95 % interval (Student) over folders."""
    found = {"mean": round(float(np.mean(values)), 2), "folders": len(values)}
    if len(values) - 1 in STUDENT:
        half = STUDENT[len(values) - 1] * float(np.std(values, ddof=1)) / len(values) ** 0.5
        found |= {"low": round(found["mean"] - half, 2), "high": round(found["mean"] + half, 2)}
    return found


def _mined(folder: Path, work: Path, budget: int) -> dict[str, Any]:
    table = DriveTable(table_of(folder, work / folder.name))
    injected = {place for place, (_, wrong) in truth_of(folder).items() if wrong}
    rows = table.read(["drive", "region", "frame_id", "picture", "accepted"]).to_pylist()
    is_error = np.array([_place(row) in injected for row in rows])
    pictured = np.array([bool(row["picture"]) for row in rows])
    rng = np.random.default_rng(0)

    def at_random(of: npt.NDArray[np.bool_]) -> float:
        places = np.flatnonzero(of)
        size = min(budget, len(places))
        return float(np.mean([is_error[rng.choice(places, size, replace=False)].sum() for _ in range(RANDOM)]))

    found: dict[str, Any] = {}
    for name, criteria in (("all criteria", CRITERIA), *((each, (each,)) for each in CRITERIA)):
        keys = [_place(row) for row in mine(table, list(criteria), budget).rows.to_pylist()]
        found[name] = {"chosen": len(keys), "injected": sum(key in injected for key in keys)}
    everything, kept = at_random(np.ones(len(rows), bool)), at_random(pictured)
    best = found["all criteria"]["injected"]
    return {
        "drives": len({row["drive"] for row in rows}),
        "verdicts": len(rows),
        "with_picture": int(pictured.sum()),
        "injected": int(is_error.sum()),
        "injected_with_picture": int((is_error & pictured).sum()),
        "injected_and_accepted": int((is_error & np.array([row["accepted"] for row in rows])).sum()),
        "mined": found,
        "random_of_all": round(everything, 1),
        "random_with_picture": round(kept, 1),
        "times_random_of_all": round(best / everything, 2) if everything else None,
        "times_random_with_picture": round(best / kept, 2) if kept else None,
    }


def _place(row: dict[str, Any]) -> Place:
    return row["drive"], row["region"], row["frame_id"]


def _labels(table: DriveTable, truth: Mapping[Place, tuple[str, bool]]) -> dict[Label, str]:
    """The truth about the rows of a table, as labels."""
    rows = table.read(["drive", "camera", "file", "region", "frame_id"]).to_pylist()
    return {
        (row["drive"], row["camera"], Path(row["file"]).name, row["region"], row["frame_id"]): truth[_place(row)][0]
        for row in rows
        if _place(row) in truth
    }


def measure_truth(
    folders: list[Path], scenes: dict[str, tuple[Scene, Session]], work: Path, budget: int
) -> dict[str, Any]:
    """Risk of labelled drives counted twice, risk from a random sample, and what-if beside driving again."""
    found: dict[str, Any] = {"risk": {folder.name: _risk(folder, work, budget) for folder in folders}}
    found["what_if"] = {name: _driven_again(scene, session, work / name) for name, (scene, session) in scenes.items()}
    return found


def _risk(folder: Path, work: Path, budget: int) -> dict[str, Any]:
    """Wrong accepts: from the labelled table, from the recordings' own JSON, and from labels of a random sample."""
    table = DriveTable(table_of(folder, work / folder.name))
    truth = truth_of(folder)
    labelled = work / folder.name / "labelled.parquet"
    add_labels(table, _labels(table, truth), labelled)
    same = what_if(DriveTable(labelled), with_threshold(1.0), quiet)
    counts = same.counts
    accepted = wrong = 0
    for path in sorted(folder.rglob("*.mcap")):
        for message in Contents(path).messages(lambda topic: topic.startswith(TOPIC)):
            one = json.loads(message.data)
            if one["verdict"] == "ACCEPT":
                accepted += 1
                drive = path.name.split(".")[0]
                wrong += truth[drive, one["stream"], one["frame_id"]][0] != one["candidate"]
    drawn = [row for row in draw(table, budget).rows.to_pylist() if row["accepted"]]
    per: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in drawn:
        per[row["drive"]][0] += truth[_place(row)][0] != row["candidate"]
        per[row["drive"]][1] += 1
    sample = ratio(np.array([each[0] for each in per.values()]), np.array([each[1] for each in per.values()]))
    return {
        "accepted": accepted,
        "wrong": wrong,
        "wrong_by_table": int(counts["wrong_before"].sum()),
        "accepted_by_table": int(counts["before"].sum()),
        "same": int(counts["wrong_before"].sum()) == wrong and int(counts["before"].sum()) == accepted,
        "risk": round(wrong / accepted, 5) if accepted else None,
        "random_sample": {
            "labelled_accepts": len(drawn),
            "risk": None if sample is None else round(sample.value, 5),
            "low": None if sample is None or sample.low is None else round(sample.low, 5),
            "high": None if sample is None or sample.high is None else round(sample.high, 5),
        },
        "not_reproduced": same.unlike,
    }


def _driven_again(scene: Scene, session: Session, work: Path) -> dict[str, Any]:
    """What-if says what driving again with half the threshold gives, in accepts and wrong accepts of each drive."""
    calibration = session.calibration
    assert calibration is not None
    tables = []
    for name, factor in (("as-it-was", 1.0), ("driven-again", 0.5)):
        folder = work / name
        shutil.rmtree(folder, ignore_errors=True)
        own = replace(calibration, threshold=calibration.threshold * factor)
        # One after the other: an engine has one session at a time, and says BACKEND_FAULT to the one before.
        judge = Session(session.bundle, session.scorer.backend, session.precision, own)
        make(folder, judge, scene, 2, 4.0)
        table = DriveTable(table_of(folder, folder / "table"))
        labelled = folder / "labelled.parquet"
        add_labels(table, _labels(table, truth_of(folder)), labelled)
        tables.append(DriveTable(labelled))
    found = what_if(tables[0], with_threshold(0.5), quiet)
    rows = tables[1].read(["drive", "accepted", "candidate", "label"]).to_pylist()
    again: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        again[row["drive"]][0] += row["accepted"]
        again[row["drive"]][1] += row["accepted"] and row["candidate"] != row["label"]
    counts = found.counts
    predicted = {
        name: [int(counts["after"][k]), int(counts["wrong_after"][k])] for k, name in enumerate(sorted(found.drives))
    }
    return {
        "verdicts": found.verdicts,
        "turned": int(counts["lost"].sum() + counts["won"].sum()),
        "accepted_and_wrong_predicted": predicted,
        "accepted_and_wrong_driven_again": dict(again),
        "same": predicted == dict(again),
    }
