"""Bundles by name: every place, in which order, and what is said about a name that is not found."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from framegate.runtime.bundle import search
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.search import VARIABLE, bundle_to_change, find_bundle, named_bundles, problems
from framegate.runtime.cli import main as cli
from framegate.runtime.errors import BundleError, UsageError
from framegate.runtime.session import Session


@pytest.fixture
def places(tmp_path, monkeypatch, tiny_bundle) -> dict[str, Path]:
    """Three places, the first of which is the current folder; each has a bundle of its own name, and one called car."""
    folders = {name: tmp_path / name for name in ("here", "package", "listed")}
    for name, folder in folders.items():
        folder.mkdir()
        for bundle in (f"only-{name}", "car"):
            shutil.copytree(tiny_bundle, folder / f"{bundle}.bundle")
    monkeypatch.chdir(folders["here"])
    monkeypatch.setattr(search, "SHIPPED", folders["package"])
    monkeypatch.setenv(VARIABLE, str(folders["listed"]))
    return folders


def say(capsys, *words: str) -> tuple[int, str, str]:
    code = cli.main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("place", ["here", "package", "listed"])
@pytest.mark.parametrize("ending", ["", ".bundle"])
def test_a_name_is_found_in_every_place(places, place, ending):
    found = find_bundle(f"only-{place}{ending}")
    assert found.resolve() == places[place] / f"only-{place}.bundle"
    assert Bundle.open(f"only-{place}{ending}").labels == ("blue", "green", "red")


def test_the_current_folder_comes_before_the_package_and_that_before_the_variable(places):
    for place in ("here", "package", "listed"):
        found = find_bundle("car")
        assert found.resolve() == places[place] / "car.bundle"
        shutil.rmtree(found)
    with pytest.raises(BundleError, match="not found"):
        find_bundle("car")


def test_the_variable_s_folders_are_searched_in_their_order(places, tmp_path, monkeypatch, tiny_bundle):
    second = tmp_path / "second"
    shutil.copytree(tiny_bundle, second / "only-listed.bundle")
    shutil.copytree(tiny_bundle, second / "van.bundle")
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(tmp_path / "nowhere"), "", str(places["listed"]), str(second)]))
    assert find_bundle("only-listed").parent == places["listed"]
    assert find_bundle("van").parent == second
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(VARIABLE, "~/second")
    assert find_bundle("van") == second / "van.bundle"


def test_an_empty_variable_does_not_mean_the_current_folder(places, monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, os.pathsep)
    assert [each.place for each in named_bundles()] == ["current folder"] * 2 + ["package"] * 2
    assert problems() == ()


def test_a_path_is_looked_for_nowhere_else(places):
    assert find_bundle("./car") == Path("./car.bundle")
    assert find_bundle("car.bundle/") == Path("car.bundle")
    assert find_bundle("../package/only-package") == Path("../package/only-package.bundle")
    for path in ("./only-package", "./only-package.bundle", "here/only-package", "/only-package", "only-package/"):
        with pytest.raises(BundleError, match="found nothing there; give the path of a folder"):
            find_bundle(path)


def test_a_folder_without_the_ending_comes_first_if_it_is_a_bundle(places):
    Path("van").mkdir()
    Path("car").mkdir()
    (Path("car") / "frames.txt").write_text("not a bundle")
    assert find_bundle("car") == Path("car.bundle")
    shutil.rmtree("car")
    shutil.copytree("car.bundle", "car")
    assert find_bundle("car") == Path("car")
    assert [each.hidden for each in named_bundles() if each.name == "car"] == [True] * 3
    with pytest.raises(BundleError, match="in the current folder it is a folder without a manifest, "):
        find_bundle("van")


def test_a_damaged_bundle_here_is_never_replaced_by_another_of_its_name(places):
    Path("car.bundle", "manifest.json").unlink()
    for given in ("car", "car.bundle", "./car"):
        with pytest.raises(BundleError, match=r"car\.bundle: manifest\.json is missing"):
            Bundle.open(given)


def test_a_file_in_place_of_a_folder(places):
    shutil.rmtree("car.bundle")
    Path("car.bundle").write_text("version https://git-lfs.github.com/spec/v1")
    for given in ("car", "car.bundle", "./car.bundle"):
        with pytest.raises(BundleError, match=r"expected a folder NAME\.bundle, found a file there"):
            Bundle.open(given)
    Path("only-package").write_text("a file of that name says nothing about a bundle")
    assert find_bundle("only-package").parent == places["package"]
    Path("van").write_text("")
    with pytest.raises(BundleError, match=r"not found: in the current folder it is a file, not in "):
        find_bundle("van")


@pytest.mark.parametrize("given", ["", " ", "\t"])
def test_an_empty_name_is_refused(places, given, capsys):
    code, out, err = say(capsys, "info", given)
    assert (code, out) == (1, "")
    assert f"bundle {given!r}: no name; give the path of a folder NAME.bundle or one of the names car, only-here" in err


@pytest.mark.parametrize("given", ["nobody", "nobody.bundle", "a" * 300, "..", "ca\nr", "*"])
def test_a_name_found_nowhere_is_one_sentence(places, given, capsys):
    code, out, err = say(capsys, "run", "synthetic://?frames=1", "--bundle", given)
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert err.startswith("framegate: bundle ")
    assert len(err.splitlines()) == 1


def test_the_sentence_says_where_and_what_else_there_is(places, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    folders = [tmp_path / "file", tmp_path / "nowhere", places["listed"] / "car.bundle", places["listed"]]
    monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, folders)))
    with pytest.raises(BundleError) as caught:
        Session.open("cat")
    said = str(caught.value)
    assert said.startswith("bundle 'cat': not found: not in the current folder, not in ")
    assert f"{places['package']} (package)" in said
    assert f"{tmp_path / 'file'} (${VARIABLE}) is a file, not a folder of bundles" in said
    assert f"{tmp_path / 'nowhere'} (${VARIABLE}) does not exist" in said
    assert f"(${VARIABLE}) is a bundle itself; name the folder around it" in said
    assert said.endswith("one of the names car, only-here, only-package, only-listed")
    assert len(problems()) == 3
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(BundleError, match=f"{VARIABLE} is not set; give the path"):
        find_bundle("cat")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_folder_that_cannot_be_read_is_named(places):
    places["listed"].chmod(0)
    try:
        assert problems() == (f"{VARIABLE}: {places['listed']} cannot be read (Permission denied)",)
    finally:
        places["listed"].chmod(0o755)


def test_the_list_has_every_bundle_once_and_says_which_are_hidden(places, monkeypatch, capsys):
    (places["here"] / ".car.bundle.part").mkdir()  # one that is just being written
    (places["listed"] / "alias.bundle").symlink_to(places["package"] / "only-package.bundle")
    found = [(each.name, each.place, each.hidden) for each in named_bundles()]
    listed = f"${VARIABLE}"
    assert found == [
        ("car", "current folder", False),
        ("only-here", "current folder", False),
        ("car", "package", True),
        ("only-package", "package", False),
        ("car", listed, True),
        ("only-listed", listed, False),
    ]
    code, out, err = say(capsys, "bundles")
    assert (code, err) == (0, "")
    for name in ("only-here", "only-package", "only-listed"):
        assert name in out
    assert out.count("another one comes first") == 2
    monkeypatch.chdir(places["package"])  # in two roles at once
    assert [each.place for each in named_bundles() if each.name == "only-package"] == ["current folder"]


def test_the_json_list_can_be_read_by_programs(places, capsys):
    code, out, _ = say(capsys, "bundles", "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows if not row["hidden"]] == ["car", "only-here", "only-package", "only-listed"]
    first = rows[0]
    assert Path(first["path"]) == places["here"] / "car.bundle"
    assert (first["labels"], first["precisions"]) == (["blue", "green", "red"], ["fp32", "int8"])
    assert first["promise"] == "at most 5.00% of accepted frames wrong, a random frame; 95% confidence"
    assert set(first["promises"]) == {f"{b}/{p}" for b in ("openvino", "onnxruntime") for p in ("fp32", "int8")}
    assert all(row.keys() == first.keys() for row in rows)


def test_a_damaged_bundle_is_listed_as_such(places, capsys):
    (places["package"] / "only-package.bundle" / "model.int8.onnx").write_bytes(b"changed")
    code, out, err = say(capsys, "bundles")
    assert (code, err) == (1, "")
    assert "cannot be used: bundle" in out
    assert "the file was changed or damaged" in out.replace("\n", " ")
    code, out, _ = say(capsys, "bundles", "--json")
    assert code == 1
    errors = {row["name"]: row["error"] for row in json.loads(out)}
    assert [name for name, error in errors.items() if error] == ["only-package"]


def test_without_any_bundle_the_list_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search, "SHIPPED", tmp_path / "none")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nothing"))
    code, out, err = say(capsys, "bundles")
    assert (code, out) == (1, "")
    assert f"{VARIABLE}: {tmp_path / 'nothing'} does not exist" in err
    assert "no bundle can be given by name" in err
    with pytest.raises(BundleError, match=r"give the path of a folder NAME\.bundle$"):
        find_bundle("car")


def test_a_command_that_changes_a_bundle_needs_its_path(places):
    assert bundle_to_change("car") == Path("car.bundle")
    assert bundle_to_change(str(places["package"] / "only-package")) == places["package"] / "only-package.bundle"
    for name, place in (("only-package", "package"), ("only-listed.bundle", "listed")):
        with pytest.raises(UsageError) as caught:
            bundle_to_change(name)
        assert f"the name was found in {places[place]}; give the path of the folder to change" in str(caught.value)


def test_a_plan_changes_nothing_and_takes_a_name(places, capsys, tmp_path):
    """The same command without ``--plan`` is refused; so is an evaluation that stores its promise in the bundle."""
    wanted = ("calibrate", "only-package", "--unseen", str(tmp_path / "no-photographs"))
    _, _, err = say(capsys, *wanted, "--plan")
    assert "no-photographs" in err
    assert "changes the bundle" not in err
    for command in (wanted, ("evaluate", "only-package", "--data", str(tmp_path), "--tracks", "--store")):
        code, _, err = say(capsys, *command)
        assert code != 0
        assert "this changes the bundle, and the name was found in" in err


def test_session_and_commands_take_names(places, capsys, tmp_path):
    assert Session.open("only-listed", "onnxruntime", "fp32").bundle.path == places["listed"] / "only-listed.bundle"
    code, out, _ = say(capsys, "info", "only-package")
    assert code == 0
    assert f"folder: {places['package'] / 'only-package.bundle'}" in out
    words = ["--backend", "onnxruntime", "--precision", "fp32", "--as-fast-as-possible", "--json"]
    code, out, _ = say(capsys, "run", "synthetic://?frames=2", "--bundle", "only-listed", *words)
    assert code == 0
    assert json.loads(out)["frames"] == 2


def test_the_shipped_bundles_are_those_of_the_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    names = {path.name.removesuffix(".bundle") for path in search.SHIPPED.glob("*.bundle")}
    assert "hybrid-cifar10" in names
    assert {each.name for each in named_bundles()} == names
