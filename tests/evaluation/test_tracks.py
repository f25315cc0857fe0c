from __future__ import annotations

import shutil

import numpy as np
import pytest

from framegate.evaluation.report.table import markdown
from framegate.evaluation.tracks import FORMAT, RULES, _store, apply_rule, prove_tracks, read_tracks, table, tracks_of
from framegate.export.calibration.track_promise import prove_rule
from framegate.runtime import Bundle
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.policy.track import TrackRule

LABELS = np.array([0] * 5 + [1] * 4 + [2] * 3)
GROUPS = np.array([7] * 5 + [3] * 4 + [9] * 3)
FOUND = np.array([1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 0])
PASSED = np.array([1, 1, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1], bool)


def figures(rule):
    return apply_rule(rule, LABELS, FOUND, PASSED, GROUPS)


def test_tracks_keep_the_order_of_their_frames():
    assert [list(each) for each in tracks_of(np.array([2, 1, 2, 1, 2]))] == [[1, 3], [0, 2, 4]]


def test_every_accepted_frame_counts_without_a_rule():
    found = figures(TrackRule())
    assert (found.tracks, found.used, found.used_frames) == (3, 2, 7)
    assert (found.wrong, found.wrong_first, found.flips, found.wrong_frames) == (2, 1, 2, 2)
    assert sorted(found.waits) == [1, 1]


def test_equal_labels_keep_single_wrong_ones_out():
    found = figures(TrackRule(1, 1, 2))
    assert (found.wrong, found.flips, found.wrong_frames) == (0, 0, 0)
    assert sorted(found.waits) == [2, 4]
    record = found.to_json()
    assert record["frames_to_first_accept"] == {"median": 3.0, "p90": pytest.approx(3.8), "max": 4}
    assert record["tracks_wrong"]["high"] > 0.5  # three tracks promise nothing


@pytest.mark.parametrize("rule", [TrackRule(1, 1, 1), TrackRule(1, 1, 2), TrackRule(2, 3, 2), TrackRule(3, 4, 3)])
def test_what_is_promised_of_tracks_holds_whichever_frames_are_rejected_besides(rule):
    """The camera check takes a right frame away, and two wrong ones that it kept apart agree."""
    rng, worse = np.random.default_rng(0), 0
    for _ in range(40):
        found, passed = (rng.random(7) < 0.5).astype(np.int64), rng.random(7) < 0.8
        labels = groups = np.zeros(7, np.int64)
        counted = apply_rule(rule, labels, found, passed, groups)
        kept = [np.array([bit >> k & 1 for k in range(7)], bool) for bit in range(128)]
        some = [apply_rule(rule, labels, found, passed & each, groups).wrong for each in kept]
        assert counted.wrong_at_worst == max(some)
        worse += counted.wrong_at_worst > counted.wrong
    assert (worse > 0) is (rule.k > 1)


def test_the_promise_of_tracks_counts_the_worst():
    record = {"rules": [figures(rule).to_json() for rule in RULES]}
    for each in record["rules"]:
        each["tracks_wrong_at_worst_count"] = 3 if each["rule"] == "1/1/3" else 0
    promise = prove_tracks(record, 0.7, 0.9)
    assert (str(promise.rule), promise.wrong) == ("3/5/3", 0)


def test_a_rule_that_uses_nothing_has_no_times():
    record = figures(TrackRule(1, 1, 9)).to_json()
    assert record["frames_to_first_accept"] is None
    assert record["tracks_used"]["value"] == 0


def test_the_table_shows_every_rule_and_records_of_another_kind_are_refused(tmp_path):
    record = {"bundle": {"name": "tiny"}, "key": "onnxruntime/fp32", "format": FORMAT}
    record["rules"] = [figures(rule).to_json() for rule in (TrackRule(), TrackRule(1, 1, 3), TrackRule(1, 1, 9))]
    text = markdown(table([record]))
    assert "| 1/1/3 (default) |" in text
    assert "2 of 3" in text
    (tmp_path / "a.json").write_text('{"format": "other"}')
    with pytest.raises(DataError, match="evaluate --tracks"):
        read_tracks(tmp_path)


def test_what_was_proved_is_stored_and_nothing_else(tiny_bundle, tmp_path, capsys):
    bundle = Bundle.open(shutil.copytree(tiny_bundle, tmp_path / "tiny.bundle"))
    record = {"key": "onnxruntime/fp32", "unseen": True}
    proved = prove_rule([(TrackRule(1, 1, 3), 0), (TrackRule(1, 1, 2), 9)], 100, 0.05, 0.95)
    _store(bundle, record, proved, "of the data")
    (stored,) = Bundle.open(bundle.path).object_promises["onnxruntime/fp32"]
    assert (stored.rule, stored.wrong, stored.counted, stored.data) == ("1/1/3", 0, 100, "of the data")
    assert "stored in" in capsys.readouterr().err
    with pytest.raises(UsageError, match="set on these very tracks"):
        _store(bundle, {**record, "unseen": False}, proved, "")
    refused = prove_rule([(TrackRule(1, 1, 3), 9)], 100, 0.05, 0.95)
    with pytest.raises(UsageError, match=r"nothing was stored.*no rule keeps 5.00%"):
        _store(bundle, record, refused, "")
