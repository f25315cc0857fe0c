"""Counters for Prometheus: what the text says, and where it can be asked for."""

from __future__ import annotations

import socket
import struct
import urllib.error
import urllib.request

import pytest

from framegate.runtime.cli.metrics import MetricsServer, metrics_text
from framegate.runtime.errors import UsageError
from framegate.runtime.stats import PipelineStats
from framegate.runtime.verdict import Prediction, Reason


def stats():
    found = PipelineStats(("left",))
    found.captured, found.dropped = 5, 1
    for number, reasons in enumerate(((), (Reason.HIGH_SCORE, Reason.DRIFT), ())):
        at, taken = 10**9, (3 if number else 30) * 10**6
        found.record((Prediction(number, "left", reasons, "a", 0.9, 0.1, 0.8, -3.0, 0.1, 0.5, at, at + taken),))
    return found


def test_counts_reasons_drift_and_latency_are_said():
    lines = metrics_text({'cam"1"\n': stats()}).splitlines()
    label = 'source="cam\\"1\\"\\n"'
    for line in (
        f"framegate_frames_captured_total{{{label}}} 5",
        f"framegate_frames_dropped_total{{{label}}} 1",
        f'framegate_verdicts_total{{{label},region="left",verdict="ACCEPT"}} 2',
        f'framegate_rejected_total{{{label},region="left",reason="HIGH_SCORE"}} 1',
        f'framegate_drift_alarms_total{{{label},region="left"}} 1',
        f'framegate_drift{{{label},region="left"}} 0',
        f'framegate_latency_seconds_bucket{{{label},le="0.005"}} 2',
        f'framegate_latency_seconds_bucket{{{label},le="0.05"}} 3',
        f'framegate_latency_seconds_bucket{{{label},le="+Inf"}} 3',
        f"framegate_latency_seconds_sum{{{label}}} 0.036",
    ):
        assert line in lines


def test_the_server_answers_metrics_only_and_ends():
    with MetricsServer("127.0.0.1:0", lambda: {"a": stats()}) as server:
        address = f"http://127.0.0.1:{server.port}"
        assert b"framegate_frames_judged_total" in urllib.request.urlopen(f"{address}/metrics", timeout=5).read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/", timeout=5)
        with pytest.raises(UsageError, match="cannot listen there"):
            MetricsServer(f"127.0.0.1:{server.port}", dict)
    with pytest.raises(UsageError, match="HOST:PORT"):
        MetricsServer("9464", dict)


def test_fault_whoever_hangs_up_is_not_told_of(capfd):
    """A probe of a port that resets its connection is none of the run's business."""
    with MetricsServer("127.0.0.1:0", dict) as server:
        for _ in range(3):
            asking = socket.create_connection(("127.0.0.1", server.port), 5)
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            asking.close()
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5).read()  # they were before this one
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "é..", "é" * 70, "nowhere.invalid"])
def test_a_host_that_is_none_is_refused(host):
    with pytest.raises(UsageError, match="cannot listen there"):
        MetricsServer(f"{host}:0", dict)


@pytest.mark.parametrize("host", ["", "[]", "["])
def test_no_host_is_not_every_address_of_the_machine(host):
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        MetricsServer(f"{host}:0", dict)
