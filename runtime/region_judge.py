"""The verdict on one region: from findings and what the network says to what travels on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration, Limit
from framegate.runtime.certificate import Certifier
from framegate.runtime.monitor import Signals
from framegate.runtime.native.fast_path import WITHIN, Looked
from framegate.runtime.policy.rules import judge_age, judge_limits, judge_score
from framegate.runtime.policy.stream import StreamPolicy
from framegate.runtime.roi import Roi
from framegate.runtime.scorer import Scored
from framegate.runtime.scores import SCORE_OF, not_finite
from framegate.runtime.verdict import (
    NEVER_NS,
    NO_CLASS,
    NO_FINDINGS,
    Certificate,
    Findings,
    FoundObject,
    Frame,
    Prediction,
    Reason,
    prediction_of,
)

_NO_VALUES: Mapping[str, float] = {}
_SOME_VALUES: Mapping[str, float] = {"": math.nan}
"""Says to a policy that does not read values that there are some."""
_NOT_SCORED = Scored(not_finite(), _NO_VALUES, 0)


class Judged(NamedTuple):
    """What was decided about one region, before its age is known.

    Attributes:
        findings: Every reason to reject it but its age.
        detail: A sentence for people about what was found on this frame.
        scored: What the network said; `_NOT_SCORED` if it said nothing.
        score: The calibrated score, NaN without one.
        candidate: The most probable label, empty without one.
        found: The reasons of this frame alone, before its stream's policy.
        certificate: What was certified about it, if that was asked for.
    """

    findings: Findings
    detail: str
    scored: Scored
    score: float
    candidate: str
    found: tuple[Reason, ...]
    certificate: Certificate | None = None


class _Values(Mapping[str, float]):
    """Every number of a region that a threshold or a limit may compare, put together when one is asked for."""

    __slots__ = ("_all", "_scored")

    def __init__(self, scored: Scored) -> None:
        self._scored = scored
        self._all: Mapping[str, float] | None = None

    def _together(self) -> Mapping[str, float]:
        if self._all is None:
            scores, signals = self._scored.scores.values(), self._scored.signals
            if self._scored.dense is not None:
                self._all = {**scores, **signals}
            else:
                self._all = signals.beside(scores) if isinstance(signals, Signals) else scores
        return self._all

    def get(self, name: str, default: Any = None) -> Any:
        """As of any mapping; here because one or two numbers are all that most frames are asked for."""
        scored = self._scored
        if scored.dense is not None:
            return self._together().get(name, default)
        score_of = SCORE_OF.get(name)
        return scored.signals.get(name, default) if score_of is None else score_of(scored.scores)

    def __getitem__(self, name: str) -> float:
        return self._together()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._together())

    def __len__(self) -> int:
        return len(self._together())

    def __bool__(self) -> bool:  # asked several times a frame
        return True


def _sentence(*parts: str) -> str:
    return "; ".join(filter(None, parts))


class RegionJudge:
    """Decides about single regions of frames by one calibration. Not thread-safe.

    Args:
        bundle: The model, for its labels.
        calibration: Its threshold and limits; None rejects everything with NOT_CALIBRATED.

    Attributes:
        limits: Those of single frames.
    """

    def __init__(self, bundle: Bundle, calibration: Calibration | None) -> None:
        self._labels = bundle.labels
        self._monitor = bundle.monitor
        self._calibration = calibration
        self._threshold = calibration.threshold if calibration else math.nan
        self._score_name = calibration.score if calibration else "entropy"
        self._score_of = SCORE_OF.get(self._score_name)
        proved = calibration is not None and calibration.proved
        self._remark = calibration.unproved if calibration is not None else ""
        self._promised_for = calibration.drawn if calibration is not None and proved else ""
        self.limits = tuple(limit for limit in calibration.limits if limit.frames == 1) if calibration else ()

    def certify(
        self, certifier: Certifier, frame: Frame, roi: Roi, scored: Scored
    ) -> tuple[Certificate | None, Findings]:
        """Certify the label, unless the frame needs none or is rejected anyway."""
        if not certifier.due(roi.name):
            return None, NO_FINDINGS
        values = _Values(scored)
        if self._numbers(values, values.get(self._score_name, math.nan), scored):
            return None, NO_FINDINGS
        crop = roi.crop(frame.image)
        assert crop is not None  # the network was shown it
        return certifier.decide(crop, scored.scores.argmax)

    def decide(
        self,
        findings: Findings,
        scored: Scored | None,
        policy: StreamPolicy | None,
        frame: Frame,
        *,
        within_limits: bool = False,
    ) -> Judged:
        """Every reason to reject one region: what was found so far, the network's output, the stream's past.

        Args:
            findings: What was found so far.
            scored: What the network said; None only with findings.
            policy: Of the region's stream; None judges the frame alone.
            frame: Of which it is.
            within_limits: The network's numbers are known to keep all limits for single frames.
        """
        score, candidate, values = math.nan, "", _NO_VALUES
        if scored is not None:
            scores, values = scored.scores, _Values(scored)
            score = values.get(self._score_name, math.nan)
            found_here = self._numbers(values, score, scored, within_limits)
            if found_here and findings:
                # A sentence that is there already (a detector's) says more than none.
                findings = {**findings, **{why: text or findings.get(why, "") for why, text in found_here.items()}}
            elif found_here:
                findings = found_here
            candidate = self._labels[scores.argmax] if scores.argmax >= 0 else ""
        elif not findings:
            raise AssertionError("no scores and no reason")  # pragma: no cover - `judge` excludes it
        detail = _sentence(self._remark, *findings.values()) if findings else self._remark
        found = tuple(findings)
        if policy is not None:
            findings = policy.decide(findings, values, score, frame.captured_ns, frame_id=frame.frame_id)
        return Judged(findings, detail, scored or _NOT_SCORED, score, candidate, found)

    def _threshold_for(self, label: int) -> float:
        """What the score of a label was compared with; that of most labels where there was none (negative)."""
        if self._calibration is None or not self._calibration.classes or label < 0:
            return self._threshold
        return self._calibration.threshold_of(label)

    def prediction(
        self,
        frame: Frame,
        stream: str,
        judged: Judged,
        late: Findings,
        decided_ns: int,
        end_ns: int,
        found: FoundObject | None = None,
    ) -> Prediction:
        """What travels on: what was decided about one region, whether it came late, and when it ends."""
        scores = judged.scored.scores
        return prediction_of(
            frame_id=frame.frame_id,
            stream=stream,
            decided_reasons=(*judged.findings, *late),
            candidate=judged.candidate,
            confidence=scores.max_probability,
            entropy=scores.entropy,
            margin=scores.margin,
            energy=scores.energy,
            score=judged.score,
            threshold=self._threshold_for(scores.argmax),
            captured_ns=frame.captured_ns,
            decided_ns=decided_ns,
            engine_ns=judged.scored.engine_ns,
            detail=judged.detail,
            signals=judged.scored.signals,
            valid_until_ns=end_ns,
            found_reasons=judged.found,
            found=found,
            certificate=judged.certificate,
            candidate_id=int(scores.argmax) if scores.finite else NO_CLASS,
            candidate_probabilities=judged.scored.probabilities,
            dense=judged.scored.dense,
            promised_for=self._promised_for,
        )

    def ordinary(
        self,
        found: Looked,
        engine_ns: int,
        frame: Frame,
        roi: Roi,
        deadline_ns: int | None,
        policy: StreamPolicy | None,
    ) -> Prediction | None:
        """`decide` and `prediction` where nothing is against a frame but its numbers and its past.

        Args:
            found: What was seen on the fast path, all of it but, perhaps, `WITHIN`.
            engine_ns: See `Prediction`.
            frame: Of which it is.
            roi: The region.
            deadline_ns: An older frame is LATE; None sets no deadline.
            policy: Of the region's stream; None judges the frame alone.

        Returns:
            The prediction; None where numbers are needed that have to be put together: ask `decide`.
        """
        score_of, label = self._score_of, found.argmax
        if score_of is None or (policy is not None and policy.reads_values):
            return None
        score = score_of(found)
        alone = judge_score(score, True, self._calibration, label)
        detail: str | Callable[[], str] = self._remark
        if found.beyond >= 0:
            alone = {**alone, Reason.ACTIVATION_SHIFT: ""}
            detail = partial(self._words, self.limits[found.beyond], found)
        elif not found.said & WITHIN:
            scores = {name: of(found) for name, of in SCORE_OF.items()}
            signals = self._signals(found)  # most of them are computed only where a limit asks for them
            values = signals.beside(scores) if isinstance(signals, Signals) else scores
            beyond = judge_limits(values, self.limits)
            alone, detail = {**alone, **beyond}, _sentence(self._remark, *beyond.values())
        reasons = alone
        if policy is not None:
            reasons = policy.decide(alone, _SOME_VALUES, score, frame.captured_ns, frame_id=frame.frame_id)
        decided_ns = time.monotonic_ns()
        overdue = judge_age(decided_ns - frame.captured_ns, deadline_ns)
        return prediction_of(
            frame_id=frame.frame_id,
            stream=roi.name,
            decided_reasons=(*reasons, *overdue),
            candidate=self._labels[label],
            confidence=found.max_probability,
            entropy=found.entropy,
            margin=found.margin,
            energy=found.energy,
            score=score,
            threshold=self._threshold_for(label),
            captured_ns=frame.captured_ns,
            decided_ns=decided_ns,
            engine_ns=engine_ns,
            detail=detail,
            signals=self._signals(found),
            valid_until_ns=NEVER_NS if deadline_ns is None else frame.captured_ns + deadline_ns,
            found_reasons=tuple(alone),
            found=None,
            certificate=None,
            candidate_id=label,
            candidate_probabilities=(),
            dense=None,
            promised_for=self._promised_for,
        )

    def _words(self, limit: Limit, found: Looked) -> str:
        """For people, about a frame with a number beyond this limit."""
        score_of = SCORE_OF.get(limit.signal)
        value = self._signals(found).get(limit.signal, math.nan) if score_of is None else score_of(found)
        return _sentence(self._remark, limit.words(value))

    def _signals(self, found: Looked) -> Mapping[str, float]:
        return _NO_VALUES if self._monitor is None else self._monitor.signals_at(found.shift, found.pooled)

    def _numbers(
        self, values: Mapping[str, float], score: float, scored: Scored, within_limits: bool = False
    ) -> Findings:
        """What the network's numbers on this frame alone say against it."""
        label = scored.scores.argmax
        found = judge_score(score, label >= 0, self._calibration, label)
        beyond = NO_FINDINGS if within_limits else judge_limits(values, self.limits)
        return {**found, **beyond} if beyond else found
