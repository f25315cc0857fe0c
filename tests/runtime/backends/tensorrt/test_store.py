"""Engine files, without any TensorRT: what is stored, what is found for a GPU, and what is never returned."""

from __future__ import annotations

import os

import pytest

from framegate.cuda_kernels.driver.open import DeviceInfo
from framegate.runtime.backends.tensorrt.store import (
    AMPERE,
    EngineKey,
    StaleEngineError,
    device_target,
    find_engine,
    read_engine,
    stored_engines,
    targets_for,
    write_engine,
)
from framegate.runtime.errors import BackendError


def gpu(architecture: int, name: str = "NVIDIA Test/GPU 9000", multiprocessors: int = 16) -> DeviceInfo:
    return DeviceInfo(name, architecture, multiprocessors, 1 << 30, 1 << 22, False, (13, 0), 9)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.fp16.onnx"
    path.write_bytes(b"some model")
    return path


def stored(model, folder, target, version="11.4.0.106", plan=b"plan " * 100):
    key = EngineKey.of(model, "tensorrt", version, target)
    write_engine(key, folder, plan, {"options": {}})
    return key


def test_what_was_written_is_read_and_is_named_for_people(model, tmp_path):
    key = stored(model, tmp_path, device_target(gpu(89)))
    engine = read_engine(key, tmp_path)
    assert engine.plan == b"plan " * 100
    assert engine.header["key"]["version"] == "11.4.0.106"
    assert engine.path.name == "model.fp16-tensorrt-11.4.0.106-NVIDIA_Test_GPU_9000_sm_89_16_multiprocessors.engine"
    assert [path.name for path in engine.path.parent.iterdir()] == [engine.path.name]  # no temporary file is left


def test_the_engine_tuned_for_this_gpu_is_taken_before_a_more_general_one(model, tmp_path):
    info = gpu(89)
    assert targets_for(info) == [device_target(info), "sm_89", AMPERE]
    assert targets_for(gpu(75))[1:] == ["sm_75"]
    for number, target in enumerate(reversed(targets_for(info))):
        stored(model, tmp_path, target, plan=bytes([number]) * 10)
        assert find_engine(model, "tensorrt", "11.4.0.106", info, tmp_path).plan == bytes([number]) * 10


def test_an_engine_of_another_board_whose_gpu_has_the_same_name_is_not_found(model, tmp_path):
    """AGX Orin and Orin Nano: one name, one compute capability, 16 and 8 multiprocessors."""
    stored(model, tmp_path, device_target(gpu(87, "Orin")))
    with pytest.raises(BackendError, match=r"no usable tensorrt .*Orin_sm_87_16_multiprocessors\.engine"):
        find_engine(model, "tensorrt", "11.4.0.106", gpu(87, "Orin", multiprocessors=8), tmp_path)


def test_engines_of_another_gpu_release_or_model_are_not_found(model, tmp_path):
    stored(model, tmp_path, device_target(gpu(90)))
    stored(model, tmp_path, device_target(gpu(89)), version="10.3.0")
    with pytest.raises(BackendError, match=r"no usable tensorrt 11\.4\.0\.106 engine") as error:
        find_engine(model, "tensorrt", "11.4.0.106", gpu(89), tmp_path)
    assert "10.3.0-NVIDIA_Test_GPU_9000_sm_89_16_multiprocessors.engine" in str(error.value)
    assert "framegate engine" in str(error.value)
    key = stored(model, tmp_path, "sm_89")
    model.write_bytes(b"another model")
    with pytest.raises(BackendError, match="there: none"):
        find_engine(model, "tensorrt", "11.4.0.106", gpu(89), tmp_path)
    other = EngineKey.of(model, *(key.flavour, key.version, key.target))
    other.path(tmp_path).parent.mkdir()
    key.path(tmp_path).rename(other.path(tmp_path))  # a file under another's name gives itself away
    with pytest.raises(StaleEngineError, match="was built for model_sha256"):
        read_engine(other, tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 20, 30, 200, -1])
def test_fault_a_truncated_file_is_never_returned(model, tmp_path, keep):
    key = stored(model, tmp_path, "sm_89")
    path = key.path(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StaleEngineError):
        read_engine(key, tmp_path)


def test_fault_a_flipped_bit_anywhere_in_the_plan_is_found(model, tmp_path):
    key = stored(model, tmp_path, "sm_89")
    path = key.path(tmp_path)
    content = path.read_bytes()
    for back in (1, 100, 499, 500):
        spoilt = bytearray(content)
        spoilt[-back] ^= 0x10
        path.write_bytes(spoilt)
        with pytest.raises(StaleEngineError, match="is damaged"):
            read_engine(key, tmp_path)


def test_flavours_are_told_apart(model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    key = EngineKey.of(model, "tensorrt-rtx", "1.7.1.116", "sm_89")
    write_engine(key, tmp_path / "framegate" / "engines", b"plan", {})
    assert len(stored_engines(key.model_sha256, "tensorrt-rtx")) == 1
    assert stored_engines(key.model_sha256, "tensorrt") == []


@pytest.mark.parametrize("place", ["file", "folder of the model", "cache"])
def test_fault_an_engine_that_others_can_write_is_refused(model, tmp_path, place):
    key, folder = EngineKey.of(model, "tensorrt", "11.4", AMPERE), tmp_path / "engines"
    path = write_engine(key, folder, b"plan", {})
    assert read_engine(key, folder).plan == b"plan"
    where = {"file": path, "folder of the model": path.parent, "cache": folder}[place]
    where.chmod(where.stat().st_mode | 0o002)
    with pytest.raises(StaleEngineError, match="others can write"):
        read_engine(key, folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_fault_an_engine_of_another_user_is_refused(model, tmp_path):
    key, folder = EngineKey.of(model, "tensorrt", "11.4", AMPERE), tmp_path / "engines"
    os.chown(write_engine(key, folder, b"plan", {}), 12345, 12345)
    with pytest.raises(StaleEngineError, match="belongs to user 12345"):
        read_engine(key, folder)
