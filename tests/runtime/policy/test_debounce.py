from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.runtime.errors import UsageError
from framegate.runtime.policy.debounce import BLIND, HARD, SOFT, Debounce, Debouncer, parse_debounce
from framegate.runtime.verdict import Reason

BLURRED, BLACK = Reason.BLURRED, Reason.BLACK


def verdicts(rule: Debounce, pattern: str, reason: Reason = BLURRED) -> str:
    """``x`` a frame with the reason, ``.`` without, ``b`` a black one; -> ``R`` rejected for it, ``-`` not."""
    debouncer = Debouncer({reason: rule})
    frames = {"x": (reason,), ".": (), "b": (BLACK,)}
    return "".join("R" if reason in debouncer.decide(frames[each]) else "-" for each in pattern)


def test_every_reason_is_either_hard_or_soft():
    assert set(Reason) == HARD | SOFT
    assert not HARD & SOFT
    assert BLIND <= HARD


@pytest.mark.parametrize(
    ("rule", "frames", "expected"),
    [
        (Debounce(), "x.x..x", "R-R--R"),
        (Debounce(3, 3, 1), "xxx.xx", "--R---"),
        (Debounce(3, 5, 1), "x.x.xx", "----RR"),
        (Debounce(1, 1, 3), "x...x..x...", "RRR-RRRRRR-"),
        (Debounce(2, 4, 2), "xx.x..", "-RRRR-"),
        # A flicker that never reaches M of N is never rejected: that is what was asked for.
        (Debounce(2, 3, 1), "x..x..x..", "---------"),
        # Black frames show nothing: they neither end a rejection nor bring one nearer.
        (Debounce(2, 3, 2), "xxbbb.b.", "-RRRRRR-"),
        (Debounce(2, 2, 1), "xbbx.", "---R-"),
    ],
)
def test_by_hand(rule, frames, expected):
    assert verdicts(rule, frames) == expected


def test_a_reason_that_comes_back_soon_is_believed_at_once():
    # Three of the last five again with the first new one.
    assert verdicts(Debounce(3, 5, 1), "xxx.x") == "--R-R"


def test_a_certain_reason_does_not_wait():
    debouncer = Debouncer({BLURRED: Debounce(3, 3)})
    assert debouncer.decide((BLURRED,)) == ()
    assert debouncer.decide((BLURRED,), certain=(BLURRED,)) == (BLURRED,)


RULES = st.tuples(st.integers(1, 6), st.integers(0, 5), st.integers(1, 6)).map(
    lambda numbers: Debounce(numbers[0], numbers[0] + numbers[1], numbers[2])
)
FRAMES = st.lists(st.sets(st.sampled_from(sorted(Reason)), max_size=3).map(tuple), max_size=60)


@given(rules=st.dictionaries(st.sampled_from(sorted(Reason)), RULES), frames=FRAMES)
@settings(deadline=None)
def test_no_sequence_accepts_a_frame_with_a_hard_reason(rules, frames):
    # The rules are not even checked here: a hard reason with M of N, which Policy refuses, must reject at once, too.
    debouncer = Debouncer(rules)
    for reasons in frames:
        decided = debouncer.decide(reasons)
        assert HARD.intersection(reasons) <= set(decided)
        assert len(set(decided)) == len(decided)


@given(rule=RULES, frames=FRAMES, reason=st.sampled_from(sorted(SOFT)))
@settings(deadline=None)
def test_no_n_frames_hold_more_accepted_ones_than_stated(rule, frames, reason):
    debouncer = Debouncer({reason: rule})
    let_through = []
    for reasons in frames:
        decided = debouncer.decide(reasons)
        let_through.append(reason in reasons and not decided)
    for start in range(len(frames)):
        assert sum(let_through[start : start + rule.n]) <= rule.delay


@given(rule=RULES, before=FRAMES, reason=st.sampled_from(sorted(SOFT)))
@settings(deadline=None)
def test_a_lasting_reason_rejects_after_the_stated_delay_and_ends_after_the_stated_hold(rule, before, reason):
    debouncer = Debouncer({reason: rule})
    for reasons in before:
        debouncer.decide(reasons)
    decided = [debouncer.decide((reason,)) for _ in range(rule.delay + 1)]
    assert decided[-1] == (reason,)
    assert [debouncer.decide(()) for _ in range(rule.hold)] == [(reason,)] * rule.hold
    assert debouncer.decide(()) == ()


def test_parse():
    rules = parse_debounce(["BLURRED=3/5/10", " black = 1/1/4"])
    assert rules == {BLURRED: Debounce(3, 5, 10), BLACK: Debounce(1, 1, 4)}


@dataclass
class Bad:
    texts: list[str]
    says: str


@pytest.mark.parametrize(
    "bad",
    [
        Bad(["BLURRED"], "expected REASON=M/N/K"),
        Bad(["BLURRED=3/5"], "expected REASON=M/N/K"),
        Bad(["BLURRED=3/5/-1"], "expected REASON=M/N/K"),
        Bad(["BLURRED=a/b/c"], "expected REASON=M/N/K"),
        Bad(["BLURRED=²/2/1"], "expected REASON=M/N/K"),
        Bad(["BLURRED=6/5/1"], "1 <= M <= N"),
        Bad(["BLURRED=0/5/1"], "1 <= M <= N"),
        Bad(["BLURRED=1/1/0"], "K >= 1"),
        Bad(["BLURRED=1/99999999/1"], "up to 10000"),
        Bad(["FUZZY=1/1/1"], "reasons are ACTIVATION_SHIFT"),
        Bad(["HIGH_SCORE=2/3/4"], "only K can be set (HIGH_SCORE=1/1/4)"),
        Bad(["LATE=1/1/4"], "LATE cannot be debounced"),
        Bad(["EXPIRED=1/1/4"], "EXPIRED cannot be debounced"),
        Bad(["NO_FRAME=1/1/4"], "NO_FRAME cannot be debounced"),
        Bad(["UNCONFIRMED=1/1/4"], "by the rule of the track"),
        Bad(["BLURRED=1/1/1", "blurred=1/1/2"], "already given as 1/1/1"),
    ],
    ids=lambda bad: " ".join(bad.texts),
)
def test_bad_rules_are_refused_with_the_reason(bad):
    with pytest.raises(UsageError) as error:
        parse_debounce(bad.texts)
    assert bad.says in str(error.value)


def test_numbers_that_are_not_whole_are_refused():
    for numbers in ((1.0, 1, 1), (True, 1, 1), (1, 1, 0)):
        with pytest.raises(UsageError):
            Debounce(*numbers)
