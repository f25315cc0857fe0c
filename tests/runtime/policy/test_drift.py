from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.errors import UsageError
from framegate.runtime.policy.drift import BLOCK, CALM_BLOCKS, DriftAlarm
from framegate.runtime.policy.stream import Policy, StreamPolicy
from framegate.runtime.verdict import Reason

QUANTILES = tuple(k / 100 for k in range(101))
PLAIN = Calibration(1.0, "entropy", 0.8, 0.05, 0.95, 0.04, 0.8, 0.01, 4000, "0", "0", "test")
FULL = replace(PLAIN, score_quantiles=QUANTILES)
HIGH = (Reason.HIGH_SCORE,)


def frames_to_alarm(alarm: DriftAlarm, scores) -> int | None:
    for number, score in enumerate(scores, 1):
        if alarm.saw(HIGH if not score <= 0.8 else (), score):
            return number
    return None


@pytest.mark.parametrize("calibration", [PLAIN, FULL], ids=["without quantiles", "with quantiles"])
def test_silent_on_frames_like_the_calibration_and_on_easy_ones(calibration):
    scores = np.random.default_rng(1).random(100_000).tolist()
    assert frames_to_alarm(DriftAlarm(calibration), scores) is None
    assert frames_to_alarm(DriftAlarm(calibration), [score / 5 for score in scores]) is None


@pytest.mark.parametrize("calibration", [PLAIN, FULL], ids=["without quantiles", "with quantiles"])
def test_more_rejections_raise_it_within_a_minute(calibration):
    assert frames_to_alarm(DriftAlarm(calibration), [0.9] * 1500) <= 900
    half = np.random.default_rng(2).uniform(0.6, 1.0, 1700).tolist()
    assert frames_to_alarm(DriftAlarm(calibration), half) <= 1700


def test_higher_scores_raise_it_though_all_are_accepted_but_only_with_quantiles():
    scores = np.random.default_rng(3).uniform(0.7, 0.8, 8000).tolist()
    assert frames_to_alarm(DriftAlarm(FULL), scores) < 6000
    assert frames_to_alarm(DriftAlarm(PLAIN), scores) is None


def test_silent_on_a_minute_of_accepted_video_however_alike_its_frames():
    # Scenes of 20 seconds, each stuck at one accepted score, the last two as high as accepted ones get.
    scores = [score for score in (0.1, 0.5, 0.3, 0.79, 0.79) for _ in range(500)]
    assert frames_to_alarm(DriftAlarm(FULL), scores) is None


def test_nan_counts_as_higher_than_all():
    assert frames_to_alarm(DriftAlarm(FULL), [math.nan] * 1000) is not None
    alarm = DriftAlarm(FULL)
    assert any([alarm.saw((), math.nan) for _ in range(8000)])


def test_frames_rejected_for_another_reason_are_no_evidence():
    alarm = DriftAlarm(FULL)
    assert not any(alarm.saw((Reason.BLACK, *HIGH), 0.9) for _ in range(5000))
    assert alarm.evidence == 0.0


@pytest.mark.parametrize("calibration", [PLAIN, FULL], ids=["without quantiles", "with quantiles"])
def test_what_lacks_a_certificate_is_not_drift(calibration):
    """A certificate covers few frames; those that lack one are accepted as far as the calibration is concerned."""
    rng = np.random.default_rng(4)
    alarm = DriftAlarm(calibration)
    for score in rng.random(20_000).tolist():
        reasons = HIGH if score > 0.8 else (Reason.NOT_CERTIFIED,) if rng.random() < 0.9 else ()
        assert not alarm.saw(reasons, score)
    assert frames_to_alarm(alarm, [0.9] * 1500) is not None  # the frames before have not made it blind


def test_it_ends_after_calm_blocks_counts_how_often_it_was_raised_and_can_be_reset():
    alarm = DriftAlarm(FULL)
    # Evenly spread like the calibrated scores, without their chance.
    calm = (np.random.default_rng(4).permutation(BLOCK * CALM_BLOCKS) / (BLOCK * CALM_BLOCKS)).tolist()
    for raised in (1, 2):
        frames_to_alarm(alarm, [0.9] * 2000)
        assert alarm.alarm
        assert alarm.alarms == raised
        seen = [alarm.saw(HIGH if score > 0.8 else (), score) for score in calm]
        assert seen[-2:] == [True, False]
        assert alarm.evidence == 0.0
    frames_to_alarm(alarm, [0.9] * 2000)
    assert alarm.evidence == 1.0
    alarm.reset()
    assert not alarm.alarm
    assert alarm.evidence == 0.0


def test_it_does_not_end_while_more_is_rejected_than_calibrated():
    alarm = DriftAlarm(FULL)
    frames_to_alarm(alarm, [0.9] * 2000)
    assert all(alarm.saw(HIGH if k % 3 == 0 else (), 0.9 if k % 3 == 0 else 0.1) for k in range(5000))


@given(
    coverage=st.one_of(st.just(1.0), st.just(0.0), st.floats(1e-6, 1.0)),
    size=st.integers(1, 10**6),
    quantiles=st.lists(st.floats(-10, 10), max_size=20).map(lambda q: tuple(sorted(q))),
    scores=st.lists(st.floats(), min_size=1, max_size=10),
)
@settings(deadline=None)
def test_no_calibration_and_no_score_breaks_it(coverage, size, quantiles, scores):
    alarm = DriftAlarm(replace(PLAIN, coverage=coverage, size=size, score_quantiles=quantiles), block=3)
    for score in scores * 12:
        alarm.saw(HIGH if not score <= 0 else (), score)
        assert 0.0 <= alarm.evidence <= 1.0


@functools.cache
def alarm_of_many_calibration_images() -> DriftAlarm:
    """It is only read."""
    return DriftAlarm(replace(FULL, size=10**6), block=4)


@given(rate=st.floats(0.0, 0.2), dependent=st.booleans(), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=10)
def test_bets_do_not_gain_on_average_whatever_the_dependence_within_a_block(rate, dependent, seed):
    # The mean over all outcomes of one block, exactly: dependent frames are all alike, independent ones binomial.
    alarm = alarm_of_many_calibration_images()
    assert len({bet.on_scores for bet in alarm._bets}) == 2
    for bet in alarm._bets:
        base = alarm._high_rate if bet.on_scores else alarm._rejected_rate
        share = min(rate, base)
        outcomes = (
            {0: 1 - share, 4: share}
            if dependent
            else {k: math.comb(4, k) * share**k * (1 - share) ** (4 - k) for k in range(5)}
        )
        mean = sum(p * (k / 4 * bet.gain + (1 - k / 4) * bet.loss) for k, p in outcomes.items())
        assert mean <= 1 + 1e-9


def test_the_policy_gives_the_reason_and_stale_frames_are_no_evidence():
    def run(captured) -> list[tuple[Reason, ...]]:
        policy = StreamPolicy(Policy(), FULL)
        decided = [
            tuple(policy.decide(dict.fromkeys(HIGH, ""), {"entropy": 0.9}, 0.9, captured(k), 10**9))
            for k in range(1, 1501)
        ]
        assert policy.drift is not None
        return [*decided, tuple(policy.decide({}, {"entropy": 0.1}, 0.1, 10**8, 10**9))]

    fresh = run(lambda k: k)
    assert fresh[0] == HIGH
    assert fresh[-2] == (*HIGH, Reason.DRIFT)
    assert fresh[-1] == (Reason.DRIFT,)  # a frame that would be accepted, in a stream that has drifted
    assert not any(Reason.DRIFT in reasons for reasons in run(lambda k: 1))
    assert StreamPolicy(Policy(drift=False), FULL).drift is None


def test_reset_of_the_policy_ends_the_alarm():
    policy = StreamPolicy(Policy(), FULL)
    for k in range(2000):
        policy.decide(dict.fromkeys(HIGH, ""), {"entropy": 0.9}, 0.9, k, 10**9)
    policy.reset()
    assert policy.decide({}, {"entropy": 0.1}, 0.1, 2000, 10**9) == {}


@pytest.mark.parametrize("size", [90, 300, 1000])
def test_no_rejection_among_the_calibration_images_does_not_mean_that_there_are_none(size):
    """Shares up to three in the calibration's size go unseen often enough; they must not be drift."""
    alarms = 0
    for seed in range(100):
        random = np.random.default_rng([size, seed])
        alarm = DriftAlarm(replace(FULL, coverage=1.0, size=size))
        for rejected in random.binomial(BLOCK, 3 / size * random.random(), 1000).tolist():
            alarm.take_block(rejected / BLOCK, 0.33)
        alarms += alarm.alarms > 0
    assert alarms <= 2


def test_blocks_follow_the_scenes_of_the_policy():
    assert Policy().drift_block == BLOCK
    assert Policy(scene_frames=10).drift_block == BLOCK
    assert Policy(scene_frames=500).drift_block == 1500
    policy = StreamPolicy(Policy(scene_frames=500), FULL)
    assert policy.drift is not None
    assert policy.drift._block == 1500
    with pytest.raises(UsageError, match="scenes are -1 frames"):
        Policy(scene_frames=-1)


def test_tracks_placed_end_to_end_are_no_drift_if_the_blocks_follow_them():
    """An hour of tracks of thirty frames, each with a score of its own; as a whole they are like the calibration."""

    def alarms(block: int) -> int:
        random = np.random.default_rng(6)
        scores = np.repeat(random.random(3000), 30) * 0.9 + random.random(90_000) * 0.1
        calibrated = replace(FULL, score_quantiles=tuple(np.quantile(scores, np.linspace(0, 1, 101))))
        limit = float(np.quantile(scores, 0.8))
        alarm = DriftAlarm(calibrated, block=block)
        for score in scores.tolist():
            alarm.saw(HIGH if score > limit else (), score)
        return alarm.alarms

    assert alarms(Policy(scene_frames=30).drift_block) == 0
    assert alarms(1) > 0  # taken one by one they are drift all the time
