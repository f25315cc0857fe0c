"""Checkpoints: everything needed to rebuild a trained classifier, weights in float16 where that loses nothing."""

from __future__ import annotations

import io
import lzma
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from framegate.models.registry import build
from framegate.models.training.settings import LARGEST_HELD_OUT
from framegate.runtime.errors import DataError, UsageError

FORMAT = "framegate-checkpoint-1"
PACKED = ".xz"
"""Ending of a checkpoint that was compressed (``xz -9 NAME.pt``), as the shipped ones are; nothing of it gets lost."""


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    architecture: dict[str, Any],
    labels: tuple[str, ...],
    notes: dict[str, Any],
) -> None:
    """Write a checkpoint, completely or not at all.

    Convolution and linear weights are stored as float16 **and rounded in ``model`` too**, so the model in memory is
    exactly the one that a later load gives. Everything else stays float32.

    Args:
        path: Target file.
        model: Its weights are rounded in place.
        architecture: ``name`` of the registry, number of ``classes``, and the options that differ from its defaults.
        labels: One per class.
        notes: Free record: data, settings, accuracy; must hold plain Python values.
    """
    state = {}
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.dim() > 1:
            half = value.to(torch.float16)
            value.copy_(half)
            state[name] = half
        else:
            state[name] = value.clone()
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(target.suffix + ".part")
    record = {"format": FORMAT, "architecture": architecture, "labels": list(labels), "notes": notes, "state": state}
    torch.save(record, temporary)
    os.replace(temporary, target)


def checkpoint_content(path: str | Path) -> bytes:
    """The bytes of a checkpoint as they were saved, also of a compressed one.

    Raises:
        DataError: The file is missing, or cannot be read.
    """
    try:
        content = Path(path).read_bytes()
        return lzma.decompress(content) if Path(path).suffix == PACKED else content
    except FileNotFoundError as error:
        raise DataError(f"checkpoint {path}: no such file") from error
    except (OSError, lzma.LZMAError) as error:
        raise DataError(f"checkpoint {path}: cannot be read ({error})") from error


def load_checkpoint(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Rebuild the model in evaluation mode, float32.

    Returns:
        The model and the record without its weights (``architecture``, ``labels``, ``notes``).

    Raises:
        DataError: The file is missing, damaged or of another kind.
    """
    content = checkpoint_content(path)
    try:
        record = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever strange bytes provoke
        raise DataError(
            f"checkpoint {path}: cannot be read; it is damaged or not written by framegate train"
        ) from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DataError(f"checkpoint {path}: not a {FORMAT} file; train one with `framegate train`")
    try:
        options = dict(record["architecture"])
        model = build(str(options.pop("name")), int(options.pop("classes")), options)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise DataError(
            f"checkpoint {path}: its network {record.get('architecture')!r} is unknown to this version ({error})"
        ) from error
    state = record.pop("state")
    try:
        model.load_state_dict({n: value.float() if value.is_floating_point() else value for n, value in state.items()})
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"checkpoint {path}: its weights are not those of its architecture ({reason})") from error
    return model.eval(), record


def held_out_share(notes: Mapping[str, Any]) -> float:
    """Share of the training split's units that trained nothing in a checkpoint, as its notes say; 0 if they do not.

    Nor chosen by them: training against attacks stops early by them, and keeps the weights that were best on them. What
    a teacher had seen is not known, so a network that had one has none. One that began with another's weights has those
    that neither run trained on, if both held out the same.

    Args:
        notes: Of a checkpoint.
    """
    settings = notes.get("settings")
    if not isinstance(settings, dict) or notes.get("teacher") or settings.get("adversarial") != "none":
        return 0.0
    share = settings.get("held_out")
    # What no training holds out is no record of one; taken at its word, it would let training images prove.
    if not (isinstance(share, float) and 0 < share <= LARGEST_HELD_OUT):
        return 0.0
    return share if not notes.get("start") or notes.get("start_held_out") == share else 0.0
