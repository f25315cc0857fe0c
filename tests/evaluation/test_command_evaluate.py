"""The whole way from a bundle to a report, on a network small enough for a test."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from framegate.evaluation import command_evaluate
from framegate.evaluation.report import style
from framegate.evaluation.suite.plan import PLANS
from framegate.evaluation.suite.run import Frames, part_sizes
from framegate.evaluation.suite.store import Store
from framegate.runtime.cli import main as cli
from framegate.runtime.errors import DataError, UsageError

LABELS = ("blue", "green", "red")
TINY = replace(
    PLANS["quick"],
    pgd_steps=4,
    adaptive=10,
    adaptive_steps=2,
    square_queries=20,
    bootstrap=20,
    curve=(4 / 255, 0.03),
    corruption=3,
)


def prepared(patch, colours):
    found = SimpleNamespace(
        name="colours",
        title="Colours",
        depth=1,
        labels=LABELS,
        load_training=lambda folder: (colours(20, 20, "train"), colours(120, 21, "calibration")),
        load_test=lambda folder: colours(60, 22, "test"),
    )
    patch.setattr(command_evaluate.datasets, "detect", lambda folder: found)
    patch.setitem(command_evaluate.PLANS, "quick", TINY)
    return found


@pytest.fixture
def data(monkeypatch, colours):
    return prepared(monkeypatch, colours)


def evaluate(*words):
    parser = cli.build_parser("evaluate")
    parsed = parser.parse_args(["evaluate", *map(str, words)])
    return parsed.run(parsed)


@pytest.fixture(scope="module")
def report(bundle_path, colours, tmp_path_factory):
    """The folder of one evaluation, and the words that made it."""
    out = tmp_path_factory.mktemp("reports") / "report"
    words = (bundle_path, "--data", out.parent, "--limit", 30, "--out", out)
    with pytest.MonkeyPatch.context() as patch:
        prepared(patch, colours)
        # Arranging what lies in a figure is half of the drawing; tests/evaluation/report has it on all figures.
        patch.setitem(style._STYLE, "figure.constrained_layout.use", False)
        assert evaluate(*words) in (0, 1)  # 1: a health check failed, which on 30 frames may happen
    return out, words


def test_every_section_is_measured(report):
    out, _ = report
    record = json.loads((out / "results.json").read_text())
    assert record["sizes"] == {"calibration": 50, "test": 30}
    assert {a["key"] for a in record["attacks"]} == {
        "fgsm-4/255", "fgsm-0.03", "fgsm-8/255", "pgd-4-4/255", "pgd-4-0.03", "pgd-4-8/255", "noise-8/255",
    }  # fmt: skip
    assert len(record["corruptions"]) == 75
    assert len(record["adaptive"]) == 4
    by_name = {score["name"]: score for score in record["scores"]}
    assert {"entropy", "two_sided(entropy)", "total_variation", "mahalanobis", "stem.0:mass_entropy"} <= set(by_name)
    assert set(by_name["entropy"]["attacks"]) >= {"pgd-4-8/255", "fgsm-8/255", "noise-8/255"}
    right = np.trace(record["clean"]["confusion"])
    assert record["clean"]["accuracy"]["value"] == pytest.approx(right / 30)
    # 50 calibration frames make no two batches of 128, 30 attacked ones no two of 16: only frames are left.
    assert {row["unit"] for row in record["batchwise"]} == {"frame"}
    assert record["batch_rule"] == []
    page = (out / "report.html").read_text()
    assert page.count("<svg") + page.count("data:image") > 5
    assert (out / "tables.md").stat().st_size > 1000


def test_stronger_attacks_leave_less(report):
    record = json.loads((report[0] / "results.json").read_text())
    accuracy = {attack["key"]: attack["accuracy"]["value"] for attack in record["attacks"]}
    assert accuracy["pgd-4-8/255"] <= accuracy["pgd-4-4/255"] <= record["clean"]["accuracy"]["value"]
    assert accuracy["pgd-4-8/255"] < accuracy["noise-8/255"]


def test_a_second_run_measures_nothing_again(report, data, capsys, monkeypatch):
    out, words = report
    record = json.loads((out / "results.json").read_text())

    def forbidden(*arguments, **options):
        raise AssertionError("measured again")

    for name in ("run_linf", "adaptive_pgd", "corrupt", "check_attack_health"):
        monkeypatch.setattr(f"framegate.evaluation.suite.run.{name}", forbidden)
    monkeypatch.setattr(command_evaluate, "write_report", lambda *_: None)  # drawn by the first run, for six seconds
    evaluate(*words)
    printed = capsys.readouterr().out
    assert "clean accuracy" in printed
    assert "best score, overall" in printed
    again = json.loads((out / "results.json").read_text())
    for each in (record, again):
        del each["seconds"], each["started"]
        for key in ("commit", "changed_since_commit", "date"):  # somebody may work here, and past midnight
            each["machine"].pop(key, None)
    assert again == record


def test_another_evaluation_does_not_mix_with_this_one(report, data):
    with pytest.raises(UsageError, match="seed 0, now 1 is asked for; give another --out, or --restart"):
        evaluate(*report[1], "--seed", 1)


@pytest.mark.parametrize("epsilon", ["0", "2", "-1/255", "nan", "8/0", "eight"])
def test_epsilon_out_of_range(bundle_path, data, tmp_path, epsilon):
    with pytest.raises(UsageError, match=r"expected a pixel distance in \(0, 1\]"):
        evaluate(bundle_path, "--data", tmp_path, f"--epsilon={epsilon}")


def test_a_limit_that_shows_nothing(bundle_path, data, tmp_path):
    with pytest.raises(UsageError, match="expected at least 10 frames"):
        evaluate(bundle_path, "--data", tmp_path, "--limit", 3)


def test_data_of_other_labels(bundle_path, data, tmp_path):
    data.labels = ("cat", "dog", "cow")
    with pytest.raises(DataError, match=r"has the labels cat, dog, cow, \.\.\., the bundle blue, green, red"):
        evaluate(bundle_path, "--data", tmp_path)


def test_data_of_another_kind(bundle_path, data, tmp_path):
    data.depth = 28
    with pytest.raises(DataError, match="holds volumes of 28 slices, the bundle takes images"):
        evaluate(bundle_path, "--data", tmp_path)


def test_a_folder_with_something_else_in_it_is_left_alone(bundle_path, data, tmp_path):
    (tmp_path / "out" / "parts").mkdir(parents=True)
    (tmp_path / "out" / "parts" / "thesis.txt").write_text("important")
    for more in ((), ("--restart",)):
        with pytest.raises(UsageError, match="holds files of something else"):
            evaluate(bundle_path, "--data", tmp_path, "--limit", 10, "--out", tmp_path / "out", *more)
    assert (tmp_path / "out" / "parts" / "thesis.txt").read_text() == "important"


def test_foreign_frames(data, tmp_path, monkeypatch, colours):
    size = (32, 32)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for k in range(3):
        cv2.imwrite(str(tmp_path / "photos" / f"{k}.png"), rng.integers(0, 256, (40, 50, 3), np.uint8))
    monkeypatch.undo()
    photos = command_evaluate.foreign_set(tmp_path / "photos", data, size, 10, 0)
    assert photos.images.shape == (3, 32, 32, 3)
    with pytest.raises(DataError):
        command_evaluate.foreign_set(tmp_path / "nothing", data, size, 10, 0)
    monkeypatch.setattr(command_evaluate.datasets, "detect", lambda folder: data)
    with pytest.raises(DataError, match="the network's own data"):
        command_evaluate.foreign_set(tmp_path, data, size, 10, 0)


def test_two_sets_of_one_name_are_two_sets(data, tmp_path, monkeypatch):
    """Figures are kept and shown by the names of sets: the second one had those of the first."""
    monkeypatch.undo()
    for level, day in ((20, "day"), (200, "night")):
        (tmp_path / day / "frames").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / day / "frames" / "0.png"), np.full((40, 40, 3), level, np.uint8))
    paths = [tmp_path / day / "frames" for day in ("day", "night", "day")]
    found = command_evaluate.foreign_sets(paths, data, (32, 32), 10, 0)
    assert [each.name for each in found] == [f"photographs-frames{end}" for end in ("", " (2)", " (3)")]
    assert [int(each.images.max()) for each in found] == [20, 200, 20]


def test_parts_of_different_names_are_different_files(tmp_path):
    store = Store(tmp_path / "parts", {"what": "test"})
    for name in ("ood-photographs-昼", "ood-photographs-夜", "ood-photographs-_", "pgd-8/255"):
        assert store.record(name, lambda name=name: [name]) == [name]


def test_other_foreign_frames_of_the_same_name_are_not_taken_for_those_that_were_seen(report, data, monkeypatch):
    """A folder whose pictures were exchanged since the interrupted run."""
    made = command_evaluate.noise_set

    def exchanged(*given):
        frames = made(*given)
        return replace(frames, images=255 - frames.images)

    monkeypatch.setattr(command_evaluate, "noise_set", exchanged)
    with pytest.raises(UsageError, match="holds an evaluation with ood"):
        evaluate(*report[1])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--group", "(.+)_"), "--group: the report does not depend on it; give --tracks, or leave it out"),
        (("--target-risk", "0.1"), "--target-risk: the report does not depend on it; give --tracks"),
        (("--objects", "x.jsonl"), "--objects: the report does not depend on it; give --boxes"),
        (("--tracks", "--ood", "x"), "--ood: what --tracks measures does not depend on it; leave it out"),
        (("--tracks", "--limit", 100), "--limit: what --tracks measures"),
        (("--tracks", "--objects", "x"), "--objects: what --tracks measures does not depend on it; give --boxes"),
        (("--boxes", "c.json", "--objects", "x", "--limit", 10), "--limit: what --boxes measures"),
        (("--boxes", "c.json", "--group", "(x)"), "--group: what --boxes measures does not depend on it"),
        (("--boxes", "c.json", "--tracks"), "--tracks and --boxes measure something else each"),
        (("--seed", -1), "seed: -1 given, expected 0 or more"),
    ],
)
def test_an_option_that_has_no_say_is_refused(bundle_path, data, tmp_path, words, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        evaluate(bundle_path, "--data", tmp_path, *words)


def test_a_wrong_path_is_refused_before_any_work(bundle_path, data, tmp_path, monkeypatch):
    def too_late(*arguments):
        raise AssertionError("the network was opened first")

    monkeypatch.setattr(command_evaluate.Network, "from_bundle", too_late)
    data.load_test = data.load_training = too_late
    with pytest.raises(DataError, match="no such file or folder"):
        evaluate(bundle_path, "--data", tmp_path, "--ood", tmp_path / "nothing")


def test_every_part_of_the_plan_has_its_share_of_the_estimate(report, data, colours):
    names = {path.stem for path in (report[0] / "parts").glob("*") if path.name != "identity.json"}
    frames = Frames(data.load_training("")[1], data.load_test(""), 1, ())
    known = {name.replace("/", "_") for name in part_sizes(frames, TINY.limited(30))}
    strange = {name for name in names if not name.startswith(("adaptive-", "ood-", "pixels-", "batches-"))} - known
    assert not strange
    assert {f"adaptive {k}" for k in range(4)} <= known


@pytest.mark.long  # an evaluation of its own; the report of parts is made in tests/evaluation/report
def test_a_report_is_there_while_the_evaluation_still_runs(bundle_path, data, tmp_path, monkeypatch, capsys):
    """A signal in the middle keeps the parts and a page that says that it is unfinished."""
    monkeypatch.setattr(command_evaluate.PartialReports, "_COST", 0.0)
    monkeypatch.setitem(command_evaluate.PLANS, "look", replace(TINY, name="look", curve=(), published=False))

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("framegate.evaluation.suite.run.adaptive_pgd", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(bundle_path, "--data", tmp_path, "--suite", "look", "--limit", 10, "--out", tmp_path / "out")
    assert "the same command goes on from there" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["partial"] is True
    assert record["attacks"]
    assert not record.get("adaptive")
    assert "Unfinished" in (tmp_path / "out" / "report.html").read_text()
