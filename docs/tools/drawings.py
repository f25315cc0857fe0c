"""Draws the pictures of docs/design.md: ``python docs/tools/drawings.py``, after a folder or a step has changed.

Each picture has a ground of its own, in light and in dark, so that it is legible wherever it is shown.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
_STYLE = """
  .ground { fill: #ffffff } .room { fill: #f3f5f8; stroke: #6b7683 } .part { fill: #ffffff; stroke: #9aa5b1 }
  .step { fill: #e8f0fa; stroke: #3b6ea8 } .line { stroke: #4a5561; fill: none; stroke-width: 1.6 }
  .head { fill: #4a5561 } .area { fill: none; stroke: #3b6ea8; stroke-width: 1.4; stroke-dasharray: 7 5 }
  text { font: 13px system-ui, "DejaVu Sans", sans-serif; fill: #1b1f24 } .name { font-weight: 600 }
  .small { font-size: 11.5px; fill: #4a5561 }
  .reason { font: 11px ui-monospace, "DejaVu Sans Mono", monospace; fill: #a11d14 }
  .note { font-size: 12px; fill: #2c5a91; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #15181d } .room { fill: #1f242b; stroke: #7d8894 } .part { fill: #15181d; stroke: #5d6772 }
    .step { fill: #17273a; stroke: #6ea3dc } .line { stroke: #b4bdc7 } .head { fill: #b4bdc7 } .area { stroke: #6ea3dc }
    text { fill: #e6e9ed } .small { fill: #b4bdc7 } .reason { fill: #ff9a8f } .note { fill: #8fbdf0 }
  }
"""


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def _box(
    kind: str,
    place: tuple[float, float, float, float],
    name: str,
    lines: tuple[str, ...] = (),
    line_kind: str = "small",
) -> str:
    x, y, width, height = place
    drawn = f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>'
    drawn += _text(x + 10, y + 20, name, "name")
    return drawn + "".join(_text(x + 10, y + 37 + 16 * k, line, "small") for k, line in enumerate(lines))


def _arrow(*points: tuple[float, float]) -> str:
    path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path class="line" d="{path}" marker-end="url(#head)"/>'


def _svg(width: int, height: int, title: str, *parts: str) -> str:
    head = '<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    head += '<path class="head" d="M0 0 L10 5 L0 10 z"/></marker>'
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">\n<style>{_STYLE}</style>\n<defs>{head}</defs>\n'
        f'<rect class="ground" width="{width}" height="{height}" rx="8"/>\n{body}\n</svg>\n'
    )


def rooms() -> str:
    """Which room imports which, and what lives in runtime/."""
    parts = (
        ("sources/", ("cameras, RTSP, HTTP,", "GStreamer, files", "reconnection, clocks")),
        ("health/", ("camera check: black,", "frozen, torn, blurred", "learnt limits")),
        ("backends/", ("OpenVINO, ONNX Runtime", "tensorrt/: engine, CUDA", "graph, stored engines")),
        ("policy/", ("threshold and limits", "debounce, windows,", "warm-up, drift")),
        ("regions/", ("objects that move:", "detectors, boxes, tracks", "one call for all")),
        ("bundle/", ("files, digests, signature,", "calibration, certificates,", "known answers")),
        ("sinks/", ("JSON lines, video,", "MCAP, Rerun", "recorder thread")),
        ("handover/", ("the protected message,", "sender and receiver,", "C header, transports")),
        ("replay/", ("what a recorded drive says,", "and the drive decided again")),
        ("dense/", ("segmentation: usable", "pixels of a region")),
        ("faults/", ("injected faults;", "loaded only", "for --inject")),
        ("cli/", ("the vehicle's", "commands", "and options")),
        ("native/", ("compiled code:", "preprocessing", "and scores in C")),
        ("files of its own", ("session, pipeline,", "frame_judge, scorer,", "scores, verdict ...")),
    )
    drawn = [
        '<rect class="area" x="14" y="210" width="872" height="504" rx="10"/>',
        _text(26, 231, "What goes into the vehicle: no torch, no onnx", "note"),
        _box(
            "room",
            (30, 26, 842, 50),
            "benchmarks/",
            ("latency/, gpu/ and cost/: what everything takes, and results/: the records",),
        ),
        _box("room", (30, 112, 230, 66), "evaluation/", ("attacks, corruptions, scores,", "metrics, reports")),
        _box("room", (296, 112, 180, 66), "export/", ("checkpoint or ONNX", "to a calibrated bundle")),
        _box("room", (512, 112, 160, 66), "models/", ("architectures, data sets,", "training")),
        _box("room", (712, 112, 160, 66), "camera_demo/", ("the page of", "the live demo")),
        _arrow((145, 76), (145, 112)),
        _arrow((792, 76), (792, 112)),
        _arrow((260, 145), (296, 145)),
        _arrow((476, 145), (512, 145)),
        _arrow((592, 178), (592, 244)),
        _arrow((792, 178), (792, 244)),
        _box("room", (30, 244, 842, 380), "runtime/"),
        *(
            _box("part", (42 + 206 * (k % 4), 274 + 86 * (k // 4), 198, 80), name, lines)
            for k, (name, lines) in enumerate(parts)
        ),
        _arrow((450, 624), (450, 652)),
        _box(
            "room",
            (30, 652, 842, 50),
            "cuda_kernels/",
            ("softmax_entropy/, camera_preprocess/: kernel, launch, reference. driver/, compile/",),
        ),
    ]
    return _svg(900, 728, "The rooms of framegate, and which imports which", *drawn)


def frame() -> str:
    """The way of a frame, step by step, with the file of each step and the reasons that it can give."""
    start, finish = "scorer.py, preprocess.py, backends/", "scorer.py, backends/, scores.py, monitor.py"
    rules = "HIGH_SCORE  ACTIVATION_SHIFT  NOT_FINITE  NOT_CALIBRATED"
    steps = (
        ("admit", "health/check.py", "format and size", "BAD_INPUT  WRONG_SIZE"),
        ("start", start, "crop, resize, normalise; a GPU starts", "BAD_INPUT  BACKEND_FAULT"),
        ("camera check, once a frame", "health/", "while a GPU computes", "BLACK  FROZEN  TORN  BLURRED  ..."),
        ("finish", finish, "logits, scores, signals; a certificate if required", "BACKEND_FAULT  NOT_CERTIFIED"),
        ("rules", "policy/rules.py", "threshold, limits of signals", rules),
        ("policy", "policy/stream.py", "what several frames show", "STALE_FRAME  WARMING_UP  DRIFT  ACTIVATION_SHIFT"),
        ("stamp", "frame_judge.py", "decided_ns after the last region", "LATE"),
    )
    left, top, width, height, gap = 250, 62, 400, 66, 16
    drawn = [
        _text(40, 38, "capture thread", "note"),
        _text(left, 38, "worker thread: FrameJudge.judge", "note"),
        _text(706, 38, "your thread", "note"),
        _box("room", (30, top, 176, 84), "source", ("sources/", "frame_id, captured_ns")),
        _box("part", (30, top + 122, 176, 84), "mailbox, one slot", ("channel.py", "overwritten: dropped")),
        _arrow((118, top + 84), (118, top + 122)),
        _arrow((206, top + 164), (228, top + 164), (228, top + 33), (left, top + 33)),
    ]
    for k, (name, file, what, reasons) in enumerate(steps):
        y = top + k * (height + gap)
        drawn += [
            f'<rect class="step" x="{left}" y="{y}" width="{width}" height="{height}" rx="6"/>',
            _text(left + 10, y + 19, name, "name"),
            _text(left + width - 10, y + 19, file, "small", "end"),
            _text(left + 10, y + 38, what, "small"),
            _text(left + 10, y + 56, reasons, "reason"),
        ]
        if k + 1 < len(steps):
            drawn.append(_arrow((left + width / 2, y + height), (left + width / 2, y + height + gap)))
    first, last = top + height + gap - 8, top + 5 * (height + gap) + height
    end = top + 6 * (height + gap)
    drawn += [
        f'<rect class="area" x="{left - 10}" y="{first}" width="{width + 20}" height="{last - first + 8}" rx="8"/>',
        _text(left - 18, last + 4, "for each region", "note", "end"),
        _arrow((left + width, end + 33), (678, end + 33), (678, top + 42), (700, top + 42)),
        _box(
            "part",
            (700, top, 176, 100),
            "results",
            ("channel.py; of a live", "source the newest one,", "overwritten: unread"),
        ),
        _arrow((788, top + 100), (788, top + 130)),
        _box(
            "room",
            (700, top + 130, 176, 130),
            "consumer",
            ("your program, sinks/,", "the demo's page; each", "Prediction has an end:", "valid_until_ns"),
        ),
        _text(710, top + 249, "EXPIRED", "reason"),
        _box("step", (700, top + 350, 176, 84), "watchdog", ("watchdog.py", "if no verdict comes")),
        _text(710, top + 424, "NO_FRAME  LATE", "reason"),
        _arrow((788, top + 350), (788, top + 260)),
        _text(30, end - 60, "A frame is accepted only", "small"),
        _text(30, end - 44, "if no step gave a reason.", "small"),
    ]
    return _svg(900, end + height + 24, "The way of a frame through framegate", *drawn)


PICTURES = {"rooms.svg": rooms, "frame.svg": frame}

if __name__ == "__main__":
    for file, draw in PICTURES.items():
        (DOCS / file).write_text(draw(), encoding="utf-8")
