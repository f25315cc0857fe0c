"""Figures of certificates: thresholds that keep a target, counts at them, and the tables made of the records."""

from __future__ import annotations

import json

import numpy as np
import pytest

from framegate.benchmarks import certificate_tables, certificates
from framegate.evaluation.report.table import markdown


def test_the_loosest_threshold_has_as_many_events_as_allowed():
    possible = np.array([-np.inf, 0.5, 2.0, 1.0, -np.inf])
    tau = certificates.loosest(possible, 1)
    assert (possible >= tau).sum() == 1
    assert certificates.loosest(possible, 4) == 0  # an L-infinity threshold is never below 0
    assert certificates.loosest(-1 - np.abs(np.arange(4.0)), 1) < -1


@pytest.mark.parametrize(("units", "events"), [(148, -1), (149, 0), (236, 1)])
def test_how_many_events_keep_two_percent(units, events):
    assert certificates.allowed_events(units) == events


def test_counts_at_a_threshold_of_frames_and_tracks():
    certified, possible = np.array([0.0, 2.0, 3.0, 0.0]), np.array([-np.inf, 1.5, -np.inf, -np.inf])
    found = certificates.at_threshold(certified, possible, 1.0, np.array([0, 0, 1, 2]))
    assert found["certified"]["value"] == 0.5
    assert found["event"]["value"] == 0.25
    assert found["tracks_certified"] == pytest.approx(2 / 3)
    assert found["frames_to_first"] == 1.5
    assert found["tracks_with_event"]["value"] == pytest.approx(1 / 3)


def test_what_could_be_certified_if_no_attack_were_stronger():
    certified, strongest = np.array([0.5, 1.5, 2.5, 3.5]), np.array([-np.inf, 2.0, 1.0, -np.inf])
    found = certificates.if_none_were_stronger(certified, strongest, 0.25)
    assert (found["certified"]["value"], found["event"]["value"]) == (0.75, 0.25)
    assert certificates.if_none_were_stronger(certified, strongest, 0.0)["certified"]["value"] == 0.5


def test_parts_of_an_earlier_run_are_kept_if_it_was_the_same_certificate(tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"tau": 1.0, "network_sha256": "a", "cost": {"engine_p50_us": 3}}))
    assert "cost" in certificates._earlier(path, {"tau": 1.0, "network_sha256": "a"})
    assert certificates._earlier(path, {"tau": 1.0, "network_sha256": "b"}) == {}
    assert certificates._earlier(tmp_path / "none.json", {}) == {}


def figure(value):
    return {"value": value, "low": value / 2, "high": min(1.0, value * 2), "n": 100}


def attacked(**changed):
    row = {"attack": "PGD-20 2/255", "aims_at": "classifier", "wrong": figure(0.5), "wrong_and_accepted": figure(0.1)}
    health = [{"name": "gradients", "passed": True}]
    return {"bundle": "a", "frames": 100, "adaptive_frames": 4, "rows": [row], "health": health, **changed}


def test_the_table_of_attacks_shows_what_the_records_say():
    text = markdown(certificate_tables.attacks([attacked(), attacked(bundle="b", rows=[])]))
    assert "| PGD-20 2/255 | classifier | 50.0 / 10.0 % [5.0, 20.0] | – |" in text
    assert "passed all their health checks" in text
    certified = attacked()["rows"][0] | {"wrong_accepted_and_certified": figure(0.01)}
    records = [attacked(rows=[certified], certificate="linf:2/255 of abc")]
    text = markdown(certificate_tables.attacks(records))
    assert "| attack | aims at | a | a, certificate of linf:2/255 required |" in text
    assert "| PGD-20 2/255 | classifier | 50.0 / 10.0 % [5.0, 20.0] | 50.0 / 1.0 % [0.5, 2.0] |" in text
    short = certificate_tables.attacks_short(records)
    assert "| PGD-20, 2/255 | 10 % [5, 20] | 1 % [0, 2] |" in short
    assert "patch" not in short  # a kind that no record has gets no row
    assert certificate_tables.attacks([]) == certificate_tables.attacks_short([])


def test_attacks_that_failed_a_health_check_are_named_beside_their_figures():
    failed = attacked(bundle="b", health=[{"name": "gradients", "passed": False}])
    for text in (
        markdown(certificate_tables.attacks([attacked(), failed])),
        certificate_tables.attacks_short([attacked(), failed]),
    ):
        assert "failed for b (gradients): do not quote" in " ".join(text.split())
        assert "passed all" not in text


def test_the_table_of_certificates_shows_what_the_record_says():
    shipped = {"event": figure(0.01), "certified": figure(0.3), "tracks_certified": 0.5, "frames_to_first": None}
    record = {
        "bundle": "a", "certificate": "patch:5", "engine": "openvino/int8", "cost": {"certificate_p50_us": 12170.0},
        "risk_bound": 0.0262, "unit": "frame", "test": {"shipped": shipped},
        "calibration": {"shipped": shipped}, "attacks": {"patch": {"frames": 100, "counterexamples": 0}},
    }  # fmt: skip
    text = markdown(certificate_tables.certificates([record]))
    measured = "2.62 % of frames | 1.00 % [0.50, 2.00] | 30.00 % [15.00, 60.00] | 50 % | – |"
    assert f"| a | patch:5 | openvino/int8 | 12.17 | {measured}" in text
    untimed = {key: value for key, value in record.items() if key != "cost"}
    assert "| openvino/int8 | – |" in markdown(certificate_tables.certificates([untimed]))
