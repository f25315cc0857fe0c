"""Signals from pooled activations, and the limits that judge them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from framegate.runtime import monitor as monitor_module
from framegate.runtime.bundle.calibration import Calibration, Limit
from framegate.runtime.errors import BundleError, CalibrationError
from framegate.runtime.monitor import SHIFT, Monitor, Tap
from framegate.runtime.native import library
from framegate.runtime.policy.rules import judge_limits
from framegate.runtime.verdict import Reason


@pytest.fixture(params=["compiled", "numpy"], scope="module", autouse=True)
def _way(request):
    if request.param == "compiled" and library()[0] is None:
        pytest.skip(f"no compiled code: {library()[1]}")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setattr(monitor_module, "library", lambda: (None, "switched off by a test"))
        yield


def monitor(**changes) -> Monitor:
    rng = np.random.default_rng(0)
    values = {
        "taps": (Tap("stem", 4), Tap("late", 3)),
        "centre": rng.normal(size=7).astype(np.float32),
        "spread": rng.uniform(0.5, 2, 7).astype(np.float32),
        "limit": 3.0,
        "hidden": rng.normal(size=(5, 7)).astype(np.float32),
        "hidden_bias": rng.normal(size=5).astype(np.float32),
        "weights": rng.normal(size=5).astype(np.float32),
        "bias": 0.25,
        "fitted": {"data": "none"},
    }
    return Monitor(**{**values, **changes})


def pooled(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).gamma(1.0, 2.0, 7).astype(np.float32)


def test_shift_is_the_formula_of_the_head():
    m, row = monitor(), pooled()
    z = np.clip((row.astype(np.float64) - m.centre) / m.spread, -3, 3)
    expected = np.maximum(m.hidden @ z + m.hidden_bias, 0) @ m.weights + 0.25
    assert m(row)[SHIFT] == pytest.approx(expected, rel=1e-4)


def test_entropy_of_each_tap_is_over_its_own_channels():
    found = monitor()(np.array([1, 1, 1, 1, 5, 0, 0], np.float32))
    assert found["activation_entropy:stem"] == pytest.approx(math.log(4))
    assert found["activation_entropy:late"] == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_number_makes_every_signal_nan(bad):
    row = pooled()
    row[5] = bad  # the head would cut an infinity off and go on
    found = monitor()(row)
    assert set(found) == {SHIFT, "activation_entropy:stem", "activation_entropy:late"}
    assert all(math.isnan(value) for value in found.values())
    row[2] = -bad
    assert all(math.isnan(value) for value in monitor()(row).values())


def test_entropies_are_of_their_own_frame_whenever_they_are_asked_for():
    m, row = monitor(), pooled(1)
    found, expected = m(row), dict(m(pooled(1)))
    row[:] = pooled(2)  # the engine's next frame
    m(row)
    assert dict(found) == pytest.approx(expected, rel=1e-9)
    beside = m(pooled(1)).beside({"entropy": 0.5, SHIFT: 7.0})
    assert (beside["entropy"], beside[SHIFT]) == (0.5, 7.0)
    assert beside["activation_entropy:stem"] == pytest.approx(expected["activation_entropy:stem"], rel=1e-9)
    assert len(beside) == 4
    assert beside.get("unknown") is None


def test_a_tap_without_any_activity_has_no_entropy():
    found = monitor()(np.array([1, 1, 1, 1, 0, 0, 0], np.float32))
    assert math.isnan(found["activation_entropy:late"])
    assert math.isfinite(found[SHIFT])


def test_json_and_back():
    m, row = monitor(), pooled()
    again = Monitor.from_json(m.to_json())
    expected = dict(m(row))
    assert len(expected) == 3
    assert dict(again(row)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "damage",
    [
        {"format": "framegate-monitor-9"},
        {"spread": [1.0] * 6 + [0.0]},
        {"centre": [1.0] * 6},
        {"bias": float("nan")},
        {"weights": ["x"] * 5},
        {"taps": []},
    ],
)
def test_damaged_files_are_refused(damage):
    with pytest.raises(BundleError, match=r"monitor\.json"):
        Monitor.from_json({**monitor().to_json(), **damage})
    record = monitor().to_json()
    del record["hidden"]
    with pytest.raises(BundleError, match="hidden"):
        Monitor.from_json(record)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 1.1])
def test_what_is_not_inside_is_a_shift(value):
    limits = (Limit("shift", 0.0, 1.0),)
    found = judge_limits({"shift": value}, limits)
    assert list(found) == [Reason.ACTIVATION_SHIFT]
    assert "shift" in found[Reason.ACTIVATION_SHIFT]
    assert judge_limits({"shift": 0.0}, limits) == judge_limits({"shift": 1.0}, limits) == {}


def test_a_missing_signal_is_a_shift():
    assert tuple(judge_limits({}, (Limit("shift", high=1.0),))) == (Reason.ACTIVATION_SHIFT,)


@pytest.mark.parametrize(
    "limit",
    [
        {},
        {"low": math.nan},
        {"high": math.nan, "low": 0.0},
        {"high": math.inf},
        {"low": 2.0, "high": 1.0},
        {"high": 1.0, "frames": 0},
    ],
)
def test_limits_that_say_nothing_are_refused(limit):
    with pytest.raises(CalibrationError, match="shift"):
        Limit("shift", **limit)


def test_a_record_with_limits_survives_json():
    record = Calibration(
        1.0, "energy", -2.0, 0.01, 0.95, 0.009, 0.8, 0.004, 100, "f", "m", "e", "learn-then-test", None,
        (Limit("shift", high=1.0), Limit("energy", low=-9.0, frames=16)), (0.0, 1.0, 2.0),
    )  # fmt: skip
    assert Calibration.from_json(record.to_json()) == record
    with pytest.raises(CalibrationError, match="ascending"):
        Calibration.from_json({**record.to_json(), "score_quantiles": [0.0, math.nan, 2.0]})
    with pytest.raises(CalibrationError, match="not usable"):
        Calibration.from_json({**record.to_json(), "limits": [{"sginal": "shift", "high": 1.0}]})


@pytest.mark.skipif(library()[0] is None, reason="no compiled code")
@pytest.mark.parametrize("size", [1, 15, 16, 17, 464])
def test_the_compiled_head_gives_what_numpy_gives(size, monkeypatch):
    rng = np.random.default_rng(size)
    values = {
        "taps": (Tap("all", size),),
        "centre": rng.normal(size=size).astype(np.float32),
        "spread": rng.uniform(0.5, 2, size).astype(np.float32),
        "hidden": rng.normal(size=(16, size)).astype(np.float32),
        "hidden_bias": rng.normal(size=16).astype(np.float32),
        "weights": rng.normal(size=16).astype(np.float32),
    }
    monkeypatch.setattr(monitor_module, "library", library)
    compiled = monitor(**values)
    monkeypatch.setattr(monitor_module, "library", lambda: (None, ""))
    plain = monitor(**values)
    assert compiled._code is not None
    assert plain._code is None
    for _ in range(20):
        row = rng.gamma(1.0, 4.0, size).astype(np.float32)
        assert compiled(row)[SHIFT] == pytest.approx(plain(row)[SHIFT], rel=1e-4, abs=1e-4)
        assert compiled(row[::-1])[SHIFT] == pytest.approx(plain(row[::-1])[SHIFT], rel=1e-4, abs=1e-4)
