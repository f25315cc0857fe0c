"""``framegate train``: train an architecture on a data set and write a checkpoint."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from framegate.models import cifar10
from framegate.models.checkpoint import save_checkpoint
from framegate.models.hybrid import HybridClassifier
from framegate.models.train_hybrid import TrainSettings, predict, train_hybrid
from framegate.runtime.console import progress_bar, say


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``train`` to the command line."""
    parser = commands.add_parser("train", help="train a classifier and write a checkpoint (needs PyTorch)")
    parser.add_argument("architecture", choices=["hybrid"])
    parser.add_argument("--data", required=True, type=Path, help="folder with the unpacked CIFAR-10 archive")
    parser.add_argument("--trunk-weights", required=True, type=Path, help="MobileNetV2 features.* state dict (.pth)")
    parser.add_argument(
        "--trunk-convention", choices=["keras", "torchvision"], default="keras", help="padding and epsilon of the trunk"
    )
    parser.add_argument("--convolution", choices=["grouped", "depthwise"], default="grouped", help="head variant")
    parser.add_argument("--out", type=Path, default=Path("runs/hybrid-cifar10.pt"), help="checkpoint to write")
    defaults = TrainSettings()
    parser.add_argument("--frozen-blocks", type=int, default=defaults.frozen_blocks, help="trunk blocks kept, 0..19")
    parser.add_argument("--views", type=int, default=defaults.views, help="cached augmented views of each image")
    parser.add_argument("--epochs", type=int, default=defaults.epochs)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, report clean accuracy on the calibration and test splits, and save."""
    settings = TrainSettings(
        frozen_blocks=arguments.frozen_blocks, views=arguments.views, epochs=arguments.epochs, seed=arguments.seed
    )
    train, calibration = cifar10.load_training(arguments.data)
    test = cifar10.load_test(arguments.data)
    architecture = {
        "classes": len(cifar10.LABELS),
        "convolution": arguments.convolution,
        "keras_trunk": arguments.trunk_convention == "keras",
    }
    model = HybridClassifier(**architecture)
    model.trunk.load_weights(str(arguments.trunk_weights))
    started = time.monotonic()
    with progress_bar() as progress:
        history = train_hybrid(model, train, settings, progress)
    minutes = (time.monotonic() - started) / 60
    notes = {
        "data": "CIFAR-10",
        "settings": vars(settings),
        "history": history,
        "train_minutes": round(minutes, 1),
    }
    architecture = {"name": "hybrid", **architecture}
    # Saving rounds the weights, so accuracy is measured afterwards: it belongs to the file, not to the memory.
    save_checkpoint(arguments.out, model, architecture, cifar10.LABELS, notes)
    accuracy = {}
    for split in (calibration, test):
        accuracy[split.name] = float(np.mean(predict(model, split.images).argmax(1) == split.labels))
        say(f"{split.name}: accuracy {accuracy[split.name]:.4f} on {len(split)} images")
    save_checkpoint(arguments.out, model, architecture, cifar10.LABELS, {**notes, "accuracy": accuracy})
    say(f"trained in {minutes:.1f} min; checkpoint: {arguments.out}")
    return 0
