"""Every hard fault, injected into a real clip on its way through a pipeline: no ACCEPT gets through."""

from __future__ import annotations

import pytest
from repository import ROOT

from framegate.runtime import Pipeline, Prediction, Reason, Session, open_source
from framegate.runtime.faults.inject import FaultInjector, parse_faults
from framegate.runtime.roi import parse_rois

CLIP = ROOT / "camera_demo" / "clips" / "highway_1280x720_25fps.mp4"
BUNDLE = ROOT / "models" / "bundles" / "hybrid-cifar10.bundle"
CARS = ("black-car=795,385,160,130", "white-car=1000,370,270,160")
REASONS = {
    "black": {Reason.BLACK},
    "freeze": {Reason.FROZEN},
    # At its strongest, the noise and the codec that the stuck picture goes through hide the repetition now and then.
    "stuck": {Reason.FROZEN, Reason.NOISY},
    "saturated": {Reason.SATURATED},
    "torn": {Reason.TORN},
    "half": {Reason.TORN},
    "size": {Reason.WRONG_SIZE},
    "grey16": {Reason.BAD_INPUT},
}
FIRST = {kind: 14 + 3 * index for index, kind in enumerate(REASONS)}
"""Each fault lasts two frames; the third is healthy again."""
WITHOUT_SEVERITY = {"black", "freeze", "size", "grey16"}


@pytest.fixture(scope="module", params=[1, 5])
def verdicts(request: pytest.FixtureRequest) -> dict[int, list[Prediction]]:
    """All faults in one run of the clip, at the weakest and at the strongest severity."""
    text = ",".join(
        f"{kind}:{first}-{first + 1}" + ("" if kind in WITHOUT_SEVERITY else f":{request.param}")
        for kind, first in FIRST.items()
    )
    session = Session.open(BUNDLE, "onnxruntime", "fp32", threads=1)
    source = FaultInjector(open_source(str(CLIP), realtime=False), parse_faults(text))
    by_frame: dict[int, list[Prediction]] = {}
    with Pipeline(source, session, rois=parse_rois(list(CARS)), lossless=True) as pipeline:
        for prediction in pipeline:
            by_frame.setdefault(prediction.frame_id, []).append(prediction)
    return by_frame


@pytest.mark.parametrize("kind", REASONS)
def test_no_accept_gets_through_under_fault(verdicts: dict[int, list[Prediction]], kind: str) -> None:
    for frame in (FIRST[kind], FIRST[kind] + 1):
        assert len(verdicts[frame]) == len(CARS)
        for prediction in verdicts[frame]:
            assert not prediction.accepted
            assert REASONS[kind] & set(prediction.reasons)


def test_frames_between_the_faults_are_accepted(verdicts: dict[int, list[Prediction]]) -> None:
    # Without this the tests above would pass on a clip that is never accepted.
    faulty = {frame for first in FIRST.values() for frame in (first, first + 1)}
    assert len(verdicts) == 38
    for frame, predictions in verdicts.items():
        if frame not in faulty:
            assert [prediction.candidate for prediction in predictions if prediction.accepted] == ["automobile"] * 2
