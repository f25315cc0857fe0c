"""What a build is told, on a stand-in for IBuilderConfig: the real one exists only where its libraries do.

The stand-ins have the members that a release has, as far as these options touch them; test_tensorrt_names.py holds
those against the real bindings.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from framegate.cuda_kernels.driver.open import DeviceInfo
from framegate.export.commands import engine as command_engine
from framegate.export.engines.build import _timing_cache
from framegate.export.engines.options import THIS_GPU, BuildOptions, configure, resolve_target
from framegate.runtime.backends.tensorrt.library import TensorRt
from framegate.runtime.backends.tensorrt.store import AMPERE
from framegate.runtime.cli.main import main
from framegate.runtime.errors import BackendError

ORIN = DeviceInfo("Orin", 87, 16, 1 << 33, 1 << 22, True, (12, 6), 9)


class Config:
    def __init__(self) -> None:
        self.flags: set[str] = set()
        self.limits: dict[str, int] = {}
        self.caches: list[object] = []
        self.accepts = True

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.discard(flag)
        self.cleared = flag

    def set_memory_pool_limit(self, pool, nbytes):
        self.limits[pool] = nbytes

    def create_timing_cache(self, content):
        return content

    def set_timing_cache(self, cache, ignore_mismatch):
        assert not ignore_mismatch
        self.caches.append(cache)
        return self.accepts


def names(**more):
    return SimpleNamespace(**more)


def tensorrt(version: str) -> TensorRt:
    levels = names(NONE="none", AMPERE_PLUS="ampere plus")
    if not version.startswith("10.3"):
        levels.SAME_COMPUTE_CAPABILITY = "same capability"
    module = names(
        BuilderFlag=names(TF32="tf32", GPU_FALLBACK="gpu fallback"),
        ProfilingVerbosity=names(DETAILED="detailed"),
        MemoryPoolType=names(WORKSPACE="workspace"),
        DeviceType=names(DLA="dla"),
        HardwareCompatibilityLevel=levels,
        NetworkDefinitionCreationFlag=names(STRONGLY_TYPED=1),
        IBuilderConfig=Config,
    )
    return TensorRt("tensorrt", module, version)


@pytest.mark.parametrize(("version", "flags"), [("10.3.0", 2), ("10.16.0.72", 2), ("11.4.0.106", 0)])
def test_types_come_from_the_onnx_file_on_every_release(version, flags):
    assert tensorrt(version).network_flags() == flags


@pytest.mark.parametrize(
    ("version", "wanted", "level"),
    [
        ("10.3.0", None, "none"),
        ("10.3.0", AMPERE, "ampere plus"),
        ("10.13.3.9", "sm_87", "same capability"),
        ("11.4.0.106", THIS_GPU, "none"),
    ],
)
def test_the_target_becomes_the_compatibility_level(version, wanted, level):
    trt, config = tensorrt(version), Config()
    config.flags.add("tf32")
    target = resolve_target(trt, wanted, ORIN)
    configure(trt, names(num_DLA_cores=2), config, BuildOptions(level=4, workspace_mib=256), target)
    assert config.hardware_compatibility_level == level
    assert config.builder_optimization_level == 4
    assert config.limits == {"workspace": 256 << 20}
    assert config.flags == set()  # above all not TF32, which is on if nobody clears it
    assert config.max_aux_streams == 0
    assert config.profiling_verbosity == "detailed"
    assert not hasattr(config, "default_device_type")


def test_a_dla_core_takes_what_it_can():
    trt, config = tensorrt("10.3.0"), Config()
    configure(trt, names(num_DLA_cores=2), config, BuildOptions(dla_core=1), "Orin, sm_87")
    assert (config.default_device_type, config.DLA_core, config.flags) == ("dla", 1, {"gpu fallback"})
    with pytest.raises(BackendError, match=r"DLA core 2 was asked for, tensorrt 10\.3\.0 finds 2"):
        configure(trt, names(num_DLA_cores=2), Config(), BuildOptions(dla_core=2), "Orin, sm_87")


def test_targets_that_a_release_or_machine_cannot_build_for():
    with pytest.raises(BackendError, match=r"can build for this-gpu and ampere-and-newer only"):
        resolve_target(tensorrt("10.3.0"), "sm_87", ORIN)
    with pytest.raises(BackendError, match="builds here for sm_87 only"):
        resolve_target(tensorrt("10.13.3.9"), "sm_90", ORIN)
    with pytest.raises(BackendError, match="builds on the GPU that will run the engine"):
        resolve_target(tensorrt("10.13.3.9"), None, None)


def test_the_timing_cache_is_used_again_and_a_foreign_one_is_left(tmp_path):
    trt, config = tensorrt("10.13.3.9"), Config()
    path = _timing_cache(trt, config, ORIN, tmp_path)
    assert config.caches == [b""]
    assert path.name == "timing-tensorrt-10.13.3.9-Orin-cuda12.6.cache"
    path.write_bytes(b"measured")
    again = Config()
    _timing_cache(trt, again, ORIN, tmp_path)
    assert again.caches == [b"measured"]
    foreign = Config()
    foreign.accepts = False
    _timing_cache(trt, foreign, ORIN, tmp_path)
    assert foreign.caches == [b"measured", b""]


def test_without_any_tensorrt_both_install_lines_are_given(tiny_bundle, monkeypatch, capsys):
    monkeypatch.setattr(command_engine, "installed_flavours", list)
    monkeypatch.setattr(command_engine, "find_gpu", lambda: None)
    assert main(["engine", str(tiny_bundle)]) == 1
    told = capsys.readouterr().err
    assert "pip install 'framegate[rtx]'" in told
    assert "pip install 'framegate[tensorrt]'" in told


def test_auto_takes_what_can_build_here(monkeypatch):
    monkeypatch.setattr(command_engine, "installed_flavours", lambda: ["tensorrt", "tensorrt-rtx"])
    monkeypatch.setattr(command_engine, "load_tensorrt", lambda flavour: flavour)
    assert command_engine.choose_flavour("auto", ORIN) == "tensorrt"
    assert command_engine.choose_flavour("auto", None) == "tensorrt-rtx"
    assert command_engine.choose_flavour("tensorrt", None) == "tensorrt"
