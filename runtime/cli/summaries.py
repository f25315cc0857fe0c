"""What the vehicle's commands do, in the order of the help."""

SUMMARIES = {
    "run": "judge the frames of a camera, clip or folder",
    "replay": "decide a recorded drive again, with another threshold or calibration",
    "ros2": "a ROS 2 node: pictures of a topic in, protected verdicts and diagnostics out",
    "bundles": "list the bundles that can be given by name",
    "info": "show what a bundle holds and what its thresholds promise",
    "doctor": "say what this machine can run, and why not",
    "health": "learn what a healthy camera looks like, for run --health",
    "handover": "receive verdicts from another process; the header for C and C++",
    "completion": 'print what makes a shell complete framegate\'s commands: eval "$(framegate completion bash)"',
}
"""Command -> one sentence. ``framegate --help`` reads it without loading a command: import nothing here.

The module of this package with the command's name has its ``register``.
"""
