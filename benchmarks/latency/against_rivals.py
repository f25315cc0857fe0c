"""framegate against what a user would write or pick instead: ``python -m framegate.benchmarks.latency.against_rivals``.

All contenders get the same real frames, from the shipped clip unless told otherwise, and take turns in blocks within
one process, in an order that turns as well. framegate's figure is capture to verdict through its whole pipeline:
threads, mailbox, camera health, policy. A rival's is a plain loop: frame in memory to label and entropy. So framegate
does more and is asked to lose little. What a rival answers is compared with framegate's answers on the same frames.

1. The bundle: framegate on each CPU engine and in each precision, and every rival that is installed.
2. With --bundles, every shipped bundle: framegate's default and its fp32, and cv2 + ONNX Runtime.

The record has the format of ``framegate bench``: ``framegate bench --compare`` compares two of them. docs/benchmark.md
says how to read it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from framegate.benchmarks.checkout import BUNDLES, CLIPS, RESULTS, classifiers
from framegate.benchmarks.latency.machine import Usage
from framegate.benchmarks.latency.measure import BLOCK, configurations
from framegate.benchmarks.latency.page import page, page_template
from framegate.benchmarks.latency.race import SETTLE, Contender, race, series_of
from framegate.benchmarks.latency.record import head, write_record
from framegate.benchmarks.latency.rivals import Rivals, cpu_rivals, gpu_rivals, onnxruntime_rival
from framegate.benchmarks.latency.stream import HELD, BenchStream, FrameFeed, read_frames
from framegate.benchmarks.latency.tables import left_out_lines
from framegate.benchmarks.latency.torch_rival import torch_rivals
from framegate.evaluation.report.files import write_text
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.cli.options import SWITCH_INTERVAL_S
from framegate.runtime.console import progress_bar, to_stdout
from framegate.runtime.errors import BackendError, FramegateError, SinkError, UsageError
from framegate.runtime.passwords import hide_passwords
from framegate.runtime.session import Session
from framegate.runtime.verdict import Image

CLIP = CLIPS / "highway_1280x720_25fps.mp4"
OUT = RESULTS / "latency-rivals.json"
WHAT = "capture to verdict of framegate against plain loops of other tools, same frames, interleaved in one process"


def pipelines(
    stack: ExitStack,
    bundle: Bundle,
    wanted: Sequence[tuple[str, str]],
    images: Sequence[Image],
    turns: int,
    threads: int | None,
) -> list[Contender]:
    """Framegate's own contenders, running until the stack ends."""
    found = []
    for backend, precision in wanted:
        session = Session.open(bundle, backend, precision, threads)
        stream = BenchStream(session, FrameFeed(images), turns * (BLOCK + SETTLE))
        found.append(
            Contender(f"framegate {backend}/{precision}", session.scorer.backend.engine, stack.enter_context(stream))
        )
    return found


def own_configurations(bundle: Bundle) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The default first, then every other engine that runs here in every precision; and why others do not run."""
    chosen = Session.open(bundle)
    first = (chosen.scorer.backend.name, chosen.precision)
    wanted, left_out = configurations(bundle)
    reasons = {f"framegate {name}": reason for name, reason in left_out.items()}
    return [first, *(one for one in wanted if one != first)], reasons


def agreement(bundle: Bundle, rivals: Rivals, images: Sequence[Image]) -> dict[str, dict[str, Any]]:
    """How often each rival gives the label that framegate gives in fp32 on ONNX Runtime, and how its entropy differs.

    Entropies are taken before temperature scaling, which rivals do not have.
    """
    try:
        session = Session.open(bundle, "onnxruntime", "fp32", camera=False)
    except BackendError as error:  # a machine with a GPU may have nothing else
        return {name: {"not_compared": str(error)} for name in rivals.found}
    session.scorer.temperature = 1.0
    truth = [session.infer(image) for image in images]
    found: dict[str, dict[str, Any]] = {}
    for name, rival in rivals.found.items():
        if "torch" in name.lower():
            found[name] = {"not_compared": "its weights are drawn, not the bundle's"}
            continue
        answers = [rival(image) for image in images]
        same = sum(bundle.labels[label] == one.candidate for (label, _), one in zip(answers, truth, strict=True))
        apart = [abs(entropy - one.entropy) for (_, entropy), one in zip(answers, truth, strict=True)]
        found[name] = {"same_label": same / len(images), "largest_entropy_difference_nats": float(max(apart))}
    return found


def measure_bundle(
    bundle: Bundle, images: Sequence[Image], frames: int, options: argparse.Namespace, progress: Any
) -> tuple[dict[str, Any], Rivals, dict[str, Any], Usage]:
    """The whole field on one bundle."""
    turns, rivals = -(-frames // BLOCK), Rivals()
    cpu_rivals(rivals, bundle, options.threads, images[0])
    gpu_rivals(rivals, bundle, images[0])
    if options.torch:
        torch_rivals(rivals, bundle, options.threads, images[0], options.compile)
    wanted, unable = own_configurations(bundle)
    rivals.left_out |= unable
    with ExitStack() as stack:
        field = pipelines(stack, bundle, wanted, images, turns, options.threads)
        field += [Contender(name, rivals.engines[name], rival=rival) for name, rival in rivals.found.items()]
        usage = race(field, images, turns, bundle.name, progress)
    return series_of(field, bundle.name), rivals, agreement(bundle, rivals, images), usage


def measure_others(
    paths: Sequence[Path], images: Sequence[Image], frames: int, options: argparse.Namespace, progress: Any
) -> dict[str, Any]:
    """Each architecture: framegate's default and fp32, and cv2 + ONNX Runtime where a frame is an image."""
    turns = -(-frames // BLOCK)
    series: dict[str, Any] = {}
    for path in paths:
        bundle = Bundle.open(path)
        default, *others = own_configurations(bundle)[0]
        wanted = [default, *[one for one in others if one == (default[0], "fp32")]]
        spec, rivals, frames_of = bundle.preprocess, Rivals(), list(images)
        if spec.depth > 1:  # a column of slices; cut from the same frames
            rows = spec.depth * (images[0].shape[0] // spec.depth)
            frames_of = [image[:rows].copy() for image in images]
        else:
            rivals.try_to_add(
                "cv2 + onnxruntime fp32 + NumPy",
                partial(onnxruntime_rival, bundle, "fp32", options.threads),
                images[0],
            )
        with ExitStack() as stack:
            field = pipelines(stack, bundle, wanted, frames_of, turns, options.threads)
            field += [Contender(name, rivals.engines[name], rival=rival) for name, rival in rivals.found.items()]
            race(field, frames_of, turns, bundle.name, progress)
        series |= series_of(field, bundle.name)
    return series


def main(words: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLES / "hybrid-cifar10.bundle")
    parser.add_argument("--source", default=str(CLIP), help="where the frames come from; default: the shipped clip")
    parser.add_argument("--frames", type=int, default=10_000, help="counted of every contender; default: 10000")
    parser.add_argument("--bundles", type=int, metavar="FRAMES", default=0, help="also every shipped bundle, so many")
    parser.add_argument("--threads", type=int, help="of every engine; default: each engine's own choice")
    parser.add_argument("--no-torch", dest="torch", action="store_false", help="without PyTorch")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="without torch.compile")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file")
    parser.add_argument("--png", type=Path, help="also a plot; needs matplotlib")
    parser.add_argument("--html", type=Path, help="also a page with histograms; needs Jinja2")
    options = parser.parse_args(words)
    try:
        return _run(options, words if words is not None else sys.argv[1:])
    except FramegateError as error:
        print(f"latency: {error}", file=sys.stderr)
        return error.exit_code


def _run(options: argparse.Namespace, words: Sequence[str]) -> int:
    if options.frames < 1 or options.bundles < 0:
        raise UsageError("--frames must be at least 1 and --bundles at least 0")
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"--threads {options.threads}: expected at least 1")
    for path in filter(None, (options.out, options.png, options.html)):
        if not path.parent.is_dir():
            raise SinkError(f"{path}: the folder {path.parent} does not exist")
    if options.html:
        page_template()
    bundle = Bundle.open(options.bundle)
    if bundle.preprocess.depth > 1 or bundle.preprocess.colour == "grey":
        raise UsageError(f"bundle {bundle.name} takes grey images or volumes; the rivals' loops are for colour images")
    images = read_frames(options.source, count=HELD)
    source = f"{Path(options.source).name}, {images[0].shape[1]}x{images[0].shape[0]}"
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with progress_bar() as progress:
        series, rivals, agreed, usage = measure_bundle(bundle, images, options.frames, options, progress)
        if options.bundles:
            others = [path for path in classifiers() if path.name != bundle.path.name]
            series |= measure_others(others, images, options.bundles, options, progress)
    record = head(
        WHAT,
        " ".join(["python -m framegate.benchmarks.latency.against_rivals", *map(hide_passwords, words)]),
        bundle,
        source,
    ) | {
        "series": series,
        "left_out": rivals.left_out,
        "agreement": agreed,
        "usage": usage.to_json(),
    }
    write_record(options.out, record)
    if options.html:
        write_text(options.html, page(record))
    if options.png:
        from framegate.benchmarks.latency.plot import plot

        plot(record, options.png)
    _print(record)
    return 0


def _print(record: dict[str, Any]) -> None:
    for name, row in record["series"].items():
        line = f"{name}: p50 {row['p50_ms']:.3f} p99 {row['p99_ms']:.3f} p99.9 {row['p99.9_ms']:.3f} ms"
        if "to_reference" in row:
            part = row["to_reference"]["p50"]
            line += f"; p50 {part['ratio']:.2f} [{part['low']:.2f}, {part['high']:.2f}] x {row['reference']}"
        to_stdout(line)
    for line in left_out_lines(record["left_out"]):
        to_stdout(f"left out: {line}")
    for name, found in record["agreement"].items():
        if "same_label" in found:
            to_stdout(
                f"{name}: same label on {found['same_label']:.1%}, entropy apart by at most "
                f"{found['largest_entropy_difference_nats']:.2g} nats"
            )


if __name__ == "__main__":
    sys.exit(main())
