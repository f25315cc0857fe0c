"""Anybody's classifiers from file to gated verdicts: does the promise hold on images that were held back, and how long?

    python -m framegate.benchmarks.cost.foreign_networks networks.json --work runs/foreign --out foreign-networks.json

``networks.json`` is a list; paths in it are relative to it:

    [{"kind": "depthwise", "file": "depthwise.onnx", "unseen": "photos", "held_back": "other-photos",
      "options": ["--labels", "labels.txt", "--mean", "127.5", "--std", "64", "--target-risk", "0.04"],
      "monitor": ["--images", "300"]},
     {"kind": "two classes with a sigmoid", "file": "sigmoid.onnx", "unseen": "photos", "options": [...],
      "refused": "give two labels"}]

For every network the commands of a user run, each in a process of its own: ``framegate export`` with ``unseen``, then
every calibrated engine judges every image of ``held_back`` (a folder for each label, of which the export and the
calibration saw nothing), then ``framegate monitor`` if asked for, and the verdicts again. A promise is contradicted if
so many wrong labels among the accepted would be a matter of one in a hundred, were it kept. What is done for a network
is kept in ``--work`` and not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from framegate.evaluation.metrics.intervals import proportion
from framegate.evaluation.report.files import write_json
from framegate.runtime.bundle.binomial import binomial_tail
from framegate.runtime.bundle.bundle import Bundle, sha256_file
from framegate.runtime.circumstances import circumstances
from framegate.runtime.errors import DataError, FramegateError
from framegate.runtime.session import Session
from framegate.runtime.sources.images import read_image
from framegate.runtime.verdict import Image

LEVEL = 0.01
_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/]+/)+")
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def command(words: Sequence[str | Path]) -> dict[str, Any]:
    """Run ``framegate`` with these words in a process of its own.

    Returns:
        ``code``, ``cpu_s`` and ``wall_s`` of the process, ``said``: its last lines.
    """
    line = [sys.executable, "-m", "framegate", *map(str, words)]
    started = time.monotonic()
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    assert process.stdout is not None
    printed = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "code": process.returncode,
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "wall_s": round(time.monotonic() - started, 1),
        "said": [without_folders(text) for text in printed.splitlines() if text.strip()][-4:],
    }


def without_folders(text: str) -> str:
    """A sentence in which files go by their names: where they lie on this machine concerns nobody."""
    return _FOLDERS.sub("", text)


def held_back(folder: Path) -> Iterator[tuple[str, Image]]:
    """Label and picture of every image below a folder per label.

    Raises:
        DataError: There are none, or one cannot be read.
    """
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in _ENDINGS)
    if not files:
        raise DataError(f"{folder}: no images found; expected a folder with one folder of images per label")
    for path in files:
        image = read_image(path)
        if not image.size:
            raise DataError(f"{path}: cannot be read as an image")
        yield path.parent.name, image


def judge(bundle: Bundle, images: Sequence[tuple[str, Image]]) -> dict[str, Any]:
    """Every calibrated engine over the held-back images, through the gate as at run time.

    Returns:
        ``backend/precision`` -> counts, the risk with its interval, and whether it contradicts the promise.
    """
    found = {}
    for key, calibration in sorted(bundle.calibrations.items()):
        backend, precision = key.split("/")
        session = Session.open(bundle, backend, precision, camera=False)
        accepted = wrong = 0
        reasons: Counter[str] = Counter()
        for label, image in images:
            prediction = session.infer(image)
            if prediction.accepted:
                accepted += 1
                wrong += prediction.label != label
            reasons.update(reason.value for reason in prediction.reasons)
        surprise = binomial_tail(accepted - wrong, accepted, 1 - calibration.target_risk) if accepted else 1.0
        found[key] = {
            "promised_risk": calibration.target_risk,
            "proved": calibration.proved,
            "images": len(images),
            "accepted": accepted,
            "wrong": wrong,
            "risk": proportion(wrong, accepted).to_json() if accepted else None,
            "probability_if_kept": round(surprise, 4),
            "contradicted": surprise <= LEVEL,
            "reasons": dict(reasons.most_common()),
        }
    return found


def measure(network: Mapping[str, Any], place: Path, work: Path) -> dict[str, Any]:
    """One network from file to verdicts."""
    kind, file = network["kind"], place / network["file"]
    target = _bundle(work, network)
    options = [str(place / word) if (place / word).is_file() else word for word in network["options"]]
    words = ["export", file, "--unseen", place / network["unseen"], *options, "--out", target, "--force"]
    record: dict[str, Any] = {"kind": kind, "sha256": sha256_file(file), "options": network["options"]}
    record["export"] = command(words)
    if "refused" in network:
        said = " ".join(record["export"]["said"])
        record["as_expected"] = record["export"]["code"] == 1 and network["refused"] in said
        return record
    if record["export"]["code"] != 0:
        return {**record, "as_expected": False}
    images = list(held_back(place / network["held_back"]))
    record["verdicts"] = judge(Bundle.open(target), images)
    return _confirmed(record)


def add_monitor(network: Mapping[str, Any], record: dict[str, Any], place: Path, work: Path) -> dict[str, Any]:
    """The same network with a monitor, if one can be had."""
    target = _bundle(work, network)
    with_monitor = target.with_name(f"monitor-{target.name}")
    shutil.rmtree(with_monitor, ignore_errors=True)
    shutil.copytree(target, with_monitor)
    options = network["options"]
    promise = [*_values(options, "--target-risk"), *_values(options, "--group"), *_values(options, "--unit")]
    done = command(["monitor", with_monitor, "--unseen", place / network["unseen"], *promise, *network["monitor"]])
    if done["code"] == 0:
        done["verdicts"] = judge(Bundle.open(with_monitor), list(held_back(place / network["held_back"])))
    return _confirmed({**record, "monitor": {**done, "options": network["monitor"]}})


def _confirmed(record: dict[str, Any]) -> dict[str, Any]:
    """The record with what the held-back images say about all its promises; a monitor may refuse with its figures."""
    monitor = record.get("monitor", {})
    judged = [*record["verdicts"].values(), *monitor.get("verdicts", {}).values()]
    refused = "AUROC" in " ".join(monitor.get("said", ())) if monitor.get("code") else True
    return {**record, "as_expected": refused and not any(each["contradicted"] for each in judged)}


def _bundle(work: Path, network: Mapping[str, Any]) -> Path:
    return work / f"{'-'.join(network['kind'].split())}.bundle"


def _values(options: Sequence[str], name: str) -> list[str]:
    """An option and its values, if it is among the options."""
    if name not in options:
        return []
    start = options.index(name)
    end = next((k for k in range(start + 1, len(options)) if options[k].startswith("--")), len(options))
    return list(options[start:end])


def main() -> int:
    """Measure what is not measured yet, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", type=Path, help="JSON list of networks, see the module's description")
    parser.add_argument("--only", nargs="+", metavar="KIND", help="these alone (default: all)")
    parser.add_argument("--without-monitors", action="store_true", help="leave the monitors to another run")
    parser.add_argument("--work", type=Path, required=True, help="folder for bundles and what is measured already")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    arguments = parser.parse_args()
    try:
        networks = _read(arguments.networks)
        unknown = sorted(set(arguments.only or ()) - {each["kind"] for each in networks})
        if unknown:
            known = ", ".join(each["kind"] for each in networks)
            raise DataError(f"--only {unknown[0]}: {arguments.networks} has {known}")
        arguments.work.mkdir(parents=True, exist_ok=True)
        records = []
        for network in networks:
            kept = arguments.work / f"{'-'.join(network['kind'].split())}.json"
            if network["kind"] in (arguments.only or [network["kind"]]):
                _measure_missing(network, kept, arguments)
            if kept.exists():
                records.append(json.loads(kept.read_text()))
                print(f"{network['kind']}: {'as expected' if records[-1]['as_expected'] else 'NOT as expected'}")
        write_json(
            arguments.out,
            {
                "what": "foreign classifiers from file to gated verdicts, judged on images that were held back",
                "command": "python -m framegate.benchmarks.cost.foreign_networks networks.json "
                f"--work DIR --out {arguments.out}",
                "level": LEVEL,
                "machine": circumstances(),
                "networks": records,
            },
        )
    except FramegateError as error:
        print(f"foreign_networks: {error}", file=sys.stderr)
        return error.exit_code
    return 0 if all(record["as_expected"] for record in records) else 1


def _measure_missing(network: Mapping[str, Any], kept: Path, arguments: argparse.Namespace) -> None:
    """Write what is not in ``kept`` yet."""
    place, work = arguments.networks.parent, arguments.work
    if not kept.exists():
        write_json(kept, measure(network, place, work))
    record = json.loads(kept.read_text())
    if "monitor" in network and "verdicts" in record and "monitor" not in record and not arguments.without_monitors:
        write_json(kept, add_monitor(network, record, place, work))


def _read(path: Path) -> list[dict[str, Any]]:
    """The list of networks.

    Raises:
        DataError: It cannot be read, or one of them lacks something.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    needed = {"kind", "file", "unseen", "options"}
    for each in found if isinstance(found, list) else [None]:
        given = set(each) if isinstance(each, dict) else set()
        missing = sorted(needed - given) or ([] if given & {"refused", "held_back"} else ["held_back"])
        if missing:
            raise DataError(f"{path}: expected a list of networks; one lacks {', '.join(missing)}")
    return list(found)


if __name__ == "__main__":
    sys.exit(main())
