"""Faults that are switched while the source runs."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

from framegate.camera_demo.delayed_backend import DelayedBackend
from framegate.camera_demo.fault_panel import FaultPanel
from framegate.camera_demo.live_attacks import LiveAttacks
from framegate.camera_demo.looped_clip import SHIFTS, LoopedClip
from framegate.camera_demo.shipped import BUNDLE, CLIP, REGIONS, shipped
from framegate.camera_demo.switched_source import SwitchedSource
from framegate.runtime.errors import SourceError, UsageError
from framegate.runtime.faults.inject import fault_kinds
from framegate.runtime.health.check import CameraHealth
from framegate.runtime.session import Session
from framegate.runtime.sources.open import open_source

SOURCE = "synthetic://?width=160&height=120&fps=200"


@pytest.fixture
def made(tmp_path):
    panel = FaultPanel(fault_kinds())
    attacks = LiveAttacks(tmp_path, REGIONS)
    opened = []

    def once_more():
        opened.append(open_source(SOURCE))
        return opened[-1]

    source = SwitchedSource(once_more, panel, attacks)
    yield source, panel, opened
    source.close()
    attacks.close()


def test_without_a_fault_frames_pass_as_they_are(made):
    source, _, _ = made
    with open_source(SOURCE) as plain:
        for number in range(5):
            frame = source.read()
            assert frame.frame_id == number
            assert np.array_equal(frame.image, plain.read().image)


@pytest.mark.parametrize("kind", ["black", "fog", "noise", "stuck", "half"])
def test_a_fault_changes_the_next_frame_and_goes_again(made, kind):
    source, panel, _ = made
    with open_source(SOURCE) as plain:
        source.read(), plain.read()
        panel.press(kind, 5)
        bad, good = source.read(), plain.read()
        if kind == "stuck":  # begins with this frame, so the next one differs
            bad, good = source.read(), plain.read()
        assert not np.array_equal(bad.image, good.image)
        panel.press("none", 3)
        assert np.array_equal(source.read().image, plain.read().image)


def test_a_frozen_picture_stays_while_number_and_time_go_on(made):
    source, panel, _ = made
    source.read()
    panel.press("freeze", 3)
    first, second, third = source.read(), source.read(), source.read()
    assert np.array_equal(first.image, second.image)
    assert np.array_equal(first.image, third.image)
    assert first.frame_id + 2 == third.frame_id
    assert first.captured_ns < second.captured_ns < third.captured_ns


def test_a_killed_source_is_closed_and_opened_again(made):
    source, panel, opened = made
    last = [source.read() for _ in range(3)][-1]
    panel.press("kill", 3)
    frames = []
    reader = threading.Thread(target=lambda: frames.append(source.read()))
    reader.start()
    time.sleep(0.2)
    assert opened[0].read() is None  # closed for real
    assert frames == []
    assert source.status.state == "reconnecting"
    panel.press("kill", 3)
    reader.join(5)
    assert len(opened) == 2
    assert frames[0].frame_id == last.frame_id + 1
    assert (source.status.state, source.status.reconnects) == ("open", 1)


@pytest.mark.parametrize("killed", [False, True])
def test_close_ends_a_read_even_of_a_killed_source(made, killed):
    source, panel, _ = made
    if killed:
        panel.press("kill", 3)
    ended = threading.Event()

    def read():
        while source.read() is not None:
            pass
        ended.set()

    threading.Thread(target=read).start()
    time.sleep(0.1)
    source.close()
    assert ended.wait(5)


def test_a_source_that_is_gone_when_it_is_plugged_in_again_is_tried_again(tmp_path):
    attempts = []

    def flaky():
        attempts.append(time.monotonic())
        if len(attempts) == 2:
            raise SourceError("camera 0 is busy")
        return open_source(SOURCE)

    panel = FaultPanel(())
    source = SwitchedSource(flaky, panel, LiveAttacks(tmp_path, ()))
    source.read()
    panel.press("kill", 3)
    panel.press("kill", 3)
    # Killed and plugged in between two reads: the old one is closed, so it has to be opened again.
    assert source.read() is not None
    assert len(attempts) == 3
    assert attempts[2] - attempts[1] >= 0.2
    source.close()


def test_buttons_switch_and_one_fault_replaces_another():
    panel = FaultPanel(fault_kinds())
    names = [button.name for button in panel.buttons]
    assert names[:6] == ["black", "freeze", "fog", "glare", "noise", "blur"]
    assert set(fault_kinds()) | {"kill", "slow", "none"} == set(names)
    heard = []
    panel.kill, panel.slow = (lambda on: heard.append(("kill", on))), (lambda on: heard.append(("slow", on)))
    panel.press("fog", 2)
    assert panel.fault == ("fog", 2)
    panel.press("fog", 4)
    assert panel.fault == ("fog", 4)
    panel.press("blur", 4)
    assert panel.fault == ("blur", 4)
    panel.press("blur", 4)
    assert panel.fault is None
    panel.press("slow", 3)
    panel.press("kill", 3)
    assert panel.record() == {"pressed": ["kill", "slow"], "severity": 3}
    panel.press("none", 3)
    assert heard == [("slow", True), ("kill", True), ("kill", False), ("slow", False)]
    for name, severity in (("nonsense", 3), ("fog", 0), ("fog", 6)):
        with pytest.raises(UsageError):
            panel.press(name, severity)


def test_a_delayed_engine_gives_the_same_later(tiny_bundle, coloured):
    session = Session.open(tiny_bundle, "onnxruntime", camera=False)
    plain = session.infer(coloured((200, 20, 20)))
    delayed = DelayedBackend(session.scorer.backend)
    session.scorer.backend = delayed
    delayed.delay_s = 0.05
    later = session.infer(coloured((200, 20, 20)))
    assert (later.candidate, later.confidence) == (plain.candidate, pytest.approx(plain.confidence, abs=1e-6))
    assert later.engine_ns >= 50e6


def test_the_looped_clip_never_repeats_itself_to_the_health_check():
    # Every fifth frame only, as on a machine that drops most: 32 of them reach back over four passes of 38.
    clip = LoopedClip(shipped(CLIP, "the clip", "another"))
    health = CameraHealth(clip.frame_size)
    try:
        seen = 0
        while seen < 34:
            clip._clip.live = False  # not at its own pace
            frame = clip.read()
            assert frame is not None
            if frame.frame_id % 5 == 0:
                seen += 1
                assert tuple(health.check(frame.image)) == ()
    finally:
        clip.close()
    assert len(set(SHIFTS)) == len(SHIFTS)


def test_outside_the_repository_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("framegate.camera_demo.shipped._folders", lambda: (tmp_path,))
    with pytest.raises(UsageError, match="clone of the repository, or give --bundle"):
        shipped(BUNDLE, "the bundle", "--bundle NAME.bundle")


def test_an_attack_that_cannot_be_made_says_why(made, tmp_path):
    attacks = LiveAttacks(tmp_path / "no.bundle", REGIONS)
    image = np.full((120, 160, 3), 100, np.uint8)
    deadline = time.monotonic() + 60
    try:
        while not (attacks.status and "computing" not in attacks.status):
            assert np.array_equal(attacks.apply(image, "pgd", 3), image)
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "no.bundle" in attacks.status or "not installed" in attacks.status
        attacks.rest()
        assert attacks.status == ""
    finally:
        attacks.close()
    assert attacks._process.poll() is not None
    assert not attacks._thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "nice"), reason="needs POSIX")
def test_an_attack_changes_the_label_of_the_shipped_bundle():
    pytest.importorskip("torch")
    session = Session.open(shipped(BUNDLE, "the bundle", "another"), precision="fp32", camera=False)
    roi = REGIONS[0]
    with open_source(str(shipped(CLIP, "the clip", "another")), realtime=False) as clip:
        image = clip.read().image
    attacks = LiveAttacks(session.bundle.path, (roi,))
    deadline = time.monotonic() + 90
    try:
        while "in place" not in attacks.status:
            attacks.apply(image, "pgd", 3)
            assert time.monotonic() < deadline, attacks.status
            time.sleep(0.1)
        attacked = attacks.apply(image, "pgd", 3)
    finally:
        attacks.close()
    assert session.infer(roi.crop(image)).candidate == "automobile"
    assert session.infer(roi.crop(attacked)).candidate != "automobile"
    outside = np.ones(image.shape[:2], bool)
    outside[int(roi.y) : int(roi.y + roi.height), int(roi.x) : int(roi.x + roi.width)] = False
    assert np.array_equal(image[outside], attacked[outside])


def test_a_delayed_gpu_is_still_a_gpu(monkeypatch):
    class Gpu:
        name, engine, classes, pooled, scores, fault, takes_frames = "gpu", "gpu 1", 3, None, None, "", True

        def __init__(self):
            self.done = []

        def bind(self, tensor):
            self.done.append("bind")

        def bind_frames(self, *_):
            self.done.append("bind_frames")

        def start(self, frame=None):
            self.done.append("start")

        def finish(self):
            self.done.append("finish")
            self.pooled = np.ones((1, 2), np.float32)
            return np.zeros((1, 3), np.float32)

        def reinitialise(self):
            self.fault = ""

    gpu = Gpu()
    slow = DelayedBackend(gpu)
    slow.delay_s = 0.05
    monkeypatch.setattr("framegate.camera_demo.delayed_backend.time.sleep", gpu.done.append)
    assert slow.takes_frames
    slow.bind_frames(None, 64, 48, 1.0)
    slow.start()
    slow.finish()
    assert gpu.done == ["bind_frames", "start", 0.05, "finish"]
    assert slow.pooled is gpu.pooled
    gpu.fault = "broken"
    assert slow.fault == "broken"
    slow.reinitialise()
    assert slow.fault == ""
