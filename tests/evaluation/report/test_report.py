"""The report: complete, self-contained, honest about what was not measured. The record it shows here is invented."""

from __future__ import annotations

import copy
import json
import random
import re
import sys
from html.parser import HTMLParser

import pytest
import report_fixture as fixture
from repository import ROOT

from framegate.evaluation.metrics.intervals import proportion
from framegate.evaluation.report import plots as report_plots
from framegate.evaluation.report.findings import (
    accepted_of_wrong,
    adaptive_by_score,
    notable,
    shown,
    wrong_frames,
)
from framegate.evaluation.report.html import page, write_report
from framegate.evaluation.report.research_figures import RESEARCH
from framegate.evaluation.report.score_words import _METHODS as METHODS
from framegate.evaluation.report.score_words import in_words, named, short_names
from framegate.evaluation.report.slider import as_json, slider
from framegate.evaluation.report.summary import summary
from framegate.evaluation.report.tables import BANNER, comparison_rows, sections, write_tables
from framegate.evaluation.report.values import Estimate, estimate, percent
from framegate.evaluation.scores.names import CONTROLS
from framegate.runtime.errors import DataError, SinkError, UsageError

JUNK = (None, "junk", float("nan"), float("inf"), [], {}, [1.0], True)


class Page(HTMLParser):
    """What a reader of the page gets: ids, references, figures with their captions and alternative texts."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.references, self.tags, self.attributes = [], [], [], set()
        self.figures, self.captions, self.alternatives = 0, 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.attributes |= set(attributes)
        self.figures += tag == "figure"
        self.captions += tag == "figcaption"
        if tag == "svg":
            assert attributes["role"] == "img"
            self.alternatives.append(attributes["aria-label"])
        if "id" in attributes:
            self.ids.append(attributes["id"])
        self.references += [value for key, value in attrs if key in ("src", "href", "xlink:href", "srcset", "data")]


@pytest.fixture(scope="module")
def record():
    return fixture.record()


@pytest.fixture(scope="module")
def written(record, tmp_path_factory):
    """The full report and tables, written once."""
    folder = tmp_path_factory.mktemp("report")
    # What a reader of results.json gets, not what happens to be in memory.
    results = json.loads(json.dumps(record))
    write_report(results, folder / "report.html")
    write_tables(results, folder / "tables.md")
    return (folder / "report.html").read_text("utf-8"), (folder / "tables.md").read_text("utf-8")


def code_name(line):
    """Of a row that begins with a score's name in words and, if that is another one, its name in code."""
    cell = line.split("|")[1].strip(" *")
    found = re.search(r"\[(.+)\]$", cell)
    return found[1] if found else cell


def small(record):
    """The record with every list of records cut to its first."""
    if isinstance(record, dict):
        return {key: small(value) for key, value in record.items()}
    if isinstance(record, list) and record and isinstance(record[0], dict):
        return [small(item) for item in record[:1]]
    return copy.copy(record)


def paths(node, prefix=()):
    """Every place in a record, from the outside in; numbers of a list count as one place."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(node, list) and not isinstance(value, dict | list):
            return
        yield (*prefix, key)
        yield from paths(value, (*prefix, key))


def put(record, path, value):
    changed = copy.deepcopy(record)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


def test_page_is_self_contained_and_every_figure_is_explained(written):
    text, _ = written
    found = Page(text)
    assert len(text.encode()) < 3_000_000
    assert all(reference.startswith(("#", "data:image/png")) for reference in found.references)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert not {"link", "iframe", "object", "img"} & set(found.tags)
    assert "src" not in found.attributes  # scripts are part of the page
    assert len(found.ids) == len(set(found.ids))
    assert found.figures == found.captions == len(found.alternatives) >= 20
    assert all(len(alternative) > 30 for alternative in found.alternatives)
    targets = {reference[1:] for reference in found.references if reference.startswith("#")}
    assert targets <= set(found.ids)


def test_every_figure_says_on_how_many_frames_it_rests(record):
    for group in report_plots.pictures(small(record)).values():
        for picture in group:
            assert re.search(r"\d frames|\d decisions|frames per figure are in the tables|Frames: ", picture.caption), (
                picture.name
            )
            for axes in picture.figure.axes:
                drawn = axes.get_xlabel() or axes.get_ylabel() or axes.get_yticklabels() or axes.get_title()
                assert drawn, picture.name


def test_figures_are_drawn_alike_twice_and_follow_the_page_colours(record):
    part = {"ood": record["ood"]}
    first, second = (report_plots.pictures(part)["ood"][0].svg() for _ in range(2))
    assert first == second
    assert "var(--ink)" in first
    assert "#010a0b" not in first


def test_no_label_is_cut_off(record):
    parts = {key: record[key] for key in ("scores", "adaptive")}
    for group in report_plots.pictures(parts).values():
        for picture in group:
            if picture.name in ("ranking", "adaptive"):
                picture.figure.canvas.draw()
                page_box = picture.figure.bbox
                for axes in picture.figure.axes:
                    for label in (axes.xaxis.label, axes.yaxis.label, *axes.get_yticklabels()):
                        box = label.get_window_extent()
                        assert not label.get_text() or (box.x0 > -1 and box.x1 < page_box.x1 + 1), picture.name


def test_tables_show_the_recorded_figures_sorted_and_controls_marked(written):
    _, text = written
    ranking, others = (part.split("\n\n")[1].splitlines()[2:] for part in text.split("**Ranking of the scores")[1:])
    names = [code_name(line) for line in ranking]
    auroc = {name: value for name, _, value in fixture.SCORES}
    assert [auroc[name] for name in names] == sorted((auroc[name] for name in names), reverse=True)
    assert sorted(names + [code_name(line) for line in others]) == sorted(auroc)
    assert names[0] == "logistic/network"
    assert "0.940 [0.935, 0.945]" in ranking[0]
    marked = {name for name, line in zip(names, ranking, strict=True) if "(control)" in line}
    assert {"total_variation", "high_frequency_energy"} <= marked
    assert not marked - {name for name, family, _ in fixture.SCORES if family == "input"}
    attack = next(line for line in text.splitlines() if line.startswith("| Square-1000 8/255 | black box |"))
    assert "11.0 % [9.1, 12.9]" in attack
    assert "| 1,000 |" in attack
    assert text.index("| PASS |") < text.index("**Attacks on the classifier**")


def test_the_opening_is_made_from_the_numbers(record):
    said = " ".join(summary(record))
    assert "Of 10,000 clean test frames 93.00 % [92.50, 93.50] are classified right." in said
    assert "Under PGD-20 8/255, 0.0 % [0.0, 0.0] of the frames stay right" in said
    assert "accepts 960 of the 1,000 wrong frames (96.0 %)" in said
    assert "99.0 % [98.1, 99.9] of frames wrong and past the entropy gate" in said
    assert "hardest score to get past was entropy, two-sided and trunk.features.0.0: fine detail, two-sided" in said
    assert "Best score by purpose: overall: logistic of all but pixels [logistic/network] (AUROC for its own" in said
    weaker = put(record, ("attacks", 4, "accuracy"), fixture.share(0.5, 1000))
    weaker["attacks"][4]["accepted_wrong"] = fixture.share(0.2, 1000)
    assert "accepts 200 of the 500 wrong frames (40.0 %)" in " ".join(summary(weaker))
    assert summary(record)[0].startswith("What to do: ")
    assert summary({}) == ["No attack was run: nothing here says what becomes of attacked frames."]


def test_a_control_that_is_not_beaten_is_called_so(record):
    key = "pgd-20-8/255"
    changed = copy.deepcopy(record)
    for score in changed["scores"]:
        score["attacks"][key]["auroc"] = fixture.share(0.8 if score["family"] == "input" else 0.7, 2000)
    assert any("is not beaten by any score that uses the network" in sentence for sentence in summary(changed))


def test_a_failed_health_check_raises_the_banner(record, written, tmp_path):
    text, tables = written
    assert 'role="alert"' not in text
    assert BANNER not in tables
    for outcome in (False, None, "yes"):
        failed = put(record, ("health", 1, "passed"), outcome)
        shown = page(failed, {})
        assert 'role="alert"' in shown
        assert BANNER in shown
        assert 'class="fail"' in shown
        write_tables(failed, tmp_path / "tables.md")
        content = (tmp_path / "tables.md").read_text("utf-8")
        assert BANNER in content
        assert "| FAIL | white box beats black box |" in content
        assert any("1 of 2 health checks of the attacks FAILED" in sentence for sentence in summary(failed))


def test_nothing_at_all_is_a_page_of_not_measured(tmp_path):
    write_report({}, tmp_path / "report.html")
    write_tables({}, tmp_path / "tables.md")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert text.count("Not measured in this run.") == len(sections({})) - 1
    assert "The research has no network of this kind" in text
    assert "<svg" not in text
    assert not re.search(r"\d %", (tmp_path / "tables.md").read_text("utf-8").replace("Intervals are 95 %", ""))


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.long)])
def test_any_missing_or_damaged_entry_only_takes_its_own_figures_away(record, every):
    complete = small(record)
    places = [path for path in paths(complete) if path != ("format",)][::every]
    assert len(places) > 400 / every
    for k, path in enumerate(places):
        text = page(put(complete, path, JUNK[k % len(JUNK)]), {})
        assert "nan" not in text.lower(), path
        assert text.count("<h2>") == len(sections({})) + 1 + ('id="threshold"' in text)


def test_damaged_records_still_draw(record):
    complete = small(record)
    rng = random.Random(0)
    places = list(paths(complete))
    for _ in range(4):
        damaged = complete
        for path in sorted(rng.sample(places, len(places) // 10), key=len, reverse=True):
            damaged = put(damaged, path, rng.choice(JUNK))
        for group in report_plots.pictures(damaged).values():
            for picture in group:
                assert "nan" not in picture.caption + picture.alt


@pytest.mark.parametrize(
    ("key", "section"),
    [
        ("attacks", "attacks"),
        ("adaptive", "adaptive"),
        ("epsilon_curve", "epsilon"),
        ("corruptions", "corruptions"),
        ("ood", "ood"),
        ("layerwise", "layerwise"),
        ("batchwise", "batchwise"),
        ("risk_coverage", "scores"),
        ("entropy_histograms", "clean"),
    ],
)
def test_a_section_is_drawn_from_its_own_data_alone(record, key, section):
    assert set(report_plots.pictures({key: small(record)[key]})) == {section}


def test_a_figure_that_was_not_measured_is_not_invented(record):
    cell = percent(estimate(put(record, ("clean", "accuracy", "value"), None), "clean", "accuracy"))
    assert cell == ("–", "")
    assert percent(estimate(put(record, ("clean", "accuracy", "low"), None), "clean", "accuracy")) == ("93.00 %", "")
    assert wrong_frames({"accuracy": {"value": 0.2, "n": 1000}, "accepted_wrong": None, "n": 1000}) is None
    assert wrong_frames({"accuracy": {"value": 0.2}, "accepted_wrong": {"value": 0.4}, "n": 1000}) == (400, 800)
    assert wrong_frames({"accuracy": {"value": 1.0}, "accepted_wrong": {"value": 0.0}, "n": 1000}) is None


def test_adaptive_figures_stand_beside_every_detection_figure(record):
    section = next(part for part in sections(record) if part.key == "detection")
    attacks = {key for score in record["scores"] for key in score["attacks"]}
    assert len({table.title.partition(":")[0] for table in section.tables}) == len(attacks)
    seen = set()
    for table in section.tables:
        assert table.columns[-2:] == ("adaptive attack on this score: AUROC", "adaptive: wrong and accepted")
        beside = {row.cells[0]: row.cells[-1] for row in table.rows}
        seen |= {(name, figure) for name, figure in beside.items() if figure != "not run"}
    assert len(seen) == 3
    assert (named("two_sided(entropy)"), ("97.0 %", "[95.5, 98.5]")) in seen
    assert (named("two_sided(trunk.features.0.0:high_frequency_ratio)"), ("93.0 %", "[90.8, 95.2]")) in seen


def test_the_research_stands_beside_ours(record):
    ours = copy.deepcopy(record)
    ours["bundle"]["architecture"] = "simplecnn"
    rows = {row.quantity: row for row in comparison_rows(ours)}
    clean = rows["clean accuracy"]
    assert (clean.reported, clean.remeasured.value, clean.ours.value) == (0.7013, 0.7013, 0.93)
    fgsm = rows["accuracy under FGSM, eps 0.03"]
    assert (fgsm.reported, fgsm.ours.value) == (0.0103, 0.08)
    assert fgsm.setting == "FGSM 0.03, 1,000 frames"
    assert rows["wrong frames accepted under PGD-20, eps 0.03"].ours == Estimate(0.96, n=1000)
    assert rows["AURC x1000"].ours.value == pytest.approx(17.7)
    assert rows["AURC x1000"].remeasured.value == 117.8
    assert rows["accuracy kept by the batch rule, coverage 0.96"].setting == "coverage 0.970"
    assert rows["the same, per batch of 128"].ours.value == pytest.approx(0.75)
    del ours["attacks"][0]
    near = {row.quantity: row for row in comparison_rows(ours)}["accuracy under FGSM, eps 0.03"]
    assert (near.ours.value, near.setting) == (0.07, "FGSM 8/255, 1,000 frames")
    hybrid = {row.quantity: row for row in comparison_rows(record)}
    assert hybrid["accuracy under PGD, eps 0.03"].reported == 0.1
    assert "chance" in hybrid["accuracy under PGD, eps 0.03"].note
    assert hybrid["accuracy per frame at 95 % coverage"].ours is not None


def test_the_research_is_not_compared_across_data_or_architectures(record):
    assert comparison_rows(fixture.record(data="gtsrb")) == []
    assert comparison_rows(put(record, ("bundle", "architecture"), "hybrid3d")) == []
    assert comparison_rows({}) == []


COUNTED = ("accuracy", "accuracy/pgd", "detection/frame", "detection/batch 128")
"""Shares of counted frames or decisions, of which the research figures state an interval."""


@pytest.mark.parametrize("architecture", ["simplecnn", "mobilenet"])
def test_stated_intervals_are_those_of_the_counts(architecture):
    figures = {figure.quantity: figure for figure in RESEARCH[architecture]}
    for quantity in COUNTED:
        figure = figures[quantity]
        counted = proportion(round(figure.remeasured * figure.n), figure.n)
        assert figure.remeasured == pytest.approx(counted.value, abs=5.1e-4), quantity
        assert figure.low == pytest.approx(counted.low, abs=5.1e-4), quantity
        assert figure.high == pytest.approx(counted.high, abs=5.1e-4), quantity
    for figure in figures.values():
        assert (figure.low is None) == (figure.high is None), figure.quantity
        assert figure.low is None or figure.low <= figure.remeasured <= figure.high, figure.quantity


@pytest.mark.parametrize("architecture", ["simplecnn", "mobilenet"])
def test_research_figures_agree_with_each_other(architecture):
    figures = {figure.quantity: figure for figure in RESEARCH[architecture]}
    by_coverage = [figures[key].remeasured for key in ("accuracy", *(f"selective/{c}" for c in (0.95, 0.9, 0.8, 0.7)))]
    assert by_coverage == sorted(set(by_coverage))  # fewer frames accepted, more of them right
    for quantity, figure in figures.items():
        if "reproduces" in figure.wrong:
            assert abs(figure.reported - figure.remeasured) <= 2 / figure.n + 1e-9, quantity


@pytest.mark.parametrize("architecture", ["simplecnn", "mobilenet", "hybrid"])
def test_every_research_figure_finds_its_counterpart(record, architecture):
    rows = comparison_rows(put(record, ("bundle", "architecture"), architecture))
    assert len({row.quantity for row in rows}) == len(rows) == len(RESEARCH["simplecnn"])
    assert [row.quantity for row in rows if row.ours is None] == []
    assert [row.quantity for row in rows if not row.note] == []


def test_43_classes_stay_readable_and_2_classes_work():
    many, few, ten = (
        report_plots.pictures({"clean": {"confusion": fixture.record(classes=classes)["clean"]["confusion"]}})["clean"][
            0
        ]
        for classes in (43, 2, 10)
    )
    assert many.svg().count("<text") < 30  # ticks and labels, no numbers in 1,849 cells
    assert few.svg().count("<text") >= 4
    assert ten.svg().count("<text") > 100


def test_scores_that_are_mentioned_are_shown(record):
    assert notable(record, 4) == ["entropy", "logistic/network", "total_variation", "energy"]
    names = [score["name"] for score in shown(record, most=3)]
    mentioned = {"entropy", "logistic/network", "energy", "knn", "vim", "total_variation", "high_frequency_energy"}
    assert mentioned | {"two_sided(entropy)"} <= set(names)
    assert len(names) < len(fixture.SCORES)
    assert set(adaptive_by_score(record)) - {fixture.RULES[-1][0]} == {
        "entropy",
        "two_sided(entropy)",
        "two_sided(trunk.features.0.0:high_frequency_ratio)",
    }


def test_long_names_are_shortened_only_while_they_stay_apart():
    long = "trunk.features.14.conv.0.0:high_frequency_ratio"
    short = short_names(["entropy", "two_sided(entropy)", f"two_sided({long})", long], 34)
    assert short[:2] == ["entropy", "entropy ↕"]
    assert short[2] == short[3] + " ↕"
    assert len(short[3]) == 34
    assert short[3].endswith("14.conv.0.0: fine detail")
    alike = ["a" + "x" * 40 + ":mean", "b" + "x" * 40 + ":mean"]
    assert short_names(alike, 34) == alike


def test_every_score_that_an_evaluation_has_is_said_in_words():
    assert named("energy") == "energy of the logits [energy]"
    assert in_words("entropy (two-sided) and stem.0:mean (two-sided)") == (
        "entropy, two-sided and stem.0: mean activation, two-sided"
    )
    known = {path.stem: path.read_text("utf-8") for path in (ROOT / "evaluation" / "scores").glob("*.py")}
    names = [*CONTROLS, *re.findall(r'(?:Score|_tempered|_untempered)\(\s*"(\w+)"', known["output"] + known["feature"])]
    statistics = [*re.findall(r'^    "(\w+)": \w+,$', known["activation"], re.MULTILINE), "histogram_entropy"]
    names += [f"stem.0:{statistic}" for statistic in statistics]
    names += [f"{method}/{chosen}" for method in METHODS for chosen in ("output", "network", "all")]
    assert len(names) > 25
    assert [name for name in names if name != "entropy" and in_words(name) == name] == []


def test_the_slider_says_what_each_threshold_costs(record):
    found = slider(record)
    assert (found["frames"], found["wrong"]) == (10000, 700)
    assert [score["name"] for score in found["scores"]][:1] == ["entropy"]
    for score in found["scores"]:
        stops = score["stops"]
        assert [stop["accepted"] for stop in stops] == sorted({stop["accepted"] for stop in stops})
        assert stops[-1]["accepted"] == 10000
        for stop in stops:
            assert 0 <= stop["low"] <= stop["wrong"] / stop["accepted"] + 1e-3
            assert stop["high"] >= stop["wrong"] / stop["accepted"] - 1e-3
    stop = found["scores"][0]["stops"][found["start"]]
    assert abs(stop["accepted"] / 10000 - 0.95) < 0.02
    assert f"{stop['accepted']:,} of 10,000 frames are accepted" in found["said"]
    exact = proportion(stop["wrong"], stop["accepted"])
    assert stop["high"] == pytest.approx(exact.high, abs=2e-4)
    tracks = slider({**record, "design_effect": {"effect": 10.0, "frames": 10000}})
    assert tracks["scores"][0]["stops"][found["start"]]["high"] > stop["high"]  # frames of tracks prove less
    assert slider({}) is None
    assert slider({**record, "risk_coverage": {"entropy": {"coverage": [1.0], "risk": "junk"}}}) is None


def test_the_page_has_the_slider_and_no_text_can_leave_its_script(record):
    text = page(record, {})
    held = re.search(r'<script type="application/json" id="slider-data">(.*?)</script>', text, re.DOTALL)[1]
    assert json.loads(held) == json.loads(json.dumps(slider(record)))
    assert "</script" not in as_json({"name": "</script><script>alert(1)</script>"})
    assert text.count("<script") == 2
    assert "fetch(" not in text
    assert 'id="threshold"' not in page({}, {})


def test_the_accepted_share_of_the_wrong_is_taken_as_recorded():
    attack = {"accuracy": {"value": 0.2, "n": 1000}, "accepted_wrong": {"value": 0.4}, "n": 1000}
    assert accepted_of_wrong(attack) == Estimate(0.5, n=800)
    recorded = {"value": 0.5, "low": 0.46, "high": 0.54, "n": 800}
    assert accepted_of_wrong({**attack, "errors_accepted": recorded}) == Estimate(0.5, 0.46, 0.54, 800)


HOSTILE = '"><script>alert(1)</script>\' onload="x" | & {{ 7 * 7 }}'


def hostile(node, names=frozenset({"format", "main_attack"})):
    """The record with a hostile text in place of every text that is not a key of something else."""
    if isinstance(node, dict):
        return {key: value if key in names else hostile(value) for key, value in node.items()}
    if isinstance(node, list):
        return [hostile(value) for value in node]
    return HOSTILE if isinstance(node, str) else node


def test_whatever_a_record_says_stays_text(record, tmp_path):
    plain, found = Page(page(record, {})), Page(page(hostile(record), {}))
    assert set(found.tags) <= set(plain.tags)
    assert found.tags.count("script") == plain.tags.count("script") == 2
    assert "img" not in found.tags
    assert not any("onload" in name for name in found.attributes)
    text = page(hostile(record), {})
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in text


def test_figures_of_hostile_names_are_safe(record):
    """Labels are drawn as text, and the alternative text of a figure is one attribute."""
    drawn = report_plots.pictures({"ood": hostile(record["ood"][:1])})
    found = Page(page({}, drawn))
    assert "script" not in found.tags
    assert not any("onload" in name for name in found.attributes)
    assert HOSTILE in found.alternatives[0]


def test_names_are_escaped(record, tmp_path):
    called = put(record, ("bundle", "name"), "<script>alert(1)</script> | b")
    called["health"][0]["detail"] = "<img src=x> | y"
    text = page(called, {})
    assert "<script>alert" not in text
    assert "<img" not in text
    write_tables(called, tmp_path / "tables.md")
    assert "&lt;img src=x> \\| y |" in (tmp_path / "tables.md").read_text("utf-8")


def test_without_jinja_the_report_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UsageError, match="pip install jinja2"):
        write_report({}, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_another_format_is_refused(tmp_path):
    for results, found in (({"format": "framegate-bundle-1"}, "framegate-bundle-1"), ([], "list")):
        for write in (write_report, write_tables):
            with pytest.raises(DataError, match=found):
                write(results, tmp_path / "report")
    assert not list(tmp_path.iterdir())


def test_files_are_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "folder" / "tables.md"
    write_tables({}, target)
    write_tables({"bundle": {"name": "second"}}, target)
    assert target.read_text("utf-8").startswith("# Evaluation of second\n")
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(SinkError, match="taken"):
        write_report({}, taken)
    with pytest.raises(SinkError, match="cannot be written"):
        write_tables({}, target / "below-a-file.md")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["tables.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "taken"]


def test_without_matplotlib_the_report_says_what_to_install(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("framegate.evaluation.report.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    from framegate.evaluation.report import html as report_html

    with pytest.raises(UsageError, match=r"framegate\[evaluate\]"):
        report_html.write_report({}, tmp_path / "report.html")
    report_html.write_text(tmp_path / "tables.md", "tables need no matplotlib")
    assert [path.name for path in tmp_path.iterdir()] == ["tables.md"]
