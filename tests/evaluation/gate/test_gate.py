"""What the gate lets through, the adaptive attack's view of it, and the promise over many calibrations."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from framegate.evaluation import command_gate
from framegate.evaluation.command_monitor import write_monitor
from framegate.evaluation.frames.network import Network
from framegate.evaluation.gate import run as gate_run
from framegate.evaluation.gate.adaptive import gate_rule
from framegate.evaluation.gate.names import RULES
from framegate.evaluation.gate.promise import TRIALS, Population, draw, is_kept, simulate, smallest_noticed
from framegate.evaluation.gate.rules import GateInputs, detection, judge, observe, rules, windows
from framegate.evaluation.gate.run import GateRun, Sizes, part_sizes
from framegate.evaluation.monitor.fit import Recipe, attacked_sets, fit_monitor
from framegate.evaluation.suite.run import Frames
from framegate.export.calibration.calibrate import Circumstances, EngineOutputs, Promise, calibrate_together
from framegate.export.calibration.decisions import Outputs, accepted, values_of
from framegate.export.data.splits import Splits
from framegate.models import datasets
from framegate.models.pixels import to_pixels
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration, Limit
from framegate.runtime.bundle.class_risk import ClassRisk
from framegate.runtime.cli import main as cli
from framegate.runtime.errors import CalibrationError, DataError, UsageError

SIZES = Sizes(fgsm=8, pgd=8, other=8, queries=10, adaptive=10, adaptive_steps=3, corruption=2, health=5)
SHORT = Recipe(images=100, attacked=30, fgsm=(8,), pgd=(8,), pgd_steps=2, layers=1)
RECORD = Calibration(1.0, "entropy", 0.5, 0.05, 0.9, 0.04, 0.8, 0.02, 100, "f", "m", "e")


def seen(count: int, seed: int, shift: float = 0.0, right: float = 0.9) -> GateInputs:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    logits = rng.normal(size=(count, 4)).astype(np.float32)
    logits[np.arange(count), labels] += 5
    wrong = rng.random(count) > right
    return GateInputs(
        Outputs(logits, {"shift": rng.normal(shift, 1, count)}), wrong, {"total_variation": rng.normal(size=count)}
    )


def test_rules_accept_what_they_say_on_calibration_frames():
    clean = seen(4000, 0)
    calibration = replace(RECORD, limits=(Limit("shift", high=2.5), Limit("energy", low=-12.0)))
    found = rules(calibration, clean)
    assert list(found) == list(RULES)
    assert found["promised"] == calibration
    for name in ("entropy", "gate"):
        assert accepted(clean.outputs, found[name]).mean() == pytest.approx(0.95, abs=0.002)
    assert found["entropy"].limits == ()


def test_rule_with_limits_that_already_reject_more_accepts_what_is_left():
    clean = seen(2000, 1)
    found = rules(replace(RECORD, limits=(Limit("shift", high=0.0),)), clean)["gate"]
    inside = clean.outputs.signals["shift"] <= 0
    assert accepted(clean.outputs, found).mean() == pytest.approx(inside.mean())


def test_false_accepts_are_the_wrong_ones_that_pass():
    frames = seen(1000, 2, shift=3.0, right=0.4)
    chosen = rules(replace(RECORD, limits=(Limit("shift", high=3.0),)), seen(1000, 3))
    record = judge(frames, chosen)
    for name in RULES:
        passed = accepted(frames.outputs, chosen[name])
        assert record[name]["false_accepts"] == int((passed & frames.wrong).sum())
        assert record[name]["false_accept_rate"]["value"] == pytest.approx(passed[frames.wrong].mean())
    assert record["stopped_by"]["shift"] == pytest.approx((frames.outputs.signals["shift"] > 3)[frames.wrong].mean())
    assert record["gate"]["false_accepts"] < record["entropy"]["false_accepts"]


def test_detection_and_windows_see_a_shift_and_only_there():
    clean, moved, fitted = seen(2000, 4), seen(2000, 5, shift=1.0), seen(2000, 6)
    found = detection(clean, moved, fitted, 1.0)
    assert found["shift"] == pytest.approx(0.76, abs=0.03)  # of two unit normals one apart
    assert found["total_variation"] == pytest.approx(0.5, abs=0.03)
    by_window = windows(clean, moved, fitted)["shift"]
    assert by_window["16"]["detected"] > 0.9 > 0.3 > by_window["1"]["detected"]
    assert all(row["false_alarms"] < 0.03 for row in by_window.values())


def test_adaptive_attack_sees_the_same_gate(bundle_path, colours, quiet):
    """Its one number is at most zero exactly where the gate accepts."""
    network = Network.from_bundle(Bundle.open(bundle_path))
    frames = colours(120, 7, "some")
    pixels, labels = to_pixels(frames.images), torch.from_numpy(frames.labels)
    clean = observe(network, None, pixels, labels)
    for score in ("entropy", "energy", "margin", "max_probability"):
        middle = float(np.median(Outputs(clean.outputs.logits).logits.max(1)))
        rule = rules(replace(RECORD, score=score, limits=(Limit("energy", low=-middle - 0.5),)), clean)["gate"]
        # Half the frames are outside the limit; the second threshold rejects by the score, too.
        halfway = float(np.median(values_of(clean.outputs, rule.temperature)[score]))
        own = ClassRisk("blue", 0, 0.01, halfway, 100, 0, 0.01)
        for one in (rule, replace(rule, threshold=halfway), replace(rule, classes=(own,))):
            aim = gate_rule("gate", network, None, one, clean)
            found = aim.scores(pixels)
            verdicts = found <= aim.threshold
            # A threshold may be one of these scores, in float64; on it the last bit of the attack's float32 decides.
            clear = np.abs(found - aim.threshold) > 1e-4
            assert clear.sum() >= len(clear) - 3
            np.testing.assert_array_equal(verdicts[clear], accepted(clean.outputs, one)[clear])
            assert 0 < verdicts[clear].sum() < clear.sum()
    with pytest.raises(UsageError, match="no monitor"):
        gate_rule("gate", network, None, replace(RECORD, limits=(Limit("shift", high=1.0),)), clean)


def population(count: int, seed: int, groups: np.ndarray | None = None) -> Population:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, 5))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    return Population(Outputs(logits.astype(np.float32)), labels.astype(np.int64), groups)


def test_promise_is_kept_on_a_known_population(quiet):
    found = simulate(population(20_000, 8), 800, Promise(0.1, 0.9, limit_share=0.0), 60, quiet)
    assert found["kept"]
    assert found["broken"]["value"] <= 0.1 + 3 * np.sqrt(0.09 / 60)
    assert found["refused"] < 20
    assert 0.05 < found["mean_risk"] < 0.1


def test_five_percent_are_told_from_six():
    assert smallest_noticed(TRIALS, 0.05) <= 0.06
    assert smallest_noticed(1000, 0.05) > 0.07
    assert is_kept(round(0.05 * TRIALS), TRIALS, 0.05)
    assert not is_kept(round(0.06 * TRIALS), TRIALS, 0.05)


def test_trying_divisions_until_one_pleases_breaks_the_promise_and_issued_ones_promise_nothing(quiet):
    rng = np.random.default_rng(9)
    labels = rng.integers(0, 2, 4000)
    said = np.where(np.arange(4000) % 1000 < 101, 1 - labels, labels)  # just above the target, whatever the score
    logits = np.zeros((4000, 2))
    logits[np.arange(4000), said] = rng.uniform(1, 4, 4000)
    flat = Population(Outputs(logits.astype(np.float32)), labels.astype(np.int64))
    wish = Promise(0.1, 0.8, limit_share=0.0, score="entropy")
    once, often = (simulate(flat, 300, wish, 30, quiet, tries=tries) for tries in (1, 8))
    assert once["kept"]
    assert often["broken"]["value"] > max(once["broken"]["value"], 0.25)
    assert once["broken"]["value"] <= once["issued_broken"]["value"] or once["issued_broken"]["n"] == 0


@pytest.mark.long
def test_a_calibration_that_counts_copies_breaks_its_promise(quiet):
    """Tracks of forty near copies, taken for independent frames: the simulation says so."""
    base = population(600, 9)
    track = np.repeat(np.arange(600), 40)
    many = Population(base.outputs.subset(track), base.labels[track], track)
    honest = simulate(many, 16_000, Promise(0.1, 0.9, limit_share=0.0), 40, quiet)
    assert honest["kept"]

    def without_groups(population, size, rng):
        index, _ = draw(population, size, rng)
        return index, None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("framegate.evaluation.gate.promise.draw", without_groups)
        naive = simulate(many, 16_000, Promise(0.1, 0.9, limit_share=0.0), 40, quiet)
    assert not naive["kept"]


def test_of_tracks_of_unequal_length_the_promise_is_about_tracks_and_not_about_all_frames(quiet):
    """Long tracks are wrong ten times as often: what is kept for a random frame of a random track breaks per frame."""
    rng = np.random.default_rng(3)
    lengths = np.where(np.arange(1000) % 10 == 0, 60, 2)
    track = np.repeat(np.arange(1000), lengths)
    labels = rng.integers(0, 2, 1000)
    wrong = rng.random(1000) < np.where(lengths == 60, 0.4, 0.02)
    logits = np.zeros((1000, 2), np.float32)
    logits[np.arange(1000), labels ^ wrong] = rng.uniform(1, 4, 1000)
    many = Population(Outputs(logits[track]), labels[track].astype(np.int64), track)
    wish = Promise(0.1, 0.9, limit_share=0.0, score="entropy")
    found = simulate(many, len(track), wish, 12, quiet)
    assert found["kept"]
    assert found["refused"] < 12
    assert found["mean_risk"] < 0.1
    per_frame = (wrong[track]).mean()
    assert per_frame > 0.2
    run = Circumstances("a", track, "drive")
    issued = calibrate_together({"": EngineOutputs(many.outputs)}, many.labels, wish, run)[""]
    passed = accepted(many.outputs, issued)
    assert wrong[track][passed].mean() > 0.2  # what a per-frame reading would promise is broken
    assert "for a random frame of a random new drive" in issued.explanation()[0]


def test_drawn_tracks_stay_whole_and_count_apart():
    groups = np.repeat(np.arange(30), 7)[np.random.default_rng(1).permutation(210)]
    some = population(210, 10, groups)
    index, tracks = draw(some, 70, np.random.default_rng(2))
    assert len(index) == 70
    assert len(np.unique(tracks)) == 10
    for track in np.unique(tracks):
        assert len(set(groups[index[tracks == track]])) == 1
    np.testing.assert_allclose(some.weights().sum(), 1.0)


@pytest.fixture
def data(monkeypatch, colours):
    found = SimpleNamespace(
        name="colours", title="Colours", depth=1, labels=("blue", "green", "red"),
        load_training=lambda folder: (colours(160, 20, "train"), colours(500, 21, "calibration")),
        load_test=lambda folder: colours(80, 22, "test"),
    )  # fmt: skip
    monkeypatch.setattr(datasets, "detect", lambda folder: found)
    monkeypatch.setattr(command_gate, "Sizes", lambda: SIZES)
    return found


def gate(*words):
    parser = cli.build_parser("gate")
    parsed = parser.parse_args(["gate", *map(str, words)])
    return parsed.run(parsed)


@pytest.fixture(scope="module")
def monitored(bundle_path, colours, quiet, tmp_path_factory):
    """A bundle with a monitor; it is only read."""
    path = tmp_path_factory.mktemp("monitored") / "colours.bundle"
    shutil.copytree(bundle_path, path)
    splits = Splits(colours(160, 31, "t"), colours(500, 32, "c"), colours(10, 33, "e"), ("blue", "green", "red"))
    bundle = Bundle.open(path)
    network = Network.from_bundle(bundle)
    monitor = fit_monitor(attacked_sets(network, splits.train, 1, SHORT, quiet), SHORT, "colours", quiet)
    write_monitor(bundle, monitor, network, splits, Promise(0.3, 0.9), quiet)
    return path


def test_command_measures_everything(monitored, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gate_run, "Recipe", lambda **sizes: SHORT)  # of the heads that one family is kept from
    out = tmp_path / "gate.json"
    assert gate(monitored, "--data", tmp_path, "--limit", 20, "--trials", 3, "--out", out) in (0, 1)
    record = json.loads(out.read_text())
    assert record["format"] == "framegate-gate-1"
    assert len(record["attacks"]) == 11
    for part in (
        "clean",
        "attacks",
        "detection",
        "windows",
        "corruptions",
        "foreign",
        "transfer",
        "adaptive",
        "health",
    ):
        assert record[part], part
    assert set(record["promise"]) == {"learn-then-test", "geifman-el-yaniv"}
    assert record["adaptive"]["gate"]["false_accepts"]["n"] == 10
    assert set(record["transfer"]) == {"fitted without FGSM", "fitted without PGD"}
    said = capsys.readouterr().out
    assert "FGSM 8/255: of" in said
    assert "aims at the gate" in said


def test_a_stopped_gate_leaves_what_it_measured(monitored, data, tmp_path, monkeypatch, capsys):
    """SIGTERM arrives as KeyboardInterrupt, too (`framegate.runtime.cli.signals`)."""

    def stopped(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(GateRun, "attacks", stopped)
    out = tmp_path / "gate.json"
    with pytest.raises(KeyboardInterrupt):
        gate(monitored, "--data", tmp_path, "--limit", 20, "--trials", 0, "--out", out)
    assert not out.exists()
    record = json.loads((tmp_path / "gate.partial.json").read_text())
    assert record["partial"] is True
    assert record["clean"]["gate"]["coverage"]["n"] == 20
    assert "attacks" not in record
    assert "gate.partial.json" in capsys.readouterr().err


def test_the_estimate_knows_every_part(colours):
    bundle = SimpleNamespace(labels=("blue", "green", "red"))
    frames = Frames(colours(20, 1, "c"), colours(20, 2, "t"), 1, ())
    run = GateRun.__new__(GateRun)
    run.bundle, run.frames, run.sizes, run.seed, run.progress, run.network = bundle, frames, Sizes(), 0, None, None
    later = {"corruptions", "foreign", "transfer", "adaptive", "health"}
    assert set(part_sizes(Sizes(), frames, True, True)) == set(run._jobs()) | later


def test_bundle_without_calibration_is_refused(bundle_path, data, tmp_path):
    with pytest.raises(CalibrationError, match="not calibrated; framegate calibrate"):
        gate(bundle_path, "--data", tmp_path, "--limit", 20, "--out", tmp_path / "g.json")


def test_other_data_and_useless_limits_are_refused(monitored, data, tmp_path):
    with pytest.raises(UsageError, match="at least 20"):
        gate(monitored, "--data", tmp_path, "--limit", 5, "--out", tmp_path / "g.json")
    data.labels = ("a", "b", "c")
    with pytest.raises(DataError, match="not what this bundle was trained on"):
        gate(monitored, "--data", tmp_path, "--out", tmp_path / "g.json")
