"""Several cameras in one process: none waits for another one, whatever is wrong with it."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from dataclasses import replace

import pytest
from forked_command import run_forked

from framegate.benchmarks.cost.broken_parts import PictureCamera
from framegate.runtime.cameras import Camera, Cameras, stream_name
from framegate.runtime.cli import main as cli
from framegate.runtime.errors import SourceError, UsageError
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.verdict import Reason

FPS = 20.0


@pytest.fixture(scope="module")
def pictures(blue_scene):
    return [blue_scene(k) for k in range(60)]


class Taken:
    """Keeps what every camera says."""

    def __init__(self):
        self.results = defaultdict(list)

    def __call__(self, camera, result):
        self.results[camera.name].append((time.monotonic(), result))

    def frames(self, name):
        return [result for _, result in self.results[name] if result.has_frame]

    def silences(self, name):
        return [result for _, result in self.results[name] if not result.has_frame]


def until(true, within_s=60.0):
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)


def test_cameras_share_the_weights_and_have_a_stream_each(tiny_bundle, pictures):
    taken = Taken()
    session = Session.open(tiny_bundle, "onnxruntime")
    rois = (Roi.parse("left=0.0,0.0,0.5,1.0"), Roi.parse("right=0.5,0.0,0.5,1.0"))
    cameras = [
        Camera("front", lambda: PictureCamera(pictures, FPS), rois),
        Camera("rear", lambda: PictureCamera(pictures[::-1], FPS)),
    ]
    with Cameras(cameras, session, taken, deadline_ms=5000) as running:
        until(lambda: min(len(taken.frames(name)) for name in ("front", "rear")) >= 10)
        assert running.latest("front", "left").stream == "front/left"
        assert running.latest("rear").accepted
        with pytest.raises(UsageError, match="name one of its regions, left, right"):
            running.latest("front")
        with pytest.raises(UsageError, match="there is no camera 'side'"):
            running.latest("side")
    assert {each.stream for result in taken.frames("front") for each in result.predictions} == {
        "front/left",
        "front/right",
    }
    for name in ("front", "rear"):
        ids = [result.predictions[0].frame_id for result in taken.frames(name)]
        assert ids == sorted(set(ids))
    assert set(running.stats()) == {"front", "rear"}
    assert not running.failures
    assert running.latest("rear").reasons == (Reason.NO_FRAME,)


def hanging_at_open():
    threading.Event().wait(30)
    raise SourceError("opened after all")


def refusing():
    raise SourceError("source rtsp://x: nobody answers")


class Slow(PictureCamera):
    def _produce(self, frame_id):
        time.sleep(0.5)
        return super()._produce(frame_id)


class Buggy(PictureCamera):
    def _produce(self, frame_id):
        raise ZeroDivisionError("a bug of the driver")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hangs at opening", "refuses", "hangs later", "slow", "frozen", "bug"])
def test_a_dead_slow_or_frozen_camera_delays_no_other(tiny_bundle, pictures, kind, monkeypatch):
    if kind == "hangs at opening":  # longer than anybody waits for it
        monkeypatch.setattr("framegate.runtime.cameras._JOIN_S", 1.0)
    taken = Taken()
    opened = []

    def other():
        if kind == "hangs at opening":
            return hanging_at_open()
        if kind == "refuses":
            return refusing()
        source = {"slow": Slow, "bug": Buggy}.get(kind, PictureCamera)(
            pictures[:1] if kind == "frozen" else pictures, FPS
        )
        opened.append(source)
        return source

    cameras = [Camera("good", lambda: PictureCamera(pictures, FPS)), Camera("other", other)]
    with Cameras(cameras, Session.open(tiny_bundle, "onnxruntime"), taken, deadline_ms=400) as running:
        until(lambda: len(taken.frames("good")) >= 5)
        if kind == "hangs later":
            until(lambda: taken.frames("other"))
            opened[0].hangs.set()
        if kind in ("slow", "frozen"):
            until(lambda: len(taken.frames("other")) >= 2)
        begun, before = time.monotonic(), len(taken.frames("good"))
        until(lambda: len(taken.frames("good")) >= before + 20)
        took = time.monotonic() - begun
        # Twenty frames at 20 Hz; a camera that waited for the other one even once a frame would need 8 s and more.
        assert took < 6
        if kind not in ("slow", "frozen"):
            until(lambda: len(taken.silences("other")) >= 3)
            said = taken.silences("other")[-1].predictions[0]
            assert said.reasons == (Reason.NO_FRAME,)
            assert said.stream == stream_name("other", "frame")
        if kind == "frozen":
            assert Reason.FROZEN in running.latest("other").decided_reasons
        if kind != "slow":
            assert not running.latest("other").accepted
        ages = [result.predictions[0].latency_ms for result in taken.frames("good")]
        assert sorted(ages)[len(ages) // 2] < 400
        for source in opened:
            source.goes_on.set()
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 15
    assert set(running.failures) == ({"other"} if kind == "bug" else set())


def test_a_camera_that_breaks_off_is_opened_again_and_says_so_meanwhile(tiny_bundle, pictures, capsys):
    taken, opened = Taken(), []

    class Breaking(PictureCamera):
        def _produce(self, frame_id):
            if frame_id == 5:
                raise SourceError("camera: unplugged")
            return super()._produce(frame_id)

    def again():
        opened.append(Breaking(pictures, FPS) if not opened else PictureCamera(pictures, FPS))
        return opened[-1]

    with Cameras([Camera("x", again)], Session.open(tiny_bundle, "onnxruntime"), taken, deadline_ms=200):
        until(lambda: len(opened) >= 2)
        until(lambda: len(taken.frames("x")) >= 10)
    ids = [result.predictions[0].frame_id for result in taken.frames("x")]
    assert ids == sorted(set(ids))  # a receiver would refuse a second frame 0, and all up to where the first ones ended
    assert "camera x: camera: unplugged; trying again" in capsys.readouterr().err


def test_a_source_that_counts_on_by_itself_keeps_its_numbers(tiny_bundle, pictures):
    taken, opened = Taken(), []

    class Counting(PictureCamera):
        def _produce(self, frame_id):
            if frame_id == 3 and len(opened) == 1:
                raise SourceError("camera: unplugged")
            return replace(super()._produce(frame_id), frame_id=frame_id + 1000 * len(opened))

    def again():
        opened.append(Counting(pictures, FPS))
        return opened[-1]

    with Cameras([Camera("x", again)], Session.open(tiny_bundle, "onnxruntime"), taken, deadline_ms=200):
        until(lambda: taken.frames("x") and taken.frames("x")[-1].predictions[0].frame_id >= 2000)
    assert {result.predictions[0].frame_id // 1000 for result in taken.frames("x")} == {1, 2}


def test_a_clip_that_ends_ends_its_camera_and_a_wrong_region_is_no_reason_to_try_again(tiny_bundle, pictures):
    taken = Taken()
    cameras = [
        Camera("clip", lambda: PictureCamera(pictures, 100.0, frames=5)),
        Camera("wrong", lambda: PictureCamera(pictures, FPS), (Roi.parse("far=9000,0,10,10"),)),
    ]
    with Cameras(cameras, Session.open(tiny_bundle, "onnxruntime"), taken) as running:
        assert running.wait(30)
    assert "reaches outside" in str(running.failures["wrong"])
    assert set(running.failures) == {"wrong"}


def test_names_are_needed(tiny_bundle):
    session = Session.open(tiny_bundle, "onnxruntime")
    for names in ((), ("a", "a")):
        with pytest.raises(UsageError, match="a name of its own"):
            Cameras([Camera(name, refusing) for name in names], session, Taken())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("synthetic://", "b=synthetic://"), "need names"),
        (("a=synthetic://", "a=synthetic://"), "used twice"),
        (("a=synthetic://", "b=synthetic://", "--inject", "black:1-2"), "for one camera"),
        (("a=synthetic://", "b=synthetic://", "--realtime", "block"), "for one camera"),
        (("a=synthetic://", "b=synthetic://", "--roi", "c:0,0,1,1"), "no camera 'c'"),
        (("a=synthetic://", "b=synthetic://", "--record", "x.mcap"), "file of its own"),
        (("a=synthetic://", "b=synthetic://", "--jsonl", "-", "--json"), "leave one out"),
    ],
)
def test_what_several_cameras_cannot_have_is_refused(capsys, tiny_bundle, words, why):
    assert cli.main(["run", *words, "--bundle", str(tiny_bundle)]) == 2
    _, err = capsys.readouterr()
    assert why in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.slow
def test_the_command_writes_one_stream_a_camera(tiny_bundle, tmp_path):
    words = ["run", "front=synthetic://?fps=20&frames=12", "rear=synthetic://?fps=20&frames=12"]
    words += ["--bundle", str(tiny_bundle), "--backend", "onnxruntime", "--deadline-ms", "5000", "--json"]
    words += ["--roi", "front:left=0.0,0.0,0.5,1.0", "--jsonl", str(tmp_path / "lines")]
    words += ["--record", str(tmp_path / "{camera}.mcap"), "--no-pictures"]
    done = run_forked([sys.executable, "-m", "framegate", *words], text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert {line["stream"] for line in lines} == {"front/left", "rear/frame"}
    assert set(json.loads(done.stdout)["cameras"]) == {"front", "rear"}
    for name in ("front", "rear"):
        assert cli.main(["replay", str(tmp_path / f"{name}.mcap"), "--json"]) == 0
