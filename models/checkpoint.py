"""Checkpoints: everything needed to rebuild a trained classifier, weights in float16 where that loses nothing."""

from __future__ import annotations

import io
import json
import lzma
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from framegate.models.registry import build
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
    _check_record(path, record)
    state = record.pop("state")
    try:
        model.load_state_dict({n: value.float() if value.is_floating_point() else value for n, value in state.items()})
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"checkpoint {path}: its weights are not those of its architecture ({reason})") from error
    return model.eval(), record


def _check_record(path: str | Path, record: dict[str, Any]) -> None:
    """Refuse labels, notes and weights that no training writes.

    Raises:
        DataError: They are of another kind; the message names them.
    """
    labels, notes = record.get("labels"), record.get("notes")
    classes = record["architecture"]["classes"]
    if not (isinstance(labels, list) and all(isinstance(each, str) for each in labels) and len(labels) == classes):
        raise DataError(f"checkpoint {path}: its labels are not {classes} names, one for each output; train it again")
    try:
        plain = isinstance(notes, dict) and bool(json.dumps(notes))
    except (TypeError, ValueError):
        plain = False
    if not plain or not isinstance(record.get("state"), dict):
        raise DataError(f"checkpoint {path}: its notes or its weights are not those of a training; train it again")
