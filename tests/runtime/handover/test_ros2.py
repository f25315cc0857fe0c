"""``framegate ros2`` among real ROS 2 nodes: pictures in, protected verdicts and diagnostics out.

Needs rclpy, which has wheels for Python 3.11; skipped without it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from framegate.runtime.cli import main as cli
from framegate.runtime.handover import Receiver, ReceiverConfig, open_incoming, this_clock
from framegate.runtime.handover.ros2_camera import STAMP, Ros2Camera, decoded, no_picture, to_picture
from framegate.runtime.handover.ros2_diagnostics import ERROR, OK, STALE, WARN, level_of
from framegate.runtime.handover.ros2_topic import INSTALL
from framegate.runtime.verdict import Reason

DATA_ID = 0x701
needs_ros2 = pytest.mark.skipif("not __import__('importlib.util').util.find_spec('rclpy')", reason=INSTALL)


def message(image, encoding, step=None):
    return SimpleNamespace(
        height=image.shape[0],
        width=image.shape[1],
        encoding=encoding,
        step=image.strides[0] if step is None else step,
        data=image.tobytes(),
    )


def test_pictures_of_every_encoding_become_the_same_picture(blue_scene):
    picture = blue_scene(0)
    smooth = cv2.GaussianBlur(picture, (0, 0), 5)
    for encoding, code in (
        ("bgr8", None),
        ("rgb8", cv2.COLOR_BGR2RGB),
        ("bgra8", cv2.COLOR_BGR2BGRA),
        ("rgba8", cv2.COLOR_BGR2RGBA),
    ):
        sent = picture if code is None else cv2.cvtColor(picture, code)
        assert np.array_equal(to_picture(message(sent, encoding)), picture)
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    assert np.array_equal(to_picture(message(grey, "mono8")), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    for encoding, code in (("uyvy", cv2.COLOR_BGR2YUV_UYVY), ("yuv422_yuy2", cv2.COLOR_BGR2YUV_YUY2)):
        found = to_picture(message(cv2.cvtColor(smooth, code), encoding))
        assert np.abs(found.astype(int) - smooth).mean() < 4
    _, jpeg = cv2.imencode(".png", picture)
    assert np.array_equal(decoded(SimpleNamespace(data=jpeg.tobytes())), picture)


def test_rows_may_be_longer_than_the_picture(blue_scene):
    picture = blue_scene(0)
    wide = np.zeros((240, 340, 3), np.uint8)
    wide[:, :320] = picture
    sent = message(wide, "bgr8")
    sent.width = 320
    assert np.array_equal(to_picture(sent), picture)


@pytest.mark.parametrize("change", [{"encoding": "16UC1"}, {"height": 241}, {"width": 321}, {"step": 3}, {"height": 0}])
def test_what_holds_no_picture_is_one_that_is_rejected(blue_scene, change):
    sent = message(blue_scene(0), "bgr8")
    for name, value in change.items():
        setattr(sent, name, value)
    assert to_picture(sent).shape == no_picture().shape


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff\xe0" + bytes(100)])
def test_what_cannot_be_decoded_is_one_that_is_rejected(data):
    assert decoded(SimpleNamespace(data=data)).shape == no_picture().shape


def test_pictures_of_cameras_are_not_turned(blue_scene):
    """As in every other stream: a camera that is mounted upside down is no photograph that somebody turned."""
    jpeg = cv2.imencode(".jpg", blue_scene(0))[1].tobytes()
    tags = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = jpeg[:2] + b"\xff\xe1" + (len(tags) + 2).to_bytes(2, "big") + tags + jpeg[2:]
    plain = decoded(SimpleNamespace(data=jpeg))
    assert plain.shape == blue_scene(0).shape
    assert np.array_equal(decoded(SimpleNamespace(data=turned)), plain)


def test_a_stamp_that_was_not_filled_in_is_late_and_a_message_has_room_for_it():
    camera = Ros2Camera.__new__(Ros2Camera)
    clock = SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=time.time_ns()))
    camera._node, camera._captured, taken = SimpleNamespace(get_clock=lambda: clock), STAMP, []
    camera._newest = SimpleNamespace(put=taken.append)
    camera._take(SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0))))
    assert taken[0][1] == 0  # a time below that would be INVALID at the receiver, in place of LATE


def test_levels():
    assert level_of(()) == OK
    assert level_of((Reason.HIGH_SCORE,)) == WARN
    assert level_of((Reason.HIGH_SCORE, Reason.BLACK)) == ERROR
    assert level_of((Reason.NOT_CALIBRATED,)) == ERROR
    assert level_of((Reason.NO_FRAME,)) == STALE
    assert level_of((Reason.EXPIRED,)) == STALE


def test_without_ros2_the_line_that_installs_it_is_said(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["ros2", "--bundle", "x"]) == 2
    _, err = capsys.readouterr()
    assert "pip install ros-jazzy-rclpy" in err
    assert len(err.strip().splitlines()) == 1


@needs_ros2
@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "no bundle was given"),
        (("--bundle", "no-such-bundle"), "no-such-bundle"),
        (("--bundle", "x", "--deadline-ms", "-1"), "deadline_ms"),
        (("--bundle", "x", "--ros-args", "-p", "image_transport:=smoke"), "expected raw or compressed"),
        (("--bundle", "x", "--ros-args", "-p", "deadline_ms:=soon"), "deadline_ms"),
        (("--bundle", "x", "--node", "no name"), "does not start"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(capfd, words, why):
    assert cli.main(["ros2", *words]) in (1, 2)
    _, err = capfd.readouterr()
    assert why in err
    assert "Traceback" not in err


class World:
    """A camera driver, and somebody who reads the diagnostics."""

    def __init__(self, topic, pictures, compressed):
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import CompressedImage, Image

        from framegate.runtime.handover.ros2_topic import Spinning

        self.spinning = Spinning()
        self.kind = CompressedImage if compressed else Image
        self.compressed, self.pictures = compressed, pictures
        node = self.spinning.node
        self.publisher = node.create_publisher(self.kind, topic, qos_profile_sensor_data)
        self.statuses = []
        node.create_subscription(DiagnosticArray, "/diagnostics", lambda m: self.statuses.extend(m.status), 10)
        self.spinning.start()
        self.shows, self.ended = threading.Event(), threading.Event()
        self.shows.set()
        self.thread = threading.Thread(target=self.show)
        self.thread.start()

    def show(self):
        for k in range(10**9):
            if self.ended.wait(0.05):
                return
            if not self.shows.is_set():
                continue
            picture = self.pictures(k)
            sent = self.kind()
            sent.header.stamp = self.spinning.node.get_clock().now().to_msg()
            if self.compressed:
                sent.format = "bgr8; png compressed bgr8"
                sent.data = cv2.imencode(".png", picture)[1].tobytes()
            else:
                sent.height, sent.width, sent.step = picture.shape[0], picture.shape[1], picture.strides[0]
                sent.encoding, sent.data = "bgr8", picture.tobytes()
            self.publisher.publish(sent)

    def close(self):
        self.ended.set()
        self.thread.join()
        self.spinning.close()


def until(true, within_s=30.0):
    end = time.monotonic() + within_s
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


@needs_ros2
@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
def test_a_control_loop_gets_verdicts_and_diagnostics_and_a_dead_camera_or_node_is_do_not_use(
    tiny_bundle, blue_scene, compressed
):
    name = f"gate{os.getpid()}{int(compressed)}"
    words = ["ros2", "--bundle", str(tiny_bundle), "--backend", "onnxruntime", "--image", f"/{name}/image"]
    words += ["--deadline-ms", "400", "--node", name, "--camera", "front", *(["--compressed"] if compressed else [])]
    command = [sys.executable, "-m", "framegate", *words, "--ros-args", "-p", f"data_id:={DATA_ID}"]
    world = World(f"/{name}/image", blue_scene, compressed)
    incoming = open_incoming(f"ros2://{name}/verdicts")
    receiver = Receiver(
        ReceiverConfig(DATA_ID, clock_domain=this_clock(), period_ns=10**9, alive_ns=5 * 10**8, transit_ns=3 * 10**8)
    )
    ended = threading.Event()

    def feed():
        while not ended.is_set():
            if (received := incoming.receive(0.05)) is not None:
                receiver.feed(*received)

    feeding = threading.Thread(target=feed)
    feeding.start()
    try:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as node:
            assert until(lambda: receiver.verdict().usable, 60)
            assert receiver.verdict().message.class_id == 0
            assert until(lambda: any(each.level == OK for each in world.statuses))
            status = next(each for each in world.statuses if each.level == OK)
            assert status.name == "framegate: front/frame"
            assert status.message == "USE blue"
            assert {pair.key: pair.value for pair in status.values}["verdict"] == "ACCEPT"
            assert status.hardware_id.startswith("tiny ")

            world.shows.clear()  # the camera is unplugged
            assert until(lambda: not receiver.verdict().usable, 2.0)
            time.sleep(0.6)
            world.statuses.clear()
            assert until(lambda: world.statuses)
            assert {each.level for each in world.statuses} == {STALE}
            assert not receiver.verdict().usable
            world.shows.set()
            assert until(lambda: receiver.verdict().usable)

            node.send_signal(signal.SIGSTOP)
            assert until(lambda: not receiver.verdict().usable, 2.0)
            time.sleep(0.3)
            assert not receiver.verdict().usable
            node.send_signal(signal.SIGCONT)
            assert until(lambda: receiver.verdict().usable)

            node.send_signal(signal.SIGINT)
            assert until(lambda: not receiver.verdict().usable, 5.0)
            _, err = node.communicate(timeout=30)
        assert "Traceback" not in err
        assert "interrupted" in err
        assert node.returncode == 130
    finally:
        ended.set()
        feeding.join()
        incoming.close()
        world.close()
