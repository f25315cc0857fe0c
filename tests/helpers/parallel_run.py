"""How `make test` and `make test-fast` go through the tests; the hooks are imported by tests/conftest.py.

The tests of a file run in one worker, one after the other (``--dist loadfile``): what they share is made once, and
those that measure time do not disturb each other. Groups of several files (``--dist loadgroup``) would do so, too, but
xdist 3.8 does not see its groups under pytest 9.2. Files that take longest start first, so that none is left over at
the end.

A fast run (``-m "not slow and not long"``) leaves out what tests/slow_tests.txt lists or what uses something that takes
seconds to make, and takes the first cases of every test that has many. ``pytest --note-slow`` writes the list anew.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.assertion.rewrite import PYC_TAIL
from _pytest.pathlib import ImportMode, import_path
from forked_command import THREAD_POOLS

TESTS = Path(__file__).resolve().parents[1]
SLOW_TESTS = TESTS / "slow_tests.txt"
SLOW_S = 0.3
"""What takes longer than this is listed as slow."""
FAST_CASES = 3
"""So many cases of a test are in a fast run."""
SLOW_FIXTURES = frozenset(
    (
        *("classifier", "deployed", "graph", "int8_graph", "half", "exported"),  # networks, exported
        *("trained", "bundle_path", "monitored", "written"),  # a network, trained; a report
        *("sdist", "wheel", "environment"),
        *("client", "demo", "page", "start_demo"),  # a demo, a browser
        *("child", "copied", "emulate"),  # processes of their own, a compiler
    )
)
"""Things for tests that take a second or more to make."""
LONGEST = (
    "camera_demo/test_demo.py",
    "evaluation/gate/test_gate.py",
    "test_readme.py",
    "evaluation/test_command_evaluate.py",
    "runtime/handover/test_state_machine.py",
    "models/training/test_loop.py",
    "runtime/cli/test_hostile_text.py",
    "benchmarks/latency/test_bench.py",
    "runtime/cli/test_cli.py",
    "camera_demo/test_web_limits.py",
    "benchmarks/latency/test_rivals.py",
    "runtime/health/test_rows.py",
    "export/graph/test_graph.py",
    "runtime/cli/test_recordings_survive.py",
    "runtime/policy/test_wiring.py",
    "evaluation/frames/test_network.py",
    "runtime/handover/test_transports.py",
    "camera_demo/test_page.py",
    "runtime/cli/test_signals.py",
    "runtime/test_cameras.py",
    "evaluation/report/test_report.py",
    "camera_demo/test_own_file.py",
    "export/engines/test_build.py",
    "camera_demo/test_switched_source.py",
    "benchmarks/gpu/test_suite.py",
    "runtime/backends/tensorrt/test_plugin.py",
    "cuda_kernels/compile/test_build.py",
    "export/graph/test_reach.py",
    "runtime/sources/test_http.py",
    "cuda_kernels/driver/test_driver.py",
    "test_layers.py",
    "benchmarks/cost/test_faults.py",
    "test_wheel.py",
    "runtime/backends/tensorrt/test_backend.py",
    "evaluation/monitor/test_no_gradient.py",
    "camera_demo/test_shipped_hour.py",
    "export/test_export.py",
    "test_shipped_bundle.py",
)
"""Files below tests/ that take ten seconds and more, in this order."""
COLLECTED_FOLDERS = pytest.StashKey[set[Path]]()
"""The folders that hold tests, before ``-m`` and ``-k`` take tests away."""
_taken_s: defaultdict[str, float] = defaultdict(float)
"""Test, without the case in brackets, to the seconds of its longest case."""
_case_s: defaultdict[str, float] = defaultdict(float)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that makes the list of slow tests."""
    parser.addoption("--note-slow", action="store_true", help=f"write {SLOW_TESTS.name}, from a run of all tests")


def pytest_configure(config: pytest.Config) -> None:
    """Prepare what workers and child processes inherit."""
    if config.getoption("numprocesses", None):
        # Two workers with two threads each wait for one another: several times slower than with one each.
        for name in THREAD_POOLS:
            os.environ.setdefault(name, "1")
        # Several hundred tests start a Python of their own. Without bytecode on the disk each compiles framegate anew.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if "FRAMEGATE_COMPILED" not in os.environ:  # workers have it from the process that starts them
        folder = tempfile.mkdtemp(prefix="framegate-compiled-")
        os.environ["FRAMEGATE_COMPILED"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    # A shell that runs pytest in the background ignores Ctrl-C for it, and the child processes would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """For ``-n auto`` half as many again as there are cores: much of the time tests wait, for cameras and processes."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ or is_fast_run(config):  # quick tests do not wait
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + cores // 2


def listed_as_slow() -> set[str]:
    """The tests in the list, without their cases; and files, all of whose tests need the same slow thing."""
    return set(SLOW_TESTS.read_text(encoding="utf-8").split())


def without_case(nodeid: str) -> str:
    """The test that a case belongs to."""
    return nodeid.partition("[")[0]


def is_fast_run(config: pytest.Config) -> bool:
    """Whether slow tests are left out."""
    return "not slow" in config.getoption("markexpr", "")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect without the garbage collector, which would look at every test again and again; nor later."""
    gc.disable()
    try:
        _import_own_share(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is slow; bring the longest files to the front; in a fast run leave out what is not for one."""
    config.stash[COLLECTED_FOLDERS] = {item.path.parent for item in items}
    listed = listed_as_slow()
    for item in items:
        named = {without_case(item.nodeid), item.nodeid.partition("::")[0]} & listed
        if named or SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    slow = Counter(item.path for item in items if item.get_closest_marker("slow") is not None)
    place = {TESTS / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (place.get(item.path, len(place)), -slow[item.path]))
    if is_fast_run(config):
        _leave_out_further_cases(config, items)


def _import_own_share(config: pytest.Config) -> None:
    """Import what the other workers do not import first: each file is then compiled by one of them, for all.

    In a fresh clone compiling takes a worker longer than everything else before the first test. It is left to pytest
    where it was done before, and where some files are asked for by name.
    """
    worker = getattr(config, "workerinput", None)
    if worker is None or sys.dont_write_bytecode or [Path(argument).resolve() for argument in config.args] != [TESTS]:
        return
    files = sorted(TESTS.rglob("test_*.py"))[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]
    for path in files:
        if (path.parent / "__pycache__" / (path.stem + PYC_TAIL)).exists():
            continue
        try:
            import_path(path, mode=ImportMode.importlib, root=config.rootpath, consider_namespace_packages=False)
        except BaseException as error:
            # A package that is missing, or a fault: pytest meets it again, and says so in the right place.
            for name in [name for name, module in sys.modules.items() if getattr(module, "__file__", "") == str(path)]:
                del sys.modules[name]
            if isinstance(error, KeyboardInterrupt):
                raise


def _leave_out_further_cases(config: pytest.Config, items: list[pytest.Item]) -> None:
    cases: Counter[str] = Counter()
    kept, left_out = [], []
    for item in items:
        cases[without_case(item.nodeid)] += 1
        (kept if cases[without_case(item.nodeid)] <= FAST_CASES else left_out).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how long every case takes with its preparation."""
    _case_s[report.nodeid] += report.duration
    test = without_case(report.nodeid)
    _taken_s[test] = max(_taken_s[test], _case_s[report.nodeid])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the list, if that was asked for."""
    if session.config.getoption("--note-slow") and "PYTEST_XDIST_WORKER" not in os.environ:
        files = {name for name in listed_as_slow() if "::" not in name}
        slow = {test for test, seconds in _taken_s.items() if seconds > SLOW_S and test.partition("::")[0] not in files}
        SLOW_TESTS.write_text("".join(f"{name}\n" for name in sorted(slow | files)), encoding="utf-8")
