"""The ROS 2 node of ``framegate ros2``: pictures in, protected verdicts and diagnostics out.

sensor_msgs/Image or CompressedImage -> Ros2Camera -> Pipeline -> Sender  -> ~/verdicts    (std_msgs/UInt8MultiArray)
                                                               `-> status -> /diagnostics  (DiagnosticArray)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from framegate.runtime.console import note
from framegate.runtime.errors import UsageError
from framegate.runtime.handover.protection import stream_id
from framegate.runtime.handover.ros2_camera import ARRIVAL, STAMP, Ros2Camera
from framegate.runtime.handover.ros2_diagnostics import to_status
from framegate.runtime.handover.ros2_topic import Ros2Outgoing, Spinning
from framegate.runtime.handover.sender import HEARTBEAT_S, Identity, Sender
from framegate.runtime.pipeline import RESULTS_HELD, Pipeline
from framegate.runtime.roi import parse_rois
from framegate.runtime.session import Session

RAW, COMPRESSED = "raw", "compressed"
DIAGNOSTICS_HZ = 10.0


@dataclass(frozen=True)
class NodeSettings:
    """Parameters of the node, each with the name and default that it has in ROS.

    Attributes:
        bundle: Folder ``NAME.bundle``, or a name.
        backend: See `Session.open`.
        precision: The same; empty takes the backend's fastest.
        image: Topic of the pictures.
        image_transport: `RAW` or `COMPRESSED`.
        time_of_capture: `STAMP` or `ARRIVAL`.
        regions: ``[NAME=]x,y,w,h`` each; none: the whole frame.
        deadline_ms: See `Pipeline`; 0 takes the default.
        fps: Of the camera; 0 if it is not known.
        camera: What people call the camera; part of the status's name.
        data_id: Of the first region; -1: made from topic and region.
        diagnostics_hz: How often the status is published.
    """

    bundle: str = ""
    backend: str = "auto"
    precision: str = ""
    image: str = "image"
    image_transport: str = RAW
    time_of_capture: str = STAMP
    regions: tuple[str, ...] = ()
    deadline_ms: float = 0.0
    fps: float = 0.0
    camera: str = "camera"
    data_id: int = -1
    diagnostics_hz: float = DIAGNOSTICS_HZ

    def check(self) -> None:
        """Refuse what cannot be used.

        Raises:
            UsageError: A parameter is missing or has a value that it cannot have.
        """
        if not self.bundle:
            raise UsageError("ros2: no bundle was given; --bundle NAME, or --ros-args -p bundle:=NAME")
        for name, value, known in (
            ("image_transport", self.image_transport, (RAW, COMPRESSED)),
            ("time_of_capture", self.time_of_capture, (STAMP, ARRIVAL)),
        ):
            if value not in known:
                raise UsageError(f"ros2: {name} is {value!r}; expected {' or '.join(known)}")
        for name in ("deadline_ms", "fps"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"ros2: {name} is {getattr(self, name)}; expected 0 or more")
        if not 0.1 <= self.diagnostics_hz <= 1000:
            raise UsageError(f"ros2: diagnostics_hz is {self.diagnostics_hz}; expected 0.1 to 1000")
        if not -1 <= self.data_id < 2**32:
            raise UsageError(f"ros2: data_id is {self.data_id}; expected 0 to 4294967295, or -1")


def declared(node: Any, defaults: NodeSettings) -> NodeSettings:
    """Declare the parameters and read what ROS says about them.

    Args:
        node: Gets the parameters.
        defaults: Their values where ROS says nothing.

    Raises:
        UsageError: One has another type.
    """
    from rclpy.exceptions import InvalidParameterTypeException
    from rclpy.parameter import Parameter

    values: dict[str, Any] = {}
    for name, default in vars(defaults).items():
        try:
            if name == "regions":
                parameter = node.declare_parameter(name, Parameter.Type.STRING_ARRAY) if not default else None
                parameter = parameter or node.declare_parameter(name, list(default))
                values[name] = tuple(parameter.value or ())
            else:
                values[name] = node.declare_parameter(name, default).value
        except InvalidParameterTypeException as error:
            raise UsageError(f"ros2: parameter {name}: {' '.join(str(error).split())}") from None
    return NodeSettings(**values)


class Ros2Node:
    """One camera's node, running. Use as a context manager; `run` returns when it is stopped.

    Args:
        arguments: Of ROS, e.g. ``["--ros-args", "-p", "bundle:=NAME"]``.
        defaults: Of the parameters.
        name: Of the node.
        trust: See `Session.open`.

    Raises:
        FramegateError: A parameter, the bundle or the engine cannot be used.
    """

    def __init__(
        self, arguments: list[str], defaults: NodeSettings, name: str = "framegate", trust: str | None = None
    ) -> None:
        self._spinning = Spinning(arguments, name)
        try:
            self._open(defaults, trust)
        except BaseException:
            self._spinning.close()
            raise

    def _open(self, defaults: NodeSettings, trust: str | None) -> None:
        from diagnostic_msgs.msg import DiagnosticArray

        node = self._spinning.node
        self.settings = settings = declared(node, defaults)
        settings.check()
        self._rois = parse_rois(list(settings.regions))
        self._session = Session.open(settings.bundle, settings.backend, settings.precision or None, trust=trust)
        note(f"framegate: {self._session.describe()}")
        self._camera = Ros2Camera(
            node,
            settings.image,
            compressed=settings.image_transport == COMPRESSED,
            captured=settings.time_of_capture,
            fps=settings.fps or None,
        )
        self.pipeline = Pipeline(
            self._camera,
            self._session,
            rois=self._rois,
            deadline_ms=settings.deadline_ms or None,
            results_held=RESULTS_HELD,
        )
        deadline_s = (self.pipeline.deadline_ms or 1e3 * HEARTBEAT_S) / 2e3
        self._sender = Sender(
            [Ros2Outgoing(node, "~/verdicts", f"{node.get_fully_qualified_name()}/verdicts")],
            list(self._streams(node.resolve_topic_name(settings.image))),
            Identity.of(self._session.bundle, self._session.calibration),
            heartbeat_s=min(HEARTBEAT_S, deadline_s),
        )
        self.pipeline.tell(self._sender.send_result)
        self._array = DiagnosticArray
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = node.create_timer(1.0 / settings.diagnostics_hz, self._diagnose)

    def __enter__(self) -> Ros2Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self) -> None:
        """Judge and send until `stop` is called.

        Raises:
            FramegateError: Judging broke off.
        """
        self._spinning.start()
        with self.pipeline:
            for _ in self.pipeline.results():
                pass

    def stop(self) -> None:
        """Let `run` return; can be called from any thread."""
        self._camera.close()
        self.pipeline.stop()

    def close(self) -> None:
        """Say that nothing more comes, and leave ROS."""
        with contextlib.suppress(Exception):
            self._diagnose()  # the pipeline has stopped: STALE
        self._sender.close()
        self._spinning.close()

    def _streams(self, topic: str) -> Iterator[tuple[str, int]]:
        for index, roi in enumerate(self._rois):
            first = self.settings.data_id
            data_id = stream_id(topic, roi.name) if first < 0 else (first + index) % 2**32
            note(f"framegate: ros2: region {roi.name} is data id 0x{data_id:x} on ~/verdicts")
            yield roi.name, data_id

    def _diagnose(self) -> None:
        """One status per region, from a thread that neither camera nor engine can hold up."""
        array = self._array()
        array.header.stamp = self._spinning.node.get_clock().now().to_msg()
        bundle = self._session.bundle
        hardware = f"{bundle.name} {bundle.digest[:16]}"
        stats = self.pipeline.stats
        more = {"judged": str(stats.frames), "dropped": str(stats.dropped), "skipped": str(self._camera.status.skipped)}
        array.status = [
            to_status(self.pipeline.latest(roi.name), f"framegate: {self.settings.camera}/{roi.name}", hardware, more)
            for roi in self._rois
        ]
        self._publisher.publish(array)
