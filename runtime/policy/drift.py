"""Has the stream as a whole left what was calibrated? More rejections, or higher scores, than the calibration saw.

The alarm collects evidence by betting on two kinds of frames, of which the calibration tells the share r0: rejected
ones, and ones whose score is among the highest third. A bet on the share q > r0 multiplies a stake by

    e = q / r0 if the frame is of that kind, else (1 - q) / (1 - r0)

(the likelihood ratio of a Bernoulli variable), whose mean is at most 1 as long as the share is at most r0.

Frames of a video resemble each other, so a hundred of them are no more evidence than a few. The e of a block of
`BLOCK` frames are therefore averaged, and the average E_b has a mean of at most 1 **whatever the dependence within the
block**. Blocks are summed up by the Shiryaev-Roberts rule

    S_b = (S_{b-1} + 1) E_b,          alarm when the mean of S over all bets reaches A,

an e-detector (Shin, Ramdas and Rinaldo 2022, "E-detectors", arXiv 2203.03532): while blocks are independent of each
other and like the calibration, the average run length to a false alarm is at least A blocks. That bound is proved;
``benchmarks/cost/drift.py`` measures the run length itself and the delay, ``benchmarks/cost/drift_scenes.py`` what
scenes do to it that are longer than a block: the run length falls from a million frames to some thousands, unless the
blocks are made as long as `SCENE_BLOCKS` scenes.

Only worse is drift: a stream that stares at one easy scene loses its bets, and nothing happens. The bet on scores is a
cautious one, since a scene may rightly stay among the higher accepted scores for a minute.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from framegate.runtime.bundle.binomial import upper_bound
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.verdict import Reason

BLOCK = 100
"""Frames that count as one piece of evidence: four seconds of video at 25 frames per second."""
SCENE_BLOCKS = 3
"""Where the length of scenes is known, a block is so many scenes long: then blocks are as good as independent."""
RUN_LENGTH = 1_000_000
"""Frames, at least, to a false alarm on average: 11 hours at 25 frames per second."""
SIMULATED = {100: 71_000, 250: 16_000, 500: 9_100, 1500: 5_600}
"""Frames to a false alarm in simulation, by the mean length of the scenes of a video that is like the calibration as a
whole (benchmarks/results/drift-scenes.json): what `RUN_LENGTH` becomes if the scenes are longer than the blocks."""
CALM_BLOCKS = 5
"""The alarm ends when this many blocks in a row are, taken together, like the calibration again."""
JUDGED = frozenset((Reason.HIGH_SCORE, Reason.ACTIVATION_SHIFT, Reason.NOT_FINITE))
"""Rejections that calibration counts, too. A frame with any other reason is no evidence: a black picture is a fault of
the camera and has its own reason."""
_REJECTION_BETS = (0.15, 0.4, 0.9)
_SCORE_BETS = (0.15,)
"""What is bet on: shares q this much of the way from r0 to 1."""
_HIGHEST = 1 / 3
_CONFIDENCE = 0.999
"""The calibrated shares are estimates: each r0 is the exact upper bound with this confidence, to the alarm's cost. No
rejection among the calibration images does not mean that there are none."""


@dataclass(frozen=True)
class _Bet:
    """One bet: what a block gains if all of its frames are of the kind, and if none is."""

    on_scores: bool
    gain: float
    loss: float


class DriftAlarm:
    """The evidence for drift on one stream.

    Args:
        calibration: With the coverage, and the score's quantiles if the bundle has them; without quantiles only the
            rejection rate is watched.
        block: Frames that may depend on each other in any way.
        run_length: Frames, at least, to a false alarm on average.

    Attributes:
        alarm: The stream has drifted. Ends by itself, see `CALM_BLOCKS`, or with `reset`.
        alarms: How often it was raised.
        high_score: Above it a score is among the highest third of the calibration's.
    """

    def __init__(self, calibration: Calibration, block: int = BLOCK, run_length: int = RUN_LENGTH) -> None:
        self.alarms = 0
        self._block = block
        self._needed = max(run_length / block, 1.0)
        size = max(calibration.size, 1)  # images that coverage and quantiles were measured on
        self._rejected_rate = _raised(max(1.0 - calibration.coverage, 0.0), size)
        self._high_rate, self.high_score = 1.0, math.inf
        quantiles = calibration.score_quantiles
        if len(quantiles) > 1:
            steps = len(quantiles) - 1
            index = math.ceil((1.0 - _HIGHEST) * steps)
            self._high_rate, self.high_score = _raised(1.0 - index / steps, size), quantiles[index]
        self._bets = (
            *_bets(False, self._rejected_rate, _REJECTION_BETS),
            *_bets(True, self._high_rate, _SCORE_BETS),
        )
        self.reset()

    def reset(self) -> None:
        """Forget all evidence and end the alarm: the camera or its scene was changed on purpose."""
        self.alarm = False
        self._evidence = [0.0] * len(self._bets)
        self._recent: deque[tuple[float, float]] = deque(maxlen=CALM_BLOCKS)
        self._frames = self._rejected = self._high = 0

    @property
    def evidence(self) -> float:
        """The evidence in [0, 1] as a share of what raises the alarm."""
        return min(sum(self._evidence) / (len(self._bets) * self._needed), 1.0) if self._bets else 0.0

    def saw(self, reasons: tuple[Reason, ...], score: float) -> bool:
        """Take one frame; True while the stream has drifted.

        Args:
            reasons: What this frame alone was rejected for; frames with other reasons than those of `JUDGED` are
                left out. NOT_CERTIFIED is no reason here: the calibration, whose coverage is compared, required no
                certificate.
            score: The calibrated score; NaN counts as higher than all.
        """
        if reasons:
            reasons = tuple(each for each in reasons if each is not Reason.NOT_CERTIFIED)
        if not JUDGED.issuperset(reasons):
            return self.alarm
        self._frames += 1
        self._rejected += bool(reasons)
        self._high += not score <= self.high_score
        if self._frames == self._block:
            self.take_block(self._rejected / self._block, self._high / self._block)
            self._frames = self._rejected = self._high = 0
        return self.alarm

    def take_block(self, rejected: float, high: float) -> None:
        """Take the shares of rejected frames and of high scores of a whole block; `saw` counts them."""
        if self.alarm:
            self._recent.append((rejected, high))
            rejections, scores = zip(*self._recent, strict=True)
            if (
                len(self._recent) == CALM_BLOCKS
                and sum(rejections) <= CALM_BLOCKS * self._rejected_rate
                and sum(scores) <= CALM_BLOCKS * self._high_rate
            ):
                self.reset()
            return
        for k, bet in enumerate(self._bets):
            share = high if bet.on_scores else rejected
            self._evidence[k] = (self._evidence[k] + 1.0) * (share * bet.gain + (1.0 - share) * bet.loss)
        if self.evidence >= 1.0:
            self.alarm = True
            self.alarms += 1


def _bets(on_scores: bool, rate: float, shares: tuple[float, ...]) -> list[_Bet]:
    """Bets on a kind of frame whose calibrated share is ``rate``; none if all frames are of this kind anyway."""
    if rate >= 1.0:
        return []
    return [_Bet(on_scores, (rate + share * (1.0 - rate)) / rate, 1.0 - share) for share in shares]


def _raised(share: float, size: int) -> float:
    """A share estimated from ``size`` frames, as its one-sided bound of Clopper and Pearson (1934); in (0, 1]."""
    return upper_bound(min(math.ceil(share * size - 1e-9), size), size, _CONFIDENCE)
