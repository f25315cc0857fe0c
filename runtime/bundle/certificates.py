"""What a bundle says about its certificates: networks, masks, budgets, and the thresholds that were proved.

What a certificate is, and why it holds, is in docs/certificates.md.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from framegate.runtime.bundle.binomial import binomial_tail
from framegate.runtime.bundle.masks import MaskGrid
from framegate.runtime.errors import BundleError, UsageError
from framegate.runtime.preprocess import PreprocessSpec

FILE = "certificates.json"
FORMAT = "framegate-certificates-1"
PATCH, LINF = "patch", "linf"
UNITS = ("frame", "track")


@dataclass(frozen=True)
class Demand:
    """What a user wants certified.

    Attributes:
        kind: ``patch`` or ``linf``.
        budget: Side of the square in the region's own pixels, or whole levels of 255.
        every: Every so many frames of a region; the others carry no certificate, and no promise holds for them.
        once: Of the objects of a stream, once a track before its first ACCEPT; later frames of the track are accepted
            with the certified label only. The certificate must have been proved for whole tracks.
    """

    kind: str
    budget: int
    every: int = 1
    once: bool = False

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            UsageError: One is not usable.
        """
        if type(self.every) is not int or self.every < 1:
            raise UsageError(f"certificate every {self.every!r} frames; expected a whole number, at least 1")
        if self.once and self.every != 1:
            raise UsageError(f"certificate once a track and every {self.every} frames; give one of the two")
        if self.kind not in (PATCH, LINF) or type(self.budget) is not int or self.budget < 1:
            raise UsageError(f"certificate {self.kind}:{self.budget}: expected patch:5 or linf:2/255")

    @classmethod
    def parse(cls, text: str, every: int = 1, once: bool = False) -> Demand:
        """Read ``patch:5`` or ``linf:2/255``; an L-infinity budget that is no whole number of levels is rounded up.

        Raises:
            UsageError: It is neither.
        """
        kind, _, rest = text.partition(":")
        levels, slash, of = rest.partition("/")
        try:
            if kind == PATCH and not slash:
                return cls(PATCH, int(rest), every, once)
            if kind == LINF and of == "255" and math.isfinite(float(levels)):
                return cls(LINF, math.ceil(float(levels)), every, once)
        except ValueError:
            pass
        raise UsageError(f"certificate {text!r} was asked for; expected patch:SIDE, e.g. patch:5, or linf:LEVELS/255")

    def __str__(self) -> str:
        return budget_text(self.kind, self.budget)


def budget_text(kind: str, budget: int) -> str:
    """A budget as the command line takes it."""
    return f"patch:{budget}" if kind == PATCH else f"linf:{budget}/255"


@dataclass(frozen=True)
class CertificateThreshold:
    """A threshold of one engine and what it was proved on.

    Attributes:
        tau: A label is certified if its margin, or mean log-probability, is at least this.
        target_risk: What was asked for: the largest share of all captured units that can be made wrong and accepted.
        confidence_level: With which the bound holds.
        risk_bound: The exact binomial bound on that share, at most the target.
        events: Units of the calibration split that an attacker might use.
        units: Units counted.
        unit: ``frame``, a frame (of a track: a random frame of a random track), or ``track``, a whole track.
        coverage: Share of the split's frames that were certified, as the bundle's own network labelled them.
        engine: Library and version.
        split_sha256: Fingerprint of the split.
        tracks_certified: Share of the split's tracks with a certified frame; None where single frames were counted.
        frames_to_first: Median frames of those tracks until the first certified one, itself counted; None likewise.
        attempts: How many different networks, masks or targets these images had been asked about for this budget and
            precision, with this one; None if not recorded.
    """

    tau: float
    target_risk: float
    confidence_level: float
    risk_bound: float
    events: int
    units: int
    unit: str
    coverage: float
    engine: str
    split_sha256: str
    tracks_certified: float | None = None
    frames_to_first: float | None = None
    attempts: int | None = None

    @property
    def terms(self) -> tuple[float, float, str]:
        """What is promised: target, confidence, and unit."""
        return self.target_risk, self.confidence_level, self.unit

    def __post_init__(self) -> None:
        """Refuse what nothing can be certified with, and a bound that does not follow from the counts: an edited one.

        Raises:
            BundleError: A number is outside its range, or the bound is none (see `Calibration.require_consistent`).
        """
        good = (
            math.isfinite(self.tau)
            and 0 < self.target_risk < 1
            and 0 < self.confidence_level < 1
            and 0 < self.risk_bound <= self.target_risk
            and type(self.events) is int
            and type(self.units) is int
            and 0 <= self.events <= self.units
            and binomial_tail(self.events, self.units, self.risk_bound) <= (1 - self.confidence_level) * (1 + 1e-6)
            and self.unit in UNITS
            and (self.attempts is None or (type(self.attempts) is int and self.attempts >= 1))
        )
        if not good:
            raise BundleError(f"a certificate's threshold cannot be used: {self!r:.200}")


@dataclass(frozen=True)
class CertificateRecord:
    """One certificate of a bundle.

    Attributes:
        kind: ``patch`` or ``linf``.
        budget: Side of the patch in pixels of the calibration images, or whole levels of 255.
        network: File of the network that is asked.
        network_sha256: Its hash.
        precision: What the network computes in.
        preprocess: How a region becomes its input.
        masks: The masks of a patch certificate, else None.
        thresholds: ``backend/precision`` -> threshold.
    """

    kind: str
    budget: int
    network: str
    network_sha256: str
    precision: str
    preprocess: PreprocessSpec
    masks: MaskGrid | None
    thresholds: Mapping[str, CertificateThreshold]

    def __post_init__(self) -> None:
        """Refuse a kind without what it needs.

        Raises:
            BundleError: It cannot be used.
        """
        spec = self.preprocess
        wanted = (spec.width, spec.height)
        fits = self.masks is not None and (self.masks.width, self.masks.height) == wanted
        complete = fits if self.kind == PATCH else self.kind == LINF and self.masks is None
        if type(self.budget) is not int or self.budget < 1 or not complete:
            raise BundleError(f"certificate {self.kind}:{self.budget} lacks its masks, or is of an unknown kind")
        if self.kind == LINF and any(each.tau < 0 for each in self.thresholds.values()):
            raise BundleError(
                f"certificate {budget_text(self.kind, self.budget)}: a threshold below 0 proves nothing, for every "
                "frame has a label with a margin above it; certify the bundle again"
            )

    def to_json(self) -> dict[str, Any]:
        """A plain record."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> CertificateRecord:
        """Read a record.

        Raises:
            BundleError: It cannot be used.
        """
        try:
            masks = record["masks"]
            return cls(
                kind=record["kind"],
                budget=record["budget"],
                network=str(record["network"]),
                network_sha256=str(record["network_sha256"]),
                precision=str(record["precision"]),
                preprocess=PreprocessSpec.from_json(record["preprocess"]),
                masks=None if masks is None else MaskGrid.from_json(masks),
                thresholds={key: CertificateThreshold(**value) for key, value in record["thresholds"].items()},
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError, UsageError) as error:
            raise BundleError(f"a certificate cannot be read ({error})") from error

    def promise(self, key: str) -> str:
        """In plain words what the threshold of an engine promises."""
        found = self.thresholds[key]
        if self.kind == PATCH:
            what = (
                f"single {self.budget}x{self.budget} patch (of regions of the calibration images' size; in others what "
                f"changes at most {self.masks.patch if self.masks else 0} pixels of the network's input)"
            )
        else:
            what = f"change of at most {self.budget} of 255 levels of every pixel"
        unit = "a captured frame" if found.unit == "frame" else "a captured track"
        again = (
            f". It was question {found.attempts} to the same images, and a choice among the answers is not covered"
            if found.attempts is not None and found.attempts > 1
            else ""
        )
        return (
            f"with {found.confidence_level:.0%} confidence, at most {found.risk_bound:.2%} of all captured "
            f"{found.unit}s can be made wrong and accepted by any {what}, whichever are attacked "
            f"({found.events} of {found.units} {found.unit}s; {unit} like those of the calibration). It says nothing "
            f"about the share among the accepted or the attacked ones{again}"
        )


def labels_sha256(labels: tuple[str, ...]) -> str:
    """What a certificate is bound to beside its network."""
    return hashlib.sha256(json.dumps(list(labels)).encode()).hexdigest()


def read_certificates(record: Mapping[str, Any], labels: tuple[str, ...], hashes: Mapping[str, str]) -> tuple[
    CertificateRecord, ...
]:  # fmt: skip
    """The certificates of a bundle.

    Args:
        record: The parsed file.
        labels: The bundle's labels.
        hashes: File of the bundle -> SHA-256.

    Raises:
        BundleError: They are of another format, or belong to other labels or networks.
    """
    if record.get("format") != FORMAT:
        raise BundleError(f"{FILE} has format {record.get('format')!r}, expected {FORMAT!r}; certify the bundle again")
    if record.get("labels_sha256") != labels_sha256(labels):
        raise BundleError(f"{FILE} belongs to other labels; certify this bundle again")
    entries = record.get("certificates")
    if not isinstance(entries, list):
        raise BundleError(f"{FILE} lists no certificates; certify the bundle again")
    found = tuple(CertificateRecord.from_json(each) for each in entries)
    for each in found:
        budget, backends = budget_text(each.kind, each.budget), {key.partition("/")[0] for key in each.thresholds}
        for key, threshold in each.thresholds.items():
            made_on = str(threshold.engine).partition(" ")[0]
            if made_on in backends and made_on != key.partition("/")[0]:
                raise BundleError(
                    f"{FILE}: {budget}, {key} was proved on {threshold.engine}; certify this bundle again"
                )
        if hashes.get(each.network) != each.network_sha256:
            raise BundleError(f"{FILE}: {budget} belongs to another {each.network}; certify this bundle again")
    return found
