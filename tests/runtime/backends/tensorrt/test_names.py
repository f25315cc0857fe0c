"""Which TensorRT names framegate uses, held against the real bindings of each release it claims to work with."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
import tensorrt_bindings
from repository import ROOT

from framegate.runtime.backends.tensorrt.names import COMMON, FUNCTIONS, OPTIONAL, PLUGIN_PACKAGE, missing_names

VERSIONS = ("10.3", "10.13", "10.16", "11.4", "tensorrt-rtx")
SOURCES = sorted([*ROOT.glob("runtime/backends/tensorrt/*.py"), *ROOT.glob("export/engines/*.py")])
assert SOURCES
# Members of some TensorRT class that are everyday Python too, where the code means the latter.
ORDINARY = {"name", "value", "shape", "dtype", "type", "clear", "append", "pop", "get", "keys", "values", "items"}
ORDINARY |= {"extend", "insert", "device", "index", "count", "size", "version", "logger", "layers", "flags", "stride"}
ORDINARY |= {
    "engine",
    "enqueue",
    "kernel",
    "nbytes",
    "INVALID",
    "log",
    "serialize",
    "batch",
    "start",
    "update",
    "refresh",
    "copy",
    "close",
    "free",
    "allocate",
    "precision",
    "write",
    "read",
    "max",
    "weights",  # of a filter
}
REMOVED = {
    "EXPLICIT_BATCH": "gone in TensorRT 11",
    "int8_calibrator": "gone in TensorRT 11",
    "set_dynamic_range": "gone in TensorRT 11",
    "platform_has_fast_fp16": "gone in TensorRT 11",
    "device_memory_size": "gone in TensorRT 11",
    "plugin_creator_list": "gone in TensorRT 11",
    "get_plugin_creator": "gone in TensorRT 11",
    "supports_model": "gone in TensorRT 11",
}


@cache
def members_of(version: str) -> dict[str, list[str]]:
    return tensorrt_bindings.members_of(version)


def known(version: str, kind: str, member: str) -> bool:
    return member in members_of(version).get(kind, ())


@pytest.mark.parametrize("version", VERSIONS)
def test_every_common_name_exists(version):
    lacking = [f"{kind}.{m}" for kind, members in COMMON.items() for m in members if not known(version, kind, m)]
    assert not lacking


@pytest.mark.parametrize("version", VERSIONS)
def test_every_function_of_the_module_exists(version):
    assert set(FUNCTIONS) <= set(members_of(version)[""])


@pytest.mark.parametrize("version", ["10.13", "10.16", "11.4"])
def test_every_name_of_the_plugin_package_exists_where_there_is_one(version):
    code = f"""
import tensorrt, tensorrt.plugin as package
for kind, members in {PLUGIN_PACKAGE!r}.items():
    found = getattr(package, kind) if kind else package
    # Parameters of a launch are made with the object, not with its class.
    made = found() if kind == "KernelLaunchParams" else found
    assert not [member for member in members if not hasattr(made, member)], (kind, members)
    # NVIDIA's package tensorrt takes over what the bindings' __all__ lists, and no more.
    assert not [name for name in ([kind] if kind else members) if name not in package.__all__], (kind, members)
assert all(hasattr(tensorrt, name) for name in ("QuickPluginCreationRequest", "IPluginV3QuickAOTBuild"))
print("checked")
"""
    assert tensorrt_bindings.run(version, code).splitlines()[-1] == "checked"


def test_the_oldest_release_has_no_plugin_package():
    code = "import importlib.util\nprint(importlib.util.find_spec('tensorrt.plugin'))\n"
    assert tensorrt_bindings.run("10.3", code).splitlines()[-1] == "None"


def test_every_optional_name_exists_somewhere_and_lacks_somewhere():
    # A name that all releases have belongs into COMMON; one that none has is a typing mistake.
    for kind, members in OPTIONAL.items():
        for member in members:
            having = [version for version in VERSIONS if known(version, kind, member)]
            assert having, f"{kind}.{member} exists nowhere"
            if (kind, member) != ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"):  # deprecated: its end is near
                assert len(having) < len(VERSIONS), f"{kind}.{member} exists everywhere"


@pytest.mark.parametrize("name", sorted(REMOVED))
def test_the_table_of_removed_names_is_true(name):
    assert any(name in members for members in members_of("10.3").values())
    assert not any(name in members for members in members_of("11.4").values())


def attributes(path: Path) -> set[str]:
    return {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}


def module_chains(path: Path) -> set[tuple[str, str]]:
    """(class, member) of every ``something.module.Class.member``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            kind, origin = node.value.attr, node.value.value
            if "module" in (getattr(origin, "attr", ""), getattr(origin, "id", "")):
                found.add((kind, node.attr))
    return found


def asked(path: Path) -> set[tuple[str, str]]:
    """(class, member) of every ``x.has("Class", "member")``."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return {
        (call.args[0].value, call.args[1].value)
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "has"
        and all(isinstance(argument, ast.Constant) for argument in call.args)
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_tensorrt_name_in_the_source_is_in_a_table(path):
    vocabulary = {m for version in VERSIONS for kind, members in members_of(version).items() if kind for m in members}
    tables = {m for table in (COMMON, OPTIONAL) for members in table.values() for m in members} | set(FUNCTIONS)
    if path.name == "aot.py":  # the one that works with the package
        tables |= {m for members in PLUGIN_PACKAGE.values() for m in members}
    assert sorted(attributes(path) & vocabulary - tables - ORDINARY) == []
    for kind, member in module_chains(path):
        if member != "__init__":
            assert member in (*COMMON.get(kind, ()), *OPTIONAL.get(kind, ())), f"{kind}.{member} is in no table"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_optional_name_in_the_source_is_asked_for_first(path):
    def availability(kind: str, member: str) -> set[str]:
        return {version for version in VERSIONS if known(version, kind, member)}

    common = {m for members in COMMON.values() for m in members}
    for kind, members in OPTIONAL.items():
        for member in set(members) & attributes(path) - common:
            guards = [availability(*guard) for guard in asked(path)]
            assert any(guard <= availability(kind, member) for guard in guards), f"{member}: no has(...) guards it"


def test_a_release_that_lacks_a_name_is_refused_by_name():
    class Module:
        class Builder:
            create_network = None

    assert "Builder.create_builder_config" in missing_names(Module)
    assert "Builder.create_network" not in missing_names(Module)
    assert "Runtime.deserialize_cuda_engine" in missing_names(Module)
