"""ONNX Runtime on one thread where a graph is run beside an engine, during an export or to look into it.

Left alone it takes all processors, and its threads spin between two runs: beside other workers of the tests each waits
for the others. Engines of the runtime choose their threads themselves, and are left to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnxruntime
import pytest

from framegate.export.graph import session


@pytest.fixture(scope="session", autouse=True)
def graphs_run_on_one_thread() -> Iterator[None]:
    begin, quiet_options = onnxruntime.InferenceSession.__init__, session.quiet_options

    def one(options: onnxruntime.SessionOptions) -> onnxruntime.SessionOptions:
        options.intra_op_num_threads = 1
        return options

    def begun(self: Any, source: Any, sess_options: Any = None, *more: Any, **named: Any) -> None:
        begin(self, source, sess_options or one(onnxruntime.SessionOptions()), *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime.InferenceSession, "__init__", begun)
        patch.setattr(session, "quiet_options", lambda: one(quiet_options()))
        yield
