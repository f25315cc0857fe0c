"""A number that no float holds, such as JSON may have, is damage like any other and no traceback."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from repository import BUNDLES

from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.bundle.certificates import CertificateRecord
from framegate.runtime.dense.spec import DenseSpec
from framegate.runtime.errors import FramegateError
from framegate.runtime.monitor import Monitor
from framegate.runtime.preprocess import PreprocessSpec
from framegate.runtime.regions.detector import DetectorSpec

DETECTOR = {"head": "yolov8", "fit": "stretch", "score": 0.5, "overlap": 0.5, "labelled": 9, "missed": 1}


def read(name: str, file: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((BUNDLES / f"{name}.bundle" / file).read_text())
    return record


def records() -> Iterator[tuple[str, Callable[[Any], object], dict[str, Any]]]:
    """What holds a record, who reads it, and one that is read without complaint."""
    calibrations = read("hybrid-cifar10", "calibration.json")["records"]
    yield "calibration", Calibration.from_json, next(iter(calibrations.values()))
    yield "monitor", Monitor.from_json, read("hybrid-cifar10", "monitor.json")
    yield "preprocess", PreprocessSpec.from_json, read("hybrid-cifar10", "manifest.json")["preprocess"]
    yield "dense", DenseSpec.from_json, read("dense-signs", "manifest.json")["dense"]
    yield "certificate", CertificateRecord.from_json, read("resnet20-gtsrb", "certificates.json")["certificates"][0]
    yield "detector", DetectorSpec.from_json, DETECTOR


def places(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """Where numbers stand; of a long list only the first."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from places(each, *path, key)
    elif isinstance(value, list) and value:
        yield from places(value[0], *path, 0)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path


@pytest.mark.parametrize(
    ("reads", "record"), [pytest.param(reads, record, id=name) for name, reads, record in records()]
)
@pytest.mark.parametrize("number", [10**400, -(10**400), math.inf], ids=["huge", "below", "infinity"])
def test_such_a_number_is_said_in_one_sentence(
    reads: Callable[[Any], object], record: dict[str, Any], number: float
) -> None:
    reads(record)
    refused = 0
    for *way, last in places(record):
        changed = inner = copy.deepcopy(record)
        for key in way:
            inner = inner[key]
        inner[last] = number
        try:
            reads(changed)
        except FramegateError:
            refused += 1
    assert refused
