"""A control loop as a ROS 2 node: drives while it may, brakes in every other case. docs/consumer.md says what it owes.

python docs/examples/brake_or_drive_ros2.py framegate/verdicts 0x101
"""

from __future__ import annotations

import contextlib
import sys

import rclpy
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from std_msgs.msg import Bool, UInt8MultiArray

from framegate.runtime import FramegateError
from framegate.runtime.handover import Reading, Receiver, ReceiverConfig, read_data_id, this_clock
from framegate.runtime.handover.ros2_topic import quality

CYCLE_S = 0.01
"""100 Hz: the loop must run at least ten times a second."""


class BrakeOrDrive(Node):
    """Takes verdicts from a topic and says in every cycle, on ``~/may_drive``, whether the last one may be used.

    Args:
        topic: Of the verdicts.
        data_id: Of the stream.
    """

    def __init__(self, topic: str, data_id: int) -> None:
        super().__init__("brake_or_drive")
        self.receiver = Receiver(ReceiverConfig(data_id, clock_domain=this_clock()))
        self.last: tuple[int, int | None] | None = None
        self.out = self.create_publisher(Bool, "~/may_drive", 10)
        self.create_subscription(UInt8MultiArray, topic, self.take, quality())
        self.create_timer(CYCLE_S, self.cycle)

    def take(self, message: UInt8MultiArray) -> None:
        """A message came: that is all. Deciding is for the cycle, which also runs when nothing comes."""
        self.receiver.feed(bytes(message.data))

    def cycle(self) -> None:
        """Ask, and act on this answer only."""
        reading = self.receiver.verdict()
        self.out.publish(Bool(data=reading.usable))
        now = (reading.why, reading.class_id if reading.usable else None)
        if now != self.last:
            self.drive(reading.class_id) if reading.usable else self.brake(reading)
            self.last = now

    def drive(self, class_id: int) -> None:
        """Your actuators."""
        print(f"DRIVE class {class_id}", flush=True)

    def brake(self, reading: Reading) -> None:
        """Your actuators."""
        print(f"BRAKE: {reading.describe()}", flush=True)


def main(topic: str, data_id: str) -> None:
    """Run until SIGTERM or Ctrl-C."""
    number = read_data_id(data_id)
    rclpy.init()
    try:
        node = BrakeOrDrive(topic, number)
    except InvalidTopicNameException as error:
        raise FramegateError(f"{topic!r}: {' '.join(str(error).split())}") from None
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    rclpy.try_shutdown()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} TOPIC DATA-ID [--ros-args ...]")
    try:
        main(*sys.argv[1:3])
    except FramegateError as error:  # what was asked, what was found, what to do
        sys.exit(f"{sys.argv[0]}: {error}")
