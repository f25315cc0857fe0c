"""How a parallel run (pytest-xdist, `make test`) shares the tests out; its hooks are imported by tests/conftest.py.

The tests of a file run in one worker, one after the other (``--dist loadfile``): what they share is made once, and
those that measure time do not disturb each other. Files with slow tests start first, so that none is left over at the
end.
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
    """Bring files with slow tests to the front."""
    config.stash[COLLECTED_FOLDERS] = {item.path.parent for item in items}
    slow = Counter(item.path for item in items if item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: -slow[item.path])
