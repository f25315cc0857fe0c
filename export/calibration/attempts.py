"""How often the same images have been asked to prove something: a choice among several answers proves nothing.

Asking for one target after another, or calibrating several networks and keeping the best, breaks the promise more often
than 1 - confidence_level. The questions that were put to a calibration split are therefore noted on this machine, also
those that were refused, and every record says how many there were. The same question asked again has the same answer
and counts once.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framegate.export.calibration.calibrate import Promise
from framegate.export.calibration.temperature import Labels

INT8_MAKING = "int8_making"
"""Entry of a bundle's origin: `int8_making`."""


@dataclass(frozen=True)
class Question:
    """What one run asks of a calibration split.

    Attributes:
        network: SHA-256 of the float32 network.
        keys: ``backend/precision`` of everything that the run may calibrate.
        promise: What shall hold.
        units: (N,) unit of each image, None where each is one: how they are grouped decides what proves.
        others: What else the answer hangs on: how an INT8 network is made (`int8_making`), SHA-256 of a monitor.
    """

    network: str
    keys: tuple[str, ...]
    promise: Promise
    units: Labels | None = None
    others: tuple[str, ...] = ()

    def sha256(self) -> str:
        """By which it is known again."""
        wanted: dict[str, Any] = {**vars(self.promise), "seed": 0}  # no seed has a say in what proves
        if not self.promise.class_risks:
            del wanted["class_risks"]  # as before there were any
        asked: list[Any] = [self.network, sorted(self.keys), wanted]
        if self.others or self.units is not None:
            units = "" if self.units is None else hashlib.sha256(self.units.astype("<i8").tobytes()).hexdigest()
            asked += [units, sorted(self.others)]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


@dataclass(frozen=True)
class CertificateQuestion:
    """What one run asks of the images that shall prove a certificate.

    Attributes:
        network: SHA-256 of the network that is asked.
        masks: Of a patch certificate, as text; else empty.
        unit: See `framegate.export.calibration.certificates.counted`.
        images: See there.
        target_risk: See `framegate.export.calibration.certificates.prove`.
        confidence_level: See there.
    """

    network: str
    masks: str
    unit: str
    images: int | None
    target_risk: float
    confidence_level: float

    def sha256(self) -> str:
        """By which it is known again."""
        return hashlib.sha256(json.dumps(list(vars(self).values())).encode()).hexdigest()


def int8_making(ranges: str, steps: int) -> tuple[str, ...]:
    """How an INT8 network is made, for `Question.others`: known before there is a file, and in its bundle's origin.

    Args:
        ranges: One of `framegate.export.int8.choice.FAMILIES`.
        steps: Of fine-tuning.
    """
    return f"INT8 ranges {ranges}", f"{steps} steps of fine-tuning"


def attempts_file(split_sha256: str) -> Path:
    """``$XDG_CACHE_HOME/framegate/asked/<split>.json``; XDG_CACHE_HOME is ``~/.cache`` where it is not set."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return folder / "framegate" / "asked" / f"{split_sha256}.json"


def was_asked(split_sha256: str, question: Question | CertificateQuestion) -> bool:
    """Whether a question is noted on this machine already; see `count_attempt`."""
    return question.sha256() in _known(attempts_file(split_sha256))


def count_attempt(split_sha256: str, question: Question | CertificateQuestion, recorded: int = 0) -> int:
    """Note a question and say how many different ones there were with it.

    Args:
        split_sha256: Of the images; of a certificate's budget and precision, too, which are not chosen among.
        question: What is asked now.
        recorded: How many a bundle's record speaks of already: it may come from another machine.
    """
    file = attempts_file(split_sha256)
    known = _known(file)
    mine = question.sha256()
    if mine not in known:
        known.append(mine)
        _note(file, known)
    return max(known.index(mine) + 1, recorded)


def _known(file: Path) -> list[str]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _note(file: Path, known: list[str]) -> None:
    """Write the list; where nothing can be written, the bundle's own record is all that counts."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(known), encoding="utf-8")
        part.replace(file)
    except OSError:
        with suppress(OSError):
            part.unlink()
