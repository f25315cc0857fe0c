"""A ROS 2 topic of pictures as a source: sensor_msgs/Image and sensor_msgs/CompressedImage."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from framegate.runtime.channel import Channel
from framegate.runtime.sources.base import Source, SourceStatus
from framegate.runtime.sources.images import AS_CAPTURED, decode_image
from framegate.runtime.verdict import Frame, Image

if TYPE_CHECKING:
    from rclpy.node import Node

STAMP, ARRIVAL = "stamp", "arrival"
"""What is the time of capture: the message's stamp, or when it came."""
_LAYOUTS: Final[dict[str, tuple[int, int | None]]] = {
    "bgr8": (3, None),
    "8UC3": (3, None),
    "rgb8": (3, cv2.COLOR_RGB2BGR),
    "bgra8": (4, cv2.COLOR_BGRA2BGR),
    "8UC4": (4, cv2.COLOR_BGRA2BGR),
    "rgba8": (4, cv2.COLOR_RGBA2BGR),
    "mono8": (1, cv2.COLOR_GRAY2BGR),
    "8UC1": (1, cv2.COLOR_GRAY2BGR),
    "yuv422_yuy2": (2, cv2.COLOR_YUV2BGR_YUY2),
    "uyvy": (2, cv2.COLOR_YUV2BGR_UYVY),
    "yuv422": (2, cv2.COLOR_YUV2BGR_UYVY),
}
"""Encoding -> bytes a pixel, and how OpenCV makes BGR of it."""


def no_picture() -> Image:
    """What stands for a message that holds none: it is judged, as BAD_INPUT."""
    return np.zeros((0, 0, 3), np.uint8)


def to_picture(message: Any) -> Image:
    """The pixels of a sensor_msgs/Image as BGR; `no_picture` for an unknown encoding, or too few bytes."""
    size, convert = _LAYOUTS.get(message.encoding, (0, None))
    height, width, step = int(message.height), int(message.width), int(message.step)
    data = np.frombuffer(message.data, np.uint8)
    if not size or not height or not width or step < width * size or data.size < height * step:
        return no_picture()
    rows = data[: height * step].reshape(height, step)[:, : width * size].reshape(height, width, size)
    if convert is None:
        return rows.copy()
    try:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(rows), convert), np.uint8)
    except cv2.error:
        return no_picture()


def decoded(message: Any) -> Image:
    """The pixels of a sensor_msgs/CompressedImage as BGR; `no_picture` for what OpenCV cannot decode."""
    return decode_image(bytes(message.data), AS_CAPTURED)


class Ros2Camera(Source):
    """The newest picture of a topic.

    A message that holds no picture is a frame all the same, which is rejected. Of pictures that come faster than they
    are read the newest is kept, and the others are counted (`SourceStatus.skipped`).

    Args:
        node: Subscribes, with the quality of service of sensor data.
        topic: Of the pictures.
        compressed: They are sensor_msgs/CompressedImage.
        captured: `STAMP`, or `ARRIVAL` for drivers that do not fill the stamp in.
        fps: Nominal rate; None if it is not known.
    """

    hands_over = True

    def __init__(
        self, node: Node, topic: str, *, compressed: bool = False, captured: str = STAMP, fps: float | None = None
    ) -> None:
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import CompressedImage
        from sensor_msgs.msg import Image as RosImage

        self.name = topic
        self.live, self.fixed_size, self.frame_size, self.length = True, True, None, None
        self.fps = fps
        self.status = SourceStatus(timestamps=captured)
        self._node, self._compressed, self._captured = node, compressed, captured
        self._newest: Channel[tuple[Any, int]] = Channel(1, overwrite=True)
        self._next_id = 0
        kind = CompressedImage if compressed else RosImage
        self._subscription = node.create_subscription(kind, topic, self._take, qos_profile_sensor_data)

    def read(self) -> Frame | None:
        """Block for the newest picture; see `Source.read`."""
        taken = self._newest.take()
        self.status.skipped = self._newest.overwritten
        if taken is None:
            return None
        message, captured_ns = taken
        frame = Frame(self._next_id, captured_ns, decoded(message) if self._compressed else to_picture(message))
        self._next_id += 1
        return frame

    def close(self) -> None:
        """Stop; see `Source.close`."""
        self.status.state = "closed"
        self._newest.close()

    def _take(self, message: Any) -> None:
        """Called by ROS; pictures are decoded by whoever reads."""
        now = time.monotonic_ns()
        if self._captured == STAMP:
            stamp = message.header.stamp
            # By ROS's own clock, so that simulated time works; a stamp that was not filled in is ages old, and LATE.
            age = self._node.get_clock().now().nanoseconds - (stamp.sec * 10**9 + stamp.nanosec)
            now = max(now - age, 0)  # a message has room for none before the machine was started
        self._newest.put((message, now))
