from __future__ import annotations

import pytest

from framegate.benchmarks import bounds_reach


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["hybrid-gtsrb", "--budget", "patch:5"], "interval bounds are for changes of all pixels"),
        (["hybrid-gtsrb", "--budget", "linf:2/255", "--frames", "168"], "expected more than 168 frames"),
        (["simplecnn-cifar10", "--budget", "linf:2/255"], "framegate certify"),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(given, said, tmp_path, capsys):
    assert bounds_reach.main([*given, "--data", str(tmp_path), "--out", str(tmp_path / "found.json")]) != 0
    assert said in capsys.readouterr().err
