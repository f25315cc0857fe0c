"""What the parts of a record of `framegate gate` are called."""

from __future__ import annotations

ATTACKS_FORMAT = "framegate-attack-table-2"
"""Of the records of `framegate attacks`."""
FORMAT = "framegate-gate-1"
RULES = {"entropy": "entropy alone", "gate": "the whole gate", "promised": "the gate as calibrated"}
"""Key of an acceptance rule (`framegate.evaluation.gate.rules`) -> what tables call it."""
MAIN_ATTACKS = ("FGSM 8/255", "PGD-20 8/255")
"""The attacks that every summary shows; both families were attacks that the monitors were fitted on."""
WINDOWS = (1, 4, 8, 16, 32)
"""Frames in a window over the stream."""
