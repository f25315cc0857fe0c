"""``framegate ros2``: a ROS 2 node that judges a topic of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from framegate.runtime.cli.options import BUNDLE_HELP
from framegate.runtime.cli.signals import exit_code, received, stopped_by_signals, why_ended
from framegate.runtime.cli.summaries import SUMMARIES
from framegate.runtime.console import to_stderr, to_stdout
from framegate.runtime.errors import BackendError
from framegate.runtime.handover.ros2_topic import INSTALL, require_ros2


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``ros2`` to the command line."""
    parser = commands.add_parser(
        "ros2",
        help=SUMMARIES["ros2"],
        description="Every option is a parameter of the node, too, by which ROS can set it: --ros-args -p bundle:=NAME",
    )
    parser.add_argument("--bundle", default="", help=f"{BUNDLE_HELP} (default: the node's parameter of this name)")
    parser.add_argument("--image", default="image", metavar="TOPIC", help="topic of pictures (default: %(default)s)")
    parser.add_argument("--compressed", action="store_true", help="they are sensor_msgs/CompressedImage")
    parser.add_argument(
        "--arrival",
        action="store_true",
        help="the time of capture is when a message comes (default: its stamp; one that is not filled in is LATE)",
    )
    parser.add_argument(
        "--roi",
        action="append",
        default=[],
        metavar="[NAME=]x,y,w,h",
        help="as of framegate run (default: the whole picture)",
    )
    parser.add_argument(
        "--deadline-ms",
        type=float,
        default=0.0,
        metavar="MS",
        help="as of framegate run; 0: from the rate (default: %(default)g)",
    )
    parser.add_argument(
        "--fps", type=float, default=0.0, metavar="FPS", help="the camera's rate; 0: not known (default: %(default)g)"
    )
    parser.add_argument(
        "--camera", default="camera", metavar="NAME", help="name in /diagnostics (default: %(default)s)"
    )
    parser.add_argument("--backend", default="auto", help="as of framegate run (default: auto)")
    parser.add_argument("--precision", default="", help="fp32, fp16 or int8 (default: the backend's fastest)")
    parser.add_argument(
        "--trust", type=Path, metavar="KEY.pem", help="as of framegate run (default: ask for no signature)"
    )
    parser.add_argument("--node", default="framegate", metavar="NAME", help="name of the node (default: %(default)s)")
    parser.add_argument(
        "--ros-args",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="...",
        help="everything behind it is ROS's (default: nothing)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Judge until a signal ends the command."""
    require_ros2("ros2")
    from rclpy.exceptions import NameValidationException

    from framegate.runtime.handover.ros2_camera import ARRIVAL, STAMP
    from framegate.runtime.handover.ros2_node import COMPRESSED, RAW, NodeSettings, Ros2Node

    defaults = NodeSettings(
        bundle=arguments.bundle,
        backend=arguments.backend,
        precision=arguments.precision,
        image=arguments.image,
        image_transport=COMPRESSED if arguments.compressed else RAW,
        time_of_capture=ARRIVAL if arguments.arrival else STAMP,
        regions=tuple(arguments.roi),
        deadline_ms=arguments.deadline_ms,
        fps=arguments.fps,
        camera=arguments.camera,
    )
    ros = ["--ros-args", *arguments.ros_args] if arguments.ros_args else []
    trust = None if arguments.trust is None else str(arguments.trust)
    try:
        node = Ros2Node(ros, defaults, arguments.node, trust)
    except (
        RuntimeError,
        ValueError,
        NameValidationException,
    ) as error:  # rcl's own
        raise BackendError(f"ros2: ROS 2 does not start ({' '.join(str(error).split())}); {INSTALL}") from None
    with node:
        settings = node.settings
        to_stdout(f"framegate ros2: judging {settings.image} ({settings.image_transport})   (Ctrl-C ends it)")
        with stopped_by_signals(node.stop):
            node.run()
    number = received()
    if number is None:
        return 0
    to_stderr(f"framegate: {why_ended(number)}")
    return exit_code(number)
