"""The fast path of an ordinary frame says what the way step by step says, whatever the frame and the engine do."""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from framegate.runtime import Bundle, Reason, Roi, Session, native
from framegate.runtime import frame_judge as module
from framegate.runtime.backends.base import CpuBackend
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.calibration import Limit
from framegate.runtime.health.check import CameraHealth
from framegate.runtime.native import fast_path_module
from framegate.runtime.native.fast_path import FastPath
from framegate.runtime.policy.debounce import Debounce
from framegate.runtime.policy.stream import Policy
from framegate.runtime.verdict import NV12, Frame

pytestmark = pytest.mark.skipif(fast_path_module() is None, reason="no compiled module for this Python")
SHIPPED = Path(__file__).parents[2] / "models" / "bundles" / "simplecnn-cifar10.bundle"
WHOLE = (Roi.whole(),)
SIZE = 240, 320
TIMES = {"decided_ns", "captured_ns", "valid_until_ns", "latency_ms", "engine_ms"}


class Scripted(CpuBackend):
    """An engine that writes what it is told into the same array again and again.

    Args:
        inner: A real one, for the known answers and the warm-up.
    """

    def __init__(self, inner):
        self._inner, self._output, self.script = inner, None, None
        self.name, self.engine, self.classes, self.pooled = inner.name, inner.engine, inner.classes, None

    def bind(self, tensor):
        self._inner.bind(tensor)

    def finish(self):
        logits = self._inner.finish() if self.script is None else self.script()
        if self._output is None:
            self._output = np.array(logits)
        self._output[:] = logits
        return self._output


def session_of(bundle_path, limits=(), probabilities=False, **changes):
    """A session whose engine can be scripted."""
    bundle = Bundle.open(bundle_path)
    calibration = bundle.calibration("onnxruntime", "fp32")
    engine = Scripted(load_backend("onnxruntime", bundle.model_path("fp32"), 1))
    changed = replace(calibration, limits=tuple(limits), **changes)
    return Session(bundle, engine, "fp32", changed, probabilities=probabilities), engine


@pytest.fixture
def ways(monkeypatch):
    """Judge a stream on the fast path, and step by step: ways(make, frames) -> both lists of predictions.

    make() gives a session and its engine, frames(engine) the frames one by one.
    """
    begun = []
    begin, bind = FastPath.begin, module.fast_path_for

    def counted(self, frame):
        begun.append(begin(self, frame))
        return begun[-1]

    monkeypatch.setattr(FastPath, "begin", counted)

    def judge(make, frames, least, rois=WHOLE, policy=None, deadline_ms=None, apart=None):
        found = []
        for fast_path_for in (bind, lambda *_: None):
            monkeypatch.setattr(module, "fast_path_for", fast_path_for)
            begun.clear()
            session, engine = make()
            health = session.camera_health()
            health.prepare()
            streams = tuple(session.stream_policy(policy, sequence=True) for _ in rois)
            said = [
                session.frame_judge.judge(frame, rois, health, deadline_ms and deadline_ms * 10**6, streams)
                for frame in frames(engine)
            ]
            health.close()
            if fast_path_for is bind:
                assert sum(begun) >= least, "the fast path was hardly taken"
            else:
                assert not begun
            found.append([p for each in said for p in each])
        for fast, steps in zip(*found, strict=True):
            if fast.frame_id == apart:  # whether the camera check saw what was written later is a race
                continue
            assert same(fast.to_json(), steps.to_json()), (fast, steps)
            assert fast.found_reasons == steps.found_reasons
            assert fast.signals == steps.signals
            assert type(fast.candidate_id) is int
        return found[0]

    return judge


def same(one, other):
    """Whether two verdicts differ in nothing but their times, one of which a sentence may name."""
    assert one.keys() == other.keys()
    one, other = ({**each, "detail": re.sub(r"\d{9,}", "a time", each["detail"] or "")} for each in (one, other))
    return all(name in TIMES or one[name] == other[name] for name in one)


def stream(images, **changes):
    """Frames of these images, numbered, captured now."""
    for number, image in enumerate(images):
        yield Frame(number, time.monotonic_ns(), image, **changes)


def test_a_good_stream_is_accepted_on_both_ways(ways, tiny_bundle, blue_scene):
    found = ways(lambda: session_of(tiny_bundle), lambda _: stream(map(blue_scene, range(60))), least=20)
    assert {Reason.HIGH_SCORE} >= {reason for each in found for reason in each.decided_reasons}


def test_the_shipped_network_with_its_monitor_says_the_same_on_both_ways(ways, blue_scene):
    def make():
        return Session.open(SHIPPED, "openvino", "fp32", 1), None

    found = ways(make, lambda _: stream(map(blue_scene, range(50))), least=10)
    assert all("shift" in each.signals for each in found)


def strange_frames(blue_scene):
    """A stream on which everything goes wrong that a camera can do wrong."""
    images = [blue_scene(k) for k in range(80)]
    for k in (40, 41):
        images[k] = np.zeros_like(images[k])
    images[44] = np.full_like(images[44], 255)
    for k in range(47, 52):
        images[k] = images[46]
    images[55] = images[54].copy()
    images[55][:128] = images[53][:128]
    images[58] = images[58][:200]
    images[59] = images[59][:, ::-1]
    images[60] = images[60].astype(np.float32)
    images[61] = np.ascontiguousarray(images[61][..., 0])
    images[62] = np.asfortranarray(images[62])
    images[63] = "no picture"
    for frame in stream(images):
        if frame.frame_id == 65:
            yield replace(frame, captured_ns=frame.captured_ns - 10**10)
        elif frame.frame_id == 66:
            yield replace(frame, captured_ns=frame.captured_ns + 10**12)
        elif frame.frame_id == 67:
            yield replace(frame, frame_id=math.nan)
        elif frame.frame_id == 68:
            yield replace(frame, frame_id=12)
        elif frame.frame_id == 70:
            yield replace(frame, image=np.full((SIZE[0] * 3 // 2, SIZE[1]), 128, np.uint8), pixel_format=NV12)
        elif frame.frame_id in (71, 78):
            yield replace(frame, pixel_format="RGBX")
        else:
            yield frame


def test_whatever_a_camera_does_is_seen_on_both_ways(ways, tiny_bundle, blue_scene):
    found = ways(lambda: session_of(tiny_bundle), lambda _: strange_frames(blue_scene), least=20)
    by_number = [set(each.decided_reasons) for each in found]
    assert Reason.BLACK in by_number[40]
    assert Reason.SATURATED in by_number[44]
    assert Reason.FROZEN in by_number[48]
    assert Reason.WRONG_SIZE in by_number[58]
    assert Reason.BAD_INPUT in by_number[60]
    assert Reason.BAD_INPUT in by_number[63]
    assert Reason.STALE_FRAME in by_number[65]
    assert Reason.STALE_FRAME in by_number[68]


def test_numbers_at_and_beyond_their_limits_are_judged_alike(ways, tiny_bundle, blue_scene):
    limits = [Limit("energy", low=-7.0), Limit("margin", low=0.05, high=0.9), Limit("max_probability", high=0.5)]
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30]

    def frames(engine):
        rng = np.random.default_rng(3)

        def script():
            logits = rng.normal(0, 4, (1, engine.classes)).astype(np.float32)
            if rng.random() < 0.2:
                logits[0, rng.integers(engine.classes)] = rng.choice(special)
            return logits

        for frame in stream(map(blue_scene, range(160))):
            engine.script = script if frame.frame_id >= 40 else None
            yield frame

    found = ways(lambda: session_of(tiny_bundle, limits, score="margin", threshold=0.4), frames, least=100)
    seen = {reason for each in found for reason in each.decided_reasons}
    assert {Reason.HIGH_SCORE, Reason.ACTIVATION_SHIFT, Reason.NOT_FINITE} <= seen
    assert any(each.accepted_when_decided for each in found)


@pytest.mark.parametrize("score", ["entropy", "max_probability", "margin", "energy"])
def test_a_score_exactly_at_its_threshold_is_accepted_and_the_next_number_is_not(ways, tiny_bundle, score, blue_scene):
    def frames(engine):
        for frame in stream(map(blue_scene, range(60))):
            engine.script = None if frame.frame_id < 59 else lambda: np.full((1, engine.classes), 0.5, np.float32)
            yield frame

    at = ways(lambda: session_of(tiny_bundle, score=score), frames, least=10)[-1].score
    accepted = ways(lambda: session_of(tiny_bundle, score=score, threshold=at), frames, least=10)[-1]
    rejected = ways(
        lambda: session_of(tiny_bundle, score=score, threshold=math.nextafter(at, -math.inf)), frames, least=10
    )[-1]
    assert accepted.found_reasons == ()
    assert rejected.found_reasons == (Reason.HIGH_SCORE,)


def test_fault_an_engine_that_raises_gets_stuck_or_gives_nothing_finite(ways, tiny_bundle, blue_scene):
    def frames(engine):
        def fail():
            raise RuntimeError("the device is gone")

        for frame in stream(map(blue_scene, range(70))):
            engine.script = {
                45: fail,
                48: lambda: np.full((1, engine.classes), np.nan, np.float32),
                50: lambda: np.zeros((1, engine.classes), np.float32),
                51: lambda: np.zeros((1, engine.classes), np.float32),
                52: lambda: np.zeros((1, engine.classes), np.float32),
            }.get(frame.frame_id)
            yield frame

    found = ways(lambda: session_of(tiny_bundle), frames, least=20)
    assert found[45].decided_reasons[:1] == (Reason.BACKEND_FAULT,)
    assert "the device is gone" in found[45].detail
    assert Reason.BACKEND_FAULT not in found[46].decided_reasons
    assert Reason.NOT_FINITE in found[48].decided_reasons
    assert Reason.BACKEND_FAULT not in found[50].decided_reasons
    assert "same logits for different pixels" in found[51].detail
    assert "same logits for different pixels" in found[52].detail
    assert Reason.BACKEND_FAULT not in found[53].decided_reasons


def test_fault_somebody_writes_into_the_frame_while_the_engine_computes(ways, tiny_bundle, blue_scene):
    for fails in (False, True):

        def frames(engine, fails=fails):
            for frame in stream(map(blue_scene, range(50))):

                def overwrite(image=frame.image):
                    # A good picture, too: the check on another core may see either, or some of both.
                    image[:] = blue_scene(90)
                    if fails:
                        raise RuntimeError("and the engine fails")
                    return np.ones((1, engine.classes), np.float32)

                engine.script = overwrite if frame.frame_id == 45 else None
                yield frame

        found = ways(lambda: session_of(tiny_bundle), frames, least=10, apart=45)
        assert Reason.BAD_INPUT in found[45].decided_reasons
        assert module.OVERWRITTEN in found[45].detail
        assert (Reason.BACKEND_FAULT in found[45].decided_reasons) == fails
        assert Reason.BAD_INPUT not in found[46].decided_reasons


def test_a_part_of_the_frame_that_is_overwritten_is_noticed(ways, tiny_bundle, blue_scene):
    """A band of a twentieth of the frame's height is seen, wherever it lies."""
    for top in range(0, SIZE[0], 24):

        def frames(engine, top=top):
            for frame in stream(map(blue_scene, range(44))):

                def overwrite(image=frame.image):
                    image[top : top + SIZE[0] // 20 + 1] ^= 1  # no change that the check on another core would mind
                    return np.ones((1, engine.classes), np.float32)

                engine.script = overwrite if frame.frame_id == 42 else None
                yield frame

        found = ways(lambda: session_of(tiny_bundle), frames, least=10, apart=42)
        assert Reason.BAD_INPUT in found[42].decided_reasons


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_fault_one_colour_of_the_frame_is_overwritten(ways, tiny_bundle, channel, blue_scene):
    def frames(engine):
        for frame in stream(map(blue_scene, range(44))):

            def overwrite(image=frame.image):
                image[..., channel] ^= 1
                return np.ones((1, engine.classes), np.float32)

            engine.script = overwrite if frame.frame_id == 42 else None
            yield frame

    assert Reason.BAD_INPUT in ways(lambda: session_of(tiny_bundle), frames, least=10)[42].decided_reasons


@pytest.mark.parametrize("size", [(240, 320), (480, 640), (600, 800), (768, 1024), (1080, 1920)])
def test_fault_one_colour_of_a_frame_of_any_size_is_overwritten(size):
    image = np.zeros((*size, 3), np.uint8)
    before = module.witness(image)
    for channel in range(3):
        other = image.copy()
        other[..., channel] = 1
        assert module.witness(other) != before


def test_a_late_frame_windows_warm_up_and_debounce(ways, tiny_bundle, blue_scene):
    def frames(_engine):
        for frame in stream(map(blue_scene, range(60))):
            yield replace(frame, captured_ns=frame.captured_ns - 10**9) if frame.frame_id == 50 else frame

    found = ways(lambda: session_of(tiny_bundle), frames, least=10, deadline_ms=500)
    assert Reason.LATE in found[50].decided_reasons
    window = [Limit("entropy", high=1e-9, frames=3)]
    found = ways(lambda: session_of(tiny_bundle, window), lambda _: stream(map(blue_scene, range(50))), least=10)
    assert Reason.ACTIVATION_SHIFT in found[-1].decided_reasons
    held = [Limit("entropy", high=10.0, frames=3)]
    found = ways(lambda: session_of(tiny_bundle, held), lambda _: stream(map(blue_scene, range(50))), least=10)
    assert Reason.ACTIVATION_SHIFT not in found[-1].decided_reasons
    policy = Policy(warm_up=45, debounce={Reason.HIGH_SCORE: Debounce(1, 1, 3)})
    found = ways(
        lambda: session_of(tiny_bundle, threshold=1e-6), lambda _: stream(map(blue_scene, range(60))), 10, policy=policy
    )
    assert Reason.WARMING_UP in found[44].decided_reasons
    assert Reason.WARMING_UP not in found[-1].decided_reasons


def test_one_region_and_probabilities(ways, tiny_bundle, blue_scene):
    rois = (Roi.parse("left=10,20,100,90"),)
    ways(lambda: session_of(tiny_bundle), lambda _: stream(map(blue_scene, range(50))), least=10, rois=rois)
    found = ways(
        lambda: session_of(tiny_bundle, probabilities=True), lambda _: stream(map(blue_scene, range(50))), least=10
    )
    assert found[-1].candidate_probabilities
    outside = (Roi.parse("outside=200,200,100,90"),)
    found = ways(lambda: session_of(tiny_bundle), lambda _: stream(map(blue_scene, range(45))), least=0, rois=outside)
    assert Reason.BAD_INPUT in found[-1].decided_reasons


def test_fault_a_list_of_regions_that_is_changed_between_frames(ways, tiny_bundle, blue_scene):
    rois = []

    def frames(_engine):
        rois[:] = [Roi.parse("left=10,20,100,90")]
        for frame in stream(map(blue_scene, range(50))):
            if frame.frame_id == 45:
                rois[:] = [Roi.parse("outside=300,200,100,90")]
            yield frame

    def make():
        rois[:] = [Roi.parse("left=10,20,100,90")]
        return session_of(tiny_bundle)

    assert Reason.BAD_INPUT in ways(make, frames, least=0, rois=rois)[45].decided_reasons


def test_an_engine_that_writes_another_array_has_its_fast_path_again(ways, tiny_bundle, blue_scene):
    def make():
        make.session, engine = session_of(tiny_bundle)
        return make.session, engine

    def frames(engine):
        for frame in stream(map(blue_scene, range(60))):
            if frame.frame_id == 45:
                engine._output = None
            yield frame
        fast = make.session.frame_judge._fast
        assert fast is None or fast.answer is make.session.scorer.bound

    ways(make, frames, least=20)


def test_fault_a_module_of_another_version_is_not_used(monkeypatch):
    monkeypatch.setattr(native, "_VERSION", native._VERSION + 1)
    assert native.fast_path_module.__wrapped__() is None


def test_two_regions_and_two_streams_go_step_by_step_or_each_its_own_way(tiny_bundle, blue_scene):
    session, _ = session_of(tiny_bundle)
    healths = [session.camera_health(), session.camera_health()]
    rois = (Roi.whole(),)
    for frame in stream(map(blue_scene, range(80))):
        for health in healths if frame.frame_id % 3 else healths[::-1]:  # the same picture is new to the other stream
            (said,) = session.frame_judge.judge(frame, rois, health)
            assert not {Reason.BAD_INPUT, Reason.FROZEN} & set(said.decided_reasons)


def test_an_engine_known_to_be_wrong_is_not_asked_on_either_way(ways, tiny_bundle, blue_scene):
    def make():
        session, engine = session_of(tiny_bundle)
        make.scorer = session.scorer
        return session, engine

    def frames(_engine):
        for frame in stream(map(blue_scene, range(60))):
            make.scorer.wrong = "it answers wrongly" if frame.frame_id == 50 else ""
            yield frame

    found = ways(make, frames, least=10)
    assert found[50].decided_reasons[:1] == (Reason.BACKEND_FAULT,)
    assert Reason.BACKEND_FAULT not in found[51].decided_reasons


def test_fault_beginning_on_the_fast_path_raises(ways, tiny_bundle, blue_scene, monkeypatch):
    """Such a frame goes step by step, and the next one tries again."""
    announce, calls = CameraHealth.announce, []

    def failing(self, image, memory):
        calls.append(announce(self, image, memory))
        if len(calls) % 3 == 0:
            raise MemoryError
        return calls[-1]

    monkeypatch.setattr(CameraHealth, "announce", failing)
    ways(lambda: session_of(tiny_bundle), lambda _: stream(map(blue_scene, range(60))), least=10)
    assert len(calls) > 12


@pytest.mark.parametrize("name", ["fits", "begin", "end", "unchanged", "attend"])
def test_the_compiled_functions_refuse_another_number_of_arguments(name):
    with pytest.raises(TypeError, match="number of arguments"):
        getattr(fast_path_module(), name)(1, 2, 3, 4, 5)
