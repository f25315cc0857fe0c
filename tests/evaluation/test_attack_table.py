"""The table of attacks on a bundle that is small, but real."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from framegate.evaluation import attack_table as table
from framegate.evaluation import command_attacks
from framegate.evaluation.attack_rows import row_checks
from framegate.evaluation.attack_table import Attacked, attack_table, attacks, markdown
from framegate.evaluation.attacks.auto import AutoSettings
from framegate.evaluation.frames.network import Network
from framegate.evaluation.frames.own_data import OWN
from framegate.evaluation.gate.rules import observe
from framegate.export.certificate import Wanted, certify
from framegate.models.labelled import LabelledImages
from framegate.models.pixels import to_images, to_pixels
from framegate.runtime.bundle.bundle import Bundle, seal
from framegate.runtime.bundle.certificates import Demand
from framegate.runtime.certificate import Certifier
from framegate.runtime.errors import UsageError

torch.set_num_threads(1)


def colours(count: int, seed: int) -> LabelledImages:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.int64)
    pixels = rng.normal(110, 12, (count, 32, 32, 3))
    pixels[np.arange(count), :, :, labels] += rng.choice([3.0, 25.0], count)[:, None, None]
    return LabelledImages("colours", np.clip(pixels, 0, 255).astype(np.uint8), labels)


def silent(description: str, done: int, total: int) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory, tiny_bundle):
    folder = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("table") / "tiny.bundle")
    wanted = Wanted(Demand("patch", 3), backends=("onnxruntime",), target_risk=0.05)
    certify(Bundle.open(folder), colours(80, 1), wanted, silent)
    bundle = Bundle.open(folder)
    network = Network.from_bundle(bundle)
    split, test = colours(40, 2), colours(12, 3)
    clean = observe(network, None, to_pixels(split.images), torch.from_numpy(split.labels))
    what = Attacked(bundle, network, clean, Certifier(bundle, Demand("patch", 3), "onnxruntime"), network)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(table, "AutoSettings", partial(AutoSettings, steps=3, queries=20))
        found = attack_table(
            what, to_pixels(test.images), torch.from_numpy(test.labels), silent, steps=3, adaptive=4, auto=6
        )
    return {row["attack"]: row for row in found}


def test_every_attack_stands_in_the_table(rows):
    for name in ("none", "FGSM 1/255", "PGD-3 8/255", "APGD 2/255", "PGD-3 L2 0.5", "patch 5x5", "adaptive 8/255"):
        assert name in rows
    assert set(attacks(32, 0, 3)) <= set(rows)
    assert rows["transfer of PGD-3 8/255"]["aims_at"] == "another network"
    assert rows["adaptive 8/255"]["n"] == 4
    assert rows["AutoAttack with APGD-T 8/255"]["n"] == 6
    assert rows["AutoAttack with APGD-T 8/255"]["wrong"]["value"] >= rows["none"]["wrong"]["value"]


def test_what_is_accepted_is_part_of_what_is_wrong_and_what_is_certified_part_of_that(rows):
    for row in rows.values():
        wrong, accepted, certified = (
            row[key]["value"] for key in ("wrong", "wrong_and_accepted", "wrong_accepted_and_certified")
        )
        assert wrong >= accepted >= certified >= 0


def test_attacks_break_what_is_right_without_them(rows):
    assert rows["none"]["wrong"]["value"] < rows["PGD-3 8/255"]["wrong"]["value"]
    # From the network itself, what is transferred is what attacks it.
    assert rows["transfer of PGD-3 8/255"]["wrong"] == rows["PGD-3 8/255"]["wrong"]


def test_attacks_see_what_a_camera_delivers():
    """They kept the first wrong pixels, and rounding made many of these right again: APGD 13 %, PGD 62 % accepted."""
    pixels = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    seen = table._delivered(lambda some: some)(pixels)
    assert torch.equal(seen.detach(), to_pixels(to_images(pixels)))
    assert not torch.equal(seen, pixels)
    (gradient,) = torch.autograd.grad((seen * 3).sum(), pixels)
    assert torch.equal(gradient, torch.full_like(pixels, 3))


def test_what_is_wrong_behind_the_rounding_stays_wrong_in_the_table():
    """A label that changes at a third of a level is not reached by one level, and one at half of it is not lost."""
    levels = torch.tensor([0.3, 0.7, 1.6])
    clean = torch.full((3, 3, 8, 8), 100 / 255)

    def network(some):
        moved = (some.mean((1, 2, 3)) * 255 - 100)[:, None]
        return torch.cat([levels[: len(some), None].expand(-1, 1), moved], 1)

    attack = attacks(8, 0, 3)["APGD 1/255"]
    found = attack(table._delivered(network), clean, torch.zeros(3, dtype=torch.int64))
    assert (network(to_pixels(to_images(found))).argmax(1) == torch.tensor([1, 1, 0])).all()


def record_rows(name):
    return json.loads((Path(table.__file__).parents[1] / f"benchmarks/results/attacks/{name}.json").read_text())["rows"]


@pytest.mark.parametrize("name", ["hybrid-cifar10", "mobilenet-cifar10", "resnet20-robust-cifar10"])
def test_the_committed_rows_hold_together(name):
    checks = row_checks(record_rows(name))
    assert len(checks) > 20
    assert [str(check) for check in checks if not check.passed] == []


@pytest.mark.parametrize(
    ("broken", "like", "failed"),
    [
        ("patch", "none", "patch: does harm"),
        ("PGD-20 L2", "none", "PGD-20 L2: does harm"),
        ("patch 8x8", "patch 3x3", "patch: larger never weaker"),
        ("APGD 8/255", "FGSM 2/255", "APGD 8/255: as strong as FGSM"),
        ("adaptive 2/255", "none", "adaptive 2/255: not behind others"),
        ("rotation", "FGSM 8/255", ""),
    ],
)
def test_an_attack_that_is_broken_shows_in_the_rows(broken, like, failed):
    """The health checks are those of PGD: without this a patch that changes nothing passed all of them."""
    rows = {row["attack"]: row for row in record_rows("mobilenet-cifar10")}
    kept = {key: rows[like][key] for key in ("wrong", "wrong_and_accepted")}
    changed = [{**row, **(kept if name.startswith(broken) else {})} for name, row in rows.items()]
    assert (failed in [check.name for check in row_checks(changed) if not check.passed]) is bool(failed)


def test_rows_without_the_clean_one_say_nothing(rows):
    assert row_checks([rows["FGSM 1/255"]]) == []
    assert row_checks([]) == []


def test_the_table_for_people(rows):
    text = markdown(list(rows.values()))
    assert text.splitlines()[0].endswith("| wrong, accepted and certified |")
    assert text.count("\n") == len(rows) + 1


def test_a_wrong_number_is_refused():
    arguments = type("Given", (), {"frames": 0, "steps": 1, "adaptive": 0, "auto": 0, "seed": 0})()
    with pytest.raises(UsageError, match="at least 1"):
        command_attacks.run(arguments)


def test_a_folder_as_results_file_is_refused_before_anything_is_measured(tmp_path):
    arguments = type("Given", (), {"frames": 1, "steps": 1, "adaptive": 0, "auto": 0, "seed": 0, "out": tmp_path})()
    with pytest.raises(UsageError, match="name of a file"):
        command_attacks.run(arguments)


def test_what_was_measured_with_the_same_settings_is_shown_and_not_measured_again(tmp_path, rows, capsys):
    path = tmp_path / "table.json"
    record = {"asked": {"seed": 0}, "rows": list(rows.values()), "health": [{"name": "gradients", "passed": False}]}
    path.write_text(json.dumps(record))
    assert command_attacks.measured_before(path, {"seed": 0}) == json.loads(json.dumps(record))
    assert command_attacks.measured_before(path, {"seed": 1}) is None
    assert command_attacks.measured_before(tmp_path / "none.json", {"seed": 0}) is None
    arguments = type("Given", (), {"json": False, "out": path})()
    assert command_attacks._shown(record, arguments) == 1  # a failed health check
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == len(rows) + 4  # a line for each row, and not all in one
    assert shown[-2].endswith("do not quote these figures: gradients")


def test_rows_that_were_measured_before_there_were_checks_of_rows_are_checked(tmp_path, capsys):
    record = {"rows": record_rows("mobilenet-cifar10"), "health": [{"name": "gradients", "passed": True}]}
    arguments = type("Given", (), {"json": False, "out": tmp_path / "table.json"})()
    assert command_attacks._shown(record, arguments) == 0
    record["rows"] = [
        {**row, "wrong": record["rows"][0]["wrong"]} if row["attack"].startswith("patch") else row
        for row in record["rows"]
    ]
    assert command_attacks._shown(record, arguments) == 1
    assert "do not quote these figures: patch: does harm" in capsys.readouterr().out


def test_rows_are_plain_json(rows):
    assert json.loads(json.dumps(list(rows.values())))[0]["attack"] == "none"


def test_an_interrupted_run_is_taken_up_with_the_same_settings_only(tmp_path, rows):
    path = tmp_path / "table.part"
    first = command_attacks.Saved(path, {"seed": 0})
    first.keep(rows["none"])
    again = command_attacks.Saved(path, {"seed": 0})
    assert again.rows == [json.loads(json.dumps(rows["none"]))]
    assert again.seconds() >= first.seconds() - 1
    assert command_attacks.Saved(path, {"seed": 1}).rows == []
    path.write_text("{")
    assert command_attacks.Saved(path, {"seed": 0}).rows == []


@pytest.mark.parametrize("name", [OWN, "cifar10"])
def test_what_other_images_or_another_network_gave_is_measured_anew(tmp_path, monkeypatch, tiny_bundle, name):
    """Every folder of one's own pictures has the same name, and a bundle keeps its own when it is exported again."""
    transfer = shutil.copytree(tiny_bundle, tmp_path / "transfer.bundle")
    bundle = Bundle.open(tiny_bundle)
    splits = {}
    data = SimpleNamespace(name=name, title="t", labels=bundle.labels, depth=1, load_test=lambda place: splits["test"])
    monkeypatch.setattr(command_attacks, "data_for", lambda *given: data)
    monkeypatch.setattr(command_attacks, "calibration_of", lambda *given: splits["calibration"])
    measured = []

    def measure(arguments, asked, *given):
        measured.append(dict(asked))
        return {"asked": dict(asked), "rows": [{}], "health": [{}]}

    monkeypatch.setattr(command_attacks, "_measured", measure)
    monkeypatch.setattr(command_attacks, "_shown", lambda *given: 0)

    def attacked(calibration, test):
        splits.update(calibration=colours(4, calibration), test=colours(4, test))
        arguments = SimpleNamespace(
            bundle=tiny_bundle, data=tmp_path, frames=1, steps=1, adaptive=0, auto=0, seed=0, again=False,
            out=tmp_path / "table.json", transfer=transfer, require_certificate=None,
        )  # fmt: skip
        command_attacks.run(arguments)
        return len(measured)

    assert [attacked(1, 2), attacked(1, 2), attacked(1, 3), attacked(2, 3)] == [1, 1, 2, 3]
    manifest = json.loads((transfer / "manifest.json").read_text())
    seal(transfer, {**manifest, "origin": {"weights": "others"}})
    assert [attacked(2, 3), attacked(2, 3)] == [4, 4]
    # A record of before: what it says nothing of is believed of a known data set alone.
    older = {key: value for key, value in measured[-1].items() if key not in ("images_sha256", "transfer_sha256")}
    (tmp_path / "table.json").write_text(json.dumps({"asked": older, "rows": [{}], "health": [{}]}))
    assert attacked(2, 3) == (5 if name == OWN else 4)


def test_a_record_where_rows_of_an_interrupted_run_would_lie_is_refused(tmp_path):
    arguments = SimpleNamespace(frames=1, steps=1, adaptive=0, auto=0, seed=0, out=tmp_path / "table.part")
    with pytest.raises(UsageError, match=r"ends in \.json"):
        command_attacks.run(arguments)


def test_rows_that_are_known_are_not_computed_again(rows):
    class Unused:
        seed, foreign = 0, None

    what = Unused()
    what.network = what.bundle = None  # whatever is computed fails
    test = colours(4, 3)
    known = [row for row in rows.values() if not row["attack"].startswith(("transfer", "adaptive", "Auto"))]
    found = attack_table(
        what, to_pixels(test.images), torch.from_numpy(test.labels), silent, steps=3, adaptive=0, known=known
    )
    assert found == known
