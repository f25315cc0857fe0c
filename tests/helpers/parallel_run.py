"""How a parallel run (pytest-xdist, `make test`) shares the tests out; its hooks are imported by tests/conftest.py.

The tests of a file run in one worker, one after the other: what they share is made once, and those that measure time
do not disturb each other. Files with slow tests start first, so that none is left over at the end. Tests of several
files that want to be alone among themselves name their group with ``pytest.mark.xdist_group``.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

THREAD_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
COLLECTED_FOLDERS = pytest.StashKey[set[Path]]()
"""The folders that hold tests, before ``-m`` and ``-k`` take tests away."""


def pytest_configure(config: pytest.Config) -> None:
    """Prepare what workers and child processes inherit."""
    if config.getoption("numprocesses", None):
        # Two workers with two threads each wait for one another: several times slower than with one each.
        for name in THREAD_POOLS:
            os.environ.setdefault(name, "1")
    # A shell that runs pytest in the background ignores Ctrl-C for it, and the child processes would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Make a group of every file, and bring those with slow tests to the front."""
    config.stash[COLLECTED_FOLDERS] = {item.path.parent for item in items}
    groups: dict[pytest.Item, str] = {}
    slow: Counter[str] = Counter()
    for item in items:
        named = item.get_closest_marker("xdist_group")
        if named is None:
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(config.rootpath).as_posix()))
        groups[item] = named.args[0] if named else item.path.as_posix()
        slow[groups[item]] += item.get_closest_marker("slow") is not None
    items.sort(key=lambda item: -slow[groups[item]])
