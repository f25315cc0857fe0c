"""What a training run reports after every epoch: a line, a plot of the curves, and a TensorBoard log if asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from framegate.runtime.errors import UsageError

History = Sequence[dict[str, float]]

_WORDS = {
    "loss": "loss {:.3f}",
    "train_accuracy": "training accuracy {:.3f}",
    "held_out_accuracy": "held-out accuracy {:.3f}",
    "robust_held_out_accuracy": "under attack {:.3f}",
    "outlier_loss": "outlier loss {:.3f}",
    "learning_rate": "learning rate {:.2g}",
    "seconds": "{:.0f} s",
}
_CURVES = {
    "train_accuracy": "training images, augmented",
    "held_out_accuracy": "held-out training images",
    "robust_held_out_accuracy": "held-out training images, attacked",
}


def epoch_line(history: History, epochs: int) -> str:
    """The last epoch in one line, with an estimate of the rest from the last three epochs."""
    record = history[-1]
    words = [text.format(record[name]) for name, text in _WORDS.items() if name in record]
    left = epochs - int(record["epoch"])
    recent = [each["seconds"] for each in history[-3:] if "seconds" in each]
    if left and recent:
        words.append(f"about {_duration(left * sum(recent) / len(recent))} left")
    return f"epoch {int(record['epoch'])}/{epochs}: {', '.join(words)}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def plot_curves(history: History, path: Path, title: str) -> None:
    """Draw loss and accuracies over the epochs, completely or not at all.

    Args:
        history: One record per epoch; nothing is drawn for an empty one.
        path: PNG file.
        title: Of the picture.
    """
    if not history:
        return
    from matplotlib.figure import Figure  # takes half a second, and most commands of this room draw nothing

    epochs = [record["epoch"] for record in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [record["loss"] for record in history], color="#1f5fa8", marker=".")
    left.set(xlabel="epoch", ylabel="loss on training images")
    for name, label in _CURVES.items():
        points = [(record["epoch"], record[name]) for record in history if name in record]
        if points:
            right.plot(*zip(*points, strict=True), marker=".", label=label)
    right.set(xlabel="epoch", ylabel="share of images named rightly")
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    figure.savefig(part, format="png", dpi=110)
    os.replace(part, path)


def open_tensorboard(folder: Path, closing: contextlib.ExitStack) -> Callable[[History], None]:
    """Write what every epoch measured as TensorBoard events.

    Args:
        folder: Where the events go.
        closing: Closes the file.

    Returns:
        To be called with the history after every epoch.

    Raises:
        UsageError: The package is not installed, or the folder cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "--tensorboard needs the package tensorboard, which is not installed: pip install 'framegate[tensorboard]'"
        ) from error
    try:
        writer: Any = SummaryWriter(str(folder))
    except OSError as error:
        raise UsageError(f"--tensorboard {folder}: it cannot be written ({error.strerror})") from error
    closing.callback(writer.close)

    def write(history: History) -> None:
        record = history[-1]
        for name, value in record.items():
            if name != "epoch":
                writer.add_scalar(name, value, int(record["epoch"]))
        writer.flush()

    return write
