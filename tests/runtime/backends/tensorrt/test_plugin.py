"""The plugin in the hands of TensorRT's real bindings, release by release, as far as they go without the libraries.

What runs here for real: the classes that are derived from the bindings' own, the registry's calls through C++ and back,
and NVIDIA's own Python code around a plugin that is compiled ahead of time, from its registration to the launch
parameters and the kernel. Stand-ins are the expressions for dimensions, which only a builder makes. What cannot run
without the libraries and a GPU: a builder that calls all this, and the plan that comes out of it.
"""

from __future__ import annotations

import json
import re
import sys
from types import ModuleType

import pytest
import tensorrt_bindings

from framegate.cuda_kernels.compile.compiler import Nvcc
from framegate.runtime.backends.tensorrt import plugin as tensorrt_plugin
from framegate.runtime.backends.tensorrt.library import TensorRt, load_tensorrt
from framegate.runtime.errors import BackendError

RELEASES = ("10.3", "10.7", "10.13", "10.16", "11.4")
AHEAD = RELEASES[2:]  # 10.7 has the package for plugins, without what compiles them ahead of time

START = """
import json
from types import SimpleNamespace
import tensorrt as trt
from framegate.runtime.backends.tensorrt import plugin as tensorrt_plugin
from framegate.runtime.errors import BackendError
from framegate.runtime.backends.tensorrt.library import TensorRt
flavour = TensorRt("tensorrt", trt, trt.__version__)
calls, kept = [], []

class Kernels:
    def __init__(self, gpu, source):
        self.gpu, self.source = gpu, source
    def call(self, *launch):
        calls.append([getattr(part, "value", part) if not isinstance(part, list) else [p.value for p in part]
                      for part in launch])

tensorrt_plugin.Kernels = Kernels
registry = tensorrt_plugin.plugin_registry(flavour)
found = lambda: registry.get_creator("SoftmaxEntropy", "1", "framegate")

def described(shape):
    one, many = trt.PluginTensorDesc(), trt.DynamicPluginTensorDesc()
    one.dims, one.type, one.format = trt.Dims(shape), trt.DataType.FLOAT, trt.TensorFormat.LINEAR
    many.desc = one
    kept.extend([one, many])
    return one, many
"""


def run(release: str, code: str) -> str:
    return tensorrt_bindings.run(release, START + code)


@pytest.mark.parametrize("release", RELEASES)
def test_the_plugin_of_this_process_does_what_tensorrt_asks_of_it(release):
    output = run(
        release,
        """
creator = tensorrt_plugin.register_plugin(flavour, "gpu")
assert (creator.name, creator.plugin_namespace, creator.plugin_version) == ("SoftmaxEntropy", "framegate", "1")
plugin = creator.create_plugin("scores", trt.PluginFieldCollection([]), trt.TensorRTPhase.RUNTIME)
other = plugin.clone()
kept.extend([plugin, other, other.attach_to_context(None)])
for one in kept[:3]:
    assert isinstance(one, (trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime))
    names = one.plugin_name, one.plugin_namespace, one.plugin_version, one.num_outputs
    assert names == ("SoftmaxEntropy", "framegate", "1", 4), names
    for kind in ("CORE", "BUILD", "RUNTIME"):
        assert one.get_capability_interface(getattr(trt.PluginCapabilityType, kind)) is one
    assert one.get_output_data_types([trt.DataType.FLOAT] * 2) == [trt.DataType.FLOAT] * 4
    assert one.get_workspace_size([], []) == 0 and len(one.get_fields_to_serialize()) == 0
    one.set_tactic(0)
    one.on_shape_change([], [])
one, many = described((17, 1000))
plugin.configure_plugin([many, many], [many] * 4)
assert all(plugin.supports_format_combination(i, [many] * 6, 2) for i in range(6))
one.type = trt.DataType.HALF
many.desc = one
assert not plugin.supports_format_combination(0, [many] * 6, 2)
other.enqueue([one, one], [one] * 4, [256, 512], [1024, 2048, 3072, 4096], 0, 77)
other._module = SimpleNamespace(DimsExprs=list)  # its elements come from a builder only
shapes = other.get_output_shapes([["N", 1000], [1]], [], SimpleNamespace(constant=lambda value: value))
assert shapes == [["N", 1000], ["N", 1], ["N", 1], ["N", 1]], shapes
_, large = described((1, 70000))
try:
    plugin.configure_plugin([large, large], [large] * 4)
except ValueError as error:
    assert "found 70000" in str(error)
else:
    raise AssertionError("70000 classes were taken")
print(json.dumps(calls))
""",
    )
    (launch,) = json.loads(output.splitlines()[-1])
    assert launch == [
        "softmax_entropy_plugin_warp",
        [5, 1, 1],
        [128, 1, 1],
        [256, 512, 17, 1000, 1024, 2048, 3072, 4096],
        77,
    ]


@pytest.mark.parametrize("release", RELEASES)
def test_the_plugin_is_registered_when_it_is_wanted_and_only_then(release):
    run(
        release,
        """
assert found() is None
creator = tensorrt_plugin.register_plugin(flavour, "first GPU")
assert found() is creator and creator.kernels.gpu == "first GPU"
made = creator.create_plugin("scores", trt.PluginFieldCollection([]), trt.TensorRTPhase.RUNTIME)
kept.append(made)
again = tensorrt_plugin.register_plugin(flavour, "second GPU")  # a second engine, or the same one opened anew
assert again is creator and found() is creator
assert made._kernels.gpu == "first GPU" and creator.kernels.gpu == "second GPU"
tensorrt_plugin.deregister_plugin(flavour, creator)
assert found() is None
assert tensorrt_plugin.register_plugin(flavour, "third GPU") is creator and found() is creator
""",
    )


def test_a_registry_that_refuses_or_loses_the_plugin_is_told_by_name():
    run(
        "10.3",
        """
def refused(registry, words):
    trt.get_plugin_registry = lambda: registry
    tensorrt_plugin._registered.clear()
    try:
        tensorrt_plugin.register_plugin(flavour, "gpu")
    except BackendError as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)

refused(None, "no plugin registry")
refused(SimpleNamespace(register_creator=lambda *_: False), "another one of that name")
refused(SimpleNamespace(register_creator=lambda *_: True, get_creator=lambda *_: None), "did not register the plugin")
""",
    )


AOT = """
from framegate.export.engines import aot as engine_aot
import tensorrt.plugin as package
from tensorrt.plugin import _tensor
assert flavour.plugin_package() is package

class Expression(trt.IDimensionExpr):  # what only a builder makes; these carry a number
    def __init__(self):
        raise AssertionError
    def is_constant(self):
        return self.constant
    def get_constant_value(self):
        return self.value

def expression(value, constant=True):
    made = Expression.__new__(Expression)  # the bindings have no constructor
    made.value, made.constant = value, constant
    return made

class Builder:
    def constant(self, value):
        return expression(value)
    def operation(self, kind, a, b):
        does = {"SUM": a.value + b.value, "CEIL_DIV": -(-a.value // b.value) if b.value else None}[kind.name]
        return expression(does, a.constant and b.constant)

trt.DimsExprs = lambda count: [None] * count
_tensor.SymExprImpl = lambda expr: (expr._expr.value, type(expr).__name__)

def driven(rows, classes):
    \"\"\"What TensorRT does with a node of the network, in its order.\"\"\"
    creator = found()
    assert creator.plugin_namespace == "framegate" and creator.plugin_version == "1"
    plugin = creator.create_plugin("SoftmaxEntropy", "framegate", trt.PluginFieldCollection([]),
                                   trt.TensorRTPhase.BUILD, trt.QuickPluginCreationRequest.PREFER_AOT)
    kept.append(plugin)
    assert plugin.get_num_outputs() == 4
    assert plugin.get_output_data_types([trt.DataType.FLOAT] * 2, [2, 1]) == [trt.DataType.FLOAT] * 4
    inputs = [[expression(rows, False), expression(classes)], [expression(1)]]
    shapes = plugin.get_output_shapes(inputs, [], Builder())
    assert [[side.value for side in shape] for shape in shapes] == [[rows, classes], [rows, 1], [rows, 1], [rows, 1]]
    io = [described(shape)[1] for shape in ((rows, classes), (1,), (rows, classes), (rows, 1), (rows, 1), (rows, 1))]
    combination = plugin.get_supported_format_combinations(io, 2)
    assert [(c.type, c.format) for c in combination] == [(trt.DataType.FLOAT, trt.TensorFormat.LINEAR)] * 6
    plugin.configure_plugin(io[:2], io[2:])
    assert plugin.get_valid_tactics() == []
    plugin.set_tactic(0)
    # Types are asked for again between two shapes, when the builder of the first is gone.
    assert plugin.get_output_data_types([trt.DataType.FLOAT] * 2, [2, 1]) == [trt.DataType.FLOAT] * 4
    launch, integers = SimpleNamespace(), {}
    class Setter(dict):
        pass
    setter = Setter()
    plugin.get_launch_params(inputs, io, 2, launch, setter, Builder())
    clone = plugin.clone()
    kept.append(clone)
    name, ptx = clone.get_kernel([d.desc for d in io[:2]], [d.desc for d in io[2:]])
    assert setter.nbSymExprs == 2
    return name, ptx.decode(), {k: v[0] for k, v in vars(launch).items()}, [setter[0], setter[1]]

results = []
for ptx, rows, classes in ((b"one", 1, 10), (b"two", 8, 1000), (b"three", 3, 5000)):
    assert found() is None
    with engine_aot.ahead_of_time_plugin(flavour, package, ptx):
        results.append(driven(rows, classes))
assert found() is None
print(json.dumps(results))
"""


@pytest.mark.parametrize("release", AHEAD)
def test_nvidias_own_code_takes_name_ptx_grid_and_integers_from_the_plugin(release):
    results = json.loads(run(release, AOT).splitlines()[-1])
    common = {"grid_y": 1, "grid_z": 1, "block_y": 1, "block_z": 1, "shared_mem": 0}
    for (name, ptx, launch, integers), wanted in zip(
        results,
        (("lanes8", "one", 1, 128, 1, 10), ("warp", "two", 2, 128, 8, 1000), ("block", "three", 3, 512, 3, 5000)),
        strict=True,
    ):
        layout, text, grid, block, rows, classes = wanted
        assert (name, ptx) == (f"softmax_entropy_plugin_{layout}", text)
        assert launch == {"grid_x": grid, "block_x": block, **common}
        # 32-bit integers between inputs and outputs: plugin_launch.PARAMETERS, which the PTX is held against.
        assert integers == [[rows, "SymInt32"], [classes, "SymInt32"]]


@pytest.mark.parametrize("release", AHEAD)
def test_two_definitions_of_one_plugin_do_not_meet(release):
    run(
        release,
        """
from framegate.export.engines import aot as engine_aot
creator = tensorrt_plugin.register_plugin(flavour, "gpu")  # an engine that was built without PTX is open
try:
    with engine_aot.ahead_of_time_plugin(flavour, flavour.plugin_package(), b""):
        raise AssertionError("entered")
except BackendError as error:
    assert "another plugin framegate::SoftmaxEntropy is registered" in str(error)
tensorrt_plugin.deregister_plugin(flavour, creator)
""",
    )


@pytest.mark.parametrize("release", RELEASES)
def test_the_kind_of_plugin_follows_from_what_the_release_has(release):
    output = run(release, "print('kind', flavour.takes_plugins(), flavour.plugin_package() is not None)\n")
    assert output.splitlines()[-1] == f"kind True {release in AHEAD}"
    # The package announces itself on standard output, where --json prints.
    assert [line for line in output.splitlines() if "TRT" in line] == []


def test_a_logger_outlives_what_was_made_with_it():
    """The plugin registry logs to the process's first logger, also when the build that brought it is over."""
    run(
        "11.4",
        """
import gc, weakref
native = weakref.ref(flavour.logger().native)
gc.collect()
assert native() is not None
""",
    )


def test_rtx_takes_no_plugin_and_says_so():
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    trt = load_tensorrt("tensorrt-rtx")
    assert not trt.takes_plugins()
    assert trt.plugin_package() is None
    with pytest.raises(BackendError, match=r"tensorrt-rtx .* takes no plugins"):
        tensorrt_plugin.register_plugin(trt, None)


def test_a_release_without_the_package_has_no_plugin_ahead_of_time(monkeypatch):
    class Module:
        class INetworkDefinition:
            add_plugin_v3 = None

        class QuickPluginCreationRequest:
            PREFER_AOT = None

    monkeypatch.setitem(sys.modules, "tensorrt.plugin", None)
    assert TensorRt("tensorrt", Module(), "10.9.0").plugin_package() is None
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", ModuleType("plugin"))  # 10.7 has it without aot_impl
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    assert TensorRt("tensorrt", Module(), "10.9.0").plugin_package() is None


@pytest.mark.skipif(Nvcc.find() is None, reason="nvcc is not installed")
@pytest.mark.parametrize("release", AHEAD[-1:])
def test_the_ptx_that_goes_into_an_engine_has_the_kernel_that_is_named(release, tmp_path):
    output = run(
        release,
        AOT.replace('(b"one", 1, 10), (b"two", 8, 1000), (b"three", 3, 5000)', "(real, 1, 10),").replace(
            "results = []",
            "from pathlib import Path\nfrom framegate.cuda_kernels.compile.compiler import Nvcc\n"
            "from framegate.cuda_kernels.compile.ptx import load_ptx\n"
            f"real = load_ptx('softmax_entropy_plugin', 87, Nvcc.find().release, cache=Path({str(tmp_path)!r}))\n"
            "results = []",
        ),
    )
    ((name, ptx, _, integers),) = json.loads(output.splitlines()[-1])
    entry = re.search(rf"\.visible \.entry {name}\(([^)]*)\)", ptx)
    assert entry is not None
    # What TensorRT passes: the addresses of two inputs, the integers, the addresses of four outputs.
    passed = ["u64"] * 2 + ["u32" for _, kind in integers if kind == "SymInt32"] + ["u64"] * 4
    assert re.findall(r"\.param \.(\w+)", entry[1]) == passed
