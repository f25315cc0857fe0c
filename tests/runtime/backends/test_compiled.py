"""Networks as OpenVINO compiled them, kept for the next start: the same answers, and nothing that others can write."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

ov = pytest.importorskip("openvino")
from framegate.runtime.backends import compiled, openvino_cpu  # noqa: E402
from framegate.runtime.backends.compiled import MAGIC, CompiledNetworks  # noqa: E402
from framegate.runtime.bundle.bundle import Bundle  # noqa: E402
from framegate.runtime.bundle.search import find_bundle  # noqa: E402
from framegate.runtime.errors import BackendError  # noqa: E402
from framegate.runtime.regions.batch_scorer import BatchScorer  # noqa: E402
from framegate.runtime.session import Session  # noqa: E402

PICTURE = np.random.default_rng(0).integers(0, 256, (60, 50, 3), np.uint8)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FRAMEGATE_COMPILED", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture
def count(monkeypatch):
    """How often something was compiled, and read."""
    done = {"compile_model": 0, "import_model": 0, "read_model": 0}
    real = openvino_cpu.core()

    class Counting:
        def __getattr__(self, name):
            def call(*arguments):
                done[name] += 1
                return getattr(real, name)(*arguments)

            return call

    monkeypatch.setattr(openvino_cpu, "core", Counting)
    return done


def answer(bundle="simplecnn-cifar10", **options):
    prediction = Session.open(bundle, "openvino", "fp32", camera=False, **options).infer(PICTURE)
    return prediction.entropy, prediction.energy, prediction.margin, prediction.decided_reasons


def test_the_second_start_compiles_nothing_and_reads_no_network_and_says_the_same(folder, count):
    first = answer()
    made = dict(count)
    assert made["compile_model"] >= 1
    assert made["import_model"] == 0
    assert answer() == first
    assert count == {**made, "import_model": 1}


def test_all_sizes_of_a_batch_are_kept(folder, count):
    bundle = Bundle.open("simplecnn-cifar10")

    def scores():
        session = Session.open(bundle, "openvino", "fp32", 1, camera=False)
        scorer = BatchScorer(bundle, session.scorer.backend, "fp32", session.calibration, 4)
        scorer.start([PICTURE, PICTURE[::-1].copy(), PICTURE[:, ::-1].copy()])
        return [scored.scores for scored in scorer.finish()]

    first, made = scores(), dict(count)
    assert scores() == first
    assert count["compile_model"] == made["compile_model"]
    assert count["read_model"] == made["read_model"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\0\0"),
        lambda path: path.write_bytes(b""),
        lambda path: path.chmod(0o666),
        lambda path: path.chmod(0o664),
        lambda path: path.parent.chmod(0o777),
        lambda path: path.parent.chmod(0o775),
    ],
)
def test_fault_what_was_kept_is_damaged_or_could_be_somebody_elses(folder, count, damage):
    first, made = answer(), dict(count)
    for path in folder.glob("*.blob"):
        damage(path)
    assert answer() == first
    assert count["compile_model"] == 2 * made["compile_model"]


def test_fault_another_network_was_kept_with_a_fitting_hash(folder):
    """The hash finds accidents. What forges it is found by the bundle's known answers."""
    answer()
    answer("simplecnn-robust-cifar10")
    kept = sorted(folder.glob("*.blob"), key=lambda path: path.stat().st_mtime_ns)
    small, other = kept[0], kept[-1]
    forger = CompiledNetworks("network", "engine")
    forger.keep(small, forger.read(other))
    with pytest.raises(BackendError, match=rf"known picture.*remove {folder}, from which it was read"):
        answer()
    small.unlink()
    answer()


def test_fault_a_file_has_the_name_of_another(folder, count):
    first = answer()
    answer("simplecnn-robust-cifar10")
    kept = sorted(folder.glob("*.blob"), key=lambda path: path.stat().st_mtime_ns)
    kept[-1].replace(kept[0])
    made = dict(count)
    assert answer() == first
    assert count["compile_model"] > made["compile_model"]


def test_fault_openvino_refuses_what_was_kept(folder, count):
    first, made = answer(), dict(count)
    kept = CompiledNetworks("network", "engine")
    for path in folder.glob("*.blob"):
        kept.keep(path, b"no network")
    assert answer() == first
    assert count["compile_model"] == 2 * made["compile_model"]


def test_a_bundle_whose_signature_is_asked_for_is_compiled_anew(folder, count, monkeypatch):
    monkeypatch.setattr("framegate.runtime.bundle.bundle.require_signature", lambda *_: None)
    answer(trust="key.pem")
    answer(trust="key.pem")
    assert count["import_model"] == 0
    assert not folder.exists()


@pytest.mark.parametrize("word", ["off", "0"])
def test_off_keeps_nothing(tmp_path, monkeypatch, count, word):
    monkeypatch.setenv("FRAMEGATE_COMPILED", word)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answer()
    answer()
    assert count["import_model"] == 0
    assert list(tmp_path.iterdir()) == []


def test_it_lies_in_the_users_cache_unless_a_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("FRAMEGATE_COMPILED")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answer()
    assert list((tmp_path / "framegate" / "openvino").glob("*.blob"))


def test_fault_the_folder_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FRAMEGATE_COMPILED", str(tmp_path / "file" / "kept"))
    assert answer() == answer()


def test_fault_the_folder_is_open_to_others_nothing_is_written_there(folder):
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    answer()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("home", [None, "/proc/1/root/nobody"])
def test_fault_there_is_no_home_or_it_may_not_be_entered(monkeypatch, home):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("FRAMEGATE_COMPILED")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home is None:
        monkeypatch.setattr("pathlib.Path.home", no_home)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", home)
    assert answer() == answer()


def test_many_threads_take_the_same_network(folder):
    """Cameras open theirs at once: each gets the batch that it asked for, and so it is kept."""
    bundle = Bundle.open("simplecnn-cifar10")
    opened = Session.open(bundle, "openvino", "fp32", camera=False)

    def judged(count):
        scorer = BatchScorer(bundle, opened.scorer.backend, "fp32", opened.calibration, count, always=True)
        scorer.start([PICTURE] * count)
        return [scored.scores.argmax for scored in scorer.finish()]

    for _ in range(2):
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(judged, range(2, 10)))
        assert [len(each) for each in found] == list(range(2, 10))
        assert len({label for each in found for label in each}) == 1


def test_a_child_process_reads_nothing_away(folder):
    answer()
    backend = Session.open("simplecnn-cifar10", "openvino", "fp32", camera=False).scorer.backend
    file = backend._network._opened
    assert file is not None
    file.read()  # as a child of fork would move the common place in the file
    assert backend._network.classes == 10


def test_what_was_not_used_for_longest_makes_room(folder, monkeypatch):
    monkeypatch.setattr(compiled, "_MOST_BYTES", 3500)
    monkeypatch.setattr(compiled, "_LARGEST", 1)
    kept = CompiledNetworks("network", "engine")
    paths = [kept.path((1, side), {}) for side in range(5)]
    for age, path in enumerate(paths[:4]):
        kept.keep(path, bytes(800))
        os.utime(path, (1000 + age, 1000 + age))
    assert kept.read(paths[0]) == bytes(800)  # used again
    (folder / "somebody-elses.blob").write_bytes(bytes(9000))
    gone = folder / f"{paths[1].name}.x.part"
    gone.write_bytes(b"never finished")
    os.utime(gone, (1000, 1000))
    kept.keep(paths[4], bytes(800))
    assert (folder / "somebody-elses.blob").exists()
    assert not gone.exists()
    kept.keep(kept.path((1, 9), {}), bytes(10**9))  # larger than all that may be kept
    assert [path.exists() for path in paths] == [True, False, True, True, True]


def test_every_difference_has_a_file_of_its_own(folder):
    kept = CompiledNetworks("network", "engine")
    base = kept.path((1, 3, 32, 32), {"threads": "1"})
    others = [
        kept.path((2, 3, 32, 32), {"threads": "1"}),
        kept.path((1, 3, 32, 32), {"threads": "2"}),
        CompiledNetworks("another", "engine").path((1, 3, 32, 32), {"threads": "1"}),
        CompiledNetworks("network", "engine 2").path((1, 3, 32, 32), {"threads": "1"}),
    ]
    assert len({base, *others}) == 5
    assert MAGIC.endswith(b"\n")


def test_two_precisions_of_a_bundle_are_two_networks():
    bundle = Bundle.open(find_bundle("simplecnn-cifar10"))
    digests = set()
    for precision in bundle.models:
        with bundle.loaded(precision) as model:
            digests.add(bundle.network_digest(model))
    assert len(digests) == len(bundle.models)
