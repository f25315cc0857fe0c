"""A split that cannot fit a score costs this score and not the evaluation."""

from __future__ import annotations

import numpy as np
import pytest

from framegate.evaluation.frames.observations import Observations
from framegate.evaluation.scores.registry import all_scores, fit_scores
from framegate.runtime.errors import CalibrationError


def test_a_network_without_an_error_has_no_logistic_score_and_all_others():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    logits = rng.normal(0, 0.1, (60, 3)) + 4 * np.eye(3)[labels]
    known = logits.astype(np.float32)
    seen = Observations("perfect", known, labels, known, {}, {})
    assert not seen.wrong.any()
    with pytest.raises(CalibrationError, match="errors"):
        fit_scores(all_scores(seen), seen)
    left_out: dict[str, str] = {}
    fitted = fit_scores(all_scores(seen), seen, left_out)
    assert {name.partition("/")[0] for name in left_out} == {"logistic"}
    assert {"entropy", "energy", "fisher/output"} <= set(fitted)
    assert not set(fitted) & set(left_out)
