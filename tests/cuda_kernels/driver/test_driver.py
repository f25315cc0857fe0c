"""The CUDA layer without a GPU: really without a driver, and over a stub of libcuda.so.1.

PyCUDA is taken if it is installed (``make pycuda`` builds and installs it, and then runs these tests); otherwise a
module with its names that calls the driver through ctypes. FRAMEGATE_PYCUDA=real refuses that module: ``make pycuda``
sets it.

The stub performs copies and one kernel on host memory, so a wrongly packed argument shows as a wrong number and a
captured call as one without effect. It is loaded as the system's driver is, through the loader's search path, which can
only be set before a process starts: hence the child processes.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from repository import HELPERS

from framegate.cuda_kernels.compile.build_pycuda import declared_functions
from framegate.cuda_kernels.compile.compiler import CompilerError, toolkit_root
from framegate.cuda_kernels.driver.checks import check_driver_version, check_launch, host_address, packed
from framegate.cuda_kernels.driver.open import CudaError, open_driver

DRIVERS = ["bindings", "pycuda"]
START = """
import ctypes, sys, threading
import numpy as np
from framegate.cuda_kernels.driver.open import CudaError, open_driver

def scale(gpu, kernel, x, y, factor, count, stream, **more):
    arguments = [ctypes.c_void_p(x), ctypes.c_void_p(y), ctypes.c_float(factor), ctypes.c_int32(count)]
    gpu.launch(kernel, (1, 1, 1), (32, 1, 1), arguments, stream, **more)
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("the stub of libcuda.so.1 needs gcc")
    folder = tmp_path_factory.mktemp("stub")
    source = HELPERS / "stub_libcuda.c"
    rest = folder / "rest.c"
    rest.touch()
    if root := toolkit_root():
        # PyCUDA's extension loads only if every function that it may ever call is there.
        have = set(re.findall(r"^int (cu\w+)\(", source.read_text(), re.MULTILINE))
        missing = sorted(set(declared_functions(root)) - have)
        rest.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in missing))
    for driver, sources in (("bindings", [source]), ("pycuda", [source, rest])):
        (folder / driver).mkdir()
        command = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(folder / driver / "libcuda.so.1")]
        subprocess.run([*command, *map(str, sources), "-ldl"], check=True)
    return folder


@pytest.fixture(scope="module")
def pycuda(stub) -> str:
    """Search path with a PyCUDA that imports over the stub."""
    inherited = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stub / "pycuda")}
    # The compiled part by name: the module that stands in has none.
    probe = [sys.executable, "-c", "import pycuda.driver, pycuda._driver"]
    done = subprocess.run(probe, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return inherited
    assert os.environ.get("FRAMEGATE_PYCUDA") != "real", f"there is no PyCUDA that imports: {done.stderr}"
    return os.pathsep.join(filter(None, (str(HELPERS / "fake_pycuda"), inherited)))


@pytest.fixture
def child(stub, pycuda, tmp_path):
    """Run code in a process that finds the stub driver: child(driver, code, **stub settings) -> (output, calls)."""

    def run(driver: str, code: str, **settings: str) -> tuple[str, list[str]]:
        log = tmp_path / "calls"
        log.unlink(missing_ok=True)
        environment = {**os.environ, "LD_LIBRARY_PATH": str(stub / driver), "STUB_LOG": str(log), **settings}
        if driver == "pycuda":
            environment["PYTHONPATH"] = pycuda
        elif driver == "bindings":
            pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
        command = [sys.executable, "-c", START + code, driver]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout, log.read_text().split() if log.exists() else []

    return run


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_captured_kernel_runs_when_its_graph_is_launched_and_not_before(driver, child):
    output, calls = child(
        driver,
        """
with open_driver(sys.argv[1]) as gpu:
    stream = gpu.create_stream(priority=-1)
    x, result = gpu.allocate(40), gpu.allocate_host(40)
    result.array[:] = 0  # no driver promises zeroed memory
    kernel = gpu.get_function(gpu.load_module(b"IMAGE"), "scale")
    gpu.copy_to_device(x, np.arange(10, dtype=np.float32), stream)
    with gpu.capture(stream) as capture:
        scale(gpu, kernel, x, result.device_pointer, 2.5, 10, stream)
    print(result.array.view(np.float32).sum())
    for _ in range(2):
        gpu.launch_graph(capture.graph, stream)
    gpu.synchronize(stream)
    print(result.array.view(np.float32).sum())
    print(gpu.info.architecture, gpu.info.driver_version, gpu.info.context_flags, gpu.info.l2_bytes)
""",
    )
    assert output.split("\n")[:3] == ["0.0", "112.5", "87 (13, 0) 9 4194304"]
    # The flags must be set before the context is opened.
    assert calls.index("cuDevicePrimaryCtxSetFlags_v2") < calls.index("cuDevicePrimaryCtxRetain")
    begin = calls.index("cuStreamBeginCapture_v2")
    assert calls[begin + 1 : begin + 5] == [
        "cuLaunchKernel",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphDestroy",
    ]
    assert calls.count("cuGraphLaunch") == 2


@pytest.mark.parametrize("driver", DRIVERS)
def test_closing_releases_what_is_left_and_the_context_last(driver, child):
    _, calls = child(
        driver,
        """
gpu = open_driver(sys.argv[1])
stream = gpu.create_stream()
pointer, event = gpu.allocate(8), gpu.create_event()
gpu.allocate_host(8)
gpu.load_module(b"IMAGE")
with gpu.capture(stream) as capture:
    pass
gpu.free(pointer)
try:
    gpu.free(pointer)
except ValueError as error:
    assert "released before" in str(error), error
else:
    raise AssertionError("freed twice")
gpu.close()
gpu.close()
""",
    )
    released = calls[calls.index("cuMemFree_v2") :]
    assert sorted(set(released)) == sorted(
        {
            "cuMemFree_v2",
            "cuGraphExecDestroy",
            "cuModuleUnload",
            "cuMemFreeHost",
            "cuEventDestroy_v2",
            "cuStreamDestroy_v2",
            "cuCtxSetCurrent",
            "cuDevicePrimaryCtxRelease_v2",
        }
    )
    assert len(released) == 8  # each once
    assert released[-1] == "cuDevicePrimaryCtxRelease_v2"


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_context_is_released_although_the_one_before_cannot_be_restored(driver, child):
    """After an illegal address any call may answer with it; a context that is kept keeps the fault for good."""
    _, calls = child(
        driver,
        """
import os
gpu = open_driver(sys.argv[1])
os.environ["STUB_FAIL"] = "cuCtxSetCurrent=700"
try:
    gpu.close()
except CudaError as error:
    assert error.name == "CUDA_ERROR_ILLEGAL_ADDRESS", error
os.environ["STUB_FAIL"] = ""
""",
    )
    assert calls.count("cuDevicePrimaryCtxRetain") == calls.count("cuDevicePrimaryCtxRelease_v2") == 1


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_event_that_the_driver_answers_with_an_unknown_number_is_a_cuda_error(driver, child):
    output, _ = child(
        driver,
        """
with open_driver(sys.argv[1]) as gpu:
    try:
        gpu.event_done(gpu.create_event())
    except CudaError as error:
        print(error)
""",
        STUB_FAIL="cuEventQuery=12345",
    )
    assert output.startswith("looking whether an event was reached: CUDA_ERROR_12345")


def test_a_function_that_a_newer_package_wants_and_the_driver_lacks_is_a_cuda_error(child):
    output, _ = child(
        "bindings",
        """
with open_driver("bindings") as gpu:
    try:
        gpu._call("asking for free memory", "cuMemGetInfo")
    except CudaError as error:
        print(error)
""",
    )
    assert output.startswith("asking for free memory: DRIVER_TOO_OLD")
    assert "cuMemGetInfo" in output


@pytest.mark.parametrize("driver", DRIVERS)
def test_copies_events_and_large_shared_memory(driver, child):
    output, calls = child(
        driver,
        """
with open_driver(sys.argv[1]) as gpu:
    stream = gpu.create_stream()
    x, y, z = gpu.allocate(40), gpu.allocate(40), np.zeros(10, np.float32)
    kernel = gpu.get_function(gpu.load_module(b"IMAGE"), "scale")
    start, end = gpu.create_event(), gpu.create_event()
    gpu.record_event(start, stream)
    gpu.copy_to_device(x, np.ones(10, np.float32), stream)
    scale(gpu, kernel, x, y, -3.0, 10, stream, shared_bytes=64 * 1024)
    gpu.copy_on_device(x, y, 40, stream)
    gpu.copy_to_host(z, x, stream)
    gpu.record_event(end, stream)
    print(z.sum(), gpu.elapsed_ms(start, end))
""",
    )
    assert output.split() == ["-30.0", "1.5"]
    assert calls.index("cuFuncSetAttribute") < calls.index("cuLaunchKernel")
    assert calls.index("cuEventSynchronize") < calls.index("cuEventElapsedTime")


@pytest.mark.parametrize("driver", DRIVERS)
def test_another_thread_makes_the_context_current_first(driver, child):
    output, _ = child(
        driver,
        """
with open_driver(sys.argv[1]) as gpu:
    def work():
        gpu.make_current()
        pointer = gpu.allocate(16)
        gpu.synchronize(gpu.create_stream())
        gpu.free(pointer)
        print("done")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
""",
    )
    assert output.strip() == "done"


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("function", "code", "name", "doing"),
    [
        ("cuMemAlloc_v2", 2, "CUDA_ERROR_OUT_OF_MEMORY", "allocating 4096 bytes of device memory"),
        ("cuMemHostAlloc", 2, "CUDA_ERROR_OUT_OF_MEMORY", "allocating 8 bytes of pinned host memory"),
        ("cuStreamSynchronize", 700, "CUDA_ERROR_ILLEGAL_ADDRESS", "waiting for a stream"),
        ("cuDevicePrimaryCtxRetain", 2, "CUDA_ERROR_OUT_OF_MEMORY", "opening the primary context"),
        ("cuStreamEndCapture", 901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "ending the capture of a graph"),
        ("cuGraphLaunch", 4242, "CUDA_ERROR_4242", "launching a graph"),
    ],
)
def test_every_refusal_has_its_name_its_meaning_and_what_was_being_done(driver, function, code, name, doing, child):
    output, _ = child(
        driver,
        """
try:
    with open_driver(sys.argv[1]) as gpu:
        stream = gpu.create_stream()
        gpu.allocate(4096)
        gpu.allocate_host(8)
        gpu.synchronize(stream)
        with gpu.capture(stream) as capture:
            pass
        gpu.launch_graph(capture.graph, stream)
except CudaError as error:
    assert error.meaning and error.meaning in str(error)
    print(error.name, error.doing, sep="|")
""",
        STUB_FAIL=f"{function}={code}",
    )
    assert output.strip() == f"{name}|{doing}"


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_failing_block_ends_its_capture_and_its_own_error_comes_through(driver, child):
    output, calls = child(
        driver,
        """
with open_driver(sys.argv[1]) as gpu:
    stream = gpu.create_stream()
    for _ in range(2):
        try:
            with gpu.capture(stream):
                raise KeyError("mine")
        except KeyError as error:
            print(error)
""",
    )
    assert output.split() == ["'mine'", "'mine'"]
    assert calls.count("cuStreamEndCapture") == 2
    assert calls.count("cuGraphExecDestroy") == 2


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_context_that_somebody_else_opened_is_used_with_its_flags(driver, child):
    code = "with open_driver(sys.argv[1]) as gpu: print(gpu.info.context_flags)"
    output, _ = child(driver, code, STUB_FAIL="cuDevicePrimaryCtxSetFlags_v2=708")
    assert output.strip() == "0"


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("settings", "name", "words"),
    [
        ({"STUB_VERSION": "11080"}, "DRIVER_TOO_OLD", "CUDA 11.8, framegate needs 12.0: update the NVIDIA driver"),
        ({"STUB_DEVICES": "3"}, "NO_DEVICE", "there are 3 GPUs, counted from 0"),
    ],
)
def test_an_old_driver_and_a_missing_gpu_are_refused_in_words(driver, settings, name, words, child):
    code = """
try:
    open_driver(sys.argv[1], device=3)
except CudaError as error:
    print(error.name, error.meaning, sep="|")
"""
    output, calls = child(driver, code, **settings)
    assert output.startswith(f"{name}|")
    assert words in output
    assert "cuDevicePrimaryCtxRetain" not in calls


@pytest.mark.parametrize("driver", DRIVERS)
def test_wrong_arguments_never_reach_the_driver(driver, child):
    _, calls = child(
        driver,
        """
gpu = open_driver(sys.argv[1])
stream = gpu.create_stream()
array = np.zeros((4, 4), np.float32)
frozen = np.zeros(4)
frozen.flags.writeable = False
wrong = [
    (ValueError, lambda: gpu.allocate(0)),
    (ValueError, lambda: gpu.allocate_host(-1)),
    (ValueError, lambda: gpu.copy_to_device(0, array, stream)),
    (ValueError, lambda: gpu.copy_to_device(256, array[:, ::2], stream)),
    (ValueError, lambda: gpu.copy_to_host(frozen, 256, stream)),
    (ValueError, lambda: gpu.copy_on_device(256, 0, 4, stream)),
    (ValueError, lambda: gpu.launch(0, (1, 1, 1), (1, 1, 1), [], stream)),
    (ValueError, lambda: gpu.launch(8, (0, 1, 1), (1, 1, 1), [], stream)),
    (ValueError, lambda: gpu.launch(8, (1, 1, 1), (2048, 1, 1), [], stream)),
    (TypeError, lambda: gpu.launch(8, (1, 1, 1), (1, 1, 1), [3], stream)),
    (ValueError, lambda: gpu.destroy_stream(12345)),
]
for kind, attempt in wrong:
    try:
        attempt()
    except kind:
        continue
    raise AssertionError(attempt)
""",
    )
    started = calls.index("cuStreamCreateWithPriority")
    # The process ends without closing the driver, which is then closed at exit.
    assert calls[started + 1 :] == ["cuStreamDestroy_v2", "cuCtxSetCurrent", "cuDevicePrimaryCtxRelease_v2"]


def test_auto_goes_on_to_the_next_package_but_a_named_one_never_does(child):
    hide = "sys.modules['cuda'] = None\n"
    output, _ = child("pycuda", hide + "with open_driver() as gpu: print(gpu.name)")
    assert output.strip() == "pycuda"
    code = "try: open_driver('bindings')\nexcept CudaError as error: print(error.name)"
    output, calls = child("pycuda", hide + code)
    assert (output.strip(), calls) == ("NO_PACKAGE", [])


def test_without_a_driver_each_way_says_so():
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has a driver")
    for name in ("auto", *DRIVERS):
        with pytest.raises(CudaError) as caught:
            open_driver(name)
        assert caught.value.name in ("NO_DRIVER", "NO_PACKAGE")
        assert name != "bindings" or "driver" in str(caught.value)


def test_an_unknown_driver_or_device_is_a_wrong_argument():
    with pytest.raises(ValueError, match="'cupy', there are: auto, bindings, pycuda"):
        open_driver("cupy")
    with pytest.raises(ValueError, match="must be >= 0"):
        open_driver(device=-1)


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(CudaError("CUDA_ERROR_X", "what it means", "doing this")))
    assert (error.name, error.meaning, error.doing) == ("CUDA_ERROR_X", "what it means", "doing this")
    assert str(error) == "doing this: CUDA_ERROR_X (what it means)"


def test_the_checks_say_what_is_wrong():
    assert check_driver_version(12060) == (12, 6)
    with pytest.raises(ValueError, match="grid must be three numbers"):
        check_launch(1, (1, 70000, 1), (1, 1, 1), 0)
    with pytest.raises(ValueError, match="shared_bytes"):
        check_launch(1, (1, 1, 1), (1, 1, 1), -1)
    with pytest.raises(ValueError, match="C-contiguous"):
        host_address(np.zeros((2, 2)).T[:1], "copy")
    with pytest.raises(TypeError, match=r"argument 0 must be a ctypes value \(its width matters\), got int"):
        packed([1])


def test_the_driver_functions_are_read_from_the_toolkit(tmp_path):
    root = toolkit_root()
    if root is None:
        pytest.skip("no CUDA toolkit")
    names = declared_functions(root)
    assert {"cuInit", "cuMemAlloc_v2", "cuGraphLaunch", "cuProfilerStart"} <= set(names)
    with pytest.raises(CompilerError):
        declared_functions(tmp_path)
