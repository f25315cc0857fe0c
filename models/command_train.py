"""``framegate train``: train an architecture on a data set and write a checkpoint."""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from framegate.models import datasets
from framegate.models.checkpoint import load_checkpoint, save_checkpoint
from framegate.models.datasets import DataSet
from framegate.models.gtsrb import with_mirror_images
from framegate.models.held_out import held_out, hold_out, require_same_copy
from framegate.models.hybrid import HybridClassifier
from framegate.models.labelled import LabelledImages, fingerprint
from framegate.models.pixels import PixelInput, to_pixels
from framegate.models.plain_cnn import PlainCNN
from framegate.models.predict import predict
from framegate.models.registry import ARCHITECTURES, Architecture, architecture, build
from framegate.models.summaries import SUMMARIES
from framegate.models.teacher import teacher_logits
from framegate.models.training import augment
from framegate.models.training.interval_bounds import certified_accuracy
from framegate.models.training.loop import Task, Trainer, TrainingStopped, choose_device
from framegate.models.training.masked_views import masked
from framegate.models.training.report import epoch_line, open_tensorboard, plot_curves
from framegate.models.training.settings import ADVERSARIAL, MIRROR_IMAGES, OPTIMIZERS, TrainSettings
from framegate.models.widening import widen
from framegate.runtime.bundle.bundle import Bundle, sha256_file
from framegate.runtime.cli.options import require_distinct
from framegate.runtime.cli.signals import EndedBySignal, received, stopped_by_signals
from framegate.runtime.console import json_to_stdout, note, progress_bar, to_stderr, to_stdout
from framegate.runtime.errors import UsageError

_CHOICES = {"adversarial": ADVERSARIAL, "optimizer": OPTIMIZERS, "mirror_images": MIRROR_IMAGES}
_SETTINGS: dict[str, tuple[str | None, str]] = {
    "epochs": ("N", "passes over the training images"),
    "batch": ("N", "images per step"),
    "optimizer": (None, "adamw, or sgd with Nesterov momentum 0.9"),
    "learning_rate": ("RATE", "peak of the cosine schedule, above 0; parameters named trunk.* get a quarter of it"),
    "weight_decay": ("RATE", "0 or more: decoupled for adamw, L2 for sgd"),
    "label_smoothing": ("SHARE", "share of each target that is spread over all labels, 0 to below 1"),
    "average": ("SHARE", "decay per step of the moving average of the weights, 0 to below 1"),
    "frozen_blocks": ("N", "hybrid: first blocks of the trunk that keep their ImageNet weights, 0 to 19"),
    "views": ("N", "hybrid: augmented views of each image that are kept behind the frozen blocks"),
    "outlier_share": ("SHARE", "outlier images per training image in a batch, 0 to 1"),
    "outlier_weight": ("WEIGHT", "weight of the outliers in the loss, 0 or more"),
    "distillation": ("SHARE", "with --teacher: share of the teacher's answers in the loss, 0 to 1"),
    "distillation_temperature": ("TEMPERATURE", "with --teacher: temperature of both networks' softmax, above 0"),
    "adversarial": (
        None,
        "training against an attack; it freezes no block and uses no outliers unless told to; with --interval-bounds "
        "the attacked images take the place of the clean ones beside the worst case",
    ),
    "epsilon": (
        "DISTANCE",
        "largest change of a pixel by that attack, pixels from 0 to 1; 8/255 is 0.03137; with --interval-bounds "
        "theirs if not given",
    ),
    "attack_steps": ("N", "steps of that attack for pgd and trades"),
    "beta": ("WEIGHT", "weight of the robust term of trades, 0 or more"),
    "entropy_weight": (
        "WEIGHT",
        "how much a low entropy of wrong answers to attacked images costs in adversarial training, 0 or more",
    ),
    "patience": ("EPOCHS", "adversarial training stops after so many epochs without better robust accuracy"),
    "masked_views": ("SHARE", "share of the images in which a square is hidden, for patch certificates, 0 to 1"),
    "mask_side": ("SHARE", "largest side of that square as a share of the image's side, above 0.15 and below 1"),
    "mask_choices": ("N", "of so many random squares the one is hidden that costs the network most"),
    "interval_bounds": (
        "DISTANCE",
        "plaincnn: train the worst case within this change of a pixel, by interval bounds; "
        "pixels from 0 to 1; 2/255 can be written so; 0 for none",
    ),
    "interval_ramp": (
        "SHARE",
        "share of the training over which that change grows from 0, after a short warm-up; 0 takes all of it at once, "
        "to train a checkpoint further (--start)",
    ),
    "interval_weight": ("SHARE", "share of that worst case in the loss, 0 to 1"),
    "mirror_images": (
        None,
        "traffic signs: relabelled also trains on the mirror images that are signs, too, under those signs' labels",
    ),
    "held_out": (
        "SHARE",
        "share of the training split's images or tracks that do not train: for the accuracy that is printed, and for "
        "framegate certify, above 0 and at most 0.5",
    ),
    "seed": ("N", "seed of everything random"),
}
"""Setting -> unit and meaning, for the help."""
_HYBRID = ARCHITECTURES["hybrid"].options
"""The only architecture that knows all options, with their defaults."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``train`` to the command line."""
    known = "; ".join(f"{a.name}: {a.about}" for a in ARCHITECTURES.values())
    parser = commands.add_parser("train", help=SUMMARIES["train"], epilog=f"Architectures: {known}.")
    parser.add_argument("architecture", choices=list(ARCHITECTURES), metavar="ARCH", help=", ".join(ARCHITECTURES))
    parser.add_argument("--data", required=True, type=Path, help="folder or file with the data set")
    parser.add_argument(
        "--dataset", choices=datasets.NAMES, help="which data set it is (default: found out from the folder)"
    )
    parser.add_argument("--download", action="store_true", help="fetch the data set into --data first (see --dataset)")
    parser.add_argument("--out", type=Path, help="checkpoint to write (default: runs/ARCH-DATASET.pt)")
    parser.add_argument(
        "--start",
        type=Path,
        metavar="FILE",
        help="checkpoint of the same architecture and labels to start from, to train it further; a narrower one is "
        "widened (default: none)",
    )
    parser.add_argument(
        "--trunk-weights",
        type=Path,
        metavar="FILE",
        help="hybrid: state dict (.pth) of MobileNetV2's features.* (default: none, the hybrid needs it)",
    )
    parser.add_argument(
        "--trunk-convention",
        choices=["keras", "torchvision"],
        default="keras",
        help="hybrid: whose padding and epsilon the trunk was trained with (default: %(default)s)",
    )
    parser.add_argument(
        "--convolution",
        choices=["grouped", "depthwise"],
        default="grouped",
        help="hybrid: second convolution of the head (default: %(default)s)",
    )
    parser.add_argument("--no-attention", action="store_true", help="without squeeze-and-excitation")
    parser.add_argument(
        "--width", type=int, metavar="N", help="plaincnn, resnet20: channels of the first convolution (default: 24, 16)"
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="FILE",
        help="checkpoint or bundle of a better network on the same data, to learn from (default: none)",
    )
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="where to train; auto takes a GPU if there is one (default: %(default)s)",
    )
    parser.add_argument(
        "--tensorboard",
        type=Path,
        metavar="DIR",
        help="also write a TensorBoard log of every epoch into this folder (default: none)",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the state that an interrupted run left")
    parser.add_argument("--restart", action="store_true", help="forget the state that an interrupted run left")
    settings = parser.add_argument_group("training settings", "Where defaults differ, the architecture is named.")
    for field in fields(TrainSettings):
        unit, text = _SETTINGS[field.name]
        settings.add_argument(
            "--" + field.name.replace("_", "-"),
            type=_distance if unit == "DISTANCE" else type(field.default),
            choices=_CHOICES.get(field.name),
            metavar=unit,
            help=f"{text} (default: {_defaults(field.name, field.default)})",
        )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def _distance(text: str) -> float:
    """A change of a pixel: a number, or a fraction such as 2/255."""
    whole, _, part = text.partition("/")
    try:
        return float(whole) / float(part) if part else float(whole)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} given, expected a number or a fraction such as 2/255") from None


def _defaults(name: str, common: object) -> str:
    """The default of a training setting, and those of the architectures whose recipe has another one."""
    by_value: dict[object, list[str]] = {}
    for each in ARCHITECTURES.values():
        if each.recipe.get(name, common) != common:
            by_value.setdefault(each.recipe[name], []).append(each.name)
    own = [f"{', '.join(names)}: {value}" for value, names in by_value.items()]
    return "; ".join([f"{common:.4g}" if isinstance(common, float) else str(common), *own])


def _settings(chosen: Architecture, arguments: argparse.Namespace) -> TrainSettings:
    """The architecture's recipe, overruled by what was given."""
    asked = {f.name: getattr(arguments, f.name) for f in fields(TrainSettings)}
    given = {name: value for name, value in asked.items() if value is not None}
    recipe = dict(chosen.recipe)
    if given.get("adversarial", "none") != "none":
        recipe.update(frozen_blocks=0, outlier_share=0.0)
        if given.get("interval_bounds"):
            recipe["epsilon"] = given["interval_bounds"]
    settings = TrainSettings(**{**recipe, **given})
    for name in given:
        if (needed := settings.without(name, arguments.teacher is not None)) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')}: it changes nothing without {needed}; give that, too, or leave it out"
            )
    return settings


def _options(chosen: Architecture, arguments: argparse.Namespace) -> dict[str, Any]:
    """The architecture's options that were asked for and differ from the defaults."""
    asked = {
        "convolution": arguments.convolution,
        "keras_trunk": arguments.trunk_convention == "keras",
        "attention": not arguments.no_attention,
    }
    if arguments.width is not None:
        if "width" not in chosen.options:
            raise UsageError(f"--width: {chosen.name} has no width to choose")
        asked["width"] = arguments.width
    options = {}
    for name, value in asked.items():
        if name in chosen.options:
            if value != chosen.options[name]:
                options[name] = value
        elif value != _HYBRID[name]:
            option = {"attention": "no-attention", "keras_trunk": "trunk-convention"}.get(name, name)
            raise UsageError(f"--{option}: {chosen.name} has nothing that it changes; leave it out")
    if arguments.trunk_weights is not None and "keras_trunk" not in chosen.options:
        raise UsageError(f"--trunk-weights: {chosen.name} has no trunk; leave it out")
    return options


def _augmentation(data: DataSet, settings: TrainSettings) -> augment.Augmentation:
    if data.depth > 1:
        if settings.masked_views:
            raise UsageError("masked views hide a square of an image; for volumes give --masked-views 0")
        return augment.volumes(data.depth)
    signs = data.name == "gtsrb"
    if settings.interval_bounds:
        views = augment.moderate_signs if signs else augment.mirrored(augment.mild)
    else:
        views = augment.signs if signs else augment.objects
    # With a choice among masks the training loop makes them: it asks the network.
    apart = settings.masked_views and settings.mask_choices == 1
    return masked(views, settings.masked_views, settings.mask_side) if apart else views


def _load_start(
    model: torch.nn.Module,
    arguments: argparse.Namespace,
    wanted: dict[str, Any],
    data: DataSet,
    images: LabelledImages,
) -> tuple[str, str]:
    """Give a new network the weights of a checkpoint; a narrower one is widened.

    Args:
        model: The network.
        arguments: Of the command line.
        wanted: Its architecture, classes and options.
        data: What is trained on.
        images: Its whole training split.

    Returns:
        The data set that trained those weights, empty if that is not known; and the fingerprint of those of this data
        set's training images that did not train them, likewise.

    Raises:
        DataError: The checkpoint was trained on another copy of the data set.
        UsageError: It is another network, it has other labels, or trunk weights were given, too.
    """
    path: Path = arguments.start
    if arguments.trunk_weights is not None:
        raise UsageError(
            "--start and --trunk-weights were both given; a checkpoint has a trunk already: give one of them"
        )
    trained, record = load_checkpoint(path)
    held = record["architecture"]
    has, asked = (each.get("width", architecture(each["name"]).options.get("width", 0)) for each in (held, wanted))
    same = {**held, "width": 0} == {**wanted, "width": 0} and tuple(record["labels"]) == data.labels
    if not same or has > asked:
        raise UsageError(
            f"--start {path}: it holds {held} with {len(record['labels'])} labels, asked for is {wanted} on "
            f"{data.name}; give a checkpoint of the same network, no wider, and of the same labels"
        )
    if has < asked:
        widen(model, trained.state_dict(), arguments.seed or 0)
    else:
        model.load_state_dict(trained.state_dict())
    notes = record["notes"]
    require_same_copy(f"--start {path}", notes, data.name, data.title, images)
    held = held_out(notes) if notes.get("data") == data.name else None
    return str(notes.get("data", "")), "" if held is None else held.sha256


def _certified(model: PlainCNN, split: LabelledImages, chosen: Architecture, radius: float) -> float:
    """Share of a split that interval bounds prove right within the radius."""
    prepare, right = PixelInput(chosen.preprocess), 0
    for k in range(0, len(split), 250):
        pixels = to_pixels(split.images[k : k + 250])
        right += certified_accuracy(model, prepare, pixels, torch.from_numpy(split.labels[k : k + 250]), radius)
    return right / len(split)


def run(arguments: argparse.Namespace) -> int:
    """Train, report clean accuracy on a held-out part of the training split, and save."""
    chosen = architecture(arguments.architecture)
    settings, options = _settings(chosen, arguments), _options(chosen, arguments)
    _check_out(arguments)
    device = choose_device(arguments.device)
    data = _open_data(arguments)
    note(f"reading {arguments.data} ({data.name})")
    if (data.depth > 1) != (chosen.preprocess.depth > 1):
        kind = "volumes" if data.depth > 1 else "images"
        raise UsageError(f"{chosen.name} does not take {kind}, and {data.name} holds {kind}; give another pair")
    # Calibration and test images are not looked at: what is to prove a threshold must not have been seen before.
    images = data.load_training(arguments.data)[0]
    train, apart = hold_out(images, settings.held_out)
    if settings.mirror_images == "relabelled":
        if data.name != "gtsrb":
            raise UsageError(
                f"--mirror-images relabelled: it knows which traffic signs are another's mirror image, {data.name} "
                "holds none; leave it out"
            )
        train = with_mirror_images(train)
    torch.manual_seed(settings.seed)
    record = {"name": chosen.name, "classes": len(data.labels), **options}
    model = build(chosen.name, len(data.labels), options)
    start_data = start_held_out = ""
    if arguments.start is not None:
        start_data, start_held_out = _load_start(model, arguments, record, data, images)
    elif isinstance(model, HybridClassifier):
        if arguments.trunk_weights is None:
            raise UsageError(
                "the hybrid starts from an ImageNet trunk: give --trunk-weights FILE, a state dict with torchvision's "
                "MobileNetV2 features.* names, or --start FILE, a checkpoint of a trained hybrid"
            )
        model.trunk.load_weights(str(arguments.trunk_weights))
    out = arguments.out or Path(f"runs/{chosen.name}-{data.name}.pt")
    state_file = out.with_suffix(".state")
    if state_file.exists() and not (arguments.resume or arguments.restart):
        raise UsageError(
            f"{state_file} is left from an interrupted run: give --resume to go on, or --restart to begin anew"
        )
    teacher = None if arguments.teacher is None else teacher_logits(arguments.teacher, data, images, train, device)
    started = time.monotonic()
    task = Task(
        model, chosen.preprocess, train, apart, _augmentation(data, settings), teacher, device,
        chosen.bfloat16_on_cpu, _made_of(arguments, record, data, images),
    )  # fmt: skip
    note(_beginning(task, settings, device, f"{chosen.name} on {data.name}"))
    curves = out.with_suffix(".curves.png")
    trainer = _train(task, settings, state_file, curves, arguments)
    if trainer.stop_reason:
        to_stderr(f"stopped early: {trainer.stop_reason}")
    minutes = (time.monotonic() - started) / 60
    model.cpu()
    notes = {
        "data": data.name,
        "data_citation": data.citation,
        "settings": settings.to_json(),
        # Resolved, because "." has no name, and a network without a teacher's name had none.
        "teacher": arguments.teacher.resolve().name if arguments.teacher else "",
        "start": str(arguments.start.name) if arguments.start else "",
        "start_data": start_data,
        "start_held_out": start_held_out,
        "held_out_sha256": fingerprint(apart),
        "device": device,
        "history": trainer.history,
        "train_minutes": round(minutes, 1),
    }
    # Saving rounds the weights, so accuracy is measured afterwards: it belongs to the file, not to the memory.
    save_checkpoint(out, model, record, data.labels, notes)
    logits = predict(model, apart.images, chosen.preprocess)
    accuracy = {apart.name: float(np.mean(logits.argmax(1) == apart.labels))}
    said = [f"{apart.name}: accuracy {accuracy[apart.name]:.4f} on {len(apart)} images"]
    if isinstance(model, PlainCNN) and settings.interval_bounds:
        accuracy["certified"] = _certified(model, apart, chosen, settings.interval_bounds)
        radius = settings.interval_bounds * 255
        said.append(f"{apart.name}: {accuracy['certified']:.4f} certified within {radius:g}/255")
    save_checkpoint(out, model, record, data.labels, {**notes, "accuracy": accuracy})
    state_file.unlink(missing_ok=True)
    if arguments.json:
        json_to_stdout({"checkpoint": str(out), "curves": str(curves), "accuracy": accuracy, **notes})
        return 0
    for line in (*said, f"trained in {minutes:.1f} min; checkpoint: {out}; curves: {curves}"):
        to_stdout(line)
    return 0


def _check_out(arguments: argparse.Namespace) -> None:
    """Find out before the training whether its checkpoint can be written.

    Raises:
        UsageError: It cannot, or it would take the place of something else.
    """
    out: Path | None = arguments.out
    if out is None:
        return
    if out.suffix == ".state" or out.is_dir():
        found = "a folder" if out.is_dir() else "the name of what an interrupted training leaves"
        raise UsageError(f"--out {out}: {found}; give the name of a file, such as runs/signs.pt")
    # A checkpoint that is trained further may be replaced by what became of it.
    require_distinct((str(each) for each in (arguments.teacher, arguments.trunk_weights) if each is not None), out)
    parent = next(each for each in out.absolute().parents if each.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
        raise UsageError(f"--out {out}: cannot write in {parent}; give another folder")


def _made_of(
    arguments: argparse.Namespace, record: Mapping[str, Any], data: DataSet, images: LabelledImages
) -> dict[str, str]:
    """What decides a run besides its settings, see `Task.made_of`.

    Args:
        arguments: Of the command line; the files that they name were read.
        record: The network.
        data: What is trained on.
        images: Its whole training split.
    """
    found = {"--data": f"{data.name} with the SHA-256 {fingerprint(images)[:16]}", "network": json.dumps(record)}
    for option, path in (
        ("--start", arguments.start),
        ("--trunk-weights", arguments.trunk_weights),
        ("--teacher", arguments.teacher),
    ):
        if path is not None:
            sha256 = Bundle.open(path).digest if path.is_dir() else sha256_file(path)
            found[option] = f"a file with the SHA-256 {sha256[:16]}"
    return found


def _beginning(task: Task, settings: TrainSettings, device: str, what: str) -> str:
    """What is about to happen, said before the first step, which can take a minute."""
    where = f"{torch.get_num_threads()} CPU threads" if device == "cpu" else device
    return (
        f"training {what}: {len(task.train)} images, {settings.epochs} epochs in batches of "
        f"{min(settings.batch, len(task.train))}, {where}; {len(task.watched)} images of the training split are held "
        "out to measure accuracy. Ctrl-C saves the state"
    )


def _train(
    task: Task, settings: TrainSettings, state_file: Path, curves: Path, arguments: argparse.Namespace
) -> Trainer:
    """Train to the end, with a line, a plot and what else was asked for after every epoch.

    Raises:
        EndedBySignal: A signal stopped the run, whose state is then saved.
    """
    with ExitStack() as closing:
        log = None if arguments.tensorboard is None else open_tensorboard(arguments.tensorboard, closing)
        progress = closing.enter_context(progress_bar())

        def report(history: list[dict[str, float]]) -> None:
            note(epoch_line(history, settings.epochs))
            plot_curves(history, curves, curves.name.removesuffix(".curves.png"))
            if log is not None:
                log(history)

        try:
            trainer = Trainer(task, settings, state_file, progress, report)
        except KeyboardInterrupt:
            kept = "the saved state stays as it was" if arguments.resume else "nothing is kept"
            to_stderr(f"stopped before the first step of training: {kept}")
            raise
        stopped = run_until_stopped(trainer, arguments.resume)
    if stopped:
        to_stderr(f"{stopped}; the state is saved in {state_file}: the same command with --resume goes on from here")
        raise EndedBySignal(received() or signal.SIGINT)
    return trainer


def run_until_stopped(trainer: Trainer, resume: bool) -> str:
    """Train to the end, or until a signal asks for a stop: then where that was, otherwise an empty text."""

    def stop() -> None:
        to_stderr("finishing this step, then the state is saved ...")
        trainer.stop()

    try:
        with stopped_by_signals(stop):
            trainer.run(resume=resume)
    except TrainingStopped as stopped:
        return str(stopped)
    return ""


def _open_data(arguments: argparse.Namespace) -> DataSet:
    if arguments.download:
        if arguments.dataset is None:
            raise UsageError(f"--download needs --dataset, one of {', '.join(datasets.NAMES)}")
        with progress_bar() as progress:
            datasets.download(arguments.dataset, arguments.data, progress)
    return datasets.dataset(arguments.dataset) if arguments.dataset else datasets.detect(arguments.data)
