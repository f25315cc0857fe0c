"""Certificates at run time: whether any attack within a stated budget could have made this label.

Two kinds, whose proofs are in docs/certificates.md. A *patch certificate* asks a network about views of the region with
a square masked, such that every patch of the stated size is hidden in some of them: whatever a patch shows, the views
that hide it are those of the clean region. (Related: Minority Reports, McCoyd et al. 2020, arXiv:2004.13799, and
PatchGuard++, Xiang and Mittal 2021, arXiv:2104.12609, which detect patches by masked views.) An *L-infinity
certificate* asks a small network for the margin of its label. How large changes of the stated size can make that of a
wrong label was bounded when the certificate was proved.

Both only reject: a label that cannot be certified is NOT_CERTIFIED.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from framegate.runtime.backends.base import Backend, infer
from framegate.runtime.backends.choice import BACKENDS, load_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import record_key
from framegate.runtime.bundle.certificates import (
    LINF,
    PATCH,
    CertificateRecord,
    CertificateThreshold,
    Demand,
    budget_text,
)
from framegate.runtime.bundle.masks import touched
from framegate.runtime.engine_check import NewAnswers, some_of
from framegate.runtime.errors import BackendError, BundleError, UsageError
from framegate.runtime.preprocess import Preprocessor
from framegate.runtime.scores import Tensor
from framegate.runtime.verdict import NO_FINDINGS, Certificate, Findings, Image, Reason

SLACK = 1e-5
"""Added to tau: more than rounding can move a mean of log-probabilities between two calls of an engine."""
_TRIALS = 5
_EXACT, _ROUNDED = 1e-3, 0.04
"""How far a network in float32, or in another precision, may be from its file: root mean square of the differences, as
a share of the range of its outputs. Seen on the shipped ones: 1e-6, and 0.022 at most in INT8, whose last bits engines
round differently; 0.047 with sums that overflow in 16 bits."""

Values = npt.NDArray[np.float64]


class CertificateNetwork:
    """A certificate's network in one engine. Not thread-safe.

    Args:
        record: The certificate; its thresholds are not used here.
        engine: Its network, loaded and not yet bound.
        classes: Number of labels.

    Raises:
        BundleError: The network gives another number of values than the certificate needs.
        BackendError: The engine does not take the views.
    """

    def __init__(self, record: CertificateRecord, engine: Backend, classes: int) -> None:
        # Networks of earlier L-infinity certificates gave bounds beside the logits; their thresholds are about those.
        if engine.classes != classes:
            raise BundleError(
                f"certificate {budget_text(record.kind, record.budget)}: its network gives {engine.classes} values, "
                f"{classes} were expected; certify the bundle again"
            )
        self.engine = engine
        self.record = record
        self.classes = classes
        self._preprocessor = Preprocessor(record.preprocess)
        tensor = self._preprocessor.tensor
        self._sample = some_of(tensor)
        self._outputs = np.empty(0, np.float32)
        self._views = tensor
        if record.masks is not None:
            self._views = np.zeros((record.masks.views, *tensor.shape[1:]), np.float32)
        engine.bind(self._views)

    def covers(self, width: int, height: int, budget: int) -> bool:
        """Whether the certificate holds for this budget in a region of this size.

        Args:
            width: Of the region, in its own pixels.
            height: Of the region.
            budget: As in `Demand`.
        """
        record, spec = self.record, self.record.preprocess
        if record.masks is None:
            # OpenCV's resize keeps order, but its rounding can add one level to a change (docs/certificates.md).
            return budget + ((width, height) != (spec.width, spec.height)) <= record.budget
        most = max(
            touched(budget, width, spec.width, spec.resize),
            touched(budget, height, spec.height, spec.resize),
        )
        return most <= record.masks.patch

    def certified(self, crop: Image) -> Values:
        """What is compared with tau for each label: (classes,), -inf or NaN certifies nothing.

        Of views the least mean log-probability at a place; else the margin of the network's own label.

        Args:
            crop: (h, w, 3) uint8 BGR, usable.

        Raises:
            BackendError: The engine failed. It may raise anything else, too.
        """
        if self.record.masks is not None:
            return np.asarray(self.view_means(crop).min(0))
        self.show(crop)
        return _margins(self._answer()[0].astype(np.float64))

    def view_means(self, crop: Image) -> Values:
        """Mean log-probabilities of the masked views that cover each place of a patch: (places, classes)."""
        masks = self.record.masks
        if masks is None:
            raise UsageError("masked views were asked for, an L-infinity certificate has none")
        self.show(crop)
        return masks.means(_log_softmax(self._answer().astype(np.float64)))

    def show(self, crop: Image) -> None:
        """Fill the engine's input with the views of a region."""
        tensor = self._preprocessor(crop)
        if self.record.masks is not None:
            self.record.masks.hide(tensor, self._views)

    def _answer(self) -> Tensor:
        """What the engine says about the views that lie in its input."""
        self._outputs = infer(self.engine)
        return self._outputs

    @property
    def latest(self) -> tuple[bytes, bytes]:
        """A sample of the latest region, and what the engine said about it; see `NewAnswers`."""
        return self._sample.tobytes(), self._outputs.tobytes()

    def of_ends(self, outputs: bool) -> Tensor:
        """Of the latest region the first view and the last one, or what the engine said about them."""
        return np.ascontiguousarray((self._outputs if outputs else self._views)[:: max(1, len(self._views) - 1)])


@dataclass(frozen=True)
class KnownViews:
    """What a certificate's network says about known pictures, computed node by node as its file says.

    The bundle holds the pictures, and the answers of its own network alone. So those of a certificate's network are
    computed when it is opened, by ONNX Runtime with nothing fused: that computes INT8 layers in float32, too.

    Attributes:
        images: The bundle's known pictures.
        expected: Of each, outputs for the first and the last view.
        largest: Difference that an engine may have: root mean square.
    """

    images: npt.NDArray[np.uint8]
    expected: Tensor
    largest: float

    @classmethod
    def of(cls, bundle: Bundle, model: Path, network: CertificateNetwork) -> KnownViews | None:
        """Those of a network; None if the bundle has no known pictures, or ONNX Runtime is not installed.

        Args:
            bundle: Opened.
            model: The network's file.
            network: The same, in the engine that will be asked.

        Raises:
            BackendError: An engine failed.
        """
        if bundle.known_answers is None or importlib.util.find_spec("onnxruntime") is None:
            return None
        from framegate.runtime.backends.onnxruntime_cpu import as_written

        reference, images, expected = as_written(model), bundle.known_answers.images, []
        for image in images:
            network.show(image)
            expected.append(reference(network.of_ends(outputs=False)))
        found = np.stack(expected)
        share = _EXACT if network.record.precision == "fp32" else _ROUNDED
        return cls(images, found, share * float(np.ptp(found)))

    def wrong(self, number: int, network: CertificateNetwork) -> str:
        """Ask about a picture: what is wrong with the answer, or an empty text; NaN is wrong."""
        network.certified(self.images[number])
        difference = float(np.sqrt(np.mean((network.of_ends(outputs=True) - self.expected[number]) ** 2)))
        if difference <= self.largest:
            return ""
        return (
            f"what it says about a known picture is off by {difference:.3g}, expected at most {self.largest:.3g}; it "
            "does not compute the network that was proved"
        )


def _log_softmax(logits: Values) -> Values:
    with np.errstate(invalid="ignore"):  # what is not finite becomes NaN, which certifies nothing
        shifted = logits - logits.max(1, keepdims=True)
        found: Values = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return found


def _margins(logits: Values) -> Values:
    """How far the largest logit lies above the second largest; no other label has a margin."""
    found = np.full(len(logits), -math.inf)
    if np.isfinite(logits).all():
        own = int(np.argmax(logits))
        found[own] = logits[own] - np.delete(logits, own).max()
    return found


def find_certificate(bundle: Bundle, demand: Demand, precision: str = "fp32", backend: str = "") -> CertificateRecord:
    """The bundle's certificate with the smallest budget that is at least the one asked for.

    Args:
        bundle: Opened.
        demand: What shall be certified.
        precision: Of several the one whose network computes in it, else the one in float32.
        backend: One with a threshold for this engine goes before one without; empty: for whichever.

    Raises:
        BundleError: It has none.
    """
    same = [each for each in bundle.certificates if each.kind == demand.kind]
    enough = [each for each in same if each.budget >= demand.budget]
    if not enough:
        has = ", ".join(dict.fromkeys(budget_text(each.kind, each.budget) for each in bundle.certificates)) or "none"
        raise BundleError(
            f"bundle {bundle.path}: the certificate {demand} was asked for, it has {has}; "
            "give it one with `framegate certify`, or ask for less"
        )

    def order(each: CertificateRecord) -> tuple[bool, int, bool, bool]:
        proved = not backend or record_key(backend, each.precision) in each.thresholds
        return not proved, each.budget, each.precision != precision, each.precision != "fp32"

    return min(enough, key=order)


def _for_both_sizes(
    bundle: Bundle, demand: Demand, precision: str, backend: str
) -> tuple[CertificateRecord, CertificateRecord | None]:
    """The certificate for regions of any size, and one that also does for regions of the network's own size.

    Against L-infinity, regions that are resized need a level more than others (`CertificateNetwork.covers`). The
    second certificate is of the same network, so that one answer of it serves both; None where there is no such one.
    """
    found = find_certificate(bundle, demand, precision, backend)
    if demand.kind == PATCH:
        return found, None
    try:
        larger = find_certificate(bundle, replace(demand, budget=demand.budget + 1), precision, backend)
    except BundleError:
        return found, None
    if record_key(backend, larger.precision) not in larger.thresholds:
        return found, None
    same = (found.network_sha256, found.preprocess, found.precision) == (
        larger.network_sha256, larger.preprocess, larger.precision
    )  # fmt: skip
    return larger, found if same and found.budget < larger.budget else None


class Certifier:
    """Certifies labels for one session. Not thread-safe.

    Args:
        bundle: Opened.
        demand: What shall be certified.
        backend: Name of the session's backend; the certificate's network runs on the same one.
        threads: CPU threads; None leaves it to the engine.
        precision: Of the session; the certificate's network has it too, if one was proved in it.

    Attributes:
        demand: As given.
        cost_ms: Milliseconds of one certificate on this machine, the least of a few calls when it was opened.
        wrong: What was wrong with the engine's last known answer (`ask`); empty while nothing is wrong.

    Raises:
        BundleError: The bundle has no such certificate, or none for this engine.
        BackendError: The network cannot be loaded, or the engine computes another one.
        UsageError: The backend runs on a GPU, or tracks shall be certified with what was proved for frames.
    """

    def __init__(
        self, bundle: Bundle, demand: Demand, backend: str, threads: int | None = None, precision: str = "fp32"
    ) -> None:
        self.demand = demand
        self._labels = bundle.labels
        record, self._own = _for_both_sizes(bundle, demand, precision, backend)
        self._threshold = _threshold(bundle, record, backend)
        self._own_threshold = self._threshold if self._own is None else _threshold(bundle, self._own, backend)
        # A track may have regions of both sizes, and two promises are none about the whole of it. Else both promise
        # the same, and one of them is printed.
        if self._threshold.unit == "track" or self._own_threshold.terms != self._threshold.terms:
            self._own, self._own_threshold = None, self._threshold
        if demand.once and self._threshold.unit != "track":
            raise UsageError(
                f"certificate {demand} once a track: the bundle's was proved for single frames, so it says nothing "
                "about the frames that follow; prove it with `framegate certify --unit track`, or certify every frame"
            )
        with bundle.loaded_file(record.network) as model:
            engine = load_backend(backend, model, threads)  # without a cache, which would need a digest of the file
            network = CertificateNetwork(record, engine, len(self._labels))
            self._known = KnownViews.of(bundle, model, network)
        self._unknown = bundle.known_answers is not None and self._known is None
        self._ready(network)

    def _ready(self, network: CertificateNetwork) -> None:
        self._network, record = network, network.record
        self._new = NewAnswers(network.engine.engine)
        self._asked, self.wrong = 0, ""
        for _ in () if self._known is None else self._known.images:
            self.ask()
            if self.wrong:
                raise BackendError(f"certificate {self.demand}: {self.wrong}; try another engine or precision")
        self._seen: dict[str, int] = {}
        spec = record.preprocess
        picture = np.full((spec.depth * spec.height, spec.width, 3), 127, np.uint8)
        seconds = []
        for _ in range(_TRIALS):
            began = time.perf_counter()
            self._network.certified(picture)
            seconds.append(time.perf_counter() - began)
        self._new.remember(*self._network.latest)  # an engine that stops here hands this one out for the first frame
        self.cost_ms = min(seconds) * 1e3

    def share(self) -> Certifier:
        """One for another stream, over the same weights."""
        other = Certifier.__new__(Certifier)
        other.demand, other._labels, other._threshold = self.demand, self._labels, self._threshold
        other._own, other._own_threshold = self._own, self._own_threshold
        other._known, other._unknown = self._known, self._unknown
        mine = self._network
        other._ready(CertificateNetwork(mine.record, mine.engine.share(), mine.classes))
        return other

    def ask(self) -> None:
        """Ask the engine about the next known picture, and remember in `wrong` how that went; it costs a certificate.

        Nothing is asked where nothing is known (`KnownViews.of`).
        """
        if self._known is None:
            return
        engine = self._network.engine.engine
        try:
            said = self._known.wrong(self._asked % len(self._known.images), self._network)
            self._new.remember(*self._network.latest)  # an engine that stops now hands this one out for the next frame
            self.wrong = said and f"{engine}: {said}"
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; nothing is certified then
            self.wrong = f"{engine} failed on a known picture ({type(error).__name__}: {error})"
        self._asked += not self.wrong  # what was answered wrongly is asked again

    @property
    def identity(self) -> str:
        """Budget and 16 hexadecimal digits of all that decides what is certified: another certificate has others.

        What else the bundle holds has no part in it, so what was measured with a certificate stays true of it.
        """
        record, threshold = self._network.record, self._threshold
        decides = {**record.to_json(), "thresholds": None, "tau": threshold.tau, "engine": threshold.engine}
        if self._own is not None:
            decides["own_size"] = [self._own_threshold.tau, self._own_threshold.engine]
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        return f"{self.demand} of {digest[:16]}"

    def describe(self) -> str:
        """Budget, cost and promise in one line."""
        record, masks, spec = self._network.record, self._network.record.masks, self._network.record.preprocess
        views = f" ({masks.views} views)" if masks else ""
        often = "every frame" if self.demand.every == 1 else f"one frame in {self.demand.every} of a region"
        often = "each track once" if self.demand.once else often
        key = record_key(self._network.engine.name, record.precision)
        unknown = "; its engine was asked nothing known, for onnxruntime is not installed" if self._unknown else ""
        cost = f"{self.cost_ms:.2f} ms each{views}"
        promise = record.promise(key)
        if self._own is not None:
            larger = budget_text(record.kind, record.budget)
            promise = (
                f"{self._own.promise(key)}; a region that has not {spec.width}x{spec.height} pixels is held against "
                f"{larger}, for its resize may add a level"
            )
        return f"certificate {self.demand} for {often}, {cost}: {promise}{unknown}"

    def due(self, stream: str) -> bool:
        """Count a frame of a region; whether it is one that needs a certificate."""
        number = self._seen.get(stream, 0)
        self._seen[stream] = number + 1
        return number % self.demand.every == 0

    def decide(self, crop: Image, label: int) -> tuple[Certificate | None, Findings]:
        """Certify the label of a region.

        Args:
            crop: The region, usable, the same pixels that the network saw.
            label: Number of the label that would be accepted.

        Returns:
            The certificate and no finding, or what was found and NOT_CERTIFIED (BACKEND_FAULT if the engine failed).
        """
        demand, record = self.demand, self._network.record
        height, width = crop.shape[:2]
        own_size = (width, height) == (record.preprocess.width, record.preprocess.height)
        threshold = self._own_threshold if own_size else self._threshold
        if not self._network.covers(width, height, demand.budget):
            covered = budget_text(record.kind, record.budget)
            text = f"resized from {width}x{height} pixels, {demand} is more than {covered} covers"
            return None, {Reason.NOT_CERTIFIED: text}
        if self.wrong:
            return None, {Reason.BACKEND_FAULT: f"certificate {demand}: {self.wrong}"}
        try:
            margin = float(self._network.certified(crop)[label])
            stuck = self._new.is_old(*self._network.latest)
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; it must end in REJECT
            return None, {Reason.BACKEND_FAULT: f"certificate {demand}: {type(error).__name__}: {error}"}
        certificate = Certificate(demand.kind, demand.budget, threshold.tau, margin)
        # Written so that NaN fails.
        if margin >= threshold.tau + SLACK:
            if stuck:  # the bound of another frame; two dark frames may have the same, and neither is certified
                why = f"certificate {demand}: {self._network.engine.engine} gave its last answer for different pixels"
                return None, {Reason.BACKEND_FAULT: why}
            return certificate, NO_FINDINGS
        why = f"an attack of {demand} could change it: {margin:.4g}, certified from {threshold.tau:.4g}"
        return certificate, {Reason.NOT_CERTIFIED: why}


def _threshold(bundle: Bundle, record: CertificateRecord, backend: str) -> CertificateThreshold:
    text = budget_text(record.kind, record.budget)
    if BACKENDS[backend].gpu:
        raise UsageError(f"certificate {text} was asked for on {backend}; certificates run on openvino and onnxruntime")
    key = record_key(backend, record.precision)
    if key not in record.thresholds:
        has = ", ".join(sorted(record.thresholds)) or "none"
        raise BundleError(
            f"bundle {bundle.path}: certificate {text} has no threshold for {key}, it has {has}; one of another "
            "engine or precision proves nothing here: certify it with --backend, or run on one that it has"
        )
    return record.thresholds[key]


__all__ = ["LINF", "PATCH", "CertificateNetwork", "Certifier", "find_certificate"]
