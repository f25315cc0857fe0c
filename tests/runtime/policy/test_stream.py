from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.runtime.bundle.calibration import Calibration, Limit
from framegate.runtime.errors import UsageError
from framegate.runtime.policy.debounce import _AFTER, HARD, SOFT, Debounce
from framegate.runtime.policy.delays import policy_lines, policy_record
from framegate.runtime.policy.stream import Policy, StreamPolicy
from framegate.runtime.policy.window import Windows
from framegate.runtime.verdict import Reason

CALIBRATION = Calibration(1.0, "entropy", 0.5, 0.05, 0.95, 0.04, 0.9, 0.01, 1000, "0", "0", "test")
SHIFT, STALE, WARMING, BLURRED = Reason.ACTIVATION_SHIFT, Reason.STALE_FRAME, Reason.WARMING_UP, Reason.BLURRED


def windowed(frames: int = 4, low: float | None = 0.0, high: float | None = 1.0) -> Calibration:
    return replace(CALIBRATION, limits=(Limit("tap", low, high, frames), Limit("tap", -9.0, 9.0)))


class Stream:
    """A stream whose frames come 10 ns apart."""

    def __init__(self, calibration: Calibration | None = CALIBRATION, sequence: bool = True, **policy):
        self.policy = StreamPolicy(Policy(**policy), calibration, sequence=sequence)
        self.now = 0

    def frame(self, *reasons: Reason, tap: float | None = 0.5, score: float = 0.1) -> tuple[Reason, ...]:
        self.now += 10
        values = {} if tap is None else {"tap": tap, "entropy": score}
        return tuple(self.policy.decide(dict.fromkeys(reasons, ""), values, score, self.now, self.now))


def test_the_default_adds_and_removes_nothing():
    stream = Stream()
    for reasons in ((), (BLURRED,), (Reason.HIGH_SCORE, SHIFT), ()):
        assert stream.frame(*reasons) == reasons


def test_a_window_sees_the_mean_of_the_last_frames_only():
    windows = Windows(windowed().limits)
    assert windows.frames == 4
    # Three values are no full window yet; then means of 0.5, 0.9, 1.1, 0.9 ...
    given_values = (0.5, 0.5, 0.5, 0.5, 2.1, 1.3, -0.3)
    assert [windows.hold({"tap": v}) for v in given_values] == [True, True, True, True, True, False, True]


def test_a_lasting_small_shift_is_seen_when_it_fills_the_window_though_each_frame_is_within_its_limit():
    stream = Stream(windowed(high=1.0))
    assert [stream.frame(tap=0.9) for _ in range(4)] == [()] * 4
    decided = [stream.frame(tap=1.05) for _ in range(4)]
    assert decided[-1] == (SHIFT,)
    assert decided[0] == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_a_value_that_is_no_number_or_missing_breaks_the_window_as_long_as_it_is_in_it(value):
    windows = Windows(windowed().limits)
    odd = {} if value is None else {"tap": value}
    seen = [windows.hold(v) for v in (odd, *[{"tap": 0.5}] * 5)]
    assert seen == [False] * 4 + [True] * 2


def test_a_sum_beyond_float64_breaks_the_window_and_does_not_raise():
    windows = Windows((Limit("tap", low=0.0, frames=2),))
    assert [windows.hold({"tap": 1.7e308}) for _ in range(2)] == [True, False]


def test_frames_without_output_leave_the_window_as_it_is():
    stream = Stream(windowed(frames=2))
    stream.frame(tap=0.9)
    assert stream.frame(Reason.BAD_INPUT, tap=None) == (Reason.BAD_INPUT,)
    assert stream.frame(Reason.BLACK, tap=50.0) == (Reason.BLACK,)
    assert stream.frame(tap=0.9) == ()
    assert stream.frame(tap=1.2) == (SHIFT,)


def test_a_shift_that_a_single_frame_shows_is_named_once_and_never_waits():
    # The promise counts it as rejected; what only the window sees may wait.
    stream = Stream(windowed(frames=1), debounce={SHIFT: Debounce(3, 3)})
    assert stream.frame(SHIFT) == (SHIFT,)
    stream = Stream(windowed(frames=2), debounce={SHIFT: Debounce(2, 2)})
    assert [stream.frame(tap=2.0) for _ in range(3)] == [(), (), (SHIFT,)]


def test_time_must_advance():
    policy = StreamPolicy(Policy(), CALIBRATION)
    decide = [
        tuple(policy.decide({}, {"entropy": 0.1}, 0.1, captured, 100)) for captured in (10, 10, 5, 11, 101, 12, 100)
    ]
    # A frame from the future is refused and forgotten; it does not make the later ones stale.
    assert decide == [(), (STALE,), (STALE,), (), (STALE,), (), ()]


def test_warm_up_counts_usable_frames():
    stream = Stream(warm_up=2)
    assert stream.frame() == (WARMING,)
    assert stream.frame(Reason.BLACK) == (Reason.BLACK, WARMING)
    assert stream.frame(Reason.HIGH_SCORE) == (Reason.HIGH_SCORE, WARMING)
    assert stream.frame() == ()


def test_unrelated_images_have_no_windows_warm_up_or_debounce():
    stream = Stream(windowed(frames=2), sequence=False, warm_up=3, debounce={BLURRED: Debounce(2, 2, 9)})
    assert stream.frame(tap=5.0) == ()
    assert stream.frame(BLURRED, tap=5.0) == (BLURRED,)
    assert stream.frame(tap=5.0) == ()


def test_not_calibrated_stays_rejected():
    stream = Stream(None, debounce={BLURRED: Debounce(2, 2, 2)})
    assert stream.frame(Reason.NOT_CALIBRATED) == (Reason.NOT_CALIBRATED,)


RULES = st.tuples(st.integers(1, 5), st.integers(0, 5), st.integers(1, 5))


@st.composite
def policies(draw):
    debounce = {}
    for reason in draw(st.sets(st.sampled_from(sorted(set(Reason) - set(_AFTER))))):
        m, more, k = draw(RULES)
        debounce[reason] = Debounce(m, m + more, k) if reason in SOFT else Debounce(1, 1 + more, k)
    return Policy(debounce, draw(st.integers(0, 3)), draw(st.booleans()))


INPUT = st.tuples(
    st.sets(st.sampled_from(sorted(Reason)), max_size=3).map(tuple),
    st.one_of(st.none(), st.floats()),
    st.floats(),
    st.integers(-3, 60),
)


@given(policy=policies(), frames=st.lists(INPUT, max_size=60), calibrated=st.booleans(), sequence=st.booleans())
@settings(deadline=None)
def test_no_sequence_of_inputs_turns_a_frame_with_a_hard_reason_into_accept(policy, frames, calibrated, sequence):
    stream = StreamPolicy(policy, windowed() if calibrated else None, sequence=sequence)
    latest = -(10**9)
    soft_through: dict[Reason, list[bool]] = {reason: [] for reason in SOFT}
    for reasons, tap, score, captured in frames:
        values = {} if tap is None else {"tap": tap}
        decided = tuple(stream.decide(dict.fromkeys(reasons, ""), values, score, captured, 50))
        assert HARD.intersection(reasons) <= set(decided)
        if captured > 50 or captured <= latest:
            assert STALE in decided
        latest = captured if latest < captured <= 50 else latest
        for reason, through in soft_through.items():
            through.append(reason in reasons and not decided)
    for reason, through in soft_through.items():
        rule = policy.debounce.get(reason, Debounce())
        for start in range(len(through)):
            assert sum(through[start : start + rule.n]) <= rule.delay


def test_bad_policies_are_refused():
    with pytest.raises(UsageError, match="always rejects at once"):
        Policy({Reason.BLACK: Debounce(2, 2)})
    with pytest.raises(UsageError, match="warm-up is -1"):
        Policy(warm_up=-1)
    with pytest.raises(UsageError, match="warm-up"):
        Policy(warm_up=1.5)  # type: ignore[arg-type]


def test_delays_in_frames_and_milliseconds():
    policy = Policy({BLURRED: Debounce(3, 5, 10), Reason.BLACK: Debounce(1, 1, 2)}, warm_up=5)
    record = policy_record(policy, windowed(16), 25.0)
    blurred = record["debounce"]["BLURRED"]
    assert (blurred["delay_frames"], blurred["longest_delay_frames"], blurred["hold_frames"]) == (2, 4, 9)
    assert (blurred["delay_ms"], blurred["longest_delay_ms"], blurred["hold_ms"]) == (80.0, 160.0, 360.0)
    assert record["debounce"]["BLACK"]["delay_ms"] == 0
    assert record["windows"] == [{"signal": "tap", "frames": 16, "longest_delay_ms": 640.0}]
    assert policy_record(policy, windowed(16), 25.0, sequence=False)["windows"] == []
    assert policy_record(policy, None, None)["debounce"]["BLURRED"]["delay_ms"] is None
    text = "\n".join(policy_lines(policy, windowed(16), 25.0))
    for part in ("3 of the last 5", "2 frames (80 ms at 25 fps)", "4 frames (160 ms", "640 ms", "1,000,000 frames"):
        assert part in text
    assert "rejects at once (0 frames" in policy_lines(Policy(), None, None)[0]
