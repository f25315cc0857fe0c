"""``framegate verify``: compare two engines or precisions of a bundle; exit code 1 if their decisions differ."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.table import Table

from framegate.export.checks.verify import Comparison, Decision, Side, compare_sides, to_json
from framegate.export.commands.summaries import SUMMARIES
from framegate.export.data.image_folder import NamedImages
from framegate.export.data.labelled import load_comparison
from framegate.export.data.outputs import backend_outputs
from framegate.export.progress import Progress
from framegate.runtime.backends.choice import BACKENDS, choose_backend, default_precision
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import record_key
from framegate.runtime.cli.options import BUNDLE_HELP
from framegate.runtime.console import OUT, json_to_stdout, progress_bar, to_stderr, to_stdout
from framegate.runtime.errors import BundleError, CalibrationError, DataError, UsageError

_EXAMPLES = """examples:
  framegate verify car.bundle --backends onnxruntime,openvino --precisions fp32 --data cifar-10-batches-bin
  framegate verify car.bundle --backends openvino --precisions fp32,int8 --data photos/ --limit 1000
The first engine named is the reference, the second is judged, by the measure that framegate export uses. It fails if,
by more than chance, more than 0.5 % of the images (net) lose their right label or are accepted with a wrong one, both
engines accept more than 0.2 % with different labels, or only one of them accepts more than 10 %. Both must be
calibrated.
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``verify`` to the command line."""
    parser = commands.add_parser(
        "verify",
        help=SUMMARIES["verify"],
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", help=BUNDLE_HELP)
    parser.add_argument(
        "--backends", required=True, metavar="A[,B]", help=f"reference and judged engine, of {', '.join(BACKENDS)}"
    )
    parser.add_argument(
        "--precisions", metavar="P[,Q]", help="one for both, or one each, e.g. fp32,int8 (default: each one's fastest)"
    )
    parser.add_argument(
        "--data", required=True, type=Path, help="a known data set (its test split is used), or a folder per label"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="compare only the first N images (default: all)")
    parser.add_argument("--worst", type=int, default=10, metavar="N", help="frames to name (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare, print, and return 1 if their decisions differ too much."""
    for name, least in (("limit", 1), ("worst", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise UsageError(f"--{name} {value}: expected at least {least}")
    bundle = Bundle.open(arguments.bundle).for_classifiers("verify")
    pairs = chosen_pairs(bundle, arguments.backends, arguments.precisions)
    with progress_bar() as progress:
        data = load_comparison(arguments.data, bundle.labels, bundle.preprocess, arguments.limit, progress)
        comparison = verify_bundle(bundle, pairs, data, arguments.worst, progress)
    if arguments.json:
        json_to_stdout(to_json(comparison, bundle.labels, data.names))
    else:
        _print(comparison, bundle.labels, data.names)
    for tally in (comparison.first, comparison.second):
        if tally.engine != tally.calibrated_on:
            to_stderr(f"framegate: {tally.key} was calibrated on {tally.calibrated_on}, {tally.engine} runs here")
    for failure in comparison.failures:
        to_stderr(f"framegate: verify failed: {failure}")
    return 1 if comparison.failures else 0


def chosen_pairs(bundle: Bundle, backends: str, precisions: str | None) -> list[tuple[str, str]]:
    """The two (backend, precision) that are compared, the reference first.

    Raises:
        UsageError: They are not one or two of each, unknown, or the same twice.
        BundleError: The bundle has no such precision.
        BackendError: A backend is not installed.
        CalibrationError: A pair is not calibrated in this bundle.
    """
    names = [name.strip() for name in backends.split(",")]
    chosen = [precision.strip() for precision in precisions.split(",")] if precisions is not None else [""]
    for option, given in (("backends", names), ("precisions", chosen)):
        if len(given) > 2:
            raise UsageError(f"--{option}: {len(given)} given, expected one or two")
    names, chosen = (given * 2 if len(given) == 1 else given for given in (names, chosen))
    pairs = []
    for name, precision in zip(names, chosen, strict=True):
        if name == "auto":
            raise UsageError("--backends auto: name the engines that are to be compared")
        backend = choose_backend(name)
        pairs.append((backend, precision or default_precision(backend, bundle.models)))
        bundle.model_path(pairs[-1][1])
    if pairs[0] == pairs[1]:
        raise UsageError(
            f"{record_key(*pairs[0])} is named twice; give two backends, or one with --precisions, e.g. fp32,int8"
        )
    for backend, precision in pairs:
        if bundle.calibration(backend, precision) is None:
            raise CalibrationError(
                f"bundle {bundle.path}: {record_key(backend, precision)} is not calibrated, so it accepts nothing; "
                f"framegate calibrate {bundle.path} --backend {backend} --precision {precision} --data DIR"
            )
    return pairs


def verify_bundle(
    bundle: Bundle, pairs: list[tuple[str, str]], data: NamedImages, worst: int, progress: Progress
) -> Comparison:
    """Run both engines over the data and compare them.

    Args:
        bundle: The bundle.
        pairs: From `chosen_pairs`.
        data: What is compared on.
        worst: How many frames to name.
        progress: Called during the work.

    Raises:
        BackendError: An engine cannot be loaded or failed.
        BundleError: An engine gives another number of logits than there are labels.
        DataError: There are no images.
    """
    if len(data.images) == 0:
        raise DataError("verify: no images to compare on")
    sides = []
    for backend, precision in pairs:
        calibration = bundle.calibration(backend, precision)
        assert calibration is not None  # checked by chosen_pairs
        outputs, engine = backend_outputs(
            backend, bundle.model_path(precision), bundle.preprocess, {"": data.images.images}, progress, bundle.monitor
        )
        classes = outputs[""].logits.shape[1]
        if classes != len(bundle.labels):
            raise BundleError(f"bundle {bundle.path}: {len(bundle.labels)} labels, {classes} logits")
        sides.append(Side(record_key(backend, precision), engine, outputs[""], calibration))
    return compare_sides(sides[0], sides[1], data.images.labels, worst, progress)


def _print(comparison: Comparison, labels: tuple[str, ...], names: tuple[str, ...]) -> None:
    count = comparison.images
    table = Table(title=f"{count} images, each engine with its own calibration")
    for column in ("", "engine", "accuracy", "coverage", "errors among accepted", "not finite"):
        table.add_column(column, justify="right" if column not in ("", "engine") else "left", no_wrap=True)
    for tally in (comparison.first, comparison.second):
        risk = f"{tally.false_accepts} ({tally.false_accepts / tally.accepted:.2%})" if tally.accepted else "-"
        table.add_row(
            tally.key, tally.engine, f"{tally.accuracy:.2%}", f"{tally.accepted / count:.1%}", risk,
            str(tally.not_finite),
        )  # fmt: skip
    OUT.print(table)
    to_stdout(
        f"same label {comparison.same_label}/{count} ({comparison.same_label / count:.2%}), same verdict "
        f"{comparison.same_verdict}/{count} ({comparison.same_verdict / count:.2%})"
    )
    lost = comparison.loss
    to_stdout(
        f"only {comparison.second.key} accepts {lost.new_accepts}, "
        f"only {comparison.first.key} accepts {lost.new_rejects}; both accept, with different labels, "
        f"{lost.contradictions}"
    )
    differences = {**comparison.largest, "logit": comparison.largest_logit}
    to_stdout("largest difference: " + ", ".join(f"{name} {value:.3g}" for name, value in differences.items()))
    if comparison.worst:
        OUT.print(_worst_table(comparison, labels, names))
    to_stdout("verify: " + ("failed" if comparison.failures else "passed"))


def _worst_table(comparison: Comparison, labels: tuple[str, ...], names: tuple[str, ...]) -> Table:
    named = any(names)
    table = Table(title="Worst frames")
    columns = ["frame", *(["file"] if named else []), "label", comparison.first.key, comparison.second.key]
    for column in columns:
        table.add_column(column, justify="right" if column == "frame" else "left", overflow="fold")
    for frame in comparison.worst:
        file = [names[frame.index]] if named else []
        table.add_row(
            str(frame.index), *file, labels[frame.label], _words(frame.first, labels), _words(frame.second, labels)
        )
    return table


def _words(decision: Decision, labels: tuple[str, ...]) -> str:
    if decision.predicted < 0:
        return f"no finite output, REJECT ({', '.join(decision.reasons)})"
    verdict = "ACCEPT" if decision.accepted else f"REJECT ({', '.join(decision.reasons)})"
    return (
        f"{labels[decision.predicted]}, entropy {decision.scores.entropy:.4f}, margin {decision.scores.margin:.3f}, "
        f"{verdict}"
    )
