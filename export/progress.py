"""How long work says how far it is."""

from __future__ import annotations

import re
from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


class Stages:
    """One bar for work of several stages, so that its estimate is one of the whole.

    Args:
        progress: Called with the whole.
        plan: Regular expression for a stage's description -> how much of the work it is, in any unit, in the order of
            the work. A stage that is not in it moves nothing.
    """

    def __init__(self, progress: Progress, plan: list[tuple[str, float]]) -> None:
        self._progress, self._plan = progress, plan
        self._at = self._highest = 0
        self._total = max(1, round(sum(units for _, units in plan)))

    def __call__(self, description: str, done: int, total: int) -> None:
        """Take the progress of one stage, which is the present one or a later one."""
        for k in range(self._at, len(self._plan)):
            name, units = self._plan[k]
            if re.search(name, description):
                self._at = k
                before = sum(each for _, each in self._plan[:k])
                reached = round(before + min(1.0, done / max(total, 1)) * units)
                self._highest = max(self._highest, min(reached, self._total))
                break
        self._progress(description, self._highest, self._total)


def whole_export(progress: Progress, images: int, quantiser: int, with_int8: bool, tune_int8: int = 0) -> Progress:
    """The progress of `framegate.export.export.export_bundle`, in images that a network looks at.

    Args:
        progress: Called with the whole.
        images: Test and calibration images.
        quantiser: Images that set the INT8 ranges.
        with_int8: Whether there is an INT8 network.
        tune_int8: Steps of its fine-tuning, each of which looks at 32 images, forwards and back.
    """
    plan: list[tuple[str, float]] = [
        ("prepared|torch", images),
        ("openvino.*fp32", images),
        ("onnxruntime.*fp32", 0.02 * images),
    ]
    if with_int8:
        plan += [
            ("INT8 activation ranges", 1.5 * quantiser),
            ("INT8 activation histograms", 2.5 * quantiser),
            ("INT8: comparing", 1_500),
            ("INT8: fine-tuning", 100 * tune_int8),
            ("openvino.*int8", images),
            ("onnxruntime.*int8", 1.5 * images),
        ]
    return Stages(progress, plan)
