"""ROS 2: messages as ``std_msgs/UInt8MultiArray`` on a topic; needs rclpy.

ros2://TOPIC      e.g. ros2://framegate/verdicts
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
from array import array
from typing import TYPE_CHECKING, Any, Final

from framegate.runtime.errors import FramegateError, SinkError, SourceError, UsageError
from framegate.runtime.handover.base import Address
from framegate.runtime.handover.inbox import Inbox

if TYPE_CHECKING:
    from rclpy.context import Context
    from rclpy.node import Node
    from rclpy.task import Future

DEADLINE_MS: Final = 100
"""Longest time between two messages that a publisher offers; heartbeats come every 50 ms."""
LEASE_MS: Final = 300
"""After so long without a sign of life DDS calls a publisher dead."""
_DEPTH = 64
_JOIN_S = 2.0
INSTALL: Final = (
    "source a ROS 2 installation (Jazzy), or on Python 3.11: pip install ros-jazzy-rclpy ros-jazzy-sensor-msgs "
    "ros-jazzy-diagnostic-msgs ros-jazzy-rmw-fastrtps-cpp"
)
_lock = threading.Lock()
_opened = 0


def require_ros2(what: str) -> None:
    """Refuse to go on without ROS 2.

    Args:
        what: Who asks for it, for the message.

    Raises:
        UsageError: A package of it is missing.
    """
    for package in ("rclpy", "std_msgs", "sensor_msgs", "diagnostic_msgs"):
        if importlib.util.find_spec(package) is None:
            raise UsageError(f"{what}: ROS 2's package {package!r} is not there; {INSTALL}")


def quality() -> Any:
    """Quality of service of the messages: newest only, with deadline and liveliness."""
    from rclpy.duration import Duration
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=_DEPTH,
        reliability=ReliabilityPolicy.BEST_EFFORT,  # what was lost is too old when it is repeated
        durability=DurabilityPolicy.VOLATILE,
        deadline=Duration(nanoseconds=DEADLINE_MS * 1_000_000),
        liveliness=LivelinessPolicy.AUTOMATIC,
        liveliness_lease_duration=Duration(nanoseconds=LEASE_MS * 1_000_000),
    )


class Spinning:
    """A node of its own, whose callbacks run in a thread of their own.

    Args:
        arguments: Of ROS (``--ros-args ...``).
        name: Of the node; None makes one up.
    """

    def __init__(self, arguments: list[str] | None = None, name: str | None = None) -> None:
        global _opened
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
        from rclpy.task import Future

        with _lock:
            _opened += 1
            number = _opened
        self._rclpy = rclpy
        self.context: Context = rclpy.Context()
        # Signals are the command line's, and a library has none.
        rclpy.init(args=arguments, context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        try:
            self.node: Node = rclpy.create_node(name or f"framegate_{os.getpid()}_{number}", context=self.context)
        except BaseException:
            rclpy.shutdown(context=self.context)
            raise
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._spin, name="framegate-ros2", daemon=True)
        self._closed = False

    def start(self) -> None:
        """Begin to call back."""
        self._thread.start()

    def close(self) -> None:
        """Leave ROS; can be called twice."""
        if self._closed:
            return
        self._closed = True
        # First the thread, then what it waits with: rclpy takes an executor apart under a thread that still spins.
        self._ended.set_result(None)
        if self._thread.is_alive():
            self._executor.wake()
            self._thread.join(_JOIN_S)
        self._executor.shutdown(timeout_sec=0)
        self.node.destroy_node()
        with contextlib.suppress(Exception):  # already shut down from elsewhere
            self._rclpy.shutdown(context=self.context)

    def _spin(self) -> None:
        from rclpy.executors import ExternalShutdownException, ShutdownException

        with contextlib.suppress(ExternalShutdownException, ShutdownException):
            self._executor.spin_until_future_complete(self._ended)


class Ros2Outgoing:
    """Publishes messages on a topic.

    Args:
        node: Publishes.
        topic: Its name, as ROS takes it.
        name: For people.
        own: What is closed at the end; None if the node lives on.
    """

    def __init__(self, node: Node, topic: str, name: str, own: Spinning | None = None) -> None:
        from std_msgs.msg import UInt8MultiArray

        self.name = name
        self.unsent = 0
        self._message = UInt8MultiArray
        self._own = own
        self._node = node
        self._publisher = node.create_publisher(UInt8MultiArray, topic, quality())
        self._closed = False

    def send(self, data: bytes) -> None:
        """Publish one message."""
        try:
            message = self._message()
            message.data = array("B", data)
            self._publisher.publish(message)
        except Exception:  # noqa: BLE001 - whatever ROS says, the sender goes on, and the receiver sees a gap
            self.unsent += 1

    def close(self) -> None:
        """Leave the topic; can be called twice."""
        if self._closed:
            return
        self._closed = True
        self._node.destroy_publisher(self._publisher)
        if self._own is not None:
            self._own.close()


class Ros2Incoming(Inbox):
    """Takes the messages of a topic.

    Args:
        topic: Its name, as ROS takes it.
        name: For people.
        own: The node that subscribes; closed at the end.
    """

    def __init__(self, topic: str, name: str, own: Spinning) -> None:
        from std_msgs.msg import UInt8MultiArray

        super().__init__(name)
        self._own = own
        own.node.create_subscription(UInt8MultiArray, topic, lambda message: self.put(bytes(message.data)), quality())
        own.start()

    def close(self) -> None:
        """Leave the topic; can be called twice."""
        self._own.close()


def _topic(address: Address) -> str:
    require_ros2(address.text)
    from rclpy.exceptions import InvalidTopicNameException
    from rclpy.validate_full_topic_name import validate_full_topic_name

    address.require_options()
    # Taken from the text: a host name would be turned into lower case.
    topic = "/" + address.text.partition("://")[2].partition("?")[0].strip("/")
    try:
        validate_full_topic_name(topic)
    except InvalidTopicNameException as problem:
        why = " ".join(str(problem).split())
        raise UsageError(f"{address.text}: no name of a topic ({why}); e.g. ros2://framegate/verdicts") from None
    return topic


def _spinning(address: Address, error: type[FramegateError]) -> Spinning:
    try:
        return Spinning()
    except Exception as problem:  # noqa: BLE001 - rcl raises its own errors, without a common base
        why = " ".join(str(problem).split())
        raise error(f"{address.text}: ROS 2 does not start ({why}); {INSTALL}") from None


def open_outgoing(address: Address) -> Ros2Outgoing:
    """A publisher.

    Raises:
        UsageError: ROS 2 is missing, or the topic's name cannot be used.
        SinkError: ROS 2 does not start.
    """
    topic, own = _topic(address), _spinning(address, SinkError)
    own.start()
    return Ros2Outgoing(own.node, topic, address.text, own)


def open_incoming(address: Address) -> Ros2Incoming:
    """A subscriber.

    Raises:
        UsageError: ROS 2 is missing, or the topic's name cannot be used.
        SourceError: ROS 2 does not start.
    """
    topic = _topic(address)
    return Ros2Incoming(topic, address.text, _spinning(address, SourceError))
