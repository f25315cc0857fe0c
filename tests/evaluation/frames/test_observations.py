import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.evaluation.frames.observations import Observations, concatenate, load
from framegate.runtime.errors import DataError


def made(n=6, classes=3, name="test", seed=0, **changes):
    rng = np.random.default_rng(seed)
    fields = {
        "logits": rng.normal(size=(n, classes)).astype(np.float32),
        "labels": rng.integers(-1, classes, n),
        "features": rng.normal(size=(n, 4)).astype(np.float32),
        "taps": {"blocks.0.3:mass_entropy": rng.normal(size=n), "stem/0:mean": rng.normal(size=n)},
        "controls": {"total_variation": rng.random(n)},
    }
    return Observations(name, **{**fields, **changes})


def same(a, b):
    assert a.name == b.name
    for key in ("logits", "labels", "features"):
        np.testing.assert_array_equal(getattr(a, key), getattr(b, key))
        assert getattr(a, key).dtype == getattr(b, key).dtype
    for group in ("taps", "controls"):
        assert list(getattr(a, group)) == list(getattr(b, group))
        for key, values in getattr(a, group).items():
            np.testing.assert_array_equal(values, getattr(b, group)[key])


def test_a_frame_without_label_or_prediction_is_wrong():
    logits = np.array([[0, 1], [1, 0], [np.nan, 1], [0, 1], [np.inf, 0], [2, 2]], np.float32)
    found = made(6, logits=logits, labels=np.array([1, 1, 1, -1, 0, 0]), taps={}, controls={})
    assert found.predicted.tolist() == [1, 0, -1, 1, -1, 0]
    assert found.wrong.tolist() == [False, True, True, True, True, False]
    assert found.finite.tolist() == [True, True, False, True, False, True]


def test_no_prediction_and_no_label_do_not_agree():
    found = made(1, 2, logits=np.array([[np.nan, 0]]), labels=np.array([-1]))
    assert found.predicted[0] == found.labels[0] == -1
    assert found.wrong[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": np.zeros(6)}, "logits has shape"),
        ({"logits": np.zeros((6, 1))}, "at least two classes"),
        ({"labels": np.zeros(5, int)}, "6 frames are needed"),
        ({"labels": np.full(6, 3)}, "the network knows 0 to 2"),
        ({"labels": np.full(6, -2)}, "labels run from -2"),
        ({"labels": np.zeros(6)}, "whole numbers"),
        ({"features": np.zeros((5, 4))}, "features has shape"),
        ({"taps": {"a:b": np.zeros((6, 2))}}, "a:b has shape"),
        ({"controls": {"tv": np.zeros(7)}}, "tv has shape"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        made(**change)


def test_arrays_cannot_be_written_and_the_callers_stay_writeable():
    logits = np.zeros((6, 3), np.float32)
    found = made(logits=logits)
    with pytest.raises(ValueError, match="read-only"):
        found.logits[0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.name = "other"
    logits[0, 0] = 1


def test_subset_takes_masks_positions_and_slices():
    whole = made(6)
    mask = np.array([True, False, True, False, False, True])
    for index in (mask, np.flatnonzero(mask)):
        part = whole.subset(index, "part")
        assert part.name == "part"
        np.testing.assert_array_equal(part.logits, whole.logits[mask])
        np.testing.assert_array_equal(part.taps["stem/0:mean"], whole.taps["stem/0:mean"][mask])
    same(whole.subset(slice(None)), whole)
    assert len(whole.subset(slice(0, 0))) == 0


def test_joining_parts_gives_the_whole_again():
    whole = made(6, name="whole")
    same(concatenate("whole", [whole.subset(slice(0, 2)), whole.subset(slice(2, 6))]), whole)


@pytest.mark.parametrize(
    "other",
    [made(classes=4), made(features=np.zeros((6, 5))), made(taps={}), made(controls={"contrast": np.zeros(6)})],
)
def test_parts_of_different_networks_are_not_joined(other):
    with pytest.raises(DataError, match="join like with like"):
        concatenate("both", [made(), other])


def test_joining_nothing_is_refused():
    with pytest.raises(DataError, match="nothing to join"):
        concatenate("none", [])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 5), st.integers(0, 3), st.text(max_size=8), st.booleans())
def test_what_is_saved_is_loaded(tmp_path_factory, n, features, name, taps):
    record = made(n, name=name, features=np.full((n, features), np.nan), **({} if taps else {"taps": {}}))
    path = tmp_path_factory.mktemp("saved") / "set.npz"
    record.save(path)
    if "\0" not in name:  # NumPy drops trailing zero characters
        same(load(path), record)
    assert [p.name for p in path.parent.iterdir()] == ["set.npz"]


def test_saving_over_an_old_file_never_leaves_half_of_one(tmp_path, monkeypatch):
    path = tmp_path / "set.npz"
    made(seed=1).save(path)

    def breaks(file, **parts):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", breaks)
    with pytest.raises(OSError, match="disk full"):
        made(seed=2).save(path)
    same(load(path), made(seed=1))
    assert [p.name for p in tmp_path.iterdir()] == ["set.npz"]


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-200])


def _damaged(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [_truncated, _damaged, lambda p: p.write_bytes(b""), lambda p: p.write_text("text")])
def test_a_damaged_file_says_what_to_do(tmp_path, damage):
    path = tmp_path / "set.npz"
    made(200).save(path)
    damage(path)
    with pytest.raises(DataError, match="delete it and evaluate again"):
        load(path)


def test_files_of_another_kind_and_missing_ones(tmp_path):
    np.savez(tmp_path / "other.npz", logits=np.zeros((2, 2)))
    with pytest.raises(DataError, match="format 'none' found"):
        load(tmp_path / "other.npz")
    np.savez(tmp_path / "pickled.npz", format=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "pickled.npz")
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "missing.npz")


def test_observations_travel_between_processes():
    same(pickle.loads(pickle.dumps(made())), made())
