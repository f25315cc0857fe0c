"""Has the stream as a whole left what was calibrated? More rejections, or higher scores, than the calibration saw.

The alarm collects evidence by betting: every frame multiplies a stake by a number whose mean is at most 1 as long as
frames are like those of the calibration, and above 1 when they are worse. Several bets run side by side:

* on the rejection rate, at some rates above the calibrated one: the likelihood ratio of a Bernoulli variable;
* on the score, against p = P(calibrated score >= this one): k p^(k-1) (a "power" calibrator, Vovk 1993; Sellke,
  Bayarri and Berger 2001). With the k used here it gains only on scores among the highest quarter.

Frames of a video resemble each other, so a second of them is no more evidence than one frame. Within a block of
``BLOCK`` frames the bets are therefore averaged geometrically: by Hölder's inequality the mean of that product stays at
most 1 **whatever the dependence within the block**. Blocks are summed up by the Shiryaev-Roberts rule

    S_b = (S_{b-1} + 1) E_b,          alarm when the average of S over all bets reaches A,

an e-detector (Shin, Ramdas and Rinaldo 2022, "E-detectors", arXiv 2203.03532): while blocks are independent and like
the calibration, the average run length to a false alarm is at least A blocks. That lower bound is proved;
``benchmarks/simulate_drift.py`` measures the run length itself, what longer dependence does to it, and the delay.

Only worse is drift: a stream that stares at one easy scene loses its bets, and nothing happens.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from framegate.runtime.calibration import Calibration
from framegate.runtime.verdict import Reason

BLOCK = 25
"""Frames that count as one piece of evidence: about a second of video."""
RUN_LENGTH = 1_000_000
"""Frames, at least, to a false alarm on average: 11 hours at 25 frames per second."""
JUDGED = frozenset((Reason.HIGH_SCORE, Reason.ACTIVATION_SHIFT, Reason.NOT_FINITE))
"""Rejections that calibration counts, too. A frame with any other reason is no evidence: a black picture is a fault of
the camera and has its own reason."""
_RATES = (0.15, 0.4, 0.9)
"""Bets on the rejection rate, as shares of the way from the calibrated rate to 1."""
_POWERS = (0.25, 0.5)
"""Exponents k of the bets on the score."""
_FALLEN = 0.01
"""The alarm ends when the evidence has fallen to this share of what raised it."""
_SIGMAS = 3.0
"""The calibrated rates are estimates: each is taken this many standard errors higher, to the alarm's disadvantage."""


class DriftAlarm:
    """The evidence for drift on one stream.

    Args:
        calibration: With the coverage, and the score's quantiles if the bundle has them; without quantiles only the
            rejection rate is watched.
        block: Frames that may depend on each other in any way.
        run_length: Frames, at least, to a false alarm on average.

    Attributes:
        alarm: The stream has drifted. Ends by itself when frames like the calibration's have worn the evidence down.
        alarms: How often it was raised.
    """

    def __init__(self, calibration: Calibration, block: int = BLOCK, run_length: int = RUN_LENGTH) -> None:
        self.alarm = False
        self.alarms = 0
        self._block = block
        self._needed = max(run_length / block, 1.0)
        self._quantiles = calibration.score_quantiles
        self._size = max(calibration.size // 2, 1)  # the scores' quantiles come from the half that tested the threshold
        rate = _raised(max(1.0 - calibration.coverage, 0.0), self._size)
        rates = [rate + share * (1.0 - rate) for share in _RATES] if rate < 1.0 else []
        self._rejected = [math.log(bet / rate) for bet in rates]
        self._accepted = [math.log((1.0 - bet) / (1.0 - rate)) for bet in rates]
        self._powers = [(math.log(power), power - 1.0) for power in _POWERS] if len(self._quantiles) > 1 else []
        self._bets = len(rates) + len(self._powers)
        self.reset()

    def reset(self) -> None:
        """Forget all evidence and end the alarm: the camera or its scene was changed on purpose."""
        self.alarm = False
        self._evidence = [0.0] * self._bets
        self._start_block()

    @property
    def evidence(self) -> float:
        """The evidence in [0, 1] as a share of what raises the alarm."""
        return min(sum(self._evidence) / (self._bets * self._needed), 1.0) if self._bets else 0.0

    def saw(self, reasons: tuple[Reason, ...], score: float) -> bool:
        """Take one frame; True while the stream has drifted.

        Args:
            reasons: What this frame alone was rejected for; frames with other reasons than those of `JUDGED` are
                left out.
            score: The calibrated score; NaN counts as higher than all.
        """
        if not JUDGED.issuperset(reasons):
            return self.alarm
        sums = self._sums
        gains = self._rejected if reasons else self._accepted
        for k, gain in enumerate(gains):
            sums[k] += gain
        if self._powers:
            log_p = math.log(self._p_value(score))
            for k, (log_power, exponent) in enumerate(self._powers, len(gains)):
                sums[k] += log_power + exponent * log_p
        self._count += 1
        if self._count == self._block:
            self._end_block()
        return self.alarm

    def _p_value(self, score: float) -> float:
        """An upper estimate of the share of calibration frames with at least this score, in (0, 1]."""
        below = len(self._quantiles) if math.isnan(score) else bisect_left(self._quantiles, score)
        steps = len(self._quantiles) - 1
        # A score between two quantiles may be as low as the lower one.
        return _raised(1.0 - max(below - 1, 0) / steps, self._size)

    def _start_block(self) -> None:
        self._sums = [0.0] * self._bets
        self._count = 0

    def _end_block(self) -> None:
        most = self._bets * self._needed  # enough alone; without a limit a long alarm would take as long to end
        self._evidence = [
            min((past + 1.0) * math.exp(total / self._block), most)
            for past, total in zip(self._evidence, self._sums, strict=True)
        ]
        self._start_block()
        if not self.alarm and self.evidence >= 1.0:
            self.alarm = True
            self.alarms += 1
        elif self.alarm and self.evidence <= _FALLEN:
            self.alarm = False


def _raised(share: float, size: int) -> float:
    """A share estimated from ``size`` frames, raised by its uncertainty; in (0, 1]."""
    return min(share + _SIGMAS * math.sqrt(share * (1.0 - share) / size) + 1.0 / size, 1.0)
