from __future__ import annotations

import pytest

from framegate.runtime import Reason, UsageError
from framegate.runtime.policy.track import TrackGate, TrackRule


def used(rule, frames):
    """Which frames are used; a frame is its accepted label, None if the gate rejected it, or -n for n missed ones."""
    gate = TrackGate(rule)
    out = []
    for label in frames:
        if isinstance(label, int):
            gate.missed(-label)
            continue
        findings = gate.decide(label is not None, label or "car")
        assert set(findings) <= {Reason.UNCONFIRMED}
        out.append(label is not None and not findings)
    return out


def test_without_a_rule_every_accepted_frame_is_used():
    assert used(TrackRule(), ["car", None, "bird", "car"]) == [True, False, True, True]


def test_equal_labels_are_asked_for_and_a_rejected_frame_between_them_does_not_count_against_them():
    assert used(TrackRule(1, 1, 3), ["car", "car", None, "car", "car"]) == [False, False, False, True, True]


def test_a_changed_label_starts_anew_also_the_frames_that_were_accepted():
    assert used(TrackRule(2, 3, 2), ["car", "car", "bird", "bird", "car"]) == [False, True, False, True, False]


def test_m_of_the_last_n_frames():
    frames = ["car", None, None, "car", "car", None, "car"]
    assert used(TrackRule(2, 3, 1), frames) == [False, False, False, False, True, False, True]


def test_frames_on_which_the_track_was_not_seen_count_as_not_accepted():
    assert used(TrackRule(2, 3, 1), ["car", "car", -3, "car", "car"]) == [False, True, False, True]


def test_a_frame_that_the_gate_rejects_is_never_used():
    assert used(TrackRule(1, 10, 1), ["car"] * 10 + [None]) == [True] * 10 + [False]


@pytest.mark.parametrize("rule", [TrackRule(1, 1, 1), TrackRule(2, 3, 2), TrackRule(3, 5, 4), TrackRule(1, 4, 3)])
def test_the_stated_delays_are_what_the_rule_takes(rule):
    always = used(rule, ["car"] * 50)
    assert always.index(True) == rule.delay
    # The worst order of M accepted frames in any N in a row: all of the pauses first.
    sparse = [None] * (rule.n - rule.m) + ["car"] * rule.m
    worst = max(used(rule, ["car", *(sparse * 20)]).index(True), used(rule, sparse * 20).index(True))
    assert worst <= rule.longest_delay


def test_the_delays_are_said_in_frames_and_in_time():
    text = TrackRule(2, 3, 2).describe(25.0)
    assert "1 frame (40 ms at 25 fps)" in text
    assert "2 frames (80 ms at 25 fps)" in text
    assert "at once" in TrackRule().describe(None)


@pytest.mark.parametrize("numbers", [(0, 1, 1), (2, 1, 1), (1, 1, 0), (1, 20_000, 1), (1.0, 1, 1), (True, 1, 1)])
def test_rules_that_make_no_sense_are_refused(numbers):
    with pytest.raises(UsageError, match="1 <= M <= N"):
        TrackRule(*numbers)


@pytest.mark.parametrize("text", ["", "2/3", "2/3/x", "-1/2/2", "3/2/1"])
def test_a_rule_of_the_command_line_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="track rule"):
        TrackRule.parse(text)
    assert TrackRule.parse(" 2/3/ 2") == TrackRule(2, 3, 2)
